//! HOT. What a route of the flavour `expressions` demands of protocol and addresses (spec/router.md sections 3 and 14.1).

use std::net::IpAddr;

use crate::config::Cidr;
use crate::router::Query;

/// One element of `sources` or `destinations`; None is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub block: Option<Cidr>,
    pub port: Option<u16>,
}

impl Endpoint {
    fn matches(&self, ip: IpAddr, port: u32) -> bool {
        self.block.is_none_or(|block| block.contains(ip)) && self.port.is_none_or(|wanted| u32::from(wanted) == port)
    }
}

/// An empty list takes everything.
#[derive(Debug)]
pub(super) struct NetRule {
    pub plain: bool,
    pub tls: bool,
    pub sources: Vec<Endpoint>,
    pub destinations: Vec<Endpoint>,
}

impl NetRule {
    /// None: the protocols are left to the gates (only https: plain requests must reach the redirect), or take all.
    pub fn new(protocols: &[String], sources: &[Endpoint], destinations: &[Endpoint]) -> Option<Self> {
        let speaks = |names: [&str; 2]| protocols.iter().any(|protocol| names.contains(&protocol.as_str()));
        let only_https = matches!(protocols, [only] if only == "https");
        let (plain, tls) = match only_https {
            true => (true, true),
            false => (speaks(["http", "grpc"]), speaks(["https", "grpcs"])),
        };
        let takes_all = plain && tls && sources.is_empty() && destinations.is_empty();
        (!takes_all).then(|| Self { plain, tls, sources: sources.to_vec(), destinations: destinations.to_vec() })
    }

    /// `port`: of the Host header, else of the listener.
    pub fn accepts(&self, query: &Query<'_>, port: u32) -> bool {
        self.takes_protocol(query) && self.takes_source(query) && self.takes_destination(query, port)
    }

    pub fn takes_protocol(&self, query: &Query<'_>) -> bool {
        if query.https { self.tls } else { self.plain }
    }

    pub fn takes_source(&self, query: &Query<'_>) -> bool {
        any(&self.sources, query.source.ip(), u32::from(query.source.port()))
    }

    pub fn takes_destination(&self, query: &Query<'_>, port: u32) -> bool {
        any(&self.destinations, query.destination, port)
    }
}

fn any(list: &[Endpoint], ip: IpAddr, port: u32) -> bool {
    list.is_empty() || list.iter().any(|endpoint| endpoint.matches(ip, port))
}
