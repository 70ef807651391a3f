//! What requests meet: entities with every default, unit and text worked out once, off-core.
//! Never: holds what an operator typed and a request would have to parse.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::balancer::AlgorithmKind;
use crate::balancer::checks::Checks;
use crate::balancer::hash_on::HashOn;
use crate::http::upstream_path::PathHandling;
use crate::plugins::Instance;
use crate::plugins::chain::Scope;
use crate::plugins::view::EntityFacts;
use crate::router::gates::Gates;
use crate::router::matcher::Compiled;

/// A route (spec/entities.md section 3).
pub struct RouteSpec {
    pub id: Uuid,
    pub id_text: Box<str>,
    pub name: Option<Box<str>>,
    pub service: Option<Uuid>,
    pub matchers: Arc<Compiled>,
    /// What `protocols` and `https_redirect_status_code` demand of a request that matched.
    pub gates: Gates,
    pub strip_path: bool,
    pub path_handling: PathHandling,
    pub preserve_host: bool,
    /// Whether a request body is gathered (as far as memory allows) before the upstream is asked.
    pub request_buffering: bool,
    pub response_buffering: bool,
    /// The entity as the Admin API shows it, for plugins that tell.
    pub document: Arc<str>,
}

impl RouteSpec {
    /// What plugins may know of it.
    pub fn facts(&self) -> EntityFacts<'_> {
        EntityFacts { id: self.id, name: self.name.as_deref(), document: &self.document }
    }
}

impl ServiceSpec {
    /// What plugins may know of it.
    pub fn facts(&self) -> EntityFacts<'_> {
        EntityFacts { id: self.id, name: self.name.as_deref(), document: &self.document }
    }
}

/// A service (spec/entities.md section 2) whose upstream speaks plain HTTP.
pub struct ServiceSpec {
    pub id: Uuid,
    pub id_text: Box<str>,
    pub name: Option<Box<str>>,
    pub enabled: bool,
    pub host: Arc<str>,
    pub port: u16,
    /// Path in front of every upstream request; `/` when the service has none.
    pub path: Box<str>,
    /// Further tries after the first, 0 to 32767.
    pub retries: u16,
    pub connect_timeout_ms: u64,
    /// Longest gap between two writes of a request.
    pub write_timeout_ms: u64,
    /// Longest gap between two reads of a response.
    pub read_timeout_ms: u64,
    /// The entity as the Admin API shows it, for plugins that tell.
    pub document: Arc<str>,
}

/// An upstream (spec/balancer.md section 6); its targets are specs of their own.
pub struct UpstreamSpec {
    pub id: Uuid,
    pub name: Arc<str>,
    pub algorithm: &'static AlgorithmKind,
    /// Size of the continuum of consistent hashing.
    pub slots: u32,
    /// What is hashed; `None`: another algorithm.
    pub hash_on: Option<HashOn>,
    pub host_header: Option<Box<str>>,
    /// Whether `Host` says the name in the SRV record instead of the target's.
    pub use_srv_name: bool,
    /// The certificate by which probes over TLS show who asks.
    pub client_certificate: Option<Uuid>,
    /// Percent of the weight that must be available, and more; 0 to 100.
    pub threshold_percent: f64,
    /// `None`: health checks are off.
    pub checks: Option<Arc<Checks>>,
}

/// A target of an upstream.
pub struct TargetSpec {
    pub id: Uuid,
    pub upstream: Uuid,
    pub host: Arc<str>,
    pub port: u16,
    pub weight: u32,
    /// Order of creation decides the order in the ring.
    pub created_at_ms: u64,
}

/// A configured plugin with its scope (spec/plugins.md A.3).
pub struct PluginSpec {
    pub id: Uuid,
    pub scope: Scope,
    pub enabled: bool,
    pub instance: Arc<Instance>,
}

/// How a report says that a name does not exist.
pub const NO_SUCH_NAME: &str = "dns server error: 3 name error";

/// What is known of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Asked for, no answer yet.
    Pending,
    /// Where it is, in the order received; never empty.
    Addresses(RecordKind, Arc<[Address]>),
    /// The name does not exist or has no address; in Kong's words (spec/balancer.md section 2).
    NotFound(&'static str),
    /// No usable answer, with the reason.
    Failed(Arc<str>),
}

/// Which records gave the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    A,
    Aaaa,
    Srv,
}

/// One address of a name. All but `ip` comes from SRV records only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub ip: IpAddr,
    /// `None`, or 0 in the record: the port of the target or service.
    pub port: Option<u16>,
    /// `None`: the weight of the target. A weight of 0 counts as 1.
    pub weight: Option<u32>,
    /// Only addresses of the lowest number are used.
    pub priority: u16,
    /// The name that the record points to.
    pub name: Option<Arc<str>>,
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self { ip, port: None, weight: None, priority: 0, name: None }
    }
}

impl Resolution {
    /// Plain addresses, of the family of the first; none is a name that was not found.
    pub fn of_ips(ips: &[IpAddr]) -> Self {
        match ips.first() {
            None => Self::NotFound(NO_SUCH_NAME),
            Some(first) => {
                let kind = if first.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
                Self::Addresses(kind, ips.iter().copied().map(Address::from).collect())
            }
        }
    }
}
