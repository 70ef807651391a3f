//! A finished request as the JSON object that logging plugins send (spec/plugins.md F.2).
//! Never: tells what proves who a client is: `Authorization` and `Proxy-Authorization` are blanked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde::Serialize;
use serde_json::Value;

use crate::control::ship::seen::Seen;
use crate::metrics::full_record::FullRecord;
use crate::metrics::full_record::Try;

/// The one workspace that there is.
pub const WORKSPACE: &str = "2f8c9f6e-6d5f-5a3b-9c1e-0d7a5b8e4c21";
pub const WORKSPACE_NAME: &str = "default";

/// In the order of the specification.
#[derive(Serialize)]
struct LogRecord<'a> {
    request: Request<'a>,
    upstream_uri: Cow<'a, str>,
    upstream_status: String,
    response: Response<'a>,
    latencies: Latencies,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<Vec<ATry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<Entity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a Value>,
    client_ip: String,
    started_at: u64,
    source: &'static str,
    workspace: &'static str,
    workspace_name: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    trace_id: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Request<'a> {
    id: Cow<'a, str>,
    uri: Cow<'a, str>,
    url: String,
    querystring: Named<'a>,
    method: Cow<'a, str>,
    size: u64,
    headers: Named<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    headers: Named<'a>,
    size: u64,
}

/// Milliseconds.
#[derive(Serialize)]
pub struct Latencies {
    pub request: u64,
    pub kong: u64,
    /// −1 if no upstream answered.
    pub proxy: i64,
    pub receive: u64,
}

#[derive(Serialize)]
struct Entity {
    id: String,
}

#[derive(Serialize)]
struct ATry {
    balancer_start: u64,
    balancer_start_ns: u64,
    balancer_latency: u64,
    balancer_latency_ns: u64,
    ip: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

type Named<'a> = BTreeMap<Cow<'a, str>, Given<'a>>;

/// What stands under one name.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Given<'a> {
    One(Single<'a>),
    Several(Vec<Single<'a>>),
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Single<'a> {
    Text(Cow<'a, str>),
    /// An argument without a value is `true`.
    Valueless(bool),
}

/// The record as compact JSON.
pub fn json(seen: &Seen<'_>) -> Vec<u8> {
    // Maps have text keys and numbers are finite: nothing of it can fail.
    serde_json::to_vec(&record(seen)).unwrap_or_default()
}

fn record<'a>(seen: &'a Seen<'_>) -> LogRecord<'a> {
    let r = seen.record;
    let f = &r.figures;
    let tried = r.tries.iter().map(|a_try| a_try.status).filter(|status| *status != 0);
    LogRecord {
        request: request(r),
        upstream_uri: lossy(r.upstream_target),
        upstream_status: tried.map(|status| status.to_string()).collect::<Vec<_>>().join(", "),
        response: Response { status: f.status, headers: headers(r.response_fields()), size: f.response_bytes },
        latencies: latencies(r),
        tries: seen.route.is_some().then(|| r.tries.iter().map(a_try).collect()),
        authenticated_entity: f.credential.map(|id| Entity { id: id.to_string() }),
        route: seen.route.as_deref().map(|known| &known.value),
        service: seen.service.as_deref().map(|known| &known.value),
        consumer: seen.consumer.as_deref().map(|known| &known.value),
        client_ip: f.client_ip.to_canonical().to_string(),
        started_at: f.started_unix_us / 1000,
        source: if f.from_upstream { "upstream" } else { "kong" },
        workspace: WORKSPACE,
        workspace_name: WORKSPACE_NAME,
        trace_id: trace_ids(r.trace_ids),
        correlation_id: (!r.correlation_id.is_empty()).then(|| lossy(r.correlation_id)),
    }
}

fn request<'a>(r: &'a FullRecord<'_>) -> Request<'a> {
    let uri = lossy(r.target);
    // A request without a Host came to the address of the listener, which the target does not tell.
    let host = if r.host.is_empty() { Cow::Borrowed("localhost") } else { lossy(r.host) };
    Request {
        id: lossy(&r.figures.request_id),
        url: format!("{}://{host}:{}{uri}", lossy(r.scheme), r.figures.port),
        querystring: arguments(r.target),
        method: lossy(r.method),
        size: r.figures.request_bytes,
        headers: headers(r.request_fields.iter().copied()),
        uri,
    }
}

pub fn latencies(r: &FullRecord<'_>) -> Latencies {
    let f = &r.figures;
    let begun_us = f.handed_over_us.or(f.replied_us).unwrap_or(f.total_us);
    let proxy_us = f.handed_over_us.zip(f.first_byte_us).map(|(handed, first)| first.saturating_sub(handed));
    let answered_us = f.first_byte_us.or(f.replied_us).unwrap_or(f.total_us);
    Latencies {
        request: f.total_us / 1000,
        kong: begun_us / 1000,
        proxy: proxy_us.map_or(-1, |us| (us / 1000) as i64),
        receive: f.total_us.saturating_sub(answered_us) / 1000,
    }
}

fn a_try(t: &Try) -> ATry {
    ATry {
        balancer_start: t.started_unix_us / 1000,
        balancer_start_ns: t.started_unix_us * 1000,
        balancer_latency: t.chosen_us / 1000,
        balancer_latency_ns: t.chosen_us * 1000,
        ip: t.addr.ip().to_string(),
        port: t.addr.port(),
        state: t.failed.then_some("failed"),
        code: t.failed.then_some(t.status),
    }
}

/// Names in lower case; one that stands several times has a list.
fn headers<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Named<'a> {
    let mut named = Named::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let is_secret = matches!(name.as_str(), "authorization" | "proxy-authorization");
        let value = if is_secret { Cow::Borrowed("REDACTED") } else { lossy(value) };
        add(&mut named, name.into(), Single::Text(value));
    }
    named
}

/// The decoded arguments of a target.
fn arguments(target: &[u8]) -> Named<'_> {
    let mut named = Named::new();
    let Some(at) = target.iter().position(|&byte| byte == b'?') else { return named };
    for word in target[at + 1..].split(|&byte| byte == b'&').filter(|word| !word.is_empty()) {
        let mut parts = word.splitn(2, |&byte| byte == b'=');
        let name = unescaped(parts.next().unwrap_or_default());
        let value = parts.next().map_or(Single::Valueless(true), |value| Single::Text(unescaped(value)));
        if !name.is_empty() {
            add(&mut named, name, value);
        }
    }
    named
}

fn unescaped(text: &[u8]) -> Cow<'_, str> {
    if text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        return Cow::Owned(percent_decode(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode(text).decode_utf8_lossy()
}

fn add<'a>(named: &mut Named<'a>, name: Cow<'a, str>, value: Single<'a>) {
    match named.remove(&name) {
        None => named.insert(name, Given::One(value)),
        Some(Given::One(first)) => named.insert(name, Given::Several(vec![first, value])),
        Some(Given::Several(mut all)) => {
            all.push(value);
            named.insert(name, Given::Several(all))
        }
    };
}

/// Of `format=id,format=id`.
fn trace_ids(text: &[u8]) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    let pairs = text.split(|&byte| byte == b',').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((lossy(&pair[..at]), lossy(&pair[at + 1..])))
    });
    pairs.collect()
}

fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::control::ship::seen::Entities;
    use crate::control::ship::seen::NodeFacts;
    use crate::metrics::full_record::Figures;
    use serde_json::json;
    use std::net::Ipv4Addr;
    use uuid::Uuid;

    pub fn figures() -> Figures {
        Figures {
            started_unix_us: 1_700_000_000_123_456,
            total_us: 9_900,
            handed_over_us: Some(1_100),
            first_byte_us: Some(5_200),
            replied_us: None,
            request_bytes: 80,
            response_bytes: 300,
            body_bytes: 7,
            status: 200,
            port: 8000,
            request_id: [b'f'; 32],
            client_ip: Ipv4Addr::LOCALHOST.into(),
            peer_ip: Ipv4Addr::LOCALHOST.into(),
            from_upstream: true,
            balanced: true,
            consumer: Some(Uuid::from_u128(5)),
            credential: Some(Uuid::from_u128(6)),
        }
    }

    pub fn full_record(figures: Figures) -> FullRecord<'static> {
        let a_try = Try {
            addr: "127.0.0.1:80".parse().expect("an address"),
            started_unix_us: 5_000,
            chosen_us: 6,
            connect_us: Some(0),
            took_us: 7,
            whole_us: 8,
            status: 200,
            failed: false,
        };
        FullRecord {
            figures,
            method: b"GET",
            scheme: b"http",
            host: b"h.test",
            protocol: b"HTTP/1.1",
            target: b"/p/x?a=1&a=b%20c&d&e=",
            upstream_target: b"/x?a=1",
            response_head: b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-A: 1\r\n\r\n",
            route: br#"{"id":"00000000-0000-0000-0000-000000000001","name":"r","paths":null}"#,
            service: br#"{"id":"00000000-0000-0000-0000-000000000002","name":"s","host":"up.test"}"#,
            correlation_id: b"c1",
            trace_ids: b"w3c=0af7",
            request_fields: vec![(b"Host", b"h.test"), (b"Authorization", b"Basic eA=="), (b"X-\xff", b"1")],
            tries: vec![Try { status: 502, failed: true, ..a_try }, a_try],
            timings: Vec::new(),
            shipments: Vec::new(),
        }
    }

    pub fn with_seen<T>(record: &FullRecord<'_>, use_it: impl FnOnce(&Seen<'_>) -> T) -> T {
        let node = NodeFacts { id: "node".to_owned(), hostname: "host".to_owned() };
        let consumer = |_| Some(r#"{"id":"00000000-0000-0000-0000-000000000005","username":"al"}"#.into());
        use_it(&Seen::new(record, &mut Entities::default(), consumer, &node))
    }

    fn logged(record: &FullRecord<'_>) -> Value {
        serde_json::from_slice(&with_seen(record, |seen| seen.json())).expect("a record is JSON")
    }

    #[test]
    fn a_record_tells_all_that_the_specification_names() {
        let got = logged(&full_record(figures()));
        let f = "f".repeat(32);
        assert_eq!(
            got["request"],
            json!({"id": f, "uri": "/p/x?a=1&a=b%20c&d&e=", "url": "http://h.test:8000/p/x?a=1&a=b%20c&d&e=",
                   "querystring": {"a": ["1", "b c"], "d": true, "e": ""}, "method": "GET", "size": 80,
                   "headers": {"host": "h.test", "authorization": "REDACTED", "x-\u{fffd}": "1"}})
        );
        assert_eq!(
            got["response"],
            json!({"status": 200, "headers": {"set-cookie": ["a", "b"], "x-a": "1"}, "size": 300})
        );
        assert_eq!(got["latencies"], json!({"request": 9, "kong": 1, "proxy": 4, "receive": 4}));
        assert_eq!((&got["upstream_uri"], &got["upstream_status"]), (&json!("/x?a=1"), &json!("502, 200")));
        assert_eq!(got["tries"][0]["state"], "failed");
        assert_eq!(got["tries"][1].get("code"), None);
        assert_eq!(got["authenticated_entity"], json!({"id": Uuid::from_u128(6).to_string()}));
        assert_eq!(got["route"], json!({"id": Uuid::from_u128(1).to_string(), "name": "r"}));
        assert_eq!(got["consumer"]["username"], "al");
        assert_eq!((&got["source"], &got["workspace_name"]), (&json!("upstream"), &json!("default")));
        assert_eq!((&got["trace_id"], &got["correlation_id"]), (&json!({"w3c": "0af7"}), &json!("c1")));
        assert_eq!(got["started_at"], 1_700_000_000_123u64);
    }

    #[test]
    fn an_answer_of_the_gateway_has_no_proxy_latency_and_without_a_route_no_tries() {
        let own = Figures {
            handed_over_us: None,
            first_byte_us: None,
            replied_us: Some(2_000),
            from_upstream: false,
            consumer: None,
            credential: None,
            ..figures()
        };
        let unmatched = FullRecord { route: b"", service: b"", tries: Vec::new(), ..full_record(own) };
        let got = logged(&unmatched);
        assert_eq!(got["latencies"], json!({"request": 9, "kong": 2, "proxy": -1, "receive": 7}));
        assert_eq!((&got["source"], &got["upstream_status"]), (&json!("kong"), &json!("")));
        for absent in ["tries", "route", "service", "consumer", "authenticated_entity"] {
            assert_eq!(got.get(absent), None, "{absent}");
        }
        let matched = FullRecord { tries: Vec::new(), ..full_record(own) };
        assert_eq!(logged(&matched)["tries"], json!([]));
    }
}
