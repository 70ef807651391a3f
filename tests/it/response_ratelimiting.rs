//! response-ratelimiting in front of real traffic: exactly what may be used up passes, over all cores; with a real Redis
//! nodes know of each other.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;
use crate::harness::redis::Redis;

on_both_drivers!(exactly_what_may_be_used_up_passes_over_all_cores);

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An upstream whose responses use up what is said.
fn using(header: &str) -> Peer {
    Peer::answering(format!("HTTP/1.1 200 OK\r\nX-Kong-Limit: {header}\r\nContent-Length: 2\r\n\r\nhi"))
}

fn limit(gateway: &Gateway, peer: &Peer, config: Value) {
    gateway.proxy_to(peer.port);
    gateway.create("/plugins", json!({"name": "response-ratelimiting", "config": config}));
}

fn exactly_what_may_be_used_up_passes_over_all_cores(driver: Driver) {
    let peer = using("video=1, image=2");
    let gateway = Gateway::with(driver, &[("workers", "4")]);
    limit(&gateway, &peer, json!({"limits": {"video": {"year": 100}, "image": {"year": 1000}}}));
    let passed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = gateway.connect();
                scope.spawn(move || (0..250).filter(|_| client.ask(ASK).status == 200).count())
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("every answer comes")).sum()
    });
    assert_eq!(passed, 100);
    let last = gateway.get("/").must_be(429);
    assert_eq!((last.header("content-length"), last.body.len()), (Some("0"), 0));
    assert_eq!(last.header("x-ratelimit-remaining-video-year"), Some("0"));
    // What is refused uses up nothing: 1000 less 100 times 2, shown as if this response had used 2 more.
    assert_eq!(last.header("x-ratelimit-remaining-image-year"), Some("798"));
    assert_eq!(last.header("x-kong-limit"), None);
    assert_eq!(peer.arrived_by_now().len(), 2_001, "the upstream decides what is used up");
}

#[test]
fn upstreams_are_told_what_is_left_and_need_not_be_asked_when_nothing_is() {
    let peer = using("video=3");
    let gateway = Gateway::start(Driver::any());
    let config = json!({"limits": {"video": {"hour": 4, "year": 4}}, "policy": "cluster", "block_on_first_violation": true,
                        "hide_client_headers": true});
    limit(&gateway, &peer, config);
    for left in ["4", "1"] {
        let answer = gateway.get("/").must_be(200);
        assert_eq!(answer.header("x-ratelimit-limit-video-hour"), None);
        assert_eq!(peer.arrived().header("x-ratelimit-remaining-video"), Some(left));
    }
    let answer = gateway.get("/").must_be(429);
    assert_eq!(answer.json()["message"], "API rate limit exceeded for 'video'");
    assert!(peer.arrived_by_now().is_empty());
}

fn remaining(answer: &Response) -> Option<i64> {
    answer.header("x-ratelimit-remaining-v-year")?.parse().ok()
}

#[test]
fn nodes_count_in_redis_together_and_go_on_without_it() {
    let (peer, mut redis) = (using("v=1"), Redis::start());
    let config = json!({"limits": {"v": {"year": 5}}, "policy": "redis", "limit_by": "ip",
                        "redis": {"host": "127.0.0.1", "port": redis.port(), "timeout": 500}});
    let gateways = [0, 1].map(|_| Gateway::start(Driver::any()));
    gateways.iter().for_each(|gateway| limit(gateway, &peer, config.clone()));
    let nil = "00000000-0000-0000-0000-000000000000";
    // What a response used is told once it has left.
    for used in 1..=5 {
        let answer = gateways[used % 2].get("/").must_be(200);
        assert_eq!(remaining(&answer), Some(5 - used as i64));
        eventually("redis to be told", || {
            let key = redis.command(&["RANDOMKEY"]);
            assert!(key.starts_with(&format!("response-ratelimit:{nil}:{nil}:127.0.0.1:")) && key.ends_with(":v:year"));
            (redis.command(&["GET", &key]) == used.to_string()).then_some(())
        });
    }
    gateways.iter().for_each(|gateway| drop(gateway.get("/").must_be(429)));
    redis.kill();
    let answer = gateways[0].get("/").must_be(200);
    assert_eq!((remaining(&answer), answer.header("x-kong-limit")), (None, None));
}
