//! HOT: a pick is one index, or a step along the list for every peer that may not be used.
//! Weighted round-robin (spec/balancer.md section 7.1): a list in which each peer stands weight/gcd times, spread evenly.
//! Always: any window as long as the list serves each usable peer exactly in proportion to its weight.

use crate::balancer::Algorithm;
use crate::balancer::AlgorithmKind;
use crate::balancer::Ask;
use crate::balancer::Blueprint;
use crate::balancer::Measures;
use crate::balancer::Peer;
use crate::limits;

pub(super) const KIND: AlgorithmKind =
    AlgorithmKind { name: "round-robin", measures: Measures::Nothing, starts_over: true, build };

struct RoundRobin {
    /// Peer indices, in the order they are served.
    list: Vec<u32>,
}

fn build(blueprint: &Blueprint<'_>) -> Box<dyn Algorithm> {
    let weights: Vec<u64> = blueprint.peers.iter().map(|p| u64::from(p.weight)).collect();
    Box::new(RoundRobin { list: spread(&shares(&weights)) })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How often each peer stands in the list: weight/gcd, scaled down (never to nothing) where the list would be too long.
fn shares(weights: &[u64]) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|w| w / divisor).sum();
    let bound = (limits::RING_ENTRIES_MAX as u64).max(weights.len() as u64);
    let scale = |w: &u64| match w / divisor {
        0 => 0,
        share if total <= bound => share,
        share => (share * bound / total).max(1),
    };
    weights.iter().map(scale).collect()
}

/// Spreads the peers so that equal steps lie between the turns of each: the k-th of n turns stands at (2k + 1) / 2n of
/// the way. Two equal peers alternate, and a heavy one does not get its turns in one burst.
fn spread(shares: &[u64]) -> Vec<u32> {
    let mut turns: Vec<(u64, u32)> = Vec::with_capacity(shares.iter().sum::<u64>() as usize);
    for (index, &share) in shares.iter().enumerate() {
        turns.extend((0..share).map(|k| (((2 * k + 1) << 32) / (2 * share), index as u32)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, index)| index).collect()
}

impl Algorithm for RoundRobin {
    fn pick(&self, ask: &Ask<'_>, _: &[Peer], usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let len = self.list.len() as u64;
        for _ in 0..len {
            let at = ask.turn.get();
            ask.turn.set(at.wrapping_add(1));
            let index = self.list[(at % len) as usize] as usize;
            if usable(index) {
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::testing::Rig;

    fn counts(weights: &[u32], picks: usize, start: u64) -> Vec<usize> {
        let rig = Rig::new("round-robin", weights);
        rig.local.turn.set(start);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[rig.pick_at(0).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn equal_weights_alternate() {
        let rig = Rig::new("round-robin", &[100, 100]);
        let order: Vec<_> = (0..6).map(|_| rig.pick_at(0).unwrap()).collect();
        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_full_turn_is_exactly_proportional_from_any_start() {
        assert_eq!(counts(&[10, 10], 20_000, 0), [10_000, 10_000]);
        for start in [0, 1, 7, u64::MAX / 2] {
            assert_eq!(counts(&[100, 50, 50], 4000, start), [2000, 1000, 1000]);
            assert_eq!(counts(&[3, 0, 7], 1000, start), [300, 0, 700]);
        }
    }

    #[test]
    fn a_heavy_peer_does_not_get_its_turns_in_one_burst() {
        let rig = Rig::new("round-robin", &[5, 1]);
        let order: Vec<_> = (0..6).map(|_| rig.pick_at(0).unwrap()).collect();
        assert_eq!(order.iter().filter(|i| **i == 1).count(), 1);
        assert!(order[0] == 0 && order[5] == 0, "the light one stands in the middle: {order:?}");
    }

    #[test]
    fn coprime_weights_keep_the_list_within_its_bound() {
        let shares = shares(&[65_521, 65_519, 65_497, 1]);
        assert!(shares.iter().sum::<u64>() <= limits::RING_ENTRIES_MAX as u64 + 1);
        assert!(shares.iter().all(|s| *s > 0));
    }

    #[test]
    fn one_that_came_back_gets_its_share_of_every_turn_from_the_first_on() {
        let rig = Rig::new("round-robin", &[1, 1, 2]);
        rig.eject(0);
        (0..11).for_each(|_| assert_ne!(rig.pick_at(0), Some(0)));
        rig.bring_back(0, 1);
        for turn in 0..20 {
            let picked = (0..4).filter(|_| rig.pick_at(1) == Some(0)).count();
            assert_eq!(picked, 1, "turn {turn}");
        }
    }

    #[test]
    fn what_an_unusable_peer_leaves_is_shared_in_proportion() {
        let rig = Rig::new("round-robin", &[20, 10, 30]);
        rig.eject(2);
        let mut counts = [0; 3];
        (0..300).for_each(|_| counts[rig.pick_at(0).unwrap()] += 1);
        assert_eq!(counts, [200, 100, 0]);
    }
}
