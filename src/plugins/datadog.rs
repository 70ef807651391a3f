//! datadog: figures of each request to a Datadog agent (spec/plugins.md G.2).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::queue;
use crate::plugins::queue::QueueRules;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;
use crate::plugins::stats;
use crate::plugins::stats::CONSUMER_IDENTIFIERS;
use crate::plugins::stats::ConsumerBy;
use crate::plugins::stats::Stat;
use crate::plugins::statsd::SAMPLED;
use crate::strs;

const NAMES: &[Literal] =
    strs!["kong_latency", "latency", "request_count", "request_size", "response_size", "upstream_latency"];
const TYPES: &[Literal] = strs!["counter", "gauge", "histogram", "meter", "set", "timer", "distribution"];

static TAG: Field = Field::string("").matches("^.*[^:]$");
static METRIC: Record = Record::of(&[
    Field::string("name").required().one_of(NAMES),
    Field::string("stat_type").required().one_of(TYPES),
    Field::array("tags", &TAG),
    Field::number("sample_rate").between(0, 1),
    Field::string("consumer_identifier").one_of(CONSUMER_IDENTIFIERS),
])
.checks(&[SAMPLED]);
static METRIC_ELEMENT: Field = Field::record("", &METRIC);

macro_rules! metric {
    ($name:literal, $type:literal $(, $rate:expr)?) => {
        Literal::Map(&[
            ("name", Literal::Str($name)),
            ("stat_type", Literal::Str($type)),
            $(("sample_rate", Literal::Int($rate)),)?
            ("tags", Literal::Strs(&["app:kong"])),
            ("consumer_identifier", Literal::Str("custom_id")),
        ])
    };
}
const DEFAULTS: &[Literal] = &[
    metric!("request_count", "counter", 1),
    metric!("latency", "timer"),
    metric!("request_size", "timer"),
    metric!("response_size", "timer"),
    metric!("upstream_latency", "timer"),
    metric!("kong_latency", "timer"),
];

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "datadog",
        &[
            Field::string("host").default_str("localhost").check(Check::Host).referenceable(),
            Field::integer("port").default_int(8125).between(0, 65535),
            Field::string("prefix").default_str("kong"),
            Field::string("service_name_tag").default_str("name"),
            Field::string("status_tag").default_str("status"),
            Field::string("consumer_tag").default_str("consumer"),
            queue::old_field!("datadog", retry_count),
            queue::old_field!("datadog", queue_size),
            queue::old_field!("datadog", flush_timeout),
            queue::QUEUE,
            Field::array("metrics", &METRIC_ELEMENT).required().default(Literal::List(DEFAULTS)),
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 10,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Datadog {
    pub host: Box<str>,
    pub port: u16,
    pub prefix: Box<str>,
    pub service_tag: Box<str>,
    pub status_tag: Box<str>,
    pub consumer_tag: Box<str>,
    pub metrics: Vec<Metric>,
    pub queue: QueueRules,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub stat: Stat,
    pub tags: Vec<String>,
    /// `None`: the consumer is not told.
    pub consumer: Option<ConsumerBy>,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let text = |name: &str, absent: &str| settings::text(config, name).unwrap_or(absent).into();
    let metric = |metric: &Map<String, Value>| {
        Some(Metric {
            stat: Stat::of(metric)?,
            tags: settings::texts(metric, "tags").map(str::to_owned).collect(),
            consumer: settings::text(metric, "consumer_identifier").map(|name| ConsumerBy::named(Some(name))),
        })
    };
    Ok(Box::new(Ships(Shipping::Datadog(Datadog {
        host: text("host", "localhost"),
        port: settings::port(config, "port"),
        prefix: text("prefix", "kong"),
        service_tag: text("service_name_tag", "name"),
        status_tag: text("status_tag", "status"),
        consumer_tag: text("consumer_tag", "consumer"),
        metrics: stats::records(config, "metrics").filter_map(metric).collect(),
        queue: QueueRules::of(config),
    }))))
}
