//! The test oracles of spec/balancer.md section 18, each through the real gateway on one worker.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::balancing::balanced;
use crate::balancing::named;
use crate::balancing::passive;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// Requests sent before their answers are read.
const PIPELINED: usize = 100;
const ONE_WORKER: [(&str, &str); 1] = [("workers", "1")];

/// How often each target answers so many requests.
fn shares(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for begin in (0..requests).step_by(PIPELINED) {
        let (mut client, count) = (gateway.connect(), PIPELINED.min(requests - begin));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(count));
        for _ in 0..count {
            *shares.entry(client.response().must_be(200).text()).or_default() += 1;
        }
    }
    shares
}

fn expected<const N: usize>(shares: [(&str, usize); N]) -> BTreeMap<String, usize> {
    shares.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn weigh(gateway: &Gateway, peer: &Peer, weight: u32) {
    gateway.patch(&format!("/upstreams/u/targets/127.0.0.1:{}", peer.port), json!({"weight": weight}));
}

fn text_of(gateway: &Gateway, fields: &str) -> String {
    gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).must_be(200).text()
}

#[track_caller]
fn nobody(gateway: &Gateway) {
    let message = gateway.get("/").must_be(503).json()["message"].clone();
    assert_eq!(message, "failure to get a peer from the ring-balancer");
}

fn health(gateway: &Gateway, peer: &Peer) -> Value {
    let page = gateway.admin("GET", "/upstreams/u/health", None).must_be(200).json();
    let target = format!("127.0.0.1:{}", peer.port);
    let row = page["data"].as_array().and_then(|rows| rows.iter().find(|row| row["target"] == target).cloned());
    row.expect("the target is listed")["health"].clone()
}

#[test]
fn oracle_1_equal_weights_share_20000_requests_equally() {
    let (a, b) = (named("a"), named("b"));
    let gateway = balanced(&ONE_WORKER, json!({}), json!({}), &[a.port, b.port]);
    [&a, &b].into_iter().for_each(|peer| weigh(&gateway, peer, 10));
    assert_eq!(shares(&gateway, 20_000), expected([("a", 10_000), ("b", 10_000)]));
}

#[test]
fn oracle_2_weights_100_50_50_give_2_to_1_to_1() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let gateway = balanced(&ONE_WORKER, json!({}), json!({}), &[a.port, b.port, c.port]);
    [&b, &c].into_iter().for_each(|peer| weigh(&gateway, peer, 50));
    for requests in [4, 40, 400] {
        assert_eq!(
            shares(&gateway, requests),
            expected([("a", requests / 2), ("b", requests / 4), ("c", requests / 4)])
        );
    }
}

#[test]
fn oracle_3_weight_0_takes_no_traffic_and_nothing_but_it_is_503() {
    let (a, b) = (named("a"), named("b"));
    let gateway = balanced(&ONE_WORKER, json!({}), json!({}), &[a.port, b.port]);
    weigh(&gateway, &a, 0);
    assert_eq!(shares(&gateway, 50), expected([("b", 50)]), "as soon as the edit is answered");
    let listed = gateway.admin("GET", "/upstreams/u/targets/all", None).must_be(200).json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2), "it stays listed");
    weigh(&gateway, &b, 0);
    nobody(&gateway);
    weigh(&gateway, &a, 1);
    assert_eq!(shares(&gateway, 5), expected([("a", 5)]));
}

#[test]
fn oracle_4_a_header_fixes_the_target_and_without_it_the_client_address_does() {
    let peers = ["a", "b", "c"].map(named);
    let upstream = json!({"hash_on": "header", "hash_on_header": "x-key", "hash_fallback": "ip"});
    let settings = [("workers", "1"), ("trusted_ips", "127.0.0.1/32")];
    let gateway = balanced(&settings, upstream, json!({}), &peers.each_ref().map(|peer| peer.port));
    let mut by_ip = BTreeSet::new();
    for last in 0..30 {
        let of_ip = text_of(&gateway, &format!("X-Real-IP: 10.0.0.{last}\r\n"));
        assert_eq!(text_of(&gateway, &format!("X-Real-IP: 10.0.0.{last}\r\n")), of_ip);
        let of_header = text_of(&gateway, &format!("X-Key: always\r\nX-Real-IP: 10.0.0.{last}\r\n"));
        assert_eq!(of_header, text_of(&gateway, "X-Key: always\r\n"), "whoever asks");
        by_ip.insert(of_ip);
    }
    assert_eq!(by_ip.len(), 3, "addresses spread");
}

#[test]
fn oracle_5_the_cookie_of_the_first_answer_sticks() {
    let peers = ["a", "b", "c"].map(named);
    let upstream = json!({"hash_on": "cookie", "hash_on_cookie": "peer"});
    let gateway = balanced(&ONE_WORKER, upstream, json!({}), &peers.each_ref().map(|peer| peer.port));
    for _ in 0..20 {
        let first = gateway.get("/").must_be(200);
        let cookie = first.header("set-cookie").expect("a cookie");
        let pair = cookie.strip_suffix("; Path=/; Same-Site=Lax; HttpOnly").expect("its attributes");
        assert_eq!(text_of(&gateway, &format!("Cookie: other=1; {pair}\r\n")), first.text());
    }
}

#[test]
fn oracle_6_one_500_ejects_at_once_and_an_operator_brings_back() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let bad = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send(match is_broken.load(Ordering::SeqCst) {
                true => "HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
            });
        }
    });
    let good = named("good");
    let gateway = balanced(&ONE_WORKER, passive(json!({"http_failures": 1})), json!({}), &[bad.port, good.port]);
    // Whoever has the 500 finds the target ejected.
    let statuses: Vec<_> = (0..12).map(|_| gateway.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 1, "{statuses:?}");
    assert_eq!((health(&gateway, &bad), health(&gateway, &good)), (json!("UNHEALTHY"), json!("HEALTHY")));
    broken.store(false, Ordering::SeqCst);
    let path = format!("/upstreams/u/targets/127.0.0.1:{}/healthy", bad.port);
    gateway.admin("PUT", &path, None).must_be(204);
    assert_eq!(health(&gateway, &bad), "HEALTHY");
    assert_eq!(shares(&gateway, 20), expected([("bad", 10), ("good", 10)]), "as soon as that is answered");
}

#[test]
fn oracle_7_half_of_the_weight_is_not_more_than_a_threshold_of_50() {
    let (a, b) = (named("a"), named("b"));
    let mut upstream = passive(json!({"http_failures": 1}));
    upstream["healthchecks"]["threshold"] = 50.into();
    let gateway = balanced(&ONE_WORKER, upstream, json!({}), &[a.port, b.port]);
    assert_eq!(shares(&gateway, 10), expected([("a", 5), ("b", 5)]));
    gateway.admin("PUT", &format!("/upstreams/u/targets/127.0.0.1:{}/unhealthy", a.port), None).must_be(204);
    nobody(&gateway);
    let whole = gateway.admin("GET", "/upstreams/u/health?balancer_health=1", None).must_be(200).json();
    assert_eq!(whole["data"]["balancer_health"], "UNHEALTHY");
    gateway.patch("/upstreams/u", json!({"healthchecks": {"threshold": 49}}));
    assert_eq!(shares(&gateway, 10), expected([("b", 10)]));
}

#[test]
fn oracle_8_the_port_of_the_target_counts_and_not_that_of_the_service() {
    let peer = Peer::hello();
    let gateway = balanced(&ONE_WORKER, json!({}), json!({"port": 1}), &[peer.port]);
    gateway.get("/").must_be(200);
    assert_eq!(peer.arrived().header("host"), Some(format!("127.0.0.1:{}", peer.port).as_str()));
}
