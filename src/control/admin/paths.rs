//! Which paths exist and what they lead to: special ones from one table, the others from `ENTITIES`.
//! Owns: matching of raw path segments (spec/admin-api.md section 1.2). Never: looks at a row.
//! Always: literal segments win over variable ones.

use crate::entity::ENTITIES;
use crate::entity::Entity;
use crate::entity::in_flavor;
use percent_encoding::percent_decode_str;

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint {
    Root,
    Status,
    Metrics,
    Ready,
    StatusDns,
    Endpoints,
    Robots,
    Config,
    Timers,
    Cache,
    CacheKey,
    ProxyCache,
    ProxyCacheKey,
    ProxyCacheOfPlugin,
    LogLevel,
    SetLogLevel,
    Explain,
    EnabledPlugins,
    EntitySchema,
    EntityValidate,
    PluginSchema,
    PluginValidate,
    PluginConfigSchema,
    VaultSchema,
    VaultValidate,
    FilterSchema,
    Tags,
    Tag,
    /// Exists in Kong, does nothing here: the methods it knows and what it says.
    Unavailable(&'static [&'static str], &'static str),
    /// Exists in Kong and is always 404: the methods it knows.
    Hidden(&'static [&'static str]),
    Collection(&'static Entity),
    Row(&'static Entity),
    Children(Link),
    Child(Link),
    /// The row that a row refers to.
    Parent(Link),
    Targets(Link),
    TargetsAll(Link),
    Target(Link),
    UpstreamHealth(Link),
    /// Sets what is named healthy (`true`) or unhealthy.
    TargetHealth(Link, bool),
}

/// Children of one entity below their parent.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub parent: &'static Entity,
    pub child: &'static Entity,
    /// The child's field that refers to the parent.
    pub field: &'static str,
}

const COLLECTION: &[&str] = &["GET", "POST"];
const ROW: &[&str] = &["DELETE", "GET", "PATCH", "PUT"];
const READ: &[&str] = &["GET"];
const NO_WASM: &str = "this endpoint is only available when wasm is enabled";
const NO_CLUSTER: &str =
    "this endpoint is only available when Kong is configured to run as Control Plane for the cluster";

/// The special paths of the Admin API.
const SPECIAL: &[(&str, Endpoint)] = &[
    ("/", Endpoint::Root),
    ("/status", Endpoint::Status),
    ("/status/dns", Endpoint::StatusDns),
    ("/endpoints", Endpoint::Endpoints),
    ("/robots.txt", Endpoint::Robots),
    ("/config", Endpoint::Config),
    ("/timers", Endpoint::Timers),
    ("/cache", Endpoint::Cache),
    ("/cache/{key}", Endpoint::CacheKey),
    ("/debug/node/log-level", Endpoint::LogLevel),
    ("/debug/node/log-level/{log_level}", Endpoint::SetLogLevel),
    ("/debug/cluster/log-level/{log_level}", Endpoint::SetLogLevel),
    ("/explain", Endpoint::Explain),
    ("/plugins/enabled", Endpoint::EnabledPlugins),
    ("/plugins/schema/{name}", Endpoint::PluginConfigSchema),
    ("/schemas/{name}", Endpoint::EntitySchema),
    ("/schemas/{db_entity_name}/validate", Endpoint::EntityValidate),
    ("/schemas/plugins/{name}", Endpoint::PluginSchema),
    ("/schemas/plugins/validate", Endpoint::PluginValidate),
    ("/schemas/vaults/{name}", Endpoint::VaultSchema),
    ("/schemas/vaults/validate", Endpoint::VaultValidate),
    ("/tags", Endpoint::Tags),
    ("/tags/{tags}", Endpoint::Tag),
    ("/targets", Endpoint::Hidden(COLLECTION)),
    ("/targets/{targets}", Endpoint::Hidden(ROW)),
    ("/targets/{targets}/upstream", Endpoint::Hidden(ROW)),
    ("/filter-chains", Endpoint::Unavailable(COLLECTION, NO_WASM)),
    ("/filter-chains/{filter_chains}", Endpoint::Unavailable(ROW, NO_WASM)),
    ("/filter-chains/{filter_chains}/route", Endpoint::Unavailable(ROW, NO_WASM)),
    ("/filter-chains/{filter_chains}/service", Endpoint::Unavailable(ROW, NO_WASM)),
    ("/routes/{routes}/filters/all", Endpoint::Unavailable(READ, NO_WASM)),
    ("/routes/{routes}/filters/disabled", Endpoint::Unavailable(READ, NO_WASM)),
    ("/routes/{routes}/filters/enabled", Endpoint::Unavailable(READ, NO_WASM)),
    ("/schemas/filters/{name}", Endpoint::FilterSchema),
    ("/clustering/data-planes", Endpoint::Unavailable(READ, NO_CLUSTER)),
    ("/clustering/status", Endpoint::Unavailable(READ, NO_CLUSTER)),
];

/// What comes with a plugin, on all listeners.
const OF_PLUGINS: &[(&str, &str, Endpoint)] = &[("prometheus", "/metrics", Endpoint::Metrics)];

/// What comes with a plugin on the Admin listeners alone.
const ADMIN_OF_PLUGINS: &[(&str, &str, Endpoint)] = &[
    ("proxy-cache", "/proxy-cache", Endpoint::ProxyCache),
    ("proxy-cache", "/proxy-cache/{cache_key}", Endpoint::ProxyCacheKey),
    ("proxy-cache", "/proxy-cache/{plugin_id}/caches/{cache_key}", Endpoint::ProxyCacheOfPlugin),
];

/// The paths of the status listener.
const STATUS_ONLY: &[(&str, Endpoint)] = &[
    ("/status", Endpoint::Status),
    ("/status/dns", Endpoint::StatusDns),
    ("/status/ready", Endpoint::Ready),
    ("/robots.txt", Endpoint::Robots),
];

#[derive(Clone, Debug)]
pub struct Path {
    pub pattern: String,
    pub endpoint: Endpoint,
    /// Only its GET is offered.
    reads_only: bool,
}

/// All paths of one listener.
#[derive(Debug)]
pub struct Paths(Vec<Path>);

/// A path that was found, with its variable segments decoded.
#[derive(Debug)]
pub struct Found {
    pub endpoint: Endpoint,
    reads_only: bool,
    pub variables: Vec<Variable>,
}

/// A variable segment as written, and decoded (`Err`: not UTF-8, position of the first bad byte, from 1).
#[derive(Debug)]
pub struct Variable {
    pub raw: String,
    pub decoded: Result<String, usize>,
}

impl Found {
    /// The methods of the path here, as `Endpoint::methods`.
    pub fn methods(&self) -> &'static [&'static str] {
        if self.reads_only { READ } else { self.endpoint.methods() }
    }

    /// The value of `Allow`.
    pub fn allow(&self) -> String {
        let mut methods = self.methods().to_vec();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.join(", ")
    }
}

impl Endpoint {
    /// The methods a path has, without HEAD and OPTIONS, in alphabetical order.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Endpoint::Collection(_)
            | Endpoint::Children(_)
            | Endpoint::Targets(_)
            | Endpoint::Tags
            | Endpoint::Config => COLLECTION,
            Endpoint::Row(_) | Endpoint::Child(_) | Endpoint::Parent(_) | Endpoint::Target(_) => ROW,
            Endpoint::Explain | Endpoint::EntityValidate | Endpoint::PluginValidate | Endpoint::VaultValidate => {
                &["POST"]
            }
            Endpoint::Tag | Endpoint::CacheKey | Endpoint::ProxyCacheKey | Endpoint::ProxyCacheOfPlugin => {
                &["DELETE", "GET"]
            }
            Endpoint::Cache | Endpoint::ProxyCache => &["DELETE"],
            Endpoint::TargetHealth(..) => &["PUT"],
            Endpoint::SetLogLevel => &["PUT"],
            Endpoint::Unavailable(methods, _) | Endpoint::Hidden(methods) => methods,
            Endpoint::Ready => COLLECTION,
            _ => READ,
        }
    }
}

impl Paths {
    /// The paths of the Admin API, for the entities whose plugin is loaded.
    pub fn admin(routes: &'static Entity, loaded: &dyn Fn(&str) -> bool) -> Paths {
        let mut paths: Vec<Path> =
            SPECIAL.iter().map(|(pattern, endpoint)| path(pattern.to_string(), *endpoint)).collect();
        paths.extend(of_plugins(OF_PLUGINS, loaded));
        paths.extend(of_plugins(ADMIN_OF_PLUGINS, loaded));
        let entities: Vec<&'static Entity> = ENTITIES.iter().map(|entity| in_flavor(entity, routes)).collect();
        let present = |entity: &&&'static Entity| entity.needs_plugin.is_none_or(loaded);
        for entity in entities.iter().filter(present) {
            let Some(collection) = entity.collection else {
                continue;
            };
            let row = format!("/{collection}/{{{}}}", entity.name);
            paths.push(path(format!("/{collection}"), Endpoint::Collection(entity)));
            paths.push(path(row.clone(), Endpoint::Row(entity)));
            for reference in entity.references() {
                if let Some(parent) = crate::entity::find(reference.entity).map(|parent| in_flavor(parent, routes)) {
                    let link = Link { parent, child: entity, field: reference.field };
                    let endpoint = if entity.hides_parents { Endpoint::Hidden(ROW) } else { Endpoint::Parent(link) };
                    paths.push(path(format!("{row}/{}", reference.field), endpoint));
                }
            }
            for child in entities.iter().filter(present).filter(|child| !child.segment.is_empty()) {
                for reference in child.references().filter(|reference| reference.entity == entity.name) {
                    let link = Link { parent: entity, child, field: reference.field };
                    paths.extend(nested(&row, link));
                }
            }
        }
        for kind in ["services", "routes"] {
            let below = format!("/{kind}/{{{kind}}}/filter-chains");
            paths.push(path(below.clone(), Endpoint::Unavailable(COLLECTION, NO_WASM)));
            paths.push(path(format!("{below}/{{filter_chains}}"), Endpoint::Unavailable(ROW, NO_WASM)));
        }
        Paths::sorted(paths)
    }

    /// The paths of the status listener; without a database also what the Admin API `reads` of upstreams.
    pub fn status(reads: Option<&Paths>, loaded: &dyn Fn(&str) -> bool) -> Paths {
        let own = STATUS_ONLY.iter().map(|(pattern, endpoint)| path(pattern.to_string(), *endpoint));
        let own = own.chain(of_plugins(OF_PLUGINS, loaded));
        let below_upstreams = reads.into_iter().flat_map(|paths| &paths.0).filter(|path| {
            path.pattern.starts_with("/upstreams/{upstreams}/") && path.endpoint.methods().contains(&"GET")
        });
        Paths::sorted(own.chain(below_upstreams.map(|path| Path { reads_only: true, ..path.clone() })).collect())
    }

    fn sorted(mut paths: Vec<Path>) -> Paths {
        // `/` before any other character; `{` is behind all letters, so a literal comes before a variable.
        paths.sort_by(|a, b| a.pattern.split('/').cmp(b.pattern.split('/')));
        Paths(paths)
    }

    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|path| path.pattern.as_str())
    }

    /// Finds a raw path, as written or without its last slash.
    pub fn find(&self, raw: &str) -> Option<Found> {
        let shorter = raw.strip_suffix('/').filter(|shorter| !shorter.is_empty());
        self.find_exactly(raw).or_else(|| shorter.and_then(|shorter| self.find_exactly(shorter)))
    }

    fn find_exactly(&self, raw: &str) -> Option<Found> {
        let found = self.0.iter().find(|path| matches(&path.pattern, raw))?;
        let segments = found.pattern.split('/').zip(raw.split('/'));
        let variables = segments.filter(|(wanted, _)| is_variable(wanted)).map(|(_, given)| variable(given)).collect();
        Some(Found { endpoint: found.endpoint, reads_only: found.reads_only, variables })
    }
}

fn of_plugins(paths: &'static [(&str, &str, Endpoint)], loaded: &dyn Fn(&str) -> bool) -> impl Iterator<Item = Path> {
    let there = paths.iter().filter(move |(plugin, ..)| loaded(plugin));
    there.map(|(_, pattern, endpoint)| path(pattern.to_string(), *endpoint))
}

fn path(pattern: String, endpoint: Endpoint) -> Path {
    Path { pattern, endpoint, reads_only: false }
}

/// Targets have a life of their own below their upstream; other children are alike.
fn nested(row: &str, link: Link) -> Vec<Path> {
    let children = format!("{row}/{}", link.child.segment);
    let child = format!("{children}/{{{}}}", link.child.name);
    if link.child.collection.is_none() {
        return vec![
            path(format!("{row}/health"), Endpoint::UpstreamHealth(link)),
            path(format!("{child}/healthy"), Endpoint::TargetHealth(link, true)),
            path(format!("{child}/unhealthy"), Endpoint::TargetHealth(link, false)),
            path(format!("{child}/{{address}}/healthy"), Endpoint::TargetHealth(link, true)),
            path(format!("{child}/{{address}}/unhealthy"), Endpoint::TargetHealth(link, false)),
            path(format!("{children}/all"), Endpoint::TargetsAll(link)),
            path(children, Endpoint::Targets(link)),
            path(child, Endpoint::Target(link)),
        ];
    }
    vec![path(children, Endpoint::Children(link)), path(child, Endpoint::Child(link))]
}

fn matches(pattern: &str, raw: &str) -> bool {
    let mut given = raw.split('/');
    let fits = pattern.split('/').all(|wanted| match given.next() {
        Some(segment) if is_variable(wanted) => !segment.is_empty(),
        Some(segment) => segment == wanted,
        None => false,
    });
    fits && given.next().is_none()
}

fn is_variable(segment: &str) -> bool {
    segment.starts_with('{')
}

fn variable(raw: &str) -> Variable {
    let bytes: Vec<u8> = percent_decode_str(raw).collect();
    let decoded = String::from_utf8(bytes).map_err(|error| error.utf8_error().valid_up_to() + 1);
    Variable { raw: raw.to_string(), decoded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::route::ROUTES;

    fn found(raw: &str) -> Option<(String, Vec<String>)> {
        let found = Paths::admin(&ROUTES, &|_| true).find(raw)?;
        let variables = found.variables.into_iter().filter_map(|variable| variable.decoded.ok()).collect();
        Some((format!("{:?}", found.endpoint).split('(').next().unwrap_or_default().to_string(), variables))
    }

    #[test]
    fn literals_win_over_variables() {
        assert_eq!(found("/plugins/enabled").unwrap().0, "EnabledPlugins");
        assert_eq!(found("/upstreams/x/targets/all").unwrap().0, "TargetsAll");
        assert_eq!(found("/schemas/plugins/validate").unwrap().0, "PluginValidate");
        assert_eq!(found("/schemas/routes/validate").unwrap().0, "EntityValidate");
        assert_eq!(found("/schemas/plugins/key-auth").unwrap().0, "PluginSchema");
    }

    #[test]
    fn segments_are_split_raw_and_decoded_later() {
        assert_eq!(found("/consumers/a%20b%2Fc"), Some(("Row".into(), vec!["a b/c".into()])));
        assert_eq!(found("/consumers/a+b"), Some(("Row".into(), vec!["a+b".into()])));
        assert_eq!(found("/consumers/x/key-auth/k"), Some(("Child".into(), vec!["x".into(), "k".into()])));
    }

    #[test]
    fn one_trailing_slash_is_forgiven_and_nothing_else() {
        assert_eq!(found("/services/").unwrap().0, "Collection");
        assert_eq!(found("/services/x/").unwrap().0, "Row");
        for unknown in ["//services", "/Services", "/services//", "/services/x/nope", "/nope", ""] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn without_a_database_the_status_listener_shows_targets_and_changes_nothing() {
        let admin = Paths::admin(&ROUTES, &|_| true);
        let status = Paths::status(Some(&admin), &|_| true);
        assert_eq!(status.find("/upstreams/u/targets").unwrap().allow(), "GET, HEAD, OPTIONS");
        assert!(status.find("/upstreams").is_none() && status.find("/services").is_none());
        assert!(Paths::status(None, &|_| true).find("/upstreams/u/targets").is_none());
    }

    #[test]
    fn entities_of_plugins_that_are_not_loaded_have_no_paths() {
        let paths = Paths::admin(&ROUTES, &|_| false);
        assert!(paths.find("/key-auths").is_none() && paths.find("/metrics").is_none());
        assert!(Paths::status(None, &|_| false).find("/metrics").is_none());
        assert!(paths.find("/consumers/x/key-auth").is_none());
    }

    #[test]
    fn allow_is_alphabetical() {
        let paths = Paths::admin(&ROUTES, &|_| true);
        let allow = |raw: &str| paths.find(raw).unwrap().allow();
        assert_eq!(allow("/"), "GET, HEAD, OPTIONS");
        assert_eq!(allow("/services"), "GET, HEAD, OPTIONS, POST");
        assert_eq!(allow("/services/x"), "DELETE, GET, HEAD, OPTIONS, PATCH, PUT");
        assert_eq!(allow("/schemas/services/validate"), "OPTIONS, POST");
    }
}
