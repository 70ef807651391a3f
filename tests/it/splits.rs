//! A message is the same however it is cut on the wire: bytes one by one, several messages in one piece, ends of bodies
//! in the middle of what was read.

use std::io::Write;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    requests_may_come_byte_by_byte,
    answers_may_come_byte_by_byte,
    a_request_may_follow_a_streamed_body_in_the_same_piece,
    a_client_may_end_its_side_and_still_be_answered,
    no_request_of_a_broken_connection_is_served_twice,
    half_an_upload_is_never_whole_to_the_upstream,
    empty_lines_before_a_request_are_passed_over,
    the_end_of_a_connection_takes_no_answer_with_it,
);

/// Answers with the method, the path and the body of each request.
fn echo() -> Peer {
    Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let line = arrived.line().trim_end_matches(" HTTP/1.1").to_owned();
            let body = [line.as_bytes(), b" ", &arrived.body].concat();
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            accepted.send(body);
        }
    })
}

fn behind(driver: Driver, peer: &Peer) -> Gateway {
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    gateway
}

fn send_singly(mut stream: impl Write, bytes: &[u8]) {
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte)).expect("taken");
    }
}

fn requests_may_come_byte_by_byte(driver: Driver) {
    let peer = echo();
    let gateway = behind(driver, &peer);
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        let stream = client.stream.try_clone().expect("a socket");
        let all = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                   POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nhe\r\n3\r\nllo\r\n0\r\nT: u\r\n\r\n\
                   PUT /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n";
        let sending = std::thread::spawn(move || send_singly(stream, all.as_bytes()));
        for want in ["GET /1 ", "POST /2 hello", "POST /3 hello", "PUT /4 ", "GET /5 "] {
            assert_eq!(client.response().must_be(200).text(), want, "buffering {buffering}");
        }
        sending.join().expect("all was taken");
    }
}

fn answers_may_come_byte_by_byte(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let answer: &[u8] = match arrived.line().contains("/chunked") {
                true => b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nhe\r\n3\r\nllo\r\n0\r\nT: u\r\n\r\n",
                false => b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            };
            send_singly(&accepted.stream, answer);
        }
    });
    let gateway = behind(driver, &peer);
    let mut client = gateway.connect();
    for path in ["/chunked", "/sized", "/chunked", "/sized"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
        assert_eq!((answer.text().as_str(), answer.truncated), ("hello", false), "{path}");
    }
    assert_eq!(peer.connections(), 1, "the connection is good for more");
}

fn a_request_may_follow_a_streamed_body_in_the_same_piece(driver: Driver) {
    const BYTES: usize = 300_000;
    let peer = echo();
    let gateway = behind(driver, &peer);
    let body = "b".repeat(BYTES);
    let sized = format!("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n{body}");
    let chunks: String =
        body.as_bytes().chunks(1000).map(|c| format!("{:x}\r\n{}\r\n", c.len(), "b".repeat(c.len()))).collect();
    let chunked = format!("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let get = "GET /g HTTP/1.1\r\nHost: a\r\n\r\n";
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        let mut stream = client.stream.try_clone().expect("a socket");
        let all = format!("{sized}{get}{chunked}{get}{get}{sized}{chunked}{get}");
        let sending = std::thread::spawn(move || stream.write_all(all.as_bytes()).expect("taken"));
        for want in ["POST /s", "GET /g", "POST /c", "GET /g", "GET /g", "POST /s", "POST /c", "GET /g"] {
            let text = client.response().must_be(200).text();
            let (line, rest) = text.split_at(want.len());
            let body_bytes = if want.starts_with("POST") { BYTES + 1 } else { 1 };
            assert_eq!((line, rest.len()), (want, body_bytes), "buffering {buffering}");
        }
        sending.join().expect("all was taken");
    }
}

fn a_client_may_end_its_side_and_still_be_answered(driver: Driver) {
    let peer = echo();
    let gateway = Gateway::with(driver, &[("proxy_ignore_client_abort", "on")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    client.finish_sending();
    assert_eq!(client.response().must_be(200).text(), "POST /x hi");
    client.must_end();
    // An end inside a head or a body is the end of that request.
    for part in ["GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"] {
        let mut client = gateway.connect();
        client.send(part);
        client.finish_sending();
        assert_ne!(client.read_to_end(), End::Open);
        assert!(!client.rest.starts_with(b"HTTP/1.1 2"), "{}", client.rest.escape_ascii());
    }
    peer.arrived();
    assert!(peer.arrived_by_now().is_empty(), "half a body was passed on as a whole one");
}

fn no_request_of_a_broken_connection_is_served_twice(driver: Driver) {
    let peer = echo();
    let gateway = behind(driver, &peer);
    let ask = |client: &mut Client, n: usize| {
        client.ask(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
    };
    let mut client = gateway.connect();
    for n in 0..50 {
        let answer = ask(&mut client, n);
        assert_eq!(answer.text(), format!("POST /{n} "));
        if n % 7 == 0 {
            client = gateway.connect();
        }
    }
    assert_eq!(peer.arrived_by_now().len(), 50);
}

fn half_an_upload_is_never_whole_to_the_upstream(driver: Driver) {
    let peer = echo();
    let gateway = behind(driver, &peer);
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let part = "p".repeat(100_000);
        for head in ["Content-Length: 300000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"] {
            let mut client = gateway.connect();
            client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{head}{part}"));
            if head.ends_with("186a0\r\n") {
                client.send("\r\n");
            }
            client.finish_sending();
            assert_ne!(client.read_to_end(), End::Open);
            let text = String::from_utf8_lossy(&client.rest).into_owned();
            assert!(!text.starts_with("HTTP/1.1 2"), "{head}: {text}");
        }
    }
    assert_eq!(gateway.get("/end").text(), "GET /end ");
    assert_eq!(peer.arrived().line(), "GET /end HTTP/1.1", "nothing before it was whole");
}

fn empty_lines_before_a_request_are_passed_over(driver: Driver) {
    let peer = echo();
    let gateway = behind(driver, &peer);
    let mut client = gateway.connect();
    // As old clients send behind a body (RFC 9112 section 2.2).
    client.send("\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\n");
    assert_eq!(client.response().must_be(200).text(), "POST /1 hi");
    assert_eq!(client.ask("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).text(), "GET /2 ");
}

/// A close while bytes of the client are unread makes the kernel reset the connection, and what was written but not yet
/// received is lost. So the gateway must end its side first and listen on.
fn the_end_of_a_connection_takes_no_answer_with_it(driver: Driver) {
    const BYTES: usize = 3 << 20;
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let bytes = if arrived.line().contains("/large") { BYTES } else { 5 };
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            accepted.send(vec![b'x'; bytes]);
        }
    });
    let gateway = Gateway::with(driver, &[("client_keepalive_requests", "2")]);
    gateway.proxy_with(peer.port, json!({}), json!({"strip_path": false}));
    let more = "GET /never HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300);
    for last in [
        // Closed because the client says so, because of the number of requests, because of an error.
        "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /last HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /last HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(format!("GET /large HTTP/1.1\r\nHost: a\r\n\r\n{last}"));
        client.send_what_is_taken(more.as_bytes());
        peer.arrived();
        // Time for the gateway to write all and to close, while nothing is read.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let large = client.response().must_be(200);
        assert_eq!((large.body.len(), large.truncated), (BYTES, false), "before {last}");
        let answer = client.response();
        assert_eq!((answer.header("connection"), answer.truncated), (Some("close"), false), "{last}");
        client.must_end();
        peer.arrived_by_now();
    }
}
