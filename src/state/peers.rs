//! HOT once built: picking is the balancer's.
//! Targets and names -> the peers that a service's requests may go to.
//! Owns: one core's upstreams and what it knows of host names. Never: resolves anything.
//! Always: the count of picks survives every rebuild, so that an edit does not send a burst to the first peer.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use crate::balancer;
use crate::balancer::Balancer;
use crate::balancer::Peer;
use crate::balancer::Tried;
use crate::state::delta::NameUpdate;
use crate::state::spec::Resolution;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

const ROUND_ROBIN: &str = "round-robin";

/// The peers of one service as of one generation.
pub struct PeerSet {
    balancer: Balancer,
    turn: Rc<Cell<u64>>,
    /// `host_header` of the upstream: what `Host` says, whatever the peer.
    pub host_header: Option<Box<str>>,
    /// Why there is no peer, when there is none.
    lack: Lack,
}

/// Why no peer can be had (spec/balancer.md section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The upstream has no target with weight and address.
    NoPeer,
    /// The first answer of a name server is still awaited.
    Pending,
    /// The service's host name does not exist.
    NotFound,
    /// The service's host name cannot be resolved, with the reason.
    Failed(Arc<str>),
}

impl PeerSet {
    /// The peer for the next try of a request.
    pub fn pick(&self, tried: &Tried) -> Result<&Peer, &Lack> {
        self.balancer.pick(&self.turn, tried).ok_or(&self.lack)
    }

    /// All peers, those without weight included.
    pub fn peers(&self) -> &[Peer] {
        self.balancer.peers()
    }

    /// Whether a peer may yet come of a resolution under way.
    pub fn is_pending(&self) -> bool {
        self.lack == Lack::Pending && self.balancer.peers().is_empty()
    }
}

/// What a core knows of host names.
#[derive(Default)]
pub struct Names {
    known: AHashMap<Arc<str>, Resolution>,
    /// Raised by every change of what is known.
    generation: u64,
}

impl Names {
    pub(super) fn put(&mut self, update: &NameUpdate) {
        self.known.insert(update.name.clone(), update.resolution.clone());
        self.generation += 1;
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.known.remove(name);
        self.generation += 1;
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    fn resolve(&self, host: &Arc<str>, port: u16, weight: u32, peers: &mut Vec<Peer>) -> Lack {
        let named = match host.contains(':') && !host.starts_with('[') {
            // What Host says of an IPv6 address (spec/proxying.md section 3).
            true => format!("[{host}]").into(),
            false => host.clone(),
        };
        let mut add = |ip: IpAddr| peers.push(Peer { addr: SocketAddr::new(ip, port), host: named.clone(), weight });
        match self.known.get(host) {
            Some(Resolution::Addresses(ips)) => {
                ips.iter().copied().for_each(add);
                Lack::NoPeer
            }
            Some(Resolution::Pending) => Lack::Pending,
            Some(Resolution::NotFound) => Lack::NotFound,
            Some(Resolution::Failed(why)) => Lack::Failed(why.clone()),
            None => match host.trim_start_matches('[').trim_end_matches(']').parse() {
                Ok(ip) => {
                    add(ip);
                    Lack::NoPeer
                }
                Err(_) => Lack::NotFound,
            },
        }
    }

    /// The peers of a service whose host is an address or a plain name: all addresses of the name, each in turn.
    pub(super) fn peers_of(&self, host: &Arc<str>, port: u16, turn: &Rc<Cell<u64>>) -> PeerSet {
        let mut peers = Vec::new();
        let lack = self.resolve(host, port, 1, &mut peers);
        PeerSet { balancer: build(ROUND_ROBIN, peers), turn: turn.clone(), host_header: None, lack }
    }
}

/// An upstream on this core. Its targets may be known before it is.
pub struct Upstream {
    spec: Option<Arc<UpstreamSpec>>,
    name: Arc<str>,
    /// Ordered by creation, so that every core has the same ring.
    targets: Vec<Arc<TargetSpec>>,
    turn: Rc<Cell<u64>>,
    built: RefCell<Option<(u64, Rc<PeerSet>)>>,
}

impl Upstream {
    pub(super) fn new(first_turn: u64) -> Self {
        Self {
            spec: None,
            name: Arc::from(""),
            targets: Vec::new(),
            turn: Rc::new(Cell::new(first_turn)),
            built: RefCell::default(),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn set(&mut self, spec: Arc<UpstreamSpec>) {
        self.name = spec.name.clone();
        self.spec = Some(spec);
        self.built.take();
    }

    /// Takes the entity away and leaves the targets. Answers the name it had.
    pub(super) fn unset(&mut self) -> Arc<str> {
        self.spec = None;
        self.built.take();
        std::mem::replace(&mut self.name, Arc::from(""))
    }

    pub(super) fn is_unused(&self) -> bool {
        self.spec.is_none() && self.targets.is_empty()
    }

    pub(super) fn put_target(&mut self, target: Arc<TargetSpec>) {
        let key = |t: &TargetSpec| (t.created_at_ms, t.id);
        let at = self.targets.partition_point(|t| key(t) < key(&target));
        self.targets.insert(at, target);
        self.built.take();
    }

    pub(super) fn remove_target(&mut self, id: Uuid) {
        self.targets.retain(|t| t.id != id);
        self.built.take();
    }

    pub(super) fn peers(&self, names: &Names) -> Rc<PeerSet> {
        let mut built = self.built.borrow_mut();
        match &*built {
            Some((generation, peers)) if *generation == names.generation => peers.clone(),
            _ => built.insert((names.generation, Rc::new(self.build(names)))).1.clone(),
        }
    }

    fn build(&self, names: &Names) -> PeerSet {
        let mut peers = Vec::new();
        let mut lack = Lack::NoPeer;
        for target in &self.targets {
            let one = names.resolve(&target.host, target.port, target.weight, &mut peers);
            if one == Lack::Pending && target.weight > 0 {
                lack = Lack::Pending;
            }
        }
        let algorithm = self.spec.as_ref().map_or(ROUND_ROBIN, |spec| spec.algorithm);
        let host_header = self.spec.as_ref().and_then(|spec| spec.host_header.clone());
        PeerSet { balancer: build(algorithm, peers), turn: self.turn.clone(), host_header, lack }
    }
}

fn build(algorithm: &str, peers: Vec<Peer>) -> Balancer {
    let kind = balancer::algorithm(algorithm).expect("compile() refuses every other name");
    Balancer::new(kind, peers)
}
