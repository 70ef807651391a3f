//! session in front of real traffic: who has shown a key once needs none for a while.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// A gateway whose route takes a key or a session; others are answered 403.
fn behind(peer: &Peer, config: Value) -> Gateway {
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    let nobody = gateway.create("/consumers", json!({"username": "nobody"}));
    gateway.create("/consumers", json!({"username": "c"}));
    gateway.create("/consumers/c/key-auth", json!({"key": "secret"}));
    gateway.create("/routes/r/plugins", json!({"name": "session", "config": config}));
    gateway.create("/routes/r/plugins", json!({"name": "key-auth", "config": {"anonymous": "nobody"}}));
    let refusal =
        json!({"name": "request-termination", "config": {"status_code": 403}, "consumer": {"id": nobody["id"]}});
    gateway.create("/plugins", refusal);
    gateway
}

fn ask(gateway: &Gateway, line: &str, fields: &str) -> Response {
    gateway.connect().ask(format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{fields}\r\n"))
}

/// The first cookie that an answer sets, as requests bring it.
#[track_caller]
fn cookie(answer: &Response) -> String {
    let set = *answer.headers("set-cookie").first().unwrap_or_else(|| panic!("no cookie: {}", answer.head));
    format!("Cookie: {}\r\n", set.split(';').next().unwrap_or_default())
}

#[test]
fn a_key_begins_a_session_and_a_logout_ends_it() {
    let peer = Peer::hello();
    for storage in ["cookie", "kong"] {
        let gateway = behind(&peer, json!({"storage": storage, "cookie_secure": false}));
        assert_eq!(ask(&gateway, "GET /", "").must_be(403).header("set-cookie"), None);
        let cookie = cookie(&ask(&gateway, "GET /", "apikey: secret\r\n").must_be(200));
        peer.arrived();
        // On whatever core, at once.
        for _ in 0..16 {
            let answer = ask(&gateway, "GET /", &cookie).must_be(200);
            assert_eq!(answer.header("set-cookie"), None, "{storage}");
            let arrived = peer.arrived();
            assert_eq!(arrived.header("x-consumer-username"), Some("c"));
            assert_eq!(arrived.header("x-credential-identifier"), Some("c"));
            assert_eq!(arrived.header("x-anonymous-consumer"), None);
        }
        let out = ask(&gateway, "POST /?session_logout=true", &cookie).must_be(200);
        assert!(out.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")), "{}", out.head);
        assert_eq!(out.text(), "");
        let after = if storage == "kong" { 403 } else { 200 };
        ask(&gateway, "GET /", &cookie).must_be(after);
        peer.arrived_by_now();
    }
}

#[test]
fn a_session_that_is_kept_here_outlives_a_restart_and_can_be_revoked() {
    let peer = Peer::hello();
    let mut gateway = behind(&peer, json!({"storage": "kong", "store_metadata": true}));
    let cookie = cookie(&ask(&gateway, "GET /", "apikey: secret\r\n").must_be(200));
    gateway.restart();
    ask(&gateway, "GET /", &cookie).must_be(200);
    let rows = gateway.admin("GET", "/sessions", None).must_be(200).json()["data"].clone();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert!(rows[0]["ttl"].as_u64().is_some_and(|ttl| (1..=900).contains(&ttl)), "{rows}");
    assert!(!rows.to_string().contains("secret"), "{rows}");
    let id = rows[0]["id"].as_str().expect("an id");
    gateway.admin("DELETE", &format!("/sessions/{id}"), None).must_be(204);
    ask(&gateway, "GET /", &cookie).must_be(403);
}

#[test]
fn a_session_ends_with_its_consumer() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"remember": true}));
    let began = ask(&gateway, "GET /", "apikey: secret\r\n").must_be(200);
    assert_eq!(began.headers("set-cookie").len(), 2, "{}", began.head);
    let cookie = cookie(&began);
    gateway.admin("DELETE", "/consumers/c", None).must_be(204);
    let refused = ask(&gateway, "GET /", &cookie).must_be(403);
    assert_eq!(refused.headers("set-cookie").len(), 2, "both are forgotten: {}", refused.head);
}
