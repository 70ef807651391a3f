//! Names -> addresses, off-core, ahead of need.
//! Owns: one watcher per host name in use; it asks, publishes what it learned and asks again before the answer ends.
//! Never: asked by a data core. Always: a name that resolved once keeps its last good addresses while servers fail.
//!
//! spec/balancer.md sections 1-5: `find` is one search, `memory` weighs its answer, the rest serves these two.

mod find;
mod hosts;
mod memory;
mod nameserver;
mod resolv_conf;
mod rules;
mod srv;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Instant;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::config::Settings;
use crate::control::names::find::Answer;
use crate::control::names::find::find;
use crate::control::names::hosts::Hosts;
use crate::control::names::memory::Event;
use crate::control::names::memory::Memory;
use crate::control::names::memory::Step;
use crate::control::names::nameserver::NameServers;
use crate::control::names::rules::Kind;
use crate::control::names::rules::Rules;
use crate::limits;
use crate::state::delta::NameUpdate;
use crate::state::spec::Address;
use crate::state::spec::Resolution;

/// Where news of names goes.
pub type OnNews = Arc<dyn Fn(NameUpdate) + Send + Sync>;

/// Resolves the names that the configuration uses.
pub struct Names {
    dns: Option<NameServers>,
    rules: Rules,
    on_news: OnNews,
    inner: Mutex<Inner>,
    /// Bounds how many searches are under way.
    turns: Semaphore,
    runtime: tokio::runtime::Handle,
}

struct Inner {
    hosts: Arc<Hosts>,
    watched: HashMap<Arc<str>, Watched>,
}

struct Watched {
    users: usize,
    known: Resolution,
    told: Told,
    counts: Counts,
    watcher: Option<AbortHandle>,
}

/// What reports say of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// `A`, `AAAA` or `SRV`: the type of the last good answer.
    pub kind: Option<&'static str>,
    /// What the last search failed with, in the words of Kong's DNS clients.
    pub problem: Option<String>,
}

/// Searches for one name since it is in use.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    searches: u64,
    found: u64,
    denied: u64,
    failed: u64,
    /// Failures and denials that left the last addresses in use.
    stale: u64,
}

impl Names {
    /// Reads the hosts file and the system's resolver configuration. Without a usable one, only the hosts file resolves.
    pub fn new(settings: &Settings, on_news: OnNews) -> Self {
        let rules = Rules::new(settings);
        let dns = NameServers::new(&rules.servers);
        let dns = dns.inspect_err(|error| {
            tracing::warn!("names resolve from {} only: {error}", rules.hosts_file.display());
        });
        let hosts = Arc::new(Hosts::read(&rules.hosts_file));
        Self {
            dns: dns.ok(),
            rules,
            on_news,
            inner: Mutex::new(Inner { hosts, watched: HashMap::new() }),
            turns: Semaphore::new(limits::NAME_SEARCHES_MAX),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Begins (or shares) the use of a name. What is known at once is answered; the rest comes as news.
    pub fn acquire(self: &Arc<Self>, name: &Arc<str>) -> Resolution {
        let mut inner = self.lock();
        if let Some(entry) = inner.watched.get_mut(name) {
            entry.users += 1;
            return entry.known.clone();
        }
        let known = self.without_asking(&inner.hosts, name);
        let watcher = if known.is_none() { Some(self.watch(name.clone())) } else { None };
        let (known, told) = known.unwrap_or((Resolution::Pending, Told::default()));
        let entry = Watched { users: 1, known: known.clone(), told, counts: Counts::default(), watcher };
        inner.watched.insert(name.clone(), entry);
        known
    }

    /// Ends one use of a name; the last one ends its watcher. Answers whether it was the last.
    pub fn release(&self, name: &str) -> bool {
        let mut inner = self.lock();
        let Some(entry) = inner.watched.get_mut(name) else { return false };
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        if let Some(watcher) = inner.watched.remove(name).and_then(|entry| entry.watcher) {
            watcher.abort();
        }
        true
    }

    /// Searches by name since it is in use, for `GET /status/dns`.
    pub fn statistics(&self) -> Map<String, Value> {
        let inner = self.lock();
        let mut names: Vec<_> = inner.watched.iter().filter(|(_, entry)| entry.watcher.is_some()).collect();
        names.sort_by_key(|(name, _)| *name);
        let shown = names.into_iter().map(|(name, entry)| {
            let Counts { searches, found, denied, failed, stale } = entry.counts;
            let mut shown = json!({"runs": searches, "query_succ": found, "query_fail_nameserver": failed,
                                   "query_fail_not_found": denied, "stale": stale, "type": entry.told.kind});
            if let (Some(problem), Some(shown)) = (&entry.told.problem, shown.as_object_mut()) {
                shown.insert("query_last_error".to_owned(), problem.as_str().into());
            }
            (name.to_string(), shown)
        });
        shown.collect()
    }

    /// Reads the hosts file again: names that it has now are no longer asked for, names that it has lost are.
    pub fn read_hosts_again(self: &Arc<Self>) {
        let hosts = Arc::new(Hosts::read(&self.rules.hosts_file));
        let mut inner = self.lock();
        inner.hosts = hosts.clone();
        for (name, entry) in &mut inner.watched {
            match self.without_asking(&hosts, name) {
                Some((known, told)) => {
                    if let Some(watcher) = entry.watcher.take() {
                        watcher.abort();
                    }
                    entry.told = told;
                    self.set(name, entry, known);
                }
                // Until it is found, what the file said stays in use.
                None if entry.watcher.is_none() => entry.watcher = Some(self.watch(name.clone())),
                None => {}
            }
        }
    }

    fn without_asking(&self, hosts: &Hosts, name: &str) -> Option<(Resolution, Told)> {
        let known = literal(name).or_else(|| hosts.find(name, &self.rules.address_kinds()));
        if let Some(ip) = known {
            let told = Told { kind: Some(kind_of(ip).word()), problem: None };
            return Some((Resolution::of_ips(&[ip]), told));
        }
        let none = "there is no name server";
        self.dns.is_none().then_some((Resolution::NotFound(none), Told { kind: None, problem: Some(none.to_owned()) }))
    }

    fn watch(self: &Arc<Self>, name: Arc<str>) -> AbortHandle {
        let names = Arc::downgrade(self);
        let watcher = async move {
            let mut memory = Memory::default();
            while let Some(this) = names.upgrade() {
                let answer = this.ask(&name, &memory).await;
                let outcome = Counts::of(&answer);
                let step = memory.weigh(answer, &this.rules, Instant::now(), fastrand::f32());
                let wait = step.wait;
                let kind = memory.before.kind;
                this.publish(&name, step, kind, outcome);
                drop(this);
                tokio::time::sleep(wait).await;
            }
        };
        self.runtime.spawn(watcher).abort_handle()
    }

    /// Where a name that nobody watches is now.
    ///
    /// # Errors
    /// Why that is unknown.
    pub async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let hosts = self.lock().hosts.clone();
        if let Some(ip) = literal(name).or_else(|| hosts.find(name, &self.rules.address_kinds())) {
            return Ok(vec![ip]);
        }
        match self.ask(name, &Memory::default()).await {
            Answer::Found(found) => Ok(found.addresses.iter().map(|address| address.ip).collect()),
            Answer::Nothing(_) => Err(format!("the name {name} has no address")),
            Answer::Failed(why) => Err(format!("the name {name}: {why}")),
        }
    }

    async fn ask(&self, name: &str, memory: &Memory) -> Answer {
        let Some(dns) = &self.dns else { return Answer::Failed("there is no name server".to_owned()) };
        let _turn = self.turns.acquire().await;
        let hosts = self.lock().hosts.clone();
        find(dns, &hosts, &self.rules, name, &memory.before).await
    }

    fn publish(&self, name: &Arc<str>, step: Step, kind: Option<Kind>, outcome: Counts) {
        let Step { resolution, problem, event, wait } = step;
        let in_use = match &resolution {
            Resolution::Addresses(..) => "its addresses stay in use",
            _ => "it has no addresses",
        };
        let why = problem.as_deref().unwrap_or_default();
        match event {
            Event::Fails => tracing::warn!("{name}: {why}; {in_use}"),
            Event::Works => tracing::info!("{name}: it is resolved again"),
            Event::Nothing => {}
        }
        tracing::trace!("{name}: asked for again in {} ms", wait.as_millis());
        let mut inner = self.lock();
        let Some(entry) = inner.watched.get_mut(name) else { return };
        let stale = u64::from(outcome.found == 0 && matches!(resolution, Resolution::Addresses(..)));
        entry.counts.add(Counts { stale, ..outcome });
        entry.told = Told { kind: kind.map(Kind::word), problem };
        self.set(name, entry, resolution);
    }

    /// Published under the lock, so that no older answer overtakes this one.
    fn set(&self, name: &Arc<str>, entry: &mut Watched, resolution: Resolution) {
        if !is_same(&entry.known, &resolution) {
            tracing::debug!("{name}: {resolution:?}");
            entry.known = resolution.clone();
            (self.on_news)(NameUpdate { name: name.clone(), resolution });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while holding it")
    }
}

impl Counts {
    fn of(answer: &Answer) -> Self {
        let is = |yes: bool| u64::from(yes);
        Self {
            searches: 1,
            found: is(matches!(answer, Answer::Found(_))),
            denied: is(matches!(answer, Answer::Nothing(_))),
            failed: is(matches!(answer, Answer::Failed(_))),
            stale: 0,
        }
    }

    fn add(&mut self, more: Self) {
        self.searches += more.searches;
        self.found += more.found;
        self.denied += more.denied;
        self.failed += more.failed;
        self.stale += more.stale;
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for (_, entry) in self.lock().watched.drain() {
            if let Some(watcher) = entry.watcher {
                watcher.abort();
            }
        }
    }
}

/// Whether two resolutions say the same. Servers turn the order of an answer from one time to the next.
fn is_same(a: &Resolution, b: &Resolution) -> bool {
    match (a, b) {
        (Resolution::Addresses(kind, a), Resolution::Addresses(other_kind, b)) => {
            let sorted = |list: &[Address]| {
                let mut list = list.to_vec();
                list.sort();
                list
            };
            kind == other_kind && (a == b || (a.len() == b.len() && sorted(a) == sorted(b)))
        }
        _ => a == b,
    }
}

fn kind_of(ip: IpAddr) -> Kind {
    if ip.is_ipv4() { Kind::A } else { Kind::Aaaa }
}

/// An address written as a name, with or without the brackets of IPv6.
fn literal(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_their_own_resolution() {
        assert_eq!(literal("[::1]"), Some("::1".parse().unwrap()));
        assert_eq!(literal("127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(literal("a.com"), None);
    }

    #[test]
    fn an_answer_in_another_order_is_no_news() {
        let of = |last_bytes: &[u8]| {
            let ips: Vec<_> = last_bytes.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect();
            Resolution::of_ips(&ips)
        };
        assert!(is_same(&of(&[1, 2, 3]), &of(&[3, 1, 2])));
        for other in [of(&[1, 2]), of(&[1, 2, 4]), Resolution::NotFound("")] {
            assert!(!is_same(&of(&[1, 2, 3]), &other), "{other:?}");
        }
    }
}
