//! One queue and the task that sends what is in it (spec/plugins.md F.1).
//! Owns: when a batch is complete, when it is tried again, what the operator is told. Never: knows what an entry means.
//! Always: trouble is told once, and so is its end; a new configuration holds from the next try on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::control::ship::line::Line;
use crate::control::ship::line::Pushed;
use crate::control::ship::line::Refusal;
use crate::limits;
use crate::plugins::queue::QueueRules;

/// What a delivery comes to; the error is for the log.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// The way to one destination.
pub trait Deliver: Send + Sync {
    /// Sends a batch, never empty. An error means that nothing is known to have arrived.
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a>;
}

/// A queue; its task ends when this is dropped and what waits was sent or given up.
pub struct Queue(Arc<Shared>);

struct Shared {
    /// For the log: plugin and id.
    name: String,
    line: Mutex<Line>,
    current: Mutex<(QueueRules, Arc<dyn Deliver>)>,
    /// Rung at every new entry, new configuration and at the end.
    changed: Notify,
    /// Nothing follows; a batch that fails now is given up.
    closing: AtomicBool,
    mood: Mutex<Mood>,
}

/// What the operator was told last.
#[derive(Default)]
struct Mood {
    failing: bool,
    losing: bool,
    nearly_full: bool,
    lost_before: u64,
}

impl Queue {
    /// A queue and its task on the runtime.
    pub fn start(name: String, rules: QueueRules, deliver: Arc<dyn Deliver>, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            name,
            line: Mutex::default(),
            current: Mutex::new((rules, deliver)),
            changed: Notify::new(),
            closing: AtomicBool::new(false),
            mood: Mutex::default(),
        });
        runtime.spawn(run(shared.clone()));
        Self(shared)
    }

    /// Takes a new configuration; what waits goes the new way.
    pub fn configure(&self, rules: QueueRules, deliver: Arc<dyn Deliver>) {
        *lock(&self.0.current) = (rules, deliver);
        self.0.changed.notify_one();
    }

    /// Adds an entry.
    pub fn push(&self, entry: Bytes) {
        let rules = lock(&self.0.current).0;
        let (pushed, waiting) = {
            let mut line = lock(&self.0.line);
            (line.push(entry, &rules), line.len())
        };
        self.0.changed.notify_one();
        if pushed != Pushed::Kept {
            self.0.tell_of_loss(match pushed {
                Pushed::Refused(Refusal::TooLarge) => "an entry is larger than the whole queue may be",
                _ => "the queue is full",
            });
        } else if waiting * 5 >= rules.entries_max * 4 {
            self.0.tell_of_fullness(waiting, rules.entries_max);
        }
    }

    /// Entries dropped since start.
    pub fn dropped(&self) -> u64 {
        lock(&self.0.line).dropped()
    }

    /// Whether nothing waits or is under way.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.line).len() == 0
    }

    /// Nothing follows: what waits is sent at once, and once.
    pub fn close(&self) {
        self.0.closing.store(true, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn current(&self) -> (QueueRules, Arc<dyn Deliver>) {
        lock(&self.current).clone()
    }

    fn tell_of_loss(&self, why: &str) {
        let mut mood = lock(&self.mood);
        if !std::mem::replace(&mut mood.losing, true) {
            tracing::error!("{}: {why}; entries are dropped", self.name);
        }
    }

    fn tell_of_fullness(&self, waiting: usize, entries_max: usize) {
        let mut mood = lock(&self.mood);
        if !std::mem::replace(&mut mood.nearly_full, true) {
            tracing::warn!("{}: {waiting} entries wait, {entries_max} may", self.name);
        }
    }

    fn tell_of_failure(&self, error: &str) {
        let mut mood = lock(&self.mood);
        if !std::mem::replace(&mut mood.failing, true) {
            tracing::warn!("{}: cannot send: {error}", self.name);
        }
    }

    /// A batch has arrived.
    fn tell_of_success(&self) {
        let dropped = lock(&self.line).dropped();
        let mut mood = lock(&self.mood);
        let lost = dropped - mood.lost_before;
        if mood.failing || mood.losing {
            tracing::info!("{}: sends again; {lost} entries were lost", self.name);
        }
        *mood = Mood { lost_before: dropped, ..Mood::default() };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn run(shared: Arc<Shared>) {
    let alone = Arc::new(Semaphore::new(limits::SHIP_SENDS_MAX));
    loop {
        let rules = shared.current().0;
        if lock(&shared.line).waiting() == 0 {
            if shared.is_closing() {
                return;
            }
            shared.changed.notified().await;
            continue;
        }
        if rules.each_alone {
            let Ok(permit) = alone.clone().acquire_owned().await else { return };
            let (shared, batch) = (shared.clone(), lock(&shared.line).take(&rules));
            tokio::spawn(async move {
                send(&shared, batch).await;
                drop(permit);
            });
            continue;
        }
        fill(&shared, &rules).await;
        let batch = lock(&shared.line).take(&rules);
        send(&shared, batch).await;
    }
}

/// Waits until a batch is complete, or the first entry has waited long enough.
async fn fill(shared: &Shared, rules: &QueueRules) {
    let until = Instant::now() + rules.coalescing;
    while rules.batch_max > 1 && lock(&shared.line).waiting() < rules.batch_max && !shared.is_closing() {
        if tokio::time::timeout_at(until, shared.changed.notified()).await.is_err() {
            return;
        }
    }
}

/// Sends a batch until it has arrived or is given up.
async fn send(shared: &Shared, batch: Vec<Bytes>) {
    if batch.is_empty() {
        return;
    }
    let begun = Instant::now();
    let mut failures = 0;
    loop {
        let deliver = shared.current().1;
        let Err(error) = deliver.deliver(&batch).await else {
            lock(&shared.line).done(batch.len());
            return shared.tell_of_success();
        };
        failures += 1;
        shared.tell_of_failure(&error);
        let rules = shared.current().0;
        if shared.is_closing() || rules.retry_for.is_none_or(|retry_for| begun.elapsed() > retry_for) {
            lock(&shared.line).lost(batch.len());
            return shared.tell_of_loss("a batch was given up");
        }
        pause(shared, rules.retry_after(failures)).await;
    }
}

/// Sleeps, but not longer than until the queue is closed.
async fn pause(shared: &Shared, how_long: Duration) {
    let until = Instant::now() + how_long;
    while !shared.is_closing() {
        let step = until.min(Instant::now() + Duration::from_millis(limits::SHIP_CLOSE_LOOK_MS));
        tokio::time::sleep_until(step).await;
        if step == until {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// Answers as told, and tells of every batch.
    struct Script {
        answers: Mutex<Vec<Result<(), String>>>,
        batches: mpsc::UnboundedSender<Vec<Bytes>>,
    }

    impl Deliver for Script {
        fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
            let answer = lock(&self.answers).pop().unwrap_or(Ok(()));
            let _ = self.batches.send(batch.to_vec());
            Box::pin(std::future::ready(answer))
        }
    }

    fn script(answers: Vec<Result<(), String>>) -> (Arc<Script>, mpsc::UnboundedReceiver<Vec<Bytes>>) {
        let (batches, arriving) = mpsc::unbounded_channel();
        (Arc::new(Script { answers: Mutex::new(answers), batches }), arriving)
    }

    fn rules(batch_max: usize) -> QueueRules {
        QueueRules {
            coalescing: Duration::from_secs(1),
            retry_for: Some(Duration::from_secs(60)),
            first_retry_after: Duration::from_millis(1),
            retry_after_max: Duration::from_secs(1),
            ..QueueRules::plain(batch_max)
        }
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn queue(rules: QueueRules, deliver: Arc<Script>) -> Queue {
        Queue::start("test".to_owned(), rules, deliver, &Handle::current())
    }

    #[tokio::test]
    async fn a_full_batch_goes_at_once() {
        let (deliver, mut batches) = script(Vec::new());
        let waits_long = QueueRules { coalescing: Duration::from_secs(3000), ..rules(2) };
        let queue = queue(waits_long, deliver);
        for text in ["a", "b", "c", "d"] {
            queue.push(bytes(text));
        }
        assert_eq!(batches.recv().await, Some(vec![bytes("a"), bytes("b")]));
        assert_eq!(batches.recv().await, Some(vec![bytes("c"), bytes("d")]));
    }

    #[tokio::test]
    async fn a_batch_that_fails_is_sent_again_as_it_was() {
        let (deliver, mut batches) = script(vec![Ok(()), Err("no".to_owned()), Err("no".to_owned())]);
        let queue = queue(rules(1), deliver);
        queue.push(bytes("a"));
        queue.push(bytes("b"));
        for want in ["a", "a", "a", "b"] {
            assert_eq!(batches.recv().await, Some(vec![bytes(want)]));
        }
        assert_eq!(queue.dropped(), 0);
    }

    #[tokio::test]
    async fn without_retries_a_failed_batch_is_dropped_and_counted() {
        let (deliver, mut batches) = script(vec![Err("no".to_owned())]);
        let queue = queue(QueueRules::plain(1), deliver);
        queue.push(bytes("a"));
        queue.push(bytes("b"));
        assert_eq!(batches.recv().await, Some(vec![bytes("a")]));
        assert_eq!(batches.recv().await, Some(vec![bytes("b")]));
        assert_eq!(queue.dropped(), 1);
    }

    #[tokio::test]
    async fn what_waits_goes_the_way_of_a_new_configuration() {
        let (bad, mut at_bad) = script(vec![Err("no".to_owned()); 1000]);
        let (good, mut at_good) = script(Vec::new());
        let queue = queue(rules(1), bad);
        queue.push(bytes("a"));
        assert!(at_bad.recv().await.is_some());
        queue.configure(rules(1), good);
        assert_eq!(at_good.recv().await, Some(vec![bytes("a")]));
    }

    #[tokio::test]
    async fn a_queue_that_is_dropped_sends_what_waits() {
        let (deliver, mut batches) = script(Vec::new());
        let queue = queue(QueueRules { coalescing: Duration::from_secs(3000), ..rules(10) }, deliver);
        queue.push(bytes("a"));
        drop(queue);
        assert_eq!(batches.recv().await, Some(vec![bytes("a")]));
        assert_eq!(batches.recv().await, None, "the task has ended");
    }
}
