//! Clients that go away while their request waits for the upstream: noticed at once, told to the upstream, logged as 499;
//! and nothing of what they had sent behind is lost for those that stay.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_request_whose_client_went_away_ends_at_the_upstream,
    a_client_that_goes_away_while_a_connection_is_made_is_noticed,
    a_pipelined_request_is_not_taken_for_an_end,
    a_request_goes_on_if_so_configured,
);

const GET: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

fn line(gateway: &Gateway) -> String {
    let log = gateway.prefix().join("logs/access.log");
    eventually("a line", || std::fs::read_to_string(&log).ok()?.lines().next().map(str::to_owned))
}

fn leave(client: Client, with_reset: bool) {
    if with_reset {
        let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
    }
    drop(client);
}

fn a_request_whose_client_went_away_ends_at_the_upstream(driver: Driver) {
    for (with_reset, request) in [
        (false, GET),
        (true, GET),
        (false, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"),
        (true, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let (report, ended) = mpsc::channel();
        let peer = Peer::scripted(move |accepted| {
            accepted.request();
            let _ = accepted.until_closed();
            let _ = report.send(());
        });
        let gateway = Gateway::start(driver);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        client.send(request);
        peer.arrived();
        leave(client, with_reset);
        ended.recv_timeout(PATIENCE).expect("the upstream connection is closed");
        let line = line(&gateway);
        assert!(line.contains(" 499 0 "), "{line}");
        assert_eq!(peer.connections(), 1, "it is not tried again");
    }
}

fn a_client_that_goes_away_while_a_connection_is_made_is_noticed(driver: Driver) {
    // An address that swallows what is sent to it (RFC 5737), unless this machine refuses it at once.
    let gateway = Gateway::start(driver);
    gateway.create("/services", json!({"name": "s", "host": "192.0.2.1", "port": 9, "retries": 0}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    let mut client = gateway.connect();
    client.send(GET);
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("not zero");
    if client.read_to_end() != crate::harness::client::End::Open || !client.rest.is_empty() {
        return eprintln!("not run: this machine has no address that swallows");
    }
    leave(client, false);
    let line = line(&gateway);
    assert!(line.contains(" 499 0 "), "{line}");
}

fn a_pipelined_request_is_not_taken_for_an_end(driver: Driver) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let peer = Peer::scripted(move |accepted| {
        while let Some(request) = accepted.request() {
            if request.line().starts_with("GET /slow") {
                let _ = gate.lock().expect("no panics").recv_timeout(PATIENCE);
            }
            let body = request.line().split(' ').nth(1).unwrap_or_default().to_owned();
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for round in 0..20 {
        client.send(GET);
        peer.arrived();
        // It arrives while the first one waits, in one piece or cut in its head.
        let next = format!("POST /next{round} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        let cut = (round * 5) % next.len();
        client.send(&next[..cut]);
        std::thread::sleep(Duration::from_millis(2));
        go.send(()).expect("the upstream waits");
        assert_eq!(client.response().must_be(200).text(), "/slow");
        client.send(&next[cut..]);
        assert_eq!(client.response().must_be(200).text(), format!("/next{round}"));
        assert_eq!(peer.arrived().body, b"body");
    }
    // The last request is followed by the client's end, and answered, as the end comes after the answer.
    client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().must_be(200).text(), "/last");
    client.finish_sending();
    client.must_end();
}

fn a_request_goes_on_if_so_configured(driver: Driver) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let peer = Peer::scripted(move |accepted| {
        accepted.request();
        let _ = gate.lock().expect("no panics").recv_timeout(PATIENCE);
        accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let _ = accepted.until_closed();
    });
    let gateway = Gateway::with(driver, &[("proxy_ignore_client_abort", "on")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send(GET);
    peer.arrived();
    client.finish_sending();
    std::thread::sleep(Duration::from_millis(50));
    go.send(()).expect("the upstream waits");
    assert_eq!(client.response().must_be(200).text(), "ok");
}
