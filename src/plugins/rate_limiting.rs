//! HOT: with the local policy a request costs a hash lookup and a compare-and-swap per period.
//! rate-limiting: how often somebody may ask within a second, minute, ... (spec/plugins.md C.1).
//! Always: with the local policy exactly the limit passes, over all cores; a node with a store of its own is its whole
//! cluster, so that the cluster policy counts as the local one does.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Pattern;
use crate::http::fields::Fields;
use crate::limits;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::counted_for::CountedFor;
use crate::plugins::counts::COUNT_MAX;
use crate::plugins::identifier::LimitBy;
use crate::plugins::periods;
use crate::plugins::periods::Limits;
use crate::plugins::periods::PERIODS;
use crate::plugins::periods::Period;
use crate::plugins::periods::Remaining;
use crate::plugins::redis;
use crate::plugins::redis::Expires;
use crate::plugins::redis::RedisCounter;
use crate::plugins::redis::RedisCounting;
use crate::plugins::redis::RedisServer;
use crate::plugins::settings;
use crate::plugins::syncing;
use crate::plugins::syncing::Syncing;
use crate::plugins::view::View;
use crate::stdx::decimal::Decimal;
use crate::strs;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "rate-limiting",
        &[
            periods::FIELDS[0],
            periods::FIELDS[1],
            periods::FIELDS[2],
            periods::FIELDS[3],
            periods::FIELDS[4],
            periods::FIELDS[5],
            Field::string("limit_by").default_str("consumer").one_of(strs![
                "consumer",
                "credential",
                "ip",
                "service",
                "header",
                "path"
            ]),
            Field::string("header_name"),
            Field::string("path")
                .starts_with("/")
                .match_none(&[Pattern { lua: "//", err: "must not have empty segments" }]),
            Field::string("policy").default_str("local").len_min(0).one_of(strs!["local", "cluster", "redis"]),
            Field::boolean("fault_tolerant").required().default_bool(true),
            redis::REDIS,
            Field::boolean("hide_client_headers").required().default_bool(false),
            Field::number("error_code").default_int(429).gt(0),
            Field::string("error_message").default_str("API rate limit exceeded"),
            Field::number("sync_rate").required().default_int(-1),
        ],
    )
    .config_rule(options_go_together)
    .checks(&[
        EntityCheck::AtLeastOneOf(&[
            "config.second",
            "config.minute",
            "config.hour",
            "config.day",
            "config.month",
            "config.year",
        ]),
        redis::DEMANDS_HOST,
        redis::DEMANDS_PORT,
        redis::DEMANDS_TIMEOUT,
        EntityCheck::conditional(
            "config.limit_by",
            Match::Eq(Literal::Str("header")),
            "config.header_name",
            Match::Required,
        ),
        EntityCheck::conditional("config.limit_by", Match::Eq(Literal::Str("path")), "config.path", Match::Required),
    ])
    .aliases(redis::redis_aliases!("rate-limiting")),
    priority: 910,
    build,
};

struct RateLimiting {
    limits: Limits,
    limit_by: LimitBy,
    policy: Policy,
    fault_tolerant: bool,
    hides_headers: bool,
    error_code: u16,
    error_message: Box<str>,
    /// Names of the header fields of each period: limit and remaining.
    names: [[Box<str>; 2]; PERIODS],
}

/// Where uses are counted.
enum Policy {
    /// In this process.
    Local,
    /// In this process, and every now and then in Redis with the uses of other processes.
    Synced(Arc<Syncing>),
    /// In Redis, by every request.
    Redis(Arc<RedisServer>),
}

fn options_go_together(config: &Map<String, Value>) -> Result<(), String> {
    periods::are_ordered(config)?;
    let sync_rate = config.get("sync_rate").and_then(Value::as_f64).unwrap_or(-1.0);
    if sync_rate != -1.0 && settings::text(config, "policy") != Some("redis") {
        return Err("sync_rate can only be used with the redis policy".to_owned());
    }
    if sync_rate != -1.0 && sync_rate < 0.02 {
        return Err("Config option 'sync_rate' must not be a value between 0 and 0.02".to_owned());
    }
    Ok(())
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let limits = Limits::of(config);
    let sync_rate_s = config.get("sync_rate").and_then(Value::as_f64).unwrap_or(-1.0);
    let policy = match (settings::text(config, "policy"), RedisServer::of(config)) {
        (Some("redis"), Some(server)) if sync_rate_s > 0.0 => {
            Policy::Synced(Arc::new(Syncing::new(server.into(), (sync_rate_s * 1000.0) as u64, limits)))
        }
        (Some("redis"), Some(server)) => Policy::Redis(server.into()),
        _ => Policy::Local,
    };
    let mut names: [[Box<str>; 2]; PERIODS] = Default::default();
    for period in Period::all() {
        let name = |what: &str| format!("X-RateLimit-{what}-{}", period.title()).into();
        names[period.index()] = [name("Limit"), name("Remaining")];
    }
    // What Redis counts has no bound.
    let too_high = limits.each().find(|(_, limit)| *limit > COUNT_MAX && !matches!(policy, Policy::Redis(_)));
    if let Some((period, limit)) = too_high {
        let message = format!("{limit} is more than can be counted here; the highest limit is {COUNT_MAX}");
        return Err(ConfigError { field: period.name().to_owned(), message });
    }
    let error_code = config.get("error_code").and_then(Value::as_f64).unwrap_or(429.0);
    if !(100.0..1000.0).contains(&error_code) {
        let message = format!("{error_code} is no HTTP status");
        return Err(ConfigError { field: "error_code".to_owned(), message });
    }
    Ok(Box::new(RateLimiting {
        limits,
        limit_by: LimitBy::of(config),
        policy,
        fault_tolerant: settings::flag(config, "fault_tolerant"),
        hides_headers: settings::flag(config, "hide_client_headers"),
        error_code: error_code as u16,
        error_message: settings::text(config, "error_message").unwrap_or_default().into(),
        names,
    }))
}

impl Plugin for RateLimiting {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let now_s = view.now_unix_ms / 1000;
        match &self.policy {
            Policy::Local => {
                let remaining = CountedFor::with(view, &self.limit_by, |counted| {
                    let key = view.core.counts.key(&counted.parts(b"rate-limiting"));
                    view.core.counts.with(key, now_s, |counter| counter.take(&self.limits, now_s, 1))
                });
                self.decide(view, now_s, &remaining)
            }
            Policy::Synced(syncing) if syncing.is_enlisted() => self.take_synced(view, syncing, now_s),
            Policy::Synced(syncing) => {
                view.ask(Question::Synchronise(syncing.clone()), limits::SYNCHRONISATION_BEGINS_MS)
            }
            Policy::Redis(server) => {
                let counters = CountedFor::with(view, &self.limit_by, |counted| {
                    let name = counted.redis_name("ratelimit");
                    let counter = |(period, _): (Period, u64)| RedisCounter {
                        key: syncing::key(&name, period, period.window_start_s(now_s)),
                        by: 1,
                        expires: Expires::AfterFirstUse { seconds: period.length_s() },
                    };
                    self.limits.each().map(counter).collect()
                });
                view.notes.numbers[0] = now_s;
                view.ask(Question::Count(RedisCounting { server: server.clone(), counters }), server.patience_ms())
            }
        }
    }

    fn answered(&self, view: &mut View<'_>, answer: Answer) -> Verdict {
        match (&self.policy, answer) {
            // If nobody could see to it yet, the next request asks again.
            (Policy::Synced(syncing), _) => self.take_synced(view, syncing, view.now_unix_ms / 1000),
            (_, Answer::Counted(counts)) => {
                let mut remaining = Remaining::default();
                for ((period, limit), count) in self.limits.each().zip(counts) {
                    remaining.set(period, limit, (limit as i64).saturating_sub(count - 1));
                }
                self.decide(view, view.notes.numbers[0], &remaining)
            }
            _ if self.fault_tolerant => Verdict::Continue,
            _ => {
                view.reply.gateway(500, "An unexpected error occurred");
                Verdict::Reply
            }
        }
    }
}

impl RateLimiting {
    fn take_synced(&self, view: &mut View<'_>, syncing: &Arc<Syncing>, now_s: u64) -> Verdict {
        let remaining = CountedFor::with(view, &self.limit_by, |counted| {
            let key = view.core.counts.key(&[b"rate-limiting", &syncing.scope(), counted.identifier]);
            view.core.counts.with(key, now_s, |counter| {
                syncing.join(counter, || counted.redis_name("ratelimit").into());
                counter.take(&self.limits, now_s, 1)
            })
        });
        self.decide(view, now_s, &remaining)
    }

    /// Lets the request pass or not, and tells the client how it stands.
    fn decide(&self, view: &mut View<'_>, now_s: u64, remaining: &Remaining) -> Verdict {
        let spent = remaining.spent();
        if !self.hides_headers {
            self.tell(&mut view.reply.fields, now_s, remaining);
        }
        if spent.is_none() {
            return Verdict::Continue;
        }
        view.reply.gateway(self.error_code, &self.error_message);
        Verdict::Reply
    }

    fn tell(&self, fields: &mut Fields, now_s: u64, remaining: &Remaining) {
        let spent = remaining.spent();
        let is_counted = |period: Period| spent.is_none() || spent == Some(period);
        let mut put = |name: &str, number: u64| fields.set_by_name(&[], name.as_bytes(), Decimal::of(number).bytes());
        for (period, limit, left) in remaining.each() {
            let [limit_name, remaining_name] = &self.names[period.index()];
            put(limit_name, limit);
            put(remaining_name, shown(left, is_counted(period)));
        }
        // The period with the least left; of equal ones the longest.
        let tightest = remaining.each().rev().min_by_key(|(period, _, left)| shown(*left, is_counted(*period)));
        let Some((period, limit, left)) = tightest else { return };
        let reset_s = period.reset_s(now_s);
        put("RateLimit-Limit", limit);
        put("RateLimit-Remaining", shown(left, is_counted(period)));
        put("RateLimit-Reset", reset_s);
        if spent.is_some() {
            put("Retry-After", reset_s);
        }
    }
}

/// What is left once this request is counted, as clients are told.
fn shown(left: i64, is_counted: bool) -> u64 {
    (left - i64::from(is_counted)).max(0) as u64
}

#[cfg(test)]
#[path = "rate_limiting_tests.rs"]
mod tests;
