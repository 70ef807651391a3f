//! Kept upstream connections (spec/proxying.md section 9) and the names that lead to upstreams (spec/balancer.md).

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Accepted;
use crate::harness::peer::Peer;

on_both_drivers!(
    connections_are_kept_as_the_settings_say,
    an_upstream_that_closes_or_speaks_http_1_0_is_taken_at_its_word,
    a_kept_connection_outlives_a_change_of_the_configuration,
    a_connection_that_ended_while_it_was_kept_carries_no_post,
);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn connections_are_kept_as_the_settings_say(driver: Driver) {
    for (settings, requests, connections) in [
        (&[][..], 6, 1),
        (&[("upstream_keepalive_pool_size", "0")], 3, 3),
        (&[("upstream_keepalive_max_requests", "2")], 6, 3),
    ] {
        let peer = Peer::hello();
        let gateway = Gateway::with(driver, settings);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        for _ in 0..requests {
            client.ask(GET).must_be(200);
        }
        assert_eq!(peer.connections(), connections, "{settings:?}");
    }
    let (report, closed) = mpsc::channel();
    let peer = Peer::scripted(move |accepted| {
        accepted.request();
        accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = accepted.until_closed();
        let _ = report.send(());
    });
    let gateway = Gateway::with(driver, &[("upstream_keepalive_idle_timeout", "200ms")]);
    gateway.proxy_to(peer.port);
    gateway.connect().ask(GET).must_be(200);
    closed.recv_timeout(PATIENCE).expect("an idle connection is closed at its time");
}

fn an_upstream_that_closes_or_speaks_http_1_0_is_taken_at_its_word(driver: Driver) {
    for (answer, kept) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
    ] {
        let peer = Peer::answering(answer);
        let gateway = Gateway::start(driver);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        for _ in 0..3 {
            let got = client.ask(GET).must_be(200);
            assert_eq!((got.text().as_str(), got.header("connection")), ("ok", Some("keep-alive")), "{answer}");
        }
        assert_eq!(peer.connections(), if kept { 1 } else { 3 }, "{answer}");
    }
    let peer = Peer::scripted(|accepted| {
        accepted.request();
        accepted.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let got = client.ask(GET).must_be(200);
        assert_eq!((got.text().as_str(), got.header("transfer-encoding")), ("until the end", Some("chunked")));
    }
}

fn a_kept_connection_outlives_a_change_of_the_configuration(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for n in 0..10 {
        client.ask(GET).must_be(200);
        gateway.patch("/services/s", json!({"retries": n}));
    }
    assert_eq!(peer.connections(), 1);
}

fn a_connection_that_ended_while_it_was_kept_carries_no_post(driver: Driver) {
    let (report, closed) = mpsc::channel();
    let peer = Peer::scripted(move |accepted| {
        accepted.request();
        accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        accepted.finish_sending();
        let _ = accepted.until_closed();
        let _ = report.send(());
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for _ in 0..5 {
        client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").must_be(200);
        closed.recv_timeout(PATIENCE).expect("an ended connection is let go without waiting for its use");
    }
}

#[test]
fn ipv6_is_spoken_on_both_sides() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("not run: this machine has no IPv6");
    };
    let peer = Peer::listening(listener, |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::with(Driver::any(), &[("proxy_listen", "[::1]:0")]);
    gateway.create("/services", json!({"name": "s", "host": "::1", "port": peer.port}));
    gateway.create("/services/s/routes", json!({"paths": ["/literal"]}));
    gateway.create("/upstreams", json!({"name": "u"}));
    gateway.create("/upstreams/u/targets", json!({"target": format!("[::1]:{}", peer.port)}));
    gateway.create("/services", json!({"name": "balanced", "host": "u"}));
    gateway.create("/services/balanced/routes", json!({"paths": ["/balanced"]}));
    for path in ["/literal", "/balanced"] {
        let mut client = Client::connect_to(("::1", gateway.proxy));
        client.ask(format!("GET {path} HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n")).must_be(200);
        let arrived = peer.arrived();
        assert_eq!((arrived.header("x-real-ip"), arrived.header("x-forwarded-for")), (Some("::1"), Some("::1")));
        assert_eq!(arrived.header("x-forwarded-host"), Some("[::1]"));
        let host = arrived.header("host").unwrap_or_default();
        assert!(host.starts_with('[') && host.ends_with(&format!("]:{}", peer.port)), "{path}: {host}");
    }
}

/// A name server that answers every A question with the addresses of now, and nothing else; records live for a second.
fn name_server(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> String {
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let resolver = server.local_addr().expect("a bound socket").to_string();
    std::thread::spawn(move || {
        let mut buf = [0; 512];
        while let Ok((len, from)) = server.recv_from(&mut buf) {
            let query = &buf[..len];
            let Some(name_end) = query[12..].iter().position(|byte| *byte == 0).map(|at| 12 + at) else { continue };
            let question = &query[12..name_end + 5];
            let is_a = query[name_end + 1..name_end + 3] == [0, 1];
            let records = if is_a { addresses.lock().expect("no panics").clone() } else { Vec::new() };
            let mut answer = Vec::from(&query[..2]);
            answer.extend([0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
            answer.extend(question);
            for address in records {
                // The name by reference, type A, class IN, one second.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = server.send_to(&answer, from);
        }
    });
    resolver
}

/// Peers on the same port of 127.0.0.1 and 127.0.0.2, each answering with its address.
fn twins() -> (Peer, Peer) {
    let script = |name: &'static str| {
        move |accepted: &mut Accepted| {
            while accepted.request().is_some() {
                accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
            }
        }
    };
    for _ in 0..100 {
        let one = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = one.local_addr().expect("a bound socket").port();
        if let Ok(two) = TcpListener::bind(("127.0.0.2", port)) {
            return (Peer::listening(one, script("one")), Peer::listening(two, script("two")));
        }
    }
    panic!("no port is free on both addresses");
}

#[test]
fn a_name_leads_to_all_its_addresses_in_turn_and_is_followed_when_it_moves() {
    let addresses = Arc::new(Mutex::new(vec![Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)]));
    let resolver = name_server(addresses.clone());
    let settings = [("dns_resolver", resolver.as_str()), ("dns_stale_ttl", "1")];
    let gateway = Gateway::with(Driver::any(), &settings);
    let (one, _two) = twins();
    gateway.create("/services", json!({"name": "s", "host": "moving.example.test", "port": one.port}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    let mut client = gateway.connect();
    let mut answers = |count: usize| {
        let mut texts: Vec<String> = (0..count).map(|_| client.ask(GET).must_be(200).text()).collect();
        texts.sort();
        texts
    };
    assert_eq!(answers(4), ["one", "one", "two", "two"]);
    *addresses.lock().expect("no panics") = vec![Ipv4Addr::new(127, 0, 0, 2)];
    eventually("the name to have moved", || (answers(4) == ["two"; 4]).then_some(()));
    gateway.create("/upstreams", json!({"name": "moving.example.test"}));
    gateway
        .create("/upstreams/moving.example.test/targets", json!({"target": format!("back.example.test:{}", one.port)}));
    assert_eq!(answers(2), ["two", "two"], "an upstream's targets are looked up too");
    *addresses.lock().expect("no panics") = vec![Ipv4Addr::new(127, 0, 0, 1)];
    eventually("the target to have moved", || (answers(4) == ["one"; 4]).then_some(()));
}

#[test]
fn the_hosts_file_goes_before_the_name_server() {
    let peer = Peer::hello();
    let mut gateway = Gateway::unstarted(Driver::any(), &[("dns_hostsfile", "hosts"), ("dns_resolver", "127.0.0.1:1")]);
    std::fs::write(gateway.prefix().join("hosts"), "# own\n127.0.0.1  Named.Example.test other\n")
        .expect("the prefix is there");
    gateway.restart();
    for (n, host) in ["named.example.test", "other", "NAMED.example.TEST"].iter().enumerate() {
        gateway.create("/services", json!({"name": format!("s{n}"), "host": host, "port": peer.port}));
        gateway.create(&format!("/services/s{n}/routes"), json!({"paths": [format!("/{n}")]}));
        gateway.get(&format!("/{n}")).must_be(200);
    }
}
