//! Active health checks: asks every address whether it is well, and reports to the vitals that all cores share.
//! Owns: the rhythm of the probes of each upstream. Never: decides whether an address is available (that is the state machine).
//! Always: follows the configuration as it is now; an edit that keeps an address keeps its rhythm and its state.
//!
//! spec/balancer.md section 12.

mod one;
mod schedule;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use uuid::Uuid;

use crate::balancer::Peer;
use crate::balancer::checks::Checks;
use crate::balancer::checks::ProbeKind;
use crate::control::backends;
use crate::control::backends::Backends;
use crate::control::probe::one::Probe;
use crate::control::probe::schedule::Intervals;
use crate::control::probe::schedule::Key;
use crate::control::probe::schedule::Schedule;
use crate::control::tls::Trust;
use crate::state::peers::PeerSet;

/// How exact intervals are kept.
const TICK: Duration = Duration::from_millis(100);

/// The probes of one upstream.
struct Probed {
    set: Arc<PeerSet>,
    checks: Arc<Checks>,
    schedule: Schedule,
    under_way: Arc<Mutex<HashSet<Key>>>,
}

/// Probes all upstreams for as long as it is polled.
pub async fn run(backends: Backends, trust: Arc<Trust>) {
    let mut changes = backends.changes();
    let mut probed: HashMap<Uuid, Probed> = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    changes.mark_changed();
    loop {
        if probed.is_empty() {
            // Nothing to do until the configuration changes.
            if changes.changed().await.is_err() {
                return;
            }
            changes.mark_changed();
        }
        ticks.tick().await;
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            follow(&mut probed, backends.upstreams());
        }
        let now_ms = backends::now().ms;
        for upstream in probed.values_mut() {
            upstream.start_due(&trust, now_ms);
        }
    }
}

fn follow(probed: &mut HashMap<Uuid, Probed>, sets: Vec<Arc<PeerSet>>) {
    let mut before = std::mem::take(probed);
    for set in sets {
        let Some((id, checks)) = set.upstream.as_ref().and_then(|spec| Some((spec.id, spec.checks.clone()?))) else {
            continue;
        };
        if checks.active.healthy_interval_ms == 0 && checks.active.unhealthy_interval_ms == 0 {
            continue;
        }
        let (schedule, under_way) = before.remove(&id).map(|old| (old.schedule, old.under_way)).unwrap_or_default();
        probed.insert(id, Probed { set, checks, schedule, under_way });
    }
}

impl Probed {
    fn start_due(&mut self, trust: &Trust, now_ms: u64) {
        let active = &self.checks.active;
        let intervals =
            Intervals { available_ms: active.healthy_interval_ms, unavailable_ms: active.unhealthy_interval_ms };
        let peers: Vec<&Peer> = self.set.peers().iter().filter(|peer| peer.weight > 0).collect();
        let key = |peer: &&Peer| ((peer.addr, peer.vitals.host.clone()), peer.vitals.is_available());
        let addresses: Vec<(Key, bool)> = peers.iter().map(key).collect();
        for at in self.schedule.due(&addresses, intervals, now_ms) {
            let key = &addresses[at].0;
            let mut under_way = lock(&self.under_way);
            if under_way.len() >= active.concurrency as usize {
                // Whoever is left is still due at the next tick.
                break;
            }
            if under_way.insert(key.clone()) {
                self.schedule.started(key, now_ms);
                self.start(peers[at], key.clone(), trust);
            }
        }
    }

    fn start(&self, peer: &Peer, key: Key, trust: &Trust) {
        let (checks, vitals, under_way) = (self.checks.clone(), peer.vitals.clone(), self.under_way.clone());
        let probe = self.probe(peer, trust);
        tokio::spawn(async move {
            let came = one::shoot(&checks.active, &probe).await;
            tracing::debug!("probe of {} for {}: {came:?}", probe.addr, probe.host);
            if let Some((outcome, evidence)) = one::judge(&checks, came) {
                vitals.report_probe(&checks, outcome, evidence, backends::now());
            }
            lock(&under_way).remove(&key);
        });
    }

    fn probe(&self, peer: &Peer, trust: &Trust) -> Probe {
        let active = &self.checks.active;
        let host = self.set.host_header().unwrap_or(&peer.vitals.host);
        let tls = (active.kind == ProbeKind::Https).then(|| {
            let shown = self.set.upstream.as_ref().and_then(|spec| spec.client_certificate);
            let config = trust.config(active.https_verify_certificate, shown);
            let name = active.https_sni.as_deref().unwrap_or_else(|| without_port(host));
            (config, name.to_owned())
        });
        Probe { addr: peer.addr, host: host.to_owned(), tls }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
