//! HOT: no allocation, no lock.
//! Which target? Pure: peers and their weights in, a peer out.
//! Owns: one core's balancers and the table of algorithms. Never: resolves names, dials, reads time.
//! Always: a peer of weight 0 is never picked; a peer that failed in this request is picked again only when no other is left.
//!
//! spec/balancer.md sections 5, 7 and 8.

mod round_robin;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

/// One address that can take requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub addr: SocketAddr,
    /// Name of the target as configured (an address for a target given by address): what `Host` says to it.
    pub host: Arc<str>,
    /// 0 to 65535; its share is `weight` of the sum of all weights.
    pub weight: u32,
}

/// How an upstream spreads requests over its peers.
pub trait Algorithm {
    /// The index of the peer for the next request, among those that `usable` admits. `turn` is the core's count of picks of
    /// this upstream; it outlives a rebuild of the peers.
    fn pick(&self, turn: &Cell<u64>, usable: &dyn Fn(usize) -> bool) -> Option<usize>;
}

/// One row of [`ALGORITHMS`].
pub struct AlgorithmKind {
    /// As in `upstreams.algorithm`.
    pub name: &'static str,
    build: fn(&[Peer]) -> Box<dyn Algorithm>,
}

/// Every algorithm that an upstream may ask for. A new one is a file and a row.
pub static ALGORITHMS: &[AlgorithmKind] = &[round_robin::KIND];

/// The algorithm of that name.
pub fn algorithm(name: &str) -> Option<&'static AlgorithmKind> {
    ALGORITHMS.iter().find(|kind| kind.name == name)
}

/// The peers of one upstream (or of one resolved host name) on one core.
pub struct Balancer {
    peers: Vec<Peer>,
    algorithm: Box<dyn Algorithm>,
}

impl Balancer {
    /// Builds what the algorithm needs from the peers.
    pub fn new(kind: &AlgorithmKind, peers: Vec<Peer>) -> Self {
        Self { algorithm: (kind.build)(&peers), peers }
    }

    /// Picks a peer. `tried` holds the peers that failed in this request; they are picked again only when all have failed.
    pub fn pick(&self, turn: &Cell<u64>, tried: &Tried) -> Option<&Peer> {
        let fresh = |index: usize| !tried.contains(self.peers[index].addr);
        let index = self
            .algorithm
            .pick(turn, &fresh)
            .or_else(|| if tried.is_empty() { None } else { self.algorithm.pick(turn, &|_| true) })?;
        self.peers.get(index)
    }

    /// All peers, weight 0 included.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }
}

/// The peers that failed within one request, at most [`Tried::MAX`]; later ones overwrite the oldest.
#[derive(Default)]
pub struct Tried {
    addrs: [Option<SocketAddr>; Self::MAX],
    count: usize,
}

impl Tried {
    const MAX: usize = 16;

    /// Notes a failed peer.
    pub fn add(&mut self, addr: SocketAddr) {
        if !self.contains(addr) {
            self.addrs[self.count % Self::MAX] = Some(addr);
            self.count += 1;
        }
    }

    /// Whether the peer failed before in this request.
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.addrs.contains(&Some(addr))
    }

    /// Whether nothing failed yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
pub(crate) fn peers_for_test(weights: &[u32]) -> Vec<Peer> {
    let peer = |(i, &weight): (usize, &u32)| Peer {
        addr: SocketAddr::from(([127, 0, 0, 1], 1000 + i as u16)),
        host: Arc::from("t"),
        weight,
    };
    weights.iter().enumerate().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(weights: &[u32]) -> Balancer {
        Balancer::new(algorithm("round-robin").unwrap(), peers_for_test(weights))
    }

    #[test]
    fn algorithm_names_are_unique() {
        let mut names: Vec<_> = ALGORITHMS.iter().map(|k| k.name).collect();
        names.dedup();
        assert_eq!(names.len(), ALGORITHMS.len());
    }

    #[test]
    fn a_failed_peer_is_avoided_while_another_is_left() {
        let b = balancer(&[1, 1, 1]);
        let turn = Cell::new(0);
        let mut tried = Tried::default();
        let first = b.pick(&turn, &tried).unwrap().addr;
        tried.add(first);
        let second = b.pick(&turn, &tried).unwrap().addr;
        tried.add(second);
        let third = b.pick(&turn, &tried).unwrap().addr;
        tried.add(third);
        assert!(first != second && second != third && first != third);
        assert!(b.pick(&turn, &tried).is_some(), "all failed: it starts over");
    }

    #[test]
    fn without_weight_there_is_no_peer() {
        let turn = Cell::new(0);
        assert!(balancer(&[0, 0]).pick(&turn, &Tried::default()).is_none());
        assert!(balancer(&[]).pick(&turn, &Tried::default()).is_none());
    }

    #[test]
    fn tried_keeps_the_newest_when_full() {
        let mut tried = Tried::default();
        for port in 0..100 {
            tried.add(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        assert!(tried.contains(SocketAddr::from(([127, 0, 0, 1], 99))));
        assert!(!tried.contains(SocketAddr::from(([127, 0, 0, 1], 0))));
    }
}
