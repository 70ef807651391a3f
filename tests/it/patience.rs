//! What each timeout counts (spec/proxying.md section 8; requirements section 2): gaps, not totals, and only while the side
//! that it speaks of is waited for.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    slow_but_steady_peers_are_waited_for,
    a_slow_client_is_not_the_upstreams_fault,
    a_pause_of_the_client_is_not_the_upstreams_fault,
    a_head_must_come_as_a_whole_in_time,
);

/// Half of the timeouts below, and more than a sweep.
const PAUSE: Duration = Duration::from_millis(200);

fn pause() {
    // The subject of these tests is time that passes.
    std::thread::sleep(PAUSE);
}

fn slow_but_steady_peers_are_waited_for(driver: Driver) {
    // Each pause is well within the timeouts, also on a machine that stalls; all of them together are not.
    const TIMEOUT_MS: u64 = 1000;
    let pause = || (0..2).for_each(|_| pause());
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 6\r\n\r\n", "ab", "cd", "ef"] {
                accepted.send(piece);
                pause();
            }
        }
    });
    let gateway = Gateway::with(driver, &[("client_body_timeout", &format!("{TIMEOUT_MS}ms"))]);
    gateway.proxy_with(peer.port, json!({"read_timeout": TIMEOUT_MS, "write_timeout": TIMEOUT_MS}), json!({}));
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
        for piece in ["uv", "wx", "yz"] {
            pause();
            client.send(piece);
        }
        assert_eq!(client.response().must_be(200).text(), "abcdef");
        assert_eq!(peer.arrived().body, b"uvwxyz");
    }
}

fn a_slow_client_is_not_the_upstreams_fault(driver: Driver) {
    const BYTES: usize = 40 << 20;
    let body = vec![b'x'; BYTES];
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"));
            accepted.send(&body);
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"read_timeout": 500}), json!({}));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = client.head();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..3 {
        (0..3).for_each(|_| pause());
        let count = client.stream.read(&mut piece).expect("the body goes on");
        client.rest.extend_from_slice(&piece[..count]);
    }
    client.body_of(&mut answer);
    assert_eq!((answer.body.len(), answer.truncated), (BYTES, false));
}

fn a_pause_of_the_client_is_not_the_upstreams_fault(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    let service = json!({"write_timeout": 200, "read_timeout": 200, "retries": 0});
    gateway.proxy_with(peer.port, service, json!({"request_buffering": false}));
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    (0..4).for_each(|_| pause());
    client.send("half");
    client.response().must_be(200);
    assert_eq!(peer.arrived().body, b"halfhalf");
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    (0..4).for_each(|_| pause());
    client.send("4\r\nhalf\r\n0\r\n\r\n");
    client.response().must_be(200);
    assert_eq!(peer.arrived().body, b"halfhalf");
}

fn a_head_must_come_as_a_whole_in_time(driver: Driver) {
    let gateway = Gateway::with(driver, &[("client_header_timeout", "500ms")]);
    let mut client = gateway.connect();
    for byte in b"GET / HTTP/1.1\r\n".chunks(2) {
        client.send_what_is_taken(byte);
        pause();
    }
    let answer = client.response().must_be(408);
    assert_eq!(answer.header("connection"), Some("close"));
    client.must_end();
}
