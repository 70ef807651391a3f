//! How names are resolved, from the settings of either DNS client (spec/balancer.md sections 3 and 4).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::DnsRecord;
use crate::config::Settings;
use crate::control::names::srv::ZeroWeight;
use crate::state::spec::RecordKind;

/// No name is asked for more often.
const SHORTEST: Duration = Duration::from_secs(1);

/// A type of record to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    /// An alias is followed whatever was asked for where the server tells both; this asks for the alias alone.
    Cname,
}

impl Kind {
    /// What is said of addresses that came of it.
    pub fn of_records(self) -> RecordKind {
        match self {
            Self::Srv => RecordKind::Srv,
            Self::Aaaa => RecordKind::Aaaa,
            Self::A | Self::Cname => RecordKind::A,
        }
    }

    /// As in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
            Self::Cname => "CNAME",
        }
    }
}

/// The settings of the client in use.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Types in the order in which they are tried.
    order: Vec<DnsRecord>,
    /// Whether only names like `_http._tcp.name` are asked for as SRV, and they for nothing else.
    srv_by_name: bool,
    pub zero_weight: ZeroWeight,
    /// In place of the name servers of resolv.conf, unless empty.
    pub servers: Vec<SocketAddr>,
    pub hosts_file: PathBuf,
    /// Replaces the time to live of every answer.
    valid_ttl: Option<Duration>,
    /// How long addresses whose time has passed stay in use while no server answers.
    pub stale_ttl: Duration,
    /// Until a name that does not exist is asked for again.
    pub not_found_ttl: Duration,
    /// Until a failed question is repeated.
    pub error_ttl: Duration,
}

impl Rules {
    /// The rules of the client that `new_dns_client` selects.
    pub fn new(settings: &Settings) -> Self {
        let ms = Duration::from_millis;
        if settings.new_dns_client {
            return Self {
                order: settings.resolver_family.clone(),
                srv_by_name: true,
                zero_weight: ZeroWeight::Tenth,
                servers: settings.resolver_address.clone(),
                hosts_file: settings.resolver_hosts_file.clone(),
                valid_ttl: settings.resolver_valid_ttl_ms.map(ms),
                stale_ttl: ms(settings.resolver_stale_ttl_ms),
                not_found_ttl: ms(settings.resolver_error_ttl_ms).max(SHORTEST),
                error_ttl: ms(settings.resolver_error_ttl_ms).max(SHORTEST),
            };
        }
        Self {
            order: settings.dns_order.clone(),
            srv_by_name: false,
            zero_weight: ZeroWeight::One,
            servers: settings.dns_resolver.clone(),
            hosts_file: settings.dns_hostsfile.clone(),
            valid_ttl: settings.dns_valid_ttl_ms.map(ms),
            stale_ttl: ms(settings.dns_stale_ttl_ms),
            not_found_ttl: ms(settings.dns_not_found_ttl_ms).max(SHORTEST),
            error_ttl: ms(settings.dns_error_ttl_ms).max(SHORTEST),
        }
    }

    /// The types to try for a name, each once. `last` is the type that had an answer the last time.
    pub fn kinds(&self, name: &str, last: Option<Kind>) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for record in &self.order {
            let kind = match record {
                DnsRecord::Last => last,
                DnsRecord::Srv => Some(Kind::Srv),
                DnsRecord::A => Some(Kind::A),
                DnsRecord::Aaaa => Some(Kind::Aaaa),
                DnsRecord::Cname => Some(Kind::Cname),
            };
            kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
        }
        if self.srv_by_name {
            let is_service = is_service_name(name);
            kinds.retain(|kind| (*kind == Kind::Srv) == is_service);
        }
        kinds
    }

    /// The types of addresses to try for the target of an SRV record.
    pub fn address_kinds(&self) -> Vec<Kind> {
        let mut kinds = self.kinds("", None);
        kinds.retain(|kind| matches!(kind, Kind::A | Kind::Aaaa));
        if kinds.is_empty() { vec![Kind::A] } else { kinds }
    }

    /// How long an answer is good for.
    pub fn valid_for(&self, ttl: Duration) -> Duration {
        self.valid_ttl.unwrap_or(ttl).max(SHORTEST)
    }
}

/// `_service._proto.name`
fn is_service_name(name: &str) -> bool {
    let mut labels = name.splitn(3, '.');
    let mut underscored = || labels.next().is_some_and(|label| label.len() > 1 && label.starts_with('_'));
    underscored() && underscored() && labels.next().is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn rules(settings: &[(&str, &str)]) -> Rules {
        let flags: Vec<_> = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Rules::new(&Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings)
    }

    #[test]
    fn the_type_that_answered_last_takes_the_place_of_last() {
        use Kind::*;
        for (order, last, want) in [
            ("LAST,SRV,A,CNAME", None, &[Srv, A, Cname][..]),
            ("LAST,SRV,A,CNAME", Some(A), &[A, Srv, Cname]),
            ("SRV,LAST,A,AAAA", Some(Aaaa), &[Srv, Aaaa, A]),
            ("A", Some(Srv), &[A]),
        ] {
            assert_eq!(rules(&[("dns_order", order)]).kinds("a.test", last), want, "{order} {last:?}");
        }
    }

    #[test]
    fn the_alternative_client_asks_for_srv_by_the_form_of_the_name() {
        let rules = rules(&[("new_dns_client", "on"), ("resolver_family", "AAAA,A,SRV")]);
        assert_eq!(rules.kinds("_http._tcp.a.test", None), [Kind::Srv]);
        for name in ["a.test", "_http.a.test", "_http._tcp", "_._tcp.a", "http._tcp.a"] {
            assert_eq!(rules.kinds(name, None), [Kind::Aaaa, Kind::A], "{name}");
        }
        assert_eq!(rules.zero_weight, ZeroWeight::Tenth);
    }

    #[test]
    fn targets_of_srv_records_are_asked_for_as_addresses() {
        assert_eq!(rules(&[("dns_order", "SRV,AAAA,A")]).address_kinds(), [Kind::Aaaa, Kind::A]);
        assert_eq!(rules(&[("dns_order", "SRV")]).address_kinds(), [Kind::A]);
    }

    #[test]
    fn each_client_has_settings_of_its_own() {
        let given = [("dns_valid_ttl", "7"), ("resolver_valid_ttl", "9"), ("resolver_error_ttl", "3")];
        let old = rules(&given);
        assert_eq!(old.valid_for(Duration::from_secs(1)), Duration::from_secs(7));
        assert_eq!((old.error_ttl.as_secs(), old.not_found_ttl.as_secs()), (1, 30));
        let new = rules(&[&given[..], &[("new_dns_client", "on")]].concat());
        assert_eq!(new.valid_for(Duration::from_secs(1)), Duration::from_secs(9));
        assert_eq!((new.error_ttl.as_secs(), new.not_found_ttl.as_secs()), (3, 3));
        assert_eq!(rules(&[]).valid_for(Duration::ZERO), SHORTEST);
    }
}
