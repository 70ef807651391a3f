//! udp-log: one datagram of JSON per request (spec/plugins.md F.3).

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
use crate::plugins::shipping::Udp;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "udp-log",
        &[
            Field::string("host").required().check(Check::Host),
            Field::integer("port").required().between(0, 65535),
            Field::number("timeout").default_int(10_000),
            queue::CUSTOM_FIELDS,
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 8,
    build,
};

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    Ok(Box::new(Ships(Shipping::Udp(Udp {
        host: settings::text(config, "host").unwrap_or_default().into(),
        port: settings::port(config, "port"),
        timeout: settings::millis(config, "timeout", 10_000),
    }))))
}
