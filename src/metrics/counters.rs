//! HOT: one relaxed add on a line that no other core writes.
//! The cells of one core. The control plane reads and sums them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::metrics::series::Published;

/// One core's counters, alone on their cache lines.
#[derive(Default)]
#[repr(align(128))]
pub struct CoreCounters {
    /// Configuration version that the core serves.
    pub version: Counter,
    /// Client connections accepted, and those of them that were handed to another core.
    pub accepted: Counter,
    pub handed_over: Counter,
    /// Client connections open now.
    pub active: Counter,
    /// Client connections that wait for a request now.
    pub waiting: Counter,
    /// Client connections that have no task now because nothing comes on them.
    pub parked: Counter,
    /// Requests read.
    pub requests: Counter,
    /// Connections opened to upstreams.
    pub dialled: Counter,
    /// Tries repeated on another peer or another connection.
    pub retries: Counter,
    /// Request bodies streamed although their route buffers, because no file took them.
    pub bodies_not_spooled: Counter,
    /// Finished-request records dropped because the log writer was behind.
    pub records_dropped: Counter,
    /// Full records dropped because the control plane was behind; in batches.
    pub full_batches_dropped: Counter,
    /// Questions of plugins put to the control plane, and those that nobody answered in time.
    pub questions: Counter,
    pub questions_unanswered: Counter,
    /// Requests answered 500 because their handling panicked.
    pub panics: Counter,
    /// What prometheus counts by route.
    pub series: Published,
}

/// A number that one core writes and anybody reads.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Not a read-modify-write on the bus: only the owning core writes.
    pub fn add(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Adds so many, as [`Counter::add`].
    pub fn add_many(&self, many: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(many), Ordering::Relaxed);
    }

    /// Takes one off.
    pub fn sub(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Replaces the value; what was written before by this core is visible to who reads the new value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
