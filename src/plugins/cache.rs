//! HOT: a response that this core has answered with before costs a hash lookup in the core's own table; no lock, and no
//! reference count that another core writes.
//! Responses that are kept to answer later requests with (spec/plugins.md part E).
//! Owns: the shared table, its bound in bytes, and one core's handles into it. Never: reads the time; judges freshness.
//! Always: what was purged answers no request that begins later, on whatever core, and neither does what was under way
//! when the purge began; all that is kept stays within its bound, handles of idle cores within a tick.
//!
//! The shared table is locked by shard, and only for a response that this core does not know yet: such a request goes to
//! the upstream, or comes from it, which costs a thousand times as much as the lock. An entry carries a flag that says
//! whether it has gone; cores read it at every hit, and it is written once.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use ahash::AHashMap;

use crate::limits;
use crate::plugins::cache_key::Scratch;

/// SHA-256 of what tells one response from another.
pub type Key = [u8; 32];

const SHARDS: usize = 16;
/// What an entry costs beyond its texts.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// A kept response.
pub struct Stored {
    pub status: u16,
    /// Lines of `name:value`, each with a line feed behind it; no text of a field holds one.
    fields: Box<[u8]>,
    pub body: Box<[u8]>,
    /// What `Content-Length` said of a body that was not sent, as in answers to HEAD.
    pub body_bytes_told: Option<u64>,
    /// When it was received, seconds since 1970.
    pub at_s: u64,
    /// How long it is fresh.
    pub ttl_s: u64,
    /// When it goes.
    pub gone_at_s: u64,
    gone: AtomicBool,
    /// Whether it was asked for since it last was to make room.
    used: AtomicBool,
}

impl Stored {
    /// Its fields, name and value.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }

    fn bytes(&self) -> usize {
        self.fields.len() + self.body.len() + ENTRY_OVERHEAD_BYTES
    }

    fn is_live(&self, now_s: u64) -> bool {
        !self.gone.load(Ordering::Acquire) && now_s < self.gone_at_s
    }

    /// Written only when it changes, so that a core that reads it need not fetch the line again.
    fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// The responses of all cores.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Bytes of responses that are being received.
    collecting: AtomicUsize,
    /// How many entries have gone.
    departures: AtomicU64,
    /// How many purges there were.
    purges: AtomicU64,
}

#[derive(Default)]
struct Shard {
    entries: AHashMap<Key, Arc<Stored>>,
    /// Oldest first. An entry that is no more, or is another one now, may still stand here.
    order: VecDeque<Key>,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_bytes(limits::CACHE_BYTES_DEFAULT)
    }
}

impl Cache {
    /// A cache that keeps so many bytes at most.
    pub fn with_bytes(bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            collecting: AtomicUsize::new(0),
            departures: AtomicU64::new(0),
            purges: AtomicU64::new(0),
        }
    }

    /// The largest entry. A larger one would drive out too much for a single request.
    pub fn entry_bytes_max(&self) -> usize {
        (self.bytes_max / 8).min(limits::CACHED_BODY_BYTES_MAX)
    }

    /// A response, if it is there.
    pub fn find(&self, key: &Key, now_s: u64) -> Option<Arc<Stored>> {
        let mut shard = self.shard(key);
        let stored = shard.entries.get(key)?;
        if stored.is_live(now_s) {
            return Some(stored.clone());
        }
        self.forget(&mut shard, key);
        None
    }

    /// The number of purges so far, for [`Cache::put`].
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Keeps a response, unless it is too large or somebody purged since `purges` were counted: what was asked of the
    /// upstream before a purge may be what the purge was about.
    pub fn put(&self, key: Key, stored: Stored, purges: u64) -> bool {
        let bytes = stored.bytes();
        if bytes > self.entry_bytes_max() {
            return false;
        }
        let home = self.index(&key);
        {
            let mut shard = self.lock(home);
            if self.purges() != purges {
                return false;
            }
            self.forget(&mut shard, &key);
            shard.entries.insert(key, Arc::new(stored));
            shard.order.push_back(key);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            shard.tidy();
        }
        // Its own shard first; the others only if that one has nothing else to give.
        for index in (home..SHARDS).chain(0..home) {
            if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
                break;
            }
            self.make_room_in(index, &key);
        }
        true
    }

    /// Forgets a response; whether there was one.
    pub fn purge(&self, key: &Key, now_s: u64) -> bool {
        self.purges.fetch_add(1, Ordering::AcqRel);
        let mut shard = self.shard(key);
        let was_live = shard.entries.get(key).is_some_and(|stored| stored.is_live(now_s));
        self.forget(&mut shard, key);
        was_live
    }

    /// Forgets all responses.
    pub fn flush(&self) {
        self.purges.fetch_add(1, Ordering::AcqRel);
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            let keys: Vec<Key> = shard.entries.keys().copied().collect();
            keys.iter().for_each(|key| self.forget(&mut shard, key));
            shard.order.clear();
        }
    }

    /// Bytes that are kept now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn index(&self, key: &Key) -> usize {
        usize::from(key[0]) % SHARDS
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.lock(self.index(key))
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        // Whoever panicked left a whole map behind.
        self.shards[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn forget(&self, shard: &mut Shard, key: &Key) {
        if let Some(old) = shard.entries.remove(key) {
            old.gone.store(true, Ordering::Release);
            self.bytes.fetch_sub(old.bytes(), Ordering::Relaxed);
            self.departures.fetch_add(1, Ordering::Release);
        }
    }

    /// Lets entries of a shard go, the oldest first; one that was asked for since has a second turn. `newest` stays.
    fn make_room_in(&self, index: usize, newest: &Key) {
        let mut shard = self.lock(index);
        let mut turns = shard.order.len() * 2;
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max && turns > 0 {
            turns -= 1;
            let Some(key) = shard.order.pop_front() else { return };
            let Some(stored) = shard.entries.get(&key) else { continue };
            if key == *newest || stored.used.swap(false, Ordering::Relaxed) {
                shard.order.push_back(key);
            } else {
                self.forget(&mut shard, &key);
            }
        }
    }
}

impl Shard {
    /// Takes out of the order what is no more, when that is half of it.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.entries.len() + 64 {
            let mut seen = ahash::AHashSet::with_capacity(self.entries.len());
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key) && seen.insert(*key));
        }
    }
}

/// A core's handle: its count of references is the core's own.
pub struct Held(Arc<Stored>);

impl std::ops::Deref for Held {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        &self.0
    }
}

/// One core's end of the cache.
#[derive(Default)]
pub struct CoreCache {
    shared: Arc<Cache>,
    seen: RefCell<AHashMap<Key, Arc<Held>>>,
    /// Departures that the handles were last compared with.
    swept_at: Cell<u64>,
    /// Memory for the making of keys.
    pub scratch: RefCell<Scratch>,
}

impl CoreCache {
    /// Of a cache that is shared with other cores.
    pub fn new(shared: Arc<Cache>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// The cache of all cores.
    pub fn shared(&self) -> &Arc<Cache> {
        &self.shared
    }

    /// A response, if it is there.
    pub fn find(&self, key: &Key, now_s: u64) -> Option<Arc<Held>> {
        let mut seen = self.seen.borrow_mut();
        if let Some(held) = seen.get(key) {
            if held.is_live(now_s) {
                held.mark_used();
                return Some(held.clone());
            }
            seen.remove(key);
        }
        let held = Arc::new(Held(self.shared.find(key, now_s)?));
        if seen.len() >= limits::CACHE_HANDLES_PER_CORE_MAX {
            seen.clear();
        }
        seen.insert(*key, held.clone());
        Some(held)
    }

    /// Lets go of what has gone; to be called some times a second.
    pub fn sweep(&self) {
        let departures = self.shared.departures.load(Ordering::Acquire);
        if self.swept_at.replace(departures) != departures {
            self.seen.borrow_mut().retain(|_, held| !held.gone.load(Ordering::Acquire));
        }
    }
}

/// A response that is being received.
pub struct Collected {
    cache: Arc<Cache>,
    key: Key,
    purges: u64,
    status: u16,
    body_bytes_told: Option<u64>,
    at_s: u64,
    ttl_s: u64,
    gone_at_s: u64,
    fields: Vec<u8>,
    body: Vec<u8>,
}

/// What is known of a response before its body comes.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    pub key: Key,
    pub purges: u64,
    pub status: u16,
    pub body_bytes_told: Option<u64>,
    pub at_s: u64,
    pub ttl_s: u64,
    /// How long it is kept.
    pub kept_s: u64,
}

impl Collected {
    /// Begins to keep one.
    pub fn new(cache: Arc<Cache>, begun: Begun) -> Self {
        let Begun { key, purges, status, body_bytes_told, at_s, ttl_s, kept_s } = begun;
        let gone_at_s = at_s.saturating_add(kept_s);
        let (fields, body) = (Vec::new(), Vec::new());
        Self { cache, key, purges, status, body_bytes_told, at_s, ttl_s, gone_at_s, fields, body }
    }

    /// Takes a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.fields.extend_from_slice(name);
        self.fields.push(b':');
        self.fields.extend_from_slice(value);
        self.fields.push(b'\n');
    }

    /// Takes a piece of the body; `false`: it becomes too long, or too much is being received now.
    pub fn piece(&mut self, piece: &[u8]) -> bool {
        let fits = self.body.len() + piece.len() <= self.cache.entry_bytes_max();
        let all = self.cache.collecting.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
        if !fits || all > self.cache.bytes_max / 2 {
            self.cache.collecting.fetch_sub(piece.len(), Ordering::Relaxed);
            return false;
        }
        self.body.extend_from_slice(piece);
        true
    }

    /// Keeps what was received.
    pub fn finish(mut self) -> bool {
        let body = std::mem::take(&mut self.body);
        self.cache.collecting.fetch_sub(body.len(), Ordering::Relaxed);
        let stored = Stored {
            status: self.status,
            fields: std::mem::take(&mut self.fields).into(),
            body: body.into(),
            body_bytes_told: self.body_bytes_told,
            at_s: self.at_s,
            ttl_s: self.ttl_s,
            gone_at_s: self.gone_at_s,
            gone: AtomicBool::new(false),
            used: AtomicBool::new(false),
        };
        self.cache.put(self.key, stored, self.purges)
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.cache.collecting.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn key(n: u64) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    fn keep(cache: &Arc<Cache>, n: u64, body: &[u8], purges: u64) -> bool {
        let begun =
            Begun { key: key(n), purges, status: 200, body_bytes_told: None, at_s: NOW_S, ttl_s: 10, kept_s: 10 };
        let mut collected = Collected::new(cache.clone(), begun);
        collected.field(b"A", b"b:c");
        collected.field(b"D", b"");
        collected.piece(body) && collected.finish()
    }

    #[test]
    fn what_is_kept_is_found_until_its_time_is_over() {
        let core = CoreCache::default();
        assert!(keep(core.shared(), 1, b"body", 0));
        let held = core.find(&key(1), NOW_S).unwrap();
        assert_eq!((held.status, &*held.body), (200, &b"body"[..]));
        assert_eq!(held.fields().collect::<Vec<_>>(), [(&b"A"[..], &b"b:c"[..]), (b"D", b"")]);
        assert!(core.find(&key(1), NOW_S + 9).is_some() && core.find(&key(2), NOW_S).is_none());
        assert!(core.find(&key(1), NOW_S + 10).is_none());
        assert_eq!(core.shared().bytes(), 0, "what is over is let go of when it is met");
    }

    #[test]
    fn what_was_purged_answers_on_no_core() {
        let cache = Arc::new(Cache::default());
        let cores = [CoreCache::new(cache.clone()), CoreCache::new(cache.clone())];
        for n in 0..100 {
            assert!(keep(&cache, n, b"x", 0));
            assert!(cores.iter().all(|core| core.find(&key(n), NOW_S).is_some()));
        }
        assert!(cache.purge(&key(3), NOW_S) && !cache.purge(&key(3), NOW_S));
        assert!(cores.iter().all(|core| core.find(&key(3), NOW_S).is_none() && core.find(&key(4), NOW_S).is_some()));
        cache.flush();
        assert!((0..100).all(|n| cores.iter().all(|core| core.find(&key(n), NOW_S).is_none())));
        assert_eq!(cache.bytes(), 0);
        cores.iter().for_each(CoreCache::sweep);
        assert!(cores.iter().all(|core| core.seen.borrow().is_empty()));
    }

    #[test]
    fn what_was_under_way_when_a_purge_began_is_not_kept() {
        let core = CoreCache::default();
        let purges = core.shared().purges();
        core.shared().purge(&key(9), NOW_S);
        assert!(!keep(core.shared(), 1, b"old", purges));
        assert!(keep(core.shared(), 1, b"new", core.shared().purges()));
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays_longest() {
        let core = CoreCache::new(Arc::new(Cache::with_bytes(64 << 10)));
        keep(core.shared(), 0, &[0; 1000], 0);
        for n in 1..2_000 {
            assert!(core.find(&key(0), NOW_S).is_some(), "{n}");
            assert!(keep(core.shared(), n, &[0; 1000], 0));
            assert!(core.shared().bytes() <= 64 << 10, "{n}");
            core.sweep();
        }
        let there = (0..2_000).filter(|n| core.find(&key(*n), NOW_S).is_some()).count();
        assert!((40..=52).contains(&there), "{there}");
        assert!(!keep(core.shared(), 5_000, &[0; 9 << 10], 0), "one entry may not take it all");
    }

    #[test]
    fn an_entry_that_is_kept_again_and_again_leaves_nothing_behind() {
        let cache = Arc::new(Cache::default());
        for _ in 0..10_000 {
            keep(&cache, 1, b"x", 0);
        }
        assert_eq!(cache.bytes(), ENTRY_OVERHEAD_BYTES + "A:b:c\nD:\n".len() + 1);
        assert!(cache.shard(&key(1)).order.len() < 100);
    }

    #[test]
    fn what_is_being_received_is_bounded_and_given_back() {
        let cache = Arc::new(Cache::with_bytes(64 << 10));
        let begin = |n| {
            let begun =
                Begun { key: key(n), purges: 0, status: 200, body_bytes_told: None, at_s: 0, ttl_s: 1, kept_s: 1 };
            Collected::new(cache.clone(), begun)
        };
        let mut under_way: Vec<Collected> = (0..8).map(begin).collect();
        let taken = under_way.iter_mut().filter_map(|collected| collected.piece(&[0; 7 << 10]).then_some(())).count();
        assert_eq!(taken, 4);
        drop(under_way);
        assert!(begin(9).piece(&[0; 7 << 10]));
        assert_eq!(cache.collecting.load(Ordering::Relaxed), 0);
    }
}
