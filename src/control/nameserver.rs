//! The name servers that are asked, how a name is completed for them, and what their failures are called.
//! Never: remembers an answer. Always: an answer or a reason comes in bounded time.
//!
//! spec/balancer.md section 3. Name servers, search list and patience are those of resolv.conf; `dns_resolver` replaces its
//! name servers.

use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf;

use crate::config::Settings;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a name server may take, and how often the servers are asked, where resolv.conf does not say it. Together less
/// than [`crate::limits::FIRST_RESOLUTION_MS`], so that a request that waits is told the reason.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// So many domains of a search list are used.
const MOST_DOMAINS: usize = 6;

/// What name servers say about a name.
pub enum Answer {
    /// At least one address, and the shortest time to live of the records.
    Addresses(Vec<IpAddr>, Duration),
    /// There is no such name, or it has no addresses.
    NotFound,
    /// No usable answer, with the reason.
    Failed(String),
}

/// The name servers of this machine, or those of the settings.
pub struct NameServers {
    resolver: TokioResolver,
    search: Search,
}

/// What stands behind names that are written short.
#[derive(Debug, Default, PartialEq)]
struct Search {
    /// Without dots at their ends.
    domains: Vec<String>,
    /// A name with fewer dots is tried with the domains first.
    ndots: usize,
}

impl NameServers {
    /// Reads resolv.conf; asks for addresses of the given families.
    ///
    /// # Errors
    /// The settings name no server and resolv.conf has none either.
    pub fn new(settings: &Settings, ipv4: bool, ipv6: bool) -> Result<Self, String> {
        let text = std::fs::read(RESOLV_CONF).map_err(|e| e.to_string());
        let system = text.and_then(|text| system_rules(&String::from_utf8_lossy(&text)));
        let (mut config, mut options) = match system {
            Ok(system) => system,
            Err(error) if settings.dns_resolver.is_empty() => {
                return Err(format!("{RESOLV_CONF} is unusable: {error}"));
            }
            Err(_) => (ResolverConfig::default(), patient(ResolverOpts::default(), "")),
        };
        let domains = config.search().iter().map(|domain| domain.to_utf8().trim_matches('.').to_owned());
        let domains = domains.filter(|domain| !domain.is_empty()).take(MOST_DOMAINS).collect();
        let search = Search { domains, ndots: options.ndots };
        if !settings.dns_resolver.is_empty() {
            let servers = settings.dns_resolver.iter().map(|addr| {
                let mut server = NameServerConfig::udp_and_tcp(addr.ip());
                for connection in &mut server.connections {
                    connection.port = addr.port();
                }
                server
            });
            config = ResolverConfig::from_parts(None, vec![], servers.collect());
        }
        options.use_hosts_file = ResolveHosts::Never;
        // Expiry is followed by the watchers; a cache below them would only age the answers.
        options.cache_size = 0;
        options.ip_strategy = match (ipv4, ipv6) {
            (true, true) => LookupIpStrategy::Ipv4AndIpv6,
            (false, true) => LookupIpStrategy::Ipv6Only,
            _ => LookupIpStrategy::Ipv4Only,
        };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build().map_err(|e| e.to_string())?, search })
    }

    /// Asks for each way to complete the name until one has addresses. A failure outranks "no such name": a server that
    /// fails for the name itself must not make it vanish because its completions do not exist.
    pub async fn ask(&self, name: &str) -> Answer {
        let mut answer = Answer::NotFound;
        for full_name in self.search.candidates(name) {
            match self.resolver.lookup_ip(full_name).await {
                Ok(found) => {
                    let addresses: Vec<IpAddr> = found.iter().collect();
                    if !addresses.is_empty() {
                        let ttl = found.valid_until().saturating_duration_since(Instant::now());
                        return Answer::Addresses(addresses, ttl);
                    }
                }
                Err(error) if error.is_no_records_found() => {}
                Err(error) => {
                    answer = Answer::Failed(reason(&error));
                    if !matches!(error, NetError::Dns(_)) {
                        // Nobody answers, and would not for another name.
                        break;
                    }
                }
            }
        }
        answer
    }
}

impl Search {
    /// The names to ask for, with dots at their ends, in this order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> = self.domains.iter().map(|domain| format!("{name}.{domain}.")).collect();
        let is_short = name.matches('.').count() < self.ndots;
        names.insert(if is_short { names.len() } else { 0 }, format!("{name}."));
        names
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

fn system_rules(resolv_conf: &str) -> Result<(ResolverConfig, ResolverOpts), String> {
    let (config, options) = system_conf::parse_resolv_conf(resolv_conf).map_err(|e| e.to_string())?;
    Ok((config, patient(options, resolv_conf)))
}

fn patient(mut options: ResolverOpts, resolv_conf: &str) -> ResolverOpts {
    let lines = resolv_conf.lines().map(str::split_whitespace);
    let of_options = lines.filter_map(|mut words| (words.next() == Some("options")).then_some(words));
    let said: Vec<&str> = of_options.flatten().filter_map(|word| Some(word.split_once(':')?.0)).collect();
    if !said.contains(&"timeout") {
        options.timeout = PATIENCE;
    }
    if !said.contains(&"attempts") {
        options.attempts = ATTEMPTS;
    }
    // The resolver counts repetitions.
    options.attempts = options.attempts.saturating_sub(1);
    options
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::ResponseCode;

    use super::*;

    #[test]
    fn short_names_are_tried_with_the_search_list_first() {
        let (_, options) = system_rules("nameserver 127.0.0.1\nsearch a.test b.test.\noptions ndots:2\n").unwrap();
        assert_eq!((options.ndots, options.timeout, options.attempts), (2, PATIENCE, ATTEMPTS - 1));
        let search = Search { domains: vec!["a.test".to_owned(), "b".to_owned()], ndots: options.ndots };
        for (name, candidates) in [
            ("x", ["x.a.test.", "x.b.", "x."].as_slice()),
            ("x.y", &["x.y.a.test.", "x.y.b.", "x.y."]),
            ("x.y.z", &["x.y.z.", "x.y.z.a.test.", "x.y.z.b."]),
            ("x.", &["x."]),
        ] {
            assert_eq!(search.candidates(name), candidates);
        }
        assert_eq!(Search::default().candidates("x"), ["x."]);
    }

    #[test]
    fn the_patience_of_resolv_conf_counts() {
        let text = "nameserver 127.0.0.1\noptions rotate timeout:7\noptions attempts:3 edns0\n";
        let (_, options) = system_rules(text).unwrap();
        assert_eq!((options.timeout, options.attempts), (Duration::from_secs(7), 2));
        assert!(system_rules("# nothing\n").is_err(), "no name server");
    }

    #[test]
    fn failures_are_told_in_kongs_words() {
        for (code, words) in [(2, "2 server failure"), (5, "5 refused"), (9, "9 unknown")] {
            let error = NetError::Dns(DnsError::ResponseCode(ResponseCode::from(0, code)));
            assert_eq!(reason(&error), format!("dns server error: {words}"));
        }
        assert_eq!(reason(&NetError::Timeout), "timeout");
    }
}
