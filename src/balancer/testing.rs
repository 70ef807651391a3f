//! A balancer on one core, for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balancer::Ask;
use crate::balancer::Balancer;
use crate::balancer::Blueprint;
use crate::balancer::Guard;
use crate::balancer::Local;
use crate::balancer::Peer;
use crate::balancer::Tried;
use crate::balancer::algorithm;
use crate::balancer::checks::Seen;
use crate::balancer::checks::checks_for_test;
use crate::balancer::vitals::Now;
use crate::balancer::vitals::Pulse;
use crate::balancer::vitals::Vitals;

/// One upstream with health checks on (any single failure of traffic ejects), each peer a target of its own.
pub struct Rig {
    balancer: Balancer,
    targets: Vec<(Arc<str>, u16)>,
    pub local: Local,
    pub slots: u32,
}

impl Rig {
    pub fn new(algorithm: &str, weights: &[u32]) -> Self {
        Self::with_threshold(algorithm, weights, 0.0)
    }

    pub fn with_threshold(name: &str, weights: &[u32], threshold_percent: f64) -> Self {
        let pulse = Arc::new(Pulse::new(1, Arc::new(|_| {})));
        let host: Arc<str> = Arc::from("t");
        let peer = |(index, &weight): (usize, &u32)| {
            let addr = SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16));
            let vitals = Arc::new(Vitals::new(addr, host.clone(), pulse.clone()));
            Peer { addr, host: host.clone(), weight, target: index as u32, vitals }
        };
        let peers: Vec<_> = weights.iter().enumerate().map(peer).collect();
        let targets: Vec<_> = peers.iter().map(|peer| (host.clone(), peer.addr.port())).collect();
        let mut checks = checks_for_test();
        checks.passive.limits.tcp_failures = 1;
        let guard = Guard { checks: Arc::new(checks), pulse };
        let kind = algorithm(name).expect("a known algorithm");
        let balancer = Balancer::new(kind, peers, &targets, 10_000, Some(guard), threshold_percent);
        Self { balancer, targets, local: Local::default(), slots: 10_000 }
    }

    pub fn blueprint(&self) -> Blueprint<'_> {
        Blueprint { peers: self.peers(), targets: &self.targets, slots: self.slots }
    }

    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// A pick as any core makes it, with what it keeps to itself.
    pub fn pick_on(balancer: &Balancer, local: &Local, hash: u32) -> Option<usize> {
        let ask = Ask { turn: &local.turn, tried: &Tried::default(), hash, now_ms: 0, may_repeat: true };
        Some(balancer.pick(local, &ask)?.peer.target as usize)
    }

    pub fn peers(&self) -> &[Peer] {
        self.balancer.peers()
    }

    fn ask(&self, now_ms: u64, hash: u32, failed: &[usize], may_repeat: bool) -> Option<(usize, bool)> {
        let mut tried = Tried::default();
        failed.iter().for_each(|&index| tried.add(self.peers()[index].addr));
        let ask = Ask { turn: &self.local.turn, tried: &tried, hash, now_ms, may_repeat };
        let pick = self.balancer.pick(&self.local, &ask)?;
        Some((pick.peer.target as usize, pick.is_trial))
    }

    pub fn pick_at(&self, now_ms: u64) -> Option<usize> {
        Some(self.ask(now_ms, 0, &[], true)?.0)
    }

    pub fn pick_hash(&self, hash: u32) -> Option<usize> {
        Some(self.ask(0, hash, &[], true)?.0)
    }

    pub fn pick_hash_without(&self, hash: u32, failed: &[usize]) -> Option<usize> {
        Some(self.ask(0, hash, failed, true)?.0)
    }

    pub fn pick_after_failures(&self, failed: &[usize]) -> Option<usize> {
        Some(self.ask(0, 0, failed, true)?.0)
    }

    pub fn try_at(&self, now_ms: u64) -> Option<(usize, bool)> {
        self.ask(now_ms, 0, &[], true)
    }

    pub fn try_unrepeatable_at(&self, now_ms: u64) -> Option<(usize, bool)> {
        self.ask(now_ms, 0, &[], false)
    }

    fn checks(&self) -> &crate::balancer::checks::Checks {
        self.balancer.checks().expect("they are on")
    }

    pub fn eject(&self, index: usize) {
        self.peers()[index].vitals.force(self.checks(), false, Now::default());
    }

    pub fn bring_back(&self, index: usize, now_ms: u64) {
        self.peers()[index].vitals.force(self.checks(), true, Now { ms: now_ms, unix_ms: 0 });
    }

    pub fn eject_by_traffic(&self, index: usize, now_ms: u64) {
        self.peers()[index].vitals.report_traffic(self.checks(), Seen::Failed, Now { ms: now_ms, unix_ms: 0 });
    }

    pub fn end_trial(&self, index: usize, status: u16, now_ms: u64) {
        let now = Now { ms: now_ms, unix_ms: 0 };
        self.peers()[index].vitals.report_trial(self.checks(), Seen::Status(status), now);
    }
}
