//! What upstream and client are told, what a header uses up, what is asked of Redis.

use super::*;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::plugin;
use crate::plugins::testing::refusal;
use serde_json::json;
use uuid::Uuid;

fn built(config: Value) -> Box<dyn Plugin> {
    plugin(&KIND, config)
}

/// One exchange on the counters of `core`, with that header in the response. What the upstream was told of `video`; the
/// status; what the client was told.
fn exchange(plugin: &dyn Plugin, counts: &mut CoreCounts, header: &str) -> (Vec<String>, u16, Vec<String>) {
    let mut exchange = Exchange::new(&["GET /p"]);
    std::mem::swap(&mut exchange.core.counts, counts);
    assert_eq!(exchange.access(plugin), Verdict::Continue);
    exchange.response_field("X-Kong-Limit", header);
    exchange.response_head(plugin);
    std::mem::swap(&mut exchange.core.counts, counts);
    assert_eq!(exchange.drop_body, exchange.status == 429);
    let short = |fields: Vec<String>| fields.iter().map(|field| field.replace("X-RateLimit-", "")).collect();
    (short(exchange.fields()), exchange.status, short(exchange.response_fields()))
}

#[test]
fn responses_use_up_what_they_say_until_nothing_is_left() {
    let plugin = built(json!({"limits": {"video": {"minute": 2, "hour": 9}}}));
    let mut counts = CoreCounts::default();
    let told = |minute: u64, hour: u64| {
        [
            "Limit-video-minute: 2".to_owned(),
            format!("Remaining-video-minute: {minute}"),
            "Limit-video-hour: 9".to_owned(),
            format!("Remaining-video-hour: {hour}"),
        ]
    };
    let mut check = |header: &str, left: &str, status: u16, minute, hour| {
        let (upstream, got, client) = exchange(&*plugin, &mut counts, header);
        assert_eq!(upstream, [format!("Remaining-video: {left}")], "{header}");
        assert_eq!((got, client.as_slice()), (status, told(minute, hour).as_slice()), "{header}");
    };
    check("other=7, video=x", "2", 200, 2, 9);
    check("video=1", "2", 200, 1, 8);
    check(" video = 5 , other=1", "1", 200, 0, 3);
    // What passes may go beyond a limit; then nothing is left.
    check("video=1", "0", 429, 0, 2);
    check("video=0", "0", 200, 0, 3);
}

#[test]
fn what_one_limit_stops_is_counted_in_none() {
    let plugin = built(json!({"limits": {"a": {"minute": 9}, "b": {"minute": 1}}, "hide_client_headers": true}));
    let mut counts = CoreCounts::default();
    for (header, left, status) in
        [("a=1,b=1", ["9", "1"], 200), ("a=4,b=1", ["8", "0"], 429), ("a=2", ["8", "0"], 200), ("", ["6", "0"], 200)]
    {
        let (upstream, got, client) = exchange(&*plugin, &mut counts, header);
        let want = [format!("Remaining-a: {}", left[0]), format!("Remaining-b: {}", left[1])];
        assert_eq!((upstream.as_slice(), got), (&want[..], status), "{header}");
        assert_eq!(client, [""; 0]);
    }
}

#[test]
fn a_request_can_be_stopped_before_it_reaches_the_upstream() {
    let plugin = built(json!({"limits": {"video": {"minute": 1}}, "block_on_first_violation": true}));
    let mut counts = CoreCounts::default();
    assert_eq!(exchange(&*plugin, &mut counts, "video=1").1, 200);
    let mut second = Exchange::new(&["GET /p"]);
    second.core.counts = counts;
    assert_eq!(second.access(&*plugin), Verdict::Reply);
    assert_eq!((second.reply.status, second.reply_text().as_str()), (429, "API rate limit exceeded for 'video'"));
    second.response_head(&*plugin);
    assert_eq!(second.response_fields(), [""; 0], "of a response of its own it tells nothing");
}

#[test]
fn increments_are_read_from_whatever_an_upstream_sends() {
    let limit = NamedLimit::new("v", Limits::default());
    let cases: [(&str, u64); 11] = [
        ("v=1", 1),
        ("v=1,v=3", 3),
        ("v = 2", 2),
        ("w=1,v=2,", 2),
        ("v", 0),
        ("v=", 0),
        ("v=1=2", 0),
        ("v=-1", 0),
        ("v=99999999999999999999", 0),
        ("", 0),
        (",,=,=v", 0),
    ];
    for (header, want) in cases {
        assert_eq!(limit.increment(header.as_bytes()), want, "{header}");
    }
    assert_eq!(limit.increment(b"v=\xff"), 0);
}

fn redis(fields: Value) -> Box<dyn Plugin> {
    let mut config = json!({"limits": {"v": {"hour": 2}, "w": {"hour": 5}}, "policy": "redis", "redis": {"host": "r"}});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    built(config)
}

fn counted(question: Option<Question>) -> Vec<(String, u64)> {
    let Some(Question::Count(counting)) = question else { panic!("redis is asked to count") };
    counting.counters.into_iter().map(|counter| (counter.key, counter.by)).collect()
}

#[test]
fn redis_is_asked_what_was_used_and_told_what_is() {
    let plugin = redis(json!({}));
    let mut exchange = Exchange::new(&["GET /p"]);
    assert_eq!(exchange.access(&*plugin), Verdict::Ask);
    let nil = Uuid::nil();
    let key = |name: &str| format!("response-ratelimit:{nil}:{nil}:127.0.0.1:1699999200000:{name}:hour");
    let asked = counted(exchange.asking.take().map(|asking| asking.question));
    assert_eq!(asked, [(key("v"), 0), (key("w"), 0)]);
    assert_eq!(exchange.answered(&*plugin, Answer::Counted(vec![1, 7])), Verdict::Continue);
    assert_eq!(exchange.fields(), ["X-RateLimit-Remaining-v: 1", "X-RateLimit-Remaining-w: 0"]);
    exchange.response_field("x-kong-limit", "v=1");
    exchange.response_head(&*plugin);
    assert_eq!(exchange.status, 200);
    assert_eq!(
        exchange.response_fields(),
        [
            "X-RateLimit-Limit-v-hour: 2",
            "X-RateLimit-Remaining-v-hour: 0",
            "X-RateLimit-Limit-w-hour: 5",
            "X-RateLimit-Remaining-w-hour: 0",
        ]
    );
    assert_eq!(counted(exchange.log(&*plugin)), [(key("v"), 1)]);
}

#[test]
fn what_is_stopped_is_not_told_to_redis() {
    let plugin = redis(json!({}));
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*plugin);
    exchange.answered(&*plugin, Answer::Counted(vec![2, 0]));
    exchange.response_field("x-kong-limit", "v=1,w=1");
    exchange.response_head(&*plugin);
    assert_eq!(exchange.status, 429);
    assert_eq!(exchange.log(&*plugin), None);
}

#[test]
fn a_failing_redis_stops_requests_only_if_so_configured() {
    let failed = || Answer::Failed("down".into());
    let plugin = redis(json!({}));
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*plugin);
    assert_eq!(exchange.answered(&*plugin, failed()), Verdict::Continue);
    exchange.response_field("x-kong-limit", "w=3");
    exchange.response_head(&*plugin);
    assert_eq!((exchange.fields(), exchange.response_fields()), (vec![], vec![]));
    let told = counted(exchange.log(&*plugin));
    assert_eq!((told.len(), told[0].1), (1, 3), "it may be back by then");
    let strict = redis(json!({"fault_tolerant": false}));
    assert_eq!(exchange.answered(&*strict, failed()), Verdict::Reply);
    assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (500, "An unexpected error occurred"));
}

#[test]
fn names_that_no_header_can_have_are_refused() {
    let (field, message) = refusal(&KIND, json!({"limits": {"a b": {"hour": 1}}}));
    assert_eq!((field.as_str(), message.as_str()), ("limits.a b", "'a b' cannot stand in the name of a header"));
    let (field, _) = refusal(&KIND, json!({"limits": {"a": {"year": 5_000_000_000_u64}}}));
    assert_eq!(field, "limits.a.year");
}
