//! What clients are told, for whom a limit is, and what is asked of Redis.

use super::*;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::plugin;
use crate::plugins::testing::refusal;
use crate::plugins::view::Identity;
use serde_json::json;
use uuid::Uuid;

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
        &[("GET /p", ALICE, true), ("GET /p", other_key(), true), ("GET /p", ALICE, false), ("GET /p", bob(), true)],
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
