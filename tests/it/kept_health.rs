//! What is known of an address, and the connections to it, while configuration, health and names change around it
//! (spec/balancer.md section 17).

use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::mpsc;

use serde_json::Value;
use serde_json::json;

use crate::balancing::balanced;
use crate::balancing::named;
use crate::balancing::passive;
use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::dns::Dns;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

const ONE_WORKER: [(&str, &str); 1] = [("workers", "1")];

/// Answers with a name, and tells when the gateway closes a connection.
fn telling(listener: TcpListener, name: &'static str) -> (Peer, mpsc::Receiver<()>) {
    let (report, closed) = mpsc::channel();
    let peer = Peer::listening(listener, move |accepted| {
        while accepted.request().is_some() {
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
        let _ = report.send(());
    });
    (peer, closed)
}

fn anywhere() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback has free ports")
}

fn health(gateway: &Gateway, port: u16) -> Value {
    let page = gateway.admin("GET", "/upstreams/u/health", None).must_be(200).json();
    let target = format!("127.0.0.1:{port}");
    let row = page["data"].as_array().and_then(|rows| rows.iter().find(|row| row["target"] == target).cloned());
    row.expect("the target is listed")["health"].clone()
}

fn set(gateway: &Gateway, port: u16, word: &str) {
    gateway.admin("PUT", &format!("/upstreams/u/targets/127.0.0.1:{port}/{word}"), None).must_be(204);
}

#[test]
fn no_edit_that_keeps_an_address_brings_it_back() {
    let (bad, good) = (named("bad"), named("good"));
    let checks = passive(json!({"tcp_failures": 2}));
    let gateway = balanced(&[], checks.clone(), json!({}), &[bad.port, good.port]);
    set(&gateway, bad.port, "unhealthy");
    let is_out = |after: &str| {
        assert_eq!(health(&gateway, bad.port), "UNHEALTHY", "after {after}");
        for _ in 0..12 {
            assert_eq!(gateway.get("/").must_be(200).text(), "good", "after {after}");
        }
    };
    is_out("the operator's word");
    for change in [
        json!({"algorithm": "least-connections"}),
        json!({"algorithm": "latency"}),
        json!({"hash_on": "ip"}),
        json!({"hash_on": "none"}),
        json!({"slots": 65536}),
        json!({"host_header": "other.test:1"}),
        json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 7, "http_failures": 3}}}}),
        json!({"healthchecks": {"threshold": 10}}),
        json!({"tags": ["t"]}),
    ] {
        gateway.patch("/upstreams/u", change.clone());
        is_out(&change.to_string());
    }
    let mut whole = checks.clone();
    whole["name"] = "u".into();
    gateway.admin("PUT", "/upstreams/u", Some(&whole)).must_be(200);
    is_out("PUT");
    let target = format!("127.0.0.1:{}", bad.port);
    gateway.patch(&format!("/upstreams/u/targets/{target}"), json!({"weight": 7}));
    is_out("a change of its weight");
    gateway.admin("DELETE", &format!("/upstreams/u/targets/{target}"), None).must_be(204);
    gateway.create("/upstreams/u/targets", json!({"target": target}));
    is_out("taking it out and putting it back");
    // Without checks it is used, and what was known counts again with them.
    gateway.patch("/upstreams/u", json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 0}}}}));
    assert_eq!(health(&gateway, bad.port), "HEALTHCHECKS_OFF");
    assert!((0..12).any(|_| gateway.get("/").must_be(200).text() == "bad"));
    gateway.patch("/upstreams/u", json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 2}}}}));
    is_out("switching checks off and on");
    // The document gives everything another id.
    let port = |peer: &Peer| json!({"target": format!("127.0.0.1:{}", peer.port)});
    let mut upstream = checks;
    upstream["name"] = "u".into();
    upstream["targets"] = json!([port(&bad), port(&good)]);
    let document = json!({"_format_version": "3.0", "upstreams": [upstream],
        "services": [{"name": "s", "host": "u", "routes": [{"name": "r", "paths": ["/"]}]}]});
    for load in ["a whole configuration", "the same once more"] {
        gateway.admin("POST", "/config", Some(&document)).must_be(201);
        is_out(load);
    }
    gateway.admin("DELETE", "/upstreams/u", None).must_be(204);
    gateway.create("/upstreams", json!({"name": "u", "healthchecks": document["upstreams"][0]["healthchecks"]}));
    [&bad, &good].into_iter().for_each(|peer| drop(gateway.create("/upstreams/u/targets", port(peer))));
    is_out("making the upstream again");
    let page = gateway.admin("GET", "/upstreams/u/health?history=1", None).must_be(200).json();
    let rows = page["data"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["target"] == target.as_str()).expect("the target");
    assert_eq!(row["data"]["addresses"][0]["history"].as_array().map(Vec::len), Some(1), "{row}");
    set(&gateway, bad.port, "healthy");
    assert!((0..12).any(|_| gateway.get("/").must_be(200).text() == "bad"));
}

#[test]
fn an_edit_that_takes_the_probes_away_does_not_leave_a_target_out_for_ever() {
    let (bad, good) = (named("bad"), named("good"));
    let mut upstream = passive(json!({"http_failures": 1}));
    // Probes that come once an hour.
    upstream["healthchecks"]["active"] =
        json!({"healthy": {"successes": 1}, "unhealthy": {"interval": 3600, "tcp_failures": 1}});
    upstream["healthchecks"]["passive"]["unhealthy"]["http_statuses"] = json!([200]);
    upstream["healthchecks"]["passive"]["healthy"] = json!({"http_statuses": [201]});
    let settings = [("passive_recovery", "0.1")];
    let gateway = balanced(&settings, upstream, json!({}), &[bad.port]);
    assert_eq!(gateway.get("/").must_be(200).text(), "bad");
    gateway.get("/").must_be(503);
    gateway.create("/upstreams/u/targets", json!({"target": format!("127.0.0.1:{}", good.port)}));
    gateway.patch(
        "/upstreams/u",
        json!({"healthchecks": {"active": {"unhealthy": {"interval": 0}},
                                "passive": {"unhealthy": {"http_statuses": [500]}}}}),
    );
    eventually("the target to be tried again", || (gateway.get("/").must_be(200).text() == "bad").then_some(()));
    assert_eq!(health(&gateway, bad.port), "HEALTHY");
}

#[test]
fn idle_connections_to_an_ejected_target_are_closed() {
    let (sick, closed) = telling(anywhere(), "sick");
    let gateway = balanced(&ONE_WORKER, passive(json!({"tcp_failures": 1})), json!({}), &[sick.port]);
    gateway.get("/").must_be(200);
    assert_eq!(sick.connections(), 1);
    set(&gateway, sick.port, "unhealthy");
    closed.recv_timeout(PATIENCE).expect("its idle connection is closed");
    set(&gateway, sick.port, "healthy");
    (0..3).for_each(|_| drop(gateway.get("/").must_be(200)));
    assert_eq!(sick.connections(), 2, "and a fresh one is kept again");
}

#[test]
fn idle_connections_follow_a_name_to_its_new_address() {
    let dns = Dns::start();
    let port = Port::reserve();
    let at = |last: u8| {
        TcpListener::bind(SocketAddr::from(([127, 0, 0, last], port.number))).expect("a reserved port is free")
    };
    let ((_old, old_closed), (_new, _)) = (telling(at(2), "old"), telling(at(3), "new"));
    dns.set("moving.test", &[2], 1);
    let gateway = Gateway::with(Driver::any(), &[("dns_resolver", dns.address().as_str()), ("workers", "1")]);
    gateway.create("/upstreams", json!({"name": "u"}));
    gateway.create("/upstreams/u/targets", json!({"target": format!("moving.test:{}", port.number)}));
    gateway.create("/services", json!({"name": "s", "host": "u"}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    assert_eq!(gateway.get("/").must_be(200).text(), "old");
    dns.set("moving.test", &[3], 60);
    // Nobody asks for it meanwhile.
    old_closed.recv_timeout(PATIENCE).expect("its idle connection is closed");
    assert_eq!(gateway.get("/").must_be(200).text(), "new");
}

#[test]
fn a_target_that_is_taken_out_finishes_what_it_has_begun() {
    let gate = Arc::new(RwLock::new(()));
    let (behind, (report, closed)) = (gate.clone(), mpsc::channel());
    let slow = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl");
            drop(behind.read());
            accepted.send("ow");
        }
        let _ = report.send(());
    });
    let other = named("other");
    let gateway = balanced(&ONE_WORKER, json!({}), json!({}), &[slow.port, other.port]);
    let shut = gate.write().expect("nobody panics behind it");
    let mut waiting = Vec::new();
    while waiting.is_empty() {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if client.head().header("content-length") == Some("4") {
            waiting.push(client);
        }
    }
    gateway.admin("DELETE", &format!("/upstreams/u/targets/127.0.0.1:{}", slow.port), None).must_be(204);
    (0..10).for_each(|_| assert_eq!(gateway.get("/").must_be(200).text(), "other"));
    assert_eq!(slow.connections(), 1);
    drop(shut);
    for client in &mut waiting {
        while client.rest.len() < 4 {
            let mut piece = [0; 4];
            let count = std::io::Read::read(&mut client.stream, &mut piece).expect("the rest comes");
            assert!(count > 0, "the answer is cut short: {:?}", client.rest);
            client.rest.extend_from_slice(&piece[..count]);
        }
        assert_eq!(client.rest, b"slow");
    }
    closed.recv_timeout(PATIENCE).expect("and its connection is closed");
}
