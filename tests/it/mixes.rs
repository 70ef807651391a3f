//! Random sequences of requests on one connection, cut at random places, against what each must be answered. A seed that
//! fails is in the message.

use std::io::Write;

use fastrand::Rng;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Arrived;
use crate::harness::peer::Peer;

on_both_drivers!(any_mix_of_requests_is_answered_in_order);

const SEEDS: u64 = 60;
const REQUESTS: usize = 14;

/// One request of a sequence.
struct Asked {
    bytes: Vec<u8>,
    method: &'static str,
    path: String,
    body: Vec<u8>,
}

fn body(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.u8(..6) {
        0 => 0,
        1..4 => rng.usize(..200),
        4 => rng.usize(..9_000),
        _ => rng.usize(..180_000),
    };
    (0..len).map(|at| (at % 251) as u8 ^ len as u8).collect()
}

fn push_chunked(rng: &mut Rng, body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    while !rest.is_empty() {
        let len = rng.usize(1..=rest.len().min(40_000));
        let extension = ["", ";a=b", ";q=\"x\""][rng.usize(..3)];
        out.extend(format!("{len:x}{extension}\r\n").bytes());
        out.extend(&rest[..len]);
        out.extend(b"\r\n");
        rest = &rest[len..];
    }
    out.extend(["0\r\n\r\n", "0\r\nT: u\r\n\r\n"][rng.usize(..2)].bytes());
}

fn request(rng: &mut Rng) -> Asked {
    let method = ["GET", "GET", "POST", "PUT", "HEAD", "DELETE"][rng.usize(..6)];
    let place = ["/held", "/held", "/streamed", "/locked", "/closed", "/nowhere"][rng.usize(..6)];
    let path = format!("{place}/{}/{}", ["sized", "chunked"][rng.usize(..2)], rng.u32(..1000));
    let (mut bytes, mut body) = (format!("{method} {path} HTTP/1.1\r\nHost: a\r\n").into_bytes(), body(rng));
    match rng.u8(..3) {
        0 if matches!(method, "GET" | "HEAD") => {
            body.clear();
            bytes.extend(b"\r\n");
        }
        1 => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            push_chunked(rng, &body, &mut bytes);
        }
        _ => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(&body);
        }
    }
    Asked { bytes, method, path, body }
}

/// What the upstream answers to a request, as the client is to see it.
fn told(path: &str, body: &[u8]) -> Vec<u8> {
    [path.as_bytes(), b" ", body].concat()
}

fn answer(arrived: &Arrived) -> Vec<u8> {
    let (method, path) = arrived.line().trim_end_matches(" HTTP/1.1").split_once(' ').unwrap_or_default();
    let text = told(path, &arrived.body);
    let mut rng = Rng::with_seed(text.len() as u64);
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    let chunked = path.contains("/chunked");
    match chunked {
        true => out.extend(b"Transfer-Encoding: chunked\r\n\r\n"),
        false => out.extend(format!("Content-Length: {}\r\n\r\n", text.len()).bytes()),
    }
    match (method, chunked) {
        ("HEAD", _) => {}
        (_, true) => push_chunked(&mut rng, &text, &mut out),
        (_, false) => out.extend(text),
    }
    out
}

fn any_mix_of_requests_is_answered_in_order(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(answer(&arrived));
        }
    });
    let gateway = Gateway::start(driver);
    gateway.service("s", peer.port, json!({}));
    for (name, buffering) in [("held", true), ("streamed", false), ("locked", true), ("closed", false)] {
        let route =
            json!({"name": name, "paths": [format!("/{name}")], "strip_path": false, "request_buffering": buffering});
        gateway.create("/services/s/routes", route);
    }
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth", "config": {"key_in_body": true}}));
    gateway.create("/routes/closed/plugins", json!({"name": "request-termination", "config": {"status_code": 403}}));
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let asked: Vec<Asked> = (0..REQUESTS).map(|_| request(&mut rng)).collect();
        let mut client = gateway.connect();
        let mut stream = client.stream.try_clone().expect("a socket");
        let all: Vec<u8> = asked.iter().flat_map(|asked| asked.bytes.iter().copied()).collect();
        let sending = std::thread::spawn(move || {
            let mut rest = &all[..];
            while !rest.is_empty() {
                let most = if rng.bool() { 100 } else { 100_000 };
                let len = rng.usize(1..=rest.len().min(most));
                if stream.write_all(&rest[..len]).is_err() {
                    return;
                }
                rest = &rest[len..];
            }
        });
        let mut passed = 0;
        for (n, asked) in asked.iter().enumerate() {
            let context =
                format!("seed {seed}, request {n}: {} {} with {} bytes", asked.method, asked.path, asked.body.len());
            let mut answer = client.head();
            let local = match asked.path.split('/').nth(1) {
                Some("locked") => Some(401),
                Some("closed") => Some(403),
                Some("nowhere") => Some(404),
                _ => None,
            };
            assert_eq!(answer.status, local.unwrap_or(200), "{context}: {}", answer.head);
            if asked.method != "HEAD" {
                client.body_of(&mut answer);
                assert!(!answer.truncated, "{context}");
                let whole = local.is_some() || answer.body == told(&asked.path, &asked.body);
                assert!(whole, "{context}: another body of {} bytes", answer.body.len());
            }
            passed += usize::from(local.is_none());
            if answer.header("connection") == Some("close") {
                assert!(local.is_some(), "{context}: nothing was wrong with it");
                assert_ne!(client.read_to_end(), End::Open, "{context}");
                break;
            }
        }
        drop(client);
        sending.join().expect("the sender ends");
        let arrived = peer.arrived_by_now();
        assert_eq!(arrived.len(), passed, "seed {seed}: requests at the upstream");
    }
}
