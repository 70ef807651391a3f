//! Counters of this process that are brought together with those of others in Redis every now and then
//! (spec/plugins.md C.1, `sync_rate`).
//! Owns: which counters of one configuration there are, and what of them Redis knows. Never: talks to Redis.
//! Always: a use is told to Redis once, unless Redis fails while it is told; uses of a window that ended before it was told
//! are forgotten, as they limit nobody any more.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ahash::AHashMap;

use crate::plugins::counts::Counter;
use crate::plugins::periods::Limits;
use crate::plugins::periods::PERIODS;
use crate::plugins::periods::Period;
use crate::plugins::redis::Expires;
use crate::plugins::redis::RedisCounter;
use crate::plugins::redis::RedisServer;

/// The synchronised counters of one configuration.
pub struct Syncing {
    pub server: Arc<RedisServer>,
    /// Time between two synchronisations.
    pub every_ms: u64,
    /// Tells the counters of this configuration from those of others, also of earlier ones in its place.
    serial: u64,
    limits: Limits,
    enlisted: AtomicBool,
    /// By what the name of each in Redis begins with.
    shared: Mutex<AHashMap<Box<str>, Shared>>,
}

struct Shared {
    counter: Arc<Counter>,
    /// Window and count of each period as they stood after the last synchronisation.
    known: [(u64, u64); PERIODS],
}

/// What of one counter is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    pub raised: RedisCounter,
    name: Box<str>,
    period: Period,
    window_s: u64,
    /// Local count when this was made.
    count: u64,
}

impl std::fmt::Debug for Syncing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncing").field("server", &self.server).field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl PartialEq for Syncing {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Syncing {}

impl Syncing {
    /// Of a configuration with these limits.
    pub fn new(server: Arc<RedisServer>, every_ms: u64, limits: Limits) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self { server, every_ms, serial, limits, enlisted: AtomicBool::new(false), shared: Mutex::default() }
    }

    /// Whether somebody synchronises them.
    pub fn is_enlisted(&self) -> bool {
        self.enlisted.load(Ordering::Relaxed)
    }

    /// Makes the caller the one who synchronises them; `false`: somebody else is.
    pub fn enlist(&self) -> bool {
        !self.enlisted.swap(true, Ordering::Relaxed)
    }

    /// What belongs before the identifier in the scope of a counter.
    pub fn scope(&self) -> [u8; 8] {
        self.serial.to_le_bytes()
    }

    /// Sees to it that a counter is synchronised. `name`: what its names in Redis begin with; asked once.
    pub fn join(&self, counter: &Arc<Counter>, name: impl FnOnce() -> Box<str>) {
        if counter.join() {
            self.lock().insert(name(), Shared { counter: counter.clone(), known: [(0, 0); PERIODS] });
        }
    }

    /// What Redis has to be told now. Counters that were not used of late leave.
    pub fn untold(&self, now_s: u64) -> Vec<Untold> {
        let mut untold = Vec::new();
        self.lock().retain(|name, shared| {
            for (period, _) in self.limits.each() {
                let Some((window_s, count)) = shared.counter.in_window(period, now_s) else { return false };
                let (known_s, known) = shared.known[period.index()];
                let by = if known_s == window_s { count.saturating_sub(known) } else { count };
                if by > 0 {
                    let key = key(name, period, window_s);
                    let expires = Expires::At { unix_s: period.window_end_s(window_s) };
                    let raised = RedisCounter { key, by, expires };
                    untold.push(Untold { raised, name: name.clone(), period, window_s, count });
                }
            }
            !shared.counter.leave_if_idle(now_s)
        });
        untold
    }

    /// Takes what Redis answered: how its counters stand now.
    pub fn told(&self, told: &[Untold], totals: &[i64]) {
        let mut shared = self.lock();
        for (untold, total) in told.iter().zip(totals) {
            let Some(shared) = shared.get_mut(&untold.name) else { continue };
            let others = total.saturating_sub_unsigned(untold.count);
            shared.counter.correct(untold.period, untold.window_s, others);
            shared.known[untold.period.index()] = (untold.window_s, total.unsigned_abs());
        }
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<Box<str>, Shared>> {
        // Whoever panicked left a whole map behind.
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The name of a counter in Redis, as Kong has it, so that both may count in the same.
pub fn key(name: &str, period: Period, window_s: u64) -> String {
    format!("{name}:{}:{}", window_s * 1000, period.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2024-02-29 12:34:56.
    const NOW_S: u64 = 1_709_210_096;

    fn syncing() -> Syncing {
        let server = RedisServer::of(json!({"redis": {"host": "a"}}).as_object().unwrap()).unwrap();
        Syncing::new(server.into(), 20, limits())
    }

    fn limits() -> Limits {
        Limits::of(json!({"minute": 10}).as_object().unwrap())
    }

    fn uses(counter: &Arc<Counter>, count: usize) {
        for _ in 0..count {
            counter.take(&limits(), NOW_S, 1).unwrap();
        }
    }

    fn raised(untold: &[Untold]) -> Vec<(&str, u64)> {
        untold.iter().map(|untold| (&*untold.raised.key, untold.raised.by)).collect()
    }

    #[test]
    fn every_use_is_told_once() {
        let (syncing, counter) = (syncing(), Arc::new(Counter::default()));
        let join = || syncing.join(&counter, || "n".into());
        join();
        join();
        uses(&counter, 3);
        let key = "n:1709210040000:minute";
        let first = syncing.untold(NOW_S);
        assert_eq!(raised(&first), [(key, 3)]);
        assert_eq!(first[0].raised.expires, Expires::At { unix_s: 1_709_210_100 });
        // While Redis answers, more is used here; others have used 2.
        uses(&counter, 1);
        syncing.told(&first, &[5]);
        assert_eq!(counter.in_window(Period(1), NOW_S), Some((1_709_210_040, 6)));
        let second = syncing.untold(NOW_S);
        assert_eq!(raised(&second), [(key, 1)]);
        // Redis failed: told again.
        assert_eq!(raised(&syncing.untold(NOW_S)), [(key, 1)]);
        syncing.told(&second, &[6]);
        assert_eq!(raised(&syncing.untold(NOW_S)), []);
    }

    #[test]
    fn a_counter_leaves_when_its_windows_are_over_and_comes_back_when_used() {
        let (syncing, counter) = (syncing(), Arc::new(Counter::default()));
        syncing.join(&counter, || "n".into());
        uses(&counter, 1);
        assert_eq!(syncing.untold(NOW_S).len(), 1);
        assert!(syncing.untold(NOW_S + 120).is_empty() && syncing.lock().is_empty());
        syncing.join(&counter, || "n".into());
        assert_eq!(syncing.lock().len(), 1);
    }

    #[test]
    fn one_synchronises() {
        let syncing = syncing();
        assert!(!syncing.is_enlisted() && syncing.enlist() && !syncing.enlist() && syncing.is_enlisted());
    }
}
