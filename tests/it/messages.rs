//! Requests at the edges of what RFC 9112 allows (requirements sections 1.1 to 1.8), as raw bytes: what is refused and never
//! reaches the upstream, and how what is accepted leaves.

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    what_leaves_is_written_anew_from_parsed_values,
    heads_of_doubtful_syntax_are_refused,
    lengths_are_one_number_or_refused,
    transfer_codings_are_exactly_chunked_or_refused,
    a_host_is_exactly_one_valid_name_or_refused,
    every_byte_that_may_not_stand_in_a_target_is_refused,
    every_request_of_a_connection_is_routed_and_authorised_afresh,
    hop_by_hop_fields_end_here_on_an_upgrade_too,
);

/// What a smuggler would have served.
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";

fn behind(driver: Driver) -> (Gateway, Peer) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    (gateway, peer)
}

/// The request, with another behind it, is answered once with this status, and the connection ends.
#[track_caller]
fn refused(gateway: &Gateway, request: &[u8], status: u16) {
    let shown = request[..request.len().min(200)].escape_ascii();
    let mut client = gateway.connect();
    client.send_what_is_taken(request);
    client.send_what_is_taken(EVIL.as_bytes());
    assert_ne!(client.read_to_end(), End::Open, "{shown}: the connection stays open");
    let text = String::from_utf8_lossy(&client.rest).into_owned();
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: not {status}: {text:?}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{shown}: {text}");
}

fn what_leaves_is_written_anew_from_parsed_values(driver: Driver) {
    let peer = Peer::answering(
        b"HTTP/1.1 200 \r\nX-A: \t b \t\r\nx-EMPTY:\r\nX-High: caf\xc3\xa9\r\nCONTENT-length:2,2\r\n\r\nok".to_vec(),
    );
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send(
        "PUT /%7Ea/./b HTTP/1.1\r\nHOST:a\r\nX-A: \t b \t\r\nx-EMPTY:\r\nX-High: caf\u{e9}\r\ncontent-LENGTH: 02, 2\r\n\r\nhi",
    );
    let answer = client.response().must_be(200);
    assert_eq!(answer.text(), "ok");
    let arrived = peer.arrived();
    assert!(arrived.head.starts_with("PUT /~a/b HTTP/1.1\r\n"), "{}", arrived.head);
    for (which, head) in [("request", &arrived.head), ("answer", &answer.head)] {
        for line in ["X-A: b", "x-EMPTY: ", "X-High: caf\u{e9}", "Content-Length: 2"] {
            assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line:?} in the {which}: {head:?}");
        }
        assert_eq!(head.to_lowercase().matches("content-length").count(), 1, "{which}: {head:?}");
    }
    assert_eq!(arrived.body, b"hi");
}

fn heads_of_doubtful_syntax_are_refused(driver: Driver) {
    let (gateway, peer) = behind(driver);
    for line in [
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1\t",
        "GET / http/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/01.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1,1",
        "GET / HTTP 1.1",
        "GET /",
        "GET",
        "get / HTTP/1.1",
        "G\0ET / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1",
    ] {
        refused(&gateway, format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), 400);
    }
    for field in [
        &b"X: a\x7fb"[..],
        b"X: a\x01b",
        b"X: a\x0bb",
        b"X: a\x0cb",
        b"X: a\x1bb",
        b"X: a\r",
        b"X: a\rb",
        b"X: a\nb: c",
        b"\rX: a",
        b"X\t: a",
        b"X\0: a",
        b"X\xc3\xa9: a",
        b"X Y: a",
        b"X",
        b":",
        b"\"X\": a",
        b"X=: a\r\n (comment)",
        b" X: a",
        b"\tX: a",
        b"{X}: a",
        b"X@: a",
    ] {
        refused(&gateway, &[b"GET / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n"].concat(), 400);
    }
    for request in [
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
    ] {
        refused(&gateway, request.as_bytes(), 400);
    }
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    gateway.get("/").must_be(200);
}

fn lengths_are_one_number_or_refused(driver: Driver) {
    let (gateway, peer) = behind(driver);
    for value in [
        "",
        "2, 3",
        "2,",
        ",2",
        "2,,2",
        "2;2",
        "2 2",
        "2\t2",
        "2.0",
        "1e1",
        "0x2",
        "2_",
        "+2",
        "-2",
        "\u{ff12}",
        "two",
        "\"2\"",
        "2, x",
        "9223372036854775808",
        "18446744073709551616",
        "18446744073709551618",
        "99999999999999999999999999999999999999999",
    ] {
        refused(&gateway, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\nhi").as_bytes(), 400);
    }
    for second in ["3", "2, 3", "", "x"] {
        let fields = format!("Content-Length: 2\r\nX: y\r\nContent-Length: {second}\r\n");
        refused(&gateway, format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nhi").as_bytes(), 400);
    }
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    let mut client = gateway.connect();
    for fields in [
        "Content-Length: 2,2",
        "Content-Length: 2 ,\t2",
        "Content-Length: 2, 02, 002",
        "Content-Length: 2\r\nContent-Length: 2, 2\r\nContent-Length: 2",
        "Content-Length: 00000000000000000000000000000002",
    ] {
        client.ask(format!("POST /ok HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nhi")).must_be(200);
        let arrived = peer.arrived();
        assert_eq!((arrived.header("content-length"), arrived.body.as_slice()), (Some("2"), &b"hi"[..]), "{fields}");
    }
    // The largest that fits a signed number is a length as any other.
    let max = i64::MAX;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {max}\r\n\r\n"));
    assert_eq!(client.head().status, 100);
}

fn transfer_codings_are_exactly_chunked_or_refused(driver: Driver) {
    let (gateway, peer) = behind(driver);
    for (value, status) in [
        ("", 400),
        ("chunked,", 400),
        (",chunked", 400),
        ("chunked, chunked", 400),
        ("chunked;q=1", 400),
        ("'chunked'", 501),
        ("chun ked", 400),
        ("x-chunked", 501),
        ("gzip", 501),
        ("gzip, chunked", 501),
        ("chunked, identity", 501),
        ("identity, chunked", 501),
        ("trailers", 501),
        ("chunked\u{e9}", 400),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n");
        refused(&gateway, format!("{head}0\r\n\r\n").as_bytes(), status);
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: x\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        let status = if fields.contains("identity") { 501 } else { 400 };
        refused(&gateway, request.as_bytes(), status);
    }
    for (connection, method) in [("keep-alive", "POST"), ("close", "GET")] {
        let head = format!("{method} / HTTP/1.0\r\nHost: a\r\nConnection: {connection}\r\n");
        refused(&gateway, format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes(), 400);
    }
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    let mut client = gateway.connect();
    for name in ["Transfer-Encoding: chunked", "TRANSFER-ENCODING:\t ChUnKeD \t"] {
        client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{name}\r\n\r\n2\r\nhi\r\n0\r\n\r\n")).must_be(200);
        assert_eq!(peer.arrived().body, b"hi");
    }
}

fn a_host_is_exactly_one_valid_name_or_refused(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let bad = [
        "",
        "a,b",
        "a, a",
        "user@a",
        "user:pw@a",
        "a:",
        "a:x",
        "a:8x",
        "a:-1",
        "a:+1",
        "a: 80",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:80:80",
        "::1",
        "[::1",
        "::1]",
        "[::1]]",
        "[::1]x",
        "[::1]:",
        "[::1]:x",
        "[]",
        "[a]",
        "[1.2.3.4]",
        "[::1%25lo]",
        "a b",
        "a\tb",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a\"b",
        "<a>",
        "a|b",
        "a^b",
        "`a`",
        "{a}",
        "a..b",
        "http://a",
        "a\u{7f}",
        "a\u{e9}",
    ];
    for host in bad {
        refused(&gateway, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400);
        if !host.contains(['/', '?', '#', '\\', ' ', '\t']) {
            let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: a\r\n\r\n");
            refused(&gateway, request.as_bytes(), 400);
        }
    }
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refused(&gateway, request.as_bytes(), 400);
    }
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    let mut client = gateway.connect();
    for (request, host) in [
        ("GET / HTTP/1.1\r\nHost: A-b_c.test:65535\r\n\r\n", "a-b_c.test"),
        ("GET / HTTP/1.1\r\nHost: a.\r\n\r\n", "a"),
        ("GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", "[2001:db8::1]"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "127.0.0.1"),
        ("GET HTTP://Other.test:81/ HTTP/1.1\r\nHost: a\r\n\r\n", "other.test"),
    ] {
        client.ask(request).must_be(200);
        assert_eq!(peer.arrived().header("x-forwarded-host"), Some(host), "{request}");
    }
}

fn every_byte_that_may_not_stand_in_a_target_is_refused(driver: Driver) {
    let (gateway, peer) = behind(driver);
    let bad = (0..=u8::MAX).filter(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\'));
    for byte in bad.filter(|byte| *byte != b'\n') {
        for target in [[b'/', b'a', byte, b'b'], [b'/', b'?', byte, b'b']] {
            refused(&gateway, &[b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), 400);
        }
    }
    for target in
        ["/%", "/%2", "/%2g", "/%g2", "/%%41", "/a%00b", "/..", "/a/../../b", "/%2e%2e", "/./../", "", "*", "a"]
    {
        refused(&gateway, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 400);
    }
    assert_eq!(peer.connections(), 0, "nothing of all that reached the upstream");
    let mut client = gateway.connect();
    client.ask("GET /!$&'()*+,-.:;=@_~|<>^`{}[]\"%25 HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
    peer.arrived();
    client.ask("GET /?%zz=%00&[]{}|^`\"<>?//../ HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
    assert_eq!(peer.arrived().line(), "GET /?%zz=%00&[]{}|^`\"<>?//../ HTTP/1.1", "the query is untouched");
}

fn every_request_of_a_connection_is_routed_and_authorised_afresh(driver: Driver) {
    let (gateway, peer) = behind(driver);
    gateway.create("/services/s/routes", json!({"name": "locked", "hosts": ["locked.test"], "strip_path": false}));
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth"}));
    gateway.create("/consumers", json!({"username": "c"}));
    gateway.create("/consumers/c/key-auth", json!({"key": "k"}));
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.ask("GET /1 HTTP/1.1\r\nHost: open.test\r\n\r\n").must_be(200);
        assert_eq!(peer.arrived().header("x-consumer-username"), None);
        client.ask("GET /2 HTTP/1.1\r\nHost: locked.test\r\n\r\n").must_be(401);
        client.ask("GET /3 HTTP/1.1\r\nHost: locked.test\r\napikey: k\r\n\r\n").must_be(200);
        assert_eq!(peer.arrived().header("x-consumer-username"), Some("c"));
        client.ask("GET /4 HTTP/1.1\r\nHost: locked.test\r\n\r\n").must_be(401);
        client.ask("GET http://locked.test/5 HTTP/1.1\r\nHost: open.test\r\n\r\n").must_be(401);
        client.ask("GET /6 HTTP/1.1\r\nHost: open.test\r\nX-Consumer-Username: root\r\n\r\n").must_be(200);
        peer.arrived();
    }
    // Pipelined in one piece as well.
    client.send(
        "GET /7 HTTP/1.1\r\nHost: locked.test\r\napikey: k\r\n\r\nGET /8 HTTP/1.1\r\nHost: locked.test\r\n\r\n\
         GET /9 HTTP/1.1\r\nHost: open.test\r\n\r\n",
    );
    assert_eq!([client.response().status, client.response().status, client.response().status], [200, 401, 200]);
    let lines: Vec<String> = [peer.arrived(), peer.arrived()].iter().map(|arrived| arrived.line().to_owned()).collect();
    assert_eq!(lines, ["GET /7 HTTP/1.1", "GET /9 HTTP/1.1"]);
}

fn hop_by_hop_fields_end_here_on_an_upgrade_too(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        accepted.request();
        accepted.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Gone\r\nUpgrade: websocket\r\nX-Gone: 1\r\n\
             Keep-Alive: 1\r\nX-Kept: 1\r\nSec-WebSocket-Accept: x\r\n\r\n",
        );
        let _ = accepted.until_closed();
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Gone, Host, X-Forwarded-For, X-Real-IP, Via\r\n\
         Upgrade: websocket\r\nX-Gone: 1\r\nKeep-Alive: 1\r\nProxy: x\r\nProxy-Connection: x\r\nX-Kept: 1\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
    );
    let answer = client.head().must_be(101);
    let arrived = peer.arrived();
    assert_eq!(
        (arrived.header("connection"), arrived.header("upgrade")),
        (Some("keep-alive, Upgrade"), Some("websocket"))
    );
    for name in ["x-gone", "keep-alive", "proxy", "proxy-connection"] {
        assert_eq!(arrived.header(name), None, "{name}: {}", arrived.head);
    }
    for name in ["host", "via", "x-forwarded-proto", "x-real-ip", "x-kept"] {
        assert!(arrived.header(name).is_some(), "{name}: {}", arrived.head);
    }
    assert_eq!(arrived.header("x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!((answer.header("connection"), answer.header("upgrade")), (Some("Upgrade"), Some("websocket")));
    for name in ["x-gone", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name}: {}", answer.head);
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
}
