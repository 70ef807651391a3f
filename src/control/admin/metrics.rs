//! `GET /metrics`: what Prometheus scrapes (spec/plugins.md G.3).
//! Owns: which entities the series of the cores belong to now, and what they are called. Never: keeps a core waiting: it
//! copies a list of cells and reads them.
//!
//! Of Kong's figures those of Lua machines and shared dictionaries do not exist here, but for the memory of the workers,
//! which is that of the process.

use std::collections::BTreeMap;

use ahash::AHashMap;
use hyper::StatusCode;
use uuid::Uuid;

use crate::control::admin::Admin;
use crate::control::admin::KONG_VERSION;
use crate::control::admin::exposition::Exposition;
use crate::control::admin::exposition::Type;
use crate::control::admin::health;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use crate::control::store::tables::Tables;
use crate::entity;
use crate::entity::Entity;
use crate::entity::plugin::PLUGINS;
use crate::metrics::counters::Counter;
use crate::metrics::series::Figures;
use crate::metrics::series::GATEWAY_BOUNDS_MS;
use crate::metrics::series::Histogram;
use crate::metrics::series::Latencies;
use crate::metrics::series::Of;
use crate::metrics::series::REQUEST_BOUNDS_MS;

const CONTENT_TYPE: &str = "text/plain; charset=UTF-8";
const WORKSPACE: &str = "default";
const SUBSYSTEM: &str = "http";
const HEALTH_STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];
const HEALTH_HELP: &str = "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, \
                           value is 1 when state is populated.";

impl<P: Publish> Admin<P> {
    pub(super) fn metrics(&self) -> Reply {
        // The lists come first: whatever a core counts for is in a view that is taken later.
        let lists: Vec<_> = self.node.core_counters().iter().map(|core| core.series.series()).collect();
        let versions: Vec<_> = self.node.core_counters().iter().map(|core| core.version.get()).collect();
        let tables = self.store.view();
        let wanted = Wanted::of(&tables);
        let mut sums = Sums::default();
        if wanted.any {
            let mut names = Names { tables: &tables, routes: self.routes, known: AHashMap::new() };
            for ((core, list), version) in self.node.core_counters().iter().zip(&lists).zip(versions) {
                for series in list {
                    match names.of(&series.of) {
                        Some(who) => sums.add(who, &series.figures),
                        // The core may be ahead of the view.
                        None if tables.version >= version => core.series.forget(series),
                        None => {}
                    }
                }
            }
        }
        let mut text = Exposition::default();
        self.write(&mut text, &sums, &wanted);
        Reply { status: StatusCode::OK, content_type: Some(CONTENT_TYPE), body: text.into_text(), headers: Vec::new() }
    }

    /// All families in alphabetical order.
    fn write(&self, text: &mut Exposition, sums: &Sums, wanted: &Wanted) {
        let node_id = self.node.id().to_string();
        let node = ("node_id", node_id.as_str());
        sums.write_bandwidth(text);
        text.family("kong_datastore_reachable", Type::Gauge, "Datastore reachable from Kong, 0 is unreachable");
        // What is served is in memory, and a write that is not durable is refused.
        text.line("kong_datastore_reachable", &[], 1);
        sums.write_requests(text);
        let times = &sums.latencies;
        let help = "Latency added by Kong and enabled plugins for each service/route in Kong";
        write_times(text, "kong_kong_latency_ms", help, times, &GATEWAY_BOUNDS_MS, |all| &all.gateway);
        let name = "kong_memory_workers_lua_vms_bytes";
        text.family(name, Type::Gauge, "Resident memory of the process: there is one, and no Lua VM");
        let pid = std::process::id().to_string();
        text.line(name, &[node, ("pid", &pid), ("kong_subsystem", SUBSYSTEM)], self.node.memory_bytes());
        self.write_connections(text, node);
        let counters = self.node.core_counters();
        if wanted.any {
            let name = "kong_nginx_metric_errors_total";
            text.family(name, Type::Counter, "Number of figures that were not counted, as there are too many series");
            text.line(name, &[], counters.iter().map(|core| core.series.not_counted.get()).sum::<u64>());
        }
        let name = "kong_nginx_requests_total";
        text.family(name, Type::Gauge, "Number of requests total");
        text.line(name, &[node, ("subsystem", SUBSYSTEM)], self.node.counters().total_requests);
        text.family("kong_nginx_timers", Type::Gauge, "Number of nginx timers");
        for state in ["pending", "running"] {
            text.line("kong_nginx_timers", &[("state", state)], 0);
        }
        text.family("kong_node_info", Type::Gauge, "Kong Node metadata information");
        text.line("kong_node_info", &[node, ("version", KONG_VERSION)], 1);
        let help = "Total latency incurred during requests for each service/route in Kong";
        write_times(text, "kong_request_latency_ms", help, times, &REQUEST_BOUNDS_MS, |all| &all.request);
        let help = "Latency added by upstream response for each service/route in Kong";
        write_times(text, "kong_upstream_latency_ms", help, times, &REQUEST_BOUNDS_MS, |all| &all.upstream);
        if wanted.upstream_health {
            self.write_health(text);
        }
    }

    fn write_connections(&self, text: &mut Exposition, node: (&str, &str)) {
        let counters = self.node.counters();
        let name = "kong_nginx_connections_total";
        text.family(name, Type::Gauge, "Number of connections by subsystem");
        for (state, count) in [
            ("accepted", counters.connections_accepted),
            ("active", counters.connections_active),
            ("handled", counters.connections_handled),
            ("reading", counters.connections_reading),
            ("total", counters.total_requests),
            ("waiting", counters.connections_waiting),
            ("writing", counters.connections_writing),
        ] {
            text.line(name, &[node, ("subsystem", SUBSYSTEM), ("state", state)], count);
        }
    }

    fn write_health(&self, text: &mut Exposition) {
        let name = "kong_upstream_target_health";
        let mut sets = self.node.backends().map(|backends| backends.upstreams()).unwrap_or_default();
        sets.retain(|set| !set.targets.is_empty());
        if sets.is_empty() {
            return;
        }
        text.family(name, Type::Gauge, HEALTH_HELP);
        sets.sort_by(|a, b| upstream_name(a.upstream.as_deref()).cmp(upstream_name(b.upstream.as_deref())));
        for set in sets {
            let upstream = upstream_name(set.upstream.as_deref());
            for target in &set.targets {
                let host_and_port = format!("{}:{}", target.spec.host, target.spec.port);
                let peers = health::peers_of(&set, target).iter();
                let mut addresses: Vec<_> = peers
                    .map(|peer| {
                        let address = format!("{}:{}", health::ip_of(target, peer.addr.ip()), peer.addr.port());
                        (address, health::word_of_peer(&set, peer).to_ascii_lowercase())
                    })
                    .collect();
                if addresses.is_empty() {
                    addresses.push((String::new(), "dns_error".to_owned()));
                }
                for (address, word) in addresses {
                    for state in HEALTH_STATES {
                        let labels = [
                            ("upstream", upstream),
                            ("target", &*host_and_port),
                            ("address", &*address),
                            ("state", state),
                            ("subsystem", SUBSYSTEM),
                        ];
                        text.line(name, &labels, u8::from(word == state));
                    }
                }
            }
        }
    }
}

fn upstream_name(spec: Option<&crate::state::spec::UpstreamSpec>) -> &str {
    spec.map_or("", |spec| &spec.name)
}

/// What the configurations of the plugin ask for.
#[derive(Default)]
struct Wanted {
    /// Whether there is an enabled one.
    any: bool,
    upstream_health: bool,
}

impl Wanted {
    fn of(tables: &Tables) -> Self {
        let mut wanted = Self::default();
        for entry in tables.page(&PLUGINS, None, usize::MAX, None).rows {
            // Most rows are of other plugins; to parse all would take long.
            if !entry.body.contains("\"prometheus\"") {
                continue;
            }
            let row = entry.row();
            if row.get("name").is_some_and(|name| name == "prometheus")
                && row.get("enabled").is_none_or(|on| on == true)
            {
                wanted.any = true;
                let config = row.get("config");
                wanted.upstream_health |= config.is_some_and(|config| config["upstream_health_metrics"] == true);
            }
        }
        wanted
    }
}

/// Values of the labels by which series are told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    service: String,
    route: String,
    consumer: String,
}

/// What entities are called.
struct Names<'a> {
    tables: &'a Tables,
    routes: &'static Entity,
    known: AHashMap<(&'static str, Uuid), Option<String>>,
}

impl Names<'_> {
    /// `None`: one of them was deleted.
    fn of(&mut self, of: &Of) -> Option<Who> {
        let text = |entity, id: Option<Uuid>, names: &mut Self| match id {
            None => Some(String::new()),
            Some(id) => names.name(entity, id),
        };
        Some(Who {
            route: self.name(self.routes, of.route)?,
            service: text(entity::find("services")?, of.service, self)?,
            consumer: text(entity::find("consumers")?, of.consumer, self)?,
        })
    }

    /// A route is called by its name or id, a service by its name or host, a consumer by its username or not at all.
    fn name(&mut self, entity: &'static Entity, id: Uuid) -> Option<String> {
        if let Some(known) = self.known.get(&(entity.name, id)) {
            return known.clone();
        }
        let name = self.tables.get(entity, id).map(|entry| {
            let row = entry.row();
            let fields: &[&str] = match entity.name {
                "services" => &["name", "host"],
                "consumers" => &["username"],
                _ => &["name", "id"],
            };
            let given = fields.iter().find_map(|field| row.get(*field)?.as_str());
            given.unwrap_or_default().to_owned()
        });
        self.known.insert((entity.name, id), name.clone());
        name
    }
}

/// Counts of all cores by what their labels say, which may be the same for several entities.
#[derive(Default)]
struct Sums {
    /// Received and sent.
    bandwidth: BTreeMap<Who, [u64; 2]>,
    requests: BTreeMap<(Who, u16, bool), u64>,
    latencies: BTreeMap<(String, String), Latencies>,
}

impl Sums {
    fn add(&mut self, who: Who, figures: &Figures) {
        match figures {
            Figures::Requests { status, from_upstream, count } => {
                *self.requests.entry((who, *status, *from_upstream)).or_default() += count.get();
            }
            Figures::Bandwidth { received, sent } => {
                let sums = self.bandwidth.entry(who).or_default();
                sums[0] += received.get();
                sums[1] += sent.get();
            }
            Figures::Latencies(more) => {
                let sum = self.latencies.entry((who.service, who.route)).or_default();
                add(&sum.gateway, &more.gateway);
                add(&sum.upstream, &more.upstream);
                add(&sum.request, &more.request);
            }
        }
    }

    fn write_bandwidth(&self, text: &mut Exposition) {
        if self.bandwidth.is_empty() {
            return;
        }
        let name = "kong_bandwidth_bytes";
        text.family(name, Type::Counter, "Total bandwidth (ingress/egress) throughput in bytes");
        for (who, [received, sent]) in &self.bandwidth {
            for (direction, bytes) in [("egress", sent), ("ingress", received)] {
                let labels = [
                    ("service", &*who.service),
                    ("route", &*who.route),
                    ("direction", direction),
                    ("workspace", WORKSPACE),
                    ("consumer", &*who.consumer),
                ];
                text.line(name, &labels, bytes);
            }
        }
    }

    fn write_requests(&self, text: &mut Exposition) {
        if self.requests.is_empty() {
            return;
        }
        let name = "kong_http_requests_total";
        text.family(name, Type::Counter, "HTTP status codes per consumer/service/route in Kong");
        for ((who, status, from_upstream), count) in &self.requests {
            let labels = [
                ("service", &*who.service),
                ("route", &*who.route),
                ("code", &*status.to_string()),
                ("source", if *from_upstream { "service" } else { "kong" }),
                ("workspace", WORKSPACE),
                ("consumer", &*who.consumer),
            ];
            text.line(name, &labels, count);
        }
    }
}

fn add<const N: usize>(sum: &Histogram<N>, more: &Histogram<N>) {
    for (sum, more) in sum.within.iter().zip(&more.within) {
        sum.add_many(more.get());
    }
    sum.beyond.add_many(more.beyond.get());
    sum.sum_us.add_many(more.sum_us.get());
}

/// One histogram of each route, of those that have seen anything.
fn write_times<const N: usize>(
    text: &mut Exposition,
    name: &str,
    help: &str,
    latencies: &BTreeMap<(String, String), Latencies>,
    bounds_ms: &[u64; N],
    pick: impl Fn(&Latencies) -> &Histogram<N>,
) {
    let counts = |histogram: &Histogram<N>| -> Vec<u64> {
        histogram.within.iter().chain([&histogram.beyond]).map(Counter::get).collect()
    };
    let mut seen = latencies.iter().map(|(who, all)| (who, pick(all), counts(pick(all))));
    let mut seen = seen.by_ref().filter(|(.., counts)| counts.iter().any(|count| *count > 0)).peekable();
    if seen.peek().is_none() {
        return;
    }
    text.family(name, Type::Histogram, help);
    for ((service, route), histogram, counts) in seen {
        let labels = [("service", service.as_str()), ("route", route), ("workspace", WORKSPACE)];
        text.histogram(name, &labels, bounds_ms, &counts, histogram.sum_us.get() as f64 / 1000.0);
    }
}
