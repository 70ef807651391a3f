//! Balancing and passive health through the real gateway: keys that keep their target, targets that fail in every way
//! under a steady stream of requests, and edits that keep what is known of a target.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::nginx::Nginx;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

/// A peer whose answers are its name.
pub fn named(name: &str) -> Peer {
    Peer::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

/// A gateway with everything led to upstream `u` of these targets.
pub fn balanced(settings: &[(&str, &str)], upstream: Value, service: Value, ports: &[u16]) -> Gateway {
    let gateway = Gateway::with(Driver::any(), settings);
    let (mut fields, mut service) = (upstream, service);
    fields["name"] = "u".into();
    service["name"] = "s".into();
    service["host"] = "u".into();
    gateway.create("/upstreams", fields);
    for port in ports {
        gateway.create("/upstreams/u/targets", json!({"target": format!("127.0.0.1:{port}")}));
    }
    gateway.create("/services", service);
    gateway.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    gateway
}

pub fn passive(unhealthy: Value) -> Value {
    json!({"healthchecks": {"passive": {"unhealthy": unhealthy}}})
}

fn ask(gateway: &Gateway, fields: &str) -> Response {
    gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).must_be(200)
}

#[test]
fn a_key_keeps_its_target_and_keys_spread() {
    let peers = ["a", "b", "c"].map(named);
    let ports: Vec<_> = peers.iter().map(|peer| peer.port).collect();
    let upstream = json!({"hash_on": "header", "hash_on_header": "x-key", "hash_fallback": "ip"});
    let gateway = balanced(&[], upstream, json!({}), &ports);
    let owners = || -> BTreeMap<u32, String> {
        (0..40).map(|key| (key, ask(&gateway, &format!("X-Key: k{key}\r\n")).text())).collect()
    };
    let first = owners();
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3, "every target has keys: {first:?}");
    assert_eq!(owners(), first);
    let of_ip: BTreeSet<_> = (0..10).map(|_| ask(&gateway, "").text()).collect();
    assert_eq!(of_ip.len(), 1, "all without the header come from one address");
}

#[test]
fn a_cookie_is_set_once_and_brings_the_client_back() {
    let peers = ["a", "b", "c"].map(named);
    let ports: Vec<_> = peers.iter().map(|peer| peer.port).collect();
    let upstream = json!({"hash_on": "cookie", "hash_on_cookie": "peer", "hash_on_cookie_path": "/x"});
    let gateway = balanced(&[], upstream, json!({}), &ports);
    for _ in 0..10 {
        let first = ask(&gateway, "");
        let cookie = first.header("set-cookie").expect("a cookie").to_owned();
        let pair = cookie.strip_suffix("; Path=/x; Same-Site=Lax; HttpOnly").expect("its attributes");
        assert!(pair.starts_with("peer="), "{cookie}");
        for _ in 0..3 {
            let again = ask(&gateway, &format!("Cookie: {pair}\r\n"));
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
    }
}

/// Equal texts meet equal targets, wherever in the request they stand.
#[test]
fn every_input_is_hashed_and_falls_back() {
    let peers = ["a", "b", "c"].map(named);
    let ports: Vec<_> = peers.iter().map(|peer| peer.port).collect();
    let upstream = json!({"hash_on": "header", "hash_on_header": "x-key"});
    let gateway = balanced(&[("trusted_ips", "127.0.0.1/32")], upstream, json!({}), &ports);
    gateway.patch("/routes/r", json!({"paths": ["/", "~/item/(?<item>[^/]+)/(.+)$"]}));
    gateway.create("/services/s/plugins", json!({"name": "key-auth", "config": {"anonymous": "nobody"}}));
    gateway.create("/consumers", json!({"username": "nobody"}));
    let consumer = gateway.create("/consumers", json!({"username": "somebody"}))["id"].clone();
    gateway.create("/consumers/somebody/key-auth", json!({"key": "secret"}));
    let ask = |target: &str, fields: &str| {
        gateway.connect().ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).must_be(200).text()
    };
    let texts: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let of = |text: &str| ask("/", &format!("X-Key: {text}\r\n"));
    let owners: BTreeMap<&String, String> = texts.iter().map(|text| (text, of(text))).collect();
    let (of_path, of_ip, of_list) = (of("/p q"), of("10.0.0.9"), of("1,2"));
    let (of_consumer, of_nothing) = (of(consumer.as_str().expect("an id")), ask("/", ""));
    let hash_on = |fields: serde_json::Value| drop(gateway.patch("/upstreams/u", fields));
    let same = |target: &dyn Fn(&str) -> String, fields: &dyn Fn(&str) -> String| {
        for (text, owner) in &owners {
            assert_eq!(ask(&target(text), &fields(text)), *owner, "{} {}", target(text), fields(text));
        }
    };
    let (root, none) = (|_: &str| "/".to_owned(), |_: &str| String::new());
    hash_on(json!({"hash_on": "query_arg", "hash_on_query_arg": "q"}));
    same(&|text| format!("/?x=1&q={text}"), &none);
    assert_eq!(ask("/?q=2&q=1", ""), of_list, "values in order, joined");
    hash_on(json!({"hash_on": "uri_capture", "hash_on_uri_capture": "item"}));
    same(&|text| format!("/item/{text}/rest"), &none);
    hash_on(json!({"hash_on": "uri_capture", "hash_on_uri_capture": "2"}));
    same(&|text| format!("/item/x/{text}"), &none);
    hash_on(json!({"hash_on": "cookie", "hash_on_cookie": "c"}));
    same(&root, &|text| format!("Cookie: b=1; c={text}\r\n"));
    hash_on(json!({"hash_on": "path"}));
    assert_eq!(ask("/p%20q?ignored", ""), of_path, "decoded, without the query");
    hash_on(json!({"hash_on": "ip"}));
    assert_eq!(ask("/", "X-Real-IP: 10.0.0.9\r\n"), of_ip);
    hash_on(json!({"hash_on": "consumer"}));
    assert_eq!(ask("/", "apikey: secret\r\n"), of_consumer);
    // Where the first input has nothing, the second counts; where neither has, the empty text does.
    for (fallback, name, target, field) in [
        ("header", "hash_fallback_header", "/", "X-Other: TEXT\r\n"),
        ("query_arg", "hash_fallback_query_arg", "/?X-Other=TEXT", ""),
        ("uri_capture", "hash_fallback_uri_capture", "/item/TEXT/rest", ""),
    ] {
        let value = if fallback == "uri_capture" { "item" } else { "X-Other" };
        hash_on(json!({"hash_on": "header", "hash_on_header": "x-key", "hash_fallback": fallback, name: value}));
        same(&|text| target.replace("TEXT", text), &|text| field.replace("TEXT", text));
        same(&|_| target.replace("TEXT", "other"), &|text| format!("X-Key: {text}\r\n"));
        assert_eq!(ask("/", ""), of_nothing, "{fallback}");
    }
}

#[test]
fn least_connections_passes_a_busy_target_by() {
    // Both hold what they get until their gate opens.
    let holding = |name: &'static str, gate: &Arc<RwLock<()>>| {
        let gate = gate.clone();
        Peer::scripted(move |accepted| {
            while accepted.request().is_some() {
                drop(gate.read());
                accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
            }
        })
    };
    let gates = [Arc::default(), Arc::default()];
    let (busy, quick) = (holding("busy", &gates[0]), holding("quick", &gates[1]));
    let [busy_closed, quick_closed] = gates.each_ref().map(|gate| gate.write().expect("nobody panics behind it"));
    let upstream = json!({"algorithm": "least-connections"});
    let gateway = balanced(&[("workers", "2")], upstream, json!({}), &[busy.port, quick.port]);
    let (mut held, mut at_busy, mut at_quick) = (Vec::new(), 0, 0);
    for _ in 0..4 {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the request to arrive", || {
            let (more_busy, more_quick) = (busy.arrived_by_now().len(), quick.arrived_by_now().len());
            (at_busy, at_quick) = (at_busy + more_busy, at_quick + more_quick);
            (more_busy + more_quick == 1).then_some(())
        });
        held.push(client);
    }
    assert_eq!((at_busy, at_quick), (2, 2), "whoever has fewer gets the next one, on whichever core");
    drop(quick_closed);
    // With two requests held, the busy one has more even while a core has yet to count off an answer of the quick one.
    for _ in 0..20 {
        assert_eq!(ask(&gateway, "").text(), "quick", "on whichever core");
    }
    drop(busy_closed);
    let busy_answers = held.iter_mut().map(|client| client.response().text()).filter(|text| text == "busy").count();
    assert_eq!(busy_answers, 2);
}

#[test]
fn an_ejected_target_is_ejected_on_every_core_and_across_edits() {
    let bad = Peer::answering("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n");
    let good = named("good");
    let upstream = passive(json!({"http_failures": 1}));
    let gateway = balanced(&[("workers", "2")], upstream, json!({}), &[bad.port, good.port]);
    eventually("the bad target to be asked", || (gateway.get("/").status == 500).then_some(()));
    let all_good = || (0..30).for_each(|_| assert_eq!(ask(&gateway, "").text(), "good"));
    all_good();
    gateway.patch("/upstreams/u", json!({"slots": 20}));
    all_good();
    gateway.patch(&format!("/upstreams/u/targets/127.0.0.1:{}", bad.port), json!({"weight": 50}));
    all_good();
    gateway.patch("/services/s", json!({"retries": 1}));
    all_good();
    gateway.create("/upstreams/u/targets", json!({"target": format!("127.0.0.1:{}", named("late").port)}));
    gateway.patch("/upstreams/u", json!({"algorithm": "least-connections"}));
    assert!((0..30).all(|_| gateway.get("/").status != 500));
    assert!(gateway.log().contains("passive check, status 500 (HttpFailure, limit 1)"), "{}", gateway.log());
}

#[test]
fn an_ejected_target_is_tried_again_and_comes_back() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let sick = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send(match is_well.load(Ordering::SeqCst) {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsick",
                false => "HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n",
            });
        }
    });
    let good = named("good");
    let upstream = passive(json!({"http_failures": 1}));
    let gateway = balanced(&[("passive_recovery", "0.1")], upstream, json!({}), &[sick.port, good.port]);
    eventually("the sick target to be asked", || (gateway.get("/").status == 503).then_some(()));
    well.store(true, Ordering::SeqCst);
    eventually("the target to come back", || (gateway.get("/").text() == "sick").then_some(()));
    let texts: Vec<_> = (0..40).map(|_| ask(&gateway, "").text()).collect();
    assert!(texts.iter().filter(|text| *text == "sick").count() >= 10, "with its share: {texts:?}");
}

#[test]
fn a_target_that_dies_under_load_costs_nobody_an_error() {
    let mut servers = ["one", "two", "three"].map(Nginx::start);
    let ports: Vec<_> = servers.iter().map(Nginx::port).collect();
    let upstream = passive(json!({"tcp_failures": 2, "timeouts": 2}));
    let gateway = balanced(&[("workers", "2")], upstream, json!({}), &ports);
    let mut clients: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    for round in 0..100 {
        match round {
            30 => servers[0].stop(),
            60 => servers[0].start_again(),
            _ => {}
        }
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            client.response().must_be(200);
        }
    }
}

#[test]
fn refusing_silent_and_breaking_targets_are_ejected_by_what_they_do() {
    let nobody = Port::reserve();
    let silent = Peer::scripted(|accepted| {
        accepted.request();
        let _ = accepted.until_closed();
    });
    let breaking = Peer::scripted(|accepted| {
        accepted.request();
        accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        accepted.reset();
    });
    let good = named("good");
    let upstream = passive(json!({"tcp_failures": 1, "timeouts": 1}));
    let ports = [nobody.number, silent.port, breaking.port, good.port];
    let gateway = balanced(&[("workers", "1")], upstream, json!({"read_timeout": 200}), &ports);
    // One turn of the ring meets them all; of those only the one that breaks in the middle of its answer is seen.
    for _ in 0..ports.len() {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
    }
    eventually("all three to be ejected", || {
        (gateway.log().matches("is unavailable: passive check").count() == 3).then_some(())
    });
    let (silent_before, breaking_before) = (silent.connections(), breaking.connections());
    (0..40).for_each(|_| assert_eq!(ask(&gateway, "").text(), "good"));
    assert_eq!((silent.connections(), breaking.connections()), (silent_before, breaking_before));
}

#[test]
fn the_threshold_closes_the_whole_upstream() {
    let bad = Peer::answering("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n");
    let good = named("good");
    let mut upstream = passive(json!({"http_failures": 1}));
    upstream["healthchecks"]["threshold"] = 50.into();
    let gateway = balanced(&[], upstream, json!({}), &[bad.port, good.port]);
    eventually("the bad target to be asked", || (gateway.get("/").status == 500).then_some(()));
    let answer = gateway.get("/").must_be(503);
    assert!(answer.text().contains("failure to get a peer from the ring-balancer"), "{}", answer.text());
}
