//! The control plane: everything that may block, allocate and take its time.
//! Owns: the tokio runtime, the store, the Admin API, host names, logs, signals. Never: touches a data core but by posting.
//! Always: a write is answered when it is durable and every core serves it; a restart serves before the Admin API opens.

mod access_line;
pub mod access_log;
pub mod admin;
mod answer;
pub mod backends;
pub mod declared;
pub mod log_switch;
pub mod names;
pub mod node;
mod probe;
pub mod publish;
mod reach;
pub mod ship;
pub mod store;
mod tls;
pub mod validate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::runtime::RuntimeFlavor;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::config::Database;
use crate::config::Listen;
use crate::config::ListenAddr;
use crate::config::RouterFlavor;
use crate::config::Settings;
use crate::control::access_log::AdminLog;
use crate::control::admin::Admin;
use crate::control::admin::AdminConfig;
use crate::control::admin::Live;
use crate::control::admin::Surface;
use crate::control::admin::config::Loaded;
use crate::control::admin::server::AdminServer;
use crate::control::admin::server::Bound;
use crate::control::admin::server::Listen as AdminListen;
use crate::control::answer::Desk;
use crate::control::node::ThisNode;
use crate::control::publish::Acknowledged;
use crate::control::publish::CoreEnd;
use crate::control::publish::Publisher;
use crate::control::reach::Reach;
use crate::control::ship::Dock;
use crate::control::ship::Shipper;
use crate::control::ship::World;
use crate::control::store::Opened;
use crate::control::store::Publish;
use crate::control::store::Store;
use crate::control::tls::FindCertificate;
use crate::control::tls::Trust;
use crate::entity;
use crate::entity::Entity;
use crate::entity::consumer::CONSUMERS;
use crate::entity::route;
use crate::state::delta::Delta;
use crate::state::mailbox;
use crate::state::mailbox::Post;
use crate::stdx::heap;

/// Does work that takes long for a task, in a way that lets other tasks go on.
pub(crate) fn unstalled<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The running control plane.
pub struct Control {
    runtime: Runtime,
    store: Arc<Store<Publisher>>,
    node: Arc<ThisNode>,
    server: Option<AdminServer>,
    admin: Option<Arc<Admin<Publisher>>>,
    admin_log: Option<Arc<AdminLog>>,
    /// The declarative document that the rows were read from.
    loaded: Loaded,
    reach: Arc<Reach>,
    shipper: Option<Shipper>,
}

/// What an operator asks of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// TERM, QUIT: finish what is under way, then end.
    Drain,
    /// INT: end now.
    Stop,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: open the log files again.
    ReopenLogs,
}

impl Control {
    /// Opens the store and compiles what it holds: the delta with which the cores start.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn open(
        settings: &Settings,
        node: ThisNode,
        cores: Vec<CoreEnd>,
        acknowledged: Acknowledged,
        dock: Dock,
    ) -> Result<(Self, Arc<Delta>), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ringway-control")
            .enable_all()
            .build()
            .map_err(|error| format!("the control runtime cannot start: {error}"))?;
        let _inside = runtime.enter();
        let (opened, loaded) = match settings.database {
            Database::Off => declared::open(settings)?,
            Database::Embedded => {
                let opened = runtime.block_on(Opened::open(&settings.database_path));
                (opened.map_err(|error| error.to_string())?, None)
            }
        };
        let rows: Vec<_> = opened.rows().collect();
        let disabled = rows.iter().filter(|row| row.entity == "plugins").filter_map(|row| {
            let name = row.parsed().row.as_ref()?.get("name")?.as_str()?.to_owned();
            (!settings.plugins.enabled(&name)).then_some(name)
        });
        if let Some(name) = disabled.into_iter().next() {
            return Err(format!("the plugin {name} is in use but not enabled; add it to the property plugins"));
        }
        let started = Publisher::start(settings, cores, acknowledged, opened.version(), &rows);
        let (publisher, initial) = started.map_err(|refusals| {
            let reasons = refusals.iter().map(|r| format!("\n  {} {} {}: {}", r.entity, r.id, r.field, r.message));
            let reasons: String = reasons.collect();
            let place = match settings.database {
                Database::Off => "the declarative configuration".to_string(),
                Database::Embedded => settings.database_path.display().to_string(),
            };
            format!("{place} holds what this version cannot serve:{reasons}")
        })?;
        // Of the rows' values only what was compiled from them stays.
        drop(rows);
        heap::give_back();
        let dns = settings.new_dns_client.then(|| publisher.names().clone());
        let node = Arc::new(
            node.with_cores(publisher.cores().clone()).with_dns(dns).with_backends(publisher.backends().clone()),
        );
        let backends = publisher.backends().clone();
        let registry = publisher.shipping().clone();
        let store = opened.into_store(publisher);
        let trust = Trust::new(&settings.lua_ssl_trusted_certificate, certificates(store.clone()))?;
        let trust = Arc::new(trust);
        let reach = Arc::new(Reach::new(store.publisher().names().clone(), trust.clone()));
        runtime.spawn(probe::run(backends, trust));
        runtime.spawn(store.clone().purge());
        let world = World {
            runtime: runtime.handle().clone(),
            reach: reach.clone(),
            syslog_socket: settings.syslog_socket.clone(),
            node_id: node.id().to_string(),
            instrumented: settings.tracing_instrumentations,
        };
        let facts = ship::NodeFacts { id: node.id().to_string(), hostname: node.hostname().to_owned() };
        let shipper = Shipper::start(dock, registry, world, facts, consumers_of(store.clone()));
        let shipper = Some(shipper.map_err(|error| format!("no thread for the shipper: {error}"))?);
        drop(_inside);
        Ok((Self { runtime, store, node, server: None, admin: None, admin_log: None, loaded, reach, shipper }, initial))
    }

    /// Where the questions of plugins go, for [`Outbox::asking`](crate::state::mailbox::Outbox::asking).
    pub fn answering(&self) -> Arc<dyn Fn(mailbox::Asked) -> bool + Send + Sync> {
        let _inside = self.runtime.enter();
        Desk::open(self.store.clone(), self.reach.clone())
    }

    /// Waits until every core serves the configuration that was opened.
    ///
    /// # Errors
    /// Cores that did not come up in time.
    pub fn wait_until_served(&self) -> Result<(), String> {
        let version = self.store.view().version;
        let applied = self.runtime.block_on(Publisher::wait(self.store.publisher().served(version)));
        match applied.late.as_slice() {
            [] => Ok(()),
            late => Err(format!("cores {late:?} did not start in time")),
        }
    }

    /// Opens the Admin API and the status listener.
    ///
    /// # Errors
    /// The address that cannot be bound.
    pub fn open_admin(&mut self, settings: &Settings, proxy: &[SocketAddr]) -> Result<(), String> {
        let _inside = self.runtime.enter();
        let surfaces = [(&settings.admin_listen, Surface::Admin), (&settings.status_listen, Surface::Status)];
        let wanted: Vec<_> = surfaces
            .into_iter()
            .flat_map(|(listens, surface)| listens.iter().map(move |listen| admin_address(listen, surface)))
            .collect();
        let bound = Bound::bind(&wanted).map_err(|error| error.to_string())?;
        let addrs = bound.local_addrs().map_err(|error| error.to_string())?;
        for (addr, surface) in &addrs {
            let what = if *surface == Surface::Status { "status" } else { "admin" };
            match addr {
                AdminListen::Tcp(addr) => tracing::info!("{what} listens on {addr}"),
                AdminListen::Unix(path) => tracing::info!("{what} listens on unix:{}", path.display()),
            }
        }
        let tcp = |wanted| addrs.iter().filter_map(move |(addr, surface)| tcp_address(addr, *surface == wanted));
        let mut configuration = settings.describe();
        configuration.insert(
            "proxy_listeners".into(),
            listeners(proxy.iter().zip(&settings.proxy_listen).map(|(addr, listen)| (*addr, listen.proxy_protocol))),
        );
        configuration.insert("admin_listeners".into(), listeners(tcp(Surface::Admin).map(|addr| (addr, false))));
        configuration.insert("status_listeners".into(), listeners(tcp(Surface::Status).map(|addr| (addr, false))));
        let config = AdminConfig {
            configuration,
            plugins: declared::plugins(settings),
            routes: routes(settings.router_flavor),
            live: live(settings),
            loaded: self.loaded.clone(),
        };
        let admin = Arc::new(Admin::new(config, self.store.clone(), self.node.clone()));
        let log = settings.admin_access_log.as_ref().map(|log| AdminLog::open(log, self.node.hostname())).transpose();
        let log = log.map_err(|error| format!("admin_access_log: {error}"))?.map(Arc::new);
        self.server = Some(bound.serve(admin.clone(), log.clone()));
        self.admin = Some(admin);
        self.admin_log = log;
        Ok(())
    }

    /// Waits for the next signal.
    pub fn next_asked(&self) -> Asked {
        self.runtime.block_on(async {
            let on = |kind| signal(kind).expect("these signals may be caught");
            let (mut term, mut quit) = (on(SignalKind::terminate()), on(SignalKind::quit()));
            let (mut int, mut hup) = (on(SignalKind::interrupt()), on(SignalKind::hangup()));
            let mut usr1 = on(SignalKind::user_defined1());
            tokio::select! {
                _ = term.recv() => Asked::Drain,
                _ = quit.recv() => Asked::Drain,
                _ = int.recv() => Asked::Stop,
                _ = hup.recv() => Asked::Reload,
                _ = usr1.recv() => Asked::ReopenLogs,
            }
        })
    }

    /// Opens the Admin API's log again, after it was moved away.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.admin_log {
            log.reopen();
        }
    }

    /// Gives the cores settings that may change while running, and reads the hosts file again.
    pub fn apply_settings(&self, settings: Arc<Settings>) {
        if let Some(admin) = &self.admin {
            admin.set_live(live(&settings));
            if settings.database == Database::Off {
                match declared::text(&settings) {
                    Ok(None) => {}
                    Ok(Some((_, text))) => match self.runtime.block_on(admin.reload(&text)) {
                        Ok(()) => tracing::info!("the declarative configuration was read again"),
                        Err(reason) => tracing::error!("the declarative configuration was not loaded: {reason}"),
                    },
                    Err(reason) => tracing::error!("{reason}"),
                }
            }
        }
        self.store.publisher().names().read_hosts_again();
        self.store.publisher().tell(&Post::Settings(settings));
    }

    /// Tells the cores to finish what is under way and to end.
    pub fn drain(&self) {
        self.node.set_draining();
        self.store.publisher().tell(&Post::Drain);
    }

    /// Tells the cores to end at once.
    pub fn stop(&self) {
        self.node.set_draining();
        self.store.publisher().tell(&Post::Stop);
    }

    /// Closes the Admin API, lets writes in progress finish, closes the store.
    pub fn close(mut self, patience: Duration) {
        // The cores have ended: what they handed over is all there is.
        if let Some(shipper) = self.shipper.take() {
            shipper.finish(patience);
        }
        let server = self.server.take();
        let store = self.store.clone();
        self.runtime.block_on(async {
            if let Some(server) = server {
                server.stop(patience).await;
            }
            store.close().await;
        });
        self.runtime.shutdown_timeout(patience);
    }
}

/// The stored certificates, for probes.
fn certificates(store: Arc<Store<Publisher>>) -> FindCertificate {
    Box::new(move |id| {
        let row = store.view().get(entity::find("certificates")?, id)?.row();
        let text = |field: &str| row.get(field)?.as_str().map(str::to_owned);
        Some((text("cert")?, text("key")?))
    })
}

/// For each batch of records: consumers as they are stored then.
fn consumers_of(store: Arc<Store<Publisher>>) -> ship::FindConsumer {
    Box::new(move || {
        let tables = store.view();
        Box::new(move |id| Some(tables.get(&CONSUMERS, id)?.body.clone()))
    })
}

fn routes(flavor: RouterFlavor) -> &'static Entity {
    match flavor {
        RouterFlavor::TraditionalCompatible => &route::ROUTES,
        RouterFlavor::Traditional => &route::ROUTES_TRADITIONAL,
        RouterFlavor::Expressions => &route::ROUTES_EXPRESSIONS,
    }
}

fn tcp_address(addr: &AdminListen, wanted: bool) -> Option<SocketAddr> {
    match addr {
        AdminListen::Tcp(addr) if wanted => Some(*addr),
        _ => None,
    }
}

/// What of the settings the Admin API follows while it runs.
fn live(settings: &Settings) -> Live {
    Live {
        gui_origins: settings.admin_gui_url.clone(),
        token: settings.admin_token.as_ref().map(|token| String::from_utf8_lossy(token.expose()).into_owned()),
        shows_server: settings.headers.server,
        shows_latency: settings.headers.admin_latency,
        body_bytes_max: usize::try_from(settings.admin_client_max_body_size).unwrap_or(usize::MAX),
    }
}

/// Listeners as Kong shows them in `GET /`.
fn listeners(addrs: impl Iterator<Item = (SocketAddr, bool)>) -> Value {
    addrs
        .map(|(addr, proxy_protocol)| {
            json!({"ip": addr.ip().to_string(), "port": addr.port(), "listener": addr.to_string(),
                   "ssl": false, "http2": false, "proxy_protocol": proxy_protocol})
        })
        .collect()
}

fn admin_address(listen: &Listen, surface: Surface) -> (AdminListen, Surface) {
    match (&listen.addr, surface) {
        (ListenAddr::Tcp(addr), surface) => (AdminListen::Tcp(*addr), surface),
        (ListenAddr::Unix(path), Surface::Status) => (AdminListen::Unix(path.clone()), surface),
        (ListenAddr::Unix(path), _) => (AdminListen::Unix(path.clone()), Surface::AdminSocket),
    }
}
