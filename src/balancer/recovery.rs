//! HOT only for [`limits::RECOVERY_MS`] after a peer came back; a comparison otherwise.
//! How a peer that came back a moment ago is used by algorithms that measure. It has nothing in flight, or no latency yet: they
//! would send it every request of every core, or none for long.
//! Always: until the moment is over it gets its share by weight, from the first turn on and no more; and less where requests
//! pile up on it.

use crate::balancer::Ask;
use crate::balancer::Balancer;
use crate::balancer::Measures;
use crate::limits;

/// 2^64 divided by the golden ratio: multiples of it, as fractions of 2^64, are spread evenly however many are taken.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Balancer {
    /// The peer for the next request while some have just come back.
    pub(super) fn pick_beside_recovered(&self, ask: &Ask<'_>, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let recovered = |index: usize| self.peers[index].vitals.is_fresh_again(ask.now_ms, limits::RECOVERY_MS);
        let turn = ask.turn.get();
        match self.whose_turn(turn).filter(|&index| usable(index) && recovered(index) && self.has_room(index)) {
            Some(index) => {
                ask.turn.set(turn.wrapping_add(1));
                Some(index)
            }
            None => {
                let picked = self.algorithm.pick(ask, &self.peers, &|index| usable(index) && !recovered(index));
                if picked.is_none() {
                    // Whoever looks next counts this turn; counted twice, turns would miss a peer for long.
                    ask.turn.set(turn);
                }
                picked
            }
        }
    }

    /// Over many turns each peer has its share by weight of them.
    fn whose_turn(&self, turn: u64) -> Option<usize> {
        let at = (u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(self.weight)) >> 64;
        let mut end = 0;
        self.peers.iter().position(|peer| {
            end += u128::from(peer.weight);
            at < end
        })
    }

    /// Whether it has no more than its share of all that is in flight.
    fn has_room(&self, index: usize) -> bool {
        if self.kind.measures != Measures::InFlight {
            return true;
        }
        let in_flight = |index: usize| u64::from(self.peers[index].vitals.in_flight());
        let all: u64 = (0..self.peers.len()).map(in_flight).sum();
        in_flight(index) * self.weight <= (all + 1) * u64::from(self.peers[index].weight)
    }
}

#[cfg(test)]
mod tests {
    use crate::balancer::testing::Rig;
    use crate::limits;

    const MEASURING: [&str; 2] = ["least-connections", "latency"];

    /// How often each of the peers is picked in so many requests at a time.
    fn counts<const N: usize>(rig: &Rig, picks: usize, now_ms: u64) -> [usize; N] {
        let mut counts = [0; N];
        (0..picks).for_each(|_| counts[rig.pick_at(now_ms).unwrap()] += 1);
        counts
    }

    #[test]
    fn one_that_came_back_gets_its_share_and_no_more_at_first() {
        for name in MEASURING {
            let rig = Rig::new(name, &[1, 1, 2]);
            // All others are busy and slow.
            let held: Vec<_> = (0..200).map(|n| rig.peers()[1 + n % 2].vitals.enter()).collect();
            rig.peers()[1].vitals.observe_latency(1.0, 0);
            rig.peers()[2].vitals.observe_latency(1.0, 0);
            rig.eject(0);
            rig.bring_back(0, 1000);
            rig.peers()[0].vitals.observe_latency(0.0, 1000);
            let [picked, ..] = counts::<3>(&rig, 400, 1001);
            assert!((98..=102).contains(&picked), "{name}: {picked} of 400");
            assert_eq!(counts(&rig, 10, 1000 + limits::RECOVERY_MS), [10, 0, 0], "{name}");
            drop(held);
        }
    }

    #[test]
    fn one_that_came_back_is_used_at_once_though_the_others_are_idle_and_faster() {
        for name in MEASURING {
            for back in 0..3 {
                let rig = Rig::new(name, &[100, 100, 100]);
                (0..3).for_each(|index| rig.peers()[index].vitals.observe_latency(0.001 + index as f32, 0));
                rig.eject(back);
                rig.bring_back(back, 1000);
                for begin in 0..20 {
                    let picked = counts::<3>(&rig, 6, 1000)[back];
                    assert!((1..=3).contains(&picked), "{name}: {picked} of 6 after {begin} times 6 for {back}");
                }
            }
        }
    }

    #[test]
    fn those_that_came_back_together_have_a_share_each() {
        for name in MEASURING {
            let rig = Rig::new(name, &[10, 10, 20, 0]);
            [0, 2].into_iter().for_each(|index| rig.eject(index));
            [0, 2].into_iter().for_each(|index| rig.bring_back(index, 1000));
            let [a, b, c, off] = counts::<4>(&rig, 400, 1001);
            assert!(a.abs_diff(100) <= 2 && b.abs_diff(100) <= 2 && c.abs_diff(200) <= 2 && off == 0, "{name}");
            // Where nobody else is left they get everything.
            rig.eject(1);
            let [a, _, c, _] = counts::<4>(&rig, 400, 1001);
            assert!(a > 0 && c > 0 && a + c == 400, "{name}");
        }
    }

    #[test]
    fn one_that_came_back_and_is_slow_is_spared() {
        let rig = Rig::new("least-connections", &[1, 1]);
        rig.eject(0);
        rig.bring_back(0, 1000);
        let held: Vec<_> = (0..10).map(|_| rig.peers()[0].vitals.enter()).collect();
        assert_eq!(counts(&rig, 100, 1001), [0, 100]);
        drop(held);
        assert!(counts::<2>(&rig, 100, 1001)[0] > 40);
    }
}
