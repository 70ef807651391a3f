//! HOT: with the local policy a request costs a hash lookup per limit, a response a compare-and-swap per period.
//! response-ratelimiting: the upstream says in its response what a request has used up (spec/plugins.md C.2).
//! Always: with the local policy a response passes only if something was left of each limit that it uses, counted at once
//! over all cores; a node with a store of its own is its whole cluster, so that the cluster policy counts as the local one.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::http::fields::is_token;
use crate::http::fields::tokens;
use crate::http::fields::trim_ows;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::counted_for::CountedFor;
use crate::plugins::counts::COUNT_MAX;
use crate::plugins::counts::CoreCounts;
use crate::plugins::counts::Counter;
use crate::plugins::counts::Retired;
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
use crate::plugins::view::LogView;
use crate::plugins::view::Notes;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::stdx::decimal::Decimal;
use crate::strs;

const LIMIT: Record = Record::of(&periods::FIELDS)
    .checks(&[EntityCheck::AtLeastOneOf(&["second", "minute", "hour", "day", "month", "year"])])
    .custom(periods::are_ordered);
const NAME: Field = Field::string("");
const VALUE: Field = Field::record("", &LIMIT).required();

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "response-ratelimiting",
        &[
            Field::string("header_name").default_str("x-kong-limit"),
            Field::string("limit_by").default_str("consumer").one_of(strs!["consumer", "credential", "ip"]),
            Field::string("policy").default_str("local").one_of(strs!["local", "cluster", "redis"]),
            Field::boolean("fault_tolerant").required().default_bool(true),
            redis::REDIS,
            Field::boolean("block_on_first_violation").required().default_bool(false),
            Field::boolean("hide_client_headers").required().default_bool(false),
            Field::map("limits", &NAME, &VALUE).required().len_min(1),
        ],
    )
    .checks(&[redis::DEMANDS_HOST, redis::DEMANDS_PORT, redis::DEMANDS_TIMEOUT])
    .aliases(redis::redis_aliases!("response-ratelimiting")),
    priority: 900,
    build,
};

struct ResponseRateLimiting {
    header_name: Box<str>,
    limit_by: LimitBy,
    /// Where uses are counted; `None`: in this process.
    redis: Option<Arc<RedisServer>>,
    fault_tolerant: bool,
    blocks_early: bool,
    hides_headers: bool,
    limits: Box<[NamedLimit]>,
}

/// What is limited under one name, and the texts that have it.
struct NamedLimit {
    name: Box<str>,
    limits: Limits,
    upstream_field: Box<str>,
    /// By period: limit and remaining.
    client_fields: [[Box<str>; 2]; PERIODS],
    violated: Box<str>,
}

/// Where a request stands, in the first of the plugin's numbers.
const UNKNOWN: u64 = 0;
const KNOWN: u64 = 1;
/// Redis did not answer: what is used is told to it nevertheless.
const UNANSWERED: u64 = 2;
const STOPPED: u64 = 3;

/// The plugin's numbers.
const STAGE: usize = 0;
/// Key of the counters of this request, less the names of the limits.
const KEY: usize = 1;
/// When the request came, seconds since 1970.
const TIME: usize = 2;
/// Where in the plugin's bytes the response's header begins. Before it: with Redis, the beginning of the names of counters.
const HEADER_AT: usize = 3;

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let redis = match settings::text(config, "policy") {
        Some("redis") => RedisServer::of(config).map(Arc::new),
        _ => None,
    };
    let mut limits = Vec::new();
    for (name, limit) in config.get("limits").and_then(Value::as_object).into_iter().flatten() {
        let Some(limit) = limit.as_object() else { continue };
        let named = NamedLimit::new(name, Limits::of(limit));
        if let Some((period, limit)) = named.limits.each().find(|(_, limit)| *limit > COUNT_MAX && redis.is_none()) {
            let message = format!("{limit} is more than can be counted here; the highest limit is {COUNT_MAX}");
            return Err(ConfigError { field: format!("limits.{name}.{}", period.name()), message });
        }
        if !is_token(name.as_bytes()) {
            let message = format!("'{name}' cannot stand in the name of a header");
            return Err(ConfigError { field: format!("limits.{name}"), message });
        }
        limits.push(named);
    }
    Ok(Box::new(ResponseRateLimiting {
        header_name: settings::text(config, "header_name").unwrap_or_default().into(),
        limit_by: LimitBy::of(config),
        redis,
        fault_tolerant: settings::flag(config, "fault_tolerant"),
        blocks_early: settings::flag(config, "block_on_first_violation"),
        hides_headers: settings::flag(config, "hide_client_headers"),
        limits: limits.into(),
    }))
}

impl NamedLimit {
    fn new(name: &str, limits: Limits) -> Self {
        let mut client_fields: [[Box<str>; 2]; PERIODS] = Default::default();
        for period in Period::all() {
            let field = |what: &str| format!("X-RateLimit-{what}-{name}-{}", period.name()).into();
            client_fields[period.index()] = [field("Limit"), field("Remaining")];
        }
        Self {
            name: name.into(),
            limits,
            upstream_field: format!("X-RateLimit-Remaining-{name}").into(),
            client_fields,
            violated: format!("API rate limit exceeded for '{name}'").into(),
        }
    }

    /// Counts on the counter of this name in this process.
    fn with_counter(
        &self,
        counts: &CoreCounts,
        notes: &Notes,
        count: impl FnMut(&Arc<Counter>) -> Result<Remaining, Retired>,
    ) -> Remaining {
        let key = counts.key(&[&notes.numbers[KEY].to_le_bytes(), self.name.as_bytes()]);
        counts.with(key, notes.numbers[TIME], count)
    }

    /// How often it is used according to a header such as `name=1, other=3`. Of several mentions the last counts.
    fn increment(&self, header: &[u8]) -> u64 {
        let mentions = tokens(header).filter_map(|mention| {
            let mut parts = mention.split(|&byte| byte == b'=');
            let (name, count) = (trim_ows(parts.next()?), trim_ows(parts.next()?));
            let is_whole = parts.next().is_none() && name == self.name.as_bytes();
            is_whole.then(|| std::str::from_utf8(count).ok()?.parse::<u32>().ok())?
        });
        mentions.last().map_or(0, u64::from)
    }
}

impl Plugin for ResponseRateLimiting {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        view.notes.numbers[TIME] = view.now_unix_ms / 1000;
        let Some(server) = &self.redis else {
            let key =
                CountedFor::with(view, &self.limit_by, |counted| view.core.counts.key(&counted.parts(b"response")));
            view.notes.numbers[KEY] = key;
            let (counts, now_s) = (&view.core.counts, view.notes.numbers[TIME]);
            return self.tell_upstream(view, |_, limit, notes| {
                limit.with_counter(counts, notes, |counter| counter.remaining(&limit.limits, now_s))
            });
        };
        let name = CountedFor::with(view, &self.limit_by, |counted| counted.redis_name("response-ratelimit"));
        view.notes.bytes.clear();
        view.notes.bytes.extend_from_slice(name.as_bytes());
        view.notes.numbers[HEADER_AT] = name.len() as u64;
        let counters = self.redis_counters(view.notes, |_| Some(0));
        view.ask(Question::Count(RedisCounting { server: server.clone(), counters }), server.patience_ms())
    }

    fn answered(&self, view: &mut View<'_>, answer: Answer) -> Verdict {
        if let Answer::Counted(counts) = answer {
            let used = counts.into_iter().flat_map(i64::to_le_bytes);
            view.notes.bytes.extend(used);
            return self.tell_upstream(view, |at, limit, notes| self.as_redis_told(at, limit, notes));
        }
        view.notes.numbers[STAGE] = UNANSWERED;
        if self.fault_tolerant {
            return Verdict::Continue;
        }
        view.reply.gateway(500, "An unexpected error occurred");
        Verdict::Reply
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        // Of several fields all count. The copy outlives the field, for the log phase, too.
        if view.notes.numbers[STAGE] != UNKNOWN {
            let header = view.fields.values_by_name(view.source, self.header_name.as_bytes());
            for value in header {
                view.notes.bytes.extend_from_slice(value);
                view.notes.bytes.push(b',');
            }
        }
        view.fields.remove_by_name(view.source, self.header_name.as_bytes());
        if view.notes.numbers[STAGE] == KNOWN && self.use_up(view) {
            view.notes.numbers[STAGE] = STOPPED;
            view.status = 429;
            view.drop_body = true;
        }
    }

    fn log(&self, view: &mut LogView<'_>) {
        let Some(server) = &self.redis else { return };
        if !matches!(view.notes.numbers[STAGE], KNOWN | UNANSWERED) {
            return;
        }
        let header = self.header(view.notes);
        let counters =
            self.redis_counters(view.notes, |limit| Some(limit.increment(header)).filter(|count| *count > 0));
        if !counters.is_empty() {
            *view.tell = Some(Question::Count(RedisCounting { server: server.clone(), counters }));
        }
    }
}

impl ResponseRateLimiting {
    /// Tells the upstream what is left of each limit, or ends the request if nothing is and so configured.
    fn tell_upstream(
        &self,
        view: &mut View<'_>,
        remaining: impl Fn(usize, &NamedLimit, &Notes) -> Remaining,
    ) -> Verdict {
        let mut at = 0;
        for limit in &self.limits {
            let left = remaining(at, limit, view.notes);
            at += limit.limits.each().count();
            if self.blocks_early && left.spent().is_some() {
                view.reply.gateway(429, &limit.violated);
                return Verdict::Reply;
            }
            let least = left.each().map(|(.., left)| left.max(0)).min().unwrap_or(0);
            let text = Decimal::of(least.unsigned_abs());
            view.fields.set_by_name(view.source, limit.upstream_field.as_bytes(), text.bytes());
        }
        view.notes.numbers[STAGE] = KNOWN;
        Verdict::Continue
    }

    /// Counts what the response says was used, and tells the client how it stands. Whether the response is one too many;
    /// then nothing is counted.
    fn use_up(&self, view: &mut ResponseView<'_>) -> bool {
        let now_s = view.notes.numbers[TIME];
        let counts = &view.core.counts;
        let mut stops_at = None;
        let mut at = 0;
        for (index, limit) in self.limits.iter().enumerate() {
            let by = limit.increment(self.header(view.notes));
            let left = match &self.redis {
                Some(_) => self.as_redis_told(at, limit, view.notes),
                None if by > 0 && stops_at.is_none() => {
                    limit.with_counter(counts, view.notes, |counter| counter.take(&limit.limits, now_s, by))
                }
                None => limit.with_counter(counts, view.notes, |counter| counter.remaining(&limit.limits, now_s)),
            };
            at += limit.limits.each().count();
            if by > 0 && left.spent().is_some() && stops_at.is_none() {
                stops_at = Some(index);
            }
            if self.hides_headers {
                continue;
            }
            for (period, most, left) in left.each() {
                let [limit_field, remaining_field] = &limit.client_fields[period.index()];
                let rest = left.saturating_sub_unsigned(by).max(0).unsigned_abs();
                view.fields.set_by_name(view.source, limit_field.as_bytes(), Decimal::of(most).bytes());
                view.fields.set_by_name(view.source, remaining_field.as_bytes(), Decimal::of(rest).bytes());
            }
        }
        if let (Some(stops_at), None) = (stops_at, &self.redis) {
            for limit in &self.limits[..stops_at] {
                let by = limit.increment(self.header(view.notes));
                limit.with_counter(counts, view.notes, |counter| {
                    counter.give_back(&limit.limits, now_s, by);
                    Ok(Remaining::default())
                });
            }
        }
        stops_at.is_some()
    }

    /// The response's header, as it was noted.
    fn header<'n>(&self, notes: &'n Notes) -> &'n [u8] {
        let counts = if self.redis.is_some() && notes.numbers[STAGE] == KNOWN { self.counters() * 8 } else { 0 };
        notes.bytes.get(notes.numbers[HEADER_AT] as usize + counts..).unwrap_or_default()
    }

    fn counters(&self) -> usize {
        self.limits.iter().map(|limit| limit.limits.each().count()).sum()
    }

    /// What was left of a limit, whose first counter is the one at `at`, when Redis was asked.
    fn as_redis_told(&self, at: usize, limit: &NamedLimit, notes: &Notes) -> Remaining {
        let told = notes.bytes.get(notes.numbers[HEADER_AT] as usize..).unwrap_or_default();
        let mut counts = told.chunks_exact(8).skip(at);
        let mut remaining = Remaining::default();
        for (period, most) in limit.limits.each() {
            let count = counts.next().and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
            remaining.set(period, most, (most as i64).saturating_sub(count));
        }
        remaining
    }

    /// The counters in Redis of the limits that are raised.
    fn redis_counters(&self, notes: &Notes, by: impl Fn(&NamedLimit) -> Option<u64>) -> Vec<RedisCounter> {
        let (now_s, begin) = (notes.numbers[TIME], &notes.bytes[..notes.numbers[HEADER_AT] as usize]);
        let begin = String::from_utf8_lossy(begin);
        let mut counters = Vec::new();
        for limit in &self.limits {
            let Some(by) = by(limit) else { continue };
            counters.extend(limit.limits.each().map(|(period, _)| {
                let start_ms = period.window_start_s(now_s) * 1000;
                let key = format!("{begin}:{start_ms}:{}:{}", limit.name, period.name());
                RedisCounter { key, by, expires: Expires::AfterFirstUse { seconds: period.length_s() } }
            }));
        }
        counters
    }
}

#[cfg(test)]
#[path = "response_ratelimiting_tests.rs"]
mod tests;
