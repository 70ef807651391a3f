//! statsd: figures of each request as lines of statsd (spec/plugins.md G.1).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::checks::Conditional;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
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
use crate::strs;

const NAMES: &[Literal] = strs![
    "kong_latency",
    "latency",
    "request_count",
    "request_per_user",
    "request_size",
    "response_size",
    "status_count",
    "status_count_per_user",
    "unique_users",
    "upstream_latency",
    "status_count_per_workspace",
    "status_count_per_user_per_route",
    "shdict_usage",
];
const TYPES: &[Literal] = strs!["counter", "gauge", "histogram", "meter", "set", "timer"];
const SERVICE_IDENTIFIERS: &[Literal] = strs!["service_id", "service_name", "service_host", "service_name_or_host"];
const WORKSPACE_IDENTIFIERS: &[Literal] = strs!["workspace_id", "workspace_name"];

/// What is sampled has to say how often.
pub(super) const SAMPLED: EntityCheck = EntityCheck::Conditional(Conditional {
    if_field: "stat_type",
    if_match: Match::OneOf(strs!["counter", "gauge"]),
    then_field: "sample_rate",
    then_match: Match::Required,
    then_err: None,
});
const USERS_ARE_A_SET: EntityCheck = EntityCheck::Conditional(Conditional {
    if_field: "name",
    if_match: Match::Eq(Literal::Str("unique_users")),
    then_field: "stat_type",
    then_match: Match::Eq(Literal::Str("set")),
    then_err: None,
});

static METRIC: Record = Record::of(&[
    Field::string("name").required().one_of(NAMES),
    Field::string("stat_type").required().one_of(TYPES),
    Field::number("sample_rate").gt(0),
    Field::string("consumer_identifier").one_of(CONSUMER_IDENTIFIERS),
    Field::string("service_identifier").one_of(SERVICE_IDENTIFIERS),
    Field::string("workspace_identifier").one_of(WORKSPACE_IDENTIFIERS),
])
.checks(&[USERS_ARE_A_SET, SAMPLED]);
static METRIC_ELEMENT: Field = Field::record("", &METRIC);
static RANGE: Field = Field::string("").matches("^%d+%-%d+$");

const COUNTER: (&str, Literal) = ("stat_type", Literal::Str("counter"));
const TIMER: (&str, Literal) = ("stat_type", Literal::Str("timer"));
const EVERY: (&str, Literal) = ("sample_rate", Literal::Int(1));
macro_rules! metric {
    ($name:literal, $($more:expr),+) => {
        Literal::Map(&[("name", Literal::Str($name)), $($more),+])
    };
}
const DEFAULTS: &[Literal] = &[
    metric!("request_count", COUNTER, EVERY),
    metric!("latency", TIMER),
    metric!("request_size", COUNTER, EVERY),
    metric!("status_count", COUNTER, EVERY),
    metric!("response_size", COUNTER, EVERY),
    metric!("unique_users", ("stat_type", Literal::Str("set"))),
    metric!("request_per_user", COUNTER, EVERY),
    metric!("upstream_latency", TIMER),
    metric!("kong_latency", TIMER),
    metric!("status_count_per_user", COUNTER, EVERY),
    metric!("status_count_per_workspace", COUNTER, EVERY),
    metric!("status_count_per_user_per_route", COUNTER, EVERY),
    metric!("shdict_usage", ("stat_type", Literal::Str("gauge")), EVERY),
];

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "statsd",
        &[
            Field::string("host").default_str("localhost").check(Check::Host),
            Field::integer("port").default_int(8125).between(0, 65535),
            Field::string("prefix").default_str("kong"),
            Field::array("metrics", &METRIC_ELEMENT).default(Literal::List(DEFAULTS)),
            Field::array("allow_status_codes", &RANGE),
            Field::number("udp_packet_size").default_int(0).between(0, 65507),
            Field::boolean("use_tcp").default_bool(false),
            Field::boolean("hostname_in_prefix").default_bool(false),
            Field::string("consumer_identifier_default")
                .required()
                .default_str("custom_id")
                .one_of(CONSUMER_IDENTIFIERS),
            Field::string("service_identifier_default")
                .required()
                .default_str("service_name_or_host")
                .one_of(SERVICE_IDENTIFIERS),
            Field::string("workspace_identifier_default")
                .required()
                .default_str("workspace_id")
                .one_of(WORKSPACE_IDENTIFIERS),
            queue::old_field!("statsd", retry_count),
            queue::old_field!("statsd", queue_size),
            queue::old_field!("statsd", flush_timeout),
            Field::string("tag_style").one_of(strs!["dogstatsd", "influxdb", "librato", "signalfx"]),
            queue::QUEUE,
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 11,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Statsd {
    pub host: Box<str>,
    pub port: u16,
    pub prefix: Box<str>,
    pub metrics: Vec<Metric>,
    /// Statuses that are told of, from and to; empty: all.
    pub statuses: Vec<(u16, u16)>,
    /// Lines share a datagram up to so many bytes; 0: each has its own.
    pub packet_bytes: usize,
    pub tcp: bool,
    pub hostname_in_prefix: bool,
    pub tags: Option<TagStyle>,
    pub queue: QueueRules,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub stat: Stat,
    pub consumer: ConsumerBy,
    pub service: ServiceBy,
    pub workspace: WorkspaceBy,
}

/// Which field of a service tells which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceBy {
    Id,
    Name,
    Host,
    NameOrHost,
}

/// Which field of the workspace tells which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceBy {
    Id,
    Name,
}

/// How tags stand in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagStyle {
    Dogstatsd,
    Influxdb,
    Librato,
    Signalfx,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let text = |name: &str, absent: &str| settings::text(config, name).unwrap_or(absent).into();
    let range = |text: &str| {
        let (from, to) = text.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    let statuses = settings::texts(config, "allow_status_codes").map(|text| {
        let message = format!("{text} is no range of statuses");
        range(text).ok_or(ConfigError { field: "allow_status_codes".to_owned(), message })
    });
    let tags = settings::text(config, "tag_style").map(|style| match style {
        "influxdb" => TagStyle::Influxdb,
        "librato" => TagStyle::Librato,
        "signalfx" => TagStyle::Signalfx,
        _ => TagStyle::Dogstatsd,
    });
    Ok(Box::new(Ships(Shipping::Statsd(Statsd {
        host: text("host", "localhost"),
        port: settings::port(config, "port"),
        prefix: text("prefix", "kong"),
        metrics: stats::records(config, "metrics").filter_map(|metric| metric_of(metric, config)).collect(),
        statuses: statuses.collect::<Result<_, _>>()?,
        packet_bytes: settings::number(config, "udp_packet_size").map_or(0, |bytes| bytes as usize),
        tcp: settings::flag(config, "use_tcp"),
        hostname_in_prefix: settings::flag(config, "hostname_in_prefix"),
        tags,
        queue: QueueRules::of(config),
    }))))
}

fn metric_of(metric: &Map<String, Value>, config: &Map<String, Value>) -> Option<Metric> {
    let of_default = |own: &str, default: &str| settings::text(metric, own).or_else(|| settings::text(config, default));
    Some(Metric {
        stat: Stat::of(metric)?,
        consumer: ConsumerBy::named(of_default("consumer_identifier", "consumer_identifier_default")),
        service: match of_default("service_identifier", "service_identifier_default") {
            Some("service_id") => ServiceBy::Id,
            Some("service_name") => ServiceBy::Name,
            Some("service_host") => ServiceBy::Host,
            _ => ServiceBy::NameOrHost,
        },
        workspace: match of_default("workspace_identifier", "workspace_identifier_default") {
            Some("workspace_name") => WorkspaceBy::Name,
            _ => WorkspaceBy::Id,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    #[test]
    fn a_metric_has_identifiers_of_its_own_or_those_of_the_configuration() {
        let metrics = json!([
            { "name": "latency", "stat_type": "timer", "consumer_identifier": "username" },
            { "name": "request_count", "stat_type": "counter", "sample_rate": 0.5, "service_identifier": "service_id" },
        ]);
        let built = plugin(&KIND, json!({ "metrics": metrics, "service_identifier_default": "service_host" }));
        let Some(Shipping::Statsd(config)) = built.ships() else { panic!("statsd ships to statsd") };
        let told: Vec<_> = config.metrics.iter().map(|m| (m.consumer, m.service, m.stat.sample_rate)).collect();
        let want = [(ConsumerBy::Username, ServiceBy::Host, None), (ConsumerBy::CustomId, ServiceBy::Id, Some(0.5))];
        assert_eq!(told, want);
    }

    #[test]
    fn all_default_metrics_are_known() {
        let built = plugin(&KIND, json!({}));
        let Some(Shipping::Statsd(config)) = built.ships() else { panic!("statsd ships to statsd") };
        assert_eq!(config.metrics.len(), 13);
    }

    #[test]
    fn a_range_that_no_status_can_be_in_is_refused() {
        assert_eq!(refusal(&KIND, json!({ "allow_status_codes": ["1-999999"] })).0, "allow_status_codes");
    }
}
