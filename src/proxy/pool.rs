//! HOT: no allocation once a peer's list has grown to its use.
//! Idle upstream connections of one core, by address, so that they outlive a change of configuration.
//! Owns: every open upstream connection that carries no request now. Never: dials, resolves names.
//! Always: a parked connection has a read under way, so an end or bytes that nobody asked for are seen before it is used
//! again; the newest is taken first, so that the pool shrinks when load falls.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;

use ahash::AHashMap;

use crate::proxy::deadline::Deadline;
use crate::proxy::io::Conn;

/// An open upstream connection.
pub struct UpstreamConn {
    // Before the connection: it must be gone when the descriptor closes.
    pub deadline: Deadline,
    pub conn: Conn,
    /// Requests carried so far.
    pub requests: u32,
    parked_at_ms: u64,
}

impl UpstreamConn {
    /// A fresh connection.
    pub fn new(conn: Conn, deadline: Deadline) -> Self {
        Self { deadline, conn, requests: 0, parked_at_ms: 0 }
    }
}

/// The pool of one core.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<AHashMap<SocketAddr, VecDeque<UpstreamConn>>>,
}

impl Pool {
    /// A connection to the address that is still open and quiet.
    pub fn take(&self, addr: SocketAddr) -> Option<UpstreamConn> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&addr)?;
        while let Some(mut upstream) = list.pop_back() {
            if upstream.conn.reader.is_quiet() {
                return Some(upstream);
            }
        }
        None
    }

    /// Parks a connection whose next read is under way. Beyond `size_max` per address the oldest is closed.
    pub fn park(&self, addr: SocketAddr, mut upstream: UpstreamConn, now_ms: u64, size_max: usize) {
        if size_max == 0 {
            return;
        }
        debug_assert!(upstream.conn.reader.is_started(), "a parked connection listens");
        upstream.parked_at_ms = now_ms;
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(addr).or_default();
        if list.len() >= size_max {
            list.pop_front();
        }
        list.push_back(upstream);
    }

    /// Closes what has been idle for too long (0: no bound), and what its peer has closed.
    pub fn expire(&self, now_ms: u64, idle_ms_max: u64) {
        self.idle.borrow_mut().retain(|_, list| {
            let overdue = |u: &UpstreamConn| idle_ms_max > 0 && now_ms >= u.parked_at_ms + idle_ms_max;
            while list.front().is_some_and(overdue) {
                list.pop_front();
            }
            list.retain_mut(|upstream| upstream.conn.reader.is_quiet());
            // An empty list is kept as long as its memory is small: it will be used again.
            !list.is_empty() || list.capacity() <= 64
        });
    }

    /// Closes all that lead to an address that is ejected, or that nobody has any more.
    pub fn close(&self, addr: SocketAddr) {
        self.idle.borrow_mut().remove(&addr);
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Idle connections now.
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(VecDeque::len).sum()
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
