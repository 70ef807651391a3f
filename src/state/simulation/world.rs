//! One upstream, the cores that serve it, and what a plain account of its history says.
//! Never: reads a clock, or chance other than the seed's.

use std::cell::Cell;
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
use crate::balancer::Peer;
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
use crate::state::simulation::Counts;
use crate::state::spec::Resolution;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

pub const UPSTREAM: Uuid = Uuid::from_u128(1);
pub const TRIAL_AFTER_MS: u64 = 30_000;
const CORES: u64 = 3;
const NAMES: u64 = 4;
const STEPS: usize = 120;
const WEIGHTS: [u32; 7] = [0, 1, 3, 5, 10, 10, 20];

pub type Key = (SocketAddr, Arc<str>);

/// A core, and the changes on their way to it.
pub struct Core {
    pub peers: Rc<CorePeers>,
    mailbox: VecDeque<Arc<PeerSet>>,
}

/// An address that the account knows of.
pub struct Known {
    pub vitals: Arc<Vitals>,
    /// As the events tell.
    pub available: bool,
    /// When it went out of use.
    pub unused_since_ms: Option<u64>,
}

pub struct World {
    seed: u64,
    step: usize,
    pub rng: fastrand::Rng,
    pub now_ms: u64,
    book: PeerBook,
    events: Arc<Mutex<Vec<HealthEvent>>>,
    targets: BTreeMap<u64, Arc<TargetSpec>>,
    pub spec: Arc<UpstreamSpec>,
    pub cores: Vec<Core>,
    /// The newest, which all cores are to have.
    pub set: Arc<PeerSet>,
    pub known: HashMap<Key, Known>,
    pub counts: Counts,
    /// What was picked, in one number.
    digest: u64,
    /// For a test of the tests: changes of health are hidden from the account.
    pub hides_events: bool,
}

fn host(n: u64) -> Arc<str> {
    format!("t{n}.test").into()
}

pub fn key(vitals: &Vitals) -> Key {
    (vitals.addr, vitals.host.clone())
}

/// Whether health keeps a peer from being picked.
pub fn is_out(set: &PeerSet, peer: &Peer) -> bool {
    set.balancer.checks().is_some() && !peer.vitals.is_available()
}

/// Peers with weight that may be picked.
pub fn usable(set: &PeerSet) -> impl Iterator<Item = &Peer> {
    set.peers().iter().filter(|peer| peer.weight > 0 && !is_out(set, peer))
}

pub fn random_spec(rng: &mut fastrand::Rng) -> UpstreamSpec {
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
        checks: (rng.u8(..8) > 0).then(|| Arc::new(random_checks(rng))),
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

fn random_answer(rng: &mut fastrand::Rng, name: u64) -> NameUpdate {
    let ips: Vec<IpAddr> = (0..rng.u8(..4)).map(|_| IpAddr::from([10, 0, name as u8, rng.u8(1..5)])).collect();
    let resolution = match ips.is_empty() && rng.bool() {
        true => Resolution::Failed("timeout".into()),
        false => Resolution::of_ips(&ips),
    };
    NameUpdate { name: host(name), resolution }
}

fn random_seen(rng: &mut fastrand::Rng) -> Seen {
    [Seen::Status(200), Seen::Status(404), Seen::Status(500), Seen::Failed, Seen::TimedOut][rng.usize(..5)]
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let mut book = PeerBook::new(Arc::new(move |event| sink.lock().expect("no panic inside").push(event)));
        let spec = Arc::new(random_spec(&mut rng));
        let names: Vec<_> = (0..NAMES).map(|n| random_answer(&mut rng, n)).collect();
        let updates = book.apply(&[BackendChange::Upstream(spec.clone())], &names, &[], 0);
        let set = updates[0].peers.clone().expect("an upstream has a set");
        let core = |n: u64| {
            let peers = Rc::new(CorePeers::new(set.clone(), Rc::new(Cell::new(n))));
            Core { peers, mailbox: VecDeque::new() }
        };
        Self {
            seed,
            step: 0,
            rng,
            now_ms: 1,
            book,
            events,
            targets: BTreeMap::new(),
            spec,
            cores: (0..CORES).map(core).collect(),
            set,
            known: HashMap::new(),
            counts: Counts::default(),
            digest: 0,
            hides_events: false,
        }
    }

    /// Lives through a history, then comes to rest. Gives what was picked, in one number.
    pub fn run(&mut self) -> u64 {
        for step in 0..STEPS {
            self.step = step;
            match self.rng.u8(..20) {
                0..=3 => self.edit(),
                4 | 5 => self.names_change(),
                6..=8 => self.report(),
                9 => {
                    self.counts.clock_jumps += 1;
                    let ms = [1, 1000, TRIAL_AFTER_MS, limits::VITALS_KEPT_MS + 1][self.rng.usize(..4)];
                    self.pass(ms);
                }
                10 => self.quiet(),
                11 => self.recovery(),
                _ => self.request(),
            }
            for core in 0..self.cores.len() {
                if self.rng.u8(..3) == 0 {
                    self.deliver(core);
                }
            }
            self.now_ms += self.rng.u64(..50);
            self.events_are_true();
        }
        self.recovery();
        self.quiet();
        self.events_are_true();
        self.digest
    }

    pub fn at(&self) -> String {
        format!("seed {} step {}", self.seed, self.step)
    }

    pub fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: self.now_ms }
    }

    /// Time passes. Messages arrive within much less of it.
    pub fn pass(&mut self, ms: u64) {
        self.deliver_all();
        self.now_ms += ms;
    }

    fn deliver(&mut self, core: usize) {
        let Core { peers, mailbox } = &mut self.cores[core];
        if let Some(set) = mailbox.pop_front() {
            *peers = Rc::new(CorePeers::new(set, peers.turn().clone()));
        }
    }

    pub fn deliver_all(&mut self) {
        for core in 0..self.cores.len() {
            while !self.cores[core].mailbox.is_empty() {
                self.deliver(core);
            }
            assert!(Arc::ptr_eq(&self.cores[core].peers.set, &self.set), "{}", self.at());
        }
    }

    fn edit(&mut self) {
        self.counts.edits += 1;
        let n = self.rng.u64(..6);
        let change = match self.rng.u8(..8) {
            0 => {
                self.spec = Arc::new(random_spec(&mut self.rng));
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
                    weight: WEIGHTS[self.rng.usize(..WEIGHTS.len())],
                    created_at_ms: n,
                });
                self.targets.insert(n, spec.clone());
                BackendChange::Target(spec)
            }
        };
        let updates = self.book.apply(&[change], &[], &[], self.now_ms);
        self.take(updates);
    }

    fn names_change(&mut self) {
        self.counts.name_changes += 1;
        let name = self.rng.u64(..NAMES);
        let update = random_answer(&mut self.rng, name);
        let updates = self.book.learn(&[update], self.now_ms);
        self.take(updates);
    }

    fn take(&mut self, updates: Vec<PeersUpdate>) {
        let before: HashMap<Key, u64> =
            self.set.peers().iter().map(|peer| (key(&peer.vitals), peer.vitals.word().bits())).collect();
        for PeersUpdate { peers, .. } in updates {
            let Some(set) = peers else { continue };
            self.cores.iter_mut().for_each(|core| core.mailbox.push_back(set.clone()));
            self.set = set;
        }
        self.nothing_was_lost(&before);
    }

    /// A probe, an operator, or the late end of a request.
    fn report(&mut self) {
        let set = self.set.clone();
        let (Some(checks), now) = (set.balancer.checks(), self.now()) else { return };
        let Some(peer) = self.rng.choice(set.peers()) else { return };
        match self.rng.u8(..8) {
            0 => {
                self.counts.words += 1;
                peer.vitals.force(checks, self.rng.bool(), now);
            }
            1 | 2 => {
                self.counts.probes += 1;
                let outcome = [Outcome::Success, Outcome::TcpFailure, Outcome::Timeout][self.rng.usize(..3)];
                peer.vitals.report_probe(checks, outcome, Evidence::Error("probe".into()), now);
            }
            _ => {
                self.counts.late_ends += 1;
                peer.vitals.report_traffic(checks, random_seen(&mut self.rng), now);
            }
        }
    }

    /// A request on some core, which may not have heard of the last changes, with its retries.
    fn request(&mut self) {
        self.counts.requests += 1;
        let core = self.cores[self.rng.usize(..self.cores.len())].peers.clone();
        let set = core.set.clone();
        self.counts.requests_behind += u64::from(!Arc::ptr_eq(&set, &self.set));
        let (hash, may_repeat, mut tried) = (self.rng.u32(..), self.rng.bool(), Tried::default());
        for _ in 0..3 {
            let fresh = usable(&set).filter(|peer| !tried.contains(peer.addr)).count();
            let serves = set.balancer.is_healthy();
            let ask = Ask { turn: core.turn(), tried: &tried, hash, now_ms: self.now_ms, may_repeat };
            let Ok(pick) = core.pick(&ask) else {
                return assert!(!serves || fresh == 0, "{}: nobody, though {fresh} are there", self.at());
            };
            let (peer, addr) = (pick.peer, pick.peer.addr);
            self.note(&addr);
            assert!(peer.weight > 0, "{}: {addr} has no weight", self.at());
            assert!(pick.is_trial || serves, "{}: {addr} though the threshold is not met", self.at());
            assert!(pick.is_trial == is_out(&set, peer), "{}: {addr} is ejected, or needs no trial", self.at());
            assert!(!tried.contains(addr) || fresh == 0, "{}: {addr} again though another is left", self.at());
            let seen = random_seen(&mut self.rng);
            self.counts.trials += u64::from(pick.is_trial);
            self.counts.failures += u64::from(seen != Seen::Status(200));
            match set.balancer.checks() {
                Some(checks) if pick.is_trial => peer.vitals.report_trial(checks, seen, self.now()),
                Some(checks) => peer.vitals.report_traffic(checks, seen, self.now()),
                None => {}
            }
            if matches!(seen, Seen::Status(_)) {
                return;
            }
            tried.add(addr);
        }
    }

    pub fn note(&mut self, addr: &SocketAddr) {
        let IpAddr::V4(ip) = addr.ip() else { return };
        let picked = u64::from(u32::from(ip)) << 16 | u64::from(addr.port());
        self.digest = (self.digest ^ picked).wrapping_mul(0x100_0000_01b3);
    }

    pub fn take_events(&mut self) -> Vec<HealthEvent> {
        let events = std::mem::take(&mut *self.events.lock().expect("no panic inside"));
        if self.hides_events { Vec::new() } else { events }
    }
}
