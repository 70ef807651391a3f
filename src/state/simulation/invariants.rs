//! What must hold in any history.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::balancer::Ask;
use crate::balancer::Peer;
use crate::balancer::Tried;
use crate::balancer::checks::Seen;
use crate::balancer::health::Outcome;
use crate::balancer::vitals::Evidence;
use crate::limits;
use crate::state::peers::CorePeers;
use crate::state::simulation::world::Key;
use crate::state::simulation::world::Known;
use crate::state::simulation::world::TRIAL_AFTER_MS;
use crate::state::simulation::world::World;
use crate::state::simulation::world::is_out;
use crate::state::simulation::world::key;
use crate::state::simulation::world::usable;

/// Within so many seconds even the slowest of the fastest has its turn: its average decays.
const LATENCY_PICKS: u64 = 300;
/// All slots of the continuum.
const SLOTS: u64 = 1000;

/// The first try of a request that can be repeated.
fn first<'a>(peers: &'a CorePeers, none: &'a Tried, hash: u32, now_ms: u64) -> Ask<'a> {
    Ask { turn: peers.turn(), tried: none, hash, now_ms, may_repeat: true }
}

impl World {
    /// No state lost: an edit that keeps an address keeps its state, one that returns in time finds it again, and one that
    /// returns later begins anew.
    pub fn nothing_was_lost(&mut self, before: &HashMap<Key, u64>) {
        let (set, now_ms, at) = (self.set.clone(), self.now_ms, self.at());
        for peer in set.peers() {
            let (key, vitals) = (key(&peer.vitals), peer.vitals.clone());
            let forgotten = |since_ms: u64| now_ms.saturating_sub(since_ms) >= limits::VITALS_KEPT_MS;
            match self.known.get_mut(&key) {
                Some(known) if !known.unused_since_ms.is_some_and(forgotten) => {
                    assert!(Arc::ptr_eq(&known.vitals, &vitals), "{at}: {key:?} has other vitals");
                    known.unused_since_ms = None;
                }
                _ => {
                    assert_eq!(vitals.word().bits(), 0, "{at}: {key:?} is not new");
                    self.known.insert(key.clone(), Known { vitals, available: true, unused_since_ms: None });
                }
            }
            if let Some(word) = before.get(&key) {
                assert_eq!(peer.vitals.word().bits(), *word, "{at}: {key:?} is not as it was");
            }
        }
        for (key, known) in &mut self.known {
            if !set.peers().iter().any(|peer| self::key(&peer.vitals) == *key) {
                known.unused_since_ms.get_or_insert(now_ms);
            }
        }
    }

    /// The events tell each change once and in order, and what they tell last is so.
    pub fn events_are_true(&mut self) {
        for event in self.take_events() {
            let at = self.at();
            let known = self.known.get_mut(&(event.addr, event.host.clone())).expect("an address that is known");
            assert_ne!(known.available, event.available, "{at}: told twice: {event:?}");
            assert_eq!(event.way_back.is_some(), !event.available, "{at}");
            known.available = event.available;
            match event.available {
                true => self.counts.recoveries += 1,
                false => self.counts.ejections += 1,
            }
        }
        for peer in self.set.peers() {
            let known = self.known.get(&key(&peer.vitals)).map(|known| known.available);
            assert_eq!(known, Some(peer.vitals.is_available()), "{}: {}", self.at(), peer.addr);
        }
    }

    /// With nothing going on, all cores agree: each address that can be picked is, nobody else is, and in turns and by
    /// connections exactly in proportion.
    pub fn quiet(&mut self) {
        self.counts.quiets += 1;
        self.pass(limits::RECOVERY_MS);
        let set = self.set.clone();
        let shares: BTreeMap<SocketAddr, u64> = usable(&set).map(|peer| (peer.addr, u64::from(peer.weight))).collect();
        let total: u32 = set.peers().iter().map(|peer| peer.weight).sum();
        let weight: u64 = shares.values().sum();
        let serves = total > 0 && weight as f64 / f64::from(total) * 100.0 > self.spec.threshold_percent;
        assert_eq!(set.balancer.is_healthy(), serves, "{}", self.at());
        let name = self.spec.algorithm.name;
        for core in 0..self.cores.len() {
            let peers = self.cores[core].peers.clone();
            let picked = match name {
                "consistent-hashing" => self.picked(&peers, SLOTS, 0, serves),
                "latency" => self.picked(&peers, LATENCY_PICKS, 1000, serves),
                _ => self.picked(&peers, weight, 0, serves),
            };
            let at = self.at();
            match name {
                _ if !serves => assert!(picked.is_empty(), "{at}"),
                "round-robin" | "least-connections" => assert_eq!(picked, shares, "{at}: {name} on core {core}"),
                _ => assert!(picked.keys().eq(shares.keys()), "{at}: {name} on core {core}: {picked:?} of {shares:?}"),
            }
            if name == "consistent-hashing" && serves {
                let (zeroth, none) = (self.cores[0].peers.clone(), Tried::default());
                let owner = |peers: &CorePeers, hash| {
                    peers.foresee(&first(peers, &none, hash, self.now_ms)).expect("it serves").addr
                };
                assert!((0..64).all(|hash| owner(&zeroth, hash) == owner(&peers, hash)), "{at}: core {core} differs");
            }
        }
    }

    /// How often each address is picked in so many requests, so many milliseconds apart, all of which last. Trials come on
    /// top.
    fn picked(&mut self, peers: &Rc<CorePeers>, picks: u64, apart_ms: u64, serves: bool) -> BTreeMap<SocketAddr, u64> {
        let (mut counts, mut held, mut done) = (BTreeMap::<_, u64>::new(), Vec::new(), 0);
        let none = Tried::default();
        while done < picks {
            self.now_ms += apart_ms;
            match peers.pick(&first(peers, &none, done as u32, self.now_ms)) {
                Ok(pick) if pick.is_trial => {
                    assert!(is_out(&self.set, pick.peer), "{}", self.at());
                    self.counts.trials += 1;
                    continue;
                }
                Ok(pick) => {
                    let addr = pick.peer.addr;
                    self.note(&addr);
                    *counts.entry(addr).or_default() += 1;
                    held.push(pick.peer.vitals.enter());
                    pick.peer.vitals.observe_latency(0.001 + f32::from(addr.port() % 80) * 0.01, self.now_ms);
                }
                Err(_) => assert!(!serves, "{}: nobody", self.at()),
            }
            done += 1;
        }
        counts
    }

    /// Whatever is out comes back within its bound once it is well: by so many good probes, by one trial after
    /// `trial_after_ms`, or, if an operator took it out, by an operator; on every core.
    pub fn recovery(&mut self) {
        self.deliver_all();
        let set = self.set.clone();
        let Some(checks) = set.balancer.checks() else { return };
        let out = || set.peers().iter().filter(|peer| peer.weight > 0 && is_out(&set, peer));
        if checks.probes_recover() {
            for peer in out() {
                for _ in 0..checks.active.limits.successes {
                    assert!(is_out(&set, peer), "{}: {} is back too early", self.at(), peer.addr);
                    self.counts.probes += 1;
                    let evidence = Evidence::Error("probe".into());
                    peer.vitals.report_probe(checks, Outcome::Success, evidence, self.now());
                    if peer.vitals.is_available() {
                        break;
                    }
                }
            }
            assert_eq!(out().count(), 0, "{}: out after good probes", self.at());
            return self.used_at_once();
        }
        // Somebody asks, or nobody would miss it.
        let (any, none) = (self.cores[0].peers.clone(), Tried::default());
        let _ = any.foresee(&first(&any, &none, 0, self.now_ms));
        for peer in out() {
            let due_ms = peer.vitals.next_trial_ms();
            let waits = due_ms <= self.now_ms + TRIAL_AFTER_MS;
            assert_eq!(waits, !peer.vitals.word().is_held(), "{}: {} due at {due_ms}", self.at(), peer.addr);
        }
        self.pass(TRIAL_AFTER_MS);
        for _ in 0..(set.peers().len() + 1) * 3 {
            let core = self.cores[self.rng.usize(..self.cores.len())].peers.clone();
            if let Ok(pick) = core.pick(&first(&core, &none, 0, self.now_ms))
                && pick.is_trial
            {
                self.counts.trials += 1;
                pick.peer.vitals.report_trial(checks, Seen::Status(200), self.now());
            }
        }
        for peer in out() {
            assert!(peer.vitals.word().is_held(), "{}: {} is out after its trials", self.at(), peer.addr);
        }
        self.used_at_once();
        if self.rng.bool() {
            self.counts.words += 1;
            set.peers().iter().for_each(|peer| peer.vitals.force(checks, true, self.now()));
            assert_eq!(out().count(), 0, "{}: out though an operator said otherwise", self.at());
        }
    }

    /// Whoever has just come back has requests at once, whatever the algorithm knows of the others.
    fn used_at_once(&mut self) {
        let set = self.set.clone();
        if self.spec.algorithm.name == "consistent-hashing" || !set.balancer.is_healthy() {
            return;
        }
        let (core, none) = (self.cores[0].peers.clone(), Tried::default());
        let just_back = |peer: &&Peer| peer.vitals.is_fresh_again(self.now_ms, 1);
        let mut waiting: HashSet<_> = usable(&set).filter(just_back).map(|peer| peer.addr).collect();
        // The golden ratio's longest gap is less than three times the mean one.
        let lightest = usable(&set).map(|peer| u64::from(peer.weight)).min().unwrap_or(1);
        for _ in 0..=3 * set.balancer.weight() / lightest {
            if let Ok(pick) = core.pick(&first(&core, &none, 0, self.now_ms)) {
                waiting.remove(&pick.peer.addr);
            }
        }
        assert!(waiting.is_empty(), "{}: {waiting:?} are back and not used", self.at());
    }
}
