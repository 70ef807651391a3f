//! Bodies on their way through: framing, streaming in bounded memory, interim answers, early answers.

use std::io::Read;
use std::io::Write;
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
    small_bodies_arrive_with_a_length_or_streamed_as_the_route_says,
    large_uploads_arrive_byte_for_byte,
    large_downloads_arrive_byte_for_byte,
    a_client_that_does_not_read_stops_the_upstream,
    an_upstream_that_does_not_read_stops_the_client,
    who_expects_100_continue_gets_it_once_the_body_is_wanted,
    interim_answers_go_to_clients_that_can_know_them,
    an_early_answer_ends_the_upload,
    each_piece_of_a_stream_passes_at_once,
);

const LARGE_BYTES: usize = 20 << 20;
/// What two pairs of socket buffers on loopback hold at most, and the gateway's own besides.
const IN_FLIGHT_BYTES_MAX: usize = 40 << 20;
/// A writer that was not let on for so long is stopped.
const STOPPED: Duration = Duration::from_millis(700);

/// Bytes that repeat nowhere at a power of two, so that a lost or swapped piece shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 65_521) as u8).collect()
}

#[track_caller]
fn must_be_same(got: &[u8], want: &[u8]) {
    if got != want {
        let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(got.len().min(want.len()));
        panic!("{} bytes came of {}; they differ at {at}", got.len(), want.len());
    }
}

fn small_bodies_arrive_with_a_length_or_streamed_as_the_route_says(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n";
    gateway.connect().ask(chunked).must_be(200);
    let arrived = peer.arrived();
    assert_eq!((arrived.body.as_slice(), arrived.header("content-length")), (&b"abcde"[..], Some("5")));
    assert_eq!(arrived.header("transfer-encoding"), None);
    gateway.patch("/routes/r", json!({"request_buffering": false}));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("2\r\nde\r\n0\r\nX-T: 1\r\n\r\n");
    client.response().must_be(200);
    let arrived = peer.arrived();
    assert_eq!(arrived.body, b"abcde");
    assert!(!arrived.head.contains("X-T"), "trailers are dropped: {}", arrived.head);
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz").must_be(200);
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    let arrived = peer.arrived();
    assert_eq!((arrived.body.as_slice(), arrived.header("content-length")), (&b"xyz"[..], Some("3")));
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").must_be(200);
    assert_eq!(peer.arrived().header("content-length"), Some("0"), "an empty body that was announced stays so");
}

fn large_uploads_arrive_byte_for_byte(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let body = pattern(LARGE_BYTES);
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        client.response().must_be(200);
        must_be_same(&peer.arrived().body, &body);
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(77_777) {
            client.send(format!("{:x}\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        client.response().must_be(200);
        must_be_same(&peer.arrived().body, &body);
        client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        peer.arrived();
    }
}

fn large_downloads_arrive_byte_for_byte(driver: Driver) {
    let body = pattern(LARGE_BYTES);
    let sent = body.clone();
    let peer = Peer::scripted(move |accepted| {
        while let Some(arrived) = accepted.request() {
            match arrived.line().split(' ').nth(1).unwrap_or_default() {
                "/chunked" => {
                    accepted.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for chunk in sent.chunks(33_333) {
                        accepted.send(format!("{:x};e\r\n", chunk.len()));
                        accepted.send(chunk);
                        accepted.send("\r\n");
                    }
                    accepted.send("0\r\nX-T: 1\r\n\r\n");
                }
                "/until-close" => {
                    accepted.send("HTTP/1.1 200 OK\r\n\r\n");
                    accepted.send(&sent);
                    return;
                }
                _ => {
                    accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()));
                    accepted.send(&sent);
                }
            }
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for path in ["/sized", "/chunked", "/until-close", "/sized"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
        assert!(!answer.truncated, "{path}");
        must_be_same(&answer.body, &body);
        assert_eq!(answer.header("content-length").is_some(), path == "/sized", "{path}");
    }
    let answer = gateway.connect().ask("GET /chunked HTTP/1.0\r\n\r\n").must_be(200);
    assert!(!answer.truncated);
    must_be_same(&answer.body, &body);
}

/// Writes until nothing is taken any more; how many bytes were.
fn write_until_stopped(mut stream: impl Write, piece: &[u8], bytes_max: usize) -> usize {
    let mut taken = 0;
    while taken < bytes_max {
        match stream.write(&piece[..piece.len().min(bytes_max - taken)]) {
            Ok(count) => taken += count,
            Err(_) => break,
        }
    }
    taken
}

/// Resident memory of the gateway, bytes.
fn resident(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the gateway runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn a_client_that_does_not_read_stops_the_upstream(driver: Driver) {
    const TOTAL: usize = 80 << 20;
    let (report, stopped) = mpsc::channel();
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"));
            accepted.stream.set_write_timeout(Some(STOPPED)).expect("not zero");
            let piece = vec![b'x'; 64 << 10];
            let taken = write_until_stopped(&accepted.stream, &piece, TOTAL);
            let _ = report.send(taken);
            accepted.stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
            write_until_stopped(&accepted.stream, &piece, TOTAL - taken);
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"response_buffering": false}));
    for buffers in [false, true] {
        gateway.patch("/routes/r", json!({"response_buffering": buffers}));
        gateway.get("/nowhere-near");
        stopped.recv_timeout(PATIENCE).expect("the upstream was read to its end");
        let before = resident(&gateway);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let taken = stopped.recv_timeout(PATIENCE).expect("the upstream is stopped");
        let grown = resident(&gateway).saturating_sub(before);
        // What a route buffers is in a file; `slow_clients.rs` shows its bounds.
        let is_stopped = taken < IN_FLIGHT_BYTES_MAX;
        assert!(is_stopped || buffers, "{taken} bytes were taken from the upstream of a client that reads none");
        assert!(grown < 8 << 20, "the gateway grew by {grown} bytes (buffering: {buffers})");
        let answer = client.response().must_be(200);
        assert_eq!((answer.body.len(), answer.truncated), (TOTAL, false));
    }
}

fn an_upstream_that_does_not_read_stops_the_client(driver: Driver) {
    const TOTAL: usize = 80 << 20;
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let peer = Peer::scripted(move |accepted| {
        let Some(arrived) = accepted.head() else { return };
        accepted.record(&arrived);
        wait.lock().expect("one connection").recv_timeout(PATIENCE).expect("the test goes on");
        if accepted.drop_bytes(TOTAL).is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"request_buffering": false}));
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TOTAL}\r\n\r\n"));
    let before = resident(&gateway);
    client.stream.set_write_timeout(Some(STOPPED)).expect("not zero");
    let piece = vec![b'x'; 64 << 10];
    let taken = write_until_stopped(&client.stream, &piece, TOTAL);
    assert!(taken < IN_FLIGHT_BYTES_MAX, "{taken} bytes were taken for an upstream that reads none");
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < 8 << 20, "the gateway grew by {grown} bytes");
    go_on.send(()).expect("the upstream waits");
    client.stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    assert_eq!(write_until_stopped(&client.stream, &piece, TOTAL - taken), TOTAL - taken);
    assert_eq!(client.response().must_be(200).text(), "done");
}

fn who_expects_100_continue_gets_it_once_the_body_is_wanted(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"paths": ["/there"], "strip_path": false}));
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        client.send("POST /there HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body");
        assert_eq!(client.head().status, 200, "exactly one interim answer");
        let arrived = peer.arrived();
        assert_eq!((arrived.header("expect"), arrived.body.as_slice()), (None, &b"body"[..]));
    }
    let mut client = gateway.connect();
    client.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut answer = client.head();
    assert_eq!(answer.status, 404, "a request that is refused is not told to go on");
    client.body_of(&mut answer);
    client.must_end();
    let mut client = gateway.connect();
    client.send("POST /there HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().status, 200, "the body came without waiting");
}

fn interim_answers_go_to_clients_that_can_know_them(driver: Driver) {
    let peer = Peer::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: close\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.head();
    assert_eq!((hints.status, hints.header("link"), hints.header("connection")), (103, Some("</a.css>"), None));
    let mut answer = client.head();
    assert_eq!(answer.status, 200);
    client.body_of(&mut answer);
    assert_eq!(answer.text(), "ok");
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200, "HTTP/1.0 knows no interim answers");
}

fn an_early_answer_ends_the_upload(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        let Some(arrived) = accepted.head() else { return };
        accepted.record(&arrived);
        if arrived.line().starts_with("GET") {
            return accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
        accepted.send("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nfull");
        let _ = accepted.until_closed();
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"request_buffering": false}));
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"));
    // Enough to be streamed, and not all of it: the client goes on until it is told.
    client.send(vec![b'x'; 1 << 20]);
    let answer = client.response().must_be(413);
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("full", Some("close")));
    assert_eq!(gateway.get("/").must_be(200).text(), "hello");
    assert_eq!(peer.connections(), 2, "the connection with half a request on it is not used again");
}

fn each_piece_of_a_stream_passes_at_once(driver: Driver) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            for n in 0..3 {
                accepted.send(format!("6\r\nevent{n}\r\n"));
                if wait.lock().expect("one connection").recv_timeout(PATIENCE).is_err() {
                    return;
                }
            }
            accepted.send("0\r\n\r\n");
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"response_buffering": false}));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    for n in 0..3 {
        receive(&mut client, &format!("6\r\nevent{n}\r\n"));
        go_on.send(()).expect("the upstream waits");
    }
    receive(&mut client, "0\r\n\r\n");
}

/// Reads until exactly `want` has come.
#[track_caller]
fn receive(client: &mut Client, want: &str) {
    let mut piece = [0; 256];
    while client.rest.len() < want.len() {
        let count = client.stream.read(&mut piece).unwrap_or_else(|error| panic!("{want:?} does not come: {error}"));
        assert_ne!(count, 0, "the connection ended before {want:?}");
        client.rest.extend_from_slice(&piece[..count]);
    }
    assert_eq!(String::from_utf8_lossy(&client.rest), want);
    client.rest.clear();
}

#[test]
fn a_body_above_the_limit_is_413_whatever_its_framing() {
    let peer = Peer::hello();
    let gateway = Gateway::with(Driver::any(), &[("client_max_body_size", "1k")]);
    gateway.proxy_to(peer.port);
    let sized = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n{}", "x".repeat(1025));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1025)
    );
    for request in [sized, chunked] {
        let answer = gateway.connect().ask(&request).must_be(413);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.text().starts_with("Payload too large\n"), "{}", answer.text());
    }
    let fits = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024));
    gateway.connect().ask(fits).must_be(200);
    assert_eq!(peer.arrived_by_now().len(), 1, "nothing of the refused ones was passed on");
}

#[test]
fn a_stalled_body_is_408_and_the_upstream_is_let_go() {
    let peer = Peer::hello();
    let gateway = Gateway::with(Driver::any(), &[("client_body_timeout", "300ms"), ("client_header_timeout", "400ms")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").must_be(408);
    assert_eq!(answer.header("connection"), Some("close"));
    let mut client = gateway.connect();
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Never: ").must_be(408);
    client.must_end();
    let active = || gateway.admin("GET", "/status", None).json()["server"]["connections_active"].as_u64();
    eventually("the stalled connections to be gone", || (active() == Some(0)).then_some(()));
}

#[test]
fn a_body_that_is_too_long_for_one_plugin_ends_the_request_before_those_after_it() {
    let peer = Peer::hello();
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_with(peer.port, json!({}), json!({"request_buffering": false}));
    let limit = json!({"allowed_payload_size": 10, "size_unit": "bytes"});
    gateway.create("/plugins", json!({"name": "request-size-limiting", "config": limit}));
    gateway.create("/plugins", json!({"name": "request-termination", "config": {"status_code": 418}}));
    let ask = |chunks: &[&str]| {
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in chunks {
            client.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        client.send_what_is_taken(b"0\r\n\r\n");
        client.response().status
    };
    assert_eq!(ask(&["01234", "56789"]), 418);
    assert_eq!(ask(&["01234", "567890"]), 413);
    assert!(peer.arrived_by_now().is_empty());
}
