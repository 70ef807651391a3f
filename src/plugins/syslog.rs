//! syslog: records to the log of the system (spec/plugins.md F.3).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::queue;
use crate::plugins::settings;
use crate::plugins::severities;
use crate::plugins::severities::Severities;
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;
use crate::strs;

/// Their numbers are in `NUMBERS`.
const FACILITIES: &[Literal] = strs![
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user", "uucp", "local0",
    "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// Of RFC 5424, in the order of `FACILITIES`.
const NUMBERS: [u8; 20] = [4, 10, 9, 3, 11, 0, 6, 2, 7, 5, 1, 8, 16, 17, 18, 19, 20, 21, 22, 23];

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "syslog",
        &[
            severities::field("log_level"),
            severities::field("successful_severity"),
            severities::field("client_errors_severity"),
            severities::field("server_errors_severity"),
            queue::CUSTOM_FIELDS,
            Field::string("facility").default_str("user").one_of(FACILITIES),
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 4,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syslog {
    pub severities: Severities,
    /// Its number; 1 is `user`.
    pub facility: u8,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    let given = settings::text(config, "facility").unwrap_or("user");
    let at = FACILITIES.iter().position(|known| known.to_value() == given);
    let facility = at.map_or(1, |at| NUMBERS[at]);
    Ok(Box::new(Ships(Shipping::Syslog(Syslog { severities: Severities::of(config), facility }))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    #[test]
    fn facilities_have_the_numbers_of_syslog() {
        for (name, want) in [("user", 1), ("local0", 16), ("local7", 23), ("kern", 0), ("authpriv", 10)] {
            let built = plugin(&KIND, json!({ "facility": name }));
            let Some(Shipping::Syslog(config)) = built.ships() else { panic!("syslog ships to syslog") };
            assert_eq!(config.facility, want, "{name}");
        }
    }
}
