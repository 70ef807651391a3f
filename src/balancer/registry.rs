//! The shared numbers of all addresses of all upstreams, kept across every change that keeps the address.
//! Owns: which [`Vitals`] belong to (upstream, address, host), and when they are forgotten.
//! Never: reads time; used by the control plane alone.
//! Always: an address that returns within [`limits::VITALS_KEPT_MS`] finds its state and counters again, also below another
//! upstream that has taken the place of its former one.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::balancer::vitals::OnHealthEvent;
use crate::balancer::vitals::Pulse;
use crate::balancer::vitals::Vitals;
use crate::limits;

type Address = (SocketAddr, Arc<str>);

/// All addresses in use, and those that were lately.
pub struct Registry {
    upstreams: HashMap<Uuid, Known>,
    /// Addresses that went out of use, oldest first.
    unused: VecDeque<(u64, Uuid, Address)>,
    on_event: OnHealthEvent,
    accounts: u64,
}

struct Known {
    pulse: Arc<Pulse>,
    addresses: HashMap<Address, Entry>,
}

struct Entry {
    vitals: Arc<Vitals>,
    /// When it went out of use; `None`: in use.
    unused_since_ms: Option<u64>,
}

impl Registry {
    /// An empty registry. Changes of availability are told to `on_event`.
    pub fn new(on_event: OnHealthEvent) -> Self {
        Self { upstreams: HashMap::new(), unused: VecDeque::new(), on_event, accounts: 0 }
    }

    /// What the addresses of an upstream share.
    pub fn pulse(&mut self, upstream: Uuid) -> Arc<Pulse> {
        self.known(upstream).pulse.clone()
    }

    /// The vitals of an address, new or as they were.
    pub fn vitals(&mut self, upstream: Uuid, addr: SocketAddr, host: &Arc<str>) -> Arc<Vitals> {
        let known = self.known(upstream);
        let pulse = &known.pulse;
        let entry = known.addresses.entry((addr, host.clone())).or_insert_with(|| Entry {
            vitals: Arc::new(Vitals::new(addr, host.clone(), pulse.clone())),
            unused_since_ms: None,
        });
        entry.unused_since_ms = None;
        entry.vitals.clone()
    }

    fn known(&mut self, upstream: Uuid) -> &mut Known {
        let (on_event, accounts) = (&self.on_event, &mut self.accounts);
        self.upstreams.entry(upstream).or_insert_with(|| {
            *accounts += 1;
            Known { pulse: Arc::new(Pulse::new(*accounts, on_event.clone())), addresses: HashMap::new() }
        })
    }

    /// Whether anything is remembered of an upstream.
    pub fn knows(&self, upstream: Uuid) -> bool {
        self.upstreams.contains_key(&upstream)
    }

    /// The upstream whose account it is.
    pub fn owner(&self, account: u64) -> Option<Uuid> {
        self.upstreams.iter().find(|(_, known)| known.pulse.account == account).map(|(id, _)| *id)
    }

    /// Gives an upstream of which nothing is known what is remembered of another one.
    pub fn hand_on(&mut self, from: Uuid, to: Uuid) {
        if self.knows(to) {
            return;
        }
        let Some(known) = self.upstreams.remove(&from) else { return };
        self.upstreams.insert(to, known);
        for (_, upstream, _) in &mut self.unused {
            if *upstream == from {
                *upstream = to;
            }
        }
    }

    /// Says which addresses an upstream has now; all others go out of use.
    pub fn settle(&mut self, upstream: Uuid, used: &HashSet<Address>, now_ms: u64) {
        let Some(known) = self.upstreams.get_mut(&upstream) else { return };
        for (address, entry) in &mut known.addresses {
            if entry.unused_since_ms.is_none() && !used.contains(address) {
                entry.unused_since_ms = Some(now_ms);
                self.unused.push_back((now_ms, upstream, address.clone()));
            }
        }
        if known.addresses.is_empty() {
            self.upstreams.remove(&upstream);
        }
    }

    /// Forgets what has been out of use for too long.
    pub fn forget_old(&mut self, now_ms: u64) {
        while let Some((since_ms, upstream, address)) = self.unused.front().cloned() {
            if now_ms.saturating_sub(since_ms) < limits::VITALS_KEPT_MS {
                return;
            }
            self.unused.pop_front();
            let Some(known) = self.upstreams.get_mut(&upstream) else { continue };
            if known.addresses.get(&address).is_some_and(|entry| entry.unused_since_ms == Some(since_ms)) {
                known.addresses.remove(&address);
            }
            if known.addresses.is_empty() {
                self.upstreams.remove(&upstream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn an_address_that_returns_in_time_is_the_same() {
        let mut registry = Registry::new(Arc::new(|_| {}));
        let (upstream, host): (_, Arc<str>) = (Uuid::from_u128(1), "h".into());
        let first = registry.vitals(upstream, addr(1), &host);
        registry.settle(upstream, &HashSet::new(), 1000);
        registry.forget_old(1000 + limits::VITALS_KEPT_MS - 1);
        assert!(Arc::ptr_eq(&first, &registry.vitals(upstream, addr(1), &host)));
        registry.forget_old(u64::MAX);
        assert!(Arc::ptr_eq(&first, &registry.vitals(upstream, addr(1), &host)), "in use again");
        registry.settle(upstream, &HashSet::new(), 2000);
        registry.forget_old(2000 + limits::VITALS_KEPT_MS);
        assert!(!Arc::ptr_eq(&first, &registry.vitals(upstream, addr(1), &host)));
    }

    #[test]
    fn the_same_address_under_another_name_or_upstream_is_another() {
        let mut registry = Registry::new(Arc::new(|_| {}));
        let a = registry.vitals(Uuid::from_u128(1), addr(1), &"a".into());
        assert!(!Arc::ptr_eq(&a, &registry.vitals(Uuid::from_u128(1), addr(1), &"b".into())));
        assert!(!Arc::ptr_eq(&a, &registry.vitals(Uuid::from_u128(2), addr(1), &"a".into())));
        assert!(!Arc::ptr_eq(&a, &registry.vitals(Uuid::from_u128(1), addr(2), &"a".into())));
    }

    #[test]
    fn an_upstream_in_the_place_of_another_finds_its_addresses_and_the_rest_is_forgotten_in_time() {
        let mut registry = Registry::new(Arc::new(|_| {}));
        let (old, new, host): (_, _, Arc<str>) = (Uuid::from_u128(1), Uuid::from_u128(2), "h".into());
        let kept = registry.vitals(old, addr(1), &host);
        registry.vitals(old, addr(2), &host);
        registry.settle(old, &HashSet::new(), 1000);
        registry.hand_on(old, new);
        assert!(Arc::ptr_eq(&kept, &registry.vitals(new, addr(1), &host)));
        assert_eq!((registry.owner(kept.pulse.account), registry.knows(old)), (Some(new), false));
        registry.forget_old(1000 + limits::VITALS_KEPT_MS);
        assert_eq!(registry.upstreams[&new].addresses.len(), 1);
        // One that has addresses of its own keeps them.
        registry.vitals(old, addr(1), &host);
        registry.hand_on(old, new);
        assert!(Arc::ptr_eq(&kept, &registry.vitals(new, addr(1), &host)));
    }

    #[test]
    fn settling_keeps_what_is_used() {
        let mut registry = Registry::new(Arc::new(|_| {}));
        let (upstream, host): (_, Arc<str>) = (Uuid::from_u128(1), "h".into());
        let kept = registry.vitals(upstream, addr(1), &host);
        registry.vitals(upstream, addr(2), &host);
        registry.settle(upstream, &HashSet::from([(addr(1), host.clone())]), 5);
        registry.forget_old(u64::MAX);
        assert!(Arc::ptr_eq(&kept, &registry.vitals(upstream, addr(1), &host)));
        assert_eq!(registry.upstreams[&upstream].addresses.len(), 1);
    }
}
