//! HOT: no allocation after warm-up.
//! Owned byte buffers that are lent to io_uring and come back, and one core's stock of them.
//! Never: shared by cores. Always: `start <= end <= capacity`; the bytes between are initialised.

use std::cell::RefCell;

use monoio::buf::{IoBuf, IoBufMut};

use crate::limits;

/// Kept back behind what a read may fill: the end of a chunk and the last chunk.
const TAIL_BYTES: usize = 16;

/// Bytes `start..end` of an allocation: reads append at `end`, writes and parsers take from `start`.
#[derive(Default)]
pub struct Buf {
    bytes: Vec<u8>,
    start: usize,
}

impl Buf {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity + TAIL_BYTES), start: 0 }
    }

    /// The live bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The live bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Number of live bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether no byte is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that a read may append. A few more are kept back, for the end of a chunk behind what was read.
    pub fn room(&self) -> usize {
        (self.bytes.capacity() - self.bytes.len()).saturating_sub(TAIL_BYTES)
    }

    /// Size of the allocation.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets all bytes, keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Drops `count` bytes from the front (at most all).
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Keeps only the first `len` live bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// Appends bytes, growing if needed.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Moves the live bytes to the front of the allocation, so that all room is behind them. Spans into the buffer break.
    pub fn compact(&mut self) {
        if self.start > 0 {
            let len = self.len();
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(len);
            self.start = 0;
        }
    }

    /// Makes room for a read of at least `more` bytes behind the live ones. Offsets of live bytes stay valid.
    pub fn reserve(&mut self, more: usize) {
        self.bytes.reserve(more + TAIL_BYTES);
    }

    /// Puts `head` directly before the live bytes, over bytes that were consumed there. Answers whether there was room.
    pub fn prepend(&mut self, head: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(head.len()) else { return false };
        self.bytes[start..self.start].copy_from_slice(head);
        self.start = start;
        true
    }

    /// Begins an empty buffer whose bytes will stand `headroom` bytes behind the allocation's start, for [`Buf::prepend`].
    pub fn clear_with_headroom(&mut self, headroom: usize) {
        self.bytes.clear();
        self.bytes.resize(headroom.min(self.bytes.capacity()), 0);
        self.start = self.bytes.len();
    }

    /// The vector behind, for encoders that append to one.
    pub fn vec_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

// Safety: a Vec's bytes do not move when the Vec is moved, and nobody touches the Vec while the kernel holds the buffer,
// because the operation owns it.
unsafe impl IoBuf for Buf {
    fn read_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// Safety: as above; `write_ptr..write_ptr + bytes_total` lies within the spare capacity of the vector.
unsafe impl IoBufMut for Buf {
    fn write_ptr(&mut self) -> *mut u8 {
        self.bytes.spare_capacity_mut().as_mut_ptr().cast()
    }
    fn bytes_total(&mut self) -> usize {
        self.room()
    }
    unsafe fn set_init(&mut self, appended: usize) {
        debug_assert!(appended <= self.room());
        // Safety: the kernel wrote `appended` bytes behind the live ones.
        unsafe { self.bytes.set_len(self.bytes.len() + appended) }
    }
}

/// One core's stock of buffers of one size. What comes back beyond `keep_max` is freed, so a burst does not pin memory.
pub struct Stock {
    capacity: usize,
    keep_max: usize,
    free: RefCell<Vec<Buf>>,
}

impl Stock {
    /// A stock of buffers of `capacity` bytes that keeps at most `keep_max` idle ones.
    pub fn new(capacity: usize, keep_max: usize) -> Self {
        Self { capacity, keep_max, free: RefCell::new(Vec::with_capacity(keep_max)) }
    }

    /// An empty buffer.
    pub fn take(&self) -> Buf {
        self.free.borrow_mut().pop().unwrap_or_else(|| Buf::with_capacity(self.capacity))
    }

    /// Takes a buffer back. One that grew far beyond the stock's size is freed.
    pub fn give(&self, mut buf: Buf) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.keep_max && buf.capacity() >= self.capacity && buf.capacity() <= self.capacity * 4 {
            buf.clear();
            free.push(buf);
        }
    }
}

/// All buffers of one core, by use.
pub struct Buffers {
    /// The first read of a connection of which nothing is known yet.
    pub first: Stock,
    /// Client heads and what came with them; also pinned by the pending read between two requests.
    pub client: Stock,
    /// Response heads and small bodies, read with room in front for the rewritten head.
    pub upstream: Stock,
    /// Body bytes while streaming.
    pub stream: Stock,
}

impl Buffers {
    /// Takes back a buffer of any of the stocks.
    pub fn give(&self, buf: Buf) {
        match buf.capacity() {
            large if large >= limits::STREAM_BUFFER_BYTES => self.stream.give(buf),
            middle if middle >= limits::UPSTREAM_READ_BYTES => self.upstream.give(buf),
            client if client >= limits::CLIENT_READ_BYTES => self.client.give(buf),
            _ => self.first.give(buf),
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            first: Stock::new(limits::FIRST_READ_BYTES, 1024),
            client: Stock::new(limits::CLIENT_READ_BYTES, 1024),
            upstream: Stock::new(limits::UPSTREAM_READ_BYTES, 512),
            stream: Stock::new(limits::STREAM_BUFFER_BYTES, 16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_in_front_of_the_body_without_moving_it() {
        let mut b = Buf::with_capacity(64);
        b.clear_with_headroom(8);
        b.extend(b"oldhead|body");
        b.consume(8);
        assert!(b.prepend(b"a longer new hd|"));
        assert_eq!(b.bytes(), b"a longer new hd|body");
        assert!(!b.prepend(b"x"), "no room is left in front");
    }

    #[test]
    fn consuming_all_reclaims_the_room() {
        let mut b = Buf::with_capacity(16);
        b.extend(b"0123456789");
        b.consume(4);
        assert_eq!(b.bytes(), b"456789");
        b.compact();
        assert_eq!((b.bytes(), b.room()), (&b"456789"[..], 10));
        b.consume(100);
        assert_eq!((b.len(), b.room()), (0, 16));
    }

    #[test]
    fn a_stock_lends_the_same_buffer_again() {
        let stock = Stock::new(32, 1);
        let mut b = stock.take();
        b.extend(b"x");
        let at = b.bytes().as_ptr();
        stock.give(b);
        assert_eq!(stock.take().vec_mut().as_ptr(), at);
    }
}
