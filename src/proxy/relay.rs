//! HOT: a response that is at hand leaves in one write.
//! Response bodies: how far they have come, how they are framed, and those that are sent in one piece; the others take the
//! [`crate::proxy::lane`]. Never: ends a truncated body as if it were whole.

use crate::http::chunked::ChunkDecoder;
use crate::http::framing::ResponseFraming;
use crate::limits;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::Client;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Fault;
use crate::proxy::upload::frame_chunk;

/// How the body is framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As long as the head said.
    Sized,
    Chunked,
    /// Until the connection closes, for HTTP/1.0 clients.
    UntilClose,
}

/// How far a response body has come.
pub struct ResponseBody {
    framing: ResponseFraming,
    /// Bytes to come of a sized body.
    left: u64,
    decoder: ChunkDecoder,
    /// All of it was received.
    pub complete: bool,
    /// Bytes came behind its end: the upstream's connection cannot be trusted again.
    pub surplus: bool,
}

impl ResponseBody {
    /// A body of which nothing was received.
    pub fn new(framing: ResponseFraming) -> Self {
        let left = if let ResponseFraming::Length(n) = framing { n } else { 0 };
        let complete = matches!(framing, ResponseFraming::Empty | ResponseFraming::Length(0));
        Self { framing, left, decoder: ChunkDecoder::new(), complete, surplus: false }
    }

    /// Takes a received piece: leaves the body bytes in `buf`. `None`: the chunked coding is broken.
    pub fn take(&mut self, buf: &mut Buf) -> Option<()> {
        let len = buf.len();
        let (data_len, consumed) = match self.framing {
            ResponseFraming::Empty => (0, 0),
            ResponseFraming::Length(_) => {
                let count = (len as u64).min(self.left) as usize;
                self.left -= count as u64;
                self.complete = self.left == 0;
                (count, count)
            }
            ResponseFraming::Chunked => {
                let found = self.decoder.decode_in_place(buf.bytes_mut()).ok()?;
                self.complete = found.finished;
                (found.data_len, found.consumed)
            }
            ResponseFraming::UntilClose => (len, len),
        };
        self.surplus |= consumed < len;
        buf.truncate(data_len);
        Some(())
    }

    /// Bytes to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        matches!(self.framing, ResponseFraming::Length(_)).then_some(self.left)
    }

    /// Whether the upstream's end of stream is the end of this body.
    pub fn ends_with_connection(&self) -> bool {
        self.framing == ResponseFraming::UntilClose
    }
}

impl Job<'_> {
    /// The body bytes that came with the head. `None`: they are no body.
    pub fn take_response_body(&mut self, buf: &mut Buf, framing: ResponseFraming) -> Option<ResponseBody> {
        let mut body = ResponseBody::new(framing);
        body.take(buf)?;
        Some(body)
    }

    /// Sends the head in `x.out` and a body that is all in `buf`.
    pub async fn send_whole(&mut self, mut buf: Buf, encoding: Encoding) -> Result<(), Fault> {
        self.frame_with_head(&mut buf, encoding, true);
        let (result, buf) = self.write_to_client(buf).await;
        self.core.buffers.give(buf);
        result
    }

    /// Frames the first piece of a body and puts the head in `x.out` before it, in the piece's buffer if there is room.
    pub fn frame_with_head(&mut self, buf: &mut Buf, encoding: Encoding, last: bool) {
        self.x.show_piece(self.core, buf.bytes(), last);
        self.x.body_bytes_sent += buf.len() as u64;
        if encoding == Encoding::Chunked {
            frame_chunk(buf, last);
        }
        if !buf.prepend(self.x.out.bytes()) {
            self.x.out.extend(buf.bytes());
            std::mem::swap(buf, &mut self.x.out);
            self.x.out.clear();
        }
    }

    /// Writes what stands in `x.out` to the client.
    pub async fn write_out(&mut self) -> Result<(), Fault> {
        let out = std::mem::take(&mut self.x.out);
        let (result, out) = self.write_to_client(out).await;
        self.x.out = out;
        result
    }

    /// A client may take its time as long as it takes something.
    async fn write_to_client(&mut self, buf: Buf) -> (Result<(), Fault>, Buf) {
        let Client { deadline, conn, .. } = &mut *self.client;
        let clock = &self.core.clock;
        deadline.arm(clock.now_ms() + limits::CLIENT_WRITE_MS);
        let progress = || deadline.arm(clock.refresh() / 1000 + limits::CLIENT_WRITE_MS);
        let len = buf.len() as u64;
        let (result, buf) = conn.writer.write_all(buf, progress).await;
        self.x.bytes_sent += len - buf.len() as u64;
        deadline.clear();
        (result.map_err(|_| Fault::ClientGone), buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8]) -> Buf {
        let mut buf = Buf::with_capacity(128);
        buf.extend(bytes);
        buf
    }

    #[track_caller]
    fn check(framing: ResponseFraming, pieces: &[&[u8]], want: &[u8], complete: bool, surplus: bool) {
        let mut body = ResponseBody::new(framing);
        let mut got = Vec::new();
        for bytes in pieces {
            let mut buf = piece(bytes);
            body.take(&mut buf).expect("well-formed");
            got.extend_from_slice(buf.bytes());
        }
        assert_eq!((got.as_slice(), body.complete, body.surplus), (want, complete, surplus));
    }

    #[test]
    fn a_sized_body_ends_at_its_length() {
        check(ResponseFraming::Length(5), &[b"he", b"llo"], b"hello", true, false);
        check(ResponseFraming::Length(5), &[b"hel"], b"hel", false, false);
        check(ResponseFraming::Length(5), &[b"helloHTTP/1.1 200"], b"hello", true, true);
    }

    #[test]
    fn a_chunked_body_is_decoded_across_pieces() {
        check(ResponseFraming::Chunked, &[b"3\r\nab", b"c\r\n0\r", b"\n\r\n"], b"abc", true, false);
        check(ResponseFraming::Chunked, &[b"0\r\n\r\nX"], b"", true, true);
        let mut body = ResponseBody::new(ResponseFraming::Chunked);
        assert!(body.take(&mut piece(b"zz\r\n")).is_none());
    }

    #[test]
    fn a_body_where_none_may_be_is_surplus() {
        check(ResponseFraming::Empty, &[b"body"], b"", true, true);
        check(ResponseFraming::Empty, &[b""], b"", true, false);
    }
}
