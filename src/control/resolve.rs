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

use tokio::task::AbortHandle;

use crate::config::DnsRecord;
use crate::config::Settings;
use crate::control::nameserver::Answer;
use crate::control::nameserver::NameServers;
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
    dns: Option<NameServers>,
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

/// What a watcher remembers of its name.
#[derive(Default)]
struct Memory {
    /// The last addresses, and until when they may be used.
    last_good: Option<(Resolution, Instant)>,
    failing: bool,
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
        let dns = NameServers::new(settings, rules.ipv4, rules.ipv6);
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
            return Some(Resolution::of_ips(&[ip]));
        }
        if let Some(found) = self.hosts.get(&name.trim_end_matches('.').to_ascii_lowercase()) {
            return Some(Resolution::of_ips(found));
        }
        self.dns.is_none().then_some(Resolution::NotFound)
    }

    fn watch(self: &Arc<Self>, name: Arc<str>) -> AbortHandle {
        let names = Arc::downgrade(self);
        let watcher = async move {
            let mut memory = Memory::default();
            while let Some(this) = names.upgrade() {
                let (answer, valid_for) = this.ask(&name).await;
                let good_for = valid_for + this.rules.stale_ttl;
                let answer = memory.weigh(&name, answer, good_for, Instant::now());
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
        let rules = &self.rules;
        let answer = match &self.dns {
            Some(dns) => dns.ask(name).await,
            None => Answer::NotFound,
        };
        match answer {
            Answer::Addresses(addresses, ttl) => {
                (Resolution::of_ips(&addresses), rules.valid_ttl.unwrap_or(ttl).max(SHORTEST))
            }
            Answer::NotFound => (Resolution::NotFound, rules.not_found_ttl),
            Answer::Failed(why) => (Resolution::Failed(why.into()), rules.error_ttl),
        }
    }
}

impl Memory {
    /// What is to be published after an answer: while servers fail, the last addresses until their time is over.
    fn weigh(&mut self, name: &str, answer: Resolution, good_for: Duration, now: Instant) -> Resolution {
        let Resolution::Failed(why) = &answer else {
            if std::mem::take(&mut self.failing) {
                tracing::info!("{name}: name servers answer again");
            }
            // A name that was denied has no last addresses: a later failure must not bring them back.
            self.last_good = matches!(answer, Resolution::Addresses(..)).then(|| (answer.clone(), now + good_for));
            return answer;
        };
        let good = self.last_good.as_ref().filter(|(_, until)| now < *until);
        if !std::mem::replace(&mut self.failing, true) {
            let addresses = if good.is_some() { "its last addresses stay in use" } else { "it has no addresses" };
            tracing::warn!("{name}: {why}; {addresses}");
        }
        good.map_or(answer, |(good, _)| good.clone())
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
    fn the_last_addresses_cover_failures_for_a_while_and_no_denial() {
        let good = Resolution::of_ips(&[IpAddr::from([127, 0, 0, 1])]);
        let failed = || Resolution::Failed("timeout".into());
        let (start, for_10_s) = (Instant::now(), Duration::from_secs(10));
        let at = |s| start + Duration::from_secs(s);
        let mut memory = Memory::default();
        let mut weigh = |answer, s| memory.weigh("a.test", answer, for_10_s, at(s));
        assert_eq!(weigh(failed(), 0), failed());
        assert_eq!(weigh(good.clone(), 1), good);
        assert_eq!(weigh(failed(), 2), good);
        assert_eq!(weigh(failed(), 10), good);
        assert_eq!(weigh(failed(), 11), failed(), "their time is over");
        assert_eq!(weigh(good.clone(), 12), good);
        assert_eq!(weigh(Resolution::NotFound, 13), Resolution::NotFound);
        assert_eq!(weigh(failed(), 14), failed(), "they do not come back");
    }

    #[test]
    fn addresses_are_their_own_resolution() {
        assert_eq!(literal("[::1]"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(literal("127.0.0.1"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(literal("a.com"), None);
    }
}
