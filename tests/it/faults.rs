//! Upstreams that refuse, close, stall or are not there: retries, timeouts and what the client is told
//! (spec/proxying.md sections 7.2, 8; spec/balancer.md section 2).

use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::time::Instant;

use serde_json::json;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

on_both_drivers!(
    a_refusing_target_costs_nobody_an_error,
    a_target_that_closes_unanswered_is_retried_for_get_and_never_for_post,
    a_silent_target_is_retried_for_get_and_never_for_post,
    a_body_that_was_passed_on_is_never_sent_twice,
    retries_end_where_the_service_says,
    a_silent_upstream_is_504,
    an_upstream_that_cannot_be_connected_to_is_504,
    an_upstream_that_takes_no_body_is_504,
    an_error_status_of_an_upstream_is_an_answer,
    both_targets_gone_is_kongs_502,
    a_client_that_goes_away_costs_its_own_request_only,
);

/// A gateway with a service `s` on an upstream of these targets.
fn balanced(driver: Driver, ports: &[u16]) -> Gateway {
    let gateway = Gateway::start(driver);
    gateway.create("/upstreams", json!({"name": "pair"}));
    for port in ports {
        gateway.create("/upstreams/pair/targets", json!({"target": format!("127.0.0.1:{port}")}));
    }
    gateway.create("/services", json!({"name": "s", "host": "pair"}));
    gateway.create("/services/s/routes", json!({"name": "r", "paths": ["/"], "strip_path": false}));
    gateway
}

fn request(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
}

fn closing() -> Peer {
    Peer::scripted(|accepted| drop(accepted.request()))
}

#[track_caller]
fn must_be_page(answer: Response, status: u16, message: &str) {
    let answer = answer.must_be(status);
    let id = answer.header("x-kong-request-id").expect("an id");
    assert_eq!(answer.text(), format!("{message}\nrequest_id: {id}\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
}

const BAD_GATEWAY: &str = "An invalid response was received from the upstream server";
const TIMED_OUT: &str = "The upstream server is timing out";

fn a_refusing_target_costs_nobody_an_error(driver: Driver) {
    let (peer, nobody) = (Peer::hello(), Port::reserve());
    let gateway = balanced(driver, &[nobody.number, peer.port]);
    for method in ["GET", "POST", "PATCH", "DELETE"] {
        for _ in 0..5 {
            let answer = gateway.connect().ask(request(method)).must_be(200);
            assert_eq!(answer.text(), "hello");
            let arrived = peer.arrived();
            assert_eq!(arrived.body, b"hi", "{method}");
            assert_eq!(
                arrived.header("host"),
                Some(format!("127.0.0.1:{}", peer.port).as_str()),
                "that of the target asked"
            );
        }
    }
}

fn a_target_that_closes_unanswered_is_retried_for_get_and_never_for_post(driver: Driver) {
    let (good, bad) = (Peer::hello(), closing());
    let gateway = balanced(driver, &[bad.port, good.port]);
    let mut client = gateway.connect();
    for _ in 0..6 {
        client.ask(request("PUT")).must_be(200);
    }
    for _ in 0..2 {
        client
            .ask("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n")
            .must_be(200);
    }
    let puts = good.arrived_by_now();
    assert_eq!(puts.len(), 8, "every one was answered by the good one, some at the second try");
    assert!(puts.iter().all(|arrived| arrived.body == b"hi"), "with their whole bodies: {puts:?}");
    assert!(!bad.arrived_by_now().is_empty(), "the bad one had its turns");
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..6 {
        let answer = client.ask(request("POST"));
        match answer.status {
            200 => answered += 1,
            _ => {
                must_be_page(answer, 502, BAD_GATEWAY);
                refused += 1;
            }
        }
    }
    assert_eq!((answered, refused), (3, 3), "the targets take turns, and no POST is sent twice");
    assert_eq!((good.arrived_by_now().len(), bad.arrived_by_now().len()), (3, 3));
}

fn a_silent_target_is_retried_for_get_and_never_for_post(driver: Driver) {
    let good = Peer::hello();
    let silent = Peer::scripted(|accepted| {
        accepted.request();
        let _ = accepted.until_closed();
    });
    let gateway = balanced(driver, &[silent.port, good.port]);
    gateway.patch("/services/s", json!({"read_timeout": 200}));
    let mut client = gateway.connect();
    for _ in 0..4 {
        client.ask(request("GET")).must_be(200);
    }
    assert_eq!(good.arrived_by_now().len(), 4);
    let mut statuses: Vec<u16> = (0..4).map(|_| client.ask(request("POST")).status).collect();
    statuses.sort();
    assert_eq!(statuses, [200, 200, 504, 504]);
    assert_eq!(good.arrived_by_now().len(), 2);
}

fn a_body_that_was_passed_on_is_never_sent_twice(driver: Driver) {
    const BYTES: usize = 4 << 20;
    let good = Peer::hello();
    // Takes the head and a part of the body, then closes.
    let bad = Peer::scripted(|accepted| {
        if let Some(arrived) = accepted.head() {
            accepted.record(&arrived);
            accepted.drop_bytes(1000);
        }
    });
    let gateway = balanced(driver, &[bad.port, good.port]);
    gateway.patch("/routes/r", json!({"request_buffering": false}));
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..6 {
        let mut client = gateway.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"));
        client.send_what_is_taken(&vec![b'x'; BYTES]);
        match client.response().status {
            200 => answered += 1,
            status => {
                assert_eq!(status, 502);
                refused += 1;
            }
        }
    }
    assert_eq!((good.arrived_by_now().len(), bad.arrived_by_now().len()), (answered, refused));
    assert!(answered > 0 && refused > 0, "each core begins elsewhere in the ring: {answered} and {refused}");
    // What is held is sent again as a whole.
    gateway.patch("/routes/r", json!({"request_buffering": true}));
    for _ in 0..4 {
        let body = "y".repeat(50_000);
        let answer = gateway.connect().ask(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n{body}"));
        answer.must_be(200);
        assert_eq!(good.arrived().body, body.as_bytes());
    }
}

fn retries_end_where_the_service_says(driver: Driver) {
    let bad = closing();
    let gateway = Gateway::start(driver);
    gateway.proxy_with(bad.port, json!({"retries": 0}), json!({}));
    for (retries, tries) in [(0, 1), (1, 2), (3, 4)] {
        gateway.patch("/services/s", json!({"retries": retries}));
        let answer = gateway.get("/").must_be(502);
        assert!(answer.header("x-kong-upstream-latency").is_some(), "it counts as proxied: {}", answer.head);
        assert!(answer.header("via").is_some(), "{}", answer.head);
        assert_eq!(bad.arrived_by_now().len(), tries, "{retries} retries");
    }
}

fn a_silent_upstream_is_504(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        accepted.request();
        let _ = accepted.until_closed();
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"retries": 1, "read_timeout": 200}), json!({}));
    let start = Instant::now();
    must_be_page(gateway.connect().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 504, TIMED_OUT);
    assert!(start.elapsed().as_millis() >= 400, "two tries of 200 ms took {:?}", start.elapsed());
    assert_eq!(peer.arrived_by_now().len(), 2, "a GET is tried again");
    must_be_page(gateway.connect().ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), 504, TIMED_OUT);
    assert_eq!(peer.arrived_by_now().len(), 1, "a POST is not");
}

fn an_upstream_that_cannot_be_connected_to_is_504(driver: Driver) {
    // A listener whose queue is full drops what knocks further.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback has free ports");
    socket.listen(0).expect("a bound socket");
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().expect("a bound socket");
    let filling: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
            socket.set_nonblocking(true).expect("a socket");
            let _ = socket.connect(&addr.into());
            socket
        })
        .collect();
    let gateway = Gateway::start(driver);
    gateway.proxy_with(addr.port(), json!({"retries": 0, "connect_timeout": 300}), json!({}));
    let start = Instant::now();
    must_be_page(gateway.connect().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 504, TIMED_OUT);
    assert!(start.elapsed().as_millis() >= 300, "{:?}", start.elapsed());
    drop(filling);
}

fn an_upstream_that_takes_no_body_is_504(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        if let Some(arrived) = accepted.head() {
            accepted.record(&arrived);
            std::thread::sleep(crate::harness::PATIENCE / 4);
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"write_timeout": 300, "read_timeout": 5000}), json!({}));
    let mut client = gateway.connect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 200 << 20));
    let mut sender = client.stream.try_clone().expect("a socket");
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        while std::io::Write::write_all(&mut sender, &piece).is_ok() {}
    });
    must_be_page(client.response(), 504, TIMED_OUT);
    let _ = client.stream.shutdown(std::net::Shutdown::Both);
    sending.join().expect("the sender ends");
}

fn an_error_status_of_an_upstream_is_an_answer(driver: Driver) {
    let peer = Peer::answering("HTTP/1.1 503 Own Words\r\nContent-Length: 3\r\n\r\nown");
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let answer = gateway.get("/").must_be(503);
    assert_eq!(answer.text(), "own");
    assert!(answer.head.starts_with("HTTP/1.1 503 Own Words\r\n"), "{}", answer.head);
    assert_eq!(peer.arrived_by_now().len(), 1, "it is not retried");
}

fn both_targets_gone_is_kongs_502(driver: Driver) {
    let nobody = [Port::reserve(), Port::reserve()];
    let gateway = balanced(driver, &[nobody[0].number, nobody[1].number]);
    let mut client = gateway.connect();
    let mut ask = |fields: &str| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).must_be(502);
    must_be_page(ask(""), 502, BAD_GATEWAY);
    for (fields, kind, begin) in [
        ("Accept: */*\r\n", "application/json; charset=utf-8", "{\n  \"message\":\"An invalid response"),
        ("Accept: text/html\r\n", "text/html; charset=utf-8", "<!doctype html>\n"),
        ("Accept: application/xml\r\n", "application/xml; charset=utf-8", "<?xml version="),
        ("Content-Type: application/json\r\n", "application/json; charset=utf-8", "{\n  \"message\":"),
    ] {
        let answer = ask(fields);
        assert_eq!(answer.header("content-type"), Some(kind), "{fields}");
        assert!(answer.text().starts_with(begin), "{fields}{}", answer.text());
    }
    // One comes back: it is used at once.
    let peer = Peer::scripted_at(nobody[0].number, |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for _ in 0..6 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    }
    drop(peer);
}

#[test]
fn an_upstream_without_usable_targets_is_503() {
    let peer = Peer::hello();
    let gateway = balanced(Driver::any(), &[]);
    let check = || {
        let answer = gateway.get("/").must_be(503);
        assert_eq!(answer.json()["message"], "failure to get a peer from the ring-balancer");
        assert!(
            answer.header("x-kong-response-latency").is_some() && answer.header("via").is_none(),
            "{}",
            answer.head
        );
    };
    check();
    let target = json!({"target": format!("127.0.0.1:{}", peer.port), "weight": 0});
    gateway.create("/upstreams/pair/targets", target);
    check();
    gateway.patch(&format!("/upstreams/pair/targets/127.0.0.1:{}", peer.port), json!({"weight": 1}));
    gateway.get("/").must_be(200);
}

#[test]
fn a_route_without_a_service_is_503() {
    let gateway = Gateway::start(Driver::any());
    gateway.create("/routes", json!({"paths": ["/"]}));
    assert_eq!(gateway.get("/").must_be(503).json()["message"], "no Service found with those values");
}

#[test]
fn a_name_that_does_not_exist_is_503() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let resolver = server.local_addr().expect("a bound socket").to_string();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, from)) = server.recv_from(&mut query) {
            // The question again, marked as an answer: no such name.
            query[2..4].copy_from_slice(&[0x81, 0x83]);
            let _ = server.send_to(&query[..len], from);
        }
    });
    let gateway = Gateway::with(Driver::any(), &[("dns_resolver", &resolver)]);
    gateway.create("/services", json!({"name": "s", "host": "nowhere.example.test"}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    assert_eq!(gateway.get("/").must_be(503).json()["message"], "name resolution failed");
}

fn a_client_that_goes_away_costs_its_own_request_only(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            if arrived.line().starts_with("GET /slow") {
                let _ = accepted.until_closed();
                return;
            }
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"read_timeout": 400, "retries": 0}), json!({"strip_path": false}));
    for _ in 0..10 {
        let mut client = gateway.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.arrived();
        drop(client);
        let mut half = TcpStream::connect(("127.0.0.1", gateway.proxy)).expect("the gateway listens");
        std::io::Write::write_all(&mut half, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
            .expect("taken");
        drop(half);
        assert_eq!(gateway.get("/").must_be(200).text(), "hello");
        peer.arrived();
    }
    let active = || gateway.admin("GET", "/status", None).json()["server"]["connections_active"].as_u64();
    eventually("the connections to be gone", || (active() == Some(0)).then_some(()));
}
