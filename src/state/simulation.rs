//! Random histories of one upstream against what must always hold: edits, failures, names that change, steps of the clock,
//! probes, operators and requests. `RINGWAY_SEED=n` replays one, `RINGWAY_SEEDS=n` runs so many.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;

use uuid::Uuid;

use crate::balancer::ALGORITHMS;
use crate::balancer::Ask;
use crate::balancer::Tried;
use crate::balancer::checks::Checks;
use crate::balancer::checks::Seen;
use crate::balancer::checks::checks_for_test;
use crate::balancer::health::Outcome;
use crate::balancer::vitals::Evidence;
use crate::balancer::vitals::HealthEvent;
use crate::balancer::vitals::Now;
use crate::balancer::vitals::Vitals;
use crate::limits;
use crate::state::book::PeerBook;
use crate::state::delta::BackendChange;
use crate::state::delta::NameUpdate;
use crate::state::delta::PeersUpdate;
use crate::state::peers::CorePeers;
use crate::state::peers::PeerSet;
use crate::state::spec::Resolution;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

const UPSTREAM: Uuid = Uuid::from_u128(1);
const CORES: usize = 3;
const NAMES: u64 = 4;
const STEPS: usize = 120;
const TRIAL_AFTER_MS: u64 = 30_000;

type Key = (SocketAddr, Arc<str>);

/// An upstream, the cores that serve it, and what a plain account of its history says.
struct World {
    seed: u64,
    step: usize,
    rng: fastrand::Rng,
    now_ms: u64,
    book: PeerBook,
    events: Arc<Mutex<Vec<HealthEvent>>>,
    targets: BTreeMap<u64, Arc<TargetSpec>>,
    spec: Arc<UpstreamSpec>,
    cores: Vec<Rc<CorePeers>>,
    set: Arc<PeerSet>,
    /// Whether each address ever seen is available, as the events tell; and when it went out of use.
    told: HashMap<Key, bool>,
    unused_since_ms: HashMap<Key, u64>,
}

fn host(n: u64) -> Arc<str> {
    format!("t{n}.test").into()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let mut book = PeerBook::new(Arc::new(move |event| sink.lock().expect("no panic inside").push(event)));
        let spec = Arc::new(Self::random_spec(&mut rng));
        let names: Vec<_> = (0..NAMES).map(|n| Self::random_answer(&mut rng, n)).collect();
        let updates = book.apply(&[BackendChange::Upstream(spec.clone())], &names, &[], 0);
        let set = updates[0].peers.clone().expect("an upstream has a set");
        let cores = (0..CORES).map(|n| Rc::new(CorePeers::new(set.clone(), Rc::new((n as u64).into())))).collect();
        Self {
            seed,
            step: 0,
            rng,
            now_ms: 1,
            book,
            events,
            targets: BTreeMap::new(),
            spec,
            cores,
            set,
            told: HashMap::new(),
            unused_since_ms: HashMap::new(),
        }
    }

    fn random_checks(rng: &mut fastrand::Rng) -> Checks {
        let mut checks = checks_for_test();
        checks.passive.limits.successes = rng.u8(..3);
        checks.passive.limits.tcp_failures = rng.u8(1..4);
        checks.passive.limits.http_failures = rng.u8(..4);
        checks.active.limits = checks.passive.limits;
        checks.active.unhealthy_interval_ms = rng.u64(..2) * 1000;
        checks.trial_after_ms = Some(TRIAL_AFTER_MS);
        checks
    }

    fn random_spec(rng: &mut fastrand::Rng) -> UpstreamSpec {
        UpstreamSpec {
            id: UPSTREAM,
            name: "u".into(),
            algorithm: &ALGORITHMS[rng.usize(..ALGORITHMS.len())],
            slots: 1000,
            hash_on: None,
            host_header: None,
            client_certificate: None,
            use_srv_name: false,
            threshold_percent: if rng.u8(..4) == 0 { 40.0 } else { 0.0 },
            checks: Some(Arc::new(Self::random_checks(rng))),
        }
    }

    fn random_answer(rng: &mut fastrand::Rng, name: u64) -> NameUpdate {
        let ips: Vec<IpAddr> = (0..rng.u8(..4)).map(|_| IpAddr::from([10, 0, name as u8, rng.u8(1..5)])).collect();
        let resolution = match ips.is_empty() && rng.bool() {
            true => Resolution::Failed("timeout".into()),
            false => Resolution::of_ips(&ips),
        };
        NameUpdate { name: host(name), resolution }
    }

    fn take(&mut self, updates: Vec<PeersUpdate>) {
        for PeersUpdate { peers, .. } in updates {
            let Some(set) = peers else { continue };
            for peer in set.peers() {
                self.told.entry(key(&peer.vitals)).or_insert(true);
            }
            self.set = set.clone();
            self.cores =
                self.cores.iter().map(|old| Rc::new(CorePeers::new(set.clone(), old.turn().clone()))).collect();
        }
        for (key, _) in self.told.clone() {
            match self.set.peers().iter().any(|peer| self::key(&peer.vitals) == key) {
                true => drop(self.unused_since_ms.remove(&key)),
                false => drop(self.unused_since_ms.entry(key).or_insert(self.now_ms)),
            }
        }
    }

    fn edit(&mut self) {
        let n = self.rng.u64(..6);
        let change = match self.rng.u8(..8) {
            0 => {
                self.spec = Arc::new(Self::random_spec(&mut self.rng));
                BackendChange::Upstream(self.spec.clone())
            }
            1 | 2 if self.targets.remove(&n).is_some() => {
                BackendChange::TargetGone(Uuid::from_u128(100 + u128::from(n)))
            }
            _ => {
                let spec = Arc::new(TargetSpec {
                    id: Uuid::from_u128(100 + u128::from(n)),
                    upstream: UPSTREAM,
                    host: host(n % NAMES),
                    port: 80 + (n / NAMES) as u16,
                    weight: [0, 1, 50, 100, 100, 7][self.rng.usize(..6)],
                    created_at_ms: n,
                });
                self.targets.insert(n, spec.clone());
                BackendChange::Target(spec)
            }
        };
        let before = self.vitals();
        let updates = self.book.apply(&[change], &[], &[], self.now_ms);
        self.take(updates);
        self.nothing_was_lost(&before);
    }

    fn names_change(&mut self) {
        let name = self.rng.u64(..NAMES);
        let update = Self::random_answer(&mut self.rng, name);
        let before = self.vitals();
        let updates = self.book.learn(&[update], self.now_ms);
        self.take(updates);
        self.nothing_was_lost(&before);
    }

    fn vitals(&self) -> HashMap<Key, (Arc<Vitals>, u64)> {
        let state = |vitals: &Arc<Vitals>| (key(vitals), (vitals.clone(), vitals.word().bits()));
        self.set.peers().iter().map(|peer| state(&peer.vitals)).collect()
    }

    /// An edit that keeps an address keeps its state; one that returns in time finds it again.
    fn nothing_was_lost(&mut self, before: &HashMap<Key, (Arc<Vitals>, u64)>) {
        for peer in self.set.peers() {
            let key = key(&peer.vitals);
            if let Some((vitals, word)) = before.get(&key) {
                assert!(Arc::ptr_eq(vitals, &peer.vitals), "{}: {key:?} has other vitals", self.at());
                assert_eq!(peer.vitals.word().bits(), *word, "{}: {key:?}", self.at());
            }
        }
    }

    fn at(&self) -> String {
        format!("seed {} step {}", self.seed, self.step)
    }

    fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: self.now_ms }
    }

    fn checks(&self) -> Arc<Checks> {
        self.spec.checks.clone().expect("they are on")
    }

    /// A probe, an operator, or the late end of a request.
    fn report(&mut self) {
        let peers = self.set.peers();
        if peers.is_empty() {
            return;
        }
        let vitals = peers[self.rng.usize(..peers.len())].vitals.clone();
        let (checks, now) = (self.checks(), self.now());
        match self.rng.u8(..8) {
            0 => vitals.force(&checks, self.rng.bool(), now),
            1 | 2 => {
                let outcome = [Outcome::Success, Outcome::TcpFailure, Outcome::Timeout][self.rng.usize(..3)];
                vitals.report_probe(&checks, outcome, Evidence::Error("probe".into()), now);
            }
            _ => vitals.report_traffic(&checks, self.random_seen(), now),
        }
    }

    fn random_seen(&mut self) -> Seen {
        [Seen::Status(200), Seen::Status(404), Seen::Status(500), Seen::Failed, Seen::TimedOut][self.rng.usize(..5)]
    }

    fn request(&mut self) {
        let core = self.cores[self.rng.usize(..CORES)].clone();
        let tried = RefCell::new(Tried::default());
        let hash = self.rng.u32(..);
        let mut seen_addrs = Vec::new();
        for _ in 0..3 {
            let tried_now = tried.borrow();
            let ask =
                Ask { turn: core.turn(), tried: &tried_now, hash, now_ms: self.now_ms, may_repeat: self.rng.bool() };
            let Ok(pick) = core.pick(&ask) else { return };
            let (vitals, addr) = (pick.peer.vitals.clone(), pick.peer.addr);
            let is_trial = pick.is_trial;
            assert!(pick.peer.weight > 0, "{}: {addr} has no weight", self.at());
            assert!(is_trial || vitals.is_available(), "{}: {addr} is ejected", self.at());
            let left = core
                .set
                .peers()
                .iter()
                .any(|peer| peer.weight > 0 && peer.vitals.is_available() && !tried_now.contains(peer.addr));
            assert!(!tried_now.contains(addr) || !left, "{}: {addr} again though another is left", self.at());
            drop(tried_now);
            let seen = self.random_seen();
            match is_trial {
                true => vitals.report_trial(&self.checks(), seen, self.now()),
                false => vitals.report_traffic(&self.checks(), seen, self.now()),
            }
            if matches!(seen, Seen::Status(_)) {
                return;
            }
            tried.borrow_mut().add(addr);
            seen_addrs.push(addr);
        }
    }

    /// The events tell each change once, and what they tell last is so.
    fn events_are_true(&mut self) {
        for event in std::mem::take(&mut *self.events.lock().expect("no panic inside")) {
            let before = self.told.insert((event.addr, event.host.clone()), event.available);
            assert_ne!(before, Some(event.available), "{}: told twice: {event:?}", self.at());
            assert_eq!(event.way_back.is_some(), !event.available, "{}", self.at());
        }
        let forgotten = |since: &u64| self.now_ms.saturating_sub(*since) >= limits::VITALS_KEPT_MS;
        let gone: Vec<_> =
            self.unused_since_ms.iter().filter(|(_, since)| forgotten(since)).map(|(k, _)| k.clone()).collect();
        for key in gone {
            self.told.remove(&key);
            self.unused_since_ms.remove(&key);
        }
        for peer in self.set.peers() {
            let told = self.told.get(&key(&peer.vitals)).copied();
            assert_eq!(told, Some(peer.vitals.is_available()), "{}: {}", self.at(), peer.addr);
        }
    }

    /// With nothing going on: all cores see the same, each available address with weight is picked, and in turns it is so in
    /// exact proportion.
    fn quiet(&mut self) {
        // Past every recovery; trials would disturb the count, so it is taken without their time having come.
        self.now_ms += limits::RECOVERY_MS;
        let usable: Vec<_> =
            self.set.peers().iter().filter(|peer| peer.weight > 0 && peer.vitals.is_available()).collect();
        let weight: u64 = usable.iter().map(|peer| u64::from(peer.weight)).sum();
        let serves = self.set.balancer.is_healthy();
        let is_ring = self.spec.algorithm.name == "round-robin";
        for core in &self.cores {
            let mut counts = HashMap::<SocketAddr, u64>::new();
            let mut held = VecDeque::new();
            let tried = Tried::default();
            let picks = if is_ring { weight } else { 400 };
            for n in 0..picks {
                let hash = (n as u32).wrapping_mul(2_654_435_761);
                let ask = Ask { turn: core.turn(), tried: &tried, hash, now_ms: self.now_ms, may_repeat: true };
                match core.pick(&ask) {
                    Ok(pick) if pick.is_trial => {}
                    Ok(pick) => {
                        assert!(serves, "{}: the threshold is not met", self.at());
                        *counts.entry(pick.peer.addr).or_default() += 1;
                        held.push_back(pick.peer.vitals.enter());
                        pick.peer.vitals.observe_latency(0.001 * n as f32, self.now_ms + n);
                    }
                    Err(_) => assert!(!serves || usable.is_empty(), "{}: nobody though {weight} is there", self.at()),
                }
            }
            if !serves {
                continue;
            }
            let trials = picks - counts.values().sum::<u64>();
            for peer in &usable {
                let count = counts.get(&peer.addr).copied().unwrap_or(0);
                let same: u64 =
                    usable.iter().filter(|other| other.addr == peer.addr).map(|p| u64::from(p.weight)).sum();
                match self.spec.algorithm.name {
                    "round-robin" if trials == 0 => assert_eq!(count, same, "{}: {} of {weight}", self.at(), peer.addr),
                    "least-connections" if u64::from(peer.weight) * 100 >= weight => {
                        assert!(count > 0, "{}: {} is never picked", self.at(), peer.addr);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whatever was ejected by traffic comes back within its bound once it answers, where no probes do it.
    fn recovery(&mut self) {
        let checks = self.checks();
        if checks.probes_recover() || !self.set.balancer.peers().iter().any(|peer| peer.weight > 0) {
            return;
        }
        let by_traffic = |world: &Self| {
            world
                .set
                .peers()
                .iter()
                .any(|p| p.weight > 0 && !p.vitals.is_available() && p.vitals.next_trial_ms() < u64::MAX)
        };
        let addresses = self.set.peers().len();
        self.now_ms += TRIAL_AFTER_MS;
        for _ in 0..(addresses + 1) * 4 {
            let core = self.cores[self.rng.usize(..CORES)].clone();
            let tried = Tried::default();
            let ask = Ask { turn: core.turn(), tried: &tried, hash: 0, now_ms: self.now_ms, may_repeat: true };
            if let Ok(pick) = core.pick(&ask)
                && pick.is_trial
            {
                pick.peer.vitals.report_trial(&checks, Seen::Status(200), self.now());
            }
        }
        assert!(!by_traffic(self), "{}: still ejected after its trials succeeded", self.at());
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            self.step = step;
            match self.rng.u8(..20) {
                0..=3 => self.edit(),
                4 | 5 => self.names_change(),
                6..=8 => self.report(),
                9 => self.now_ms += [1, 1000, TRIAL_AFTER_MS, limits::VITALS_KEPT_MS + 1][self.rng.usize(..4)],
                10 if step % 4 == 0 => self.quiet(),
                11 => self.recovery(),
                _ => self.request(),
            }
            self.now_ms += self.rng.u64(..50);
            self.events_are_true();
        }
    }
}

fn key(vitals: &Vitals) -> Key {
    (vitals.addr, vitals.host.clone())
}

#[test]
fn what_must_hold_holds_in_any_history() {
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        return World::new(seed.parse().expect("RINGWAY_SEED is a number")).run();
    }
    let seeds = std::env::var("RINGWAY_SEEDS").map_or(1000, |count| count.parse().expect("RINGWAY_SEEDS is a number"));
    (0..seeds).for_each(|seed| World::new(seed).run());
}

/// Taking an address out moves the keys it had and no other; putting it back brings them home.
#[test]
fn changing_an_upstream_moves_only_the_keys_it_must() {
    let kind = ALGORITHMS.iter().find(|kind| kind.name == "consistent-hashing").expect("it stands in the table");
    let mut book = PeerBook::new(Arc::new(|_| {}));
    let mut rng = fastrand::Rng::with_seed(1);
    let spec = UpstreamSpec { algorithm: kind, slots: 10_000, threshold_percent: 0.0, ..World::random_spec(&mut rng) };
    let target = |n: u8| {
        BackendChange::Target(Arc::new(TargetSpec {
            id: Uuid::from_u128(u128::from(n)),
            upstream: UPSTREAM,
            host: format!("10.0.0.{n}").into(),
            port: 80,
            weight: 100,
            created_at_ms: u64::from(n),
        }))
    };
    let owners = |updates: Vec<PeersUpdate>| -> Vec<SocketAddr> {
        let core = CorePeers::new(updates[0].peers.clone().expect("a set"), Rc::default());
        let tried = Tried::default();
        let owner = |key: u32| {
            let ask = Ask {
                turn: core.turn(),
                tried: &tried,
                hash: key.wrapping_mul(2_654_435_761),
                now_ms: 0,
                may_repeat: true,
            };
            core.pick(&ask).expect("somebody").peer.addr
        };
        (0..20_000).map(owner).collect()
    };
    let mut changes = vec![BackendChange::Upstream(Arc::new(spec))];
    changes.extend((1..=5).map(target));
    let five = owners(book.apply(&changes, &[], &[], 0));
    let four = owners(book.apply(&[BackendChange::TargetGone(Uuid::from_u128(3))], &[], &[], 0));
    let again = owners(book.apply(&[target(3)], &[], &[], 0));
    assert_eq!(five, again);
    let third = SocketAddr::from(([10, 0, 0, 3], 80));
    let had = five.iter().filter(|addr| **addr == third).count();
    let moved = five.iter().zip(&four).filter(|(before, after)| before != after).count();
    assert!((3000..5000).contains(&had), "{had} of 20000 is about a fifth");
    // Points whose slot was taken make up for it elsewhere, so a few other keys move too: Kong's continuum has it so.
    assert!(moved >= had && moved < had + 20_000 / 20, "{moved} keys moved, {had} had to");
}
