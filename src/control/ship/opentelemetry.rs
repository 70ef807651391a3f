//! opentelemetry: spans and log lines of requests over OTLP/HTTP (spec/plugins.md H.2).
//! Owns: which spans a record gives, and the request that carries them. Always: a span lies within its parent's time.
//!
//! An entry of the queue is one request with all its spans and log lines.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::Mutex;

use hyper::body::Bytes;

use crate::config::Instrumented;
use crate::control::ship::World;
use crate::control::ship::http::Ask;
use crate::control::ship::http::Patience;
use crate::control::ship::http::Server;
use crate::control::ship::outlet::Way;
use crate::control::ship::protobuf::Message;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::control::ship::seen::Seen;
use crate::limits;
use crate::metrics::full_record::Step;
use crate::plugins::PLUGINS;
use crate::plugins::endpoint::Endpoint;
use crate::plugins::opentelemetry::Collector;
use crate::plugins::trace::propagation::Traced;

/// Who made the spans, as collectors show it.
const SCOPE: (&str, &str) = ("kong-internal", "0.1.0");
const SPAN_KINDS: (u64, u64, u64) = (1, 2, 3);
const STATUS_ERROR: u64 = 2;
const SEVERITY_ERROR: u64 = 17;

pub fn way(config: &Collector, world: &World) -> Way {
    let patience = Patience { connect: config.connect, send: config.send, read: config.read, keepalive: IDLE };
    let server = |endpoint: &Endpoint| (Server::new(endpoint, false, patience, world), endpoint.target());
    let mut headers = config.headers.clone();
    headers.push(("Content-Type".to_owned(), "application/x-protobuf".to_owned()));
    let deliver = Exporter {
        traces: config.traces.as_ref().map(server),
        logs: config.logs.as_ref().map(server),
        headers,
        resource: resource(&config.attributes, &world.node_id),
        has_traces: Mutex::default(),
    };
    let (instrumented, has_logs) = (world.instrumented, config.logs.is_some());
    let format = move |seen: &Seen<'_>, shipment: &crate::metrics::full_record::Shipment<'_>| {
        let traced = Traced::noted(shipment.numbers, shipment.bytes)?;
        let spans = if traced.sampled { spans(seen, &traced, instrumented) } else { Vec::new() };
        let logs = if has_logs { logs(seen, &traced) } else { Vec::new() };
        if spans.is_empty() && logs.is_empty() {
            return None;
        }
        let length = (spans.len() as u32).to_le_bytes();
        Some(Bytes::from([&length[..], &spans, &logs].concat()))
    };
    Way { rules: config.queue, deliver: Arc::new(deliver), format: Box::new(format) }
}

const IDLE: std::time::Duration = std::time::Duration::from_millis(limits::SHIP_COLLECTOR_IDLE_MS);

struct Exporter {
    traces: Option<(Server, String)>,
    logs: Option<(Server, String)>,
    headers: Vec<(String, String)>,
    /// The fields of a resource.
    resource: Vec<u8>,
    /// The first entry of a batch whose traces have arrived and whose logs have not: a retry sends only these.
    has_traces: Mutex<Option<Bytes>>,
}

impl Deliver for Exporter {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let (spans, logs): (Vec<_>, Vec<_>) = batch.iter().filter_map(|entry| split(entry)).unzip();
            let same = |entry: &Bytes| batch.first().is_some_and(|first| first.as_ptr() == entry.as_ptr());
            let arrived = self.has_traces.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            if !arrived.as_ref().is_some_and(same) {
                self.post(&self.traces, spans.concat()).await?;
            }
            let posted = self.post(&self.logs, logs.concat()).await;
            if posted.is_err() {
                let mut arrived = self.has_traces.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *arrived = batch.first().cloned();
            }
            posted
        })
    }
}

/// Spans and log records of an entry.
fn split(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = entry.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl Exporter {
    /// Sends what there is; traces and logs stand in the same places of their requests.
    async fn post(&self, to: &Option<(Server, String)>, items: Vec<u8>) -> Result<(), String> {
        let Some((server, target)) = to.as_ref().filter(|_| !items.is_empty()) else { return Ok(()) };
        let mut request = Message::default();
        request.message(1, |of_resource| {
            of_resource.bytes(1, &self.resource);
            of_resource.message(2, |of_scope| {
                of_scope.message(1, |scope| {
                    scope.bytes(1, SCOPE.0.as_bytes());
                    scope.bytes(2, SCOPE.1.as_bytes());
                });
                of_scope.fields(&items);
            });
        });
        let body = Bytes::from(request.into_bytes());
        let status = server.ask(&Ask { method: "POST", target, headers: &self.headers, body }).await?;
        match status.as_u16() {
            200 => Ok(()),
            status => Err(format!("the collector answered {status}")),
        }
    }
}

fn resource(given: &[(String, String)], node_id: &str) -> Vec<u8> {
    let usual =
        [("service.name", "kong"), ("service.instance.id", node_id), ("service.version", env!("CARGO_PKG_VERSION"))];
    let mut fields = Message::default();
    for (name, value) in usual {
        if given.iter().all(|(own, _)| own != name) {
            attribute(&mut fields, 1, name, &Value::Text(value.into()));
        }
    }
    for (name, value) in given {
        attribute(&mut fields, 1, name, &Value::Text(value.into()));
    }
    fields.into_bytes()
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
}

fn attribute(message: &mut Message, field: u64, name: &str, value: &Value<'_>) {
    message.message(field, |pair| {
        pair.bytes(1, name.as_bytes());
        pair.message(2, |any| match value {
            Value::Text(text) => any.bytes(1, text.as_bytes()),
            Value::Number(number) => any.number(3, *number),
        });
    });
}

/// One span before it is written.
struct Span<'a> {
    name: Cow<'a, str>,
    kind: u64,
    id: u64,
    parent: Option<u64>,
    begun_us: u64,
    ended_us: u64,
    failed: bool,
    attributes: Vec<(&'static str, Value<'a>)>,
}

fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The spans of a request, as fields of the message that holds spans.
fn spans(seen: &Seen<'_>, traced: &Traced, on: Instrumented) -> Vec<u8> {
    let record = seen.record;
    let begun_us = record.figures.started_unix_us;
    let ended_us = begun_us + record.figures.total_us;
    let (internal, _, client) = SPAN_KINDS;
    let mut spans = Vec::new();
    if on.request() {
        spans.push(request_span(seen, traced));
    }
    // Without a span of the request its parts belong to the client's.
    let parent = if on.request() { Some(traced.span) } else { traced.parent };
    for timing in &record.timings {
        let name: Cow<'_, str> = match timing.step {
            Step::Router if on.router() => "kong.router".into(),
            Step::Access(kind) if on.plugin_access() => format!("kong.access.plugin.{}", plugin_name(kind)).into(),
            Step::ResponseHead(kind) if on.plugin_header_filter() => {
                format!("kong.header_filter.plugin.{}", plugin_name(kind)).into()
            }
            _ => continue,
        };
        let begun_us = begun_us + timing.begun_us;
        let ended_us = begun_us + timing.took_us;
        let attributes = Vec::new();
        spans.push(Span { name, kind: internal, id: new_id(), parent, begun_us, ended_us, failed: false, attributes });
    }
    let host = seen.service.as_ref().and_then(|service| service.text("host")).unwrap_or_default();
    for (at, a_try) in record.tries.iter().enumerate().filter(|_| on.balancer()) {
        let is_last = at + 1 == record.tries.len();
        let mut attributes = vec![
            ("try_count", Value::Number(at as u64 + 1)),
            ("net.peer.ip", Value::Text(a_try.addr.ip().to_string().into())),
            ("net.peer.port", Value::Number(u64::from(a_try.addr.port()))),
            ("net.peer.name", Value::Text(host.into())),
        ];
        if a_try.status != 0 {
            attributes.push(("http.status_code", Value::Number(u64::from(a_try.status))));
        }
        spans.push(Span {
            name: "kong.balancer".into(),
            kind: client,
            // The upstream was told this span, and it answers for the last try.
            id: if is_last { traced.call } else { new_id() },
            parent,
            begun_us: a_try.started_unix_us,
            ended_us: a_try.started_unix_us + a_try.took_us,
            failed: a_try.failed,
            attributes,
        });
    }
    let mut fields = Message::default();
    for mut span in spans {
        span.begun_us = span.begun_us.clamp(begun_us, ended_us);
        span.ended_us = span.ended_us.clamp(span.begun_us, ended_us);
        fields.message(2, |message| write(message, traced, &span));
    }
    fields.into_bytes()
}

fn request_span<'a>(seen: &Seen<'a>, traced: &Traced) -> Span<'a> {
    let record = seen.record;
    let figures = &record.figures;
    let host = lossy(record.request_field("host").unwrap_or(record.host));
    let flavor = record.protocol.strip_prefix(b"HTTP/").unwrap_or(record.protocol);
    let (scheme, target) = (lossy(record.scheme), lossy(record.target));
    let text = |text: &'a [u8]| Value::Text(lossy(text));
    let mut attributes = vec![
        ("http.method", text(record.method)),
        ("http.url", Value::Text(format!("{scheme}://{host}{target}").into())),
        ("http.host", Value::Text(host.into_owned().into())),
        ("http.scheme", Value::Text(scheme)),
        ("http.flavor", text(flavor)),
        ("http.client_ip", Value::Text(figures.client_ip.to_canonical().to_string().into())),
        ("net.peer.ip", Value::Text(figures.peer_ip.to_canonical().to_string().into())),
        ("kong.request.id", Value::Text(lossy(&figures.request_id).into_owned().into())),
        ("http.status_code", Value::Number(u64::from(figures.status))),
    ];
    if let Some(route) = &seen.route {
        let path = route.value["paths"][0].as_str().unwrap_or_default();
        attributes.push(("http.route", Value::Text(path.to_owned().into())));
    }
    Span {
        name: "kong".into(),
        kind: SPAN_KINDS.1,
        id: traced.span,
        parent: traced.parent,
        begun_us: figures.started_unix_us,
        ended_us: figures.started_unix_us + figures.total_us,
        failed: figures.status >= 500,
        attributes,
    }
}

/// Name of the plugin at a place in the table.
fn plugin_name(kind: u16) -> &'static str {
    PLUGINS.get(usize::from(kind)).map_or("", |kind| kind.schema.name)
}

fn new_id() -> u64 {
    fastrand::u64(1..)
}

fn write(message: &mut Message, traced: &Traced, span: &Span<'_>) {
    message.bytes(1, &traced.trace.id.to_be_bytes());
    message.bytes(2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.bytes(5, span.name.as_bytes());
    message.number(6, span.kind);
    message.fixed(7, span.begun_us * 1000);
    message.fixed(8, span.ended_us * 1000);
    for (name, value) in &span.attributes {
        attribute(message, 9, name, value);
    }
    if span.failed {
        message.message(15, |status| status.number(3, STATUS_ERROR));
    }
}

/// What went wrong with a request, as log records: every failed try, and an answer of the gateway's own that says so.
fn logs(seen: &Seen<'_>, traced: &Traced) -> Vec<u8> {
    let record = seen.record;
    let figures = &record.figures;
    let mut lines: Vec<(u64, String)> = record
        .tries
        .iter()
        .filter(|a_try| a_try.failed)
        .map(|a_try| {
            let at_us = a_try.started_unix_us + a_try.took_us;
            (at_us, format!("upstream {} failed with {}", a_try.addr, a_try.status))
        })
        .collect();
    if figures.status >= 500 && !figures.from_upstream {
        let target = lossy(record.target);
        lines.push((figures.started_unix_us + figures.total_us, format!("answered {} to {target}", figures.status)));
    }
    let mut fields = Message::default();
    for (at_us, line) in lines {
        fields.message(2, |message| {
            message.fixed(1, at_us * 1000);
            message.number(2, SEVERITY_ERROR);
            message.bytes(3, b"ERROR");
            message.message(5, |any| any.bytes(1, line.as_bytes()));
            attribute(message, 6, "request.id", &Value::Text(lossy(&figures.request_id)));
            message.bytes(9, &traced.trace.id.to_be_bytes());
            message.bytes(10, &traced.span.to_be_bytes());
            message.fixed(11, at_us * 1000);
        });
    }
    fields.into_bytes()
}
