//! The PROXY protocol on listeners (issue 4; spec/proxying.md section 4.1): who is believed, what is refused.

use std::time::Duration;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::curl::curl;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_trusted_balancer_names_the_client,
    an_untrusted_one_must_speak_and_is_not_believed,
    a_preface_may_come_in_pieces_and_with_requests_behind_it,
    what_is_no_preface_is_not_answered,
);

const LISTEN: (&str, &str) = ("proxy_listen", "127.0.0.1:0 proxy_protocol");
const FROM_PREFACE: (&str, &str) = ("real_ip_header", "proxy_protocol");
const TRUSTED: (&str, &str) = ("trusted_ips", "127.0.0.0/8");
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

fn v2(command: u8, rest: &[u8]) -> Vec<u8> {
    let family = if command == 0x21 { 0x11 } else { 0 };
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, rest.len() as u8][..], rest].concat()
}

/// Source 10.1.2.3:80 with a TLV behind.
fn tcp4() -> Vec<u8> {
    v2(0x21, &[10, 1, 2, 3, 127, 0, 0, 1, 0, 80, 0, 80, 0x03, 0, 4, 1, 2, 3, 4])
}

fn a_trusted_balancer_names_the_client(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[LISTEN, FROM_PREFACE, TRUSTED]);
    gateway.proxy_to(peer.port);
    for (preface, client) in [
        (b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 80\r\n".to_vec(), "10.1.2.3"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:10.1.2.4 ::1 4711 80\r\n".to_vec(), "10.1.2.4"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (tcp4(), "10.1.2.3"),
        (v2(0x20, b""), "127.0.0.1"),
    ] {
        let mut stream = gateway.connect();
        stream.send(&preface);
        for _ in 0..2 {
            stream.ask(GET).must_be(200);
            let arrived = peer.arrived();
            assert_eq!(
                (arrived.header("x-real-ip"), arrived.header("x-forwarded-for")),
                (Some(client), Some(client)),
                "{}",
                preface.escape_ascii()
            );
        }
        // What a client says of itself counts for nothing here, and the direct peer is the balancer.
        stream.ask("GET /x HTTP/1.1\r\nHost: a\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n").must_be(200);
        let arrived = peer.arrived();
        assert_eq!(
            (arrived.header("x-real-ip"), arrived.header("x-forwarded-for")),
            (Some(client), Some("9.9.9.9, 127.0.0.1"))
        );
    }
    curl(&format!("curl --haproxy-protocol http://127.0.0.1:{}/x", gateway.proxy), &[]).must_be(200);
    assert_eq!(peer.arrived().header("x-real-ip"), Some("127.0.0.1"));
}

fn an_untrusted_one_must_speak_and_is_not_believed(driver: Driver) {
    let peer = Peer::hello();
    for settings in [&[LISTEN, FROM_PREFACE][..], &[LISTEN, TRUSTED]] {
        let gateway = Gateway::with(driver, settings);
        gateway.proxy_to(peer.port);
        let mut client = gateway.connect();
        client.send(tcp4());
        client.ask(GET).must_be(200);
        assert_eq!(peer.arrived().header("x-real-ip"), Some("127.0.0.1"), "{settings:?}");
    }
}

fn a_preface_may_come_in_pieces_and_with_requests_behind_it(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[LISTEN, FROM_PREFACE, TRUSTED]);
    gateway.proxy_to(peer.port);
    let long = [&v2(0x21, &[]), &[10, 1, 2, 3, 127, 0, 0, 1, 0, 80, 0, 80][..]].concat();
    let mut long = long;
    // Nearly as much behind the addresses as is read at all.
    long[14..16].copy_from_slice(&4000u16.to_be_bytes());
    long.resize(16 + 4000, 0xee);
    for preface in [b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 80\r\n".to_vec(), tcp4(), long] {
        let mut client = gateway.connect();
        client.send([&preface[..], GET.as_bytes(), GET.as_bytes()].concat());
        for _ in 0..2 {
            client.response().must_be(200);
            assert_eq!(peer.arrived().header("x-real-ip"), Some("10.1.2.3"));
        }
        let mut client = gateway.connect();
        for piece in preface.chunks(preface.len().div_ceil(8)) {
            client.send(piece);
            // So that the pieces are read one by one.
            std::thread::sleep(Duration::from_millis(2));
        }
        client.ask(GET).must_be(200);
        assert_eq!(peer.arrived().header("x-real-ip"), Some("10.1.2.3"));
    }
}

fn what_is_no_preface_is_not_answered(driver: Driver) {
    let gateway = Gateway::with(driver, &[LISTEN, FROM_PREFACE, TRUSTED, ("client_header_timeout", "300ms")]);
    let mut long = v2(0x21, &[]);
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    for bytes in [
        GET.as_bytes(),
        b"PROXY TCP4 10.1.2.3 127.0.0.1 4711\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        &long,
        // Too late.
        b"",
        b"PROXY TCP4 10.1.2.3",
    ] {
        let mut client = gateway.connect();
        client.send_what_is_taken(bytes);
        assert_ne!(client.read_to_end(), End::Open, "{}", bytes.escape_ascii());
        assert!(client.rest.is_empty(), "{}", client.rest.escape_ascii());
    }
}
