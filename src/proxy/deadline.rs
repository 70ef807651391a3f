//! HOT: arming and clearing a deadline is one store.
//! What must have happened by when, for every open socket of one core.
//! Owns: the table of deadlines. Never: cancels an operation. A socket whose time is up is shut down, so that the pending
//! operation completes by itself and gives its buffer back; the waiting code then asks [`Deadline::is_over`] why.
//! Always: a fired deadline stays fired until it is armed again.

use std::cell::Cell;
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

use super::io::shutdown;

const NEVER: u64 = u64::MAX;
const FIRED: u64 = 0;

struct Entry {
    at_ms: Cell<u64>,
    fd: RawFd,
    /// Which directions end.
    how: Cell<libc::c_int>,
    idle: Cell<bool>,
    /// When who waits for the socket is to be told that it has been quiet for long; `NEVER`: it need not be.
    quiet_at_ms: Cell<u64>,
    waiting: Cell<Option<Waker>>,
}

/// The deadlines of one core, looked through some times a second by [`Deadlines::sweep`].
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<Slab<Rc<Entry>>>,
}

impl Deadlines {
    /// A deadline for the socket, not armed yet. It must be dropped before the socket is closed.
    pub fn watch(self: &Rc<Self>, fd: RawFd) -> Deadline {
        let entry = Rc::new(Entry {
            at_ms: Cell::new(NEVER),
            fd,
            how: Cell::new(libc::SHUT_RDWR),
            idle: Cell::new(false),
            quiet_at_ms: Cell::new(NEVER),
            waiting: Cell::new(None),
        });
        let key = self.entries.borrow_mut().insert(entry.clone());
        Deadline { table: self.clone(), entry, key }
    }

    /// Shuts down every socket whose time is up. Answers how many were.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let mut fired = 0;
        for (_, entry) in self.entries.borrow().iter() {
            let at = entry.at_ms.get();
            if at != FIRED && at <= now_ms {
                entry.at_ms.set(FIRED);
                shutdown(entry.fd, entry.how.get());
                fired += 1;
            }
            if entry.quiet_at_ms.get() <= now_ms {
                entry.waiting.take().into_iter().for_each(Waker::wake);
            }
        }
        fired
    }

    /// Ends the reading side of every idle socket: its owner sees the end of the stream and closes it regularly.
    pub fn end_idle(&self) {
        for (_, entry) in self.entries.borrow().iter().filter(|(_, entry)| entry.idle.get()) {
            shutdown(entry.fd, libc::SHUT_RD);
        }
    }

    /// Ends every socket: whoever waits for one is told so.
    pub fn end_all(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            entry.at_ms.set(FIRED);
            shutdown(entry.fd, libc::SHUT_RDWR);
        }
    }

    /// Sockets watched now.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether no socket is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The deadline of one socket.
pub struct Deadline {
    table: Rc<Deadlines>,
    /// The table's, at hand: it is touched a dozen times per request.
    entry: Rc<Entry>,
    key: usize,
}

impl Deadline {
    fn set(&self, at_ms: u64, how: libc::c_int) {
        self.entry.at_ms.set(at_ms);
        self.entry.how.set(how);
    }

    /// The socket is shut down once the core's clock passes `at_ms` (never before, at most one sweep later).
    pub fn arm(&self, at_ms: u64) {
        self.set(at_ms.max(FIRED + 1), libc::SHUT_RDWR);
    }

    /// As [`Deadline::arm`], but only reading ends: an answer can still be written.
    pub fn arm_reading(&self, at_ms: u64) {
        self.set(at_ms.max(FIRED + 1), libc::SHUT_RD);
    }

    /// Says whether the socket waits for a request, so that [`Deadlines::end_idle`] may end it.
    pub fn set_idle(&self, idle: bool) {
        self.entry.idle.set(idle);
    }

    /// Asks to be woken at the first sweep from `at_ms` on, once.
    pub fn watch_quiet(&self, at_ms: u64, waker: &Waker) {
        self.entry.quiet_at_ms.set(at_ms);
        let waiting = self.entry.waiting.take().filter(|known| known.will_wake(waker));
        self.entry.waiting.set(Some(waiting.unwrap_or_else(|| waker.clone())));
    }

    /// Nobody wants to be woken any more.
    pub fn forget_quiet(&self) {
        self.entry.quiet_at_ms.set(NEVER);
        self.entry.waiting.set(None);
    }

    /// Nothing is awaited now. A deadline that has fired stays so.
    pub fn clear(&self) {
        if !self.is_over() {
            self.set(NEVER, libc::SHUT_RDWR);
        }
    }

    /// Whether the time ran out and the socket was shut down.
    pub fn is_over(&self) -> bool {
        self.entry.at_ms.get() == FIRED
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.table.entries.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_read_ends_when_its_time_is_up_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _server = listener.accept().unwrap();
        let table = Rc::new(Deadlines::default());
        let deadline = table.watch(client.as_raw_fd());
        deadline.arm(100);
        assert_eq!(table.sweep(99), 0);
        assert_eq!(table.sweep(100), 1);
        assert!(deadline.is_over());
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the pending read completes");
        assert_eq!(table.sweep(200), 0, "it fires once");
        deadline.clear();
        assert!(deadline.is_over(), "and stays fired");
    }

    #[test]
    fn a_reading_deadline_leaves_writing_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let table = Rc::new(Deadlines::default());
        let deadline = table.watch(client.as_raw_fd());
        deadline.arm_reading(1);
        table.sweep(1);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        std::io::Write::write_all(&mut client, b"late").unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"late");
    }

    #[test]
    fn only_idle_sockets_are_ended_for_a_drain() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut idle = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let busy = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let table = Rc::new(Deadlines::default());
        let (of_idle, _of_busy) = (table.watch(idle.as_raw_fd()), table.watch(busy.as_raw_fd()));
        of_idle.set_idle(true);
        table.end_idle();
        assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0);
        busy.set_nonblocking(true).unwrap();
        assert_eq!((&busy).read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_cleared_or_dropped_deadline_never_fires() {
        let table = Rc::new(Deadlines::default());
        let deadline = table.watch(-1);
        deadline.arm(5);
        deadline.clear();
        assert_eq!(table.sweep(1_000_000), 0);
        drop(deadline);
        assert!(table.is_empty());
    }
}
