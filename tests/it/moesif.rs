//! moesif with a collector double that reads what is sent as the real one would: batches, compression, retries, masks, and
//! what the collector governs.

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Accepted;
use crate::harness::peer::Arrived;
use crate::harness::peer::Peer;

/// What the collector says, and what it was sent.
#[derive(Default)]
struct State {
    config: Value,
    rules: Value,
    /// Statuses of the next answers to batches; 201 after them.
    statuses: Vec<u16>,
    batches: Vec<(Arrived, Vec<Value>)>,
    asked: Vec<String>,
}

/// A collector of events.
struct Collector {
    state: Arc<Mutex<State>>,
    peer: Peer,
}

impl Collector {
    fn start(config: Value, rules: Value) -> Self {
        let state = Arc::new(Mutex::new(State { config, rules, ..State::default() }));
        let shared = state.clone();
        let peer = Peer::scripted(move |accepted| while Self::answer(accepted, &shared).is_some() {});
        Self { state, peer }
    }

    fn answer(accepted: &mut Accepted, state: &Mutex<State>) -> Option<()> {
        let arrived = accepted.request()?;
        let mut state = state.lock().expect("no test panics while it holds this");
        state.asked.push(arrived.line().to_owned());
        let (status, body) = match arrived.line() {
            "GET /base/v1/config HTTP/1.1" => (200, state.config.to_string()),
            "GET /base/v1/rules HTTP/1.1" => (200, state.rules.to_string()),
            "POST /base/v1/events/batch HTTP/1.1" => {
                let status = if state.statuses.is_empty() { 201 } else { state.statuses.remove(0) };
                let events = events(&arrived);
                state.batches.push((arrived, events));
                (status, String::new())
            }
            other => panic!("the collector has no {other}"),
        };
        let tags = format!(
            "X-Moesif-Config-Etag: {}\r\nX-Moesif-Rules-Tag: {}\r\n",
            state.config,
            state.rules.to_string().len()
        );
        drop(state);
        accepted.send(format!("HTTP/1.1 {status} X\r\n{tags}Content-Length: {}\r\n\r\n{body}", body.len()));
        Some(())
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/base/", self.peer.port)
    }

    /// All events so far, once there are so many.
    #[track_caller]
    fn events(&self, count: usize) -> Vec<Value> {
        eventually("events to arrive", || {
            let state = self.state.lock().expect("it is whole");
            let all: Vec<Value> = state.batches.iter().flat_map(|(_, events)| events.clone()).collect();
            (all.len() >= count).then_some(all)
        })
    }
}

/// The events of a batch, inflated if they were sent so.
fn events(arrived: &Arrived) -> Vec<Value> {
    let mut plain = Vec::new();
    match arrived.header("content-encoding") {
        Some("deflate") => drop(ZlibDecoder::new(&arrived.body[..]).read_to_end(&mut plain).expect("it is zlib")),
        None => plain.clone_from(&arrived.body),
        Some(other) => panic!("{other} is no coding of batches"),
    }
    match serde_json::from_slice(&plain).expect("a batch is JSON") {
        Value::Array(events) => events,
        other => panic!("a batch is an array, not {other}"),
    }
}

fn reporting(peer: &Peer, collector: &Collector, config: Value) -> Gateway {
    // Records of several workers would come in any order.
    let gateway = Gateway::with(Driver::any(), &[("workers", "1")]);
    gateway.proxy_with(peer.port, json!({}), json!({"hosts": ["a"]}));
    let mut all = json!({"application_id": "app", "api_endpoint": collector.endpoint()});
    for (name, value) in config.as_object().expect("a configuration is an object") {
        all[name] = value.clone();
    }
    gateway.create("/routes/r/plugins", json!({"name": "moesif", "config": all}));
    gateway
}

fn post(gateway: &Gateway, path: &str, body: &str, fields: &str) -> crate::harness::client::Response {
    let len = body.len();
    gateway.connect().ask(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n{fields}\r\n{body}"
    ))
}

#[test]
fn calls_arrive_in_compressed_batches_and_failed_ones_again() {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut zipped, br#"{"pin":"1234","ok":true}"#).expect("memory takes it");
    let zipped = zipped.finish().expect("memory takes it");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nSet-Cookie: s\r\n";
    let peer =
        Peer::answering([format!("{head}Content-Length: {}\r\n\r\n", zipped.len()).as_bytes(), &zipped].concat());
    let collector = Collector::start(json!({}), json!([]));
    collector.state.lock().expect("it is whole").statuses = vec![503, 200];
    let config = json!({"batch_size": 3, "enable_compression": true, "response_body_masks": ["pin"],
                        "response_header_masks": ["set-cookie"], "request_header_masks": ["x-secret"], "user_id_header": "x-user"});
    let gateway = reporting(&peer, &collector, config);
    for at in 0..3 {
        let answer = post(&gateway, &format!("/{at}?q=1"), r#"{"in":1}"#, "X-Secret: s\r\nX-User: u1\r\n").must_be(200);
        assert!(answer.body == zipped, "the client gets what the upstream sent");
        let id = answer.header("x-moesif-transaction-id").expect("a transaction").to_owned();
        assert_eq!(peer.arrived().header("x-moesif-transaction-id"), Some(id.as_str()));
    }
    let all = collector.events(9);
    let state = collector.state.lock().expect("it is whole");
    assert_eq!(state.batches.iter().map(|(_, events)| events.len()).collect::<Vec<_>>(), [3, 3, 3]);
    assert!(all[..3] == all[3..6] && all[3..6] == all[6..], "the same batch is sent until it is taken");
    let (arrived, _) = &state.batches[0];
    for (name, want) in [("content-type", "application/json"), ("x-moesif-application-id", "app")] {
        assert_eq!(arrived.header(name), Some(want));
    }
    assert!(arrived.header("user-agent").is_some_and(|agent| agent.starts_with("kong-plugin-moesif/")));
    for (at, event) in all[..3].iter().enumerate() {
        let uri = event["request"]["uri"].as_str().expect("a text");
        assert!(uri.starts_with("http://a:") && uri.ends_with(&format!("/{at}?q=1")), "{uri}");
        assert_eq!((&event["request"]["verb"], &event["request"]["body"]), (&json!("POST"), &json!({"in": 1})));
        assert_eq!((&event["response"]["status"], &event["response"]["body"]), (&json!(200), &json!({"ok": true})));
        assert_eq!((&event["user_id"], &event["weight"]), (&json!("u1"), &json!(1)));
        assert!(event["request"]["headers"].get("x-secret").is_none());
        assert!(event["response"]["headers"].get("set-cookie").is_none());
        assert_eq!(event["metadata"], json!({"kong": {"route_hosts": ["a"], "service_name": "s"}}));
    }
}

#[test]
fn what_the_collector_wants_is_governed() {
    let peer = Peer::hello();
    let config =
        json!({"user_rules": {"bad": [{"rules": "r1", "values": {"0": "bad"}}]}, "user_sample_rate": {"rare": 0}});
    let rules = json!([{"_id": "r1", "type": "user", "block": true, "applied_to": "matching",
        "response": {"status": 429, "headers": {"X-Why": "{{0}} {{1}}"}, "body": {"error": "no, {{0}}"}}}]);
    let collector = Collector::start(config, rules);
    let gateway = reporting(&peer, &collector, json!({"user_id_header": "x-user"}));
    let ask = |user: &str| gateway.connect().ask(format!("GET /u HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
    // The first call makes the gateway ask the collector.
    ask("good").must_be(200);
    let blocked = eventually("the rule to hold", || Some(ask("bad")).filter(|answer| answer.status == 429));
    assert_eq!(blocked.header("x-why"), Some("bad UNKNOWN"));
    assert_eq!(blocked.json(), json!({"error": "no, bad"}));
    ask("good").must_be(200);
    ask("rare").must_be(200);
    ask("last").must_be(200);
    let events = eventually("the last call to be told", || {
        let events = collector.events(2);
        events.iter().any(|event| event["user_id"] == "last").then_some(events)
    });
    assert!(events.iter().all(|event| event["user_id"] != "rare"), "none of its calls is told");
    let told = events.iter().find(|event| event["response"]["status"] == 429).expect("stopped calls are told, too");
    assert_eq!((&told["blocked_by"], &told["response"]["body"]), (&json!("r1"), &json!({"error": "no, bad"})));
    // Another configuration is noticed by the tag that comes with every answer.
    collector.state.lock().expect("it is whole").config = json!({});
    ask("good").must_be(200);
    eventually("the rule to be gone", || (ask("bad").status == 200).then_some(()));
}

#[test]
fn a_collector_that_is_away_costs_clients_nothing_and_memory_little() {
    let peer = Peer::hello();
    let collector = Collector::start(json!({}), json!([]));
    collector.state.lock().expect("it is whole").statuses = vec![500; 10_000];
    let gateway = reporting(&peer, &collector, json!({"event_queue_size": 5, "batch_size": 2}));
    for at in 0..40 {
        gateway.connect().ask(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
    }
    eventually("the loss to be told", || gateway.log().contains("entries are dropped").then_some(()));
    collector.state.lock().expect("it is whole").statuses.clear();
    let state = eventually("what waited to arrive", || {
        let state = collector.state.lock().expect("it is whole");
        let uri =
            |event: &Value| event["request"]["uri"].as_str().and_then(|uri| uri.rsplit('/').next()).map(str::to_owned);
        let last: Vec<_> =
            state.batches.iter().rev().take(3).flat_map(|(_, events)| events.iter().filter_map(uri)).collect();
        last.contains(&"4".to_owned()).then_some(last)
    });
    // The newest give way: the five that came first are those that arrive.
    assert!(state.iter().all(|path| path.parse::<u32>().is_ok_and(|at| at < 5)), "{state:?}");
}
