//! rate-limiting in front of real traffic: exactly the limit passes, over all cores and, with a real Redis, over all nodes;
//! what becomes of requests while Redis fails.

use std::io::Read;
use std::io::Write;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::certificates;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;
use crate::harness::port::Port;
use crate::harness::redis::Redis;

on_both_drivers!(exactly_the_limit_passes_over_all_cores);

const CONNECTIONS: usize = 8;

/// A period whose window does not end while a test runs.
fn long_period() -> &'static str {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs();
    if now_s % 3600 < 3600 - 120 { "hour" } else { "year" }
}

/// Sends requests over connections that are shared out among gateways; how many passed.
fn passed(gateways: &[&Gateway], requests: usize) -> usize {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|at| {
                let mut client = gateways[at % gateways.len()].connect();
                scope.spawn(move || {
                    let answers = (0..requests / CONNECTIONS).map(|_| client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
                    answers.filter(|answer| answer.status == 200 || answer.must_be_limited()).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("every answer is 200 or 429")).sum()
    })
}

impl Response {
    /// `false`, if it is 429.
    fn must_be_limited(&self) -> bool {
        assert_eq!(self.status, 429, "{}", self.head);
        false
    }
}

fn exactly_the_limit_passes_over_all_cores(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[("workers", "4")]);
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", json!({"name": "rate-limiting", "config": {(long_period()): 100}}));
    assert_eq!(passed(&[&gateway], 10_000), 100);
    assert_eq!(peer.arrived_by_now().len(), 100);
}

/// A gateway whose only route is limited with the help of Redis.
fn limited(peer: &Peer, redis_port: u16, limit: u64, config: Value) -> Gateway {
    let gateway = Gateway::start(Driver::any());
    limit_by_redis(&gateway, peer, redis_port, limit, config);
    gateway
}

fn limit_by_redis(gateway: &Gateway, peer: &Peer, redis_port: u16, limit: u64, config: Value) {
    gateway.proxy_to(peer.port);
    let mut all = json!({(long_period()): limit, "policy": "redis", "limit_by": "ip",
                         "redis": {"host": "127.0.0.1", "port": redis_port, "timeout": 500}});
    for (name, value) in config.as_object().expect("a configuration is an object") {
        match value {
            Value::Object(fields) => all[name].as_object_mut().expect("a record").extend(fields.clone()),
            other => all[name] = other.clone(),
        }
    }
    // Without a scope: the counters of all gateways have the same names.
    gateway.create("/plugins", json!({"name": "rate-limiting", "config": all}));
}

fn times(gateway: &Gateway, text: &str) -> usize {
    gateway.log().matches(text).count()
}

/// What an answer tells of what is left.
fn remaining(answer: &Response) -> Option<i64> {
    answer.header("ratelimit-remaining")?.parse().ok()
}

#[test]
fn exactly_the_limit_passes_over_two_nodes_that_count_in_redis() {
    let (peer, redis) = (Peer::hello(), Redis::start());
    let gateways = [0, 1].map(|_| limited(&peer, redis.port(), 100, json!({})));
    assert_eq!(passed(&[&gateways[0], &gateways[1]], 2_000), 100);
    assert_eq!(peer.arrived_by_now().len(), 100);
    let key = redis.command(&["RANDOMKEY"]);
    assert!(key.starts_with("ratelimit:00000000-0000-0000-0000-000000000000:"), "{key}");
    assert_eq!(redis.command(&["GET", &key]), "2000", "refused requests count too");
    let ttl = redis.command(&["TTL", &key]);
    assert!(ttl.trim_start_matches(':').parse::<u64>().is_ok_and(|seconds| seconds > 0), "{ttl}");
}

#[test]
fn nodes_tell_each_other_through_redis_what_they_counted() {
    let (peer, redis) = (Peer::hello(), Redis::start());
    let config = json!({"sync_rate": 0.02, "redis": {"database": 3}});
    let gateways = [0, 1].map(|_| limited(&peer, redis.port(), 1_000, config.clone()));
    for _ in 0..10 {
        gateways[0].get("/").must_be(200);
    }
    let mut asked = 0;
    eventually("the second node to know of the first one's requests", || {
        asked += 1;
        (remaining(&gateways[1].get("/").must_be(200))? <= 1_000 - 10 - asked).then_some(())
    });
    let sum = (10 + asked).to_string();
    let total = "local key = redis.call('SELECT', 3) and redis.call('RANDOMKEY') return redis.call('GET', key)";
    eventually("redis to know the sum", || (redis.command(&["EVAL", total, "0"]) == sum).then_some(()));
    let used = 1_000 - remaining(&gateways[1].get("/").must_be(200)).expect("it is told");
    assert_eq!(used, 10 + asked + 1, "a use is told once");
}

#[test]
fn requests_pass_unlimited_while_redis_is_away_and_are_limited_when_it_is_back() {
    let (peer, mut redis) = (Peer::hello(), Redis::unstarted(&[]));
    let gateway = limited(&peer, redis.port(), 2, json!({}));
    for _ in 0..20 {
        assert_eq!(remaining(&gateway.get("/").must_be(200)), None);
    }
    assert_eq!(times(&gateway, &format!("redis 127.0.0.1:{}: ", redis.port())), 1, "{}", gateway.log());
    redis.start_again();
    eventually("redis to be used again", || remaining(&gateway.get("/").must_be(200)));
    gateway.get("/").must_be(200);
    gateway.get("/").must_be(429);
    assert_eq!(times(&gateway, "answers again"), 1);
    redis.kill();
    gateway.get("/").must_be(200);
}

#[test]
fn requests_are_refused_while_redis_is_away_if_so_configured() {
    let (peer, redis) = (Peer::hello(), Redis::unstarted(&[]));
    let gateway = limited(&peer, redis.port(), 2, json!({"fault_tolerant": false}));
    let answer = gateway.get("/").must_be(500);
    assert_eq!(answer.json()["message"], "An unexpected error occurred");
    assert!(peer.arrived_by_now().is_empty());
}

#[test]
fn requests_pass_unlimited_while_redis_says_nothing() {
    let (peer, redis) = (Peer::hello(), Redis::start());
    let gateway = limited(&peer, redis.port(), 1_000, json!({}));
    assert_eq!(remaining(&gateway.get("/").must_be(200)), Some(999));
    redis.halt();
    for _ in 0..20 {
        assert_eq!(remaining(&gateway.get("/").must_be(200)), None);
    }
    assert_eq!(times(&gateway, &format!("redis 127.0.0.1:{}: ", redis.port())), 1, "{}", gateway.log());
    redis.go_on();
    eventually("redis to be used again", || remaining(&gateway.get("/").must_be(200)));
}

#[test]
fn a_server_that_answers_nonsense_counts_as_one_that_fails() {
    for nonsense in
        ["+PONG\r\n+OK\r\n", "+PONG\r\n*1\r\n:-5\r\n", "+PONG\r\n*2\r\n:1\r\n:2\r\n", "HTTP/1.1 400 Bad\r\n\r\n"]
    {
        let liar = Peer::scripted(move |accepted| {
            let mut answers = nonsense.split_inclusive("\r\n");
            let mut piece = [0; 4096];
            while accepted.stream.read(&mut piece).is_ok_and(|count| count > 0) {
                let answer = if nonsense.starts_with('+') { answers.by_ref().next() } else { Some(nonsense) };
                let rest: String = if answer.is_some_and(|line| line.starts_with('*')) {
                    answers.by_ref().collect()
                } else {
                    String::new()
                };
                let _ = accepted.stream.write_all(format!("{}{rest}", answer.unwrap_or_default()).as_bytes());
            }
        });
        let peer = Peer::hello();
        let gateway = limited(&peer, liar.port, 1_000, json!({}));
        for _ in 0..3 {
            assert_eq!(remaining(&gateway.get("/").must_be(200)), None, "{nonsense:?}");
        }
        assert_eq!(times(&gateway, &format!("redis 127.0.0.1:{}: ", liar.port)), 1, "{}", gateway.log());
    }
}

#[test]
fn redis_is_told_who_asks() {
    let peer = Peer::hello();
    let redis = Redis::with(&["--requirepass", "default", "--user", "counter", "on", ">secret", "~*", "+@all"]);
    let wrong = limited(&peer, redis.port(), 5, json!({"redis": {"username": "counter", "password": "guess"}}));
    assert_eq!(remaining(&wrong.get("/").must_be(200)), None);
    assert!(wrong.log().contains("WRONGPASS") || wrong.log().contains("uthentication"), "{}", wrong.log());
    let right = limited(&peer, redis.port(), 5, json!({"redis": {"username": "counter", "password": "secret"}}));
    assert_eq!(remaining(&right.get("/").must_be(200)), Some(4));
    let by_password = limited(&peer, redis.port(), 5, json!({"redis": {"password": "default"}}));
    assert_eq!(remaining(&by_password.get("/").must_be(200)), Some(3));
}

#[test]
fn redis_over_tls_is_verified_by_name_and_authority_if_so_configured() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    certificates::write(directory.path(), "redis.test");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let tls = Port::reserve();
    let port = tls.number.to_string();
    let (leaf, key, authority) = (file("leaf.pem"), file("leaf.key"), file("ca.pem"));
    let _redis = Redis::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &leaf,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "no",
    ]);
    let peer = Peer::hello();
    for (fields, left) in [
        (json!({"ssl": true}), Some(4)),
        (json!({"ssl": true, "ssl_verify": true, "server_name": "redis.test"}), Some(3)),
        (json!({"ssl": true, "ssl_verify": true}), None),
        (json!({}), None),
    ] {
        let gateway = Gateway::with(Driver::any(), &[("lua_ssl_trusted_certificate", &authority)]);
        limit_by_redis(&gateway, &peer, tls.number, 5, json!({"redis": fields}));
        assert_eq!(remaining(&gateway.get("/").must_be(200)), left, "{fields}: {}", gateway.log());
    }
}
