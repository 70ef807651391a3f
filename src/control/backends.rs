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
use crate::balancer::vitals::Vitals;
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

/// Whose history it is: account of the upstream, address, host name of the target.
type Key = (u64, SocketAddr, Arc<str>);
/// The last changes of each address, oldest first.
type Histories = HashMap<Key, VecDeque<HealthEvent>>;

/// Beyond this the order in which events arrive is their order: an address that was forgotten counts anew.
const TOLD_AT_ONCE_MS: u64 = 1000;

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
    pub fn history(&self, vitals: &Vitals) -> Vec<HealthEvent> {
        let histories = lock(&self.histories);
        histories
            .get(&(vitals.pulse.account, vitals.addr, vitals.host.clone()))
            .into_iter()
            .flatten()
            .cloned()
            .collect()
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
        let upstream = lock(&book).owner(event.account);
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
        let key = (event.account, event.addr, event.host.clone());
        if !histories.contains_key(&key) && histories.len() >= limits::HISTORIES_MAX {
            // Addresses that nobody has any more make room.
            let book = lock(&book);
            histories.retain(|(account, addr, _), _| {
                book.owner(*account).is_some_and(|set| set.peers().iter().any(|peer| peer.addr == *addr))
            });
        }
        insert(histories.entry(key).or_default(), event);
    }
}

/// Two threads that change an address at once may tell of it in the wrong order.
fn insert(history: &mut VecDeque<HealthEvent>, event: HealthEvent) {
    let comes_later =
        |other: &HealthEvent| other.nth > event.nth && other.unix_ms.abs_diff(event.unix_ms) < TOLD_AT_ONCE_MS;
    let later = history.iter().rev().take_while(|other| comes_later(other)).count();
    history.insert(history.len() - later, event);
    if history.len() > limits::HISTORY_EVENTS_MAX {
        history.pop_front();
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
    let upstream = upstream.unwrap_or("that is gone");
    let mut text = format!("upstream {upstream}: {host} ({addr}) is {state}: {} check, {seen}", judge.name());
    if let Some((outcome, limit)) = event.decided {
        text.push_str(&format!(" ({outcome:?}, limit {limit})"));
    }
    if let Some(way_back) = event.way_back {
        text.push_str(&format!("; comes back by {way_back}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::vitals::Judge;

    fn event(nth: u32, unix_ms: u64) -> HealthEvent {
        HealthEvent {
            account: 1,
            addr: SocketAddr::from(([127, 0, 0, 1], 80)),
            host: "t".into(),
            available: nth.is_multiple_of(2),
            nth,
            judge: Judge::Passive,
            decided: None,
            evidence: Evidence::Word,
            unix_ms,
            way_back: None,
        }
    }

    #[test]
    fn a_history_is_in_order_and_bounded() {
        let check = |events: &[(u32, u64)], want: &[u32]| {
            let mut history = VecDeque::new();
            events.iter().for_each(|&(nth, unix_ms)| insert(&mut history, event(nth, unix_ms)));
            assert_eq!(history.iter().map(|event| event.nth).collect::<Vec<_>>(), want, "{events:?}");
        };
        check(&[(1, 0), (2, 0), (3, 5)], &[1, 2, 3]);
        check(&[(2, 10), (1, 10), (4, 11), (3, 10)], &[1, 2, 3, 4]);
        check(&[(7, 10), (8, 20), (1, 400_000)], &[7, 8, 1]);
        let many: Vec<_> = (0..100).map(|nth| (nth, u64::from(nth) * 10)).collect();
        check(&many, &(100 - limits::HISTORY_EVENTS_MAX as u32..100).collect::<Vec<_>>());
    }
}
