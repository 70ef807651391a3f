//! HOT: a lookup is one step, and one more for every slot that is free or whose peer may not be used.
//! Consistent hashing (spec/balancer.md section 7.2): Kong's continuum, so that the same key meets the same address.
//! Always: equal addresses and weights give an equal continuum, whatever the order in which they came.

use std::net::SocketAddr;

use crate::balancer::Algorithm;
use crate::balancer::AlgorithmKind;
use crate::balancer::Ask;
use crate::balancer::Blueprint;
use crate::balancer::Measures;
use crate::balancer::Peer;
use crate::balancer::xxhash::xxhash32;

pub(super) const KIND: AlgorithmKind =
    AlgorithmKind { name: "consistent-hashing", measures: Measures::Nothing, starts_over: true, build };

/// Fewer slots than this are not used.
const SLOTS_MIN: u32 = 1000;
/// Points of an address that has its fair part of the weight.
const POINTS: f64 = 160.0;
const FREE: u32 = u32::MAX;

struct Continuum {
    /// Peer index of each slot, or [`FREE`].
    slots: Box<[u32]>,
}

fn build(blueprint: &Blueprint<'_>) -> Box<dyn Algorithm> {
    Box::new(Continuum::new(blueprint))
}

/// An address as it stands in the keys of its points.
fn ip_text(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(addr) => addr.ip().to_string(),
        SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
    }
}

impl Continuum {
    fn new(blueprint: &Blueprint<'_>) -> Self {
        let Blueprint { peers, targets, slots } = *blueprint;
        let count = slots.max(SLOTS_MIN);
        let total: u64 = peers.iter().map(|peer| u64::from(peer.weight)).sum();
        let mut order: Vec<usize> = (0..peers.len()).collect();
        order.sort_by_cached_key(|&index| {
            let peer = &peers[index];
            (targets.get(peer.target as usize).cloned(), format!("{}:{}", ip_text(peer.addr), peer.addr.port()))
        });
        let mut continuum = Self { slots: vec![FREE; count as usize].into() };
        for index in order {
            let peer = &peers[index];
            if peer.weight > 0 {
                let share = f64::from(peer.weight) / total as f64 * targets.len() as f64 * POINTS;
                continuum.place(index as u32, peer.addr, (share as u32).max(1));
            }
        }
        continuum
    }

    /// Puts points of an address where they fall; one whose slot is taken is made up for by a further one.
    fn place(&mut self, index: u32, addr: SocketAddr, mut wanted: u32) {
        let count = self.slots.len() as u32;
        let prefix = format!("{}::{}", ip_text(addr), addr.port());
        let mut number = 1;
        while number <= wanted && number <= count {
            let slot = &mut self.slots[(xxhash32(format!("{prefix} {number}").as_bytes()) % count) as usize];
            if *slot == FREE {
                *slot = index;
            } else {
                wanted += 1;
            }
            number += 1;
        }
    }
}

impl Algorithm for Continuum {
    fn pick(&self, ask: &Ask<'_>, _: &[Peer], usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let start = ask.hash as usize % self.slots.len();
        let (before, behind) = self.slots.split_at(start + 1);
        let downwards = before.iter().rev().chain(behind.iter().rev());
        let owner = downwards.filter(|index| **index != FREE).find(|index| usable(**index as usize))?;
        Some(*owner as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::testing::Rig;
    use crate::balancer::vitals::unwatched;

    #[test]
    fn a_key_meets_the_owner_of_its_slot_or_of_the_next_lower_one() {
        let rig = Rig::new("consistent-hashing", &[100, 100, 100]);
        let continuum = Continuum::new(&rig.blueprint());
        for hash in 0..20_000u32 {
            let mut slot = (hash % 10_000) as usize;
            while continuum.slots[slot] == FREE {
                slot = slot.checked_sub(1).unwrap_or(9_999);
            }
            assert_eq!(rig.pick_hash(hash), Some(continuum.slots[slot] as usize), "hash {hash}");
        }
    }

    /// Whom some keys meet, as another program worked it out from the text of the specification.
    #[test]
    fn keys_meet_the_addresses_that_kongs_continuum_gives_them() {
        let keys = ["", "alice", "bob", "carol", "/", "/some/path", "10.1.2.3", "7a3d3f0e-6a4b-4e0e-9d53-0d0f5f1f9c11"];
        let long = "x".repeat(40);
        let keys = keys.into_iter().chain([long.as_str()]);
        let check = |addrs: &[(&str, u32)], slots: u32, out: Option<usize>, want: [usize; 9]| {
            let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
            let peer = |(index, (text, weight)): (usize, &(&str, u32))| Peer {
                addr: addr(text),
                host: "".into(),
                weight: *weight,
                target: index as u32,
                vitals: unwatched(),
            };
            let peers: Vec<_> = addrs.iter().enumerate().map(peer).collect();
            let target = |(text, _): &(&str, u32)| (ip_text(addr(text)).into(), addr(text).port());
            let targets: Vec<_> = addrs.iter().map(target).collect();
            let continuum = Continuum::new(&Blueprint { peers: &peers, targets: &targets, slots });
            let met: Vec<_> = keys
                .clone()
                .map(|key| {
                    let ask = Ask {
                        turn: &Default::default(),
                        tried: &Default::default(),
                        hash: xxhash32(key.as_bytes()),
                        now_ms: 0,
                        may_repeat: true,
                    };
                    continuum.pick(&ask, &peers, &|index| out != Some(index)).expect("somebody")
                })
                .collect();
            assert_eq!(met, want, "{slots} slots without {out:?}");
        };
        let three = [("10.0.0.1:80", 100), ("10.0.0.2:80", 100), ("10.0.0.3:8080", 50)];
        check(&three, 10_000, None, [2, 0, 0, 1, 1, 0, 2, 2, 1]);
        check(&three, 10_000, Some(0), [2, 1, 2, 1, 1, 1, 2, 2, 1]);
        for slots in [1000, 10] {
            check(&three, slots, None, [0, 0, 1, 2, 0, 2, 1, 1, 1]);
            check(&three, slots, Some(0), [1, 1, 1, 2, 1, 2, 1, 1, 1]);
        }
        check(&[("[::1]:80", 10), ("[::2]:80", 10)], 10_000, None, [1, 1, 0, 1, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn each_address_owns_points_in_proportion_to_its_weight() {
        let rig = Rig::new("consistent-hashing", &[100, 50, 50, 0]);
        let continuum = Continuum::new(&rig.blueprint());
        let owned = |index| continuum.slots.iter().filter(|slot| **slot == index).count();
        // Four targets, 160 points each.
        assert_eq!([owned(0), owned(1), owned(2), owned(3)], [320, 160, 160, 0]);
    }

    #[test]
    fn few_slots_are_made_a_thousand_and_a_tiny_weight_keeps_a_point() {
        let mut rig = Rig::new("consistent-hashing", &[65_535, 1]);
        rig.slots = 10;
        let continuum = Continuum::new(&rig.blueprint());
        assert_eq!(continuum.slots.len(), 1000);
        assert_eq!(continuum.slots.iter().filter(|slot| **slot == 1).count(), 1);
    }

    #[test]
    fn more_points_than_slots_end() {
        let mut rig = Rig::new("consistent-hashing", &[100; 20]);
        rig.slots = 10;
        let continuum = Continuum::new(&rig.blueprint());
        assert!(continuum.slots.iter().filter(|slot| **slot != FREE).count() <= 1000);
        assert!((0..5000).all(|hash| rig.pick_hash(hash).is_some()));
    }

    #[test]
    fn a_failed_peer_hands_its_keys_down_and_the_others_keep_theirs() {
        let rig = Rig::new("consistent-hashing", &[100, 100, 100]);
        for hash in (0..u32::MAX).step_by(1 << 20) {
            let first = rig.pick_hash(hash).unwrap();
            let without_1 = rig.pick_hash_without(hash, &[1]).unwrap();
            assert_ne!(without_1, 1);
            assert!(first == 1 || first == without_1);
        }
    }
}
