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
            Field::number("initial_retry_delay").default(Literal::Number(0.01)),
            Field::number("max_retry_delay").default_int(60),
            Field::integer("concurrency_limit").default_int(1).one_of(&[Literal::Int(1), Literal::Int(-1)]),
        ]
    };
}

static RECORD: Record = Record::of(fields!(1));

/// The field `queue`.
pub(super) const QUEUE: Field = Field::record("queue", &RECORD).required().default(Literal::OfFields);

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
        }
    }

    /// Reads the field `queue` of a configuration.
    ///
    /// # Errors
    /// A delay out of its range.
    pub(super) fn of(config: &Map<String, Value>) -> Result<Self, ConfigError> {
        let empty = Map::new();
        let queue = config.get("queue").and_then(Value::as_object).unwrap_or(&empty);
        let delay = |name: &str, absent: f64| {
            let seconds = settings::number(queue, name).unwrap_or(absent);
            match (0.001..=1_000_000.0).contains(&seconds) {
                true => Ok(Duration::from_secs_f64(seconds)),
                false => Err(ConfigError {
                    field: format!("queue.{name}"),
                    message: "value should be between 0.001 and 1000000".to_owned(),
                }),
            }
        };
        let count =
            |name: &str, absent: usize| settings::number(queue, name).map_or(absent, |number| number.max(0.0) as usize);
        let retry_s = settings::number(queue, "max_retry_time").unwrap_or(60.0);
        let coalescing_s = settings::number(queue, "max_coalescing_delay").unwrap_or(1.0);
        Ok(Self {
            batch_max: count("max_batch_size", 1),
            coalescing: Duration::from_secs_f64(coalescing_s.clamp(0.0, 3600.0)),
            entries_max: count("max_entries", 10_000),
            bytes_max: settings::number(queue, "max_bytes").map(|bytes| bytes.max(0.0) as usize),
            retry_for: (retry_s >= 0.0).then(|| Duration::from_secs_f64(retry_s.min(1e9))),
            first_retry_after: delay("initial_retry_delay", 0.01)?,
            retry_after_max: delay("max_retry_delay", 60.0)?,
            each_alone: settings::number(queue, "concurrency_limit") == Some(-1.0),
        })
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

    fn rules(queue: Value) -> Result<QueueRules, ConfigError> {
        QueueRules::of(json!({ "queue": queue }).as_object().expect("an object"))
    }

    #[test]
    fn delays_between_tries_double_up_to_their_bound() {
        let rules = rules(json!({ "initial_retry_delay": 0.01, "max_retry_delay": 0.05 })).expect("a good queue");
        let delays: Vec<u128> = (1..=5).map(|failures| rules.retry_after(failures).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 50, 50]);
        assert_eq!(rules.retry_after(u32::MAX).as_millis(), 50);
    }

    #[test]
    fn a_delay_out_of_range_is_refused_by_its_name() {
        let error = rules(json!({ "initial_retry_delay": 0.0001 })).expect_err("too short");
        assert_eq!(error.field, "queue.initial_retry_delay");
        assert_eq!(error.message, "value should be between 0.001 and 1000000");
    }

    #[test]
    fn a_negative_retry_time_means_one_try() {
        assert_eq!(rules(json!({ "max_retry_time": -1 })).expect("a good queue").retry_for, None);
        assert_eq!(rules(json!({})).expect("a good queue").retry_for, Some(Duration::from_secs(60)));
    }
}
