//! Upstreams that break the protocol or their word: what they send never reaches a client as if it were whole, and never
//! reaches another client at all (requirements sections 1.9 to 1.12).

use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::client::End;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_truncated_body_is_visibly_truncated,
    a_stall_inside_a_body_cuts_the_connection,
    an_answer_that_is_no_http_is_502,
    a_kept_connection_that_died_is_replaced_silently,
    a_kept_connection_that_dies_under_a_post_is_not_replayed,
    bytes_that_nobody_asked_for_reach_nobody,
    bytes_behind_an_answer_reach_nobody,
    a_body_where_none_may_be_is_dropped_with_its_connection,
    an_upgrade_is_not_passed_on_and_a_101_is_502,
    large_but_allowed_heads_pass,
);

fn behind(driver: Driver, peer: &Peer, service: serde_json::Value) -> Gateway {
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, service, json!({"strip_path": false}));
    gateway
}

/// Head and part of a body for the path, and what follows before the end; nothing of it is whole.
fn cut_short(path: &str) -> (&'static str, &'static str) {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nonly a part\r\n";
    match path {
        "/sized" => ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly a part", ""),
        "/chunked" => (CHUNKED, ""),
        "/in-chunk" => (CHUNKED, "ff\r\nmore"),
        "/bad-chunk" => (CHUNKED, "zz\r\n"),
        "/no-last-line" => (CHUNKED, "0\r\n"),
        _ => ("HTTP/1.1 200 OK\r\n\r\nonly a part", ""),
    }
}

const CUT: [&str; 5] = ["/sized", "/chunked", "/in-chunk", "/bad-chunk", "/no-last-line"];

fn a_truncated_body_is_visibly_truncated(driver: Driver) {
    for reset in [false, true] {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let peer = Peer::scripted(move |accepted| {
            let Some(arrived) = accepted.request() else { return };
            let (begin, rest) = cut_short(arrived.line().split(' ').nth(1).unwrap_or_default());
            accepted.send(begin);
            // The client has seen the beginning: nothing that follows can overtake it.
            let _ = wait.lock().expect("no script panics").recv_timeout(PATIENCE);
            accepted.send(rest);
            if reset {
                accepted.reset();
            }
        });
        let gateway = behind(driver, &peer, json!({"retries": 0}));
        let ask = |request: String| {
            let mut client = gateway.connect();
            client.send(request);
            let mut answer = client.head().must_be(200);
            go_on.send(()).expect("the upstream waits");
            client.body_of(&mut answer);
            (answer, client)
        };
        for path in CUT {
            let (answer, mut client) = ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert!(answer.truncated, "{path}, reset {reset}: {}{}", answer.head, answer.text());
            client.must_end();
            let (answer, _) = ask(format!("GET {path} HTTP/1.0\r\n\r\n"));
            assert!(answer.truncated, "{path} for HTTP/1.0, reset {reset}: {}{}", answer.head, answer.text());
        }
        let (answer, _) = ask("GET /until-close HTTP/1.1\r\nHost: a\r\n\r\n".to_owned());
        let want = ("only a part", reset);
        assert_eq!((answer.text().as_str(), answer.truncated), want, "an end is an end, a reset is not");
    }
    // What is broken before anything was passed on is an error.
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let gateway = behind(driver, &peer, json!({"retries": 0}));
    gateway.get("/").must_be(502);
}

fn a_stall_inside_a_body_cuts_the_connection(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        if let Some(arrived) = accepted.request() {
            accepted.send(cut_short(arrived.line().split(' ').nth(1).unwrap_or_default()).0);
            let _ = accepted.until_closed();
        }
    });
    let gateway = behind(driver, &peer, json!({"read_timeout": 300}));
    for path in ["/sized", "/chunked", "/until-close"] {
        let answer = gateway.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
        assert!(answer.truncated, "{path}: {}{}", answer.head, answer.text());
    }
    let mut client = gateway.connect();
    client.send("GET /until-close HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_to_end(), End::Reset, "the only sign that HTTP/1.0 has");
}

fn an_answer_that_is_no_http_is_502(driver: Driver) {
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(64 << 10));
    let heads: Vec<String> = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "hello\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200",
        "",
        long.as_str(),
    ]
    .map(str::to_owned)
    .to_vec();
    let answers = heads.clone();
    let peer = Peer::scripted(move |accepted| {
        let Some(arrived) = accepted.request() else { return };
        let number = arrived.line().split(' ').nth(1).and_then(|path| path[1..].parse::<usize>().ok());
        accepted.send(&answers[number.expect("a number as path")]);
        accepted.finish_sending();
        let _ = accepted.until_closed();
    });
    let gateway = behind(driver, &peer, json!({"retries": 0}));
    let mut client = gateway.connect();
    for (n, head) in heads.iter().enumerate() {
        let answer = client.ask(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let shown = head[..head.len().min(80)].escape_debug();
        assert_eq!(answer.status, 502, "{shown}: {}{}", answer.head, answer.text());
        assert!(answer.text().starts_with("An invalid response was received"), "{shown}: {}", answer.text());
    }
    assert_eq!(peer.connections(), heads.len(), "no connection is used again");
}

fn a_kept_connection_that_died_is_replaced_silently(driver: Driver) {
    // Closes at the second request of each connection, without an answer.
    let peer = Peer::scripted(|accepted| {
        if accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            accepted.request();
        }
    });
    let gateway = behind(driver, &peer, json!({"retries": 0}));
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).text(), "ok");
    }
    assert_eq!(peer.connections(), 5);
}

fn a_kept_connection_that_dies_under_a_post_is_not_replayed(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        if accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            accepted.request();
        }
    });
    let gateway = behind(driver, &peer, json!({}));
    let mut client = gateway.connect();
    client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").must_be(502);
    let posts = peer.arrived_by_now().iter().filter(|arrived| arrived.line().starts_with("POST")).count();
    assert_eq!(posts, 1);
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").must_be(200);
}

/// Asks with `ask` on one connection after the other until the upstream has had so many requests.
fn many(gateway: &Gateway, count: usize, mut ask: impl FnMut(&mut Client)) {
    let mut client = gateway.connect();
    for _ in 0..count {
        ask(&mut client);
    }
    for _ in 0..count {
        ask(&mut gateway.connect());
    }
}

fn bytes_that_nobody_asked_for_reach_nobody(driver: Driver) {
    let (sent, wait) = std::sync::mpsc::channel();
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            // Only once the answer has been taken, so that this comes on a connection that is idle.
            wait_for_quiet();
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            let _ = sent.send(());
        }
    });
    let gateway = behind(driver, &peer, json!({}));
    many(&gateway, 5, |client| {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).text(), "ok");
        wait.recv_timeout(PATIENCE).expect("the upstream sends more");
    });
}

/// There is no event that says that nothing more is going on; this is long on loopback.
fn wait_for_quiet() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

fn bytes_behind_an_answer_reach_nobody(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(match arrived.line().contains("/chunked") {
                true => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                }
                false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            });
        }
    });
    let gateway = behind(driver, &peer, json!({}));
    for path in ["/sized", "/chunked"] {
        many(&gateway, 5, |client| {
            let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).must_be(200);
            assert_eq!(answer.text(), "ok", "{path}");
            assert!(client.rest.is_empty(), "{path}: {}", client.rest.escape_ascii());
        });
    }
}

fn a_body_where_none_may_be_is_dropped_with_its_connection(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(match arrived.line().split(' ').nth(1).unwrap_or_default() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\nevil",
                "/304" => "HTTP/1.1 304 Not Modified\r\n\r\nevil",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            });
        }
    });
    let gateway = behind(driver, &peer, json!({}));
    let mut client = gateway.connect();
    for (method, path) in [("GET", "/204"), ("GET", "/304"), ("HEAD", "/head")] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.head();
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).text(), "ok", "after {path}");
    }
    let active = || gateway.admin("GET", "/status", None).json()["server"]["connections_active"].as_u64();
    drop(client);
    eventually("the connection to be gone", || (active() == Some(0)).then_some(()));
}

fn an_upgrade_is_not_passed_on_and_a_101_is_502(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(match arrived.line().contains("/101") {
                true => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
                false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            });
        }
    });
    let gateway = behind(driver, &peer, json!({"retries": 0}));
    let upgrade = |path: &str, to: &str| {
        let fields = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}\r\nHTTP2-Settings: x\r\nSec-WebSocket-Version: 13\r\n"
        );
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let mut client = gateway.connect();
    for to in ["websocket", "h2c"] {
        assert_eq!(client.ask(upgrade("/plain", to)).must_be(200).text(), "ok");
        let arrived = peer.arrived();
        assert_eq!((arrived.header("upgrade"), arrived.header("http2-settings")), (None, None), "{}", arrived.head);
        assert_eq!(arrived.header("connection"), Some("keep-alive"));
        client.ask(upgrade("/101", to)).must_be(502);
        peer.arrived();
    }
}

fn large_but_allowed_heads_pass(driver: Driver) {
    let fields = (0..200).map(|n| format!("X-{n}: {}\r\n", "v".repeat(150))).collect::<String>();
    assert!(fields.len() > 30_000 && fields.len() < 32_500, "{}", fields.len());
    let peer = Peer::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"));
    let gateway = behind(driver, &peer, json!({}));
    let mut client = gateway.connect();
    for _ in 0..3 {
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        assert_eq!((answer.text().as_str(), answer.header("x-199").map(str::len)), ("ok", Some(150)));
    }
}
