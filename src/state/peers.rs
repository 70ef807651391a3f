//! HOT: a pick is the balancer's.
//! The peers that a service's requests may go to: an upstream's, or those of a plain host name or address.
//! Owns: what all cores share of them, and what one core keeps to itself. Never: resolves, builds; [`super::book`] does.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::balancer::Ask;
use crate::balancer::Balancer;
use crate::balancer::Local;
use crate::balancer::Peer;
use crate::balancer::Pick;
use crate::balancer::hash_on::HashOn;
use crate::state::spec::Resolution;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

/// The peers of one upstream or service. Never changes: a change makes another one.
pub struct PeerSet {
    pub balancer: Balancer,
    /// `None`: the host is an address or a plain name.
    pub upstream: Option<Arc<UpstreamSpec>>,
    /// The targets in order of creation; a plain host has none.
    pub targets: Vec<TargetPeers>,
    /// Why there is no peer, when there is none.
    pub lack: Lack,
}

/// A target and what became of it.
pub struct TargetPeers {
    pub spec: Arc<TargetSpec>,
    pub resolution: Resolution,
    /// Which of the balancer's peers are its addresses.
    pub peers: Range<usize>,
}

/// Why no peer can be had (spec/balancer.md section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The upstream has no target with weight and address, or none that is available.
    NoPeer,
    /// The first answer of a name server is still awaited.
    Pending,
    /// The service's host name does not exist.
    NotFound,
    /// The service's host name cannot be resolved, with the reason.
    Failed(Arc<str>),
}

impl Lack {
    /// The status and what is said with it (spec/balancer.md section 2); `host` is the service's.
    pub fn answer(&self, host: &str) -> (u16, String) {
        let resolve = |why: &str| format!("failed the initial dns/balancer resolve for '{host}' with: {why}");
        match self {
            Self::NoPeer => (503, "failure to get a peer from the ring-balancer".to_owned()),
            Self::NotFound => (503, "name resolution failed".to_owned()),
            Self::Pending => (500, resolve("timeout")),
            Self::Failed(why) => (500, resolve(why)),
        }
    }
}

impl PeerSet {
    /// All peers, those without weight included.
    pub fn peers(&self) -> &[Peer] {
        self.balancer.peers()
    }

    /// Whether a peer may yet come of a resolution under way.
    pub fn is_pending(&self) -> bool {
        self.lack == Lack::Pending && self.peers().is_empty()
    }

    /// What consistent hashing hashes; `None`: it is not asked for.
    pub fn hash_on(&self) -> Option<&HashOn> {
        self.upstream.as_ref()?.hash_on.as_ref()
    }

    /// `host_header` of the upstream: what `Host` says, whatever the peer.
    pub fn host_header(&self) -> Option<&str> {
        self.upstream.as_ref()?.host_header.as_deref()
    }
}

/// Peers on one core.
pub struct CorePeers {
    pub set: Arc<PeerSet>,
    local: Local,
}

impl CorePeers {
    /// Goes on with the count of picks that former peers had.
    pub fn new(set: Arc<PeerSet>, turn: Rc<Cell<u64>>) -> Self {
        Self { set, local: Local::new(turn) }
    }

    /// The core's count of picks.
    pub fn turn(&self) -> &Rc<Cell<u64>> {
        &self.local.turn
    }

    /// The peer that [`CorePeers::pick`] would give, but for trials of ejected ones.
    pub fn foresee(&self, ask: &Ask<'_>) -> Result<&Peer, &Lack> {
        self.set.balancer.foresee(&self.local, ask).ok_or(&self.set.lack)
    }

    /// The peer for the next try of a request.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<Pick<'_>, &Lack> {
        self.set.balancer.pick(&self.local, ask).ok_or(&self.set.lack)
    }
}
