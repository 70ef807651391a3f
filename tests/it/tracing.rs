//! opentelemetry and zipkin: what collectors get, decoded, and what upstreams and clients are told.

use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::otlp;
use crate::harness::otlp::Span;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn collector() -> Peer {
    Peer::answering(OK)
}

fn url(peer: &Peer, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", peer.port)
}

fn ask(gateway: &Gateway, path: &str, fields: &str) -> crate::harness::client::Response {
    gateway.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: h.test:80\r\n{fields}\r\n"))
}

/// A gateway that traces everything, in front of an upstream.
fn traced(instrumentations: &str, upstream: &Peer, plugin: &str, config: Value) -> Gateway {
    let settings = [("tracing_instrumentations", instrumentations), ("tracing_sampling_rate", "1")];
    let gateway = Gateway::with(Driver::any(), &settings);
    gateway.proxy_to(upstream.port);
    gateway.create("/plugins", json!({"name": plugin, "config": config}));
    gateway
}

/// Batches of one go at once.
fn at_once() -> Value {
    json!({"max_batch_size": 1, "initial_retry_delay": 0.01, "max_retry_delay": 0.05})
}

#[track_caller]
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>()))
}

#[track_caller]
fn lie_within_their_parents(spans: &[Span]) {
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    for span in spans {
        assert!(span.begun_ns <= span.ended_ns, "{span:?}");
        if let Some(parent) = spans.iter().find(|parent| parent.id == span.parent) {
            assert!(parent.begun_ns <= span.begun_ns && span.ended_ns <= parent.ended_ns, "{span:?} in {parent:?}");
        }
    }
}

#[test]
fn a_request_becomes_a_trace_of_nested_spans() {
    let (upstream, sink) = (Peer::hello(), collector());
    let config = json!({"traces_endpoint": url(&sink, "/v1/traces"), "queue": at_once(), "headers": {"X-Key": "k"},
        "resource_attributes": {"service.name": "edge", "zone": "a"}, "http_response_header_for_traceid": "X-Trace-Id"});
    let gateway = traced("all", &upstream, "opentelemetry", config);
    gateway.create("/routes/r/plugins", json!({"name": "correlation-id"}));
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    let answer = ask(&gateway, "/a?b=c", &parent).must_be(200);
    assert_eq!(answer.header("x-trace-id"), Some(TRACE));
    let told = upstream.arrived();
    let post = sink.arrived();
    assert_eq!(post.line(), "POST /v1/traces HTTP/1.1");
    assert_eq!((post.header("content-type"), post.header("x-key")), (Some("application/x-protobuf"), Some("k")));
    let resource = otlp::items(&post.body).0;
    assert_eq!((resource["service.name"].as_str(), resource["zone"].as_str()), ("edge", "a"));
    let node_id = gateway.admin("GET", "/", None).json()["node_id"].clone();
    assert_eq!(Some(resource["service.instance.id"].as_str()), node_id.as_str());
    let spans = otlp::spans(&post.body);
    lie_within_their_parents(&spans);
    assert!(spans.iter().all(|span| span.trace == TRACE));
    let root = named(&spans, "kong");
    assert_eq!((root.parent.as_str(), root.kind, root.failed), (SPAN, 2, false));
    for (name, want) in [
        ("http.method", "GET"),
        ("http.url", "http://h.test:80/a?b=c"),
        ("http.host", "h.test:80"),
        ("http.scheme", "http"),
        ("http.flavor", "1.1"),
        ("http.client_ip", "127.0.0.1"),
        ("net.peer.ip", "127.0.0.1"),
        ("http.status_code", "200"),
        ("http.route", "/"),
    ] {
        assert_eq!(root.attributes.get(name).map(String::as_str), Some(want), "{name}");
    }
    assert_eq!(Some(root.attributes["kong.request.id"].as_str()), answer.header("x-kong-request-id"));
    let balancer = named(&spans, "kong.balancer");
    assert_eq!((balancer.kind, balancer.attributes["try_count"].as_str()), (3, "1"));
    assert_eq!(balancer.attributes["net.peer.port"], upstream.port.to_string());
    assert_eq!(told.header("traceparent"), Some(format!("00-{TRACE}-{}-01", balancer.id).as_str()));
    for name in
        ["kong.router", "kong.balancer", "kong.access.plugin.correlation-id", "kong.access.plugin.opentelemetry"]
    {
        assert_eq!(named(&spans, name).parent, root.id, "{name}");
    }
    // Kept on the same connection, in a trace of its own.
    ask(&gateway, "/second", "").must_be(200);
    let second = otlp::spans(&sink.arrived().body);
    assert_ne!(named(&second, "kong").trace, TRACE);
    assert_eq!(named(&second, "kong").parent, "");
    assert_eq!(sink.connections(), 1);
}

#[test]
fn failed_tries_have_spans_and_log_lines_of_their_own() {
    let (upstream, sink, logs) = (Peer::hello(), collector(), collector());
    let refused = Port::reserve();
    let config = json!({"traces_endpoint": url(&sink, "/t"), "logs_endpoint": url(&logs, "/l"), "queue": at_once()});
    let gateway = traced("request,balancer", &upstream, "opentelemetry", config);
    gateway.create("/services", json!({"name": "dead", "host": "127.0.0.1", "port": refused.number, "retries": 1}));
    gateway.create("/services/dead/routes", json!({"paths": ["/dead"]}));
    ask(&gateway, "/dead", "").must_be(502);
    let spans = otlp::spans(&sink.arrived().body);
    lie_within_their_parents(&spans);
    let tries: Vec<&Span> = spans.iter().filter(|span| span.name == "kong.balancer").collect();
    assert_eq!(tries.iter().map(|span| span.attributes["try_count"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(tries.iter().all(|span| span.failed && span.attributes["http.status_code"] == "502"));
    assert!(named(&spans, "kong").failed);
    assert_eq!(spans.len(), 3, "only what is instrumented");
    let lines = otlp::items(&logs.arrived().body).1;
    let texts: Vec<String> = lines.iter().map(|line| line.messages(5)[0].text(1)).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].contains(&format!("127.0.0.1:{}", refused.number)) && texts[2].contains("502"), "{texts:?}");
    let root = named(&spans, "kong");
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((hex(lines[0].bytes(9)), hex(lines[0].bytes(10))), (root.trace.clone(), root.id.clone()));
}

#[test]
fn what_never_reaches_the_plugin_is_traced_too() {
    let (upstream, sink) = (Peer::hello(), collector());
    let config = json!({"traces_endpoint": url(&sink, "/t"), "queue": at_once()});
    let gateway = traced("all", &upstream, "opentelemetry", config);
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    ask(&gateway, "/", "").must_be(401);
    let spans = otlp::spans(&sink.arrived().body);
    assert_eq!(named(&spans, "kong").attributes["http.status_code"], "401");
    assert_eq!(named(&spans, "kong.access.plugin.key-auth").parent, named(&spans, "kong").id);
}

#[test]
fn without_instrumentation_headers_pass_and_nothing_is_sent() {
    let (upstream, sink, file) = (Peer::hello(), collector(), Peer::answering(OK));
    let config = json!({"traces_endpoint": url(&sink, "/t"), "queue": at_once(), "sampling_rate": 1,
                        "header_type": "b3"});
    let gateway = traced("off", &upstream, "opentelemetry", config);
    gateway.create("/plugins", json!({"name": "http-log", "config": {"http_endpoint": url(&file, "/")}}));
    ask(&gateway, "/", &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n")).must_be(200);
    let told = upstream.arrived();
    assert_eq!(told.header("traceparent"), Some(format!("00-{TRACE}-{SPAN}-00").as_str()));
    assert_eq!((told.header("x-b3-traceid"), told.header("x-b3-sampled")), (Some(TRACE), Some("0")));
    let record: Value = serde_json::from_slice(&file.arrived().body).expect("a record");
    assert_eq!(record["trace_id"], json!({"w3c": TRACE, "b3": TRACE}));
    assert!(sink.arrived_by_now().is_empty());
}

#[test]
fn only_200_is_success_and_trouble_is_told_once() {
    let answers = AtomicUsize::new(0);
    let sink = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            match answers.fetch_add(1, Ordering::SeqCst) {
                0 => accepted.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
                1 => accepted.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
                2 => accepted.send("nonsense\r\n\r\n"),
                3 => return,
                _ => accepted.send(OK),
            }
        }
    });
    let upstream = Peer::hello();
    let config = json!({"traces_endpoint": url(&sink, "/t"), "queue": at_once()});
    let gateway = traced("all", &upstream, "opentelemetry", config);
    ask(&gateway, "/first", "").must_be(200);
    let first = otlp::spans(&sink.arrived().body);
    for _ in 0..4 {
        assert_eq!(otlp::spans(&sink.arrived().body)[0].id, first[0].id, "the same batch again");
    }
    eventually("the end of trouble is told", || {
        gateway.log().contains("sends again; 0 entries were lost").then_some(())
    });
    assert_eq!(gateway.log().matches("cannot send").count(), 1, "{}", gateway.log());
    ask(&gateway, "/second", "").must_be(200);
    assert!(named(&otlp::spans(&sink.arrived().body), "kong").attributes["http.url"].ends_with("/second"));
}

#[test]
fn zipkin_gets_the_spans_of_a_request() {
    let (upstream, sink) = (Peer::hello(), collector());
    let config = json!({"http_endpoint": url(&sink, "/api/v2/spans"), "sample_ratio": 1, "queue": at_once(),
        "local_service_name": "edge", "http_span_name": "method_path", "static_tags": [{"name": "zone", "value": "a"}],
        "http_response_header_for_traceid": "X-Trace-Id"});
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(upstream.port);
    gateway.create("/plugins", json!({"name": "zipkin", "config": config}));
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    let consumer = gateway.create("/consumers", json!({"username": "al"}));
    let key = gateway.create("/consumers/al/key-auth", json!({"key": "k"}));
    let fields = format!(
        "x-b3-traceid: {TRACE}\r\nx-b3-spanid: {SPAN}\r\nx-b3-sampled: 1\r\napikey: k\r\nZipkin-Tags: a=1; lc=forged\r\n"
    );
    let answer = ask(&gateway, "/a?b=c", &fields).must_be(200);
    assert_eq!(answer.header("x-trace-id"), Some(TRACE));
    let post = sink.arrived();
    assert_eq!((post.line(), post.header("content-type")), ("POST /api/v2/spans HTTP/1.1", Some("application/json")));
    let spans: Value = serde_json::from_slice(&post.body).expect("spans are JSON");
    let spans = spans.as_array().expect("an array");
    assert_eq!(spans.len(), 3);
    let span =
        |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let (request, call, a_try) = (span("GET /a"), span("GET /a (proxy)"), span("GET /a (balancer try 1)"));
    assert!(spans.iter().all(|span| span["traceId"] == TRACE && span["localEndpoint"]["serviceName"] == "edge"));
    assert_eq!((&request["id"], &request["kind"], request.get("parentId")), (&json!(SPAN), &json!("SERVER"), None));
    assert_eq!((&call["parentId"], &call["kind"]), (&json!(SPAN), &json!("CLIENT")));
    assert_eq!(a_try["parentId"], SPAN);
    let told = upstream.arrived();
    assert_eq!(told.header("x-b3-spanid"), call["id"].as_str());
    assert_eq!(told.header("x-b3-parentspanid"), Some(SPAN));
    let node_id = gateway.admin("GET", "/", None).json()["node_id"].clone();
    let tags = json!({"lc": "kong", "http.method": "GET", "http.host": "h.test", "http.path": "/a",
        "http.protocol": "HTTP/1.1", "http.status_code": "200", "kong.node.id": node_id, "zone": "a", "a": "1",
        "kong.consumer": consumer["id"], "kong.credential": key["id"]});
    assert_eq!(request["tags"], tags);
    assert_eq!(request["remoteEndpoint"]["ipv4"], "127.0.0.1");
    for span in [call, a_try] {
        assert_eq!((&span["tags"]["kong.service_name"], &span["tags"]["kong.route_name"]), (&json!("s"), &json!("r")));
        let remote = json!({"ipv4": "127.0.0.1", "port": upstream.port, "serviceName": "s"});
        assert_eq!(span["remoteEndpoint"], remote);
    }
    assert_eq!(
        (&call["tags"]["peer.hostname"], &a_try["tags"]["kong.balancer.try"]),
        (&json!("127.0.0.1"), &json!("1"))
    );
    let annotations = |span: &Value| -> Vec<(String, u64)> {
        let all = span["annotations"].as_array().expect("annotations").iter();
        all.map(|a| (a["value"].as_str().expect("a word").to_owned(), a["timestamp"].as_u64().expect("a time")))
            .collect()
    };
    let all = [annotations(request), annotations(call)].concat();
    let words: Vec<&str> = all.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["krs", "krf", "kas", "kaf", "khs", "khf", "kbs", "kbf"]);
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{all:?}");
    let times = |span: &Value| (span["timestamp"].as_u64().expect("µs"), span["duration"].as_u64().expect("µs"));
    let (begun, took) = times(request);
    for (child_begun, child_took) in [times(call), times(a_try)] {
        assert!(begun <= child_begun && child_begun + child_took <= begun + took);
    }
}

#[test]
fn zipkin_tells_of_failed_tries_and_of_what_is_not_sampled_nothing() {
    let (upstream, sink) = (Peer::hello(), collector());
    let refused = Port::reserve();
    let config = json!({"http_endpoint": url(&sink, "/s"), "sample_ratio": 0, "queue": at_once(),
                        "phase_duration_flavor": "tags", "include_credential": false, "default_service_name": "other"});
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(upstream.port);
    gateway.create("/plugins", json!({"name": "zipkin", "config": config}));
    gateway.create("/services", json!({"host": "127.0.0.1", "port": refused.number, "retries": 1, "name": null}));
    let services = gateway.admin("GET", "/services", None).json();
    let nameless =
        services["data"].as_array().expect("rows").iter().find(|row| row["name"].is_null()).expect("it is there");
    gateway.create("/routes", json!({"paths": ["/dead"], "service": {"id": nameless["id"]}}));
    ask(&gateway, "/", "").must_be(200);
    assert_eq!(upstream.arrived().header("x-b3-sampled"), Some("0"));
    ask(&gateway, "/dead", &format!("b3: {TRACE}-{SPAN}-1\r\n")).must_be(502);
    let spans: Value = serde_json::from_slice(&sink.arrived().body).expect("spans are JSON");
    let spans = spans.as_array().expect("an array");
    assert_eq!(
        spans.iter().map(|span| span["name"].as_str().unwrap_or_default()).collect::<Vec<_>>(),
        ["GET", "GET (proxy)", "GET (balancer try 1)", "GET (balancer try 2)"]
    );
    for (at, span) in spans[2..].iter().enumerate() {
        assert_eq!(span["tags"]["kong.balancer.try"], (at + 1).to_string());
        assert_eq!((&span["tags"]["error"], &span["tags"]["kong.balancer.state"]), (&json!("true"), &json!("failed")));
        assert_eq!(
            (&span["tags"]["http.status_code"], &span["remoteEndpoint"]["serviceName"]),
            (&json!("502"), &json!("other"))
        );
    }
    assert!(
        spans[0]["tags"]["kong.rewrite.duration_ms"].is_string()
            && spans[1]["tags"]["kong.access.duration_ms"].is_string()
    );
    assert!(spans.iter().all(|span| span.get("annotations").is_none()));
}

#[test]
fn while_zipkin_is_down_requests_pass_and_it_recovers_by_itself() {
    let (upstream, port) = (Peer::hello(), Port::reserve());
    let endpoint = format!("http://127.0.0.1:{}/s", port.number);
    let queue = json!({"max_entries": 4, "max_retry_delay": 0.05});
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(upstream.port);
    gateway.create(
        "/plugins",
        json!({"name": "zipkin",
        "config": {"http_endpoint": endpoint, "sample_ratio": 1, "queue": queue}}),
    );
    for _ in 0..12 {
        ask(&gateway, "/", "").must_be(200);
    }
    eventually("loss is told", || gateway.log().contains("the queue is full").then_some(()));
    let sink = Peer::scripted_at(port.number, |accepted| {
        while accepted.request().is_some() {
            accepted.send(OK)
        }
    });
    eventually("recovery is told", || gateway.log().contains("sends again").then_some(()));
    sink.arrived();
    assert_eq!(gateway.log().matches("cannot send").count(), 1, "{}", gateway.log());
}
