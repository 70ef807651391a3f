//! The `queue` record of plugins that ship, and what its fields mean (spec/plugins.md F.1).
//! Never: holds an entry; the queues are the control plane's.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::plugins::ConfigError;
use crate::plugins::settings;

/// How a queue sends, keeps and gives up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueRules {
    /// Entries that are sent together.
    pub batch_max: usize,
    /// How long the first entry of a batch waits for others.
    pub coalescing: Duration,
    /// Entries that may wait; when there are more, the oldest is dropped.
    pub entries_max: usize,
    /// Bytes that may wait; `None`: the bound of the program.
    pub bytes_max: Option<usize>,
    /// For how long a batch is sent again; `None`: it is sent once.
    pub retry_for: Option<Duration>,
    pub first_retry_after: Duration,
    pub retry_after_max: Duration,
    /// Every entry is sent at once and alone.
    pub each_alone: bool,
    /// Of a full queue the newest entry is dropped instead of the oldest.
    pub newest_gives_way: bool,
}

/// The fields, with the given default of `max_batch_size`.
macro_rules! fields {
    ($batch:expr) => {
        &[
            Field::integer("max_batch_size").default_int($batch).between(1, 1_000_000),
            Field::number("max_coalescing_delay").default_int(1).between(0, 3600),
            Field::integer("max_entries").default_int(10_000).between(1, 1_000_000),
            Field::integer("max_bytes"),
            Field::number("max_retry_time").default_int(60),
            Field::number("initial_retry_delay").default(Literal::Number(0.01)).between_numbers(0.001, 1_000_000.0),
            Field::number("max_retry_delay").default_int(60).between_numbers(0.001, 1_000_000.0),
            Field::integer("concurrency_limit").default_int(1).one_of(&[Literal::Int(-1), Literal::Int(1)]),
        ]
    };
}

static RECORD: Record = Record::of(fields!(1));
static RECORD_OF_200: Record = Record::of(fields!(200));

/// The field `queue`.
pub(super) const QUEUE: Field = Field::record("queue", &RECORD).required();

/// The same, where many entries go together.
pub(super) const QUEUE_OF_200: Field = Field::record("queue", &RECORD_OF_200).required();

/// A field from before there was `queue`.
macro_rules! old_field {
    ($plugin:literal, retry_count) => {
        Field::integer("retry_count").deprecated(&$crate::entity::schema::Deprecation {
            message: concat!(
                $plugin,
                ": config.retry_count no longer works, please use config.queue.max_retry_time instead"
            ),
            removal_in_version: "4.0",
            old_default: 10,
        })
    };
    ($plugin:literal, queue_size) => {
        Field::integer("queue_size").deprecated(&$crate::entity::schema::Deprecation {
            message: concat!(
                $plugin,
                ": config.queue_size is deprecated, please use config.queue.max_batch_size instead"
            ),
            removal_in_version: "4.0",
            old_default: 1,
        })
    };
    ($plugin:literal, flush_timeout) => {
        Field::number("flush_timeout").deprecated(&$crate::entity::schema::Deprecation {
            message: concat!(
                $plugin,
                ": config.flush_timeout is deprecated, please use config.queue.max_coalescing_delay instead"
            ),
            removal_in_version: "4.0",
            old_default: 2,
        })
    };
}
pub(super) use old_field;

/// The fields that the old ones set, and the values of the old ones that mean nothing.
const OLD_BATCH_MAX: (&str, f64) = ("queue_size", 1.0);
const OLD_COALESCING: (&str, f64) = ("flush_timeout", 2.0);
const OLD_SPANS_MAX: (&str, f64) = ("batch_span_count", 200.0);
const OLD_SPANS_DELAY: (&str, f64) = ("batch_flush_delay", 3.0);

/// A map of Lua functions: there for the schema, refused when used.
pub(super) const CUSTOM_FIELDS: Field = {
    const NAME: Field = Field::string("").len_min(1);
    const CODE: Field = Field::string("").len_min(1);
    Field::map("custom_fields_by_lua", &NAME, &CODE)
};

/// Refuses functions in Lua.
pub(super) fn refuse_custom_fields(config: &Map<String, Value>) -> Result<(), ConfigError> {
    match config.get("custom_fields_by_lua").and_then(Value::as_object) {
        Some(fields) if !fields.is_empty() => Err(ConfigError {
            field: "custom_fields_by_lua".to_owned(),
            message: "functions in Lua are not supported: there is no scripting engine".to_owned(),
        }),
        _ => Ok(()),
    }
}

impl QueueRules {
    /// One entry, one try: for destinations without a `queue` field. Many waiting entries may share a write.
    pub const fn plain(batch_max: usize) -> Self {
        Self {
            batch_max,
            coalescing: Duration::ZERO,
            entries_max: 10_000,
            bytes_max: None,
            retry_for: None,
            first_retry_after: Duration::ZERO,
            retry_after_max: Duration::ZERO,
            each_alone: false,
            newest_gives_way: false,
        }
    }

    /// Reads the field `queue` of a configuration, and the old fields that say the same.
    pub(super) fn of(config: &Map<String, Value>) -> Self {
        let empty = Map::new();
        let queue = config.get("queue").and_then(Value::as_object).unwrap_or(&empty);
        let old = |(name, nothing)| settings::number(config, name).filter(|given| *given != nothing);
        let number = |name: &str, absent: f64| settings::number(queue, name).unwrap_or(absent);
        let seconds = |name: &str, absent: f64| Duration::from_secs_f64(number(name, absent).clamp(0.001, 1e6));
        let retry_s = number("max_retry_time", 60.0);
        let coalescing_s = old(OLD_COALESCING).unwrap_or(number("max_coalescing_delay", 1.0));
        Self {
            batch_max: old(OLD_BATCH_MAX).unwrap_or(number("max_batch_size", 1.0)).max(1.0) as usize,
            coalescing: Duration::from_secs_f64(coalescing_s.clamp(0.0, 3600.0)),
            entries_max: number("max_entries", 10_000.0).max(1.0) as usize,
            bytes_max: settings::number(queue, "max_bytes").map(|bytes| bytes.max(0.0) as usize),
            retry_for: (retry_s >= 0.0).then(|| Duration::from_secs_f64(retry_s.min(1e9))),
            first_retry_after: seconds("initial_retry_delay", 0.01),
            retry_after_max: seconds("max_retry_delay", 60.0),
            each_alone: number("concurrency_limit", 1.0) == -1.0,
            newest_gives_way: false,
        }
    }

    /// As [`Self::of`], with the old fields of opentelemetry.
    pub(super) fn of_spans(config: &Map<String, Value>) -> Self {
        let old = |(name, nothing)| settings::number(config, name).filter(|given| *given != nothing);
        let rules = Self::of(config);
        Self {
            batch_max: old(OLD_SPANS_MAX).map_or(rules.batch_max, |max| max.max(1.0) as usize),
            coalescing: old(OLD_SPANS_DELAY)
                .map_or(rules.coalescing, |delay_s| Duration::from_secs_f64(delay_s.clamp(0.0, 3600.0))),
            ..rules
        }
    }

    /// How long to wait before a batch is sent again that has failed so many times, the first time included.
    pub fn retry_after(&self, failures: u32) -> Duration {
        let factor = 2f64.powi(failures.saturating_sub(1).min(64) as i32);
        let wanted_s = self.first_retry_after.as_secs_f64() * factor;
        Duration::from_secs_f64(wanted_s.min(self.retry_after_max.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(queue: Value) -> QueueRules {
        QueueRules::of(json!({ "queue": queue }).as_object().expect("an object"))
    }

    #[test]
    fn delays_between_tries_double_up_to_their_bound() {
        let rules = rules(json!({ "initial_retry_delay": 0.01, "max_retry_delay": 0.05 }));
        let delays: Vec<u128> = (1..=5).map(|failures| rules.retry_after(failures).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 50, 50]);
        assert_eq!(rules.retry_after(u32::MAX).as_millis(), 50);
    }

    #[test]
    fn fields_from_before_the_queue_hold_unless_they_say_what_they_said_when_absent() {
        let told = |config: Value| {
            let rules = QueueRules::of(config.as_object().expect("an object"));
            (rules.batch_max, rules.coalescing.as_secs())
        };
        let queue = json!({ "max_batch_size": 5, "max_coalescing_delay": 7 });
        assert_eq!(told(json!({ "queue": queue, "queue_size": 9, "flush_timeout": 3 })), (9, 3));
        assert_eq!(told(json!({ "queue": queue, "queue_size": 1, "flush_timeout": 2 })), (5, 7));
        assert_eq!(told(json!({ "queue": queue, "queue_size": null })), (5, 7));
    }

    #[test]
    fn a_negative_retry_time_means_one_try() {
        assert_eq!(rules(json!({ "max_retry_time": -1 })).retry_for, None);
        assert_eq!(rules(json!({})).retry_for, Some(Duration::from_secs(60)));
    }
}
