//! HOT: a piece costs a read and a write; an idle tunnel holds two small buffers.
//! After a 101: bytes of a WebSocket both ways until one side ends (spec/proxying.md section 13).
//! Owns: the two pumps and their one idle time. Never: looks at a frame; begins before a 101 that was asked for.
//! Always: a side that takes nothing stops the reading of the other; what was read before an end is still delivered.

use std::cell::Cell;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::pin;
use std::task::Poll;

use crate::http::framing::ResponseFraming;
use crate::limits;
use crate::plugins::view::BodyUse;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::Client;
use crate::proxy::core::Core;
use crate::proxy::deadline::Deadline;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Fault;
use crate::proxy::io::Reader;
use crate::proxy::io::Writer;
use crate::proxy::io::shutdown;
use crate::proxy::pool::UpstreamConn;
use crate::proxy::relay::Encoding;
use crate::state::spec::ServiceSpec;

impl Job<'_> {
    /// Sends the 101 that stands at the front of `buf`, then carries bytes both ways until either side ends. `read_timeout`
    /// bounds the time without a byte in either direction, `write_timeout` the time in which one side takes nothing.
    ///
    /// # Errors
    /// The client went away before the 101 was sent; a later end is the tunnel's own.
    pub async fn tunnel(
        &mut self,
        mut upstream: UpstreamConn,
        mut buf: Buf,
        service: &ServiceSpec,
    ) -> Result<(), Fault> {
        self.shape_response_head(buf.bytes());
        self.do_before_response().await;
        // What follows is no body.
        self.x.body_use = BodyUse::Pass;
        self.encode_response_head(buf.bytes(), ResponseFraming::Empty);
        buf.consume(self.x.response.len);
        upstream.deadline.clear();
        self.x.answered = true;
        self.x.from_upstream = true;
        self.x.keep = false;
        self.send_whole(buf, Encoding::UntilClose).await?;
        // What the client sent behind its handshake, without waiting for the answer.
        let mut early = self.core.buffers.client.take();
        early.extend(self.client.buf.bytes().get(self.x.body.taken()..).unwrap_or(&[]));
        let carried = self.carry(&mut upstream, early, service).await;
        self.x.body_bytes_sent += carried;
        self.x.bytes_sent += carried;
        self.client.deadline.clear();
        Ok(())
    }

    /// Both pumps, to their ends. Answers how many bytes went to the client.
    async fn carry(&mut self, upstream: &mut UpstreamConn, early: Buf, service: &ServiceSpec) -> u64 {
        let Client { deadline, conn, .. } = &mut *self.client;
        let gaps = Gaps {
            core: self.core,
            client: Side::new(deadline, conn.fd()),
            upstream: Side::new(&upstream.deadline, upstream.conn.fd()),
            idle_at_ms: Cell::new(u64::MAX),
            end_at_ms: Cell::new(u64::MAX),
            idle_ms: service.read_timeout_ms,
            write_ms: service.write_timeout_ms,
        };
        gaps.moved();
        let mut up = pin!(gaps.pump(&mut conn.reader, &mut upstream.conn.writer, &gaps.upstream, early));
        let mut down = pin!(gaps.pump(&mut upstream.conn.reader, &mut conn.writer, &gaps.client, Buf::default()));
        let (mut sent_up, mut sent_down) = (None, None);
        std::future::poll_fn(|cx| {
            for (pump, sent) in [(up.as_mut() as _, &mut sent_up), (down.as_mut() as _, &mut sent_down)] {
                let pump: std::pin::Pin<&mut dyn Future<Output = u64>> = pump;
                if sent.is_none()
                    && let Poll::Ready(count) = pump.poll(cx)
                {
                    *sent = Some(count);
                }
            }
            if sent_up.is_some() && sent_down.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        sent_down.unwrap_or(0)
    }
}

/// One side of the tunnel, as far as the times are concerned.
struct Side<'a> {
    deadline: &'a Deadline,
    fd: RawFd,
    /// Until when it must have taken a part of what is being written to it.
    write_at_ms: Cell<u64>,
}

impl<'a> Side<'a> {
    fn new(deadline: &'a Deadline, fd: RawFd) -> Self {
        Self { deadline, fd, write_at_ms: Cell::new(u64::MAX) }
    }
}

/// What must have happened by when.
struct Gaps<'a> {
    core: &'a Core,
    client: Side<'a>,
    upstream: Side<'a>,
    idle_at_ms: Cell<u64>,
    /// Once one side has ended: until when the other may.
    end_at_ms: Cell<u64>,
    idle_ms: u64,
    write_ms: u64,
}

impl Gaps<'_> {
    fn arm(&self) {
        for side in [&self.client, &self.upstream] {
            let at_ms = self.idle_at_ms.get().min(self.end_at_ms.get()).min(side.write_at_ms.get());
            side.deadline.arm(at_ms);
        }
    }

    /// Bytes came, or went.
    fn moved(&self) {
        self.idle_at_ms.set(self.core.clock.refresh() / 1000 + self.idle_ms);
        self.arm();
    }

    fn writing(&self, to: &Side<'_>) {
        to.write_at_ms.set(self.core.clock.refresh() / 1000 + self.write_ms);
        self.moved();
    }

    /// Carries bytes from `reader` to `writer` until the end of either, then says so to the side written to. Answers how
    /// many bytes went.
    async fn pump(&self, reader: &mut Reader, writer: &mut Writer, to: &Side<'_>, first: Buf) -> u64 {
        let (mut piece, mut sent) = (first, 0);
        let mut much = false;
        loop {
            if !piece.is_empty() {
                let len = piece.len() as u64;
                self.writing(to);
                let (result, back) = writer.write_all(piece, || self.writing(to)).await;
                to.write_at_ms.set(u64::MAX);
                piece = back;
                if result.is_err() {
                    break;
                }
                sent += len;
                self.moved();
            }
            self.core.buffers.give(piece);
            if !reader.is_started() {
                // A large buffer only where bytes come in bulk: an idle tunnel keeps its buffer for long.
                reader.start(if much { self.core.buffers.stream.take() } else { self.core.buffers.client.take() });
            }
            let (result, buf) = reader.done().await;
            piece = buf;
            if !matches!(result, Ok(count) if count > 0) {
                break;
            }
            much = piece.room() == 0;
            self.moved();
        }
        self.core.buffers.give(piece);
        shutdown(to.fd, libc::SHUT_WR);
        self.end_at_ms.set(self.core.clock.refresh() / 1000 + limits::LINGER_MS);
        self.arm();
        sent
    }
}
