//! From a plugin configuration to the queue that its records go into, and what one record becomes for it.
//! Owns: which configurations share a queue. Always: a configuration that is edited keeps its queue and what waits in it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use hyper::body::Bytes;
use uuid::Uuid;

use crate::control::ship::World;
use crate::control::ship::datadog;
use crate::control::ship::file;
use crate::control::ship::http_log;
use crate::control::ship::loggly;
use crate::control::ship::moesif;
use crate::control::ship::opentelemetry;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Queue;
use crate::control::ship::seen::Seen;
use crate::control::ship::statsd;
use crate::control::ship::syslog;
use crate::control::ship::tcp;
use crate::control::ship::udp;
use crate::control::ship::zipkin;
use crate::metrics::full_record::Shipment;
use crate::plugins::Instance;
use crate::plugins::PLUGINS;
use crate::plugins::http_log::HttpLog;
use crate::plugins::queue::QueueRules;
use crate::plugins::shipping::Shipping;

/// What a record becomes for a destination; `None`: nothing of it is sent.
pub type Format = Box<dyn Fn(&Seen<'_>, &Shipment<'_>) -> Option<Bytes> + Send + Sync>;

/// How a kind of destination is served.
pub struct Way {
    pub rules: QueueRules,
    pub deliver: Arc<dyn Deliver>,
    pub format: Format,
}

/// The queue of one plugin configuration and what it puts there.
pub struct Outlet {
    queue: Arc<Queue>,
    format: Format,
}

impl Outlet {
    /// Puts a record into the queue.
    pub fn take(&self, seen: &Seen<'_>, shipment: &Shipment<'_>) {
        if let Some(entry) = (self.format)(seen, shipment) {
            self.queue.push(entry);
        }
    }
}

/// All queues that are open.
#[derive(Clone, Default)]
pub struct Outlets(Arc<Mutex<Vec<Open>>>);

struct Open {
    kind: &'static str,
    /// The configuration that opened it.
    plugin: Uuid,
    sharing: Sharing,
    queue: Arc<Queue>,
}

/// What another configuration must have to use the same queue.
enum Sharing {
    SamePlugin,
    SameServer(Box<HttpLog>),
}

impl Outlets {
    /// The outlet of a configuration: a new queue, or the one that it has or shares, going the new way.
    pub fn open(&self, instance: &Instance, world: &World) -> Option<Arc<Outlet>> {
        let shipping = instance.plugin.ships()?;
        let Way { rules, deliver, format } = way(shipping, world);
        let mut open = self.lock();
        let shared = open.iter().find(|open| match (&open.sharing, shipping) {
            (Sharing::SameServer(other), Shipping::Http(config)) => config.shares_queue_with(other),
            _ => open.plugin == instance.id,
        });
        let queue = match shared {
            Some(shared) => {
                shared.queue.configure(rules, deliver);
                shared.queue.clone()
            }
            None => {
                let kind = PLUGINS[usize::from(instance.kind.0)].schema.name;
                let queue = Queue::start(format!("{kind} {}", instance.id), rules, deliver, &world.runtime);
                let sharing = match shipping {
                    Shipping::Http(config) => Sharing::SameServer(Box::new(config.clone())),
                    _ => Sharing::SamePlugin,
                };
                let queue = Arc::new(queue);
                open.push(Open { kind, plugin: instance.id, sharing, queue: queue.clone() });
                queue
            }
        };
        Some(Arc::new(Outlet { queue, format }))
    }

    /// Entries lost so far, by plugin and configuration.
    pub fn losses(&self) -> Vec<(&'static str, String, u64)> {
        self.lock().iter().map(|open| (open.kind, open.plugin.to_string(), open.queue.dropped())).collect()
    }

    /// Lets go of queues that no configuration uses; they end when they are empty.
    pub fn sweep(&self) {
        self.lock().retain(|open| Arc::strong_count(&open.queue) > 1);
    }

    /// Nothing follows for any of them.
    pub fn close(&self) {
        self.lock().iter().for_each(|open| open.queue.close());
    }

    /// Whether nothing waits anywhere.
    pub fn are_empty(&self) -> bool {
        self.lock().iter().all(|open| open.queue.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn way(shipping: &Shipping, world: &World) -> Way {
    match shipping {
        Shipping::Datadog(config) => datadog::way(config, world),
        Shipping::File(config) => file::way(config),
        Shipping::Http(config) => http_log::way(config, world),
        Shipping::Loggly(config) => loggly::way(config, world),
        Shipping::OpenTelemetry(config) => opentelemetry::way(config, world),
        Shipping::Moesif(config) => moesif::way(config, world),
        Shipping::Statsd(config) => statsd::way(config, world),
        Shipping::Syslog(config) => syslog::way(config, world),
        Shipping::Tcp(config) => tcp::way(config, world),
        Shipping::Udp(config) => udp::way(config, world),
        Shipping::Zipkin(config) => zipkin::way(config, world),
    }
}

/// The log record as it is.
pub fn as_json() -> Format {
    Box::new(|seen, _| Some(seen.json()))
}
