//! HOT: no allocation, no lock.
//! Which target? Pure: peers, their weights and their shared vitals in, a peer out.
//! Owns: the table of algorithms, the state machine of health, the shared numbers of every address.
//! Never: resolves names, dials, reads time.
//! Always: a peer of weight 0 is never picked, nor one that is ejected but for a single trial; a peer that failed in this
//! request is picked again only when no other is left.
//!
//! spec/balancer.md sections 5, 7, 8, 10 and 14. A [`Balancer`] is built off-core and shared by all cores; what a core keeps
//! to itself is its [`Local`].

pub mod checks;
mod consistent_hashing;
pub mod hash_on;
pub mod health;
mod latency;
mod least_connections;
mod recovery;
pub mod registry;
mod round_robin;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod threads;
pub mod vitals;
pub mod xxhash;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::balancer::checks::Checks;
use crate::balancer::vitals::Pulse;
use crate::balancer::vitals::Vitals;
use crate::limits;

/// One address that can take requests.
#[derive(Clone)]
pub struct Peer {
    pub addr: SocketAddr,
    /// What `Host` says to it: the name of the target as configured, or of its SRV record, or its address.
    pub host: Arc<str>,
    /// 0 to 65535; its share is `weight` of the sum of all weights.
    pub weight: u32,
    /// Position of its target among the targets of the upstream.
    pub target: u32,
    pub vitals: Arc<Vitals>,
}

/// What an algorithm is built from.
#[derive(Clone, Copy)]
pub struct Blueprint<'a> {
    pub peers: &'a [Peer],
    /// Name and port of every target, those without weight or address included.
    pub targets: &'a [(Arc<str>, u16)],
    /// `upstreams.slots`.
    pub slots: u32,
}

/// How an upstream spreads requests over its peers.
pub trait Algorithm: Send + Sync {
    /// The index of the peer for the next request, among those that `usable` admits.
    fn pick(&self, ask: &Ask<'_>, peers: &[Peer], usable: &dyn Fn(usize) -> bool) -> Option<usize>;
}

/// What an algorithm wants to be measured of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measures {
    Nothing,
    InFlight,
    Latency,
}

/// One row of [`ALGORITHMS`].
pub struct AlgorithmKind {
    /// As in `upstreams.algorithm`.
    pub name: &'static str,
    pub measures: Measures,
    /// Whether peers that failed in a request are tried again once all have failed.
    starts_over: bool,
    build: fn(&Blueprint<'_>) -> Box<dyn Algorithm>,
}

/// Every algorithm that an upstream may ask for. A new one is a file and a row.
pub static ALGORITHMS: &[AlgorithmKind] =
    &[round_robin::KIND, consistent_hashing::KIND, least_connections::KIND, latency::KIND];

/// The algorithm of that name.
pub fn algorithm(name: &str) -> Option<&'static AlgorithmKind> {
    ALGORITHMS.iter().find(|kind| kind.name == name)
}

/// What watches over the peers of an upstream.
#[derive(Clone)]
pub struct Guard {
    pub checks: Arc<Checks>,
    pub pulse: Arc<Pulse>,
}

/// The peers of one upstream, or of one resolved host name.
pub struct Balancer {
    peers: Vec<Peer>,
    kind: &'static AlgorithmKind,
    algorithm: Box<dyn Algorithm>,
    /// `None`: health checks are off, and every peer is available.
    guard: Option<Guard>,
    threshold_percent: f64,
    weight: u64,
}

/// What one core keeps of a balancer. The count of picks outlives a rebuild.
#[derive(Default)]
pub struct Local {
    pub turn: Rc<Cell<u64>>,
    view: Cell<View>,
}

impl Local {
    /// Goes on with a count of picks.
    pub fn new(turn: Rc<Cell<u64>>) -> Self {
        Self { turn, view: Cell::default() }
    }
}

/// The health of all peers together, as of one beat.
#[derive(Clone, Copy, Default)]
struct View {
    beat: u64,
    available_weight: u64,
    some_down: bool,
    /// The earliest trial, milliseconds of the process clock.
    next_trial_ms: u64,
    /// When one last came back, milliseconds of the process clock.
    recovered_ms: u64,
}

/// One request for a peer.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The core's count of picks; see [`Local::turn`].
    pub turn: &'a Cell<u64>,
    pub tried: &'a Tried,
    /// Where on a continuum the request belongs.
    pub hash: u32,
    /// Milliseconds of the process clock.
    pub now_ms: u64,
    /// Whether the request can be sent again should this try fail.
    pub may_repeat: bool,
}

impl Ask<'_> {
    /// All indices below `len`, from a place that moves on by one with every call.
    fn rotation(&self, len: usize) -> impl Iterator<Item = usize> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let start = (turn % len.max(1) as u64) as usize;
        (start..len).chain(0..start)
    }
}

/// A picked peer.
#[derive(Clone, Copy)]
pub struct Pick<'a> {
    pub peer: &'a Peer,
    /// It is ejected, and this request is to show whether it answers again.
    pub is_trial: bool,
}

impl Balancer {
    /// Builds what the algorithm needs from the peers.
    pub fn new(
        kind: &'static AlgorithmKind,
        peers: Vec<Peer>,
        targets: &[(Arc<str>, u16)],
        slots: u32,
        guard: Option<Guard>,
        threshold_percent: f64,
    ) -> Self {
        let algorithm = (kind.build)(&Blueprint { peers: &peers, targets, slots });
        let weight = peers.iter().map(|peer| u64::from(peer.weight)).sum();
        Self { peers, kind, algorithm, guard, threshold_percent, weight }
    }

    /// Picks a peer. Those that failed in this request are picked again only when all have failed.
    pub fn pick(&self, local: &Local, ask: &Ask<'_>) -> Option<Pick<'_>> {
        let view = self.view(local, ask.now_ms);
        if view.some_down
            && ask.now_ms >= view.next_trial_ms
            && ask.tried.is_empty()
            && let Some(peer) = self.trial(local, view, ask)
        {
            return Some(Pick { peer, is_trial: true });
        }
        self.pick_available(view, ask).map(|peer| Pick { peer, is_trial: false })
    }

    /// What [`Balancer::pick`] would give if no trial were due: nothing is claimed, so that asking changes nothing but
    /// `ask.turn`.
    pub fn foresee(&self, local: &Local, ask: &Ask<'_>) -> Option<&Peer> {
        self.pick_available(self.view(local, ask.now_ms), ask)
    }

    fn pick_available(&self, view: View, ask: &Ask<'_>) -> Option<&Peer> {
        if !self.is_healthy_with(view.available_weight) {
            return None;
        }
        let available = |index: usize| !view.some_down || self.peers[index].vitals.is_available();
        let fresh = |index: usize| available(index) && !ask.tried.contains(self.peers[index].addr);
        let pick = |usable: &dyn Fn(usize) -> bool| self.algorithm.pick(ask, &self.peers, usable);
        let mut index = None;
        let lately = view.recovered_ms > 0 && ask.now_ms < view.recovered_ms.saturating_add(limits::RECOVERY_MS);
        if lately && self.kind.measures != Measures::Nothing {
            index = self.pick_beside_recovered(ask, &fresh);
        }
        index = index.or_else(|| pick(&fresh));
        if index.is_none() && self.kind.starts_over && !ask.tried.is_empty() {
            index = pick(&available);
        }
        self.peers.get(index?)
    }

    /// The health of all peers together; looked at anew when something changed.
    fn view(&self, local: &Local, now_ms: u64) -> View {
        let Some(guard) = &self.guard else { return View { available_weight: self.weight, ..View::default() } };
        let beat = guard.pulse.beat();
        let view = local.view.get();
        if view.beat == beat {
            return view;
        }
        let mut view = View { beat, next_trial_ms: u64::MAX, ..View::default() };
        for peer in self.peers.iter().filter(|peer| peer.weight > 0) {
            match peer.vitals.is_available() {
                true => view.available_weight += u64::from(peer.weight),
                false => {
                    // The checks may have been edited since, or another core may have judged by those from before the edit.
                    peer.vitals.follow(&guard.checks, now_ms);
                    view.some_down = true;
                    view.next_trial_ms = view.next_trial_ms.min(peer.vitals.next_trial_ms());
                }
            }
            view.recovered_ms = view.recovered_ms.max(peer.vitals.recovered_ms());
        }
        local.view.set(view);
        view
    }

    /// An ejected peer whose trial is due and is this request's to make. Rather one that can be repeated elsewhere; any other
    /// waits until the trial is twice as late.
    fn trial(&self, local: &Local, view: View, ask: &Ask<'_>) -> Option<&Peer> {
        let after_ms = self.guard.as_ref()?.checks.trial_after_ms?;
        let patience_ms = if ask.may_repeat { 0 } else { after_ms };
        let down = self.peers.iter().filter(|peer| peer.weight > 0 && !peer.vitals.is_available());
        let due = |peer: &&Peer| peer.vitals.next_trial_ms().saturating_add(patience_ms) <= ask.now_ms;
        let found = down.clone().filter(due).find(|peer| peer.vitals.claim_trial(ask.now_ms, after_ms));
        let next_trial_ms = down.map(|peer| peer.vitals.next_trial_ms()).min().unwrap_or(u64::MAX);
        local.view.set(View { next_trial_ms, ..view });
        found
    }

    /// spec/balancer.md section 10.
    fn is_healthy_with(&self, available_weight: u64) -> bool {
        self.weight > 0 && available_weight as f64 / self.weight as f64 * 100.0 > self.threshold_percent
    }

    /// Whether requests would be served now.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy_with(self.available_weight())
    }

    /// Weight of the available peers.
    pub fn available_weight(&self) -> u64 {
        let available = |peer: &&Peer| self.guard.is_none() || peer.vitals.is_available();
        self.peers.iter().filter(available).map(|peer| u64::from(peer.weight)).sum()
    }

    /// Weight of all peers.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// All peers, weight 0 included.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What the algorithm wants to be measured.
    pub fn measures(&self) -> Measures {
        self.kind.measures
    }

    /// The health checks, where they are on.
    pub fn checks(&self) -> Option<&Arc<Checks>> {
        self.guard.as_ref().map(|guard| &guard.checks)
    }
}

/// The peers that failed within one request, at most [`Tried::MAX`]; later ones overwrite the oldest.
#[derive(Default)]
pub struct Tried {
    addrs: [Option<SocketAddr>; Self::MAX],
    count: usize,
}

impl Tried {
    const MAX: usize = 16;

    /// Notes a failed peer.
    pub fn add(&mut self, addr: SocketAddr) {
        if !self.contains(addr) {
            self.addrs[self.count % Self::MAX] = Some(addr);
            self.count += 1;
        }
    }

    /// Whether the peer failed before in this request.
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.addrs[..self.count.min(Self::MAX)].contains(&Some(addr))
    }

    /// Whether nothing failed yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Rig;
    use super::*;

    #[test]
    fn algorithm_names_are_unique() {
        let mut names: Vec<_> = ALGORITHMS.iter().map(|k| k.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALGORITHMS.len());
    }

    #[test]
    fn a_failed_peer_is_avoided_while_another_is_left() {
        for kind in ALGORITHMS {
            let rig = Rig::new(kind.name, &[1, 1, 1]);
            let mut failed = Vec::new();
            for _ in 0..3 {
                let next = rig.pick_after_failures(&failed).unwrap();
                assert!(!failed.contains(&next), "{}", kind.name);
                failed.push(next);
            }
            assert_eq!(rig.pick_after_failures(&failed).is_some(), kind.starts_over, "{}", kind.name);
        }
    }

    #[test]
    fn without_weight_there_is_no_peer() {
        for kind in ALGORITHMS {
            assert_eq!(Rig::new(kind.name, &[0, 0]).pick_at(0), None);
            assert_eq!(Rig::new(kind.name, &[]).pick_at(0), None);
        }
    }

    #[test]
    fn an_ejected_peer_is_not_picked_by_any_algorithm() {
        for kind in ALGORITHMS {
            let rig = Rig::new(kind.name, &[1, 1, 1]);
            rig.eject(1);
            assert!((0..60).all(|hash| rig.pick_hash(hash * 7919).is_some_and(|index| index != 1)), "{}", kind.name);
            rig.eject(0);
            rig.eject(2);
            assert_eq!(rig.pick_at(0), None, "{}", kind.name);
        }
    }

    #[test]
    fn the_threshold_is_exceeded_or_nobody_is_asked() {
        let check = |threshold, down: &[usize], want: bool| {
            let rig = Rig::with_threshold("round-robin", &[1, 1], threshold);
            down.iter().for_each(|&index| rig.eject(index));
            assert_eq!(rig.pick_at(0).is_some(), want, "{threshold} {down:?}");
        };
        check(0.0, &[0], true);
        check(49.9, &[0], true);
        check(50.0, &[0], false);
        check(50.0, &[], true);
        check(100.0, &[], false);
    }

    #[test]
    fn an_ejected_peer_gets_one_trial_when_it_is_due_and_the_next_only_later() {
        let rig = Rig::new("round-robin", &[1, 1]);
        rig.eject_by_traffic(0, 1000);
        assert!((0..10).all(|_| rig.try_at(30_999) == Some((1, false))));
        assert_eq!(rig.try_at(31_000), Some((0, true)));
        assert!((0..10).all(|_| rig.try_at(60_999) == Some((1, false))), "the trial is still out, or failed");
        assert_eq!(rig.try_at(61_000), Some((0, true)));
        rig.end_trial(0, 200, 61_001);
        let picked: Vec<_> = (0..4).map(|_| rig.try_at(61_002).unwrap()).collect();
        assert!(picked.contains(&(0, false)) && picked.contains(&(1, false)));
    }

    #[test]
    fn a_trial_is_made_even_when_nobody_is_available() {
        let rig = Rig::new("round-robin", &[1]);
        rig.eject_by_traffic(0, 0);
        assert_eq!(rig.try_at(29_999), None);
        assert_eq!(rig.try_at(30_000), Some((0, true)));
    }

    #[test]
    fn what_cannot_be_repeated_makes_a_trial_only_when_nothing_else_did() {
        let rig = Rig::new("round-robin", &[1, 1]);
        rig.eject_by_traffic(0, 0);
        assert_eq!(rig.try_unrepeatable_at(59_999), Some((1, false)));
        assert_eq!(rig.try_unrepeatable_at(60_000), Some((0, true)));
    }

    #[test]
    fn what_an_operator_took_out_gets_no_trial() {
        let rig = Rig::new("round-robin", &[1, 1]);
        rig.eject(0);
        assert!((0..10).all(|n| rig.try_at(n * 1_000_000) == Some((1, false))));
    }

    #[test]
    fn tried_keeps_the_newest_when_full() {
        let mut tried = Tried::default();
        for port in 0..100 {
            tried.add(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        assert!(tried.contains(SocketAddr::from(([127, 0, 0, 1], 99))));
        assert!(!tried.contains(SocketAddr::from(([127, 0, 0, 1], 0))));
    }
}
