//! What one write, or the start, changes: compiled once, applied by every core.
//! Always: applying is O(change), and a delta refers to nothing outside of itself but ids.

use std::sync::Arc;

use uuid::Uuid;

use crate::plugins::directory::Directory;
use crate::state::peers::PeerSet;
use crate::state::spec::PluginSpec;
use crate::state::spec::Resolution;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

/// A step from one configuration version to the next.
pub struct Delta {
    /// Version reached by applying it.
    pub version: u64,
    pub changes: Vec<Change>,
    /// All consumers and credentials, when any of them changed.
    pub directory: Option<Directory>,
    /// Where services and upstreams that changed, or whose names did, lead now.
    pub peers: Vec<PeersUpdate>,
}

/// One changed entity.
pub enum Change {
    Route(Arc<RouteSpec>),
    Service(Arc<ServiceSpec>),
    Plugin(Arc<PluginSpec>),
    RouteGone(Uuid),
    ServiceGone(Uuid),
    PluginGone(Uuid),
}

/// A changed entity that says where requests go. Not for cores: the control plane makes peers of it.
pub enum BackendChange {
    Service(Arc<ServiceSpec>),
    Upstream(Arc<UpstreamSpec>),
    Target(Arc<TargetSpec>),
    ServiceGone(Uuid),
    UpstreamGone(Uuid),
    TargetGone(Uuid),
}

/// Whose peers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    Upstream(Uuid),
    /// A service whose host is an address or a plain name.
    Service(Uuid),
}

/// New peers, or none any more.
#[derive(Clone)]
pub struct PeersUpdate {
    pub of: Backend,
    pub peers: Option<Arc<PeerSet>>,
}

/// News of a host name.
#[derive(Debug, Clone)]
pub struct NameUpdate {
    pub name: Arc<str>,
    pub resolution: Resolution,
}
