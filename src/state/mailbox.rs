//! The queues between the planes.
//! Owns: one mailbox per core (a queue and a doorbell that the core's ring waits on) and the way back.
//! Never: waited on by a core: it takes what is there when the bell has rung.
//! Always: a core sees posts in the order in which they were sent.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use crate::config::Settings;
use crate::limits;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::view::ConnFacts;
use crate::state::core::CoreState;
use crate::state::delta::Delta;
use crate::state::delta::PeersUpdate;

/// What the control plane tells a core.
#[derive(Clone)]
pub enum Post {
    /// Apply, then acknowledge the version.
    Apply(Arc<Delta>),
    /// Names resolve differently now; nothing to acknowledge.
    Peers(Arc<Vec<PeersUpdate>>),
    /// Requests no longer go to this address: its health checks failed.
    Ejected(SocketAddr),
    /// Let this look at the state and the settings in force, between two requests; it must be quick.
    Show(Look),
    /// Settings that a reload may change.
    Settings(Arc<Settings>),
    /// The answer to a question of this core; of no interest any more if nobody waits under that ticket.
    Answer(Ticket, Answer),
    /// Accept nothing more, finish what is under way, then end.
    Drain,
    /// End at once.
    Stop,
}

/// A question of the control plane; it answers by itself.
pub type Look = Arc<dyn Fn(&CoreState, &Settings) + Send + Sync>;

/// Who waits for an answer on a core. Never used twice, so that a late answer reaches nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub place: u32,
    pub serial: u64,
}

/// A question of a plugin on its way to the control plane.
#[derive(Debug)]
pub struct Asked {
    pub core: usize,
    /// Who waits for the answer; `None`: nobody.
    pub ticket: Option<Ticket>,
    pub question: Question,
    /// After that time nobody waits any more.
    pub patience_ms: u64,
}

/// A client's connection, just accepted by one core, on its way to the core that will serve it.
pub struct Handed {
    pub socket: OwnedFd,
    pub facts: ConnFacts,
    /// It begins with the PROXY protocol.
    pub has_preface: bool,
}

/// The other end of one core's mailbox: of the control plane for posts, of other cores for connections.
#[derive(Clone)]
pub struct Sender {
    queue: mpsc::Sender<Post>,
    handed: mpsc::Sender<Handed>,
    bell: Arc<UnixStream>,
}

/// The core's end. The bell is a non-blocking socket that becomes readable when something was posted.
pub struct Mailbox {
    queue: mpsc::Receiver<Post>,
    handed: mpsc::Receiver<Handed>,
    bell: Option<UnixStream>,
}

/// A mailbox and its sender.
pub fn mailbox() -> io::Result<(Sender, Mailbox)> {
    let (queue, inbox) = mpsc::channel();
    let (handed, arriving) = mpsc::channel();
    let (bell, ear) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    ear.set_nonblocking(true)?;
    let mailbox = Mailbox { queue: inbox, handed: arriving, bell: Some(ear) };
    Ok((Sender { queue, handed, bell: Arc::new(bell) }, mailbox))
}

impl Sender {
    /// Posts, then rings. Answers whether the core still lives.
    pub fn post(&self, post: Post) -> bool {
        let lives = self.queue.send(post).is_ok();
        self.ring();
        lives
    }

    /// Hands a connection over, then rings.
    ///
    /// # Errors
    /// The core has ended; here is the connection again.
    pub fn hand(&self, handed: Handed) -> Result<(), Handed> {
        self.handed.send(handed).map_err(|back| back.0)?;
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        // A full socket means that the bell rings already.
        let _ = (&*self.bell).write(&[1]);
    }
}

impl Mailbox {
    /// The socket to wait on; given out once.
    pub fn take_bell(&mut self) -> Option<UnixStream> {
        self.bell.take()
    }

    /// The next post, if there is one.
    pub fn take(&self) -> Option<Post> {
        self.queue.try_recv().ok()
    }

    /// The next connection that another core has handed over, if there is one.
    pub fn take_handed(&self) -> Option<Handed> {
        self.handed.try_recv().ok()
    }
}

/// A core's way back to the control plane.
#[derive(Clone)]
pub struct Outbox {
    /// Called with (core, version) once the version is served.
    pub acknowledge: Arc<dyn Fn(usize, u64) + Send + Sync>,
    records: mpsc::SyncSender<Vec<u8>>,
    /// Takes a question; `false`: too many wait.
    pub ask: Arc<dyn Fn(Asked) -> bool + Send + Sync>,
    /// Takes a batch of [`crate::metrics::full_record`]; `false`: too many wait, it was dropped.
    pub ship: Arc<dyn Fn(Vec<u8>) -> bool + Send + Sync>,
}

/// Where finished-request records arrive, as batches of [`crate::metrics::record`]; an empty one is the last.
pub type Records = mpsc::Receiver<Vec<u8>>;

impl Outbox {
    /// A way back and the end at which records arrive.
    pub fn new(acknowledge: Arc<dyn Fn(usize, u64) + Send + Sync>) -> (Self, Records) {
        let (records, arriving) = mpsc::sync_channel(limits::RECORD_BATCHES_WAITING_MAX);
        (Self { acknowledge, records, ask: Arc::new(|_| false), ship: Arc::new(|_| false) }, arriving)
    }

    /// Where questions go; until then none is taken.
    pub fn asking(mut self, ask: Arc<dyn Fn(Asked) -> bool + Send + Sync>) -> Self {
        self.ask = ask;
        self
    }

    /// Where full records go; until then none is taken.
    pub fn shipping(mut self, ship: Arc<dyn Fn(Vec<u8>) -> bool + Send + Sync>) -> Self {
        self.ship = ship;
        self
    }

    /// Says that no batch follows. Needed because a core that ended may keep its outbox: its runtime frees nothing.
    pub fn end_records(&self) {
        let _ = self.records.send(Vec::new());
    }

    /// Hands over a batch of records, not empty; `false` when the log writer is behind and the batch was dropped.
    pub fn records(&self, batch: Vec<u8>) -> bool {
        self.records.try_send(batch).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_arrive_in_order_and_ring_the_bell() {
        let (sender, mut mailbox) = mailbox().unwrap();
        let mut bell = mailbox.take_bell().unwrap();
        let mut byte = [0u8; 8];
        assert_eq!(io::Read::read(&mut bell, &mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(sender.post(Post::Drain) && sender.post(Post::Stop));
        assert!(io::Read::read(&mut bell, &mut byte).unwrap() > 0);
        assert!(matches!(mailbox.take(), Some(Post::Drain)));
        assert!(matches!(mailbox.take(), Some(Post::Stop)));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn a_bell_that_nobody_hears_never_blocks_the_sender() {
        let (sender, _mailbox) = mailbox().unwrap();
        for _ in 0..100_000 {
            assert!(sender.post(Post::Drain));
        }
    }

    #[test]
    fn a_full_log_queue_drops_instead_of_growing() {
        let (outbox, _records) = Outbox::new(Arc::new(|_, _| {}));
        assert!((0..limits::RECORD_BATCHES_WAITING_MAX).all(|_| outbox.records(Vec::new())));
        assert!(!outbox.records(Vec::new()));
    }
}
