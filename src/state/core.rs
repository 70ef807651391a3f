//! HOT: a request costs one route lookup and one comparison of generations.
//! The configuration as one core serves it, changed in place between two polls by its owner alone.
//! Owns: route index, services, its place at every balancer, plugin table. Never: waits, is shared.
//! Always: equal to what a fresh build of the same entities would be, whatever the order of the deltas.
//!
//! Links between entities (route -> service -> peers, route -> plugin chain) are found at the first request after a change
//! and kept until the next one, so that applying a delta costs the change and a request costs no lookup by id.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use ahash::AHashSet;
use slab::Slab;
use uuid::Uuid;

use crate::plugins::chain::Chain;
use crate::plugins::chain::PluginTable;
use crate::plugins::directory::Directory;
use crate::router::Hit;
use crate::router::Query;
use crate::router::RouteKey;
use crate::router::Router;
use crate::state::delta::Backend;
use crate::state::delta::Change;
use crate::state::delta::Delta;
use crate::state::delta::PeersUpdate;
use crate::state::peers::CorePeers;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;

/// A route on this core.
pub struct Route {
    pub spec: Arc<RouteSpec>,
    links: RefCell<Option<(u64, Rc<Links>)>>,
}

/// What a matched route leads to, as of one generation. A request keeps it, so that it ends as it began.
pub struct Links {
    pub service: Option<Rc<Service>>,
    pub chain: Chain,
}

/// A service on this core.
pub struct Service {
    pub spec: Arc<ServiceSpec>,
    peers: RefCell<Option<(u64, Rc<CorePeers>)>>,
}

/// One core's configuration.
#[derive(Default)]
pub struct CoreState {
    version: u64,
    /// Raised by every change; what was linked under an older one is linked anew.
    generation: u64,
    router: Router,
    routes: Slab<Rc<Route>>,
    route_keys: AHashMap<Uuid, usize>,
    services: AHashMap<Uuid, Rc<Service>>,
    routes_of_service: AHashMap<Uuid, AHashSet<Uuid>>,
    peers: AHashMap<Backend, Rc<CorePeers>>,
    upstream_by_name: AHashMap<Arc<str>, Uuid>,
    plugins: PluginTable,
    unmatched: RefCell<Option<(u64, Rc<Links>)>>,
    directory: Rc<Directory>,
    /// Where this core begins in every ring, so that cores do not all start with the same peer.
    first_turn: u64,
}

impl CoreState {
    /// The state of a core that has seen no configuration. `first_turn` differs from core to core.
    pub fn new(first_turn: u64) -> Self {
        Self { first_turn, ..Self::default() }
    }

    /// Version of the last delta applied.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All consumers and credentials.
    pub fn directory(&self) -> Rc<Directory> {
        self.directory.clone()
    }

    /// The route that a request matches.
    pub fn find(&self, query: &Query<'_>) -> Option<(Rc<Route>, Hit)> {
        let hit = self.router.find(query)?;
        Some((self.routes.get(hit.route.0 as usize)?.clone(), hit))
    }

    /// Routes with whether requests may find them (not those of a disabled service): some from a position on, and the
    /// position at which to go on. For operators, who ask piece by piece so that requests need not wait.
    pub fn routes_from(&self, position: usize, count: usize) -> (Vec<(Arc<RouteSpec>, bool)>, Option<usize>) {
        let end = position.saturating_add(count).min(self.routes.capacity());
        let listed = |spec: &RouteSpec| {
            let service = spec.service.and_then(|id| self.services.get(&id));
            service.is_none_or(|service| service.spec.enabled)
        };
        let found = (position..end).filter_map(|at| self.routes.get(at));
        let found = found.map(|route| (route.spec.clone(), listed(&route.spec))).collect();
        (found, (end < self.routes.capacity()).then_some(end))
    }

    /// What a route leads to.
    pub fn links(&self, route: &Route) -> Rc<Links> {
        let mut kept = route.links.borrow_mut();
        match &*kept {
            Some((generation, links)) if *generation == self.generation => links.clone(),
            _ => {
                let service = route.spec.service.and_then(|id| self.services.get(&id)).cloned();
                let chain = self.plugins.chain(Some(route.spec.id), service.as_ref().map(|s| s.spec.id));
                kept.insert((self.generation, Rc::new(Links { service, chain }))).1.clone()
            }
        }
    }

    /// What runs for a request that matches no route: global plugins only.
    pub fn links_unmatched(&self) -> Rc<Links> {
        let mut kept = self.unmatched.borrow_mut();
        match &*kept {
            Some((generation, links)) if *generation == self.generation => links.clone(),
            _ => {
                let links = Links { service: None, chain: self.plugins.chain(None, None) };
                kept.insert((self.generation, Rc::new(links))).1.clone()
            }
        }
    }

    /// The plugin configurations, for consumer-scoped choices at run time.
    pub fn plugins(&self) -> &PluginTable {
        &self.plugins
    }

    /// The peers of a service, as of now: an upstream's of that name, or those of an address or a resolved host name
    /// (spec/balancer.md section 1). `None`: a delta named the service and did not say where it leads.
    pub fn peers(&self, service: &Service) -> Option<Rc<CorePeers>> {
        let mut kept = service.peers.borrow_mut();
        if let Some((generation, peers)) = &*kept
            && *generation == self.generation
        {
            return Some(peers.clone());
        }
        let named = self.upstream_by_name.get(&service.spec.host).map(|id| Backend::Upstream(*id));
        let peers = self.peers.get(&named.unwrap_or(Backend::Service(service.spec.id)))?;
        Some(kept.insert((self.generation, peers.clone())).1.clone())
    }

    /// Applies a delta: O(change). Gives the addresses that a backend no longer has.
    pub fn apply(&mut self, delta: &Delta) -> Vec<SocketAddr> {
        for change in &delta.changes {
            self.apply_change(change);
        }
        let gone = self.put_peers(&delta.peers);
        if let Some(directory) = &delta.directory {
            self.directory = Rc::new(directory.clone());
        }
        self.version = delta.version;
        self.generation += 1;
        gone
    }

    /// Takes new peers of backends whose names resolve differently now. Gives the addresses that a backend no longer has.
    pub fn apply_peers(&mut self, updates: &[PeersUpdate]) -> Vec<SocketAddr> {
        self.generation += 1;
        self.put_peers(updates)
    }

    fn put_peers(&mut self, updates: &[PeersUpdate]) -> Vec<SocketAddr> {
        let mut gone = Vec::new();
        // Within one delta a name may pass from one upstream to another: all old ones go first.
        for PeersUpdate { of, peers } in updates {
            let Some(old) = self.peers.get(of) else { continue };
            if let Some(upstream) = &old.set.upstream {
                self.upstream_by_name.remove(&upstream.name);
            }
            let kept: AHashSet<_> = peers.iter().flat_map(|set| set.peers()).map(|peer| peer.addr).collect();
            gone.extend(old.set.peers().iter().map(|peer| peer.addr).filter(|addr| !kept.contains(addr)));
        }
        for PeersUpdate { of, peers } in updates {
            let Some(set) = peers else {
                self.peers.remove(of);
                continue;
            };
            if let Some(upstream) = &set.upstream {
                self.upstream_by_name.insert(upstream.name.clone(), upstream.id);
            }
            // The count of picks goes on, so that an edit does not send a burst to the first peer.
            let turn = self.peers.get(of).map(|old| old.turn().clone());
            let turn = turn.unwrap_or_else(|| Rc::new(Cell::new(self.first_turn)));
            self.peers.insert(*of, Rc::new(CorePeers::new(set.clone(), turn)));
        }
        gone
    }

    fn apply_change(&mut self, change: &Change) {
        match change {
            Change::Route(spec) => self.put_route(spec),
            Change::RouteGone(id) => self.remove_route(*id),
            Change::Service(spec) => {
                let service = Service { spec: spec.clone(), peers: RefCell::default() };
                self.services.insert(spec.id, Rc::new(service));
                self.relist_routes(spec.id);
            }
            Change::ServiceGone(id) => {
                self.services.remove(id);
                self.relist_routes(*id);
            }
            Change::Plugin(spec) if spec.enabled => self.plugins.put(spec.scope, spec.instance.clone()),
            Change::Plugin(spec) => self.plugins.remove(spec.id),
            Change::PluginGone(id) => self.plugins.remove(*id),
        }
    }

    fn put_route(&mut self, spec: &Arc<RouteSpec>) {
        let route = Rc::new(Route { spec: spec.clone(), links: RefCell::default() });
        let key = match self.route_keys.get(&spec.id) {
            Some(&key) => {
                let old = std::mem::replace(&mut self.routes[key], route);
                self.forget_route_of_service(&old.spec);
                key
            }
            None => {
                let key = self.routes.insert(route);
                self.route_keys.insert(spec.id, key);
                key
            }
        };
        if let Some(service) = spec.service {
            self.routes_of_service.entry(service).or_default().insert(spec.id);
        }
        self.list_route(key);
    }

    fn remove_route(&mut self, id: Uuid) {
        let Some(key) = self.route_keys.remove(&id) else { return };
        self.router.remove(RouteKey(key as u32));
        let old = self.routes.remove(key);
        self.forget_route_of_service(&old.spec);
    }

    fn forget_route_of_service(&mut self, spec: &RouteSpec) {
        let Some(service) = spec.service else { return };
        if let Some(routes) = self.routes_of_service.get_mut(&service) {
            routes.remove(&spec.id);
            if routes.is_empty() {
                self.routes_of_service.remove(&service);
            }
        }
    }

    fn relist_routes(&mut self, service: Uuid) {
        let Some(routes) = self.routes_of_service.get(&service) else { return };
        let keys: Vec<usize> = routes.iter().filter_map(|id| self.route_keys.get(id).copied()).collect();
        for key in keys {
            self.list_route(key);
        }
    }

    /// A route whose service is disabled stays out of the index (spec/router.md section 1).
    fn list_route(&mut self, key: usize) {
        let spec = &self.routes[key].spec;
        let service = spec.service.and_then(|id| self.services.get(&id));
        let key = RouteKey(key as u32);
        match service.is_none_or(|service| service.spec.enabled) {
            true => drop(self.router.insert(key, spec.matchers.clone())),
            false => drop(self.router.remove(key)),
        }
    }
}
