//! HOT: arming and clearing a deadline is one store.
//! What must have happened by when, for every open socket of one core.
//! Owns: the table of deadlines. Never: cancels an operation. A socket whose time is up is shut down, so that the pending
//! operation completes by itself and gives its buffer back; the waiting code then asks [`Deadline::is_over`] why.
//! Always: a fired deadline stays fired until it is armed again.

use std::cell::Cell;
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use slab::Slab;

use super::io::shutdown;

const NEVER: u64 = u64::MAX;
const FIRED: u64 = 0;

struct Entry {
    at_ms: Cell<u64>,
    fd: RawFd,
}

/// The deadlines of one core, looked through some times a second by [`Deadlines::sweep`].
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<Slab<Entry>>,
}

impl Deadlines {
    /// A deadline for the socket, not armed yet. It must be dropped before the socket is closed.
    pub fn watch(self: &Rc<Self>, fd: RawFd) -> Deadline {
        let key = self.entries.borrow_mut().insert(Entry { at_ms: Cell::new(NEVER), fd });
        Deadline { table: self.clone(), key }
    }

    /// Shuts down every socket whose time is up. Answers how many were.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let mut fired = 0;
        for (_, entry) in self.entries.borrow().iter() {
            let at = entry.at_ms.get();
            if at != FIRED && at <= now_ms {
                entry.at_ms.set(FIRED);
                shutdown(entry.fd, libc::SHUT_RDWR);
                fired += 1;
            }
        }
        fired
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
    key: usize,
}

impl Deadline {
    fn set(&self, at_ms: u64) {
        if let Some(entry) = self.table.entries.borrow().get(self.key) {
            entry.at_ms.set(at_ms);
        }
    }

    /// The socket is shut down once the core's clock passes `at_ms` (never before, at most one sweep later).
    pub fn arm(&self, at_ms: u64) {
        self.set(at_ms.max(FIRED + 1));
    }

    /// Nothing is awaited now. A deadline that has fired stays so.
    pub fn clear(&self) {
        if !self.is_over() {
            self.set(NEVER);
        }
    }

    /// Whether the time ran out and the socket was shut down.
    pub fn is_over(&self) -> bool {
        self.table.entries.borrow().get(self.key).is_some_and(|e| e.at_ms.get() == FIRED)
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
