//! Services, upstreams, targets and names -> the peers that cores are given.
//! Owns: the control plane's account of where requests can go, and the shared vitals of every address.
//! Never: resolves anything, reads time, is seen by a core.
//! Always: what a core needs to pick is built here, once for all cores; an edit that keeps an address keeps its vitals.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::balancer;
use crate::balancer::AlgorithmKind;
use crate::balancer::Balancer;
use crate::balancer::Guard;
use crate::balancer::Peer;
use crate::balancer::registry::Registry;
use crate::balancer::vitals::OnHealthEvent;
use crate::balancer::vitals::Vitals;
use crate::balancer::vitals::unwatched;
use crate::state::delta::Backend;
use crate::state::delta::BackendChange;
use crate::state::delta::NameUpdate;
use crate::state::delta::PeersUpdate;
use crate::state::peers::Lack;
use crate::state::peers::PeerSet;
use crate::state::peers::TargetPeers;
use crate::state::spec::Address;
use crate::state::spec::NO_SUCH_NAME;
use crate::state::spec::Resolution;
use crate::state::spec::ServiceSpec;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

/// Every backend of the configuration.
pub struct PeerBook {
    services: HashMap<Uuid, Arc<ServiceSpec>>,
    upstreams: HashMap<Uuid, Upstream>,
    upstream_of_target: HashMap<Uuid, Uuid>,
    /// Upstreams that are gone, by name. Another one of that name takes their place.
    gone: HashMap<Arc<str>, Uuid>,
    names: HashMap<Arc<str>, Resolution>,
    /// Who leads to a host, by name.
    users: HashMap<Arc<str>, HashSet<Backend>>,
    registry: Registry,
    /// For peers that nobody checks.
    unwatched: Arc<Vitals>,
    round_robin: &'static AlgorithmKind,
}

/// An upstream. Its targets may be known before it is.
#[derive(Default)]
struct Upstream {
    spec: Option<Arc<UpstreamSpec>>,
    /// Ordered by creation, so that every build gives the same ring.
    targets: Vec<Arc<TargetSpec>>,
    built: Option<Arc<PeerSet>>,
}

impl PeerBook {
    /// An empty book. Changes of availability are told to `on_event`.
    pub fn new(on_event: OnHealthEvent) -> Self {
        Self {
            services: HashMap::new(),
            upstreams: HashMap::new(),
            upstream_of_target: HashMap::new(),
            gone: HashMap::new(),
            names: HashMap::new(),
            users: HashMap::new(),
            registry: Registry::new(on_event),
            unwatched: unwatched(),
            round_robin: balancer::algorithm("round-robin").expect("it stands in the table"),
        }
    }

    /// Follows changed entities, what is known of names that they begin to use, and names that nothing uses any more. Gives
    /// what cores must be told.
    pub fn apply(
        &mut self,
        changes: &[BackendChange],
        names: &[NameUpdate],
        names_dropped: &[Arc<str>],
        now_ms: u64,
    ) -> Vec<PeersUpdate> {
        let mut touched = HashSet::new();
        for update in names {
            self.learn_one(update, &mut touched);
        }
        for change in changes {
            self.follow(change, &mut touched);
        }
        for name in names_dropped {
            self.names.remove(name);
            touched.extend(self.users.get(name).into_iter().flatten().copied());
        }
        self.build_all(touched, now_ms)
    }

    /// Takes news of names. Gives what cores must be told.
    pub fn learn(&mut self, updates: &[NameUpdate], now_ms: u64) -> Vec<PeersUpdate> {
        let mut touched = HashSet::new();
        for update in updates {
            // News of a name that the configuration dropped meanwhile must not bring it back.
            if self.names.contains_key(&update.name) {
                self.learn_one(update, &mut touched);
            }
        }
        self.build_all(touched, now_ms)
    }

    /// The peers of an upstream.
    pub fn upstream(&self, id: Uuid) -> Option<Arc<PeerSet>> {
        self.upstreams.get(&id)?.built.clone()
    }

    /// The peers of every upstream.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<PeerSet>> {
        self.upstreams.values().filter_map(|upstream| upstream.built.as_ref())
    }

    /// The upstream whose addresses have this account of their health.
    pub fn owner(&self, account: u64) -> Option<Arc<PeerSet>> {
        self.upstream(self.registry.owner(account)?)
    }

    fn learn_one(&mut self, update: &NameUpdate, touched: &mut HashSet<Backend>) {
        self.names.insert(update.name.clone(), update.resolution.clone());
        touched.extend(self.users.get(&update.name).into_iter().flatten().copied());
    }

    fn follow(&mut self, change: &BackendChange, touched: &mut HashSet<Backend>) {
        match change {
            BackendChange::Service(spec) => {
                self.drop_service(spec.id);
                self.services.insert(spec.id, spec.clone());
                self.use_name(&spec.host, Backend::Service(spec.id));
                touched.insert(Backend::Service(spec.id));
            }
            BackendChange::ServiceGone(id) => {
                self.drop_service(*id);
                touched.insert(Backend::Service(*id));
            }
            BackendChange::Upstream(spec) => {
                self.upstreams.entry(spec.id).or_default().spec = Some(spec.clone());
                touched.insert(Backend::Upstream(spec.id));
            }
            BackendChange::UpstreamGone(id) => {
                if let Some(spec) = self.upstreams.get_mut(id).and_then(|upstream| upstream.spec.take()) {
                    self.gone.insert(spec.name.clone(), *id);
                }
                touched.insert(Backend::Upstream(*id));
            }
            BackendChange::Target(spec) => {
                touched.extend(self.drop_target(spec.id));
                self.upstream_of_target.insert(spec.id, spec.upstream);
                let targets = &mut self.upstreams.entry(spec.upstream).or_default().targets;
                let key = |t: &TargetSpec| (t.created_at_ms, t.id);
                targets.insert(targets.partition_point(|t| key(t) < key(spec)), spec.clone());
                self.use_name(&spec.host, Backend::Upstream(spec.upstream));
                touched.insert(Backend::Upstream(spec.upstream));
            }
            BackendChange::TargetGone(id) => touched.extend(self.drop_target(*id)),
        }
    }

    fn use_name(&mut self, name: &Arc<str>, by: Backend) {
        self.users.entry(name.clone()).or_default().insert(by);
    }

    fn unuse_name(&mut self, name: &Arc<str>, by: Backend) {
        if let Some(users) = self.users.get_mut(name) {
            users.remove(&by);
            if users.is_empty() {
                self.users.remove(name);
            }
        }
    }

    fn drop_service(&mut self, id: Uuid) {
        if let Some(old) = self.services.remove(&id) {
            self.unuse_name(&old.host, Backend::Service(id));
        }
    }

    fn drop_target(&mut self, id: Uuid) -> Option<Backend> {
        let of = self.upstream_of_target.remove(&id)?;
        let upstream = self.upstreams.get_mut(&of)?;
        let at = upstream.targets.iter().position(|target| target.id == id)?;
        let old = upstream.targets.remove(at);
        if !upstream.targets.iter().any(|target| target.host == old.host) {
            self.unuse_name(&old.host, Backend::Upstream(of));
        }
        Some(Backend::Upstream(of))
    }

    fn build_all(&mut self, touched: HashSet<Backend>, now_ms: u64) -> Vec<PeersUpdate> {
        // First, so that what returns too late is new.
        self.registry.forget_old(now_ms);
        self.hand_on(&touched);
        let mut updates = Vec::with_capacity(touched.len());
        for of in touched {
            let peers = match of {
                Backend::Service(id) => self.services.get(&id).map(|spec| Arc::new(self.plain(&spec.host, spec.port))),
                Backend::Upstream(id) => self.build_upstream(id, now_ms),
            };
            updates.push(PeersUpdate { of, peers });
        }
        updates
    }

    /// A document that replaces the whole configuration, or an operator who deletes an upstream and makes it again, gives it
    /// another id. What is known of its addresses goes by its name (spec/balancer.md section 17).
    fn hand_on(&mut self, touched: &HashSet<Backend>) {
        if self.gone.is_empty() {
            return;
        }
        for of in touched {
            let Backend::Upstream(id) = of else { continue };
            let spec = self.upstreams.get(id).and_then(|upstream| upstream.spec.as_ref());
            if let Some(former) = spec.and_then(|spec| self.gone.remove(&spec.name)).filter(|former| former != id) {
                self.registry.hand_on(former, *id);
            }
        }
        let registry = &self.registry;
        self.gone.retain(|_, id| registry.knows(*id));
    }

    /// All addresses of a plain host, each in turn.
    fn plain(&self, host: &Arc<str>, port: u16) -> PeerSet {
        let resolution = self.resolution(host);
        let lack = lack_of(&resolution);
        let peer = |place: Place| Peer {
            addr: place.addr,
            host: in_host_field(host),
            weight: place.weight.unwrap_or(1),
            target: 0,
            vitals: self.unwatched.clone(),
        };
        let peers = places(&resolution, port).into_iter().map(peer).collect();
        let balancer = Balancer::new(self.round_robin, peers, &[], 0, None, 0.0);
        PeerSet { balancer, upstream: None, targets: Vec::new(), lack }
    }

    fn build_upstream(&mut self, id: Uuid, now_ms: u64) -> Option<Arc<PeerSet>> {
        let upstream = self.upstreams.get(&id)?;
        let (spec, target_specs) = (upstream.spec.clone(), upstream.targets.clone());
        let Some(spec) = spec else {
            // Targets and their upstream may come and go in any order.
            match target_specs.is_empty() {
                true => drop(self.upstreams.remove(&id)),
                false => self.upstreams.entry(id).or_default().built = None,
            }
            self.registry.settle(id, &HashSet::new(), now_ms);
            return None;
        };
        let mut peers = Vec::new();
        let mut used = HashSet::new();
        let mut lack = Lack::NoPeer;
        let mut targets = Vec::with_capacity(target_specs.len());
        for target in target_specs {
            let resolution = self.resolution(&target.host);
            if resolution == Resolution::Pending && target.weight > 0 {
                lack = Lack::Pending;
            }
            let first = peers.len();
            let named = in_host_field(&target.host);
            for place in places(&resolution, target.port) {
                used.insert((place.addr, target.host.clone()));
                peers.push(Peer {
                    addr: place.addr,
                    host: place.name.filter(|_| spec.use_srv_name).unwrap_or_else(|| named.clone()),
                    // A target that is switched off is so whatever its records say.
                    weight: if target.weight == 0 { 0 } else { place.weight.unwrap_or(target.weight) },
                    target: targets.len() as u32,
                    vitals: self.registry.vitals(id, place.addr, &target.host),
                });
            }
            targets.push(TargetPeers { spec: target, resolution, peers: first..peers.len() });
        }
        self.registry.settle(id, &used, now_ms);
        let pulse = self.registry.pulse(id);
        let guard = spec.checks.clone().map(|checks| Guard { checks, pulse });
        let names: Vec<_> = targets.iter().map(|target| (target.spec.host.clone(), target.spec.port)).collect();
        let balancer = Balancer::new(spec.algorithm, peers, &names, spec.slots, guard, spec.threshold_percent);
        let set = Arc::new(PeerSet { balancer, upstream: Some(spec), targets, lack });
        self.upstreams.entry(id).or_default().built = Some(set.clone());
        Some(set)
    }

    fn resolution(&self, host: &Arc<str>) -> Resolution {
        if let Some(known) = self.names.get(host) {
            return known.clone();
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => Resolution::of_ips(&[ip]),
            Err(_) => Resolution::NotFound(NO_SUCH_NAME),
        }
    }
}

/// What `Host` says of a host (spec/proxying.md section 3).
fn in_host_field(host: &Arc<str>) -> Arc<str> {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]").into(),
        false => host.clone(),
    }
}

fn lack_of(resolution: &Resolution) -> Lack {
    match resolution {
        Resolution::Addresses(..) => Lack::NoPeer,
        Resolution::Pending => Lack::Pending,
        Resolution::NotFound(_) => Lack::NotFound,
        Resolution::Failed(why) => Lack::Failed(why.clone()),
    }
}

struct Place {
    addr: SocketAddr,
    weight: Option<u32>,
    name: Option<Arc<str>>,
}

/// Addresses of the lowest priority number (spec/balancer.md section 5), each once.
fn places(resolution: &Resolution, port: u16) -> Vec<Place> {
    let Resolution::Addresses(_, found) = resolution else { return Vec::new() };
    let lowest = found.iter().map(|address| address.priority).min().unwrap_or(0);
    let mut places: Vec<Place> = Vec::with_capacity(found.len());
    for Address { ip, port: own, weight, priority, name } in found.iter() {
        let addr = SocketAddr::new(*ip, own.filter(|own| *own > 0).unwrap_or(port));
        if *priority == lowest && !places.iter().any(|place| place.addr == addr) {
            let weight = weight.map(|weight| weight.max(1));
            places.push(Place { addr, weight, name: name.clone() });
        }
    }
    places
}
