//! http-log: records as JSON to an HTTP server (spec/plugins.md F.1, F.3).

use std::time::Duration;

use base64::Engine;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Pattern;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::endpoint::Endpoint;
use crate::plugins::queue;
use crate::plugins::queue::QueueRules;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;
use crate::strs;

const HEADER: Field = Field::string("").check(Check::HeaderName).match_none(&[
    Pattern { lua: "^[Hh][Oo][Ss][Tt]$", err: "cannot contain 'Host' header" },
    Pattern {
        lua: "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Ll][Ee][nn][Gg][Tt][Hh]$",
        err: "cannot contain 'Content-Length' header",
    },
    Pattern { lua: "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Tt][Yy][Pp][Ee]$", err: "cannot contain 'Content-Type' header" },
]);
const HEADER_VALUE: Field = Field::string("").referenceable();

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "http-log",
        &[
            Field::string("http_endpoint").required().check(Check::Custom(Endpoint::check)).referenceable().encrypted(),
            Field::string("method").default_str("POST").one_of(strs!["POST", "PUT", "PATCH"]),
            Field::string("content_type")
                .default_str("application/json")
                .one_of(strs!["application/json", "application/json; charset=utf-8"]),
            Field::number("timeout").default_int(10_000),
            Field::number("keepalive").default_int(60_000),
            queue::old_field!("http-log", retry_count),
            queue::old_field!("http-log", queue_size),
            queue::old_field!("http-log", flush_timeout),
            Field::map("headers", &HEADER, &HEADER_VALUE),
            queue::QUEUE,
            queue::CUSTOM_FIELDS,
        ],
    )
    .protocols(PROTOCOLS_ANY)
    .config_rule(one_authorization),
    priority: 12,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpLog {
    pub endpoint: Endpoint,
    pub method: Box<str>,
    pub content_type: Box<str>,
    /// Of each step of an exchange.
    pub timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// With `Authorization`, if the URL tells a user.
    pub headers: Vec<(String, String)>,
    pub queue: QueueRules,
}

impl HttpLog {
    /// Whether both may share a queue.
    pub fn shares_queue_with(&self, other: &Self) -> bool {
        let told =
            |of: &Self| (of.endpoint.clone(), of.method.clone(), of.content_type.clone(), of.timeout, of.keepalive);
        told(self) == told(other)
    }
}

fn one_authorization(config: &Map<String, Value>) -> Result<(), String> {
    let url = settings::text(config, "http_endpoint").unwrap_or_default();
    let tells_user = Endpoint::parse(url).is_ok_and(|endpoint| endpoint.userinfo.is_some());
    let has_header = settings::pairs(config, "headers").iter().any(|(name, _)| is_authorization(name));
    match tells_user && has_header {
        true => {
            Err("specifying both an 'Authorization' header and user info in 'http_endpoint' is not allowed".to_owned())
        }
        false => Ok(()),
    }
}

fn is_authorization(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    let url = settings::text(config, "http_endpoint").unwrap_or_default();
    let endpoint =
        Endpoint::parse(url).map_err(|message| ConfigError { field: "http_endpoint".to_owned(), message })?;
    let mut headers = settings::pairs(config, "headers");
    if let Some(userinfo) = &endpoint.userinfo {
        let encoded = base64::engine::general_purpose::STANDARD.encode(userinfo.as_bytes());
        headers.push(("Authorization".to_owned(), format!("Basic {encoded}")));
    }
    let text = |name: &str, absent: &str| settings::text(config, name).unwrap_or(absent).into();
    Ok(Box::new(Ships(Shipping::Http(HttpLog {
        endpoint,
        method: text("method", "POST"),
        content_type: text("content_type", "application/json"),
        timeout: settings::millis(config, "timeout", 10_000),
        keepalive: settings::millis(config, "keepalive", 60_000),
        headers,
        queue: QueueRules::of(config),
    }))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    #[test]
    fn a_user_in_the_url_becomes_a_header_and_excludes_another_one() {
        let built = plugin(&KIND, json!({ "http_endpoint": "http://u:p@h/" }));
        let Some(Shipping::Http(config)) = built.ships() else { panic!("http-log ships over HTTP") };
        assert_eq!(config.headers, [("Authorization".to_owned(), "Basic dTpw".to_owned())]);
        let both = json!({ "http_endpoint": "http://u:p@h/", "headers": { "authorization": "x" } });
        assert!(one_authorization(both.as_object().expect("an object")).is_err());
    }
}
