//! Stored rows -> deltas, or every reason why not.
//! Owns: what the data plane can serve today. Never: touches a core; compiling has no effect until the result is posted.
//! Always: what cannot be served as it says is refused here, before it is stored.

use std::sync::Arc;

use rpds::HashTrieMapSync;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::balancer;
use crate::balancer::hash_on::HashInput;
use crate::balancer::hash_on::HashOn;
use crate::config::Cidr;
use crate::config::RouterFlavor;
use crate::entity::RowChange;
use crate::entity::plugin::not_usable;
use crate::http::upstream_path::PathHandling;
use crate::plugins;
use crate::plugins::Instance;
use crate::plugins::chain::Scope;
use crate::plugins::directory::Directory;
use crate::router::compile::Rules;
use crate::router::compile::compile as compile_rules;
use crate::router::gates::Gates;
use crate::router::net::Endpoint;
use crate::state::compile_checks::compile_checks;
use crate::state::compile_people;
use crate::state::delta::BackendChange;
use crate::state::delta::Change;
use crate::state::spec::PluginSpec;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

type Row = Map<String, Value>;

/// Why a row cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub entity: &'static str,
    pub id: Uuid,
    /// Dotted path, list positions from 1: `paths.1`, `config.realm`.
    pub field: String,
    pub message: String,
}

/// What the control plane keeps between two compilations. Cloning is cheap and gives an independent version.
#[derive(Clone, Default)]
pub struct Compiler {
    flavor: RouterFlavor,
    directory: Directory,
    hosts: HostNames,
    /// `passive_recovery`; see [`crate::balancer::checks::Checks::trial_after_ms`].
    trial_after_ms: Option<u64>,
}

/// A compiled set of changes.
pub struct Compiled {
    pub changes: Vec<Change>,
    /// What the peers are to be built from anew.
    pub backends: Vec<BackendChange>,
    /// The new directory, when consumers or credentials changed.
    pub directory: Option<Directory>,
    /// Host names that are in use from now on, respectively no longer.
    pub names_wanted: Vec<Arc<str>>,
    pub names_unwanted: Vec<Arc<str>>,
    /// The compiler to go on with, once these changes are stored.
    pub next: Compiler,
}

impl Compiler {
    /// A compiler that has seen no rows. With passive checks only, an ejected address gets a trial after `trial_after_ms`.
    pub fn new(flavor: RouterFlavor, trial_after_ms: Option<u64>) -> Self {
        Self { flavor, trial_after_ms, ..Self::default() }
    }

    /// Compiles changed rows. Rows that say the same as before are compiled all the same.
    ///
    /// # Errors
    /// Every reason why some row cannot be served; then nothing of the set may be stored.
    pub fn compile(&self, rows: &[RowChange]) -> Result<Compiled, Vec<Refusal>> {
        let mut next = self.clone();
        let mut names = Vec::new();
        let mut changes = Vec::with_capacity(rows.len());
        let mut backends = Vec::new();
        let mut refusals = Vec::new();
        let mut directory_changed = false;
        for change in rows {
            let change = &*change.parsed();
            directory_changed |= compile_people::follow(&mut next.directory, change);
            next.hosts.follow(change, &mut names);
            match next.compile_one(change, &mut backends) {
                Ok(compiled) => changes.extend(compiled),
                Err(mut reasons) => refusals.append(&mut reasons),
            }
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let (mut names_wanted, mut names_unwanted) = (Vec::new(), Vec::new());
        names.sort();
        names.dedup();
        for name in names {
            match (self.hosts.is_wanted(&name), next.hosts.is_wanted(&name)) {
                (false, true) => names_wanted.push(name),
                (true, false) => names_unwanted.push(name),
                _ => {}
            }
        }
        let directory = directory_changed.then(|| next.directory.clone());
        Ok(Compiled { changes, backends, directory, names_wanted, names_unwanted, next })
    }

    fn compile_one(
        &mut self,
        change: &RowChange,
        backends: &mut Vec<BackendChange>,
    ) -> Result<Option<Change>, Vec<Refusal>> {
        let id = change.id;
        let refuse = |field: &str, message: String| {
            vec![Refusal { entity: change.entity, id, field: field.to_owned(), message }]
        };
        let Some(row) = &change.row else {
            return Ok(match change.entity {
                "routes" => Some(Change::RouteGone(id)),
                "services" => {
                    backends.push(BackendChange::ServiceGone(id));
                    Some(Change::ServiceGone(id))
                }
                "upstreams" => {
                    backends.push(BackendChange::UpstreamGone(id));
                    None
                }
                "targets" => {
                    backends.push(BackendChange::TargetGone(id));
                    None
                }
                "plugins" => Some(Change::PluginGone(id)),
                _ => None,
            });
        };
        match change.entity {
            "routes" => route(self.flavor, change, row, &refuse).map(|spec| Some(Change::Route(Arc::new(spec)))),
            "services" => {
                let spec = Arc::new(service(change, row, &refuse)?);
                backends.push(BackendChange::Service(spec.clone()));
                Ok(Some(Change::Service(spec)))
            }
            "upstreams" => {
                backends.push(BackendChange::Upstream(Arc::new(upstream(id, row, self.trial_after_ms, &refuse)?)));
                Ok(None)
            }
            "targets" => {
                backends.push(BackendChange::Target(Arc::new(target(id, row, &refuse)?)));
                Ok(None)
            }
            "plugins" => plugin(id, row, &refuse).map(|spec| Some(Change::Plugin(Arc::new(spec)))),
            _ => Ok(None),
        }
    }
}

type Refuse<'a> = &'a dyn Fn(&str, String) -> Vec<Refusal>;

pub(super) fn text<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.get(field)?.as_str()
}

fn number(row: &Row, field: &str, absent: u64) -> u64 {
    row.get(field).and_then(Value::as_u64).unwrap_or(absent)
}

fn flag(row: &Row, field: &str, absent: bool) -> bool {
    row.get(field).and_then(Value::as_bool).unwrap_or(absent)
}

pub(super) fn reference(row: &Row, field: &str) -> Option<Uuid> {
    Uuid::try_parse(row.get(field)?.get("id")?.as_str()?).ok()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The text of a row: the store's own, which is there once for all.
fn document(change: &RowChange, row: &Row) -> Arc<str> {
    change.text.clone().unwrap_or_else(|| serde_json::to_string(row).unwrap_or_default().into())
}

fn route(flavor: RouterFlavor, change: &RowChange, row: &Row, refuse: Refuse<'_>) -> Result<RouteSpec, Vec<Refusal>> {
    let id = change.id;
    let protocols = texts(row.get("protocols"));
    if let Some(other) = protocols.iter().find(|p| !matches!(p.as_str(), "http" | "https")) {
        return Err(refuse("protocols", format!("routes of protocol '{other}' are not supported yet")));
    }
    let headers = row.get("headers").and_then(Value::as_object);
    let rules = Rules {
        id,
        methods: texts(row.get("methods")),
        hosts: texts(row.get("hosts")),
        paths: texts(row.get("paths")),
        headers: headers.into_iter().flatten().map(|(name, values)| (name.clone(), texts(Some(values)))).collect(),
        snis: texts(row.get("snis")),
        regex_priority: row.get("regex_priority").and_then(Value::as_i64).unwrap_or(0),
        created_at_s: number(row, "created_at", 0),
        protocols: protocols.clone(),
        sources: endpoints(row.get("sources")),
        destinations: endpoints(row.get("destinations")),
        expression: text(row, "expression").map(str::to_owned),
        priority: number(row, "priority", 0),
    };
    let matchers = compile_rules(&rules, flavor).map_err(|errors| {
        errors.into_iter().flat_map(|error| refuse(&error.field, error.message)).collect::<Vec<_>>()
    })?;
    let path_handling = match text(row, "path_handling") {
        Some("v1") if flavor == RouterFlavor::Traditional => PathHandling::V1,
        _ => PathHandling::V0,
    };
    let redirect_status = number(row, "https_redirect_status_code", 426) as u16;
    Ok(RouteSpec {
        id,
        id_text: id.to_string().into(),
        name: text(row, "name").map(Into::into),
        service: reference(row, "service"),
        matchers: Arc::new(matchers),
        gates: Gates::new(protocols.iter().map(String::as_str), redirect_status),
        strip_path: flag(row, "strip_path", true),
        path_handling,
        preserve_host: flag(row, "preserve_host", false),
        request_buffering: flag(row, "request_buffering", true),
        response_buffering: flag(row, "response_buffering", true),
        document: document(change, row),
    })
}

fn endpoints(value: Option<&Value>) -> Vec<Endpoint> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let endpoint = |element: &Value| Endpoint {
        block: element.get("ip").and_then(Value::as_str).and_then(Cidr::parse),
        port: element.get("port").and_then(Value::as_u64).map(|port| port as u16),
    };
    list.iter().map(endpoint).collect()
}

fn service(change: &RowChange, row: &Row, refuse: Refuse<'_>) -> Result<ServiceSpec, Vec<Refusal>> {
    let id = change.id;
    match text(row, "protocol") {
        Some("http") => {}
        other => {
            let message = format!("services of protocol '{}' are not supported yet", other.unwrap_or_default());
            return Err(refuse("protocol", message));
        }
    }
    Ok(ServiceSpec {
        id,
        id_text: id.to_string().into(),
        name: text(row, "name").map(Into::into),
        enabled: flag(row, "enabled", true),
        host: text(row, "host").unwrap_or_default().into(),
        port: number(row, "port", 80) as u16,
        path: text(row, "path").unwrap_or("/").into(),
        retries: number(row, "retries", 5) as u16,
        connect_timeout_ms: number(row, "connect_timeout", 60_000),
        write_timeout_ms: number(row, "write_timeout", 60_000),
        read_timeout_ms: number(row, "read_timeout", 60_000),
        document: document(change, row),
    })
}

fn upstream(
    id: Uuid,
    row: &Row,
    trial_after_ms: Option<u64>,
    refuse: Refuse<'_>,
) -> Result<UpstreamSpec, Vec<Refusal>> {
    let wanted = text(row, "algorithm").unwrap_or("round-robin");
    let Some(algorithm) = balancer::algorithm(wanted) else {
        return Err(refuse("algorithm", format!("there is no algorithm '{wanted}'")));
    };
    let none = Value::Null;
    let checks = row.get("healthchecks").unwrap_or(&none);
    Ok(UpstreamSpec {
        id,
        name: text(row, "name").unwrap_or_default().into(),
        algorithm,
        slots: number(row, "slots", 10_000) as u32,
        hash_on: (wanted == "consistent-hashing").then(|| hash_on(row)),
        host_header: text(row, "host_header").map(Into::into),
        use_srv_name: flag(row, "use_srv_name", false),
        client_certificate: reference(row, "client_certificate"),
        threshold_percent: checks.get("threshold").and_then(Value::as_f64).unwrap_or(0.0),
        checks: compile_checks(checks, trial_after_ms).map(Arc::new),
    })
}

fn hash_on(row: &Row) -> HashOn {
    let named = |field: &str| text(row, field).unwrap_or_default().into();
    let input = |field: &str| match text(row, field) {
        Some("consumer") => HashInput::Consumer,
        Some("ip") => HashInput::Ip,
        Some("path") => HashInput::Path,
        // There is one cookie for both.
        Some("cookie") => HashInput::Cookie(named("hash_on_cookie")),
        Some("header") => HashInput::Header(named(&format!("{field}_header"))),
        Some("query_arg") => HashInput::QueryArg(named(&format!("{field}_query_arg"))),
        Some("uri_capture") => HashInput::UriCapture(named(&format!("{field}_uri_capture"))),
        _ => HashInput::None,
    };
    HashOn {
        first: input("hash_on"),
        fallback: input("hash_fallback"),
        cookie_path: text(row, "hash_on_cookie_path").unwrap_or("/").into(),
    }
}

fn target(id: Uuid, row: &Row, refuse: Refuse<'_>) -> Result<TargetSpec, Vec<Refusal>> {
    let address = text(row, "target").unwrap_or_default();
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (Some((host, port)), Some(upstream)) = (parts, reference(row, "upstream")) else {
        return Err(refuse("target", format!("'{address}' is not host:port")));
    };
    Ok(TargetSpec {
        id,
        upstream,
        host: host.into(),
        port,
        weight: number(row, "weight", 100) as u32,
        created_at_ms: (row.get("created_at").and_then(Value::as_f64).unwrap_or(0.0) * 1000.0).round() as u64,
    })
}

fn plugin(id: Uuid, row: &Row, refuse: Refuse<'_>) -> Result<PluginSpec, Vec<Refusal>> {
    let name = text(row, "name").unwrap_or_default();
    let Some((kind, declared)) = plugins::kind(name) else {
        let message = not_usable(name);
        return Err(refuse("name", message));
    };
    let empty = Row::new();
    let config = row.get("config").and_then(Value::as_object).unwrap_or(&empty);
    let plugin = (declared.build)(config).map_err(|error| refuse(&config_field(&error.field), error.message))?;
    let scope = Scope {
        route: reference(row, "route"),
        service: reference(row, "service"),
        consumer: reference(row, "consumer"),
    };
    let instance = Arc::new(Instance { id, kind, plugin });
    Ok(PluginSpec { id, scope, enabled: flag(row, "enabled", true), instance })
}

fn config_field(below: &str) -> String {
    if below.is_empty() { "config".to_owned() } else { format!("config.{below}") }
}

/// Which host names services and targets use. A service's host that names an upstream is not looked up.
#[derive(Clone, Default)]
struct HostNames {
    /// By entity id: the name it uses (services, targets) or takes (upstreams).
    by_id: HashTrieMapSync<Uuid, (Use, Arc<str>)>,
    counts: HashTrieMapSync<Arc<str>, [u32; 3]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Service = 0,
    Target = 1,
    Upstream = 2,
}

impl HostNames {
    fn follow(&mut self, change: &RowChange, touched: &mut Vec<Arc<str>>) {
        let row = change.row.as_ref();
        let (kind, name) = match change.entity {
            "services" => (Use::Service, row.and_then(|row| text(row, "host"))),
            "upstreams" => (Use::Upstream, row.and_then(|row| text(row, "name"))),
            "targets" => {
                let host = row.and_then(|row| text(row, "target")).and_then(|t| t.rsplit_once(':'));
                (Use::Target, host.map(|(host, _)| host))
            }
            _ => return,
        };
        if let Some((kind, old)) = self.by_id.get(&change.id).cloned() {
            self.count(kind, &old, -1);
            self.by_id.remove_mut(&change.id);
            touched.push(old);
        }
        if let Some(name) = name {
            let name: Arc<str> = name.into();
            self.count(kind, &name, 1);
            self.by_id.insert_mut(change.id, (kind, name.clone()));
            touched.push(name);
        }
    }

    fn count(&mut self, kind: Use, name: &Arc<str>, step: i32) {
        let mut counts = self.counts.get(name).copied().unwrap_or_default();
        counts[kind as usize] = counts[kind as usize].saturating_add_signed(step);
        match counts {
            [0, 0, 0] => self.counts.remove_mut(name),
            _ => {
                self.counts.insert_mut(name.clone(), counts);
                true
            }
        };
    }

    fn is_wanted(&self, name: &str) -> bool {
        let [services, targets, upstreams] = self.counts.get(name).copied().unwrap_or_default();
        targets > 0 || (services > 0 && upstreams == 0)
    }
}
