//! tcp-log: one line of JSON per request over a TCP connection (spec/plugins.md F.3).

use std::time::Duration;

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
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "tcp-log",
        &[
            Field::string("host").required().check(Check::Host),
            Field::integer("port").required().between(0, 65535),
            Field::number("timeout").default_int(10_000),
            Field::number("keepalive").default_int(60_000),
            Field::boolean("tls").required().default_bool(false),
            Field::string("tls_sni"),
            queue::CUSTOM_FIELDS,
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 7,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpLog {
    pub host: Box<str>,
    pub port: u16,
    /// Of connecting and of sending.
    pub timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// `Some`: over TLS, with the name that the server is asked for.
    pub tls_name: Option<Box<str>>,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    let host = settings::text(config, "host").unwrap_or_default();
    let name = settings::text(config, "tls_sni").unwrap_or(host);
    Ok(Box::new(Ships(Shipping::Tcp(TcpLog {
        host: host.into(),
        port: settings::port(config, "port"),
        timeout: settings::millis(config, "timeout", 10_000),
        keepalive: settings::millis(config, "keepalive", 60_000),
        tls_name: settings::flag(config, "tls").then(|| name.into()),
    }))))
}
