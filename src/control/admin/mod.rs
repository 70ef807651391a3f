//! The Admin API: what a client may ask of the control plane, answered as Kong answers.
//! Owns: the order in which a request is judged (spec/admin-api.md section 2.1) and what every answer carries.
//! Never: touches a socket (that is `server`), so that a test can ask it directly.
//! Always: a change is answered when it is durable and every core has applied it, or is reported as late.

pub mod access;
mod cached;
pub mod config;
pub mod crud;
mod debug;
pub mod declare;
mod declare_names;
pub mod declare_report;
pub mod decode;
mod deed;
pub mod document;
mod expansion;
mod explain;
mod explained;
mod exposition;
pub mod form;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod metrics;
pub mod page;
pub mod paths;
pub mod problem;
pub mod reply;
pub mod rows;
pub mod schemas;
pub mod server;
mod server_names;
pub mod status;
pub mod tags;
pub mod targets;

#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod credential_tests;
#[cfg(test)]
mod entity_tests;
#[cfg(test)]
mod plugin_tests;
#[cfg(test)]
mod property_rows;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use crate::control::admin::access::Access;
use crate::control::admin::debug::cache;
use crate::control::admin::decode::Format;
use crate::control::admin::decode::Input;
use crate::control::admin::form::Pair;
use crate::control::admin::paths::Endpoint;
use crate::control::admin::paths::Found;
use crate::control::admin::paths::Paths;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::schemas::filter_schema;
use crate::control::backends::Backends;
use crate::control::store::Publish;
use crate::control::store::Store;
use crate::control::unstalled;
use crate::entity::Entity;
use crate::entity::PluginSchema;
use crate::entity::vault;
use crate::metrics::counters::CoreCounters;
use crate::plugins::cache::Cache;
use crate::state::mailbox::Look;
use hyper::HeaderMap;
use hyper::Method;
use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::Map;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use uuid::Uuid;

/// What the Admin API shows of the node that it administers.
pub trait Node: Send + Sync + 'static {
    fn id(&self) -> Uuid;
    fn hostname(&self) -> String;
    /// One object per core for `GET /status`: `{"core": 0, "version": 7, ...}`.
    fn cores(&self) -> Vec<Value>;
    fn counters(&self) -> Counters;
    /// The upstreams as they are served.
    fn backends(&self) -> Option<&Backends> {
        None
    }
    /// Searches by host name; `None` with the DNS client that keeps none.
    fn dns_statistics(&self) -> Option<Map<String, Value>> {
        None
    }
    /// The counters of every core.
    fn core_counters(&self) -> Vec<&CoreCounters> {
        Vec::new()
    }
    /// Lets something look at the state of one core; `false`: there is none.
    fn show(&self, _look: Look) -> bool {
        false
    }
    /// What the plugin proxy-cache keeps.
    fn cached_responses(&self) -> Option<&Cache> {
        None
    }
    /// Resident memory of the process.
    fn memory_bytes(&self) -> u64;
    /// Whether the node was told to end.
    fn stopping(&self) -> bool {
        false
    }
    /// Whether traffic can be served; the error says why not.
    fn ready(&self) -> Result<(), String>;
    /// The level at which the node logs now.
    fn log_level(&self) -> String;
    /// Logs at another level (`debug`, `info`, ...) for some seconds, then as configured again; whether there is such a
    /// level.
    fn set_log_level(&self, level: &str, seconds: u64) -> bool;
}

/// Connections and requests of the proxy since start, or now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub connections_accepted: u64,
    pub connections_active: u64,
    pub connections_handled: u64,
    pub connections_reading: u64,
    pub connections_writing: u64,
    pub connections_waiting: u64,
    pub total_requests: u64,
}

/// A loaded plugin as the Admin API knows it.
#[derive(Clone, Copy, Debug)]
pub struct PluginInfo {
    pub schema: &'static PluginSchema,
    /// Kong's priority: higher runs earlier.
    pub priority: i64,
}

/// What the Admin API is told when it is made.
pub struct AdminConfig {
    /// `configuration` of `GET /`, with secrets already hidden.
    pub configuration: Map<String, Value>,
    pub plugins: Vec<PluginInfo>,
    /// The entity routes, as the router flavour declares it.
    pub routes: &'static Entity,
    pub live: Live,
    /// The document that the rows come from.
    pub loaded: config::Loaded,
}

/// What may change while the Admin API runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Origins (`scheme://host[:port]`) from which a browser may use the Admin API.
    pub gui_origins: Vec<String>,
    /// When set, every request over TCP must bring it.
    pub token: Option<String>,
    /// Whether answers carry `Server`, respectively `X-Kong-Admin-Latency`.
    pub shows_server: bool,
    pub shows_latency: bool,
    /// Largest body of a request.
    pub body_bytes_max: usize,
}

/// The head of one request.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// Raw, percent-encoded.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// It came to a loopback address.
    pub at_loopback: bool,
}

/// Which listener a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    Admin,
    /// The Admin API on a unix socket, which its file mode guards: no token is asked for.
    AdminSocket,
    /// Read-only and open to monitoring.
    Status,
}

/// The Kong version whose behaviour is kept.
pub const KONG_VERSION: &str = "3.10.0";
const SERVER: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));

/// The Admin API of one node.
pub struct Admin<P: Publish> {
    store: Arc<Store<P>>,
    node: Arc<dyn Node>,
    configuration: Map<String, Value>,
    plugins: Vec<PluginInfo>,
    routes: &'static Entity,
    live: RwLock<Arc<(Live, Access)>>,
    admin_paths: Paths,
    status_paths: Paths,
    loaded_document: Mutex<config::Loaded>,
    /// Set while a whole document is being loaded.
    loading: AtomicBool,
    /// Set by an operator who takes the node out of rotation.
    draining: AtomicBool,
}

fn with_access(live: Live) -> Arc<(Live, Access)> {
    let access = Access::new(live.gui_origins.clone(), live.token.clone());
    Arc::new((live, access))
}

/// A request on its way to the handler of its endpoint.
struct Call {
    method: Method,
    found: Found,
    query: Vec<Pair>,
    input: Input,
}

impl<P: Publish> Admin<P> {
    pub fn new(config: AdminConfig, store: Arc<Store<P>>, node: Arc<dyn Node>) -> Admin<P> {
        let loaded = |name: &str| config.plugins.iter().any(|plugin| plugin.schema.name == name);
        let admin_paths = Paths::admin(config.routes, &loaded);
        Admin {
            status_paths: Paths::status(store.is_in_memory().then_some(&admin_paths), &loaded),
            admin_paths,
            store,
            node,
            configuration: config.configuration,
            live: RwLock::new(with_access(config.live)),
            plugins: config.plugins,
            routes: config.routes,
            loaded_document: Mutex::new(config.loaded),
            loading: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Changes what may change while running.
    pub fn set_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = with_access(live);
    }

    /// Largest body that a request may have now.
    pub fn body_bytes_max(&self) -> usize {
        self.live().0.body_bytes_max
    }

    fn live(&self) -> Arc<(Live, Access)> {
        self.live.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Answers one request. Its body is read when, and only when, the head is acceptable and the method takes one.
    pub async fn answer(
        &self,
        request: Request,
        body: impl Future<Output = Result<Bytes, Problem>>,
        surface: Surface,
    ) -> Reply {
        let started = Instant::now();
        let asked_headers = request.headers.get("access-control-request-headers");
        let asked_headers = asked_headers.and_then(|asked| asked.to_str().ok()).unwrap_or("Content-Type").to_string();
        let preflight = request.method == Method::OPTIONS;
        let live = self.live();
        let (live, access) = &*live;
        let origin = access.allow_origin(&request.headers);
        let mut reply = match self.judge(access, request, body, surface).await {
            Ok(reply) => reply,
            Err(problem) => problem.into_reply(),
        };
        if preflight && reply.status == StatusCode::NO_CONTENT {
            reply = reply.with("Access-Control-Allow-Headers", asked_headers);
        }
        if let Some(origin) = origin {
            reply = reply.with("Access-Control-Allow-Origin", origin).with("Access-Control-Allow-Credentials", "true");
        }
        if live.shows_latency {
            reply = reply.with("X-Kong-Admin-Latency", started.elapsed().as_millis());
        }
        if live.shows_server {
            reply = reply.with("Server", SERVER);
        }
        reply
    }

    async fn judge(
        &self,
        access: &Access,
        request: Request,
        body: impl Future<Output = Result<Bytes, Problem>>,
        surface: Surface,
    ) -> Result<Reply, Problem> {
        let paths = match surface {
            Surface::Admin | Surface::AdminSocket => {
                let asks_token = surface == Surface::Admin;
                access.check(&request.method, &request.headers, asks_token, request.at_loopback)?;
                &self.admin_paths
            }
            Surface::Status => &self.status_paths,
        };
        if request.method == Method::TRACE {
            return Err(Problem::Page(StatusCode::METHOD_NOT_ALLOWED));
        }
        let takes_body = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
        let format = if takes_body { Some(decode::gate(&request.headers)?) } else { None };
        let found = paths.find(&request.path);
        let takes_yaml = found.as_ref().is_some_and(|found| matches!(found.endpoint, Endpoint::Config));
        if format == Some(Format::Yaml) && !takes_yaml {
            return Err(Problem::Page(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let Some(found) = found else {
            return Err(Problem::not_found());
        };
        let methods = found.methods();
        if request.method == Method::OPTIONS {
            let allow = found.allow();
            return Ok(Reply::empty().with("Allow", &allow).with("Access-Control-Allow-Methods", &allow));
        }
        if request.method == Method::HEAD && !methods.contains(&"GET") {
            return Ok(Reply { content_type: Some("text/html"), status: StatusCode::OK, ..Reply::empty() });
        }
        // HEAD is GET whose body the server leaves out.
        let method = if request.method == Method::HEAD { Method::GET } else { request.method };
        if !methods.contains(&method.as_str()) {
            return Err(Problem::Plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed".to_string()));
        }
        let query = decode::query(&request.query)?;
        let input = match format {
            Some(format) => decode::decode(format, body.await?).await?,
            None => Input::default(),
        };
        self.dispatch(Call { method, found, query, input }).await
    }

    async fn dispatch(&self, call: Call) -> Result<Reply, Problem> {
        match call.found.endpoint {
            Endpoint::Root => Ok(self.root()),
            Endpoint::Status => self.status(&call.query),
            Endpoint::Metrics => Ok(unstalled(|| self.metrics())),
            Endpoint::Ready => self.ready(&call),
            Endpoint::StatusDns => self.status_dns(),
            Endpoint::Endpoints => Ok(self.endpoints()),
            Endpoint::Robots => Ok(Reply::text(StatusCode::OK, "User-agent: *\nDisallow: /")),
            Endpoint::Config => self.config(call).await,
            Endpoint::Timers => Ok(self.timers()),
            Endpoint::Cache | Endpoint::CacheKey => cache(&call),
            Endpoint::ProxyCache => Ok(self.flush_cached()),
            Endpoint::ProxyCacheKey => self.cached(&call),
            Endpoint::ProxyCacheOfPlugin => self.cached_by_plugin(&call),
            Endpoint::LogLevel => Ok(self.log_level()),
            Endpoint::SetLogLevel => self.set_log_level(&call),
            Endpoint::Explain => self.explain(&call).await,
            Endpoint::EnabledPlugins => Ok(self.enabled_plugins()),
            Endpoint::EntitySchema => self.entity_schema(&call),
            Endpoint::EntityValidate => self.validate_entity(call),
            Endpoint::PluginSchema => self.plugin_schema(&call),
            Endpoint::PluginValidate => self.validate_plugin(call),
            Endpoint::PluginConfigSchema => self.plugin_config_schema(&call),
            Endpoint::VaultSchema => self.vault_schema(&call),
            Endpoint::FilterSchema => filter_schema(&call),
            Endpoint::VaultValidate => self.validate(&vault::VAULTS, call),
            Endpoint::Tags | Endpoint::Tag => self.tags(&call),
            Endpoint::Unavailable(_, why) => Err(Problem::bad_request(why)),
            Endpoint::Hidden(_) => Err(Problem::not_found()),
            Endpoint::Collection(entity) => self.collection(entity, call).await,
            Endpoint::Row(entity) => self.row(entity, call).await,
            Endpoint::Children(link) => self.children(link, call).await,
            Endpoint::Child(link) => self.child(link, call).await,
            Endpoint::Parent(link) => self.parent(link, call).await,
            Endpoint::UpstreamHealth(link) => self.upstream_health(link, &call),
            Endpoint::TargetHealth(link, healthy) => self.set_target_health(link, &call, healthy),
            Endpoint::Targets(link) => self.targets(link, call).await,
            Endpoint::TargetsAll(link) => self.targets_all(link, &call),
            Endpoint::Target(link) => self.target(link, call).await,
        }
    }

    /// The schema of a loaded plugin.
    fn plugin(&self, name: &str) -> Option<&'static PluginSchema> {
        self.plugins.iter().find(|plugin| plugin.schema.name == name).map(|plugin| plugin.schema)
    }
}
