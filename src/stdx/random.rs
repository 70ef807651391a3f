//! HOT: no allocation, no lock.
//! The only source of chance of one core: seeded, so that a test can replay it.
//! Never: used for secrets. Request ids and ring offsets need spread, not secrecy; keys come from the operating system.

use std::cell::RefCell;

/// A small, fast generator owned by one core.
pub struct Random(RefCell<fastrand::Rng>);

impl Random {
    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Self {
        Self(RefCell::new(fastrand::Rng::with_seed(seed)))
    }

    /// A generator that no other core or run repeats.
    pub fn from_entropy() -> Self {
        Self(RefCell::new(fastrand::Rng::new()))
    }

    /// 64 evenly spread bits.
    pub fn bits(&self) -> u64 {
        self.0.borrow_mut().u64(..)
    }

    /// A number from 0 to `below` - 1; 0 when `below` is 0.
    pub fn below(&self, below: usize) -> usize {
        if below == 0 { 0 } else { self.0.borrow_mut().usize(..below) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_its_sequence() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert_eq!(a.below(0), 0);
    }
}
