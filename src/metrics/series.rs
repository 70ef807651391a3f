//! HOT: a known series costs a hash lookup and a few relaxed adds; a new one allocates once.
//! What prometheus counts of routes, services and consumers: the cells of one core, and how they are read.
//! Owns: how many series a core may have. Never: knows a name; waits for a reader, who holds the list for as long as it
//! takes to copy it, while the core keeps what is new to itself.
//! Always: only the owning core writes a cell, and a figure that anybody could read stays until its entities are deleted.

use std::cell::Cell;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use uuid::Uuid;

use crate::limits;
use crate::metrics::counters::CoreCounters;
use crate::metrics::counters::Counter;

/// Upper bounds in milliseconds of the buckets for the time that the gateway takes (spec/plugins.md G.3, A).
pub const GATEWAY_BOUNDS_MS: [u64; 17] = [1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000];
/// Upper bounds in milliseconds of the buckets for what upstreams and whole requests take (spec/plugins.md G.3, B).
pub const REQUEST_BOUNDS_MS: [u64; 13] = [25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000];

/// Whose figures they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Of {
    pub route: Uuid,
    pub service: Option<Uuid>,
    /// `None`: consumers are not told apart, or nobody was authenticated.
    pub consumer: Option<Uuid>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Requests { status: u16, from_upstream: bool },
    Bandwidth,
    Latencies,
}

/// Some figures of one route, on cache lines of their own.
#[repr(align(128))]
pub struct Series {
    pub of: Of,
    pub figures: Figures,
    /// Set by the reader when something of `of` no longer exists.
    gone: AtomicBool,
}

/// The cells of a series.
pub enum Figures {
    Requests {
        status: u16,
        from_upstream: bool,
        count: Counter,
    },
    /// Bytes.
    Bandwidth {
        received: Counter,
        sent: Counter,
    },
    Latencies(Box<Latencies>),
}

/// Times of requests.
#[derive(Default)]
#[repr(align(128))]
pub struct Latencies {
    pub gateway: Histogram<17>,
    pub upstream: Histogram<13>,
    pub request: Histogram<13>,
}

/// Times by bucket; those above the last bound have no cell but `beyond`. The count of all is their sum, so that it never
/// differs from what the buckets tell.
pub struct Histogram<const N: usize> {
    pub within: [Counter; N],
    pub beyond: Counter,
    pub sum_us: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            within: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum_us: Counter::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, bounds_ms: &[u64; N], us: u64) {
        let at = bounds_ms.iter().position(|bound_ms| us <= bound_ms * 1000);
        at.map_or(&self.beyond, |at| &self.within[at]).add();
        self.sum_us.add_many(us);
    }
}

/// What the reader sees of one core.
#[derive(Default)]
pub struct Published {
    list: Mutex<Vec<Arc<Series>>>,
    /// Whether some series are marked as gone.
    some_gone: AtomicBool,
    /// Figures that were not counted, as their series would have been one too many.
    pub not_counted: Counter,
}

impl Published {
    /// The series of the core, as of now.
    pub fn series(&self) -> Vec<Arc<Series>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Has the core let go of a series whose route, service or consumer was deleted.
    pub fn forget(&self, series: &Series) {
        series.gone.store(true, Ordering::Relaxed);
        self.some_gone.store(true, Ordering::Release);
    }
}

/// The owner's side.
#[derive(Default)]
pub struct CoreSeries {
    known: RefCell<AHashMap<(Of, What), Arc<Series>>>,
    /// What the reader's list lacks.
    fresh: RefCell<Vec<Arc<Series>>>,
    /// Whether the reader's list has too many.
    stale: Cell<bool>,
    counters: Arc<CoreCounters>,
}

impl CoreSeries {
    /// The series of the core that these counters are of.
    pub fn new(counters: Arc<CoreCounters>) -> Self {
        Self { known: RefCell::default(), fresh: RefCell::default(), stale: Cell::new(false), counters }
    }

    /// Counts a response.
    pub fn count_request(&self, of: Of, status: u16, from_upstream: bool) {
        let make = || Figures::Requests { status, from_upstream, count: Counter::default() };
        self.with(of, What::Requests { status, from_upstream }, make, |figures| {
            if let Figures::Requests { count, .. } = figures {
                count.add();
            }
        });
    }

    /// Adds the bytes of a request and its response.
    pub fn count_bytes(&self, of: Of, received_bytes: u64, sent_bytes: u64) {
        let make = || Figures::Bandwidth { received: Counter::default(), sent: Counter::default() };
        self.with(of, What::Bandwidth, make, |figures| {
            if let Figures::Bandwidth { received, sent } = figures {
                received.add_many(received_bytes);
                sent.add_many(sent_bytes);
            }
        });
    }

    /// Notes how long things took; `upstream_us` is `None` if no upstream answered.
    pub fn observe(&self, of: Of, gateway_us: u64, upstream_us: Option<u64>, total_us: u64) {
        self.with(
            of,
            What::Latencies,
            || Figures::Latencies(Box::default()),
            |figures| {
                if let Figures::Latencies(latencies) = figures {
                    latencies.gateway.observe(&GATEWAY_BOUNDS_MS, gateway_us);
                    latencies.request.observe(&REQUEST_BOUNDS_MS, total_us);
                    if let Some(us) = upstream_us {
                        latencies.upstream.observe(&REQUEST_BOUNDS_MS, us);
                    }
                }
            },
        );
    }

    fn with(&self, of: Of, what: What, make: impl FnOnce() -> Figures, count: impl FnOnce(&Figures)) {
        let mut known = self.known.borrow_mut();
        if let Some(series) = known.get(&(of, what)) {
            return count(&series.figures);
        }
        if known.len() >= limits::METRIC_SERIES_PER_CORE_MAX {
            return self.counters.series.not_counted.add();
        }
        let series = Arc::new(Series { of, figures: make(), gone: AtomicBool::new(false) });
        count(&series.figures);
        known.insert((of, what), series.clone());
        drop(known);
        self.fresh.borrow_mut().push(series);
        // At once: the next scrape tells it, and the list grows while a series is made, not on some later request.
        self.publish();
    }

    /// Shows new series to the reader, unless it is reading, and drops those that it marked. Called with each new series and
    /// some times a second.
    pub fn publish(&self) {
        let published = &self.counters.series;
        if published.some_gone.swap(false, Ordering::Acquire) {
            self.known.borrow_mut().retain(|_, series| !series.gone.load(Ordering::Relaxed));
            self.stale.set(true);
        }
        let mut fresh = self.fresh.borrow_mut();
        if fresh.is_empty() && !self.stale.get() {
            return;
        }
        let mut list = match published.list.try_lock() {
            Ok(list) => list,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        list.append(&mut fresh);
        if self.stale.take() {
            list.clear();
            list.extend(self.known.borrow().values().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(route: u128) -> Of {
        Of { route: Uuid::from_u128(route), service: None, consumer: None }
    }

    fn core() -> (Arc<CoreCounters>, CoreSeries) {
        let counters = Arc::new(CoreCounters::default());
        (counters.clone(), CoreSeries::new(counters))
    }

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let (counters, series) = core();
        for us in [0, 1000, 1001, 6_000_000, 6_000_001] {
            series.observe(of(1), us, None, us);
        }
        series.publish();
        let list = counters.series.series();
        let Figures::Latencies(latencies) = &list[0].figures else { panic!("latencies were observed") };
        let counts: Vec<u64> = latencies.gateway.within.iter().map(Counter::get).collect();
        assert_eq!((counts[0], counts[1], counts[16], latencies.gateway.beyond.get()), (2, 1, 1, 1));
        assert_eq!(latencies.gateway.sum_us.get(), 12_002_002);
        assert!(latencies.upstream.within.iter().all(|count| count.get() == 0));
    }

    #[test]
    fn a_reader_who_holds_the_list_delays_news_and_nothing_else() {
        let (counters, series) = core();
        let held = counters.series.list.lock().expect("nobody else holds it");
        series.count_request(of(1), 200, true);
        series.publish();
        assert!(held.is_empty());
        drop(held);
        series.count_request(of(1), 200, true);
        series.publish();
        let list = counters.series.series();
        assert!(matches!(&list[0].figures, Figures::Requests { count, .. } if count.get() == 2));
    }

    #[test]
    fn series_are_bounded_and_what_is_not_counted_is_told() {
        let (counters, series) = core();
        for route in 0..limits::METRIC_SERIES_PER_CORE_MAX as u128 + 3 {
            series.count_bytes(of(route), 1, 1);
        }
        series.publish();
        assert_eq!(counters.series.series().len(), limits::METRIC_SERIES_PER_CORE_MAX);
        assert_eq!(counters.series.not_counted.get(), 3);
    }

    #[test]
    fn forgotten_series_make_room() {
        let (counters, series) = core();
        series.count_bytes(of(1), 1, 1);
        series.count_bytes(of(2), 1, 1);
        series.publish();
        let list = counters.series.series();
        let first = list.iter().find(|series| series.of == of(1)).expect("it was published");
        counters.series.forget(first);
        series.publish();
        assert!(counters.series.series().iter().map(|series| series.of).eq([of(2)]));
        assert_eq!(series.known.borrow().len(), 1);
    }
}
