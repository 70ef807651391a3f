//! zipkin: spans of requests as JSON of Zipkin's second version (spec/plugins.md H.3).
//! Owns: which spans a record gives. An entry of the queue is all spans of one request.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::control::ship::World;
use crate::control::ship::http::Ask;
use crate::control::ship::http::Patience;
use crate::control::ship::http::Server;
use crate::control::ship::http_log::json_array;
use crate::control::ship::outlet::Way;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::control::ship::seen::Seen;
use crate::limits;
use crate::metrics::full_record::FullRecord;
use crate::metrics::full_record::Step;
use crate::plugins::trace::propagation::Traced;
use crate::plugins::zipkin::Zipkin;

pub fn way(config: &Zipkin, world: &World) -> Way {
    let keepalive = Duration::from_millis(limits::SHIP_COLLECTOR_IDLE_MS);
    let patience = Patience { connect: config.connect, send: config.send, read: config.read, keepalive };
    let deliver = Poster {
        server: Server::new(&config.endpoint, false, patience, world),
        target: config.endpoint.target(),
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
    };
    let config = config.clone();
    let rules = config.queue;
    let format = move |seen: &Seen<'_>, shipment: &crate::metrics::full_record::Shipment<'_>| {
        let traced = Traced::noted(shipment.numbers, shipment.bytes).filter(|traced| traced.sampled)?;
        let spans: Vec<String> = spans(seen, &traced, &config).iter().map(Value::to_string).collect();
        Some(Bytes::from(spans.join(",")))
    };
    Way { rules, deliver: Arc::new(deliver), format: Box::new(format) }
}

struct Poster {
    server: Server,
    target: String,
    headers: Vec<(String, String)>,
}

impl Deliver for Poster {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let ask = Ask { method: "POST", target: &self.target, headers: &self.headers, body: json_array(batch) };
            match self.server.ask(&ask).await?.as_u16() {
                200..300 => Ok(()),
                status => Err(format!("the server answered {status}")),
            }
        })
    }
}

/// When the phases of a request began and ended, microseconds since 1970.
struct Phases {
    rewrite: (u64, u64),
    access: (u64, u64),
    response_head: (u64, u64),
    response_body: (u64, u64),
}

impl Phases {
    fn of(record: &FullRecord<'_>) -> Self {
        let f = &record.figures;
        let ended = f.total_us;
        let begun = |of: fn(&Step) -> bool| record.timings.iter().filter(move |timing| of(&timing.step));
        let access = |step: &Step| matches!(step, Step::Access(_));
        let head = |step: &Step| matches!(step, Step::ResponseHead(_));
        let access_begun = begun(access).map(|timing| timing.begun_us).min().unwrap_or(0);
        let access_ended = begun(access).map(|timing| timing.begun_us + timing.took_us).max().unwrap_or(access_begun);
        let head_begun = begun(head).map(|timing| timing.begun_us).min();
        let head_begun = head_begun.or(f.first_byte_us).or(f.replied_us).unwrap_or(ended).max(access_ended);
        let head_ended = begun(head).map(|timing| timing.begun_us + timing.took_us).max().unwrap_or(head_begun);
        let head_ended = head_ended.max(head_begun);
        let at = |us: u64| f.started_unix_us + us.min(ended);
        Self {
            rewrite: (at(0), at(access_begun)),
            access: (at(access_begun), at(access_ended)),
            response_head: (at(head_begun), at(head_ended)),
            response_body: (at(head_ended), at(ended)),
        }
    }
}

/// A span in the making.
struct Span<'a> {
    traced: &'a Traced,
    config: &'a Zipkin,
    name: String,
    kind: &'static str,
    id: u64,
    parent: Option<u64>,
    begun_us: u64,
    ended_us: u64,
    remote: Option<(IpAddr, Option<u16>)>,
    remote_name: Option<&'a str>,
    tags: Map<String, Value>,
    annotations: Vec<Value>,
}

impl Span<'_> {
    fn tag(&mut self, name: &str, value: impl ToString) {
        self.tags.insert(name.to_owned(), Value::from(value.to_string()));
    }

    /// The times of a phase: its word in tags, its letter in annotations.
    fn phase(&mut self, word: &str, letter: char, (begun_us, ended_us): (u64, u64)) {
        if self.config.phases_as_tags {
            self.tag(&format!("kong.{word}.duration_ms"), (ended_us - begun_us) as f64 / 1000.0);
            return;
        }
        for (end, at_us) in [('s', begun_us), ('f', ended_us)] {
            self.annotations.push(json!({ "timestamp": at_us, "value": format!("k{letter}{end}") }));
        }
    }

    fn into_json(self) -> Value {
        let trace = self.traced.trace.text();
        let mut span = json!({
            "traceId": String::from_utf8_lossy(trace.bytes()),
            "name": self.name,
            "id": format!("{:016x}", self.id),
            "kind": self.kind,
            "timestamp": self.begun_us,
            "duration": self.ended_us.saturating_sub(self.begun_us),
            "localEndpoint": { "serviceName": *self.config.local_service_name },
            "tags": self.tags,
        });
        if let Some(parent) = self.parent {
            span["parentId"] = format!("{parent:016x}").into();
        }
        let mut remote = json!({});
        if let Some((ip, port)) = self.remote {
            let key = if ip.to_canonical().is_ipv4() { "ipv4" } else { "ipv6" };
            remote[key] = ip.to_canonical().to_string().into();
            if let Some(port) = port {
                remote["port"] = port.into();
            }
        }
        if let Some(name) = self.remote_name {
            remote["serviceName"] = name.into();
        }
        if remote.as_object().is_some_and(|remote| !remote.is_empty()) {
            span["remoteEndpoint"] = remote;
        }
        if !self.annotations.is_empty() {
            span["annotations"] = self.annotations.into();
        }
        span
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn spans(seen: &Seen<'_>, traced: &Traced, config: &Zipkin) -> Vec<Value> {
    let record = seen.record;
    let phases = Phases::of(record);
    let path = record.target.split(|&byte| byte == b'?').next().map(lossy).unwrap_or_default();
    let method = lossy(record.method);
    let name = if config.names_path { format!("{method} {path}") } else { method.clone() };
    let mut spans = vec![request_span(seen, traced, config, &phases, (&name, &method, &path))];
    if seen.route.is_some() {
        let mut call = child(seen, traced, config, format!("{name} (proxy)"), traced.call);
        (call.begun_us, call.ended_us) = (phases.access.0, phases.response_body.1);
        call.remote = record.tries.last().map(|a_try| remote(a_try.addr));
        if let Some(host) = seen.service.as_ref().and_then(|service| service.text("host")) {
            call.tag("peer.hostname", host);
        }
        call.phase("access", 'a', phases.access);
        call.phase("header_filter", 'h', phases.response_head);
        call.phase("body_filter", 'b', phases.response_body);
        spans.push(call.into_json());
    }
    for (at, a_try) in record.tries.iter().enumerate() {
        let mut span = child(seen, traced, config, format!("{name} (balancer try {})", at + 1), fastrand::u64(1..));
        let (begun_us, ended_us) = (phases.rewrite.0, phases.response_body.1);
        span.begun_us = a_try.started_unix_us.clamp(begun_us, ended_us);
        span.ended_us = (a_try.started_unix_us + a_try.took_us).clamp(span.begun_us, ended_us);
        span.remote = Some(remote(a_try.addr));
        span.tag("kong.balancer.try", at + 1);
        if a_try.failed {
            span.tag("error", true);
            span.tag("kong.balancer.state", "failed");
            span.tag("http.status_code", a_try.status);
        }
        spans.push(span.into_json());
    }
    spans
}

fn remote(addr: SocketAddr) -> (IpAddr, Option<u16>) {
    (addr.ip(), Some(addr.port()))
}

fn request_span(
    seen: &Seen<'_>,
    traced: &Traced,
    config: &Zipkin,
    phases: &Phases,
    (name, method, path): (&str, &str, &str),
) -> Value {
    let record = seen.record;
    let f = &record.figures;
    let mut span = Span {
        traced,
        config,
        name: name.to_owned(),
        kind: "SERVER",
        id: traced.span,
        parent: traced.parent,
        begun_us: phases.rewrite.0,
        ended_us: phases.response_body.1,
        remote: Some((f.client_ip, None)),
        remote_name: None,
        tags: Map::new(),
        annotations: Vec::new(),
    };
    for (tag, value) in record.request_field(&config.tags_header).into_iter().flat_map(header_tags) {
        span.tag(&tag, value);
    }
    for (tag, value) in &config.static_tags {
        span.tag(tag, value);
    }
    // The plugin's own win over whatever a client sends.
    span.tag("lc", "kong");
    span.tag("http.method", method);
    span.tag("http.host", lossy(record.host));
    span.tag("http.path", path);
    span.tag("http.protocol", lossy(record.protocol));
    span.tag("http.status_code", f.status);
    span.tag("kong.node.id", &seen.node.id);
    if let Some(consumer) = f.consumer {
        span.tag("kong.consumer", consumer);
    }
    if let Some(credential) = f.credential.filter(|_| config.include_credential) {
        span.tag("kong.credential", credential);
    }
    span.phase("rewrite", 'r', phases.rewrite);
    span.into_json()
}

/// The tags of `a=1;b=2`.
fn header_tags(value: &[u8]) -> Vec<(String, String)> {
    let pairs = value.split(|&byte| byte == b';').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((lossy(pair[..at].trim_ascii()), lossy(pair[at + 1..].trim_ascii())))
    });
    pairs.filter(|(name, _)| !name.is_empty()).collect()
}

/// A span of what the gateway does for a request, with service and route.
fn child<'a>(seen: &'a Seen<'_>, traced: &'a Traced, config: &'a Zipkin, name: String, id: u64) -> Span<'a> {
    let service_name = seen.service.as_ref().and_then(|service| service.text("name"));
    let mut span = Span {
        traced,
        config,
        name,
        kind: "CLIENT",
        id,
        parent: Some(traced.span),
        begun_us: 0,
        ended_us: 0,
        remote: None,
        remote_name: service_name.or(config.default_service_name.as_deref()),
        tags: Map::new(),
        annotations: Vec::new(),
    };
    for (entity, tag) in [(&seen.service, "kong.service"), (&seen.route, "kong.route")] {
        let Some(entity) = entity else { continue };
        if let Some(id) = entity.text("id") {
            span.tag(tag, id);
        }
        if let Some(name) = entity.text("name") {
            span.tag(&format!("{tag}_name"), name);
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_a_header_are_pairs() {
        let pairs = header_tags(b"a=1; b = x=y;;=z;c");
        let want = [("a", "1"), ("b", "x=y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, want);
    }
}
