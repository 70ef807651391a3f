//! How the targets of an upstream are, why, and an operator's word on it (spec/balancer.md sections 15 and 16,
//! spec/admin-api.md section 7.10).

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::balancer::Peer;
use crate::balancer::vitals::Evidence;
use crate::balancer::vitals::HealthEvent;
use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::form::Pair;
use crate::control::admin::page;
use crate::control::admin::paths::Link;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::rows;
use crate::control::admin::rows::Name;
use crate::control::admin::targets;
use crate::control::backends;
use crate::control::backends::Backends;
use crate::control::store::Publish;
use crate::entity::address::Address;
use crate::entity::target::DEFAULT_PORT;
use crate::state::peers::PeerSet;
use crate::state::peers::TargetPeers;
use crate::state::spec::RecordKind;
use crate::state::spec::Resolution;

const OFF: &str = "HEALTHCHECKS_OFF";

impl<P: Publish> Admin<P> {
    pub(super) fn upstream_health(&self, link: Link, call: &Call) -> Result<Reply, Problem> {
        let tables = self.store.view();
        let upstream = targets::upstream_of(link, call, &tables)?;
        let set = self.node.backends().and_then(|backends| backends.upstream(upstream));
        let node_id = self.node.id().to_string();
        if asked(&call.query, "balancer_health") {
            let data = balancer_health(upstream, set.as_deref());
            return Ok(Reply::json(StatusCode::OK, &json!({ "data": data, "next": null, "node_id": node_id })));
        }
        let history = self.node.backends().filter(|_| asked(&call.query, "history"));
        let found = targets::page_of(link, call, &tables, upstream)?;
        let shown = found.rows.iter().map(|entry| {
            let id = rows::id_of(entry);
            let target = set.as_ref().and_then(|set| Some((set, target_of(set, id.as_str()?)?)));
            let row = rows::show(link.child, entry, &tables);
            let Some((set, target)) = target else { return with(&row, &json!({ "health": "DNS_ERROR" })) };
            let data = target_health(set, target, history);
            with(&row, &json!({ "health": word_of(set, target), "data": data }))
        });
        let next = found.next.map(|offset| {
            let path = crud::nested_path(link, call);
            let path = path.strip_suffix("targets").unwrap_or(&path);
            (page::nested_next(&format!("{path}health"), &offset), offset)
        });
        let body = page::body(&shown.collect::<Vec<_>>(), next);
        Ok(Reply::rendered(StatusCode::OK, with(&body, &json!({ "node_id": node_id }))))
    }

    /// Sets the address of a call, or all addresses of its target, healthy or unhealthy.
    pub(super) fn set_target_health(&self, link: Link, call: &Call, healthy: bool) -> Result<Reply, Problem> {
        let tables = self.store.view();
        let name = Name::read(link.parent, crud::variable(call, 0)?)?;
        let upstream = name.find(link.parent, &tables).ok_or_else(Problem::not_found)?;
        let segment = crud::variable(call, 1)?.decoded.clone().map_err(|_| Problem::not_found())?;
        let id = targets::by_id_or_address(link, &tables, upstream, &segment).ok_or_else(Problem::not_found)?;
        let entry = tables.get(link.parent, upstream).ok_or_else(Problem::not_found)?;
        let row = entry.row();
        let shown_name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(set) = self.node.backends().and_then(|backends| backends.upstream(upstream)) else {
            return Err(Problem::bad_request(format!("Upstream {shown_name} has no balancer")));
        };
        let Some(checks) = set.balancer.checks() else {
            return Err(Problem::bad_request(format!("no healthchecker found for {shown_name}")));
        };
        let only = match call.found.variables.get(2) {
            None => None,
            Some(given) => {
                let text = given.decoded.clone().map_err(|_| Problem::not_found())?;
                let address = Address::parse(&text).ok().map(|address| address.normalised(DEFAULT_PORT));
                Some(address.ok_or_else(Problem::not_found)?)
            }
        };
        for peer in target_of(&set, &id.to_string()).map_or(&[][..], |target| &set.peers()[target.peers.clone()]) {
            let normal = Address::parse(&peer.addr.to_string()).ok().map(|address| address.normalised(DEFAULT_PORT));
            if only.is_none() || only == normal {
                peer.vitals.force(checks, healthy, backends::now());
            }
        }
        Ok(Reply::empty())
    }
}

fn asked(query: &[Pair], name: &str) -> bool {
    page::argument(query, name).is_some_and(|value| value.as_deref() == Some("1"))
}

/// A JSON object with the members of another one behind its own.
fn with(object: &str, more: &Value) -> String {
    let more = more.to_string();
    format!("{},{}", object.strip_suffix('}').unwrap_or(object), more.strip_prefix('{').unwrap_or(&more))
}

fn target_of<'a>(set: &'a PeerSet, id: &str) -> Option<&'a TargetPeers> {
    set.targets.iter().find(|target| target.spec.id.to_string() == id)
}

pub(super) fn peers_of<'a>(set: &'a PeerSet, target: &TargetPeers) -> &'a [Peer] {
    &set.peers()[target.peers.clone()]
}

fn word_of(set: &PeerSet, target: &TargetPeers) -> &'static str {
    let peers = peers_of(set, target);
    match set.balancer.checks() {
        _ if peers.is_empty() => "DNS_ERROR",
        None => OFF,
        Some(_) if target.spec.weight == 0 => OFF,
        Some(_) if peers.iter().any(|peer| peer.vitals.is_available()) => "HEALTHY",
        Some(_) => "UNHEALTHY",
    }
}

/// How one address is, in Kong's words.
pub(super) fn word_of_peer(set: &PeerSet, peer: &Peer) -> &'static str {
    match set.balancer.checks() {
        None => OFF,
        Some(_) if peer.weight == 0 => OFF,
        Some(_) if peer.vitals.is_available() => "HEALTHY",
        Some(_) => "UNHEALTHY",
    }
}

fn target_health(set: &PeerSet, target: &TargetPeers, history: Option<&Backends>) -> Value {
    let address = |peer: &Peer| {
        let health = word_of_peer(set, peer);
        let mut shown = json!({ "ip": ip_of(target, peer.addr.ip()), "port": peer.addr.port(),
                                "weight": peer.weight, "health": health });
        if let Some(backends) = history {
            let events = backends.history(&peer.vitals);
            shown["history"] = events.iter().rev().map(event).collect();
            if let Some(checks) = set.balancer.checks().filter(|_| health == "UNHEALTHY") {
                shown["comes_back_by"] = peer.vitals.way_back(checks).to_string().into();
            }
        }
        shown
    };
    describe(set, target, address)
}

/// One change of availability, for people.
fn event(event: &HealthEvent) -> Value {
    let mut shown = json!({ "at": event.unix_ms as f64 / 1000.0, "check": event.judge.name(),
                            "health": if event.available { "HEALTHY" } else { "UNHEALTHY" } });
    match &event.evidence {
        Evidence::Status(status) => shown["status"] = (*status).into(),
        Evidence::Error(error) => shown["error"] = error.as_ref().into(),
        Evidence::Word => {}
    }
    if let Some((outcome, limit)) = event.decided {
        shown["outcome"] = format!("{outcome:?}").into();
        shown["limit"] = limit.into();
    }
    if let Some(way_back) = event.way_back {
        shown["comes_back_by"] = way_back.to_string().into();
    }
    shown
}

fn balancer_health(upstream: Uuid, set: Option<&PeerSet>) -> Value {
    let is_healthy = set.is_some_and(|set| set.balancer.is_healthy());
    let real = if is_healthy { "HEALTHY" } else { "UNHEALTHY" };
    let health = if set.is_some_and(|set| set.balancer.checks().is_some()) { real } else { OFF };
    let hosts = set.into_iter().flat_map(|set| {
        set.targets.iter().map(move |target| {
            let watched = set.balancer.checks().is_some();
            describe(set, target, |peer| {
                json!({ "ip": ip_of(target, peer.addr.ip()), "port": peer.addr.port(), "weight": peer.weight,
                        "healthy": !watched || peer.vitals.is_available() })
            })
        })
    });
    let hosts = list(hosts.collect());
    let (total, available) = set.map_or((0, 0), |set| (set.balancer.weight(), set.balancer.available_weight()));
    json!({ "id": upstream.to_string(), "health": health, "balancer_health": real,
            "details": { "healthy": is_healthy, "hosts": hosts, "weight": weight(total, available) } })
}

fn describe(set: &PeerSet, target: &TargetPeers, address: impl FnMut(&Peer) -> Value) -> Value {
    let peers = peers_of(set, target);
    let available = |peer: &&Peer| set.balancer.checks().is_none() || peer.vitals.is_available();
    let sum = |peers: &mut dyn Iterator<Item = &Peer>| peers.map(|peer| u64::from(peer.weight)).sum::<u64>();
    let (total, left) = (sum(&mut peers.iter()), sum(&mut peers.iter().filter(available)));
    json!({ "host": target.spec.host.as_ref(), "port": target.spec.port, "nodeWeight": target.spec.weight,
            "dns": dns_of(&target.resolution).as_ref(), "weight": weight(total, left),
            "addresses": list(peers.iter().map(address).collect()) })
}

fn weight(total: u64, available: u64) -> Value {
    json!({ "total": total, "unavailable": total - available, "available": available })
}

/// An empty list is an empty object, as in Kong.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { json!({}) } else { Value::Array(items) }
}

/// An address stands as its target has it; those of names are bracketed if they are IPv6.
pub(super) fn ip_of(target: &TargetPeers, ip: IpAddr) -> String {
    let host = &target.spec.host;
    match ip {
        _ if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => host.to_string(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn dns_of(resolution: &Resolution) -> Arc<str> {
    match resolution {
        Resolution::Addresses(RecordKind::A, _) => "A".into(),
        Resolution::Addresses(RecordKind::Aaaa, _) => "AAAA".into(),
        Resolution::Addresses(RecordKind::Srv, _) => "SRV".into(),
        Resolution::Pending => "dns client error: 100 cache only lookup failed".into(),
        Resolution::NotFound(words) => (*words).into(),
        Resolution::Failed(why) => why.clone(),
    }
}
