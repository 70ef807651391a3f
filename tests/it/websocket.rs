//! WebSockets (spec/proxying.md section 13; requirements section 1.8): what is forwarded, when a tunnel exists, how it ends.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use tungstenite::Message;
use tungstenite::WebSocket;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Accepted;
use crate::harness::peer::Peer;

on_both_drivers!(
    messages_of_a_real_client_are_echoed,
    only_a_whole_handshake_is_forwarded_as_one,
    a_refused_upgrade_stays_plain_http,
    a_101_that_was_not_asked_for_is_a_502,
    bytes_behind_the_heads_are_not_lost,
    the_end_of_either_side_ends_both_and_loses_nothing,
    an_idle_tunnel_is_ended_and_a_busy_one_is_not,
    a_side_that_does_not_read_stops_the_other,
    plugins_see_the_handshake,
    a_tunnel_lives_through_a_drain_until_its_time_is_up,
);

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An echo server of a real library; ends after a close.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("a bound socket").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut socket =
                    tungstenite::accept(stream?).map_err(|error| std::io::Error::other(error.to_string()))?;
                while let Ok(message) = socket.read() {
                    if message.is_text() || message.is_binary() {
                        let _ = socket.send(message);
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    port
}

fn open(gateway: &Gateway) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", gateway.proxy)).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let (socket, answer) = tungstenite::client("ws://a.test/ws?x=1", stream).expect("a handshake");
    assert_eq!(answer.status(), 101);
    socket
}

fn messages_of_a_real_client_are_echoed(driver: Driver) {
    let gateway = Gateway::with(driver, &[("workers", "1")]);
    gateway.proxy_to(echo_server());
    let mut socket = open(&gateway);
    for length in [0, 1, 125, 126, 4096, 65535, 65536, 3 << 20] {
        let sent = Message::binary((0..length).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
        socket.send(sent.clone()).expect("it is taken");
        assert!(socket.read().expect("an echo") == sent, "{length}");
    }
    socket.send(Message::text("grüße")).expect("it is taken");
    assert_eq!(socket.read().expect("an echo"), Message::text("grüße"));
    socket.close(None).expect("it is taken");
    let last = loop {
        if let Err(error) = socket.read() {
            break error;
        }
    };
    assert!(matches!(last, tungstenite::Error::ConnectionClosed), "{last}");
    let log = gateway.prefix().join("logs/access.log");
    let line = eventually("the line", || {
        std::fs::read_to_string(&log).ok().and_then(|text| text.lines().next().map(str::to_owned))
    });
    assert!(line.contains("\"GET /ws?x=1 HTTP/1.1\" 101 "), "{line}");
    let bytes: u64 = line.split("101 ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("bytes");
    assert!(bytes > 3 << 20, "{line}");
}

fn only_a_whole_handshake_is_forwarded_as_one(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.ask(HANDSHAKE).must_be(200);
    let arrived = peer.arrived();
    assert_eq!(
        (arrived.header("connection"), arrived.header("upgrade"), arrived.header("sec-websocket-version")),
        (Some("keep-alive, Upgrade"), Some("websocket"), Some("13"))
    );
    for (from, to) in [
        ("GET /ws", "PUT /ws"),
        ("Connection: Upgrade\r\n", ""),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket, h2c\r\n"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n"),
    ] {
        client.ask(HANDSHAKE.replace(from, to)).must_be(200);
        let arrived = peer.arrived();
        assert_eq!((arrived.header("connection"), arrived.header("upgrade")), (Some("keep-alive"), None), "{to}");
    }
    // An upstream that obeyed an HTTP/1.0 client would leave it with what it cannot know.
    gateway.connect().ask(HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0")).must_be(200);
    assert_eq!(peer.arrived().header("upgrade"), None);
}

fn a_refused_upgrade_stays_plain_http(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(request) = accepted.request() {
            accepted.send(match request.line() {
                "GET /ws HTTP/1.1" => {
                    "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 8\r\nContent-Length: 3\r\n\r\nno!"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            });
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    // A smuggled request behind a handshake is one of its own, routed like any other.
    client.send(format!("{HANDSHAKE}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    let refused = client.response().must_be(426);
    assert_eq!(refused.header("connection"), Some("keep-alive, Upgrade"));
    assert_eq!((refused.header("upgrade"), refused.text().as_str()), (Some("websocket"), "no!"));
    assert_eq!(client.response().must_be(200).text(), "ok");
    peer.arrived();
    assert_eq!(peer.arrived().header("x-forwarded-path"), Some("/next"));
}

fn a_101_that_was_not_asked_for_is_a_502(driver: Driver) {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", SWITCH.to_owned()),
        (HANDSHAKE, SWITCH.replace("Upgrade: websocket", "Upgrade: h2c")),
        (HANDSHAKE, SWITCH.replace("Upgrade: websocket\r\n", "")),
        (HANDSHAKE, SWITCH.replace("Connection: Upgrade\r\n", "")),
        (HANDSHAKE, SWITCH.replace("Connection: Upgrade\r\n", "Connection: Upgrade\r\nContent-Length: 4\r\n")),
    ] {
        let peer = Peer::answering(answer.clone());
        let gateway = Gateway::start(driver);
        gateway.proxy_with(peer.port, json!({"retries": 0}), json!({}));
        let mut client = gateway.connect();
        client.ask(request).must_be(502);
        client.ask("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").must_be(502);
        assert_eq!(peer.connections(), 2, "the upstream connection is not used again: {answer}");
    }
}

/// Switches, with the given bytes behind the head, and goes on with `then`.
fn switching(behind: &'static str, then: impl Fn(&mut Accepted) + Send + Sync + 'static) -> Peer {
    Peer::scripted(move |accepted| {
        accepted.request();
        accepted.send(format!("{SWITCH}{behind}"));
        then(accepted);
    })
}

fn tunnel(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(HANDSHAKE);
    let head = client.head();
    assert_eq!(head.status, 101, "{}", head.head);
    assert_eq!((head.header("connection"), head.header("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
    client
}

fn expect(client: &mut Client, want: &str) {
    while client.rest.len() < want.len() {
        let mut piece = [0; 4096];
        let count = client.stream.read(&mut piece).expect("more bytes");
        assert!(count > 0, "the tunnel ended at {}", client.rest.escape_ascii());
        client.rest.extend_from_slice(&piece[..count]);
    }
    assert_eq!(client.rest.drain(..want.len()).collect::<Vec<_>>().escape_ascii().to_string(), want);
}

fn bytes_behind_the_heads_are_not_lost(driver: Driver) {
    let peer = switching("first", |accepted| {
        let mut got = vec![0; 10];
        let taken = accepted.take(&mut got);
        accepted.send(&got[..taken]);
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send(format!("{HANDSHAKE}early"));
    assert_eq!(client.head().status, 101);
    client.send("later");
    expect(&mut client, "firstearlylater");
}

fn the_end_of_either_side_ends_both_and_loses_nothing(driver: Driver) {
    let (report, ended) = mpsc::channel();
    let peer = switching("", move |accepted| {
        let _ = accepted.until_closed();
        // A last word, said after the other side has ended.
        accepted.send("bye");
        let _ = report.send(());
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = tunnel(&gateway);
    client.send("x");
    client.finish_sending();
    expect(&mut client, "bye");
    client.must_end();
    ended.recv_timeout(PATIENCE).expect("the upstream is told of the end");

    let peer = switching("", |accepted| accepted.send("all of this"));
    gateway.patch("/services/s", json!({"port": peer.port}));
    let mut client = tunnel(&gateway);
    expect(&mut client, "all of this");
    client.must_end();
}

fn an_idle_tunnel_is_ended_and_a_busy_one_is_not(driver: Driver) {
    let peer = switching("", |accepted| {
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = accepted.stream.read(&mut piece) {
            // Bytes of one direction keep the tunnel as a whole.
            let _ = count;
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"read_timeout": 400, "write_timeout": 60000}), json!({}));
    let mut client = tunnel(&gateway);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        client.send("x");
    }
    let idle_from = Instant::now();
    client.must_end();
    assert!(idle_from.elapsed() >= Duration::from_millis(350), "it was ended while it was busy");
}

fn a_side_that_does_not_read_stops_the_other(driver: Driver) {
    const BYTES: usize = 64 << 20;
    let (report, taken) = mpsc::channel();
    let peer = switching("", move |accepted| {
        let _ = accepted.stream.set_write_timeout(Some(Duration::from_millis(700)));
        let piece = vec![7; 64 << 10];
        let mut count = 0;
        while count < BYTES {
            match accepted.stream.write(&piece) {
                Ok(more) => count += more,
                Err(_) => break,
            }
        }
        let _ = report.send(count);
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = tunnel(&gateway);
    let count = taken.recv_timeout(PATIENCE).expect("the upstream was stopped");
    assert!(count < BYTES, "everything was read, and nobody had taken it");
    // All of what was taken arrives, and in order.
    assert_ne!(client.read_to_end(), crate::harness::client::End::Open);
    assert!(
        client.rest.len() == count && client.rest.iter().all(|byte| *byte == 7),
        "{} of {count}",
        client.rest.len()
    );
}

fn plugins_see_the_handshake(driver: Driver) {
    let peer = switching("", |accepted| drop(accepted.until_closed()));
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", json!({"name": "correlation-id", "config": {"echo_downstream": true}}));
    let mut client = gateway.connect();
    client.send(HANDSHAKE);
    let head = client.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("kong-request-id"), peer.arrived().header("kong-request-id"));
    assert!(head.header("kong-request-id").is_some() && head.header("x-kong-request-id").is_some(), "{}", head.head);
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    gateway.connect().ask(HANDSHAKE).must_be(401);
}

fn a_tunnel_lives_through_a_drain_until_its_time_is_up(driver: Driver) {
    let mut gateway = Gateway::with(driver, &[("drain_timeout", "1s")]);
    gateway.proxy_to(echo_server());
    let mut socket = open(&gateway);
    gateway.signal(libc::SIGTERM);
    eventually("the listener to be closed", || TcpStream::connect(("127.0.0.1", gateway.proxy)).is_err().then_some(()));
    socket.send(Message::text("still here")).expect("it is taken");
    assert_eq!(socket.read().expect("an echo"), Message::text("still here"));
    assert!(gateway.wait().success());
    assert!(socket.read().is_err(), "the tunnel ends with the node");
    let text = std::fs::read_to_string(gateway.prefix().join("logs/access.log")).expect("a log");
    assert_eq!(text.matches("HTTP/1.1\" 101 ").count(), 1, "the request that was cut short is logged: {text}");
}
