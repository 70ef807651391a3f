//! Names -> addresses, off-core, ahead of need.
//! Owns: one watcher per host name in use; it asks, publishes what it learned and asks again before the answer ends.
//! Never: asked by a data core. Always: a name that resolved once keeps its last good addresses while servers fail.
//!
//! spec/balancer.md sections 1-3. Addresses come from the hosts file and from A (and AAAA, where `dns_order` names it)
//! records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::task::AbortHandle;

use crate::config::DnsRecord;
use crate::config::Settings;
use crate::state::delta::NameUpdate;
use crate::state::spec::Resolution;

/// No name is asked for more often.
const SHORTEST: Duration = Duration::from_secs(1);

/// Where news of names goes.
pub type OnNews = Arc<dyn Fn(NameUpdate) + Send + Sync>;

/// How names are resolved, from the settings of the same names.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub ipv4: bool,
    pub ipv6: bool,
    /// `dns_valid_ttl`: replaces the time to live of every answer.
    pub valid_ttl: Option<Duration>,
    /// `dns_stale_ttl`: how long addresses whose time has passed stay in use while no server answers.
    pub stale_ttl: Duration,
    /// `dns_not_found_ttl`: until a name that does not exist is asked for again.
    pub not_found_ttl: Duration,
    /// `dns_error_ttl`: until a failed question is repeated.
    pub error_ttl: Duration,
}

/// Resolves the names that the configuration uses.
pub struct Names {
    hosts: HashMap<String, Vec<IpAddr>>,
    dns: Option<Arc<TokioResolver>>,
    rules: Rules,
    on_news: OnNews,
    watched: Mutex<HashMap<Arc<str>, Watched>>,
    runtime: tokio::runtime::Handle,
}

struct Watched {
    users: usize,
    known: Resolution,
    watcher: Option<AbortHandle>,
}

impl Names {
    /// Reads the hosts file and the system's resolver configuration. Without a usable one, only the hosts file resolves.
    pub fn new(settings: &Settings, on_news: OnNews) -> Self {
        let rules = Rules {
            ipv4: settings.dns_order.contains(&DnsRecord::A),
            ipv6: settings.dns_order.contains(&DnsRecord::Aaaa),
            valid_ttl: settings.dns_valid_ttl_ms.map(Duration::from_millis),
            stale_ttl: Duration::from_millis(settings.dns_stale_ttl_ms),
            not_found_ttl: Duration::from_millis(settings.dns_not_found_ttl_ms).max(SHORTEST),
            error_ttl: Duration::from_millis(settings.dns_error_ttl_ms).max(SHORTEST),
        };
        let dns = build_resolver(settings, &rules).map(Arc::new);
        let dns = dns.inspect_err(|error| {
            tracing::warn!("names resolve from {} only: {error}", settings.dns_hostsfile.display());
        });
        Self {
            hosts: read_hosts(&settings.dns_hostsfile, &rules),
            dns: dns.ok(),
            rules,
            on_news,
            watched: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Begins (or shares) the use of a name. What is known at once is answered; the rest comes as news.
    pub fn acquire(self: &Arc<Self>, name: &Arc<str>) -> Resolution {
        let mut watched = self.watched.lock().expect("no panic while holding it");
        if let Some(entry) = watched.get_mut(name) {
            entry.users += 1;
            return entry.known.clone();
        }
        let (known, watcher) = match self.without_asking(name) {
            Some(known) => (known, None),
            None => (Resolution::Pending, Some(self.watch(name.clone()))),
        };
        watched.insert(name.clone(), Watched { users: 1, known: known.clone(), watcher });
        known
    }

    /// Ends one use of a name; the last one ends its watcher. Answers whether it was the last.
    pub fn release(&self, name: &str) -> bool {
        let mut watched = self.watched.lock().expect("no panic while holding it");
        let Some(entry) = watched.get_mut(name) else { return false };
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        if let Some(watcher) = watched.remove(name).and_then(|w| w.watcher) {
            watcher.abort();
        }
        true
    }

    fn without_asking(&self, name: &str) -> Option<Resolution> {
        if let Some(ip) = literal(name) {
            return Some(Resolution::Addresses(Arc::from([ip])));
        }
        if let Some(found) = self.hosts.get(&name.trim_end_matches('.').to_ascii_lowercase()) {
            return Some(Resolution::Addresses(found.clone().into()));
        }
        self.dns.is_none().then_some(Resolution::NotFound)
    }

    fn watch(self: &Arc<Self>, name: Arc<str>) -> AbortHandle {
        let names = Arc::downgrade(self);
        let watcher = async move {
            // The last addresses, and until when they may be used.
            let mut last_good: Option<(Resolution, Instant)> = None;
            while let Some(this) = names.upgrade() {
                let (mut answer, valid_for) = this.ask(&name).await;
                match (&answer, &last_good) {
                    (Resolution::Addresses(_), _) => {
                        last_good = Some((answer.clone(), Instant::now() + valid_for + this.rules.stale_ttl));
                    }
                    (Resolution::Failed(why), Some((good, until))) if Instant::now() < *until => {
                        tracing::warn!("{name}: {why}; its last addresses stay in use");
                        answer = good.clone();
                    }
                    _ => {}
                }
                this.publish(&name, answer);
                drop(this);
                tokio::time::sleep(valid_for).await;
            }
        };
        self.runtime.spawn(watcher).abort_handle()
    }

    fn publish(&self, name: &Arc<str>, answer: Resolution) {
        let mut watched = self.watched.lock().expect("no panic while holding it");
        let Some(entry) = watched.get_mut(name) else { return };
        if entry.known != answer {
            tracing::debug!("{name}: {answer:?}");
            entry.known = answer.clone();
            // Published under the lock, so that no older answer overtakes this one.
            (self.on_news)(NameUpdate { name: name.clone(), resolution: answer });
        }
    }

    async fn ask(&self, name: &str) -> (Resolution, Duration) {
        let Some(dns) = &self.dns else { return (Resolution::NotFound, self.rules.not_found_ttl) };
        match dns.lookup_ip(name).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                if addresses.is_empty() {
                    return (Resolution::NotFound, self.rules.not_found_ttl);
                }
                let ttl = found.valid_until().saturating_duration_since(Instant::now());
                let valid_for = self.rules.valid_ttl.unwrap_or(ttl).max(SHORTEST);
                (Resolution::Addresses(addresses.into()), valid_for)
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => {
                (Resolution::NotFound, self.rules.not_found_ttl)
            }
            Err(error) => (Resolution::Failed(error.to_string().into()), self.rules.error_ttl),
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for (_, entry) in self.watched.lock().expect("no panic while holding it").drain() {
            if let Some(watcher) = entry.watcher {
                watcher.abort();
            }
        }
    }
}

/// An address written as a name, with or without the brackets of IPv6.
pub fn literal(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn build_resolver(settings: &Settings, rules: &Rules) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if settings.dns_resolver.is_empty() {
        TokioResolver::builder_tokio().map_err(|e| format!("the system's resolver configuration is unusable: {e}"))?
    } else {
        let servers = settings.dns_resolver.iter().map(|addr| {
            let mut server = NameServerConfig::udp_and_tcp(addr.ip());
            for connection in &mut server.connections {
                connection.port = addr.port();
            }
            server
        });
        let config = ResolverConfig::from_parts(None, vec![], servers.collect());
        TokioResolver::builder_with_config(config, provider)
    };
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    // Expiry is followed by the watchers; a cache below them would only age the answers.
    options.cache_size = 0;
    options.ip_strategy = match (rules.ipv4, rules.ipv6) {
        (true, true) => LookupIpStrategy::Ipv4AndIpv6,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4Only,
    };
    builder.build().map_err(|e| e.to_string())
}

/// The hosts file: first line wins per name and family; `localhost` is there even when the file lacks it.
fn read_hosts(path: &Path, rules: &Rules) -> HashMap<String, Vec<IpAddr>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::warn!("{}: {error}; only localhost is known without asking a name server", path.display());
        String::new()
    });
    parse_hosts(&text, rules)
}

fn parse_hosts(text: &str, rules: &Rules) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    let mut add = |name: &str, ip: IpAddr| {
        let wanted = if ip.is_ipv4() { rules.ipv4 } else { rules.ipv6 };
        let entry = hosts.entry(name.to_ascii_lowercase()).or_default();
        if wanted && !entry.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
            entry.push(ip);
        }
    };
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
        words.for_each(|name| add(name, ip));
    }
    add("localhost", Ipv4Addr::LOCALHOST.into());
    add("localhost", Ipv6Addr::LOCALHOST.into());
    hosts.retain(|_, ips| !ips.is_empty());
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ipv4: bool, ipv6: bool) -> Rules {
        let second = Duration::from_secs(1);
        Rules { ipv4, ipv6, valid_ttl: None, stale_ttl: second, not_found_ttl: second, error_ttl: second }
    }

    #[test]
    fn the_first_line_of_a_hosts_file_wins_per_family() {
        let text = "# comment\n10.0.0.1 a A.alias # more\n10.0.0.2 a\n::2 a\nbroken line\n";
        let hosts = parse_hosts(text, &rules(true, true));
        assert_eq!(hosts["a"], ["10.0.0.1".parse::<IpAddr>().unwrap(), "::2".parse().unwrap()]);
        assert_eq!(hosts["a.alias"], ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(!hosts.contains_key("line"));
    }

    #[test]
    fn localhost_is_known_without_a_file_and_follows_the_wanted_families() {
        assert_eq!(parse_hosts("", &rules(true, false))["localhost"], [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(
            parse_hosts("127.0.0.9 localhost", &rules(true, false))["localhost"],
            [IpAddr::from([127, 0, 0, 9])]
        );
        assert_eq!(parse_hosts("", &rules(true, true))["localhost"].len(), 2);
    }

    #[test]
    fn addresses_are_their_own_resolution() {
        assert_eq!(literal("[::1]"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(literal("127.0.0.1"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(literal("a.com"), None);
    }
}
