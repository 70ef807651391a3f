//! HOT: a request whose body is at hand leaves in one write.
//! A request on its way to the upstream.
//! Owns: head and body bytes out, with back-pressure: one piece is read, then written. Never: reads the response, but it
//! looks whether one has come, so that an early answer ends the upload.

use std::future::Future;
use std::io;
use std::task::Poll;

use crate::http::chunked::CHUNK_END;
use crate::http::chunked::ChunkLine;
use crate::http::chunked::LAST_CHUNK;
use crate::http::framing::Framing;
use crate::proxy::body::PIECE_HEADROOM_BYTES;
use crate::proxy::buffers::Buf;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Broken;
use crate::proxy::fault::Fault;
use crate::proxy::forward::Failure;
use crate::proxy::io::ReadDone;
use crate::proxy::io::shutdown;
use crate::proxy::pool::UpstreamConn;
use crate::state::spec::ServiceSpec;

impl Job<'_> {
    /// Sends the head in `x.out` and the body. Answers whether the upload ended before the body did, because the upstream
    /// answered or stopped reading: then the response is all there is, and neither connection carries another request.
    ///
    /// # Errors
    /// What stops the request before a response can be waited for.
    pub async fn upload(&mut self, upstream: &mut UpstreamConn, service: &ServiceSpec) -> Result<bool, Failure> {
        let mut out = std::mem::take(&mut self.x.out);
        let src = self.client.buf.bytes();
        let complete = self.x.body.is_complete();
        let prefix = match &self.x.body_edit {
            Some(edited) => edited,
            None => self.x.body.bytes(src),
        };
        match complete || self.x.body.framing() != Framing::Chunked {
            true => out.extend(prefix),
            false if !prefix.is_empty() => {
                out.extend(ChunkLine::new(prefix.len() as u64).as_bytes());
                out.extend(prefix);
                out.extend(CHUNK_END);
            }
            false => {}
        }
        let (result, out, mut ended) = self.write_watching(upstream, out, service.write_timeout_ms).await;
        self.x.out = out;
        if result.is_err() {
            // What made the write fail may be an answer and a close: the response reader finds out.
            ended = true;
        }
        if !ended {
            ended = self.upload_spooled(upstream, service).await?;
        }
        if !complete && !ended {
            ended = self.upload_pieces(upstream, service).await?;
        }
        if ended && !complete {
            self.x.keep = false;
        }
        Ok(ended)
    }

    /// What went to a file, and stays there for another try. Answers as [`Job::upload`].
    async fn upload_spooled(&mut self, upstream: &mut UpstreamConn, service: &ServiceSpec) -> Result<bool, Failure> {
        let as_chunks = !self.x.body.is_complete() && self.x.body.framing() == Framing::Chunked;
        let mut at = 0;
        while let Some(spool) = self.x.body.spool().filter(|spool| at < spool.len()) {
            let mut piece = self.core.buffers.stream.take();
            piece.clear_with_headroom(PIECE_HEADROOM_BYTES);
            let (result, mut piece) = spool.read(at, piece).await;
            result.map_err(|_| Fault::refused(500))?;
            at += piece.len() as u64;
            if as_chunks {
                frame_chunk(&mut piece, false);
            }
            let (result, piece, ended) = self.write_watching(upstream, piece, service.write_timeout_ms).await;
            self.core.buffers.stream.give(piece);
            if ended || result.is_err() {
                if upstream.deadline.is_over() {
                    return Err(
                        Broken { timed_out: true, ours: false, sent: true, stale: false, body_spent: false }.into()
                    );
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn upload_pieces(&mut self, upstream: &mut UpstreamConn, service: &ServiceSpec) -> Result<bool, Failure> {
        self.spend_body();
        while !self.x.body.is_complete() {
            upstream.deadline.clear();
            self.start_piece().await?;
            if self.piece_or_answer(upstream).await {
                return Ok(true);
            }
            let read = self.client.conn.reader.done().await;
            let mut piece = self.take_piece(read)?;
            let last = self.x.body.is_complete();
            if self.x.body.framing() == Framing::Chunked {
                frame_chunk(&mut piece, last);
            }
            if piece.is_empty() {
                self.core.buffers.stream.give(piece);
                continue;
            }
            let (result, piece, ended) = self.write_watching(upstream, piece, service.write_timeout_ms).await;
            self.core.buffers.stream.give(piece);
            if ended || result.is_err() {
                if upstream.deadline.is_over() {
                    return Err(
                        Broken { timed_out: true, ours: false, sent: true, stale: false, body_spent: true }.into()
                    );
                }
                return Ok(true);
            }
        }
        self.client.deadline.clear();
        Ok(false)
    }

    /// Waits for the next piece of the body or for the upstream's answer; `true`: the answer.
    async fn piece_or_answer(&mut self, upstream: &mut UpstreamConn) -> bool {
        std::future::poll_fn(|cx| {
            if upstream.conn.reader.poll_ended(cx).is_ready() && upstream.conn.reader.peek(is_final) == Some(true) {
                return Poll::Ready(true);
            }
            self.client.poll_readable(cx).map(|()| false)
        })
        .await
    }

    /// Writes all of `buf` unless the upstream answers meanwhile: then writing is shut down, so that the write under way
    /// completes and gives its buffer back, and the third value says so.
    async fn write_watching(
        &self,
        upstream: &mut UpstreamConn,
        buf: Buf,
        write_timeout_ms: u64,
    ) -> (io::Result<()>, Buf, bool) {
        let UpstreamConn { deadline, conn, .. } = upstream;
        let clock = &self.core.clock;
        deadline.arm(clock.now_ms() + write_timeout_ms);
        let progress = || deadline.arm(clock.refresh() / 1000 + write_timeout_ms);
        let fd = conn.fd();
        let (reader, writer) = (&mut conn.reader, &mut conn.writer);
        let mut write = std::pin::pin!(writer.write_all(buf, progress));
        let mut answered = false;
        std::future::poll_fn(move |cx| {
            if let Poll::Ready((result, buf)) = write.as_mut().poll(cx) {
                return Poll::Ready((result, buf, answered));
            }
            if !answered && reader.poll_ended(cx).is_ready() && reader.peek(is_final) == Some(true) {
                answered = true;
                shutdown(fd, libc::SHUT_WR);
            }
            Poll::Pending
        })
        .await
    }
}

/// Makes a chunk of the piece in place; the last one is followed by the end of the body.
pub fn frame_chunk(piece: &mut Buf, last: bool) {
    if !piece.is_empty() {
        let line = ChunkLine::new(piece.len() as u64);
        if !piece.prepend(line.as_bytes()) {
            let data = piece.bytes().to_vec();
            piece.clear();
            piece.extend(line.as_bytes());
            piece.extend(&data);
        }
        piece.extend(CHUNK_END);
    }
    if last {
        piece.extend(LAST_CHUNK);
    }
}

/// Whether a read that ended is more than an interim answer: a final one, or the end of the connection.
fn is_final(done: &ReadDone) -> bool {
    match done {
        (Ok(count), buf) if *count > 0 => {
            let bytes = buf.bytes();
            !(bytes.starts_with(b"HTTP/1.1 1") || b"HTTP/1.1 1".starts_with(bytes))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buf(bytes: &[u8], headroom: usize) -> Buf {
        let mut b = Buf::with_capacity(64);
        b.clear_with_headroom(headroom);
        b.extend(bytes);
        b
    }

    #[test]
    fn a_piece_becomes_a_chunk_in_place_or_by_copy() {
        for headroom in [32, 0] {
            let mut piece = buf(b"hello", headroom);
            frame_chunk(&mut piece, false);
            assert_eq!(piece.bytes(), b"5\r\nhello\r\n");
            let mut piece = buf(b"x", headroom);
            frame_chunk(&mut piece, true);
            assert_eq!(piece.bytes(), b"1\r\nx\r\n0\r\n\r\n");
            let mut piece = buf(b"", headroom);
            frame_chunk(&mut piece, true);
            assert_eq!(piece.bytes(), b"0\r\n\r\n");
        }
    }

    #[test]
    fn an_interim_answer_does_not_end_an_upload() {
        let check = |bytes: &[u8], want| assert_eq!(is_final(&(Ok(bytes.len()), buf(bytes, 0))), want);
        check(b"HTTP/1.1 100 Continue\r\n\r\n", false);
        check(b"HTTP/1", false);
        check(b"HTTP/1.1 200 OK\r\n", true);
        assert!(is_final(&(Ok(0), buf(b"", 0))));
    }
}
