//! HOT: two loads and a comparison per candidate.
//! Least connections (spec/balancer.md section 7.3): the peer with the fewest requests in flight for its weight, over all
//! cores.
//!
//! The measure is (requests in flight + 1) / weight. Ties go to the first from a place that moves on by one with every
//! pick, so that idle peers take turns. Two cores that pick in the same instant may take the same peer: a count is off by
//! as many cores at most.

use crate::balancer::Algorithm;
use crate::balancer::AlgorithmKind;
use crate::balancer::Ask;
use crate::balancer::Blueprint;
use crate::balancer::Measures;
use crate::balancer::Peer;

pub(super) const KIND: AlgorithmKind =
    AlgorithmKind { name: "least-connections", measures: Measures::InFlight, starts_over: true, build };

struct LeastConnections;

fn build(_: &Blueprint<'_>) -> Box<dyn Algorithm> {
    Box::new(LeastConnections)
}

impl Algorithm for LeastConnections {
    fn pick(&self, ask: &Ask<'_>, peers: &[Peer], usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(u64, u64, usize)> = None;
        for index in ask.rotation(peers.len()).filter(|&index| peers[index].weight > 0 && usable(index)) {
            let (load, weight) = (u64::from(peers[index].vitals.in_flight()) + 1, u64::from(peers[index].weight));
            // load / weight < least / of, without dividing.
            if best.is_none_or(|(least, of, _)| load * of < least * weight) {
                best = Some((load, weight, index));
            }
        }
        best.map(|(.., index)| index)
    }
}

#[cfg(test)]
mod tests {
    use crate::balancer::testing::Rig;

    #[test]
    fn the_least_loaded_for_its_weight_is_picked() {
        let rig = Rig::new("least-connections", &[100, 50]);
        let mut held = Vec::new();
        let mut counts = [0; 2];
        for _ in 0..300 {
            let index = rig.pick_at(0).unwrap();
            held.push(rig.peers()[index].vitals.enter());
            counts[index] += 1;
        }
        assert_eq!(counts, [200, 100]);
    }

    #[test]
    fn idle_peers_take_turns() {
        let rig = Rig::new("least-connections", &[1, 1, 1]);
        let mut counts = [0; 3];
        (0..30).for_each(|_| counts[rig.pick_at(0).unwrap()] += 1);
        assert_eq!(counts, [10, 10, 10]);
    }

    #[test]
    fn weight_zero_is_never_picked_and_the_end_of_a_request_frees_its_place() {
        let rig = Rig::new("least-connections", &[0, 1, 1]);
        let held = rig.peers()[1].vitals.enter();
        assert!((0..9).all(|_| rig.pick_at(0) == Some(2)));
        drop(held);
        assert!((0..9).any(|_| rig.pick_at(0) == Some(1)));
    }

    #[test]
    fn when_all_have_failed_it_starts_over() {
        let rig = Rig::new("least-connections", &[1, 1]);
        assert_eq!(rig.pick_after_failures(&[1]), Some(0));
        assert!(rig.pick_after_failures(&[0, 1]).is_some());
    }
}
