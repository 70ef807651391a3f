//! The records of finished requests -> files, collectors, sinks of every kind, as plugins want them.
//! Owns: one thread that takes records apart, one queue for each destination. Never: keeps a data core waiting; a queue
//! that is full drops its oldest entries.
//! Always: what the cores handed over before they ended is offered to its destination before the program ends.

mod datadog;
mod file;
mod http;
mod http_log;
mod line;
mod log_record;
mod loggly;
mod moesif;
mod moesif_event;
mod opentelemetry;
mod outlet;
mod protobuf;
mod queue;
pub mod registry;
mod seen;
mod statsd;
mod syslog;
mod tcp;
mod udp;
mod when;
mod zipkin;

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ahash::AHashMap;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::config::Instrumented;
use crate::control::reach::Reach;
use crate::control::ship::outlet::Outlet;
use crate::control::ship::outlet::Outlets;
use crate::control::ship::registry::Registry;
use crate::control::ship::seen::Entities;
pub use crate::control::ship::seen::NodeFacts;
use crate::control::ship::seen::Seen;
use crate::limits;
use crate::metrics::full_record::FullRecord;
use crate::plugins::Instance;

/// Takes a batch of full records; `false`: too many wait.
pub type Ship = Arc<dyn Fn(Vec<u8>) -> bool + Send + Sync>;

/// The cores' end and the shipper's end of the queue between them.
pub struct Dock {
    sender: SyncSender<Vec<u8>>,
    arriving: Receiver<Vec<u8>>,
}

impl Dock {
    /// A queue with its bound.
    pub fn new() -> Self {
        let (sender, arriving) = mpsc::sync_channel(limits::FULL_BATCHES_WAITING_MAX);
        Self { sender, arriving }
    }

    /// For [`crate::state::mailbox::Outbox`].
    pub fn ship(&self) -> Ship {
        let sender = self.sender.clone();
        Arc::new(move |batch| sender.try_send(batch).is_ok())
    }
}

impl Default for Dock {
    fn default() -> Self {
        Self::new()
    }
}

/// What the outside world is to sinks.
#[derive(Clone)]
pub struct World {
    pub runtime: Handle,
    pub reach: Arc<Reach>,
    /// The socket of the local syslog daemon.
    pub syslog_socket: PathBuf,
    pub node_id: String,
    /// What there are spans of.
    pub instrumented: Instrumented,
}

/// Finds the JSON text of a consumer.
pub type FindConsumer = Box<dyn Fn() -> Box<dyn Fn(Uuid) -> Option<Arc<str>>> + Send>;

/// The running shipper.
pub struct Shipper {
    sender: SyncSender<Vec<u8>>,
    thread: JoinHandle<()>,
    outlets: Outlets,
}

impl Shipper {
    /// Starts the thread. `consumers` gives, for each batch, a way to find consumers.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start(
        dock: Dock,
        registry: Registry,
        world: World,
        node: NodeFacts,
        consumers: FindConsumer,
    ) -> io::Result<Self> {
        let outlets = Outlets::default();
        let mut work = Work {
            registry,
            outlets: outlets.clone(),
            world,
            node,
            consumers,
            entities: Entities::default(),
            of_plugins: AHashMap::new(),
        };
        let Dock { sender, arriving } = dock;
        let thread = std::thread::Builder::new().name("ringway-ship".into()).spawn(move || work.run(&arriving))?;
        Ok(Self { sender, thread, outlets })
    }

    /// What plugins lost so far, by plugin and instance.
    pub fn losses(&self) -> Vec<(&'static str, String, u64)> {
        self.outlets.losses()
    }

    /// Offers what was handed over to its destinations, for as long as `patience`.
    pub fn finish(self, patience: Duration) {
        // An empty batch is the last; the thread may be behind.
        let _ = self.sender.send(Vec::new());
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(limits::SHIP_CLOSE_LOOK_MS));
        }
        self.outlets.close();
        while !self.outlets.are_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(limits::SHIP_CLOSE_LOOK_MS));
        }
    }
}

/// What the thread works with.
struct Work {
    registry: Registry,
    outlets: Outlets,
    world: World,
    node: NodeFacts,
    consumers: FindConsumer,
    entities: Entities,
    of_plugins: AHashMap<Uuid, (Arc<Instance>, Arc<Outlet>)>,
}

impl Work {
    fn run(&mut self, arriving: &Receiver<Vec<u8>>) {
        let idle = Duration::from_millis(limits::SHIP_SWEEP_MS);
        let mut swept = Instant::now();
        loop {
            match arriving.recv_timeout(idle) {
                Ok(batch) if batch.is_empty() => return,
                Ok(batch) => self.take(&batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= idle {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    fn take(&mut self, batch: &[u8]) {
        let consumer = (self.consumers)();
        let mut rest = batch;
        while let Some(record) = FullRecord::next(&mut rest) {
            // A record that no sink can make sense of must not end the thread that serves all sinks.
            let taken = std::panic::catch_unwind(AssertUnwindSafe(|| self.ship(&record, &*consumer)));
            if taken.is_err() {
                tracing::error!("a record could not be shipped");
            }
        }
    }

    fn ship(&mut self, record: &FullRecord<'_>, consumer: &dyn Fn(Uuid) -> Option<Arc<str>>) {
        let outlets: Vec<_> =
            record.shipments.iter().filter_map(|shipment| Some((shipment, self.outlet(shipment.plugin)?))).collect();
        let seen = Seen::new(record, &mut self.entities, consumer, &self.node);
        for (shipment, outlet) in outlets {
            outlet.take(&seen, shipment);
        }
    }

    /// The outlet of a plugin configuration, made or changed as the configuration is now.
    fn outlet(&mut self, plugin: Uuid) -> Option<Arc<Outlet>> {
        let instance = self.registry.get(plugin)?;
        if let Some((known, outlet)) = self.of_plugins.get(&plugin)
            && Arc::ptr_eq(known, &instance)
        {
            return Some(outlet.clone());
        }
        let outlet = self.outlets.open(&instance, &self.world)?;
        self.of_plugins.insert(plugin, (instance, outlet.clone()));
        Some(outlet)
    }

    /// Lets go of what belongs to configurations that are no more.
    fn sweep(&mut self) {
        self.registry.sweep();
        self.of_plugins.retain(|id, _| self.registry.get(*id).is_some());
        self.outlets.sweep();
    }
}
