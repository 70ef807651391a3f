//! HOT: with the local policy a request costs a hash lookup and a compare-and-swap per period.
//! rate-limiting: how often somebody may ask within a second, minute, ... (spec/plugins.md C.1).
//! Always: with the local policy exactly the limit passes, over all cores; a node with a store of its own is its whole
//! cluster, so that the cluster policy counts as the local one does.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

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
use crate::plugins::counts::COUNT_MAX;
use crate::plugins::identifier::Identifier;
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
use crate::strs;

const REDIS: Literal = Literal::Str("redis");

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "rate-limiting",
        &[
            Field::number("second").gt(0),
            Field::number("minute").gt(0),
            Field::number("hour").gt(0),
            Field::number("day").gt(0),
            Field::number("month").gt(0),
            Field::number("year").gt(0),
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
        EntityCheck::conditional("config.policy", Match::Eq(REDIS), "config.redis.host", Match::Required),
        EntityCheck::conditional("config.policy", Match::Eq(REDIS), "config.redis.port", Match::Required),
        EntityCheck::conditional("config.policy", Match::Eq(REDIS), "config.redis.timeout", Match::Required),
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
                let remaining = self.with_scope(view, |view, scope| {
                    let key = view.core.counts.key(&scope.parts());
                    view.core.counts.with(key, now_s, |counter| counter.take(&self.limits, now_s))
                });
                self.decide(view, now_s, &remaining)
            }
            Policy::Synced(syncing) if syncing.is_enlisted() => self.take_synced(view, syncing, now_s),
            Policy::Synced(syncing) => {
                view.ask(Question::Synchronise(syncing.clone()), limits::SYNCHRONISATION_BEGINS_MS)
            }
            Policy::Redis(server) => {
                let counters = self.with_scope(view, |_, scope| {
                    let name = scope.redis_name();
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

/// For whom is counted.
struct CountedFor<'a> {
    route: Uuid,
    service: Uuid,
    identifier: &'a [u8],
}

impl CountedFor<'_> {
    fn parts(&self) -> [&[u8]; 4] {
        [b"rate-limiting", self.route.as_bytes(), self.service.as_bytes(), self.identifier]
    }

    /// What the names of the counters in Redis begin with: those of Kong, so that both may count in the same.
    fn redis_name(&self) -> String {
        format!("ratelimit:{}:{}:{}", self.route, self.service, String::from_utf8_lossy(self.identifier))
    }
}

impl RateLimiting {
    /// Calls with the scope of the configuration and the identifier of the request.
    fn with_scope<T>(&self, view: &View<'_>, call: impl FnOnce(&View<'_>, &CountedFor<'_>) -> T) -> T {
        let (route, service) = (view.scope.route.unwrap_or_default(), view.scope.service.unwrap_or_default());
        let mut room = Identifier::default();
        let identifier = self.limit_by.of_request(view, &mut room);
        call(view, &CountedFor { route, service, identifier })
    }

    fn take_synced(&self, view: &mut View<'_>, syncing: &Arc<Syncing>, now_s: u64) -> Verdict {
        let remaining = self.with_scope(view, |view, scope| {
            let [kind, _, _, identifier] = scope.parts();
            let key = view.core.counts.key(&[kind, &syncing.scope(), identifier]);
            view.core.counts.with(key, now_s, |counter| {
                syncing.join(counter, || scope.redis_name().into());
                counter.take(&self.limits, now_s)
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
        let mut put = |name: &str, number: u64| fields.set_by_name(&[], name.as_bytes(), Digits::of(number).bytes());
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

/// A number as text.
struct Digits {
    text: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let mut digits = Self { text: [b'0'; 20], start: 19 };
        loop {
            digits.text[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
            digits.start -= 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use crate::plugins::view::Identity;
    use serde_json::json;

    const ALICE: Identity =
        Identity { consumer: Some(Uuid::from_u128(1)), credential: Some(Uuid::from_u128(0x11)), groups: None };

    /// The fields that a client sees.
    fn told(exchange: &Exchange) -> Vec<String> {
        exchange.reply_fields().iter().map(|field| field.replace("RateLimit-", "")).collect()
    }

    #[track_caller]
    fn passes(plugin: &dyn Plugin, exchange: &mut Exchange, fields: &[&str]) {
        exchange.reply.clear();
        assert_eq!(exchange.access(plugin), Verdict::Continue);
        assert_eq!(told(exchange), fields);
    }

    #[track_caller]
    fn is_refused(plugin: &dyn Plugin, exchange: &mut Exchange, fields: &[&str]) {
        exchange.reply.clear();
        assert_eq!(exchange.access(plugin), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (429, "API rate limit exceeded"));
        assert_eq!(told(exchange), fields);
    }

    #[test]
    fn as_many_pass_as_may_and_every_answer_tells_how_it_stands() {
        let plugin = plugin(&KIND, json!({"minute": 2, "hour": 2, "day": 9}));
        let mut exchange = Exchange::new(&["GET /p"]);
        let limits = |minute: u64, hour: u64, day: u64| {
            [
                "X-Limit-Minute: 2".to_owned(),
                format!("X-Remaining-Minute: {minute}"),
                "X-Limit-Hour: 2".to_owned(),
                format!("X-Remaining-Hour: {hour}"),
                "X-Limit-Day: 9".to_owned(),
                format!("X-Remaining-Day: {day}"),
                "Limit: 2".to_owned(),
                format!("Remaining: {}", hour.min(minute)),
                // The hour, of two periods with the same left; it began at 22:00:00, 801 s ago.
                "Reset: 2799".to_owned(),
            ]
        };
        for left in [1, 0] {
            let fields = limits(left, left, left + 7);
            passes(&*plugin, &mut exchange, &fields.each_ref().map(String::as_str));
        }
        for _ in 0..2 {
            let fields = limits(0, 0, 7);
            let fields = fields.iter().map(String::as_str).chain(["Retry-After: 2799"]).collect::<Vec<_>>();
            is_refused(&*plugin, &mut exchange, &fields);
        }
    }

    #[test]
    fn an_answer_can_be_of_the_operators_own() {
        let config = json!({"second": 1, "hide_client_headers": true, "error_code": 418, "error_message": "slow down"});
        let plugin = plugin(&KIND, config);
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        assert_eq!(exchange.access(&*plugin), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (418, "slow down"));
        assert_eq!(exchange.reply_fields(), [""; 0]);
    }

    /// Of requests in this order, which are refused if one may pass for each user.
    #[track_caller]
    fn check_users(config: Value, users: &[(&str, Identity, bool)]) {
        let plugin = plugin(&KIND, config.clone());
        let mut core = None;
        for (at, (line, identity, passes)) in users.iter().enumerate() {
            let lines: Vec<&str> = line.split('|').collect();
            let mut exchange = Exchange::new(&lines);
            if let Some(core) = core.take() {
                exchange.core.counts = core;
            }
            exchange.identity = identity.clone();
            let verdict = exchange.access(&*plugin);
            assert_eq!(verdict == Verdict::Continue, *passes, "{config} {at}: {line}");
            core = Some(exchange.core.counts);
        }
    }

    #[test]
    fn a_limit_is_for_whom_it_says() {
        let nobody = Identity::default;
        let other_key = || Identity { credential: Some(Uuid::from_u128(0x99)), ..ALICE };
        let bob = || Identity { consumer: Some(Uuid::from_u128(2)), ..nobody() };
        check_users(
            json!({"hour": 1}),
            &[
                ("GET /p", ALICE, true),
                ("GET /p", other_key(), false),
                ("GET /p", bob(), true),
                ("GET /p", nobody(), true),
                ("GET /p", nobody(), false),
            ],
        );
        check_users(
            json!({"hour": 1, "limit_by": "credential"}),
            &[
                ("GET /p", ALICE, true),
                ("GET /p", other_key(), true),
                ("GET /p", ALICE, false),
                ("GET /p", bob(), true),
            ],
        );
        check_users(json!({"hour": 1, "limit_by": "ip"}), &[("GET /p", ALICE, true), ("GET /p", bob(), false)]);
        check_users(
            json!({"hour": 1, "limit_by": "header", "header_name": "x-t"}),
            &[
                ("GET /p|X-T: a", nobody(), true),
                ("GET /p|X-T: b", nobody(), true),
                ("GET /p|x-t: a", ALICE, false),
                ("GET /p", nobody(), true),
                ("GET /p|X-T:", ALICE, false),
            ],
        );
        check_users(
            json!({"hour": 1, "limit_by": "path", "path": "/a"}),
            &[
                ("GET /a", nobody(), true),
                ("GET /a?x", ALICE, false),
                ("GET /b", nobody(), true),
                ("GET /c", nobody(), false),
            ],
        );
    }

    fn redis(fields: Value) -> Value {
        let mut config = json!({"hour": 2, "policy": "redis", "redis": {"host": "r", "port": 7}});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    }

    #[test]
    fn redis_is_asked_in_the_words_of_kong_and_decides() {
        let plugin = plugin(&KIND, redis(json!({})));
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.access(&*plugin), Verdict::Ask);
        let asking = exchange.asking.take().unwrap();
        let Question::Count(counting) = asking.question else { panic!("{:?}", asking.question) };
        assert_eq!((&*counting.server.host, counting.server.port, asking.patience_ms), ("r", 7, 4500));
        let nil = Uuid::nil();
        assert_eq!(
            counting.counters,
            [RedisCounter {
                key: format!("ratelimit:{nil}:{nil}:127.0.0.1:1699999200000:hour"),
                by: 1,
                expires: Expires::AfterFirstUse { seconds: 3600 },
            }]
        );
        assert_eq!(exchange.answered(&*plugin, Answer::Counted(vec![2])), Verdict::Continue);
        let fields = ["X-Limit-Hour: 2", "X-Remaining-Hour: 0", "Limit: 2", "Remaining: 0", "Reset: 2799"];
        assert_eq!(told(&exchange), fields);
        assert_eq!(exchange.answered(&*plugin, Answer::Counted(vec![3])), Verdict::Reply);
        assert_eq!(exchange.reply.status, 429);
    }

    #[test]
    fn a_failing_redis_stops_requests_only_if_so_configured() {
        let failed = || Answer::Failed("down".into());
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.answered(&*plugin(&KIND, redis(json!({}))), failed()), Verdict::Continue);
        assert_eq!(exchange.reply_fields(), [""; 0]);
        let strict = plugin(&KIND, redis(json!({"fault_tolerant": false})));
        assert_eq!(exchange.answered(&*strict, failed()), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (500, "An unexpected error occurred"));
    }

    #[test]
    fn synchronised_counters_are_enlisted_once_and_count_here() {
        let plugin = plugin(&KIND, redis(json!({"sync_rate": 0.5})));
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.access(&*plugin), Verdict::Ask);
        let Some(Question::Synchronise(syncing)) = exchange.asking.take().map(|asking| asking.question) else {
            panic!("it asks for synchronisation")
        };
        assert_eq!(syncing.every_ms, 500);
        assert!(syncing.enlist());
        assert_eq!(exchange.answered(&*plugin, Answer::Done), Verdict::Continue);
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        assert_eq!(exchange.access(&*plugin), Verdict::Reply);
        let untold = syncing.untold(crate::plugins::testing::NOW_UNIX_MS / 1000);
        assert_eq!(untold[0].raised.by, 2);
    }

    #[test]
    fn what_no_answer_can_say_and_no_counter_can_hold_is_refused() {
        let (field, message) = refusal(&KIND, json!({"hour": 1, "error_code": 42}));
        assert_eq!((field.as_str(), message.as_str()), ("error_code", "42 is no HTTP status"));
        let (field, _) = refusal(&KIND, json!({"hour": 1, "year": 5_000_000_000_u64}));
        assert_eq!(field, "year");
    }
}
