//! Upstreams as they are served: targets, addresses, health, and the history of every address.
//! Owns: the book of peers, and the log and memory of changes of availability. Never: probes, resolves.
//! Always: whatever ejects an address or brings it back - traffic on any core, a probe, an operator - is logged and
//! remembered here, with what was seen and what is needed to come back.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use tokio::sync::mpsc;
use tokio::sync::watch;
use uuid::Uuid;

use crate::balancer::vitals::Evidence;
use crate::balancer::vitals::HealthEvent;
use crate::balancer::vitals::Now;
use crate::control::publish::CoreEnd;
use crate::limits;
use crate::state::book::PeerBook;
use crate::state::delta::BackendChange;
use crate::state::delta::NameUpdate;
use crate::state::delta::PeersUpdate;
use crate::state::mailbox::Post;
use crate::state::peers::PeerSet;
use crate::stdx::clock;

/// A handle that may be cloned.
#[derive(Clone)]
pub struct Backends {
    book: Arc<Mutex<PeerBook>>,
    changed: Arc<watch::Sender<u64>>,
    histories: Arc<Mutex<Histories>>,
}

/// Whose history it is: upstream, address, host name of the target.
type Key = (Uuid, SocketAddr, Arc<str>);
/// The last changes of each address, oldest first.
type Histories = HashMap<Key, VecDeque<HealthEvent>>;

/// The time of a report made now.
pub fn now() -> Now {
    Now { ms: clock::process_ms(), unix_ms: clock::unix_ms() }
}

impl Backends {
    /// Without any upstream. Must be called inside the control runtime.
    pub fn start(cores: Arc<Vec<CoreEnd>>) -> Self {
        let (events, arriving) = mpsc::unbounded_channel();
        let book = PeerBook::new(Arc::new(move |event| drop(events.send(event))));
        let backends = Self {
            book: Arc::new(Mutex::new(book)),
            changed: Arc::new(watch::Sender::new(0)),
            histories: Arc::default(),
        };
        tokio::spawn(remember(arriving, cores, Arc::downgrade(&backends.book), backends.histories.clone()));
        backends
    }

    /// The peers of an upstream: targets, their addresses, and the vitals of each.
    pub fn upstream(&self, id: Uuid) -> Option<Arc<PeerSet>> {
        lock(&self.book).upstream(id)
    }

    /// All upstreams.
    pub fn upstreams(&self) -> Vec<Arc<PeerSet>> {
        lock(&self.book).upstreams().cloned().collect()
    }

    /// Changes whenever some upstream, target or address did.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The last changes of availability of an address, oldest first.
    pub fn history(&self, upstream: Uuid, addr: SocketAddr, host: &Arc<str>) -> Vec<HealthEvent> {
        let histories = lock(&self.histories);
        histories.get(&(upstream, addr, host.clone())).into_iter().flatten().cloned().collect()
    }

    /// Follows a compiled change. Gives what cores must be told.
    pub fn apply(
        &self,
        changes: &[BackendChange],
        names: &[NameUpdate],
        names_dropped: &[Arc<str>],
    ) -> Vec<PeersUpdate> {
        let updates = lock(&self.book).apply(changes, names, names_dropped, clock::process_ms());
        self.announce(&updates);
        updates
    }

    /// Takes news of names. Gives what cores must be told.
    pub fn learn(&self, updates: &[NameUpdate]) -> Vec<PeersUpdate> {
        let updates = lock(&self.book).learn(updates, clock::process_ms());
        self.announce(&updates);
        updates
    }

    fn announce(&self, updates: &[PeersUpdate]) {
        if !updates.is_empty() {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind is still the best account there is.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn remember(
    mut arriving: mpsc::UnboundedReceiver<HealthEvent>,
    cores: Arc<Vec<CoreEnd>>,
    book: std::sync::Weak<Mutex<PeerBook>>,
    histories: Arc<Mutex<Histories>>,
) {
    while let Some(event) = arriving.recv().await {
        let Some(book) = book.upgrade() else { return };
        let upstream = lock(&book).upstream(event.upstream);
        let name = upstream.as_ref().and_then(|set| set.upstream.as_ref()).map(|spec| spec.name.clone());
        match event.available {
            true => tracing::info!("{}", sentence(name.as_deref(), &event)),
            false => {
                tracing::warn!("{}", sentence(name.as_deref(), &event));
                for core in cores.iter() {
                    core.sender.post(Post::Ejected(event.addr));
                }
            }
        }
        let mut histories = lock(&histories);
        let key = (event.upstream, event.addr, event.host.clone());
        if !histories.contains_key(&key) && histories.len() >= limits::HISTORIES_MAX {
            // Addresses that nobody has any more make room.
            let book = lock(&book);
            histories.retain(|(upstream, addr, _), _| {
                book.upstream(*upstream).is_some_and(|set| set.peers().iter().any(|peer| peer.addr == *addr))
            });
        }
        let history = histories.entry(key).or_default();
        if history.len() >= limits::HISTORY_EVENTS_MAX {
            history.pop_front();
        }
        history.push_back(event);
    }
}

/// One change, for the log.
fn sentence(upstream: Option<&str>, event: &HealthEvent) -> String {
    let HealthEvent { addr, host, available, judge, .. } = event;
    let state = if *available { "available" } else { "unavailable" };
    let seen = match &event.evidence {
        Evidence::Status(status) => format!("status {status}"),
        Evidence::Error(error) => error.to_string(),
        Evidence::Word => "set by an operator".to_owned(),
    };
    let deleted = event.upstream.to_string();
    let upstream = upstream.unwrap_or(&deleted);
    let mut text = format!("upstream {upstream}: {host} ({addr}) is {state}: {} check, {seen}", judge.name());
    if let Some((outcome, limit)) = event.decided {
        text.push_str(&format!(" ({outcome:?}, limit {limit})"));
    }
    if let Some(way_back) = event.way_back {
        text.push_str(&format!("; comes back by {way_back}"));
    }
    text
}
