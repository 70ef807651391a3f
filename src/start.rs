//! Process-level start of a node: both planes, signals, the end.
//! Always: sockets are bound before the account changes; traffic is served before the Admin API opens; what was
//! acknowledged is on disk before the process ends.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ringway::config::Loaded;
use ringway::config::Settings;
use ringway::control::Asked;
use ringway::control::Control;
use ringway::control::access_log::AccessLog;
use ringway::control::log_switch::LogSwitch;
use ringway::control::node::ThisNode;
use ringway::control::publish::Acknowledged;
use ringway::control::publish::CoreEnd;
use ringway::control::ship::Dock;
use ringway::plugins::PLUGINS;
use ringway::plugins::cache::Cache;
use ringway::proxy::listener;
use ringway::proxy::steering::Fleet;
use ringway::proxy::worker;
use ringway::proxy::worker::NodeFacts;
use ringway::proxy::worker::Seed;
use ringway::state::mailbox::Outbox;
use ringway::state::mailbox::mailbox;

use crate::cli::account::become_user;
use crate::cli::logging::Log;
use crate::cli::source::ConfigSource;
use crate::cli::source::SourceError;

/// How long the Admin API may take to finish its requests at the end.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a drain looks whether the cores have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Names of the plugins that the program has.
pub fn plugin_names() -> Vec<&'static str> {
    PLUGINS.iter().map(|kind| kind.schema.name).collect()
}

/// Runs the node until a signal ends it. `source` is what SIGHUP reads again.
pub fn start(settings: Settings, source: &ConfigSource, log: &Log) -> Result<(), String> {
    let mut settings = Arc::new(settings);
    let cpus = worker::cpus();
    let count = settings.workers.on(cpus.len());
    let bound = listener::bind(&settings.proxy_listen, count, settings.tcp_congestion.as_deref())?;
    become_user(&settings)?;
    let (driver, why_not) = worker::choose(settings.driver)?;
    if let Some(why) = why_not {
        tracing::warn!("serving through epoll: {why}");
    }
    let log_level = LogSwitch::new(settings.log_level, {
        let log = log.clone();
        Box::new(move |level| log.set_level(level))
    });
    let node = ThisNode::open(&settings.prefix, log_level.clone())
        .map_err(|e| format!("{}: {e}", settings.prefix.display()))?;
    let debug_token = uuid::Uuid::new_v4().simple().to_string();
    if settings.request_debug && settings.request_debug_token.is_none() {
        tracing::info!("token for request debugging: {debug_token}");
    }
    let cache = Arc::new(Cache::with_bytes(settings.mem_cache_size as usize));
    let node = node.with_cache(cache.clone());
    let facts = NodeFacts {
        node_id: node.id().to_string(),
        hostname: node.hostname().to_owned(),
        spooled: Default::default(),
        debug_token: debug_token.into(),
        counts: Arc::default(),
        cache,
    };
    let acknowledged = Acknowledged::default();
    let (outbox, records) = Outbox::new(acknowledged.callback());
    let dock = Dock::new();
    let outbox = outbox.shipping(dock.ship());
    let access_log =
        AccessLog::start(settings.proxy_access_log.as_ref(), records, node.hostname()).map_err(|error| {
            let path = settings.proxy_access_log.as_ref().map(|log| log.path.display().to_string());
            format!("proxy_access_log {}: {error}", path.unwrap_or_default())
        })?;

    let (mut ends, mut mailboxes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (sender, mailbox) = mailbox().map_err(|error| format!("no socket for a mailbox: {error}"))?;
        ends.push(CoreEnd { sender, counters: Arc::default() });
        mailboxes.push(mailbox);
    }
    let fleet = Arc::new(Fleet::new(ends.iter().map(|end| (end.sender.clone(), end.counters.clone()))));
    let counters: Vec<_> = ends.iter().map(|end| end.counters.clone()).collect();
    let (mut control, initial) = Control::open(&settings, node, ends, acknowledged, dock)?;

    let outbox = outbox.asking(control.answering());
    let mut cores = Vec::new();
    for (index, ((mailbox, counters), listeners)) in mailboxes.into_iter().zip(counters).zip(bound.sockets).enumerate()
    {
        let seed = Seed {
            index,
            cpu: cpus.get(index % cpus.len().max(1)).copied(),
            listeners,
            settings: settings.clone(),
            driver,
            initial: initial.clone(),
            mailbox,
            outbox: outbox.clone(),
            counters,
            fleet: fleet.clone(),
            node: facts.clone(),
        };
        cores.push(worker::spawn(seed).map_err(|error| format!("no thread for core {index}: {error}"))?);
    }
    drop(initial);
    control.wait_until_served()?;
    for addr in &bound.addrs {
        tracing::info!("proxy listens on {addr} with {count} workers ({driver:?})");
    }
    control.open_admin(&settings, &bound.addrs)?;
    loop {
        match control.next_asked() {
            Asked::Reload => reload(&mut settings, source, &log_level, &control),
            Asked::ReopenLogs => {
                access_log.reopen();
                control.reopen_logs();
                if let Err(error) = log.reopen() {
                    tracing::error!("the log could not be opened again: {error}");
                }
            }
            Asked::Drain => {
                tracing::info!("finishing requests under way, for {} ms at most", settings.drain_timeout_ms);
                control.drain();
                wait_for(&cores, Duration::from_millis(settings.drain_timeout_ms));
                break;
            }
            Asked::Stop => break,
        }
    }
    control.stop();
    wait_for(&cores, ADMIN_PATIENCE);
    control.close(ADMIN_PATIENCE);
    access_log.finish(&outbox);
    tracing::info!("ended");
    Ok(())
}

/// Waits until all cores have ended, or the time is up.
fn wait_for(cores: &[JoinHandle<()>], patience: Duration) {
    let until = Instant::now() + patience;
    while !cores.iter().all(JoinHandle::is_finished) && Instant::now() < until {
        std::thread::sleep(DRAIN_LOOK);
    }
}

/// Reads the configuration again and applies what may change while running.
fn reload(settings: &mut Arc<Settings>, source: &ConfigSource, log_level: &LogSwitch, control: &Control) {
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(SourceError::Unreadable(error)) => return tracing::error!("nothing was reloaded: {error}"),
        Err(SourceError::Invalid(errors)) => {
            for error in &errors {
                tracing::error!("nothing was reloaded: {error}");
            }
            return;
        }
    };
    let Loaded { settings: fresh, warnings } = loaded;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let (merged, pending) = settings.reloaded(fresh);
    log_level.configure(merged.log_level);
    *settings = Arc::new(merged);
    control.apply_settings(settings.clone());
    match pending.as_slice() {
        [] => tracing::info!("configuration reloaded"),
        names => tracing::warn!("configuration reloaded; these changes take a restart: {}", names.join(", ")),
    }
}
