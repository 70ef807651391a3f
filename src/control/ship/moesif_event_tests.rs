//! What an event tells, and what it does not.

use super::*;
use crate::control::ship::log_record::tests::figures;
use crate::control::ship::log_record::tests::full_record;
use crate::control::ship::log_record::tests::with_seen;
use crate::plugins::moesif;
use crate::plugins::moesif_rules::Governance;
use crate::plugins::shipping::Shipping;
use crate::plugins::testing::plugin;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use uuid::Uuid;

fn config(fields: Value) -> Moesif {
    let mut all = json!({"application_id": "key"});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    match plugin(&moesif::KIND, all).ships() {
        Some(Shipping::Moesif(config)) => config.clone(),
        _ => panic!("moesif ships"),
    }
}

/// Notes of bodies of the request and of the response, told whole.
fn shipment<'a>(bytes: &'a [u8], request_len: usize, rule_len: usize) -> Shipment<'a> {
    Shipment { plugin: Uuid::nil(), numbers: [1, request_len as u64, rule_len as u64, 1], bytes }
}

fn told(config: &Moesif, record: &FullRecord<'_>, shipment: &Shipment<'_>) -> Value {
    let event = with_seen(record, |seen| event(config, seen, shipment, 0)).expect("it is told");
    serde_json::from_slice(&event).expect("an event is JSON")
}

#[test]
fn an_event_tells_the_call() {
    let config = config(json!({"user_id_header": "x-user", "company_id_header": "x-a"}));
    let mut record = full_record(figures());
    record.request_fields.push((b"Content-Type", b"application/json"));
    record.request_fields.push((b"X-Forwarded-For", b"unknown, 10.1.2.3:99, 10.9.9.9"));
    record.route = br#"{"hosts":["h.test"]}"#;
    let event = told(&config, &record, &shipment(br#"{"a":1}rule-1text"#, 7, 6));
    assert_eq!(
        event["request"],
        json!({"uri": "http://h.test:8000/p/x?a=1&a=b%20c&d&e=",
               "headers": {"host": "h.test", "authorization": "Basic eA==", "x-\u{fffd}": "1",
                           "content-type": "application/json", "x-forwarded-for": "unknown, 10.1.2.3:99, 10.9.9.9"},
               "verb": "GET", "ip_address": "10.1.2.3", "api_version": "1.0", "time": "2023-11-14T22:13:20.123",
               "body": {"a": 1}, "transfer_encoding": "json"})
    );
    assert_eq!(
        event["response"],
        json!({"time": "2023-11-14T22:13:20.133", "status": 200, "headers": {"set-cookie": ["a", "b"], "x-a": "1"},
               "body": "dGV4dA==", "transfer_encoding": "base64"})
    );
    let rest = ["direction", "weight", "metadata", "session_token", "user_id", "company_id", "blocked_by"];
    let rest: Vec<&Value> = rest.iter().map(|name| &event[name]).collect();
    let want = [
        json!("Incoming"),
        json!(1),
        json!({"kong": {"route_hosts": ["h.test"], "service_name": "s"}}),
        json!(Uuid::from_u128(6).to_string()),
        // Of `Basic`: the name.
        json!("x"),
        // Of the response.
        json!("1"),
        json!("rule-1"),
    ];
    assert_eq!(rest, want.iter().collect::<Vec<_>>());
}

#[test]
fn what_is_masked_is_not_told() {
    let config = config(json!({
        "request_header_masks": ["Authorization"], "response_header_masks": ["SET-COOKIE"], "request_query_masks": ["a"],
        "request_body_masks": ["pin"], "request_masks": ["old"], "response_masks": ["pin"],
    }));
    let mut record = full_record(figures());
    record.request_fields.push((b"Content-Type", b"application/json"));
    record.response_head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nContent-Type: application/problem+json\r\n\r\n";
    let request = br#"{"pin":1,"b":[{"pin":{},"c":1,"old":2}]}"#;
    let response = br#"[{"pin":"x","old":"stays"}]"#;
    let notes = [&request[..], response].concat();
    let event = told(&config, &record, &shipment(&notes, request.len(), 0));
    assert_eq!(event["request"]["uri"], "http://h.test:8000/p/x?a=*****&a=*****&d&e=");
    assert!(event["request"]["headers"].get("authorization").is_none());
    assert!(event["response"]["headers"].get("set-cookie").is_none());
    assert_eq!(event["request"]["body"], json!({"b": [{"c": 1}]}));
    assert_eq!(event["response"]["body"], json!([{"old": "stays"}]));
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_bodies_are_told_in_readable_form_within_a_bound() {
    let (json_type, gzip_coding) = (Some(&b"application/json"[..]), Some(&b"GZIP"[..]));
    let masks = Masks::default();
    let tell = |body: &[u8], kind, inflates| told_body(body, kind, gzip_coding, &masks, inflates);
    let small = gzip(br#"{"a":1}"#);
    assert_eq!(tell(&small, json_type, true), Some((json!({"a": 1}), "json")));
    assert_eq!(tell(&small, json_type, false), Some((STANDARD.encode(&small).into(), "base64")));
    assert_eq!(tell(&gzip(b"text"), None, true), Some(("dGV4dA==".into(), "base64")));
    assert_eq!(tell(b"\x1f\x8bcut", json_type, true), Some((STANDARD.encode(b"\x1f\x8bcut").into(), "base64")));
    let bomb = gzip(&vec![b' '; limits::SHIP_INFLATED_BYTES_MAX + 1]);
    assert!(bomb.len() < 10_000);
    assert_eq!(tell(&bomb, json_type, true), None);
    assert_eq!(told_body(b"{", json_type, None, &masks, true), Some(("ew==".into(), "base64")));
    assert_eq!(told_body(b"", json_type, None, &masks, true), None);
    let deep = "[".repeat(100_000);
    assert_eq!(told_body(deep.as_bytes(), json_type, None, &masks, true).map(|(_, encoding)| encoding), Some("base64"));
}

#[test]
fn calls_are_sampled_and_weighed() {
    let config = config(json!({}));
    let with_rate = |rate: u64, chance: u8| {
        config.governed.set(Governance::of(&json!({"sample_rate": rate}), &json!([])));
        let record = full_record(figures());
        let event = with_seen(&record, |seen| event(&config, seen, &shipment(b"", 0, 0), chance));
        event.map(|event| serde_json::from_slice::<Value>(&event).unwrap()["weight"].clone())
    };
    assert_eq!(with_rate(100, 99), Some(json!(1)));
    assert_eq!(with_rate(30, 29), Some(json!(3)));
    assert_eq!(with_rate(30, 30), None);
    assert_eq!(with_rate(0, 0), None);
}

#[test]
fn addresses_are_read_as_proxies_write_them() {
    for (value, want) in [
        ("1.2.3.4", Some("1.2.3.4")),
        (" 1.2.3.4:80 ", Some("1.2.3.4")),
        ("[::1]:80", Some("::1")),
        ("::1", Some("::1")),
        ("for=\"[2001:db8::1]:4711\";proto=http", Some("2001:db8::1")),
        ("unknown, for=10.0.0.1", Some("10.0.0.1")),
        ("", None),
        ("[", None),
        ("for=", None),
    ] {
        assert_eq!(first_address(value.as_bytes()).map(|ip| ip.to_string()).as_deref(), want, "{value}");
    }
}
