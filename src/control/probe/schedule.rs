//! Which address is to be probed now? Pure: the time and the state of the addresses in, those that are due out.
//! Always: available and unavailable addresses follow intervals of their own, counted from the last probe; the first probes of
//! an upstream are spread over one interval.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Address and host name of the target.
pub type Key = (SocketAddr, Arc<str>);

/// When the addresses of one upstream were probed last. Survives every edit that keeps the address.
#[derive(Debug, Default)]
pub struct Schedule {
    last_ms: HashMap<Key, u64>,
}

/// How often, in milliseconds; 0: never.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    pub available_ms: u64,
    pub unavailable_ms: u64,
}

impl Schedule {
    /// The positions of those addresses that are due, those that wait longest first: where more are due than may be probed at
    /// a time, all get their turn. Addresses that are not listed are forgotten.
    pub fn due(&mut self, addresses: &[(Key, bool)], intervals: Intervals, now_ms: u64) -> Vec<usize> {
        let listed: HashSet<&Key> = addresses.iter().map(|(key, _)| key).collect();
        self.last_ms.retain(|key, _| listed.contains(key));
        let mut due = Vec::new();
        for (at, (key, available)) in addresses.iter().enumerate() {
            let interval_ms = if *available { intervals.available_ms } else { intervals.unavailable_ms };
            // One that is new is due when its share of an interval is over.
            let share_ms = interval_ms * at as u64 / addresses.len() as u64;
            let last_ms = *self.last_ms.entry(key.clone()).or_insert(now_ms.saturating_sub(share_ms));
            let due_ms = last_ms.saturating_add(interval_ms);
            if interval_ms > 0 && now_ms >= due_ms {
                due.push((due_ms, at));
            }
        }
        due.sort_unstable();
        due.into_iter().map(|(_, at)| at).collect()
    }

    /// Notes that an address is being probed.
    pub fn started(&mut self, key: &Key, now_ms: u64) {
        self.last_ms.insert(key.clone(), now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::checks::checks_for_test;
    use crate::balancer::health::Outcome;
    use crate::balancer::vitals::Evidence;
    use crate::balancer::vitals::Now;
    use crate::balancer::vitals::Pulse;
    use crate::balancer::vitals::Vitals;

    const INTERVALS: Intervals = Intervals { available_ms: 1000, unavailable_ms: 200 };

    fn key(port: u16) -> Key {
        (SocketAddr::from(([127, 0, 0, 1], port)), Arc::from("t"))
    }

    /// The times at which each address is probed, looked at every 100 ms.
    fn probes(schedule: &mut Schedule, addresses: &[(Key, bool)], from_ms: u64, until_ms: u64) -> Vec<Vec<u64>> {
        let mut times = vec![Vec::new(); addresses.len()];
        for now_ms in (from_ms..until_ms).step_by(100) {
            for at in schedule.due(addresses, INTERVALS, now_ms) {
                schedule.started(&addresses[at].0, now_ms);
                times[at].push(now_ms);
            }
        }
        times
    }

    #[test]
    fn the_first_probes_are_spread_over_one_interval_and_the_rest_keeps_the_rhythm() {
        let addresses = [(key(1), true), (key(2), true)];
        assert_eq!(probes(&mut Schedule::default(), &addresses, 0, 3000), [vec![1000, 2000], vec![1000, 2000]]);
        let late = probes(&mut Schedule::default(), &addresses, 10_000, 13_000);
        assert_eq!(late, [vec![11_000, 12_000], vec![10_500, 11_500, 12_500]]);
    }

    #[test]
    fn an_address_that_becomes_unavailable_is_probed_by_its_other_interval() {
        let mut schedule = Schedule::default();
        assert_eq!(probes(&mut schedule, &[(key(1), true)], 0, 1100), [vec![1000]]);
        assert_eq!(probes(&mut schedule, &[(key(1), false)], 1100, 1700), [vec![1200, 1400, 1600]]);
    }

    #[test]
    fn an_interval_of_zero_is_never() {
        let never = Intervals { available_ms: 0, unavailable_ms: 0 };
        let mut schedule = Schedule::default();
        assert!((0..100).all(|s| schedule.due(&[(key(1), true), (key(2), false)], never, s * 1000).is_empty()));
    }

    #[test]
    fn where_few_probes_may_be_made_at_a_time_every_address_gets_its_turn() {
        let addresses: Vec<_> = (1..=10).map(|port| (key(port), false)).collect();
        let (mut schedule, mut probed) = (Schedule::default(), [0; 10]);
        // Each takes longer than the interval, and two are made at a time.
        for now_ms in (0..10_000).step_by(500) {
            for at in schedule.due(&addresses, INTERVALS, now_ms).into_iter().take(2) {
                schedule.started(&addresses[at].0, now_ms);
                probed[at] += 1;
            }
        }
        assert!(probed.iter().all(|count| (3..=4).contains(count)), "{probed:?}");
    }

    /// So many good probes, one interval apart or as far as their number at a time allows, after a first that is at most one
    /// interval away; and two ticks, because of those that are due together any may be first.
    #[test]
    fn an_address_that_is_well_again_is_available_within_its_bound() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (count, at_a_time) = (rng.usize(1..20), rng.usize(1..5));
            let intervals = Intervals { available_ms: 0, unavailable_ms: rng.u64(1..30) * 100 };
            let mut checks = checks_for_test();
            checks.active.limits.successes = rng.u8(1..4);
            let pulse = Arc::new(Pulse::new(1, Arc::new(|_| {})));
            let vitals = |port| Vitals::new(key(port).0, key(port).1, pulse.clone());
            let all: Vec<_> = (0..count as u16).map(vitals).collect();
            all.iter().for_each(|vitals| vitals.force(&checks, false, Now::default()));
            let round_ms = intervals.unavailable_ms.max(count.div_ceil(at_a_time) as u64 * 100);
            let bound_ms = intervals.unavailable_ms + u64::from(checks.active.limits.successes) * round_ms + 200;
            let mut schedule = Schedule::default();
            for now_ms in (0..=bound_ms).step_by(100) {
                let state = |vitals: &Vitals| ((vitals.addr, vitals.host.clone()), vitals.is_available());
                let addresses: Vec<_> = all.iter().map(state).collect();
                for at in schedule.due(&addresses, intervals, now_ms).into_iter().take(at_a_time) {
                    schedule.started(&addresses[at].0, now_ms);
                    all[at].report_probe(&checks, Outcome::Success, Evidence::Status(200), Now::default());
                }
            }
            assert!(all.iter().all(Vitals::is_available), "seed {seed}: not all are back after {bound_ms} ms");
        }
    }

    #[test]
    fn an_edit_that_keeps_an_address_keeps_its_rhythm() {
        let mut schedule = Schedule::default();
        probes(&mut schedule, &[(key(1), true)], 0, 1100);
        let after = probes(&mut schedule, &[(key(1), true), (key(2), true)], 1100, 2100);
        assert_eq!(after[0], [2000]);
    }
}
