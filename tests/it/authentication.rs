//! Plugins that ask who a request is from, in front of real traffic.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::hmac;
use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// A gateway with service `s`, route `r` for `/` and that plugin on it.
fn behind(peer: &Peer, plugin: Value) -> Gateway {
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", plugin);
    gateway
}

fn ask(gateway: &Gateway, line: &str, fields: &[String], body: &str) -> Response {
    let mut request = format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", body.len());
    for field in fields {
        request += &format!("{field}\r\n");
    }
    gateway.connect().ask(format!("{request}\r\n{body}"))
}

fn sign(secret: &str, text: &str) -> String {
    STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes()))
}

#[test]
fn a_signature_tells_the_upstream_who_asks() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"name": "hmac-auth", "config": {"validate_request_body": true}}));
    gateway.create("/consumers", json!({"username": "c"}));
    gateway.create("/consumers/c/hmac-auth", json!({"username": "u", "secret": "s"}));
    let body = "{\"a\":1}";
    let date = format!("date: {}", httpdate::fmt_http_date(SystemTime::now()));
    let digest = format!("digest: SHA-256={}", STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes())));
    let signature = sign("s", &format!("{date}\nPOST /x?a=b HTTP/1.1\n{digest}"));
    let header = format!(
        r#"Authorization: hmac username="u", algorithm="hmac-sha256", headers="date request-line digest", signature="{signature}""#
    );
    let fields = [header, date, digest];
    ask(&gateway, "POST /x?a=b", &fields, body).must_be(200);
    let arrived = peer.arrived();
    assert_eq!(arrived.header("x-consumer-username"), Some("c"));
    assert_eq!(arrived.header("x-credential-identifier"), Some("u"));
    assert_eq!(arrived.body, body.as_bytes());
    for (line, body) in [("POST /x?a=c", body), ("POST /x?a=b", "{\"a\":2}")] {
        let answer = ask(&gateway, line, &fields, body).must_be(401);
        assert_eq!(answer.json()["message"], "HMAC signature does not match");
        assert_eq!(answer.header("www-authenticate"), Some("hmac"));
    }
    gateway.admin("DELETE", "/hmac-auths/u", None).must_be(204);
    let answer = ask(&gateway, "POST /x?a=b", &fields, body).must_be(401);
    assert_eq!(answer.json()["message"], "HMAC signature cannot be verified");
    assert!(peer.arrived_by_now().is_empty());
}

#[test]
fn only_signed_webhooks_pass() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"name": "standard-webhooks", "config": {"secret_v1": "shh"}}));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs();
    let signature = sign("shh", &format!("m1.{now_s}.hello"));
    let fields = [
        "webhook-id: m1".to_owned(),
        format!("webhook-timestamp: {now_s}"),
        format!("webhook-signature: v1,{signature}"),
    ];
    ask(&gateway, "POST /", &fields, "hello").must_be(200);
    assert_eq!(peer.arrived().body, b"hello");
    for (fields, body) in [(&fields[..], "hallo"), (&fields[1..], "hello"), (&[][..], "hello"), (&fields[..], "")] {
        assert_eq!(ask(&gateway, "POST /", fields, body).must_be(400).json()["message"], "Bad request");
    }
    assert!(peer.arrived_by_now().is_empty());
}
