//! How severe a request is, for syslog and loggly: by the class of its status (spec/plugins.md F.3).

use serde_json::Map;
use serde_json::Value;

use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::plugins::settings;
use crate::strs;

const NAMES: &[Literal] = strs!["debug", "info", "notice", "warning", "err", "crit", "alert", "emerg"];

/// A field that names a severity.
pub(super) const fn field(name: &'static str) -> Field {
    Field::string(name).default_str("info").one_of(NAMES)
}

/// Severities in syslog's numbers: 0 is `emerg`, 7 is `debug`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Severities {
    /// What is less severe is not told.
    pub least: u8,
    pub successful: u8,
    pub client_errors: u8,
    pub server_errors: u8,
}

impl Severities {
    pub(super) fn of(config: &Map<String, Value>) -> Self {
        let number = |name| {
            let given = settings::text(config, name).unwrap_or("info");
            let at = NAMES.iter().position(|known| known.to_value() == given).unwrap_or(1);
            7 - at as u8
        };
        Self {
            least: number("log_level"),
            successful: number("successful_severity"),
            client_errors: number("client_errors_severity"),
            server_errors: number("server_errors_severity"),
        }
    }

    /// The severity of a status; `None`: it is not told.
    pub fn of_status(&self, status: u16) -> Option<u8> {
        let severity = match status {
            500.. => self.server_errors,
            400.. => self.client_errors,
            _ => self.successful,
        };
        (severity <= self.least).then_some(severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_told_if_it_is_severe_enough() {
        let config = json!({ "log_level": "warning", "successful_severity": "notice",
                             "client_errors_severity": "warning", "server_errors_severity": "crit" });
        let severities = Severities::of(config.as_object().expect("an object"));
        let told = [200, 399, 400, 499, 500, 599].map(|status| severities.of_status(status));
        assert_eq!(told, [None, None, Some(4), Some(4), Some(2), Some(2)]);
        let usual = Severities::of(&Map::new());
        assert_eq!([200, 404, 502].map(|status| usual.of_status(status)), [Some(6); 3]);
    }
}
