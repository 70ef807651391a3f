//! Long responses to clients that take them slowly (spec/proxying.md section 10): a buffering route frees the upstream,
//! within bounds, and another holds it to the client's pace.

use std::io::Read;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::client::find;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_slow_client_does_not_hold_the_upstream_of_a_buffering_route,
    a_slow_client_holds_the_upstream_of_a_route_that_does_not_buffer,
    beyond_its_bounds_a_file_takes_no_more,
    what_was_received_before_the_upstream_broke_off_is_sent,
    pieces_are_passed_on_at_once,
);

/// More than the buffers of all sockets on the way hold.
const BYTES: usize = 32 << 20;

fn body() -> &'static [u8] {
    static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| (0..BYTES).map(|n| (n % 251) as u8).collect());
    &BODY
}

/// Reads until the bytes have come.
#[track_caller]
fn until(client: &mut Client, bytes: &[u8]) {
    while find(&client.rest, bytes).is_none() {
        let mut piece = [0; 1024];
        let count =
            client.stream.read(&mut piece).unwrap_or_else(|error| panic!("{error} before {}", bytes.escape_ascii()));
        assert_ne!(count, 0, "the end came before {}", bytes.escape_ascii());
        client.rest.extend_from_slice(&piece[..count]);
    }
    client.rest.clear();
}

/// An upstream that answers everything with the whole body, and what tells each time that it has left.
fn sending(framing: &'static str, short_by: usize) -> (Peer, Receiver<()>) {
    let (told, done) = mpsc::channel();
    let told = Mutex::new(told);
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
            let body = body();
            match framing.starts_with("Transfer") {
                true => {
                    for piece in body.chunks(100_000) {
                        accepted.send(format!("{:x}\r\n", piece.len()));
                        accepted.send(piece);
                        accepted.send("\r\n");
                    }
                    accepted.send("0\r\n\r\n");
                }
                false => accepted.send(&body[..BYTES - short_by]),
            }
            let _ = told.lock().expect("nobody panics with it").send(());
            if short_by > 0 {
                return;
            }
        }
    });
    (peer, done)
}

fn sized() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("Content-Length: {BYTES}"));
    &TEXT
}

fn a_slow_client_does_not_hold_the_upstream_of_a_buffering_route(driver: Driver) {
    for framing in [sized(), "Transfer-Encoding: chunked"] {
        let (peer, done) = sending(framing, 0);
        let gateway = Gateway::with(driver, &[("workers", "1")]);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        done.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{framing}: the upstream is held"));
        // Its connection soon serves another: when the gateway has read what the sockets held.
        let mut requests = 1;
        let mut other = eventually("a connection is used again", || {
            let mut other = gateway.connect();
            other.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
            done.recv_timeout(PATIENCE).expect("the upstream is held");
            requests += 1;
            (peer.connections() < requests).then_some(other)
        });
        for client in [&mut client, &mut other] {
            let response = client.response().must_be(200);
            assert!(!response.truncated && response.body == body(), "{framing}: the body arrives as it was");
        }
        // The connection is fit for more.
        assert!(client.ask("GET /c HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).body == body());
        let folder = gateway.prefix().join("proxy_temp");
        assert_eq!(std::fs::read_dir(folder).expect("it was made").count(), 0, "files have no names");
        let fds = format!("/proc/{}/fd", gateway.pid());
        eventually("the files are closed", || {
            let open = std::fs::read_dir(&fds).expect("this is Linux").filter_map(Result::ok);
            let mut targets = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            (!targets.any(|target| target.to_string_lossy().contains("proxy_temp"))).then_some(())
        });
    }
}

fn a_slow_client_holds_the_upstream_of_a_route_that_does_not_buffer(driver: Driver) {
    let (peer, done) = sending(sized(), 0);
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"response_buffering": false}));
    let mut client = gateway.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    // The subject is that nothing happens meanwhile.
    assert!(done.recv_timeout(Duration::from_millis(700)).is_err(), "the body went somewhere");
    assert!(client.response().must_be(200).body == body());
    done.recv_timeout(PATIENCE).expect("all was sent");
    assert!(!gateway.prefix().join("proxy_temp").exists());
}

fn beyond_its_bounds_a_file_takes_no_more(driver: Driver) {
    for bound in ["proxy_temp_file_bytes_max", "proxy_temp_bytes_max"] {
        let (peer, done) = sending(sized(), 0);
        let gateway = Gateway::with(driver, &[(bound, "1m")]);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(done.recv_timeout(Duration::from_millis(700)).is_err(), "{bound}: the body went somewhere");
        assert!(client.response().must_be(200).body == body(), "{bound}");
        done.recv_timeout(PATIENCE).expect("all was sent");
    }
}

fn what_was_received_before_the_upstream_broke_off_is_sent(driver: Driver) {
    let (peer, done) = sending(sized(), 1000);
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    done.recv_timeout(PATIENCE).expect("the upstream is held");
    let response = client.response().must_be(200);
    assert!(response.truncated && response.body == body()[..BYTES - 1000]);
}

fn pieces_are_passed_on_at_once(driver: Driver) {
    for buffers in [true, false] {
        let (go, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let peer = Peer::scripted(move |accepted| {
            accepted.request();
            accepted.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            for n in 0..3 {
                accepted.send(format!("7\r\ndata: {n}\r\n"));
                let _ = told.lock().expect("nobody panics with it").recv_timeout(PATIENCE);
            }
            accepted.send("0\r\n\r\n");
        });
        let gateway = Gateway::start(driver);
        gateway.proxy_with(peer.port, json!({}), json!({"response_buffering": buffers}));
        let mut client = gateway.connect();
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
        for n in 0..3 {
            until(&mut client, format!("data: {n}\r\n").as_bytes());
            go.send(()).expect("the upstream waits");
        }
        until(&mut client, b"0\r\n\r\n");
    }
}
