//! HOT: an identifier that this core has seen costs a hash lookup and one compare-and-swap per period; no lock.
//! Counters of uses per identifier and period, exact over all cores (spec/plugins.md C.1).
//! Owns: the shared table and one core's handles into it. Never: reads the time; forgets an identifier that is in use while
//! there is room.
//! Always: at most [`crate::limits::COUNTED_IDENTIFIERS_MAX`] identifiers are held, and those whose windows are over leave
//! before the table grows; whoever counts on a counter that has left notices and looks for the one in its place.
//!
//! A counter is one word per period: the start of its window above, the count below. A request of a later window begins it
//! anew by the same compare-and-swap that counts.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use ahash::RandomState;

use crate::limits;
use crate::plugins::periods::Limits;
use crate::plugins::periods::PERIODS;
use crate::plugins::periods::Period;
use crate::plugins::periods::Remaining;

const SHARDS: usize = 64;
/// A shard looks for counters that are over when it has so many, and whenever it has doubled since.
const SWEPT_LEAST: usize = 256;

/// The counters of one identifier, alone on their cache line.
#[repr(align(64))]
#[derive(Default)]
pub struct Counter {
    words: [AtomicU64; PERIODS],
    /// Of use to [`crate::plugins::syncing`].
    joined: AtomicBool,
}

/// The counter has left the table; nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired;

/// The word of a counter that has left. No window begins then (it would in 2106).
const RETIRED: u64 = u64::MAX;

/// The highest count that a word holds.
pub const COUNT_MAX: u64 = u32::MAX as u64;

/// A window as it stands in a word: its start in seconds since 1970 fits 32 bits until 2106.
fn pack(window_s: u64, count: u64) -> u64 {
    window_s << 32 | count.min(COUNT_MAX)
}

/// The window that counts now, and the uses in it. That is the present one, or the next if a core whose clock is ahead has
/// begun it.
fn present(word: u64, period: Period, now_s: u64) -> (u64, u64) {
    let (begun_s, count) = (word >> 32, word & COUNT_MAX);
    let own_s = period.window_start_s(now_s);
    let is_ahead = begun_s > now_s && begun_s - now_s <= limits::CLOCKS_APART_S;
    if begun_s == own_s || is_ahead { (begun_s, count) } else { (own_s, 0) }
}

/// What came of an attempt to count.
enum Counted {
    /// In that window, after so many others.
    In { window_s: u64, before: u64 },
    /// Not: so many were counted already.
    Spent { used: u64 },
}

impl Counter {
    /// Uses in the present window.
    ///
    /// # Errors
    /// The counter has left.
    pub fn used(&self, period: Period, now_s: u64) -> Result<u64, Retired> {
        let word = self.words[period.index()].load(Ordering::Acquire);
        if word == RETIRED { Err(Retired) } else { Ok(present(word, period, now_s).1) }
    }

    /// Counts `by` uses in the present window, unless there are `limit` already.
    fn add_below(&self, period: Period, now_s: u64, by: u64, limit: u64) -> Result<Counted, Retired> {
        let word = &self.words[period.index()];
        let mut seen = word.load(Ordering::Acquire);
        loop {
            if seen == RETIRED {
                return Err(Retired);
            }
            let (window_s, before) = present(seen, period, now_s);
            if before >= limit {
                return Ok(Counted::Spent { used: before });
            }
            match word.compare_exchange_weak(
                seen,
                pack(window_s, before.saturating_add(by)),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(Counted::In { window_s, before }),
                Err(other) => seen = other,
            }
        }
    }

    /// Counts uses in the present window, whatever their number.
    ///
    /// # Errors
    /// The counter has left.
    pub fn add(&self, period: Period, now_s: u64, by: u64) -> Result<(), Retired> {
        self.add_below(period, now_s, by, u64::MAX).map(drop)
    }

    /// What is left of limits; counts nothing.
    ///
    /// # Errors
    /// The counter has left.
    pub fn remaining(&self, limits: &Limits, now_s: u64) -> Result<Remaining, Retired> {
        let mut remaining = Remaining::default();
        for (period, limit) in limits.each() {
            remaining.set(period, limit, limit as i64 - self.used(period, now_s)? as i64);
        }
        Ok(remaining)
    }

    /// Counts `by` uses in all periods, or in none if any is used up; the last ones may go beyond a limit. What was left
    /// before.
    ///
    /// # Errors
    /// The counter has left.
    pub fn take(&self, limits: &Limits, now_s: u64, by: u64) -> Result<Remaining, Retired> {
        let mut remaining = self.remaining(limits, now_s)?;
        if remaining.spent().is_some() {
            return Ok(remaining);
        }
        let mut windows = [0; PERIODS];
        for (period, limit) in limits.each() {
            let used = match self.add_below(period, now_s, by, limit) {
                Ok(Counted::In { window_s, before }) => {
                    windows[period.index()] = window_s;
                    remaining.set(period, limit, limit as i64 - before as i64);
                    continue;
                }
                Ok(Counted::Spent { used }) => Ok(used),
                Err(Retired) => Err(Retired),
            };
            // Another request took the last one meanwhile: what was counted in shorter periods is given back.
            for (counted, _) in limits.each().take_while(|(counted, _)| *counted < period) {
                self.correct(counted, windows[counted.index()], -(by as i64));
            }
            remaining.set(period, limit, limit as i64 - used? as i64);
            break;
        }
        Ok(remaining)
    }

    /// Takes back what [`Counter::take`] counted in the present windows.
    pub fn give_back(&self, limits: &Limits, now_s: u64, by: u64) {
        for (period, _) in limits.each() {
            if let Some((window_s, _)) = self.in_window(period, now_s) {
                self.correct(period, window_s, -(by as i64));
            }
        }
    }

    /// Changes the count of a window by a difference, if it has not passed.
    pub fn correct(&self, period: Period, window_s: u64, by: i64) {
        let word = &self.words[period.index()];
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            let is_present = seen != RETIRED && seen >> 32 == window_s;
            is_present.then(|| pack(window_s, (seen & COUNT_MAX).saturating_add_signed(by)))
        });
    }

    /// Start of the present window and the uses in it; `None`: the counter has left.
    pub fn in_window(&self, period: Period, now_s: u64) -> Option<(u64, u64)> {
        let word = self.words[period.index()].load(Ordering::Acquire);
        (word != RETIRED).then(|| present(word, period, now_s))
    }

    /// Marks it as known to who synchronises; `false`: it was.
    pub fn join(&self) -> bool {
        !self.joined.load(Ordering::Relaxed) && !self.joined.swap(true, Ordering::AcqRel)
    }

    /// Unmarks it if all its windows are over. Answers whether they are.
    pub fn leave_if_idle(&self, now_s: u64) -> bool {
        let starts = starts(now_s);
        let is_idle = self.words.iter().zip(starts).all(|(word, start)| is_over(word.load(Ordering::Acquire), start));
        if is_idle {
            self.joined.store(false, Ordering::Release);
        }
        is_idle
    }

    /// Ends the counter if all its windows are over: nobody can count on it any more. The table's lock is held.
    fn retire(&self, starts: &[u64; PERIODS]) -> bool {
        for (at, (word, start)) in self.words.iter().zip(starts).enumerate() {
            let seen = word.load(Ordering::Acquire);
            let ends = is_over(seen, *start)
                && word.compare_exchange(seen, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if !ends {
                // It lives on; those who noticed wait for the lock.
                self.words[..at].iter().for_each(|word| word.store(0, Ordering::Release));
                return false;
            }
        }
        true
    }

    /// The latest window in which anything was counted, seconds since 1970.
    fn last_window_s(&self) -> u64 {
        self.words.iter().map(|word| word.load(Ordering::Relaxed) >> 32).max().unwrap_or(0)
    }
}

/// Starts of the present windows, as seen by the core whose clock is farthest behind.
fn starts(now_s: u64) -> [u64; PERIODS] {
    let now_s = now_s.saturating_sub(limits::CLOCKS_APART_S);
    std::array::from_fn(|index| Period(index as u8).window_start_s(now_s))
}

fn is_over(word: u64, start_s: u64) -> bool {
    word >> 32 < start_s
}

/// The counters of all cores.
pub struct Counts {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    per_shard_max: usize,
}

#[derive(Default)]
struct Shard {
    counters: AHashMap<u64, Arc<Counter>>,
    /// The number of counters at which those that are over are looked for.
    sweep_at: usize,
}

impl Default for Counts {
    fn default() -> Self {
        Self::with_capacity(limits::COUNTED_IDENTIFIERS_MAX)
    }
}

impl Counts {
    fn with_capacity(identifiers_max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            per_shard_max: identifiers_max.div_ceil(SHARDS),
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // A panic while holding it leaves a whole map behind.
        self.shards[(key % SHARDS as u64) as usize].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The counter of a key; made if there is none.
    fn find(&self, key: u64, now_s: u64) -> Arc<Counter> {
        let mut shard = self.shard(key);
        if let Some(counter) = shard.counters.get(&key) {
            return counter.clone();
        }
        shard.make_room(self.per_shard_max, now_s);
        let counter = Arc::new(Counter::default());
        shard.counters.insert(key, counter.clone());
        counter
    }
}

impl Shard {
    fn make_room(&mut self, max: usize, now_s: u64) {
        if self.counters.len() < self.sweep_at.max(SWEPT_LEAST.min(max)) {
            return;
        }
        let starts = starts(now_s);
        self.counters.retain(|_, counter| !counter.retire(&starts));
        if self.counters.len() >= max {
            self.forget_stale();
        }
        self.sweep_at = (self.counters.len() * 2).min(max);
    }

    /// Forgets the eighth of the identifiers whose last use is longest ago.
    fn forget_stale(&mut self) {
        let mut ages: Vec<u64> = self.counters.values().map(|counter| counter.last_window_s()).collect();
        let nth = ages.len() / 8;
        let (older, of_nth, _) = ages.select_nth_unstable(nth);
        let of_nth = *of_nth;
        let mut left = 1 + older.iter().filter(|age| **age == of_nth).count();
        self.counters.retain(|_, counter| {
            let age = counter.last_window_s();
            let goes = age < of_nth || (age == of_nth && left > 0);
            if goes {
                left -= usize::from(age == of_nth);
                counter.words.iter().for_each(|word| word.store(RETIRED, Ordering::Release));
            }
            !goes
        });
    }
}

/// One core's handles to the counters of identifiers that it has seen lately.
#[derive(Default)]
pub struct CoreCounts {
    shared: Arc<Counts>,
    seen: RefCell<AHashMap<u64, Arc<Counter>>>,
}

impl CoreCounts {
    /// Handles into a table that is shared with other cores.
    pub fn new(shared: Arc<Counts>) -> Self {
        Self { shared, seen: RefCell::default() }
    }

    /// The key of an identifier within a scope. The hash is keyed with secret chance, so nobody can make two identifiers
    /// share a counter.
    pub fn key(&self, scope: &[&[u8]]) -> u64 {
        self.shared.hasher.hash_one(scope)
    }

    /// Counts on the counter of a key, again if it left meanwhile.
    pub fn with<T>(&self, key: u64, now_s: u64, mut count: impl FnMut(&Arc<Counter>) -> Result<T, Retired>) -> T {
        let mut seen = self.seen.borrow_mut();
        if let Some(counter) = seen.get(&key)
            && let Ok(counted) = count(counter)
        {
            return counted;
        }
        loop {
            let counter = self.shared.find(key, now_s);
            let Ok(counted) = count(&counter) else { continue };
            if seen.len() >= limits::COUNT_HANDLES_PER_CORE_MAX {
                seen.clear();
            }
            seen.insert(key, counter);
            return counted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2024-02-29 12:34:56.
    const NOW_S: u64 = 1_709_210_096;
    const MINUTE: Period = Period(1);

    fn limits(config: serde_json::Value) -> Limits {
        Limits::of(config.as_object().unwrap())
    }

    /// How many of so many uses pass.
    fn passed(counter: &Counter, limits: &Limits, now_s: u64, uses: usize) -> usize {
        (0..uses).filter(|_| counter.take(limits, now_s, 1).unwrap().spent().is_none()).count()
    }

    #[test]
    fn a_counter_begins_anew_with_its_window() {
        let (counter, two) = (Counter::default(), limits(json!({"minute": 2})));
        assert_eq!(passed(&counter, &two, NOW_S, 5), 2);
        assert_eq!(passed(&counter, &two, NOW_S + 3, 5), 0);
        assert_eq!(passed(&counter, &two, NOW_S + 4, 5), 2);
    }

    #[test]
    fn a_core_whose_clock_is_behind_counts_in_the_window_that_has_begun() {
        let (counter, two) = (Counter::default(), limits(json!({"minute": 2})));
        assert_eq!(passed(&counter, &two, NOW_S + 4, 1), 1);
        assert_eq!(passed(&counter, &two, NOW_S + 3, 5), 1);
        assert_eq!(passed(&counter, &two, NOW_S + 4, 5), 0);
        // A clock that was set back by more begins anew.
        assert_eq!(passed(&counter, &two, NOW_S - 3600, 5), 2);
    }

    #[test]
    fn a_use_counts_in_all_periods_or_in_none() {
        let (counter, both) = (Counter::default(), limits(json!({"minute": 2, "hour": 3})));
        assert_eq!(passed(&counter, &both, NOW_S, 9), 2);
        assert_eq!(passed(&counter, &both, NOW_S + 60, 9), 1);
        assert_eq!((counter.used(MINUTE, NOW_S + 60), counter.used(Period(2), NOW_S + 60)), (Ok(1), Ok(3)));
    }

    #[test]
    fn a_correction_reaches_its_own_window_only() {
        let counter = Counter::default();
        let window_s = MINUTE.window_start_s(NOW_S);
        counter.add(MINUTE, NOW_S, 5).unwrap();
        for (window_s, by, used) in [(window_s, 7, 12), (window_s, -100, 0), (window_s - 60, 7, 0)] {
            counter.correct(MINUTE, window_s, by);
            assert_eq!(counter.used(MINUTE, NOW_S), Ok(used));
        }
    }

    /// Four cores with clocks up to a second apart use the same identifiers, while a fifth makes the table sweep.
    #[test]
    fn exactly_as_many_pass_as_may_on_whatever_core() {
        let shared = Arc::new(Counts::default());
        let hundred = limits(json!({"minute": 100, "hour": 100}));
        let passed: usize = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4)
                .map(|index| {
                    let core = CoreCounts::new(shared.clone());
                    let now_s = NOW_S - index % 2;
                    let pass = move |n: &usize| {
                        let key = core.key(&[b"scope", &(n % 10).to_le_bytes()]);
                        core.with(key, now_s, |counter| counter.take(&hundred, now_s, 1)).spent().is_none()
                    };
                    scope.spawn(move || (0..20_000).filter(pass).count())
                })
                .collect();
            let crowd = CoreCounts::new(shared.clone());
            for n in 0..60_000u64 {
                crowd.with(crowd.key(&[&n.to_le_bytes()]), NOW_S, |counter| counter.add(MINUTE, NOW_S - 3600, 1));
            }
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn who_counts_on_a_counter_that_left_finds_the_one_in_its_place() {
        let (core, ten) = (CoreCounts::default(), limits(json!({"minute": 10})));
        let take = |now_s| core.with(1, now_s, |counter| counter.take(&ten, now_s, 1));
        take(NOW_S);
        let old = core.seen.borrow()[&1].clone();
        assert!(!old.retire(&starts(NOW_S)), "it is in use");
        assert_eq!(old.used(MINUTE, NOW_S), Ok(1));
        let later_s = NOW_S + 7200;
        let mut shard = core.shared.shard(1);
        shard.sweep_at = 0;
        assert!(old.retire(&starts(later_s)));
        shard.counters.clear();
        drop(shard);
        assert_eq!(old.take(&ten, later_s, 1), Err(Retired));
        take(later_s);
        assert!(!Arc::ptr_eq(&old, &core.seen.borrow()[&1]));
    }

    fn held(counts: &Counts) -> usize {
        counts.shards.iter().map(|shard| shard.lock().unwrap().counters.len()).sum()
    }

    #[test]
    fn a_full_table_forgets_the_stalest() {
        let core = CoreCounts::new(Arc::new(Counts::with_capacity(SHARDS * 8)));
        let stale = core.shared.find(core.key(&[b"stale"]), NOW_S);
        stale.add(Period(2), NOW_S - 600, 1).unwrap();
        for n in 0..20_000u32 {
            core.with(core.key(&[&n.to_le_bytes()]), NOW_S, |counter| counter.add(MINUTE, NOW_S, 1));
        }
        assert!(held(&core.shared) <= SHARDS * 8);
        assert_eq!(stale.used(MINUTE, NOW_S), Err(Retired));
    }

    #[test]
    fn counters_whose_windows_are_over_leave_before_the_table_grows() {
        let core = CoreCounts::default();
        for n in 0..200_000u64 {
            let now_s = NOW_S + n / 1000;
            core.with(core.key(&[&n.to_le_bytes()]), now_s, |counter| counter.add(Period(0), now_s, 1));
        }
        assert!(held(&core.shared) <= SHARDS * SWEPT_LEAST * 2, "{}", held(&core.shared));
    }
}
