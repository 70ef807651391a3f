//! The name servers that are asked, and what their answers and failures are called.
//! Never: remembers an answer. Always: an answer or a reason comes in bounded time.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::RecordType;

use crate::control::names::find::Denial;
use crate::control::names::find::Reply;
use crate::control::names::find::Servers;
use crate::control::names::resolv_conf::Search;
use crate::control::names::resolv_conf::System;
use crate::control::names::rules::Kind;
use crate::control::names::srv::Service;

/// The name servers of this machine, or those of the settings.
pub struct NameServers {
    resolver: TokioResolver,
    search: Search,
}

impl NameServers {
    /// Reads resolv.conf. `servers`, unless empty, stand in place of its name servers.
    ///
    /// # Errors
    /// There is no name server.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let System { mut config, mut options, search } = match System::read() {
            Ok(system) => system,
            Err(error) if servers.is_empty() => return Err(error),
            Err(_) => System::absent(),
        };
        if !servers.is_empty() {
            config = ResolverConfig::from_parts(None, vec![], servers.iter().map(at_port).collect());
        }
        options.use_hosts_file = ResolveHosts::Never;
        // Expiry is followed by the watchers; a cache below them would only age the answers.
        options.cache_size = 0;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build().map_err(|error| error.to_string())?, search })
    }
}

fn at_port(addr: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(addr.ip());
    for connection in &mut server.connections {
        connection.port = addr.port();
    }
    server
}

impl Servers for NameServers {
    fn candidates(&self, name: &str) -> Vec<String> {
        self.search.candidates(name)
    }

    async fn ask(&self, full_name: &str, kind: Kind) -> Reply {
        let record_type = match kind {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
            Kind::Cname => RecordType::CNAME,
        };
        match self.resolver.lookup(full_name, record_type).await {
            Ok(lookup) => read(&lookup, kind),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Reply::Nothing(match none.response_code {
                ResponseCode::NXDomain => Denial::NoSuchName,
                _ => Denial::Empty,
            }),
            // What is no name cannot exist either.
            Err(NetError::Proto(_)) => Reply::Nothing(Denial::NoSuchName),
            Err(error @ NetError::Dns(_)) => Reply::Failed(reason(&error)),
            Err(error) => Reply::Silent(reason(&error)),
        }
    }
}

fn read(lookup: &Lookup, kind: Kind) -> Reply {
    let (mut ips, mut services, mut alias) = (Vec::new(), Vec::new(), None);
    let plain = |name: &Name| name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    for record in lookup.answers() {
        match (&record.data, kind) {
            (RData::A(ip), Kind::A) => ips.push(IpAddr::from(ip.0)),
            (RData::AAAA(ip), Kind::Aaaa) => ips.push(IpAddr::from(ip.0)),
            (RData::SRV(srv), Kind::Srv) => {
                let target = plain(&srv.target);
                services.push(Service { priority: srv.priority, weight: srv.weight, port: srv.port, target });
            }
            (RData::CNAME(name), Kind::Cname) => alias = Some(plain(name)),
            _ => {}
        }
    }
    // Aliases on the way are among the answers.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(ttl.into());
    match (ips.is_empty(), services.is_empty(), alias) {
        (false, ..) => Reply::Addresses(ips, ttl),
        (_, false, _) => Reply::Services(services, ttl),
        (.., Some(alias)) => Reply::Alias(alias, ttl),
        _ => Reply::Nothing(Denial::Empty),
    }
}

/// The words of Kong's DNS clients (spec/balancer.md section 2).
fn reason(error: &NetError) -> String {
    let NetError::Dns(DnsError::ResponseCode(code)) = error else {
        return if matches!(error, NetError::Timeout) { "timeout".to_owned() } else { error.to_string() };
    };
    let number = u16::from(*code);
    let words = match number {
        1 => "format error",
        2 => "server failure",
        3 => "name error",
        4 => "not implemented",
        5 => "refused",
        _ => "unknown",
    };
    format!("dns server error: {number} {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_kongs_words() {
        for (code, words) in [(2, "2 server failure"), (5, "5 refused"), (9, "9 unknown")] {
            let error = NetError::Dns(DnsError::ResponseCode(ResponseCode::from(0, code)));
            assert_eq!(reason(&error), format!("dns server error: {words}"));
        }
        assert_eq!(reason(&NetError::Timeout), "timeout");
    }
}
