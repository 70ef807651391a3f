//! What one write, or the start, changes: compiled once, applied by every core.
//! Always: applying is O(change), and a delta refers to nothing outside of itself but ids.

use std::sync::Arc;

use uuid::Uuid;

use crate::plugins::directory::Directory;
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
    /// What is known of names that the configuration has begun to use.
    pub names: Vec<NameUpdate>,
    /// Names that it no longer uses.
    pub names_dropped: Vec<Arc<str>>,
}

/// One changed entity.
pub enum Change {
    Route(Arc<RouteSpec>),
    Service(Arc<ServiceSpec>),
    Upstream(Arc<UpstreamSpec>),
    Target(Arc<TargetSpec>),
    Plugin(Arc<PluginSpec>),
    RouteGone(Uuid),
    ServiceGone(Uuid),
    UpstreamGone(Uuid),
    TargetGone(Uuid),
    PluginGone(Uuid),
}

/// News of a host name.
#[derive(Debug, Clone)]
pub struct NameUpdate {
    pub name: Arc<str>,
    pub resolution: Resolution,
}
