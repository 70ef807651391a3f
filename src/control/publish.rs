//! Accepted changes -> deltas -> every core, and the wait for their acknowledgements.
//! Owns: the order in which cores are told anything. Never: decides what is valid beyond what can be compiled.
//! Always: news of a name reach the cores after the delta that begins to use it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Settings;
use crate::control::backends::Backends;
use crate::control::names::Names;
use crate::control::ship::registry::Registry;
use crate::control::store::Applied;
use crate::control::store::Publish;
use crate::entity::RowChange;
use crate::limits;
use crate::metrics::counters::CoreCounters;
use crate::state::compile::Compiled;
use crate::state::compile::Compiler;
use crate::state::compile::Refusal;
use crate::state::delta::Delta;
use crate::state::delta::NameUpdate;
use crate::state::mailbox::Post;
use crate::state::mailbox::Sender;

/// The control plane's end of one core.
pub struct CoreEnd {
    pub sender: Sender,
    pub counters: Arc<CoreCounters>,
}

/// Rung whenever a core has applied something.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Notify>);

impl Acknowledged {
    /// For [`crate::state::mailbox::Outbox`]. Called by cores, for configuration changes only.
    pub fn callback(&self) -> Arc<dyn Fn(usize, u64) + Send + Sync> {
        let rung = self.0.clone();
        Arc::new(move |_core, _version| rung.notify_waiters())
    }
}

/// Tells the cores.
pub struct Publisher {
    cores: Arc<Vec<CoreEnd>>,
    acknowledged: Acknowledged,
    names: Arc<Names>,
    backends: Backends,
    shipping: Registry,
    /// Held while cores are told something, so that all of them hear all of it in one order.
    posting: Arc<Mutex<Compiler>>,
}

/// A compiled change, not posted yet.
pub struct Prepared {
    version: u64,
    compiled: Compiled,
}

/// A posted change on its way.
pub struct Acks {
    version: u64,
    cores: Arc<Vec<CoreEnd>>,
    acknowledged: Acknowledged,
}

impl Publisher {
    /// A publisher for these cores, and the delta with which they start. Must be called inside the control runtime.
    ///
    /// # Errors
    /// Stored rows that this build cannot serve.
    pub fn start(
        settings: &Settings,
        cores: Vec<CoreEnd>,
        acknowledged: Acknowledged,
        version: u64,
        rows: &[RowChange],
    ) -> Result<(Self, Arc<Delta>), Vec<Refusal>> {
        let cores = Arc::new(cores);
        let trial_after_ms = Some(settings.passive_recovery_ms).filter(|after_ms| *after_ms > 0);
        let posting = Arc::new(Mutex::new(Compiler::new(settings.router_flavor, trial_after_ms)));
        let (news, arriving) = mpsc::unbounded_channel();
        let names = Names::new(settings, Arc::new(move |update| drop(news.send(update))));
        let backends = Backends::start(cores.clone());
        let publisher =
            Self { cores, acknowledged, names: Arc::new(names), backends, shipping: Registry::default(), posting };
        let compiled = lock(&publisher.posting).compile(rows)?;
        let initial = publisher.delta(Prepared { version, compiled }, &mut lock(&publisher.posting));
        let (cores, backends, posting) = (&publisher.cores, &publisher.backends, &publisher.posting);
        tokio::spawn(pass_on_news(arriving, cores.clone(), backends.clone(), posting.clone()));
        Ok((publisher, Arc::new(initial)))
    }

    /// Every core.
    pub fn cores(&self) -> &Arc<Vec<CoreEnd>> {
        &self.cores
    }

    /// Upstreams with the health of their addresses.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The plugin configurations that ship records.
    pub fn shipping(&self) -> &Registry {
        &self.shipping
    }

    /// The names that the configuration uses.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Tells every core the same, outside of the order of versions.
    pub fn tell(&self, post: &Post) {
        let _order = lock(&self.posting);
        tell_all(&self.cores, post);
    }

    /// Waits until every core serves a version.
    pub fn served(&self, version: u64) -> Acks {
        Acks { version, cores: self.cores.clone(), acknowledged: self.acknowledged.clone() }
    }

    /// Turns a compiled change into the delta that cores get: adds what is known of the names it begins to use.
    fn delta(&self, prepared: Prepared, compiler: &mut Compiler) -> Delta {
        let Prepared { version, compiled } = prepared;
        *compiler = compiled.next;
        self.shipping.follow(&compiled.changes);
        let resolved = |name: &Arc<str>| NameUpdate { name: name.clone(), resolution: self.names.acquire(name) };
        let names: Vec<_> = compiled.names_wanted.iter().map(resolved).collect();
        for name in &compiled.names_unwanted {
            self.names.release(name);
        }
        let peers = self.backends.apply(&compiled.backends, &names, &compiled.names_unwanted);
        Delta { version, changes: compiled.changes, directory: compiled.directory, peers }
    }
}

impl Publish for Publisher {
    type Prepared = Prepared;
    type Acks = Acks;

    fn prepare(&self, version: u64, changes: &[RowChange]) -> Result<Prepared, Vec<Refusal>> {
        let compiler = lock(&self.posting).clone();
        let compiled = compiler.compile(changes)?;
        Ok(Prepared { version, compiled })
    }

    fn post(&self, prepared: Prepared) -> Acks {
        let version = prepared.version;
        let mut compiler = lock(&self.posting);
        let delta = self.delta(prepared, &mut compiler);
        tell_all(&self.cores, &Post::Apply(Arc::new(delta)));
        self.served(version)
    }

    async fn wait(acks: Acks) -> Applied {
        let Acks { version, cores, acknowledged } = acks;
        let deadline = Instant::now() + Duration::from_millis(limits::ACKNOWLEDGE_MS);
        loop {
            let rung = acknowledged.0.notified();
            tokio::pin!(rung);
            // Listening begins before looking, so that no ring falls between the two.
            rung.as_mut().enable();
            let late: Vec<usize> = (0..cores.len()).filter(|&at| cores[at].counters.version.get() < version).collect();
            if late.is_empty() || tokio::time::timeout_at(deadline, rung).await.is_err() {
                if !late.is_empty() {
                    tracing::error!("cores {late:?} have not applied configuration version {version} in time");
                }
                return Applied { version, late };
            }
        }
    }
}

fn lock(posting: &Mutex<Compiler>) -> MutexGuard<'_, Compiler> {
    // A panic while holding it leaves a whole compiler behind: it is replaced in one assignment.
    posting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn tell_all(cores: &[CoreEnd], post: &Post) {
    for core in cores {
        core.sender.post(post.clone());
    }
}

async fn pass_on_news(
    mut arriving: mpsc::UnboundedReceiver<NameUpdate>,
    cores: Arc<Vec<CoreEnd>>,
    backends: Backends,
    posting: Arc<Mutex<Compiler>>,
) {
    while let Some(first) = arriving.recv().await {
        let mut updates = vec![first];
        while let Ok(more) = arriving.try_recv() {
            updates.push(more);
        }
        let _order = lock(&posting);
        let peers = backends.learn(&updates);
        if !peers.is_empty() {
            tell_all(&cores, &Post::Peers(Arc::new(peers)));
        }
    }
}
