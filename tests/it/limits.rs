//! Every limit of a message (requirements section 2; limits.rs) from both sides of its edge: what fits passes, what is one
//! more is refused, and the error says which limit it was.

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_request_line_may_have_8_kib,
    a_header_line_may_have_8_kib_and_a_head_32,
    a_head_may_have_128_fields,
    a_chunk_may_have_4_kib_of_extensions_and_a_mib_no_more,
    a_body_may_have_8_kib_of_trailers_which_go_nowhere,
    the_head_of_an_answer_may_have_32_kib_and_256_fields,
);

const KIB: usize = 1 << 10;
const URI_TOO_LONG: (u16, &str) = (414, "URI too long\n");
const HEADER_TOO_LARGE: (u16, &str) = (400, "Request header or cookie too large\n");
const FIELDS_TOO_MANY: (u16, &str) = (431, "Request header fields too large\n");

fn behind(driver: Driver) -> (Gateway, Peer) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    (gateway, peer)
}

#[track_caller]
fn passes(gateway: &Gateway, peer: &Peer, request: &str) {
    let mut client = gateway.connect();
    client.send(request);
    client.response().must_be(200);
    peer.arrived();
}

/// One answer with this status and text, then the end.
#[track_caller]
fn refused(gateway: &Gateway, request: &str, (status, text): (u16, &str)) {
    let mut client = gateway.connect();
    client.send_what_is_taken(request.as_bytes());
    client.send_what_is_taken(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response().must_be(status);
    assert!(answer.text().starts_with(text), "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
    assert_ne!(client.read_to_end(), End::Open);
    assert!(client.rest.is_empty(), "more than one answer: {}", client.rest.escape_ascii());
}

/// A request line of so many bytes, without its CRLF.
fn with_line(bytes: usize) -> String {
    let frame = "GET / HTTP/1.1".len();
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(bytes - frame))
}

fn a_request_line_may_have_8_kib(driver: Driver) {
    let (gateway, peer) = behind(driver);
    passes(&gateway, &peer, &with_line(8 * KIB));
    for bytes in [8 * KIB + 1, 8 * KIB + 2, 9 * KIB, 100 * KIB] {
        refused(&gateway, &with_line(bytes), URI_TOO_LONG);
    }
    // One that never ends is not waited for.
    refused(&gateway, &format!("GET /{}", "u".repeat(9 * KIB)), URI_TOO_LONG);
    assert!(peer.arrived_by_now().is_empty());
}

/// A head of so many bytes, its empty line included, in lines of at most `line` bytes without their CRLF.
fn with_head(bytes: usize, line: usize) -> String {
    let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
    while head.len() + 2 < bytes {
        // The last line must have room for its name.
        let left = bytes - 2 - head.len();
        let len = if left <= line + 2 { left } else { (line + 2).min(left - 8) };
        head.push_str(&format!("X: {}\r\n", "y".repeat(len - 5)));
    }
    head + "\r\n"
}

fn a_header_line_may_have_8_kib_and_a_head_32(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let with_field = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(bytes - 3));
    passes(&gateway, &peer, &with_field(8 * KIB));
    refused(&gateway, &with_field(8 * KIB + 1), HEADER_TOO_LARGE);
    refused(&gateway, &with_field(40 * KIB), HEADER_TOO_LARGE);
    assert_eq!(with_head(32 * KIB, 4000).len(), 32 * KIB);
    passes(&gateway, &peer, &with_head(32 * KIB, 4000));
    refused(&gateway, &with_head(32 * KIB + 1, 4000), HEADER_TOO_LARGE);
    refused(&gateway, &with_head(200 * KIB, 8000), HEADER_TOO_LARGE);
    assert!(peer.arrived_by_now().is_empty());
}

fn a_head_may_have_128_fields(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let with_fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    passes(&gateway, &peer, &with_fields(100));
    passes(&gateway, &peer, &with_fields(128));
    for count in [129, 256, 257, 1000] {
        refused(&gateway, &with_fields(count), FIELDS_TOO_MANY);
    }
    assert!(peer.arrived_by_now().is_empty());
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn a_chunk_may_have_4_kib_of_extensions_and_a_mib_no_more(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let chunk = |data: usize, extension: usize| {
        let extension = if extension == 0 { String::new() } else { format!(";{}", "e".repeat(extension - 1)) };
        format!("{data:x}{extension}\r\n{}\r\n", "x".repeat(data))
    };
    let body = |chunks: &str| format!("{CHUNKED}{chunks}0\r\n\r\n");
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        passes(&gateway, &peer, &body(&chunk(1, 4 * KIB)));
        passes(&gateway, &peer, &body(&chunk(1, 64).repeat(64)));
        // Another MiB brings another 4 KiB.
        let mib = chunk(1 << 20, 4 * KIB - 8);
        passes(&gateway, &peer, &body(&mib.repeat(3)));
        refused(&gateway, &body(&chunk(1, 4 * KIB + 1)), (400, ""));
        refused(&gateway, &body(&chunk(1, 64).repeat(65)), (400, ""));
        refused(&gateway, &body(&chunk(1, 2).repeat(3000)), (400, ""));
        // Never an end of line.
        refused(&gateway, &format!("{CHUNKED}1;{}", "e".repeat(100 * KIB)), (400, ""));
        for digits in ["0000000000000001", "1"] {
            passes(&gateway, &peer, &body(&format!("{digits}\r\nx\r\n")));
        }
        for digits in ["00000000000000001", "10000000000000000", "8000000000000000", "ffffffffffffffff"] {
            refused(&gateway, &body(&format!("{digits}\r\nx\r\n")), (400, ""));
        }
    }
    assert!(peer.arrived_by_now().is_empty());
}

fn a_body_may_have_8_kib_of_trailers_which_go_nowhere(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let with_trailers = |lines: &str| format!("{CHUNKED}2\r\nhi\r\n0\r\n{lines}\r\n");
    let line = format!("T: {}\r\n", "t".repeat(59));
    assert_eq!(line.len(), 64);
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        passes(&gateway, &peer, &with_trailers(&line.repeat(127)));
        refused(&gateway, &with_trailers(&line.repeat(129)), (400, ""));
        refused(&gateway, &with_trailers(&format!("T: {}\r\n", "t".repeat(9 * KIB))), (400, ""));
        refused(&gateway, &format!("{CHUNKED}0\r\nT: {}", "t".repeat(100 * KIB)), (400, ""));
        let evil = "Content-Length: 100\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: x\r\nX-Evil: 1\r\n\
                    Transfer-Encoding: identity\r\nConnection: close\r\n";
        let mut client = gateway.connect();
        client.send(with_trailers(evil));
        assert_eq!(client.response().must_be(200).header("connection"), Some("keep-alive"), "trailers say nothing");
        let arrived = peer.arrived();
        assert_eq!(arrived.body, b"hi");
        let head = arrived.head.to_lowercase();
        for word in ["evil", "6.6.6.6", "authorization", "identity", "100\r\n"] {
            assert!(!head.contains(word), "{word}: {}", arrived.head);
        }
        client.ask("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        assert_eq!(peer.arrived().line(), "GET /next HTTP/1.1");
    }
    assert!(peer.arrived_by_now().is_empty());
}

fn the_head_of_an_answer_may_have_32_kib_and_256_fields(driver: Driver) {
    let frame = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".len();
    let sized = |bytes: usize| {
        let mut fields = String::new();
        while frame + fields.len() < bytes {
            let left = bytes - frame - fields.len();
            let len = if left <= 4000 { left } else { 4000.min(left - 8) };
            fields.push_str(&format!("X: {}\r\n", "y".repeat(len - 5)));
        }
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
    };
    let counted =
        |count: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", "X: y\r\n".repeat(count - 1));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(200 * KIB));
    let table = [
        (sized(32 * KIB), 200),
        (sized(32 * KIB + 1), 502),
        (sized(40 * KIB), 502),
        (sized(400 * KIB), 502),
        (endless, 502),
        (counted(256), 200),
        (counted(257), 502),
    ];
    let answers: Vec<String> = table.iter().map(|(answer, _)| answer.clone()).collect();
    let peer = Peer::scripted(move |accepted| {
        while let Some(arrived) = accepted.request() {
            let path = arrived.line().split(' ').nth(1).unwrap_or_default();
            let number = path.get(1..).and_then(|n| n.parse::<usize>().ok()).expect("a number as path");
            accepted.send(&answers[number]);
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"retries": 0}), json!({"strip_path": false}));
    let mut client = gateway.connect();
    for (n, (_, status)) in table.iter().enumerate() {
        let answer = client.ask(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, *status, "{n}: {}", answer.text());
        assert!(*status != 200 || answer.text() == "ok", "{n}");
    }
}
