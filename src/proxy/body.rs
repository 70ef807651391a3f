//! HOT: a body that came with its head costs nothing; a streamed one is decoded in place.
//! The request body of one exchange: what of it was received, what is still to come.
//! Owns: every read of a request body. Never: writes to an upstream.
//! Always: bytes behind the body stay for the next request; nothing of a body is ever parsed as one.

use std::ops::Range;
use std::task::Context;
use std::task::Poll;

use crate::http::chunked::BadChunk;
use crate::http::chunked::ChunkDecoder;
use crate::http::framing::Framing;
use crate::http::head::Version;
use crate::limits;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::Client;
use crate::proxy::exchange::Job;
use crate::proxy::exchange::Next;
use crate::proxy::fault::Fault;
use crate::proxy::io::ReadDone;
use crate::proxy::spool::Spool;

/// Room in front of a streamed piece for the line that begins a chunk.
pub const PIECE_HEADROOM_BYTES: usize = 32;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body of a request, as far as it is known.
#[derive(Default)]
pub struct RequestBody {
    framing: Option<Framing>,
    decoder: ChunkDecoder,
    /// Body bytes of a sized body that have not been received.
    left: u64,
    /// Body bytes received, decoded.
    received: u64,
    /// Where the received bytes of a sized body lie in the client's buffer.
    in_source: Range<usize>,
    /// The received bytes of a chunked body.
    decoded: Vec<u8>,
    /// Bytes of the client's buffer that belong to this request.
    taken: usize,
    complete: bool,
    awaits_continue: bool,
    /// Whether bytes were handed out that are not kept.
    spent: bool,
    /// What follows the bytes in memory.
    spool: Option<Spool>,
}

impl RequestBody {
    /// A body that begins `head_len` bytes into the client's buffer.
    pub fn begin(&mut self, framing: Framing, head_len: usize, awaits_continue: bool) {
        self.clear();
        self.framing = Some(framing);
        self.taken = head_len;
        self.in_source = head_len..head_len;
        self.awaits_continue = awaits_continue;
        match framing {
            Framing::Empty | Framing::Length(0) => self.complete = true,
            Framing::Length(n) => self.left = n,
            Framing::Chunked => {}
        }
    }

    /// Forgets the body, keeps the memory.
    pub fn clear(&mut self) {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        *self = Self { decoded, ..Self::default() };
    }

    /// Memory kept for reuse.
    pub fn memory_bytes(&self) -> usize {
        self.decoded.capacity()
    }

    /// The length that the head said.
    pub fn declared_length(&self) -> Option<u64> {
        match self.framing {
            Some(Framing::Length(n)) => Some(n),
            _ => None,
        }
    }

    /// Whether the request has a body field at all, be it for nothing.
    pub fn framing(&self) -> Framing {
        self.framing.unwrap_or(Framing::Empty)
    }

    /// Whether all of the body was received.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether all of the body was received, and none of it went to a file.
    pub fn is_in_memory(&self) -> bool {
        self.complete && self.spool.is_none()
    }

    /// The part of the body that went to a file, behind what is in memory.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Bytes received and kept.
    pub fn kept_len(&self, src: &[u8]) -> u64 {
        self.bytes(src).len() as u64 + self.spool.as_ref().map_or(0, Spool::len)
    }

    /// Whether bytes were handed out that cannot be handed out again.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Body bytes received, decoded.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The bytes received and kept in memory: all of a body, or its beginning.
    pub fn bytes<'a>(&'a self, src: &'a [u8]) -> &'a [u8] {
        match self.framing {
            Some(Framing::Chunked) => &self.decoded,
            _ => src.get(self.in_source.clone()).unwrap_or(&[]),
        }
    }

    /// Bytes of the client's buffer that belong to this request, head included.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Takes what stands in the client's buffer behind the head.
    pub(super) fn take_at_hand(&mut self, src: &[u8]) -> Result<(), Fault> {
        match self.framing() {
            Framing::Empty => {}
            Framing::Length(_) => {
                let at_hand = (src.len() - self.taken.min(src.len())) as u64;
                let count = at_hand.min(self.left);
                self.left -= count;
                self.received += count;
                self.taken += count as usize;
                self.in_source.end = self.taken;
                self.complete = self.left == 0;
            }
            Framing::Chunked => {
                while !self.complete {
                    let rest = src.get(self.taken..).unwrap_or(&[]);
                    let step = self.decoder.feed(rest).map_err(|bad| Fault::refused(bad.status()))?;
                    self.decoded.extend_from_slice(&rest[step.data.clone()]);
                    self.received += step.data.len() as u64;
                    self.taken += step.consumed;
                    self.complete = step.finished;
                    if step.consumed == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a received piece in place: leaves the body bytes in `buf`, bytes behind the body go to `extra`.
    pub(super) fn take_piece(&mut self, buf: &mut Buf, extra: &mut Vec<u8>) -> Result<(), Fault> {
        let len = buf.len();
        let (data_len, consumed) = match self.framing() {
            Framing::Chunked => {
                let bad = |bad: BadChunk| Fault::refused(bad.status());
                let found = self.decoder.decode_in_place(buf.bytes_mut()).map_err(bad)?;
                self.complete = found.finished;
                (found.data_len, found.consumed)
            }
            _ => {
                let count = (len as u64).min(self.left) as usize;
                self.left -= count as u64;
                self.complete = self.left == 0;
                (count, count)
            }
        };
        self.received += data_len as u64;
        extra.extend_from_slice(&buf.bytes()[consumed..]);
        buf.truncate(data_len);
        Ok(())
    }

    /// Whether what is left may be read and thrown away to keep the connection.
    pub fn may_drain(&self) -> bool {
        self.complete || (!self.awaits_continue && self.left > 0 && self.left <= limits::REQUEST_BODY_DRAINED_BYTES)
    }
}

impl Job<'_> {
    /// Receives all of the body: into memory as far as the settings say, then into a file. If no file takes it, the rest
    /// stays to be streamed.
    pub async fn gather_body(&mut self) -> Result<(), Fault> {
        self.x.body.take_at_hand(self.client.buf.bytes())?;
        self.check_body_limit()?;
        let held_max = self.rules.settings.client_body_buffer_size;
        if self.x.body.complete {
            return Ok(());
        }
        if self.x.body.declared_length().is_some_and(|n| n > held_max) {
            return self.spool_body().await;
        }
        if matches!(self.x.body.framing(), Framing::Chunked) {
            self.gather_chunked(held_max).await?;
            return self.spool_body().await;
        }
        let missing = self.x.body.left as usize;
        self.client.buf.reserve(missing);
        while !self.x.body.complete {
            self.continue_if_awaited().await?;
            self.arm_body_deadline();
            let buf = std::mem::take(&mut self.client.buf);
            let (result, buf) = self.client.conn.reader.read(buf).await;
            self.client.buf = buf;
            self.client.received(result, Fault::refused(408))?;
            self.x.body.take_at_hand(self.client.buf.bytes())?;
        }
        Ok(())
    }

    async fn gather_chunked(&mut self, held_max: u64) -> Result<(), Fault> {
        while !self.x.body.complete && self.x.body.received <= held_max {
            self.start_piece().await?;
            let piece = self.client.conn.reader.done().await;
            let buf = self.take_piece(piece)?;
            self.x.body.decoded.extend_from_slice(buf.bytes());
            self.core.buffers.stream.give(buf);
        }
        Ok(())
    }

    /// Receives what is still to come into a file, as long as there is room.
    async fn spool_body(&mut self) -> Result<(), Fault> {
        // A file that could not take all of it is full; what is not in it is streamed.
        if self.x.body.complete || self.x.body.spool.is_some() {
            return Ok(());
        }
        let settings = &self.rules.settings;
        let bytes_max = settings.client_body_temp_bytes_max;
        let opened = match bytes_max {
            0 => return Ok(()),
            _ => Spool::open(&settings.client_body_temp_path, self.core.spooled.requests.clone()),
        };
        let Ok(spool) = opened else {
            self.core.counters.bodies_not_spooled.add();
            return Ok(());
        };
        let mut spool: &Spool = self.x.body.spool.insert(spool);
        while !self.x.body.complete {
            if !spool.reserve(limits::STREAM_BUFFER_BYTES as u64, bytes_max) {
                self.core.counters.bodies_not_spooled.add();
                break;
            }
            self.start_piece().await?;
            let piece = self.client.conn.reader.done().await;
            let piece = self.take_piece(piece)?;
            spool = match &self.x.body.spool {
                Some(spool) => spool,
                None => break,
            };
            let (result, piece) = spool.append(piece).await;
            self.core.buffers.stream.give(piece);
            // The piece is lost, so there is no body to go on with.
            result.map_err(|_| Fault::refused(500))?;
        }
        self.client.deadline.clear();
        Ok(())
    }

    /// Takes what came with the head, without waiting for more.
    pub fn take_body_at_hand(&mut self) -> Result<(), Fault> {
        self.x.body.take_at_hand(self.client.buf.bytes())?;
        self.check_body_limit()
    }

    fn check_body_limit(&mut self) -> Result<(), Fault> {
        let received = self.x.body.received;
        if self.rules.exceeds_body_limit(received) {
            return Err(Fault::refused(413));
        }
        if self.x.body_bytes_max.is_some_and(|most| received > most) {
            self.x.reply.gateway(413, "Request size limit exceeded");
            return Err(Fault::Reply);
        }
        Ok(())
    }

    fn arm_body_deadline(&self) {
        let timeout_ms = self.rules.settings.client_body_timeout_ms;
        self.client.deadline.arm_reading(self.core.clock.now_ms() + timeout_ms);
    }

    async fn continue_if_awaited(&mut self) -> Result<(), Fault> {
        if !std::mem::take(&mut self.x.body.awaits_continue) || self.x.head.version == Version::Http10 {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.x.out);
        out.clear();
        out.extend(CONTINUE);
        self.x.out = out;
        self.write_out().await
    }

    /// Starts the read of the next piece of a streamed body.
    pub async fn start_piece(&mut self) -> Result<(), Fault> {
        self.continue_if_awaited().await?;
        self.arm_body_deadline();
        let mut buf = self.core.buffers.stream.take();
        buf.clear_with_headroom(PIECE_HEADROOM_BYTES);
        self.client.conn.reader.start(buf);
        Ok(())
    }

    /// Takes what a read of the body brought: the body bytes of it.
    pub fn take_piece(&mut self, (result, mut buf): ReadDone) -> Result<Buf, Fault> {
        self.core.clock.refresh();
        self.client.received(result, Fault::refused(408))?;
        self.x.body.take_piece(&mut buf, &mut self.client.extra)?;
        self.check_body_limit()?;
        Ok(buf)
    }

    /// From here on a failed try cannot be repeated: pieces are passed on and not kept.
    pub fn spend_body(&mut self) {
        self.x.body.spent = true;
    }

    /// Whether the connection can be kept although the request was answered before its body was read: what came with the
    /// head is taken first, and may be all of it.
    pub fn body_allows_keeping(&mut self) -> bool {
        self.x.body.take_at_hand(self.client.buf.bytes()).is_ok() && self.x.body.may_drain()
    }

    /// Ends the request on the connection: what is left of the body is read and dropped, or the connection closes.
    pub async fn finish_body(&mut self) -> Next {
        // An answer that came before the body was looked at leaves it in the client's buffer.
        if self.x.body.take_at_hand(self.client.buf.bytes()).is_err() {
            self.x.keep = false;
        }
        let fit = self.x.keep && !self.client.deadline.is_over();
        if !fit || !self.x.body.may_drain() {
            self.client.deadline.clear();
            // A close with bytes of the client unread would be a reset, and take what it has not received yet of this
            // answer and those before it. Only a client that said itself that it is done is known to send no more.
            let is_done =
                self.x.client_is_done && self.x.body.is_complete() && self.client.has_sent_no_more(&self.x.body);
            return if is_done { Next::Close } else { Next::Linger };
        }
        while !self.x.body.complete {
            if self.client.conn.reader.is_started() {
                // Left under way by an upload that ended early.
            } else if self.start_piece().await.is_err() {
                return Next::Linger;
            }
            let piece = self.client.conn.reader.done().await;
            match self.take_piece(piece) {
                Ok(buf) => self.core.buffers.stream.give(buf),
                Err(_) => return Next::Linger,
            }
        }
        let taken = self.x.body.taken();
        self.client.next_request(taken);
        Next::KeepAlive
    }
}

impl Client {
    /// Whether nothing of the client is left behind this request, here or in the kernel.
    fn has_sent_no_more(&self, body: &RequestBody) -> bool {
        let has_read = self.conn.reader.peek(|done| matches!(done, (Ok(count), _) if *count > 0)) == Some(true);
        self.buf.len() <= body.taken() && self.extra.is_empty() && !has_read && !self.conn.has_unread()
    }

    /// Judges a read from the client: the end of the stream inside a request means that the client is gone.
    pub fn received(&self, result: std::io::Result<usize>, late: Fault) -> Result<(), Fault> {
        match result {
            Ok(0) if self.deadline.is_over() => Err(late),
            Ok(0) | Err(_) => Err(if self.deadline.is_over() { late } else { Fault::ClientGone }),
            Ok(_) => Ok(()),
        }
    }

    /// Whether the read under way has ended.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.conn.reader.poll_ended(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(framing: Framing, src: &[u8], head_len: usize) -> RequestBody {
        let mut body = RequestBody::default();
        body.begin(framing, head_len, false);
        body.take_at_hand(src).unwrap();
        body
    }

    #[test]
    fn a_body_that_came_with_its_head_is_complete_and_leaves_the_next_request() {
        let src = b"HEADabcGET /";
        let b = body(Framing::Length(3), src, 4);
        assert!(b.is_complete());
        assert_eq!((b.bytes(src), b.taken()), (&b"abc"[..], 7));
        let src = b"HEAD3\r\nabc\r\n0\r\n\r\nGET /";
        let b = body(Framing::Chunked, src, 4);
        assert!(b.is_complete());
        assert_eq!((b.bytes(src), &src[b.taken()..]), (&b"abc"[..], &b"GET /"[..]));
    }

    #[test]
    fn a_part_of_a_body_waits_for_the_rest() {
        let src = b"HEADab";
        let mut b = body(Framing::Length(5), src, 4);
        assert!(!b.is_complete());
        assert_eq!(b.bytes(src), b"ab");
        let mut piece = Buf::with_capacity(64);
        piece.extend(b"cdeNEXT");
        let mut extra = Vec::new();
        b.take_piece(&mut piece, &mut extra).unwrap();
        assert!(b.is_complete());
        assert_eq!((piece.bytes(), &extra[..]), (&b"cde"[..], &b"NEXT"[..]));
    }

    #[test]
    fn a_body_that_waits_for_100_continue_is_never_drained() {
        let mut b = RequestBody::default();
        b.begin(Framing::Length(5), 4, true);
        assert!(!b.may_drain());
        b.begin(Framing::Length(5), 4, false);
        assert!(b.may_drain());
        b.begin(Framing::Length(limits::REQUEST_BODY_DRAINED_BYTES + 1), 4, false);
        assert!(!b.may_drain());
        b.begin(Framing::Empty, 4, false);
        assert!(b.may_drain());
    }
}
