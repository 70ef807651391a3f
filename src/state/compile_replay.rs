//! Any sequence of deltas gives what a fresh build of the same rows gives: held by seeded random histories.
//! `RINGWAY_SEED=n` replays one.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::balancer::Ask;
use crate::balancer::Tried;
use crate::entity::RowChange;
use crate::router::Query;
use crate::router::matcher::HeaderSource;
use crate::state::book::PeerBook;
use crate::state::compile::Compiler;
use crate::state::core::CoreState;
use crate::state::delta::Delta;
use crate::state::delta::NameUpdate;
use crate::state::spec::Resolution;

const KINDS: [&str; 7] = ["services", "routes", "upstreams", "targets", "plugins", "consumers", "keyauth_credentials"];
const ROWS_PER_KIND: u64 = 5;

type Rows = BTreeMap<(&'static str, Uuid), Map<String, Value>>;

/// Both sides of the channel: what the control plane compiles with, and one core.
struct Pair {
    compiler: Compiler,
    book: PeerBook,
    core: CoreState,
    version: u64,
}

impl Pair {
    fn new() -> Self {
        let book = PeerBook::new(std::sync::Arc::new(|_| {}));
        Self { compiler: Compiler::default(), book, core: CoreState::new(0), version: 0 }
    }

    fn apply(&mut self, changes: &[RowChange]) {
        let compiled = self.compiler.compile(changes).unwrap_or_else(|refusals| panic!("{refusals:?}"));
        self.compiler = compiled.next;
        self.version += 1;
        let resolved = |name: &std::sync::Arc<str>| NameUpdate {
            name: name.clone(),
            resolution: Resolution::of_ips(&[address_of(name).into()]),
        };
        let names: Vec<_> = compiled.names_wanted.iter().map(resolved).collect();
        let peers = self.book.apply(&compiled.backends, &names, &compiled.names_unwanted, 0);
        self.core.apply(&Delta {
            version: self.version,
            changes: compiled.changes,
            directory: compiled.directory,
            peers,
        });
    }

    /// All that a request can see, as text.
    fn observe(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for path in 0..ROWS_PER_KIND {
            for host in ["", "h0", "h1", "h2"] {
                seen.push(self.observe_request(&format!("/p{path}/x"), host));
            }
        }
        for key in 0..ROWS_PER_KIND {
            let directory = self.core.directory();
            let credential = directory.keys.find(format!("key{key}").as_bytes(), 0);
            let consumer = credential.and_then(|c| directory.consumer(c.consumer)).and_then(|c| c.username.clone());
            seen.push(format!("key{key}: {:?} {consumer:?}", credential.map(|c| c.id)));
            seen.push(format!("{:?}", directory.consumer_named(&format!("user{key}")).map(|c| c.id)));
        }
        seen
    }

    fn observe_request(&self, path: &str, host: &str) -> String {
        let query = Query {
            method: b"GET",
            host: host.as_bytes(),
            path: path.as_bytes(),
            https: false,
            sni: None,
            port: 80,
            arguments: b"",
            source: ([127, 0, 0, 1], 40_000).into(),
            destination: [127, 0, 0, 1].into(),
            headers: &NoHeaders,
        };
        let Some((route, hit)) = self.core.find(&query) else { return format!("{host}{path}: none") };
        let links = self.core.links(&route);
        let service = links.service.as_ref();
        let mut plugins = Vec::new();
        for consumer in (0..ROWS_PER_KIND).map(|n| Some(id("consumers", n))).chain([None]) {
            for entry in links.chain.entries() {
                let service = service.map(|s| s.spec.id);
                let placed = self.core.plugins().resolve(entry, Some(route.spec.id), service, consumer);
                plugins.push(placed.map(|p| p.instance.id));
            }
        }
        let peers = service.map(|service| {
            let peers = self.core.peers(service).expect("every delta says where a service leads");
            let tried = Tried::default();
            let ask = Ask { turn: peers.turn(), tried: &tried, hash: 0, now_ms: 0, may_repeat: true };
            let mut peers: Vec<_> = match peers.pick(&ask) {
                Ok(_) => peers.set.peers().iter().map(|p| format!("{} {} {}", p.addr, p.host, p.weight)).collect(),
                Err(lack) => vec![format!("{lack:?}")],
            };
            peers.sort();
            peers
        });
        format!(
            "{host}{path}: {} {:?} {:?} {plugins:?} {peers:?}",
            route.spec.id,
            hit.matched_len,
            service.map(|s| s.spec.id)
        )
    }
}

struct NoHeaders;

impl HeaderSource for NoHeaders {
    fn for_each(&self, _name: &str, _f: &mut dyn FnMut(&[u8]) -> bool) {}
}

fn address_of(name: &str) -> [u8; 4] {
    [127, 1, name.len() as u8, name.bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte))]
}

fn id(kind: &str, n: u64) -> Uuid {
    let kind = KINDS.iter().position(|k| *k == kind).expect("one of the kinds") as u64;
    Uuid::from_u64_pair(kind + 1, n + 1)
}

fn random_row(rng: &mut fastrand::Rng, kind: &str, n: u64) -> Map<String, Value> {
    let row = match kind {
        "services" => json!({"protocol": "http", "host": (["u0", "u1", "u2", "a.test", "127.0.0.9"][rng.usize(..5)]),
            "port": 1000 + rng.u64(..3), "path": null, "enabled": rng.u8(..4) > 0}),
        "routes" => json!({"protocols": ["http"], "service": some(rng, "services", 3),
            "paths": [format!("/p{}", rng.u64(..ROWS_PER_KIND))],
            "hosts": if rng.bool() { json!([format!("h{}", rng.u64(..3))]) } else { Value::Null }}),
        "upstreams" => json!({"name": format!("u{}", (n + rng.u64(..2)) % 3 + n / 3 * 3), "algorithm": "round-robin"}),
        "targets" => json!({"upstream": {"id": id("upstreams", rng.u64(..ROWS_PER_KIND)).to_string()},
            "target": format!("t{}.test:{}", rng.u64(..3), 80 + n), "weight": rng.u64(..3) * 50, "created_at": rng.u64(..100)}),
        "plugins" => json!({"name": (["key-auth", "correlation-id", "request-termination"][rng.usize(..3)]),
            "route": some(rng, "routes", 1), "service": some(rng, "services", 1), "consumer": some(rng, "consumers", 1),
            "enabled": rng.u8(..4) > 0, "config": plugin_config()}),
        "consumers" => json!({"username": format!("user{n}")}),
        _ => {
            json!({"key": format!("key{}", n), "consumer": {"id": id("consumers", rng.u64(..ROWS_PER_KIND)).to_string()}})
        }
    };
    row.as_object().cloned().unwrap_or_default()
}

/// A reference in `quarters` of four cases, else null.
fn some(rng: &mut fastrand::Rng, kind: &str, quarters: u8) -> Value {
    match rng.u8(..4) < quarters {
        true => json!({"id": id(kind, rng.u64(..ROWS_PER_KIND)).to_string()}),
        false => Value::Null,
    }
}

/// Enough for each of the three plugins.
fn plugin_config() -> Value {
    json!({"key_names": ["apikey"], "key_in_header": true, "key_in_query": true, "key_in_body": false,
        "hide_credentials": false, "run_on_preflight": true, "header_name": "X-C", "generator": "uuid",
        "echo_downstream": false, "status_code": 503, "echo": false})
}

/// Plugins are unique by name and scope, upstreams by name: what the store guarantees, the histories keep.
fn is_taken(rows: &Rows, kind: &'static str, own: Uuid, row: &Map<String, Value>) -> bool {
    let fields: &[&str] = match kind {
        "plugins" => &["name", "route", "service", "consumer"],
        "upstreams" => &["name"],
        _ => return false,
    };
    rows.iter().any(|((k, id), other)| *k == kind && *id != own && fields.iter().all(|f| other.get(*f) == row.get(*f)))
}

fn check_seed(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rows = Rows::new();
    let mut live = Pair::new();
    for step in 0..60 {
        let mut changes = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let (kind, n) = (KINDS[rng.usize(..KINDS.len())], rng.u64(..ROWS_PER_KIND));
            let key = (kind, id(kind, n));
            if changes.iter().any(|c: &RowChange| (c.entity, c.id) == key) {
                continue;
            }
            let row = (rng.u8(..4) > 0).then(|| random_row(&mut rng, kind, n));
            match &row {
                Some(row) if is_taken(&rows, kind, key.1, row) => continue,
                Some(row) => drop(rows.insert(key, row.clone())),
                None => drop(rows.remove(&key)),
            }
            changes.push(RowChange { entity: kind, id: key.1, row, text: None, expires_at_ms: None });
        }
        live.apply(&changes);
        let mut all: Vec<_> = rows
            .iter()
            .map(|(&(entity, id), row)| RowChange {
                entity,
                id,
                row: Some(row.clone()),
                text: None,
                expires_at_ms: None,
            })
            .collect();
        rng.shuffle(&mut all);
        let mut fresh = Pair::new();
        fresh.apply(&all);
        let (live, fresh) = (live.observe(), fresh.observe());
        for (live, fresh) in live.iter().zip(&fresh) {
            assert_eq!(live, fresh, "seed {seed} step {step}: left has the history, right is built anew");
        }
    }
}

#[test]
fn a_core_with_a_history_equals_one_built_anew() {
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        return check_seed(seed.parse().expect("RINGWAY_SEED is a number"));
    }
    (0..150).for_each(check_seed);
}
