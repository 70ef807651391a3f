//! HOT: atomics only, no lock, no allocation unless an address is ejected or comes back.
//! What all cores and the control plane know together of one address of an upstream: health, requests in flight, latency.
//! Owns: the shared numbers and how a report changes them. Never: reads time, picks.
//! Always: a change of availability is seen by every core at its next pick, and told to the control plane once.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::balancer::checks::Checks;
use crate::balancer::checks::Seen;
use crate::balancer::checks::WayBack;
use crate::balancer::health::Outcome;
use crate::balancer::health::Transition;
use crate::balancer::health::Word;
use crate::balancer::health::report;
use crate::balancer::latency::Latency;

const NEVER: u64 = u64::MAX;

/// Where changes of availability are told. Called by whoever's report decided, so it must not block.
pub type OnHealthEvent = Arc<dyn Fn(HealthEvent) + Send + Sync>;

/// What the addresses of one upstream share.
pub struct Pulse {
    /// Which of the registry's accounts it is.
    pub account: u64,
    /// Raised by every change of availability of one of the addresses.
    beat: AtomicU64,
    on_event: OnHealthEvent,
}

impl Pulse {
    /// For an account of the registry.
    pub fn new(account: u64, on_event: OnHealthEvent) -> Self {
        Self { account, beat: AtomicU64::new(1), on_event }
    }

    /// Differs from what it was before any change of availability.
    pub fn beat(&self) -> u64 {
        self.beat.load(Ordering::Acquire)
    }
}

/// The shared numbers of one address. Alone on its cache lines: every core writes here.
#[repr(align(128))]
pub struct Vitals {
    word: AtomicU64,
    /// Milliseconds of the process clock from which one request may try the unavailable address.
    next_trial_ms: AtomicU64,
    /// When it last became available again, milliseconds of the process clock.
    recovered_ms: AtomicU64,
    in_flight: AtomicU32,
    pub(super) latency: Latency,
    pub addr: SocketAddr,
    /// Host name of the target.
    pub host: Arc<str>,
    pub pulse: Arc<Pulse>,
}

/// The time of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since the process started.
    pub ms: u64,
    /// Milliseconds since 1970, for people.
    pub unix_ms: u64,
}

/// Who judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// A probe.
    Active,
    /// Real traffic.
    Passive,
    /// One request that was let through to see.
    Trial,
    /// The Admin API.
    Operator,
}

impl Judge {
    /// As the Admin API and the log say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Trial => "trial",
            Self::Operator => "manual",
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    Status(u16),
    /// What went wrong, in words.
    Error(Cow<'static, str>),
    /// Somebody said so.
    Word,
}

impl From<Seen> for Evidence {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Status(status) => Self::Status(status),
            Seen::Failed => Self::Error(Cow::Borrowed("connection failed")),
            Seen::TimedOut => Self::Error(Cow::Borrowed("timed out")),
        }
    }
}

/// A change of availability.
#[derive(Debug, Clone)]
pub struct HealthEvent {
    /// Whose address it is; see [`Pulse::account`].
    pub account: u64,
    pub addr: SocketAddr,
    pub host: Arc<str>,
    /// Whether it is available now.
    pub available: bool,
    /// The how many-th change of the address it is. Events that were told at once may arrive in another order.
    pub nth: u32,
    pub judge: Judge,
    /// What decided, and how many of it were needed; `None` for an operator's word.
    pub decided: Option<(Outcome, u8)>,
    pub evidence: Evidence,
    pub unix_ms: u64,
    /// What brings it back; `None` when it is back.
    pub way_back: Option<WayBack>,
}

/// A request under way to an address, counted until this is dropped.
pub struct InFlight<'a>(&'a Vitals);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Vitals {
    /// A healthy address with nothing counted.
    pub fn new(addr: SocketAddr, host: Arc<str>, pulse: Arc<Pulse>) -> Self {
        Self {
            word: AtomicU64::new(Word::default().bits()),
            next_trial_ms: AtomicU64::new(NEVER),
            recovered_ms: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            latency: Latency::default(),
            addr,
            host,
            pulse,
        }
    }

    /// State and counters now.
    pub fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Whether requests may go there.
    pub fn is_available(&self) -> bool {
        self.word().health().is_available()
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Requests under way, of all cores, as far as the algorithm has them counted.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Notes how long an answer took.
    pub fn observe_latency(&self, seconds: f32, now_ms: u64) {
        self.latency.observe(seconds, now_ms);
    }

    /// When it last came back, milliseconds of the process clock; 0: never.
    pub fn recovered_ms(&self) -> u64 {
        self.recovered_ms.load(Ordering::Relaxed)
    }

    /// Whether it came back less than `within_ms` ago.
    pub fn is_fresh_again(&self, now_ms: u64, within_ms: u64) -> bool {
        let at = self.recovered_ms();
        at > 0 && now_ms.saturating_sub(at) < within_ms
    }

    /// Takes the report of a probe.
    pub fn report_probe(&self, checks: &Checks, outcome: Outcome, evidence: Evidence, now: Now) {
        self.report(checks, Judge::Active, (outcome, checks.active.limits.of(outcome)), now, || evidence);
    }

    /// Takes what real traffic showed.
    pub fn report_traffic(&self, checks: &Checks, seen: Seen, now: Now) {
        if let Some(decided) = checks.passive(seen) {
            self.report(checks, Judge::Passive, decided, now, || seen.into());
        }
    }

    /// Takes the end of a trial request. Whatever is not a failure is a success: the address answers again.
    pub fn report_trial(&self, checks: &Checks, seen: Seen, now: Now) {
        if self.is_available() {
            return self.report_traffic(checks, seen, now);
        }
        let failed = match checks.passive(seen) {
            Some((Outcome::Success, _)) => false,
            Some((_, limit)) => limit > 0 || !matches!(seen, Seen::Status(_)),
            None => !matches!(seen, Seen::Status(_)),
        };
        if failed {
            return;
        }
        let limit = checks.passive.limits.successes.max(1);
        self.report(checks, Judge::Trial, (Outcome::Success, limit), now, || seen.into());
        if !self.is_available() {
            // One of several that are needed: the next may follow at once, unless an operator has spoken meanwhile.
            let again = |due_ms: u64| (due_ms != NEVER).then_some(now.ms);
            let _ = self.next_trial_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, again);
            self.pulse.beat.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn report(
        &self,
        checks: &Checks,
        judge: Judge,
        (outcome, limit): (Outcome, u8),
        now: Now,
        evidence: impl FnOnce() -> Evidence,
    ) {
        let mut bits = self.word.load(Ordering::Acquire);
        let (word, transition) = loop {
            let (next, transition) = report(Word::from_bits(bits), outcome, limit);
            if next.bits() == bits {
                return;
            }
            match self.word.compare_exchange_weak(bits, next.bits(), Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => break (next, transition),
                Err(now_there) => bits = now_there,
            }
        };
        if transition.is_some_and(Transition::flips) {
            self.turned(word.health().is_available(), checks, now.ms);
            self.tell(word, judge, Some((outcome, limit)), evidence(), now, checks);
        }
    }

    /// Forces a state, with nothing counted. What an operator took out comes back by probes or by an operator, never by a
    /// trial.
    pub fn force(&self, checks: &Checks, healthy: bool, now: Now) {
        let forced = |bits| Some(Word::from_bits(bits).forced(healthy).bits());
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, forced);
        let before = Word::from_bits(before.unwrap_or_else(|bits| bits));
        let word = before.forced(healthy);
        if word.flips() == before.flips() {
            return self.plan_trial(checks, now.ms);
        }
        self.turned(healthy, checks, now.ms);
        self.tell(word, Judge::Operator, None, Evidence::Word, now, checks);
    }

    fn turned(&self, available: bool, checks: &Checks, now_ms: u64) {
        if available {
            self.recovered_ms.store(now_ms.max(1), Ordering::Relaxed);
            self.latency.forget();
        }
        self.plan_trial(checks, now_ms);
    }

    /// Sets when a trial is due, by the state as it is now. Whoever changes the state calls this afterwards, and of two who
    /// did so at once the slower one may come last with what was true before: so everyone looks again after writing. In one
    /// total order of these writes and reads, the last write is that of the last state.
    fn plan_trial(&self, checks: &Checks, now_ms: u64) {
        loop {
            let word = Word::from_bits(self.word.load(Ordering::SeqCst));
            let due_ms = trial_after_ms(word, checks).map_or(NEVER, |after_ms| now_ms.saturating_add(after_ms));
            self.next_trial_ms.store(due_ms, Ordering::SeqCst);
            let now_there = Word::from_bits(self.word.load(Ordering::SeqCst));
            if (now_there.flips(), now_there.is_held()) == (word.flips(), word.is_held()) {
                break;
            }
        }
        self.pulse.beat.fetch_add(1, Ordering::AcqRel);
    }

    /// Follows an edit of the checks: where an unavailable address waits for probes that are no longer made, a trial takes
    /// their place, and the other way round.
    pub fn follow(&self, checks: &Checks, now_ms: u64) {
        if trial_after_ms(self.word(), checks).is_some() != (self.next_trial_ms() != NEVER) {
            self.plan_trial(checks, now_ms);
        }
    }

    /// What brings it back while it is unavailable.
    pub fn way_back(&self, checks: &Checks) -> WayBack {
        way_back(self.word(), checks)
    }

    fn tell(
        &self,
        word: Word,
        judge: Judge,
        decided: Option<(Outcome, u8)>,
        evidence: Evidence,
        now: Now,
        checks: &Checks,
    ) {
        let available = word.health().is_available();
        (self.pulse.on_event)(HealthEvent {
            account: self.pulse.account,
            addr: self.addr,
            host: self.host.clone(),
            available,
            nth: word.flips(),
            judge,
            decided,
            evidence,
            unix_ms: now.unix_ms,
            way_back: (!available).then(|| way_back(word, checks)),
        });
    }

    /// From when a trial may be made, milliseconds of the process clock; `u64::MAX`: never.
    pub fn next_trial_ms(&self) -> u64 {
        self.next_trial_ms.load(Ordering::SeqCst)
    }

    /// Takes the trial that is due, if no other core was faster; the next is due `again_ms` later.
    pub fn claim_trial(&self, now_ms: u64, again_ms: u64) -> bool {
        let due = self.next_trial_ms();
        due <= now_ms
            && self
                .next_trial_ms
                .compare_exchange(due, now_ms.saturating_add(again_ms), Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }
}

/// How long after its ejection an address gets a trial; `None`: it gets none, or needs none.
fn trial_after_ms(word: Word, checks: &Checks) -> Option<u64> {
    let waits = !word.health().is_available() && !word.is_held() && !checks.probes_recover();
    checks.trial_after_ms.filter(|_| waits)
}

fn way_back(word: Word, checks: &Checks) -> WayBack {
    match checks.way_back() {
        WayBack::Trial { .. } if word.is_held() => WayBack::Operator,
        way_back => way_back,
    }
}

/// Vitals that nobody else looks at, for peers without an upstream.
pub fn unwatched() -> Arc<Vitals> {
    let addr = SocketAddr::from(([0, 0, 0, 0], 0));
    Arc::new(Vitals::new(addr, Arc::from(""), Arc::new(Pulse::new(0, Arc::new(|_| {})))))
}
