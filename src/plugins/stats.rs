//! What plugins that send metrics measure, and how a measurement counts (spec/plugins.md G.1, G.2).
//! Never: makes a line; that is the control plane's.

use serde_json::Map;
use serde_json::Value;

use crate::entity::schema::Literal;
use crate::plugins::settings;
use crate::strs;

pub(super) const CONSUMER_IDENTIFIERS: &[Literal] = strs!["consumer_id", "custom_id", "username"];

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    RequestCount,
    Latency,
    RequestSize,
    StatusCount,
    ResponseSize,
    UniqueUsers,
    RequestPerUser,
    UpstreamLatency,
    KongLatency,
    StatusCountPerUser,
    StatusCountPerWorkspace,
    StatusCountPerUserPerRoute,
    /// Of Kong's shared dictionaries, which do not exist here: there is nothing to tell.
    ShdictUsage,
}

impl Measure {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "request_count" => Self::RequestCount,
            "latency" => Self::Latency,
            "request_size" => Self::RequestSize,
            "status_count" => Self::StatusCount,
            "response_size" => Self::ResponseSize,
            "unique_users" => Self::UniqueUsers,
            "request_per_user" => Self::RequestPerUser,
            "upstream_latency" => Self::UpstreamLatency,
            "kong_latency" => Self::KongLatency,
            "status_count_per_user" => Self::StatusCountPerUser,
            "status_count_per_workspace" => Self::StatusCountPerWorkspace,
            "status_count_per_user_per_route" => Self::StatusCountPerUserPerRoute,
            "shdict_usage" => Self::ShdictUsage,
            _ => return None,
        })
    }
}

/// Which field of a consumer tells who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerBy {
    Id,
    CustomId,
    Username,
}

impl ConsumerBy {
    pub(super) fn named(name: Option<&str>) -> Self {
        match name {
            Some("consumer_id") => Self::Id,
            Some("username") => Self::Username,
            _ => Self::CustomId,
        }
    }

    /// The name of the field.
    pub fn field(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::CustomId => "custom_id",
            Self::Username => "username",
        }
    }
}

/// What every metric of a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Stat {
    pub measure: Measure,
    /// As a line has it: `c`, `ms`, ...
    pub letters: &'static str,
    /// The share of measurements that are sent; `None`: all.
    pub sample_rate: Option<f64>,
}

impl Stat {
    pub(super) fn of(metric: &Map<String, Value>) -> Option<Self> {
        let letters = match settings::text(metric, "stat_type")? {
            "counter" => "c",
            "distribution" => "d",
            "gauge" => "g",
            "histogram" => "h",
            "meter" => "m",
            "set" => "s",
            _ => "ms",
        };
        Some(Self {
            measure: Measure::named(settings::text(metric, "name")?)?,
            letters,
            sample_rate: settings::number(metric, "sample_rate").filter(|rate| *rate < 1.0),
        })
    }
}

/// The records of a list.
pub(super) fn records<'a>(config: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    config.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}
