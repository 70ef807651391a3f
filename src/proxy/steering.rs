//! Which core serves a new connection.
//! The kernel spreads connections over the cores' sockets by a hash, unevenly when they are few and stay long. A core that
//! has accepted one although another serves fewer hands it on, before anything was read of it.
//! Never: moves a connection that is being served. Always: where counts are near each other nothing is written or sent;
//! the choice costs a look at one counter of each core.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::metrics::counters::CoreCounters;
use crate::state::mailbox::Handed;
use crate::state::mailbox::Sender;

/// All cores of the node, as places that a connection can be handed to.
pub struct Fleet {
    places: Vec<Place>,
}

/// Alone on its cache lines: what one core is sent is no matter of the others.
#[repr(align(128))]
struct Place {
    sender: Sender,
    counters: Arc<CoreCounters>,
    /// Handed over and not yet taken, so not yet among the core's connections.
    coming: AtomicU64,
}

impl Place {
    fn load(&self) -> u64 {
        self.counters.active.get() + self.coming.load(Ordering::Relaxed)
    }
}

impl Fleet {
    /// The cores in their order.
    pub fn new(cores: impl Iterator<Item = (Sender, Arc<CoreCounters>)>) -> Self {
        let place = |(sender, counters)| Place { sender, counters, coming: AtomicU64::new(0) };
        Self { places: cores.map(place).collect() }
    }

    /// The core that should serve the connection that `core` has just accepted and not counted yet, if it is another.
    pub fn better_place(&self, core: usize) -> Option<usize> {
        better(core, self.places.len(), |index| self.places[index].load())
    }

    /// Hands a connection to a core.
    ///
    /// # Errors
    /// That core has ended; here is the connection again.
    pub fn hand(&self, core: usize, handed: Handed) -> Result<(), Handed> {
        let place = &self.places[core];
        place.coming.fetch_add(1, Ordering::Relaxed);
        place.sender.hand(handed).inspect_err(|_| self.taken(core))
    }

    /// A core has taken up, and counted, a connection that was handed to it.
    pub fn taken(&self, core: usize) {
        self.places[core].coming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The least loaded of `count` cores, unless `own` is hardly worse off: a sixteenth more, or one connection, is not worth
/// the way.
fn better(own: usize, count: usize, load: impl Fn(usize) -> u64) -> Option<usize> {
    let own_load = load(own);
    if own_load < 2 {
        return None;
    }
    let (least, index) = (0..count).filter(|index| *index != own).map(|index| (load(index), index)).min()?;
    (own_load > least + 1 + own_load / 16).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own: usize, loads: &[u64], want: Option<usize>) {
        assert_eq!(better(own, loads.len(), |index| loads[index]), want, "core {own} of {loads:?}");
    }

    #[test]
    fn a_connection_goes_to_the_least_loaded_core() {
        check(0, &[2, 1, 0, 1], Some(2));
        check(1, &[0, 5, 3, 0], Some(0));
        check(3, &[9, 9, 8, 30], Some(2));
    }

    #[test]
    fn it_stays_where_counts_are_near_each_other() {
        check(0, &[0], None);
        check(0, &[100], None);
        check(0, &[1, 0], None);
        check(0, &[3, 2], None);
        check(2, &[1000, 990, 1050], None);
        check(2, &[1000, 900, 1050], Some(1));
    }

    #[test]
    fn whatever_the_kernel_does_counts_stay_within_two() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut loads = vec![0u64; rng.usize(1..9)];
            for _ in 0..16 {
                let accepted = rng.usize(..loads.len().div_ceil(2));
                let place = better(accepted, loads.len(), |index| loads[index]).unwrap_or(accepted);
                loads[place] += 1;
                let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
                assert!(most - least <= 2, "seed {seed}: {loads:?}");
            }
        }
    }
}
