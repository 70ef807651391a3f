//! Messages that two recipients could read differently (requirements section 1): each is refused with its status, the
//! connection ends, and nothing of it is ever taken for another request.

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    what_is_ambiguous_is_refused_and_ends_the_connection,
    the_body_of_a_refused_request_is_not_the_next_request,
    the_rest_of_a_refused_upload_does_not_hide_the_answer,
    equal_lengths_collapse_and_odd_but_clear_requests_pass,
    targets_are_normalised_once_for_matching_and_forwarding,
    a_chunked_body_is_taken_strictly,
);

/// What a smuggler would have served.
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";

fn behind(driver: Driver) -> (Gateway, Peer) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    (gateway, peer)
}

/// Each with EVIL behind it gets exactly one answer, of that status, and the connection ends.
#[track_caller]
fn check(gateway: &Gateway, table: &[(&[u8], u16)]) {
    for (bytes, status) in table {
        let shown = bytes[..bytes.len().min(200)].escape_ascii();
        let mut client = gateway.connect();
        client.send_what_is_taken(bytes);
        client.send_what_is_taken(EVIL.as_bytes());
        let end = client.read_to_end();
        let text = String::from_utf8_lossy(&client.rest).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: not {status}: {text:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{shown}: {text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{shown}: {text}");
        assert_ne!(end, End::Open, "{shown}: the connection stays open");
    }
}

fn what_is_ambiguous_is_refused_and_ends_the_connection(driver: Driver) {
    let (gateway, peer) = behind(driver);
    check(
        &gateway,
        &[
            // Framing (1.2).
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nx", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx", 400),
            // Syntax of heads (1.1).
            (b"GET / HTTP/1.1\nHost: a\n\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nEvil: z\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rEvil: z\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x07b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
            (b"G=T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            // Host (1.5).
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\xc3\xa9\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            // Targets (1.6) and methods (1.7).
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\0\r\n\r\n", 400),
        ],
    );
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    gateway.get("/").must_be(200);
}

fn the_body_of_a_refused_request_is_not_the_next_request(driver: Driver) {
    let (gateway, peer) = behind(driver);
    gateway.create("/services/s/routes", json!({"name": "locked", "paths": ["/locked"]}));
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth"}));
    // Refused locally, with a body that looks like a request, announced in both ways.
    let sized = format!("POST /locked HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len());
    let chunk = format!("{:x}\r\n{EVIL}\r\n0\r\n\r\n", EVIL.len());
    let chunked = format!("POST /locked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    for request in [sized, chunked] {
        for split in [0, 60, request.len() - 5] {
            let mut client = gateway.connect();
            client.send(&request[..split]);
            client.send_what_is_taken(&request.as_bytes()[split..]);
            client.send_what_is_taken(b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = client.response().must_be(401);
            if answer.header("connection") == Some("keep-alive") {
                client.response().must_be(200);
                assert_eq!(peer.arrived().line(), "GET /after HTTP/1.1");
            }
            client.must_end();
        }
    }
    assert!(peer.arrived_by_now().is_empty(), "a body was served as a request");
}

fn the_rest_of_a_refused_upload_does_not_hide_the_answer(driver: Driver) {
    let (gateway, peer) = behind(driver);
    gateway.create("/services/s/routes", json!({"name": "locked", "paths": ["/locked"]}));
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth"}));
    for bytes in [100_000, 10 << 20] {
        let mut client = gateway.connect();
        client.send(format!("POST /locked HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"));
        client.send_what_is_taken(&vec![b'x'; bytes]);
        let answer = client.response().must_be(401);
        assert_eq!(answer.json()["message"], "No API key found in request");
        match answer.header("connection") {
            Some("keep-alive") => drop(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200)),
            _ => assert_ne!(client.read_to_end(), End::Open),
        }
    }
    assert!(peer.arrived_by_now().iter().all(|arrived| arrived.line() == "GET / HTTP/1.1"));
}

fn equal_lengths_collapse_and_odd_but_clear_requests_pass(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let table: &[(&str, &str, Option<&str>)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
            "POST / HTTP/1.1",
            Some("2"),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nhi", "POST / HTTP/1.1", Some("2")),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi", "POST / HTTP/1.1", Some("2")),
        (
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "POST / HTTP/1.1",
            Some("2"),
        ),
        ("GET http://other.test/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.1", None),
        ("FOO /m HTTP/1.1\r\nHost: a\r\n\r\n", "FOO /m HTTP/1.1", None),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX:\r\n\r\n", "GET / HTTP/1.1", None),
    ];
    let mut client = gateway.connect();
    for (request, line, length) in table {
        assert_eq!(client.ask(request).must_be(200).text(), "hello", "{request}");
        let arrived = peer.arrived();
        assert_eq!(arrived.line(), *line);
        assert_eq!(arrived.header("content-length"), *length, "{request}");
        if request.contains("other.test") {
            assert_eq!(arrived.header("x-forwarded-host"), Some("other.test"), "the target's authority replaces Host");
        }
    }
    let options = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: ";
    client.ask(format!("{options}7\r\n\r\n")).must_be(200);
    assert_eq!(peer.arrived().header("max-forwards"), Some("6"));
    assert_eq!(client.ask(format!("{options}0\r\n\r\n")).status, 200);
    assert!(peer.arrived_by_now().is_empty(), "it is answered here");
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").must_be(200);
    assert_eq!(peer.arrived().header("max-forwards"), Some("0"), "it means something to OPTIONS only");
}

fn targets_are_normalised_once_for_matching_and_forwarding(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({}), json!({"paths": ["/open"], "strip_path": false}));
    gateway.create("/services/s/routes", json!({"name": "locked", "paths": ["/locked"], "strip_path": false}));
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth"}));
    let mut client = gateway.connect();
    for path in ["/locked/x", "/open/../locked/x", "/%6cocked/x", "//locked//x", "/./locked/x", "/open/%2e%2e/locked/x"]
    {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, 401, "{path}");
    }
    for (path, line) in [
        ("/locked/../open/x", "/open/x"),
        ("/open/a%2fb?q=/../%2e", "/open/a%2Fb?q=/../%2e"),
        ("/open/%41//b/.", "/open/A/b/"),
    ] {
        client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
        assert_eq!(peer.arrived().line(), format!("GET {line} HTTP/1.1"), "{path}");
    }
    // Nothing is decoded twice.
    assert_eq!(client.ask("GET /open/%252e%252e/locked HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(peer.arrived().line(), "GET /open/%252e%252e/locked HTTP/1.1");
}

fn a_chunked_body_is_taken_strictly(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extension = [b"1;", "e".repeat(5000).as_bytes(), b"\r\nx\r\n0\r\n\r\n"].concat();
    let trailers = [b"1\r\nx\r\n0\r\n", "T: ".repeat(3000).as_bytes(), b"\r\n\r\n"].concat();
    let bodies: &[&[u8]] = &[
        b"zz\r\n",
        b"\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b" 1\r\nx\r\n0\r\n\r\n",
        b"1\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"00000000000000001\r\nx\r\n0\r\n\r\n",
        b"10000000000000000\r\nx\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nx\r\n0\r\n\r\n",
        b"1;a\0b\r\nx\r\n0\r\n\r\n",
        b"1\r\nx\r\n0\r\nno colon\r\n\r\n",
        &extension,
        &trailers,
    ];
    let requests: Vec<Vec<u8>> = bodies.iter().map(|body| [head, *body].concat()).collect();
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        for request in &requests {
            check(&gateway, &[(request, 400)]);
        }
        let seen = peer.arrived_by_now();
        assert!(!seen.iter().any(|arrived| arrived.line().contains("evil")), "{seen:?}");
        assert!(seen.is_empty() || !buffering, "a broken body was passed on as whole: {seen:?}");
    }
    gateway.get("/").must_be(200);
}
