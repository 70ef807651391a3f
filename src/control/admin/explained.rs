//! An explanation as JSON: the route and why, those that came near, the plugins, the upstream and its peers, the answer.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::balancer::Peer;
use crate::control::store::tables::Tables;
use crate::entity::find;
use crate::http::status::reason_phrase;
use crate::plugins::PLUGINS;
use crate::plugins::chain::Scope;
use crate::router::examine::Condition;
use crate::router::examine::Examined;
use crate::router::examine::examine;
use crate::router::gates;
use crate::router::gates::Gate;
use crate::router::priority::Standing;
use crate::state::explain::Access;
use crate::state::explain::Explained;
use crate::state::explain::Forwarded;
use crate::state::explain::Step;
use crate::state::peers::PeerSet;
use crate::state::request::BadAim;
use crate::state::request::NO_ROUTE;
use crate::state::request::NO_SERVICE;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;

/// A route that did not win.
pub struct Other {
    pub route: Arc<RouteSpec>,
    pub examined: Examined,
    /// `false`: its service is disabled.
    pub listed: bool,
}

impl Other {
    /// Less is nearer: fewer conditions failed, then tried earlier.
    pub fn distance(&self) -> impl Ord + use<> {
        let standing = self.examined.standing.map(|standing| Reverse(Reverse(standing.order())));
        (self.examined.failed.len() + usize::from(!self.listed), standing.is_none(), standing, self.route.id)
    }
}

/// The answer about a request that is refused as it stands.
pub fn refused(bad: BadAim) -> Value {
    json!({ "route": null, "candidates": [], "plugins": [], "service": null, "upstream": null, "balancer": null,
            "answer": gateway_answer(bad.status, bad.reason) })
}

/// The answer about any other.
pub fn body(found: &Explained, others: &[Other], tables: &Tables) -> Value {
    let winner = found.matched.as_ref().map(|(route, _)| {
        let examined = found.arrived.query(|query| examine(&route.matchers, query));
        (&**route, examined)
    });
    let standing = winner.as_ref().and_then(|(_, examined)| examined.standing);
    let candidates: Vec<Value> = others.iter().map(|other| candidate(found, other, standing)).collect();
    let plugins: Vec<Value> = found.plugins.iter().map(|step| plugin(step, tables)).collect();
    let upstream = found.forwarded.as_ref().and_then(upstream);
    json!({
        "version": found.version,
        "request": request(found),
        "route": winner.as_ref().map(|(spec, examined)| route(found, spec, examined)),
        "candidates": candidates,
        "plugins": plugins,
        "service": found.service.as_deref().map(service),
        "upstream": upstream,
        "balancer": found.forwarded.as_ref().map(balancer),
        "answer": answer(found),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn document(spec: &RouteSpec) -> Map<String, Value> {
    serde_json::from_str(&spec.document).unwrap_or_default()
}

/// As the router sees it.
fn request(found: &Explained) -> Value {
    let arrived = &found.arrived;
    arrived.query(|query| {
        json!({ "method": text(query.method), "scheme": if query.https { "https" } else { "http" },
                "host": text(query.host), "path": text(query.path), "client_ip": query.source.ip().to_string(),
                "port": query.port, "sni": query.sni.map(text) })
    })
}

/// What the request has where a route makes a condition.
fn given(found: &Explained, condition: &Condition) -> Value {
    found.arrived.query(|query| match condition {
        Condition::Protocols => json!(if query.https { "https" } else { "http" }),
        Condition::Snis => json!(query.sni.map(text)),
        Condition::Sources => json!(query.source.to_string()),
        Condition::Destinations => json!(format!("{}:{}", query.destination, query.port)),
        Condition::Methods => json!(text(query.method)),
        Condition::Hosts => json!(text(query.host)),
        Condition::Paths => json!(text(query.path)),
        Condition::Expression => Value::Null,
        Condition::Header(name) => {
            let mut values = Vec::new();
            query.headers.for_each(name, &mut |value| {
                values.push(text(value));
                false
            });
            json!(values)
        }
    })
}

/// What a route asks for.
fn wanted(document: &Map<String, Value>, condition: &Condition) -> Value {
    let value = document.get(condition.field()).cloned().unwrap_or_default();
    let Condition::Header(name) = condition else { return value };
    let same = |other: &str| other.to_ascii_lowercase().replace('_', "-") == **name;
    let found = value.as_object().and_then(|map| map.iter().find(|(other, _)| same(other)));
    found.map_or(Value::Null, |(_, values)| values.clone())
}

fn label(condition: &Condition) -> String {
    match condition {
        Condition::Header(name) => format!("headers.{name}"),
        other => other.field().to_owned(),
    }
}

fn route(found: &Explained, spec: &RouteSpec, examined: &Examined) -> Value {
    let document = document(spec);
    let is_set = |field: &str| match document.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let mut matched = Map::new();
    let mut add = |name: &str, value: Value| drop(matched.insert(name.to_owned(), value));
    for condition in [Condition::Methods, Condition::Snis, Condition::Sources, Condition::Destinations] {
        if is_set(condition.field()) {
            let value = match condition {
                Condition::Snis if !found.arrived.asked.https => json!("not asked: the request is plain http"),
                _ => given(found, &condition),
            };
            add(condition.field(), value);
        }
    }
    if let Some(host) = &examined.host {
        add("hosts", json!(host));
    }
    if let Some(path) = examined.path.and_then(|at| document.get("paths")?.get(usize::from(at))) {
        add("paths", path.clone());
    }
    if is_set("expression") {
        add("expression", document["expression"].clone());
    }
    let headers = document.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers: Map<String, Value> = headers
        .map(|(name, _)| {
            let normal = name.to_ascii_lowercase().replace('_', "-").into();
            (name.clone(), given(found, &Condition::Header(normal)))
        })
        .collect();
    if !headers.is_empty() {
        add("headers", Value::Object(headers));
    }
    let captures: Map<String, Value> = found.matched.as_ref().map_or_else(Map::new, |(_, hit)| {
        let caught = spec.matchers.captures(hit, &found.arrived.path);
        let caught = caught.iter().flat_map(|captures| captures.iter().filter(|(number, ..)| *number > 0));
        caught
            .map(|(number, name, bytes)| (name.map_or(number.to_string(), str::to_owned), json!(text(bytes))))
            .collect()
    });
    json!({ "id": spec.id.to_string(), "name": spec.name, "matched": matched, "captures": captures,
            "order": examined.standing.map(order), "strip_path": spec.strip_path, "preserve_host": spec.preserve_host,
            "protocols": document.get("protocols") })
}

/// What decides between routes, in that order.
fn order(standing: Standing) -> Value {
    let criteria = standing.criteria();
    criteria.into_iter().map(|(name, value)| json!({ "by": name, "value": value })).collect()
}

fn candidate(found: &Explained, other: &Other, winner: Option<Standing>) -> Value {
    let document = document(&other.route);
    let mut shown = json!({ "id": other.route.id.to_string(), "name": other.route.name });
    let failed = &other.examined.failed;
    match failed.first() {
        Some(first) => {
            shown["failed"] = json!({ "condition": label(first), "wanted": wanted(&document, first),
                                      "given": given(found, first) });
            shown["failed_in_all"] = failed.iter().map(label).collect();
        }
        None if !other.listed => shown["left_out"] = json!("its service is disabled"),
        None => {
            let by = winner.zip(other.examined.standing).and_then(|(winner, own)| winner.leads_by(&own));
            // The flavour `traditional` looks first at the routes that share an attribute with the request.
            shown["outranked_by"] = json!(by.unwrap_or("search order"));
        }
    }
    shown
}

fn plugin(step: &Step, tables: &Tables) -> Value {
    let kind = PLUGINS[usize::from(step.kind.0)];
    let (id, scope) = match &step.chosen {
        Some((instance, scope)) => (Some(instance.id.to_string()), Some(*scope)),
        None => (None, None),
    };
    let access = match &step.access {
        Access::Ran => "ran",
        Access::Answers { .. } => "answers",
        Access::NotRun => "not run",
        Access::NotReached => "not reached",
    };
    json!({ "name": kind.schema.name, "priority": kind.priority, "id": id, "access": access,
            "scope": scope.map(|scope| scope_of(scope, tables)), "depends_on_consumer": step.depends_on_consumer })
}

/// `"global"`, or the entities that the instance is for.
fn scope_of(scope: Scope, tables: &Tables) -> Value {
    let parts = [("routes", scope.route), ("services", scope.service), ("consumers", scope.consumer)];
    let set: Map<String, Value> = parts
        .into_iter()
        .filter_map(|(entity, id)| Some((entity.trim_end_matches('s').to_owned(), named(entity, id?, tables))))
        .collect();
    if set.is_empty() { json!("global") } else { Value::Object(set) }
}

fn named(entity: &str, id: Uuid, tables: &Tables) -> Value {
    let row = find(entity).and_then(|entity| tables.get(entity, id)).map(|entry| entry.row()).unwrap_or_default();
    let name = row.get("name").or_else(|| row.get("username")).cloned().unwrap_or_default();
    json!({ "id": id.to_string(), "name": name })
}

fn service(spec: &ServiceSpec) -> Value {
    json!({ "id": spec.id.to_string(), "name": spec.name, "host": &*spec.host, "port": spec.port, "path": spec.path,
            "retries": spec.retries })
}

/// The first line and the fields that would be sent.
fn upstream(forwarded: &Forwarded) -> Option<Value> {
    let first = forwarded.peers.peers().get(*forwarded.order.first()?)?;
    let head = text(&forwarded.head);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut words = lines.next()?.split(' ');
    let (method, uri) = (words.next()?, words.next()?);
    let headers: Vec<Value> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| json!([name, value])).collect();
    Some(json!({ "method": method, "uri": uri, "url": format!("http://{}{uri}", first.addr), "headers": headers }))
}

fn balancer(forwarded: &Forwarded) -> Value {
    let set = &forwarded.peers;
    let shown = |at: &usize| set.peers().get(*at).map(|peer| address(set, peer));
    let order: Vec<Value> = forwarded.order.iter().filter_map(shown).collect();
    let (choice, then) = match order.split_first() {
        Some((first, rest)) => (first.clone(), rest.to_vec()),
        None => (Value::Null, Vec::new()),
    };
    let upstream = set.upstream.as_ref();
    json!({
        "upstream": upstream.map(|spec| json!({ "id": spec.id.to_string(), "name": &*spec.name })),
        "algorithm": upstream.map_or("round-robin", |spec| spec.algorithm.name),
        "choice": choice,
        "after_failures": then,
        "peers": set.peers().iter().map(|peer| address(set, peer)).collect::<Vec<_>>(),
    })
}

fn address(set: &PeerSet, peer: &Peer) -> Value {
    let available = set.balancer.checks().is_none() || peer.vitals.is_available();
    json!({ "address": peer.addr.to_string(), "host": &*peer.host, "weight": peer.weight, "available": available })
}

/// Who answers, as far as it can be known before plugins and upstream have spoken.
fn answer(found: &Explained) -> Value {
    if found.matched.is_none() {
        return gateway_answer(404, NO_ROUTE);
    }
    match found.gate {
        Gate::Open => {}
        Gate::UseHttps => return gateway_answer(426, gates::USE_HTTPS),
        Gate::RedirectToHttps(status) => return gateway_answer(status, reason_phrase(status)),
        Gate::NotGrpc => return gateway_answer(415, gates::NOT_GRPC),
        Gate::UseHttp2 | Gate::GrpcNeedsTls => return gateway_answer(426, gates::USE_HTTP2),
    }
    for step in &found.plugins {
        if let Access::Answers { status, message } = &step.access {
            let plugin = PLUGINS[usize::from(step.kind.0)].schema.name;
            return json!({ "by": "plugin", "plugin": plugin, "status": status, "message": message });
        }
    }
    let Some(service) = &found.service else { return gateway_answer(503, NO_SERVICE) };
    match found.forwarded.as_ref().map(|forwarded| (&forwarded.lack, &forwarded.order)) {
        Some((Some(lack), _)) => {
            let (status, message) = lack.answer(&service.host);
            gateway_answer(status, &message)
        }
        Some((None, order)) if !order.is_empty() => json!({ "by": "upstream" }),
        _ => gateway_answer(503, "name resolution failed"),
    }
}

fn gateway_answer(status: u16, message: &str) -> Value {
    json!({ "by": "gateway", "status": status, "message": message })
}
