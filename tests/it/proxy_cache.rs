//! proxy-cache in front of real traffic: hits on all cores, bodies to the byte, purges, what is never kept.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(a_response_answers_on_all_cores_until_it_is_purged, long_bodies_arrive_to_the_byte);

/// A gateway whose only route keeps responses.
fn keeping(driver: Driver, peer: &Peer, settings: &[(&str, &str)], config: Value) -> (Gateway, String) {
    let gateway = Gateway::with(driver, settings);
    gateway.proxy_to(peer.port);
    let mut all = json!({"strategy": "memory"});
    for (name, value) in config.as_object().expect("a configuration is an object") {
        all[name] = value.clone();
    }
    let plugin = gateway.create("/routes/r/plugins", json!({"name": "proxy-cache", "config": all}));
    let id = plugin["id"].as_str().expect("an id").to_owned();
    (gateway, id)
}

/// An upstream that says with each response how many there were.
fn counting(head: &'static str) -> Peer {
    let answers = Arc::new(AtomicUsize::new(0));
    Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            let body = format!("{:04}", answers.fetch_add(1, Ordering::Relaxed) + 1);
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n{head}Content-Length: 4\r\n\r\n{body}"));
        }
    })
}

const ANY: &[&str] = &["*/*"];

fn status(answer: &Response) -> &str {
    answer.header("x-cache-status").unwrap_or("none")
}

fn a_response_answers_on_all_cores_until_it_is_purged(driver: Driver) {
    let peer = counting("Server: origin\r\nX-A: 1\r\nX-A: 2\r\n");
    let (gateway, id) = keeping(driver, &peer, &[("workers", "4")], json!({"content_type": ANY}));
    let first = gateway.get("/a").must_be(200);
    assert_eq!(status(&first), "Miss");
    let key = first.header("x-cache-key").expect("a key is told").to_owned();
    let hit = |body: &str| {
        for _ in 0..32 {
            // A connection of its own each: the kernel spreads them over the cores.
            let answer = gateway.get("/a").must_be(200);
            assert_eq!((status(&answer), answer.text().as_str()), ("Hit", body));
            assert_eq!((answer.header("x-cache-key"), answer.header("server")), (Some(key.as_str()), Some("origin")));
            assert_eq!(answer.headers("x-a"), ["1", "2"]);
            assert!(answer.header("age").is_some_and(|age| age.parse::<u64>().is_ok_and(|age| age < 60)));
            assert!(answer.header("via").is_some() && answer.header("x-kong-proxy-latency").is_some());
        }
    };
    hit("0001");
    let shown = gateway.admin("GET", &format!("/proxy-cache/{key}"), None).must_be(200).json();
    assert_eq!(
        (&shown["status"], &shown["body"], &shown["headers"]["X-A"]),
        (&json!(200), &json!("0001"), &json!(["1", "2"]))
    );
    let purges = [format!("/proxy-cache/{key}"), format!("/proxy-cache/{id}/caches/{key}"), "/proxy-cache".to_owned()];
    for (at, path) in purges.iter().enumerate() {
        gateway.admin("DELETE", path, None).must_be(204);
        for path in &purges[..2] {
            gateway.admin("GET", path, None).must_be(404);
            gateway.admin("DELETE", path, None).must_be(404);
        }
        let body = format!("{:04}", at + 2);
        let again = gateway.get("/a").must_be(200);
        assert_eq!((status(&again), again.text()), ("Miss", body.clone()));
        hit(&body);
        gateway.admin("GET", &purges[1], None).must_be(200);
    }
    gateway.admin("GET", "/proxy-cache/zz", None).must_be(404);
    gateway.admin("GET", &format!("/proxy-cache/00000000-0000-0000-0000-000000000000/caches/{key}"), None).must_be(404);
    assert_eq!(peer.arrived_by_now().len(), 4);
}

fn long_bodies_arrive_to_the_byte(driver: Driver) {
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = body.clone();
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in sent.chunks(100_000) {
                accepted.send(format!("{:x}\r\n", piece.len()));
                accepted.send(piece);
                accepted.send("\r\n");
            }
            accepted.send("0\r\n\r\n");
        }
    });
    let (gateway, _) = keeping(driver, &peer, &[], json!({"content_type": ANY}));
    let mut client = gateway.connect();
    for want in ["Miss", "Hit", "Hit"] {
        let answer = client.ask("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        assert_eq!(status(&answer), want);
        assert!(answer.body == body, "{want}: {} bytes", answer.body.len());
    }
    // The cache keeps what fits, and the connection goes on.
    let shorter = gateway.connect().ask("GET /long HTTP/1.0\r\nHost: a\r\n\r\n").must_be(200);
    assert!(shorter.body == body);
}

#[test]
fn answers_to_head_tell_the_length_of_the_body_that_was_not_sent() {
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 77\r\n\r\n");
    let (gateway, _) = keeping(Driver::any(), &peer, &[], json!({"content_type": ANY}));
    for want in ["Miss", "Hit"] {
        let mut client = gateway.connect();
        client.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.head();
        assert_eq!((status(&answer), answer.header("content-length")), (want, Some("77")));
    }
}

#[test]
fn what_did_not_arrive_whole_is_never_kept() {
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let peer = Peer::scripted(move |accepted| {
            if accepted.request().is_some() {
                accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n{head}\r\n5\r\nhel"));
                accepted.finish_sending();
            }
        });
        let (gateway, _) = keeping(Driver::any(), &peer, &[], json!({"content_type": ANY}));
        for _ in 0..2 {
            let mut client = gateway.connect();
            client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
            client.read_to_end();
            assert!(String::from_utf8_lossy(&client.rest).contains("X-Cache-Status: Miss"));
        }
        assert_eq!(peer.arrived_by_now().len(), 2);
    }
}

#[test]
fn what_the_gateway_says_itself_is_never_kept() {
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    let config = json!({"response_code": [200, 502, 503], "content_type": ANY});
    let (gateway, _) = keeping(Driver::any(), &peer, &[], config);
    gateway.patch("/services/s", json!({"port": 1, "retries": 0}));
    for _ in 0..2 {
        assert_eq!(status(&gateway.get("/x").must_be(502)), "Bypass");
    }
    gateway.patch("/services/s", json!({"port": peer.port}));
    gateway.get("/x").must_be(200);
}

#[test]
fn other_plugins_of_the_route_still_have_their_say() {
    let peer = counting("");
    let (gateway, _) = keeping(Driver::any(), &peer, &[], json!({"content_type": ANY}));
    gateway.create("/routes/r/plugins", json!({"name": "rate-limiting", "config": {"year": 3}}));
    let transformer = json!({"name": "response-transformer", "config": {"add": {"headers": ["x-t:1"]}}});
    gateway.create("/routes/r/plugins", transformer);
    for (left, want) in [("2", "Miss"), ("1", "Hit"), ("0", "Hit")] {
        let answer = gateway.get("/").must_be(200);
        assert_eq!((status(&answer), answer.header("ratelimit-remaining")), (want, Some(left)));
        assert!(answer.header("x-t").is_some());
    }
    gateway.get("/").must_be(429);
}

#[test]
fn consumers_are_kept_apart() {
    let peer = counting("");
    let (gateway, _) = keeping(Driver::any(), &peer, &[], json!({"content_type": ANY}));
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    for name in ["a", "b"] {
        gateway.create("/consumers", json!({"username": name}));
        gateway.create(&format!("/consumers/{name}/key-auth"), json!({"key": name}));
    }
    let ask =
        |key: &str| gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\napikey: {key}\r\n\r\n")).must_be(200);
    for (key, want, body) in [("a", "Miss", "0001"), ("b", "Miss", "0002"), ("a", "Hit", "0001"), ("b", "Hit", "0002")]
    {
        let answer = ask(key);
        assert_eq!((status(&answer), answer.text().as_str()), (want, body));
    }
}

#[test]
fn the_cache_keeps_no_more_than_its_setting_says() {
    let body = "x".repeat(64 << 10);
    let peer = Peer::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let (gateway, _) = keeping(Driver::any(), &peer, &[("mem_cache_size", "1m")], json!({"content_type": ANY}));
    let mut client = gateway.connect();
    let mut ask = |n: usize| client.ask(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
    for n in 0..64 {
        assert_eq!(status(&ask(n)), "Miss");
    }
    let hits = (0..64).rev().filter(|n| status(&ask(*n)) == "Hit").count();
    assert!((8..=15).contains(&hits), "{hits} of 64 are there");
}

#[test]
fn a_dictionary_that_is_not_there_is_refused() {
    let gateway = Gateway::start(Driver::any());
    let config = json!({"strategy": "memory", "memory": {"dictionary_name": "mine"}});
    let refused =
        gateway.admin("POST", "/plugins", Some(&json!({"name": "proxy-cache", "config": config}))).must_be(400);
    assert!(refused.text().contains("missing shared dict 'mine'"), "{}", refused.text());
}
