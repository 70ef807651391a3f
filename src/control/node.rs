//! What the Admin API tells of this node.
//! Owns: the node's id, which survives restarts. Never: stops a core to count; it reads the cores' counters.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::config::LogLevel;
use crate::control::admin::Counters;
use crate::control::admin::Node;
use crate::control::backends::Backends;
use crate::control::log_switch::LogSwitch;
use crate::control::names::Names;
use crate::control::publish::CoreEnd;
use crate::metrics::counters::CoreCounters;
use crate::plugins::cache::Cache;
use crate::state::mailbox::Look;
use crate::state::mailbox::Post;

/// File below the prefix that holds the node's id.
const ID_FILE: &str = "node_id";

/// This node.
pub struct ThisNode {
    id: Uuid,
    hostname: String,
    cores: Arc<Vec<CoreEnd>>,
    draining: AtomicBool,
    /// With `new_dns_client`: what `GET /status/dns` tells of.
    dns: Option<Arc<Names>>,
    backends: Option<Backends>,
    cache: Option<Arc<Cache>>,
    log: Arc<LogSwitch>,
}

impl ThisNode {
    /// Reads the node's id from the prefix, or makes one and keeps it there.
    ///
    /// # Errors
    /// The file can neither be read nor written.
    pub fn open(prefix: &Path, log: Arc<LogSwitch>) -> io::Result<Self> {
        let path = prefix.join(ID_FILE);
        let known = std::fs::read_to_string(&path).ok().and_then(|text| Uuid::try_parse(text.trim()).ok());
        let id = match known {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                std::fs::write(&path, format!("{id}\n"))?;
                id
            }
        };
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            id,
            hostname: hostname.trim().to_owned(),
            cores: Arc::default(),
            draining: AtomicBool::new(false),
            dns: None,
            backends: None,
            cache: None,
            log,
        })
    }

    /// The node's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The host's name.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Shows what the plugin proxy-cache keeps.
    pub fn with_cache(mut self, cache: Arc<Cache>) -> Self {
        self.cache = Some(cache);
        self
    }

    pub(super) fn with_cores(mut self, cores: Arc<Vec<CoreEnd>>) -> Self {
        self.cores = cores;
        self
    }

    pub(super) fn with_backends(mut self, backends: Backends) -> Self {
        self.backends = Some(backends);
        self
    }

    pub(super) fn with_dns(mut self, dns: Option<Arc<Names>>) -> Self {
        self.dns = dns;
        self
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn sum(&self, pick: impl Fn(&CoreCounters) -> u64) -> u64 {
        self.cores.iter().map(|core| pick(&core.counters)).sum()
    }
}

impl Node for ThisNode {
    fn id(&self) -> Uuid {
        self.id
    }

    fn hostname(&self) -> String {
        self.hostname.clone()
    }

    fn cores(&self) -> Vec<Value> {
        let cores = self.cores.iter().enumerate();
        cores
            .map(|(index, core)| {
                let c = &core.counters;
                json!({"core": index, "version": c.version.get(), "connections_active": c.active.get(),
                       "connections_waiting": c.waiting.get(), "connections_parked": c.parked.get(), "connections_accepted": c.accepted.get(),
                       "connections_handed_over": c.handed_over.get(),
                       "requests": c.requests.get(), "upstream_connections": c.dialled.get(), "retries": c.retries.get(),
                       "bodies_not_spooled": c.bodies_not_spooled.get(),
                       "log_batches_dropped": c.records_dropped.get(), "panics": c.panics.get()})
            })
            .collect()
    }

    fn counters(&self) -> Counters {
        let (accepted, active) = (self.sum(|c| c.accepted.get()), self.sum(|c| c.active.get()));
        let waiting = self.sum(|c| c.waiting.get());
        Counters {
            connections_accepted: accepted,
            connections_active: active,
            connections_handled: accepted,
            connections_reading: 0,
            connections_writing: active.saturating_sub(waiting),
            connections_waiting: waiting,
            total_requests: self.sum(|c| c.requests.get()),
        }
    }

    fn backends(&self) -> Option<&Backends> {
        self.backends.as_ref()
    }

    fn core_counters(&self) -> Vec<&CoreCounters> {
        self.cores.iter().map(|core| &*core.counters).collect()
    }

    fn cached_responses(&self) -> Option<&Cache> {
        self.cache.as_deref()
    }

    fn show(&self, look: Look) -> bool {
        self.cores.first().is_some_and(|core| core.sender.post(Post::Show(look)))
    }

    fn dns_statistics(&self) -> Option<Map<String, Value>> {
        Some(self.dns.as_ref()?.statistics())
    }

    fn memory_bytes(&self) -> u64 {
        // Second number: resident pages.
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        pages * 4096
    }

    fn log_level(&self) -> String {
        self.log.current().word().to_owned()
    }

    fn set_log_level(&self, level: &str, seconds: u64) -> bool {
        let known = LogLevel::of(level);
        known.inspect(|level| self.log.set_for(*level, seconds)).is_some()
    }

    fn stopping(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn ready(&self) -> Result<(), String> {
        match self.stopping() {
            true => Err("draining".to_owned()),
            false => Ok(()),
        }
    }
}
