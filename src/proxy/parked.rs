//! HOT where a connection is taken up again; everything else happens when nothing does.
//! Client connections that wait without a task: a descriptor and a few words each, in place of buffers and a future.
//! Owns: their descriptors, in one epoll set whose own descriptor the runtime polls. Never: reads from them, so that
//! nothing is lost; what comes wakes them. Always: each has a deadline, and ends or is given back, once.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use slab::Slab;

use crate::plugins::view::ConnFacts;

/// Events taken from the set by one call.
const EVENTS_MAX: usize = 256;

/// A client connection that waits for a request, or for the rest of a head.
pub struct Resting {
    pub socket: OwnedFd,
    pub facts: ConnFacts,
    /// The client that the preface of the connection named.
    pub preface_ip: Option<IpAddr>,
    /// What was received of a request head; empty between two requests.
    pub begun: Box<[u8]>,
    /// When what is awaited must have come, core clock.
    pub until_ms: u64,
}

/// The parked connections of one core.
pub struct Parked {
    set: OwnedFd,
    entries: RefCell<Slab<Resting>>,
    /// No entry is due before.
    next_due_ms: Cell<u64>,
}

impl Parked {
    /// An empty set.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // Safety: a plain system call; the descriptor is new and owned by nobody else.
        let set = unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Self { set, entries: RefCell::default(), next_due_ms: Cell::new(u64::MAX) })
    }

    /// Another descriptor of the set: readable while a parked connection is.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn doorbell(&self) -> io::Result<OwnedFd> {
        self.set.try_clone()
    }

    /// Takes a connection in. What its socket already holds wakes it at once.
    ///
    /// # Errors
    /// The kernel has no room for it; the connection is closed.
    pub fn insert(&self, resting: Resting) -> io::Result<()> {
        let (fd, until_ms) = (resting.socket.as_raw_fd(), resting.until_ms);
        let key = self.entries.borrow_mut().insert(resting);
        let events = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLONESHOT) as u32;
        let mut event = libc::epoll_event { events, u64: key as u64 };
        // Safety: the event outlives the call.
        if unsafe { libc::epoll_ctl(self.set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } != 0 {
            self.entries.borrow_mut().try_remove(key);
            return Err(io::Error::last_os_error());
        }
        self.next_due_ms.set(self.next_due_ms.get().min(until_ms));
        Ok(())
    }

    fn remove(&self, key: usize) -> Option<Resting> {
        let resting = self.entries.borrow_mut().try_remove(key)?;
        // Safety: the event is not read for a removal.
        unsafe {
            let fd = resting.socket.as_raw_fd();
            libc::epoll_ctl(self.set.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut());
        }
        Some(resting)
    }

    /// Gives back every connection that has something to read, its end included.
    pub fn take_readable(&self, mut give: impl FnMut(Resting)) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        loop {
            // Safety: the kernel writes at most as many events as there is room for.
            let count =
                unsafe { libc::epoll_wait(self.set.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as libc::c_int, 0) };
            let count = usize::try_from(count).unwrap_or(0);
            for event in &events[..count] {
                let key = event.u64 as usize;
                if let Some(resting) = self.remove(key) {
                    give(resting);
                }
            }
            if count < EVENTS_MAX {
                return;
            }
        }
    }

    /// Gives back every connection whose time is up.
    pub fn take_due(&self, now_ms: u64, mut give: impl FnMut(Resting)) {
        if now_ms < self.next_due_ms.get() {
            return;
        }
        let (mut due, mut next_due_ms) = (Vec::new(), u64::MAX);
        for (key, resting) in self.entries.borrow().iter() {
            match resting.until_ms <= now_ms {
                true => due.push(key),
                false => next_due_ms = next_due_ms.min(resting.until_ms),
            }
        }
        self.next_due_ms.set(next_due_ms);
        due.into_iter().filter_map(|key| self.remove(key)).for_each(&mut give);
    }

    /// Gives back every connection that is between two requests.
    pub fn take_idle(&self, mut give: impl FnMut(Resting)) {
        let idle = |(key, resting): (usize, &Resting)| resting.begun.is_empty().then_some(key);
        let keys: Vec<usize> = self.entries.borrow().iter().filter_map(idle).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).for_each(&mut give);
    }

    /// Gives back up to `count` connections that were answered before and wait for a next request: those whose time is up
    /// first.
    pub fn take_spare(&self, count: usize, mut give: impl FnMut(Resting)) {
        let spare = |(key, resting): (usize, &Resting)| {
            (resting.begun.is_empty() && resting.facts.requests > 0).then_some((resting.until_ms, key))
        };
        let mut all: Vec<(u64, usize)> = self.entries.borrow().iter().filter_map(spare).collect();
        if all.len() > count && count > 0 {
            all.select_nth_unstable(count - 1);
        }
        all.into_iter().take(count).filter_map(|(_, key)| self.remove(key)).for_each(&mut give);
    }

    /// Connections parked now.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether none is parked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::net::TcpStream;

    struct Pair {
        client: TcpStream,
        resting: Resting,
    }

    fn pair(begun: &[u8], until_ms: u64) -> Pair {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let facts = ConnFacts { peer, local: peer, serial: u64::from(peer.port()), requests: 3 };
        Pair {
            client,
            resting: Resting { socket: server.into(), facts, preface_ip: None, begun: begun.into(), until_ms },
        }
    }

    fn readable(parked: &Parked) -> Vec<u64> {
        let mut serials = Vec::new();
        // The kernel delivers on loopback before a write returns; no time passes.
        parked.take_readable(|resting| serials.push(resting.facts.serial));
        serials
    }

    #[test]
    fn what_is_written_to_a_parked_connection_wakes_it_once() {
        let parked = Parked::new().unwrap();
        let (a, mut b) = (pair(b"", 100), pair(b"", 100));
        let serial = b.resting.facts.serial;
        parked.insert(a.resting).unwrap();
        parked.insert(b.resting).unwrap();
        assert!(readable(&parked).is_empty());
        b.client.write_all(b"GET").unwrap();
        assert_eq!(readable(&parked), [serial]);
        assert!(readable(&parked).is_empty());
        assert_eq!(parked.len(), 1);
        drop(a.client);
        assert_eq!(readable(&parked).len(), 1, "an end is something to read");
        assert!(parked.is_empty());
    }

    #[test]
    fn bytes_that_came_before_it_was_parked_wake_it() {
        let parked = Parked::new().unwrap();
        let mut early = pair(b"", 100);
        early.client.write_all(b"x").unwrap();
        parked.insert(early.resting).unwrap();
        assert_eq!(readable(&parked).len(), 1);
    }

    #[test]
    fn those_whose_time_is_up_are_given_back_and_no_others() {
        let parked = Parked::new().unwrap();
        let pairs = [pair(b"GE", 50), pair(b"", 100), pair(b"", 51)];
        let clients = pairs.map(|Pair { client, resting }| {
            parked.insert(resting).unwrap();
            client
        });
        let due = |now_ms| {
            let mut times = Vec::new();
            parked.take_due(now_ms, |resting| times.push((resting.until_ms, resting.begun.to_vec())));
            times
        };
        assert!(due(49).is_empty());
        assert_eq!(due(51), [(50, b"GE".to_vec()), (51, Vec::new())]);
        assert!(due(99).is_empty());
        assert_eq!(due(100).len(), 1);
        drop(clients);
    }

    #[test]
    fn those_that_can_be_spared_are_given_back_the_longest_idle_first() {
        let parked = Parked::new().unwrap();
        let (mut silent, begun) = (pair(b"", 10), pair(b"GET / HT", 20));
        silent.resting.facts.requests = 0;
        let pairs = [pair(b"", 300), pair(b"", 100), silent, begun, pair(b"", 200)];
        for Pair { resting, .. } in pairs {
            parked.insert(resting).unwrap();
        }
        let spare = |count| {
            let mut times = Vec::new();
            parked.take_spare(count, |resting| times.push(resting.until_ms));
            times.sort_unstable();
            times
        };
        assert!(spare(0).is_empty());
        assert_eq!(spare(2), [100, 200]);
        assert_eq!(spare(5), [300]);
        assert_eq!((spare(5).len(), parked.len()), (0, 2));
    }

    #[test]
    fn a_drain_takes_those_between_two_requests() {
        let parked = Parked::new().unwrap();
        let (idle, begun) = (pair(b"", 100), pair(b"GET / HT", 100));
        parked.insert(idle.resting).unwrap();
        parked.insert(begun.resting).unwrap();
        let mut count = 0;
        parked.take_idle(|_| count += 1);
        assert_eq!((count, parked.len()), (1, 1));
    }
}
