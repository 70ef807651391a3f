//! HOT: a lookup is one or two probes; nothing is allocated once the maps have grown.
//! What was found out about credentials lately, under hashes of them.
//! Never: holds a credential, holds more than it may. Always: an old finding counts until its time and no longer.

use ahash::AHashMap;

/// What a finding is kept under: a keyed hash of what it is about.
pub type Key = [u8; 32];

#[derive(Clone, Copy)]
struct Finding {
    is_good: bool,
    until_ms: u64,
}

/// Findings of one core, in two generations: when the younger is full, the older is forgotten whole.
pub struct Recent {
    young: AHashMap<Key, Finding>,
    old: AHashMap<Key, Finding>,
    generation_max: usize,
}

impl Recent {
    /// Room for so many findings.
    pub fn new(max: usize) -> Self {
        Self { young: AHashMap::new(), old: AHashMap::new(), generation_max: (max / 2).max(1) }
    }

    /// What was found, if that still counts.
    pub fn find(&self, key: &Key, now_unix_ms: u64) -> Option<bool> {
        let finding = self.young.get(key).or_else(|| self.old.get(key))?;
        (now_unix_ms < finding.until_ms).then_some(finding.is_good)
    }

    /// Keeps a finding until then.
    pub fn keep(&mut self, key: Key, is_good: bool, until_ms: u64) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, Finding { is_good, until_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        [n; 32]
    }

    #[test]
    fn a_finding_counts_until_its_time() {
        let mut recent = Recent::new(10);
        recent.keep(key(1), true, 1000);
        recent.keep(key(2), false, 1000);
        assert_eq!((recent.find(&key(1), 999), recent.find(&key(1), 1000)), (Some(true), None));
        assert_eq!((recent.find(&key(2), 0), recent.find(&key(3), 0)), (Some(false), None));
        recent.keep(key(1), false, 2000);
        assert_eq!(recent.find(&key(1), 1500), Some(false));
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_is_no_room() {
        let mut recent = Recent::new(8);
        for n in 0..100 {
            recent.keep(key(n), true, u64::MAX);
            assert!(recent.young.len() + recent.old.len() <= 8);
            for younger in n.saturating_sub(3)..=n {
                assert_eq!(recent.find(&key(younger), 0), Some(true), "{n} {younger}");
            }
        }
        assert_eq!(recent.find(&key(0), 0), None);
        // What was kept again is young again.
        recent.keep(key(96), false, u64::MAX);
        assert_eq!(recent.find(&key(96), 0), Some(false));
    }
}
