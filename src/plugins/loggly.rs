//! loggly: records as syslog datagrams to Loggly (spec/plugins.md F.3).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::queue;
use crate::plugins::settings;
use crate::plugins::severities;
use crate::plugins::severities::Severities;
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;
use crate::plugins::shipping::Udp;

const TAG: Field = Field::string("");

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "loggly",
        &[
            Field::string("host").default_str("logs-01.loggly.com").check(Check::Host),
            Field::integer("port").default_int(514).between(0, 65535),
            Field::string("key").required().encrypted().referenceable(),
            Field::set("tags", &TAG).default_strs(&["kong"]),
            severities::field("log_level"),
            severities::field("successful_severity"),
            severities::field("client_errors_severity"),
            severities::field("server_errors_severity"),
            Field::number("timeout").default_int(10_000),
            queue::CUSTOM_FIELDS,
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 6,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loggly {
    pub to: Udp,
    pub key: Box<str>,
    pub tags: Vec<String>,
    pub severities: Severities,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    Ok(Box::new(Ships(Shipping::Loggly(Loggly {
        to: Udp {
            host: settings::text(config, "host").unwrap_or("logs-01.loggly.com").into(),
            port: settings::port(config, "port"),
            timeout: settings::millis(config, "timeout", 10_000),
        },
        key: settings::text(config, "key").unwrap_or_default().into(),
        tags: settings::texts(config, "tags").map(str::to_owned).collect(),
        severities: Severities::of(config),
    }))))
}
