//! HOT: one piece is received while the one before is sent; no allocation unless the client is slow.
//! A long response body between an upstream and a client that may take it more slowly (spec/proxying.md section 10).
//! Owns: the two parts of that task, what receives and what sends, and what waits between them. Never: holds more than a
//! piece on either side in memory; what a slow client keeps waiting goes to a file, within bounds, and otherwise waits at
//! the upstream.
//! Always: bytes leave in the order in which they came; the upstream's connection is free as soon as it has said all.

use std::cell::Cell;
use std::cell::OnceCell;
use std::future::Future;
use std::net::SocketAddr;
use std::task::Context;
use std::task::Poll;

use crate::limits;
use crate::proxy::body::PIECE_HEADROOM_BYTES;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::Client;
use crate::proxy::core::Core;
use crate::proxy::dial::listen;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Fault;
use crate::proxy::io::ReadDone;
use crate::proxy::pool::UpstreamConn;
use crate::proxy::relay::Encoding;
use crate::proxy::relay::ResponseBody;
use crate::proxy::spool::Spool;
use crate::proxy::upload::frame_chunk;

/// What a relay is to do.
pub struct Relay {
    pub encoding: Encoding,
    /// Longest gap between two reads from the upstream.
    pub read_timeout_ms: u64,
    /// Whether the upstream is to be freed from a client that is slower than it.
    pub buffers: bool,
    /// Where the upstream's connection is parked after the last byte; `None`: it cannot be used again.
    pub reuse: Option<SocketAddr>,
}

/// What stands between the two parts. They run in one task, so plain cells do.
struct Lane<'a> {
    core: &'a Core,
    /// The piece to be sent next.
    next: Cell<Option<Buf>>,
    /// Whether the sending part waits for something to send.
    idle: Cell<bool>,
    /// What comes before anything else; begun when the client is found to be slow.
    spool: OnceCell<Spool>,
    /// Bytes of it that are on their way, or sent.
    taken: Cell<u64>,
    /// How long the client may still keep the upstream waiting, all pieces together, in microseconds.
    patience_us: Cell<u64>,
    /// Nothing more will come.
    ended: Cell<bool>,
    /// Nothing more can be sent.
    broken: Cell<bool>,
    /// Something of the above has changed, so the other part may go on.
    stirred: Cell<bool>,
}

/// What there is to send.
enum Work {
    Piece(Buf),
    Spooled,
}

impl<'a> Lane<'a> {
    fn new(core: &'a Core, buffers: bool) -> Self {
        let patience_us = if buffers { limits::UPSTREAM_HELD_MS * 1000 } else { u64::MAX };
        Self {
            core,
            next: Cell::new(None),
            idle: Cell::new(true),
            spool: OnceCell::new(),
            taken: Cell::new(0),
            patience_us: Cell::new(patience_us),
            ended: Cell::new(false),
            broken: Cell::new(false),
            stirred: Cell::new(false),
        }
    }

    fn set(&self, cell: &Cell<bool>) {
        cell.set(true);
        self.stirred.set(true);
    }

    /// The file, as long as it holds something that is to be sent.
    fn unsent(&self) -> Option<&Spool> {
        self.spool.get().filter(|spool| self.taken.get() < spool.len())
    }

    /// Whether a piece could be sent at once.
    fn is_free(&self) -> bool {
        self.idle.get() && self.unsent().is_none()
    }

    fn hand_over(&self, piece: Buf) {
        self.idle.set(false);
        self.next.set(Some(piece));
        self.stirred.set(true);
    }

    /// Waits for something to send; `None`: there will be nothing more.
    async fn work(&self) -> Option<Work> {
        std::future::poll_fn(|_| {
            if let Some(piece) = self.next.take() {
                return Poll::Ready(Some(Work::Piece(piece)));
            }
            if self.unsent().is_some() {
                self.idle.set(false);
                return Poll::Ready(Some(Work::Spooled));
            }
            if self.ended.get() {
                return Poll::Ready(None);
            }
            if !self.idle.get() {
                self.set(&self.idle);
            }
            Poll::Pending
        })
        .await
    }

    /// What the upstream sends next, as long as anybody takes it.
    async fn unless_broken(&self, read: impl Future<Output = ReadDone>) -> Result<ReadDone, Fault> {
        let mut read = std::pin::pin!(read);
        std::future::poll_fn(|cx| {
            if self.broken.get() {
                return Poll::Ready(Err(Fault::ClientGone));
            }
            read.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Waits until a piece could be sent at once. `false`: the client has kept the upstream waiting for long enough.
    async fn free(&self, upstream: &UpstreamConn, patience_us: u64) -> Result<bool, Fault> {
        if self.is_free() {
            return Ok(true);
        }
        let since_us = self.core.clock.refresh();
        let until_us = since_us.saturating_add(patience_us);
        let done = std::future::poll_fn(|cx| {
            if self.broken.get() {
                return Poll::Ready(Err(Fault::ClientGone));
            }
            if self.is_free() {
                return Poll::Ready(Ok(true));
            }
            if self.core.clock.now_us() >= until_us {
                return Poll::Ready(Ok(false));
            }
            upstream.deadline.watch_quiet(until_us / 1000, cx.waker());
            Poll::Pending
        })
        .await;
        upstream.deadline.forget_quiet();
        if patience_us != u64::MAX {
            let waited_us = self.core.clock.refresh().saturating_sub(since_us);
            self.patience_us.set(patience_us.saturating_sub(waited_us));
        }
        done
    }

    /// Brings a piece to the sending part, past a client that is slow or not.
    async fn pass(&self, upstream: &UpstreamConn, piece: Buf) -> Result<(), Fault> {
        if !self.free(upstream, self.patience_us.get()).await? {
            match self.room(piece.len() as u64) {
                Some(spool) => {
                    let (result, piece) = spool.append(piece).await;
                    self.core.buffers.give(piece);
                    self.stirred.set(true);
                    // The piece is lost, and with it the rest.
                    return result.map_err(|_| Fault::Truncated);
                }
                None => {
                    self.free(upstream, u64::MAX).await?;
                }
            }
        }
        self.hand_over(piece);
        Ok(())
    }

    /// The file, if it may take so many bytes more.
    fn room(&self, bytes: u64) -> Option<&Spool> {
        let rules = self.core.rules();
        let settings = &rules.settings;
        let (file_max, all_max) = (settings.proxy_temp_file_bytes_max, settings.proxy_temp_bytes_max);
        if file_max == 0 || all_max == 0 {
            return None;
        }
        if self.spool.get().is_none() {
            match Spool::open(&settings.proxy_temp_path, self.core.spooled.responses.clone()) {
                Ok(spool) => drop(self.spool.set(spool)),
                Err(_) => {
                    self.core.counters.bodies_not_spooled.add();
                    self.patience_us.set(u64::MAX);
                }
            }
        }
        let spool = self.spool.get()?;
        if self.unsent().is_none() {
            spool.rewind();
            self.taken.set(0);
        }
        (spool.len() + bytes <= file_max && spool.reserve(bytes, all_max)).then_some(spool)
    }
}

impl Job<'_> {
    /// Sends `first`, framed and with the head before it, then the rest of the body as it comes.
    ///
    /// # Errors
    /// [`Fault::Truncated`] when the upstream did not send all of it; the client's connection must then end visibly.
    pub async fn relay_rest(
        &mut self,
        upstream: UpstreamConn,
        first: Buf,
        mut body: ResponseBody,
        relay: &Relay,
    ) -> Result<(), Fault> {
        let Job { core, client, x, .. } = self;
        let lane = Lane::new(core, relay.buffers);
        lane.hand_over(first);
        let mut received = None;
        let mut sent = None;
        let mut bytes_sent = 0;
        {
            let mut receiving = std::pin::pin!(receive(&lane, upstream, &mut body, x, relay));
            let mut sending = std::pin::pin!(send(&lane, client, &mut bytes_sent));
            std::future::poll_fn(|cx| {
                loop {
                    lane.stirred.set(false);
                    if received.is_none() {
                        received = ready(receiving.as_mut(), cx);
                        if received.is_some() {
                            lane.set(&lane.ended);
                        }
                    }
                    if sent.is_none() {
                        sent = ready(sending.as_mut(), cx);
                        if matches!(sent, Some(Err(_))) {
                            lane.set(&lane.broken);
                        }
                    }
                    match (&received, &sent) {
                        (Some(_), Some(_)) => return Poll::Ready(()),
                        _ if lane.stirred.get() => {}
                        _ => return Poll::Pending,
                    }
                }
            })
            .await;
        }
        x.bytes_sent += bytes_sent;
        match (received, sent) {
            (_, Some(Err(fault))) => Err(fault),
            (Some(Err(fault)), _) => Err(fault),
            _ => Ok(()),
        }
    }
}

fn ready<T>(future: std::pin::Pin<&mut impl Future<Output = T>>, cx: &mut Context<'_>) -> Option<T> {
    match future.poll(cx) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// The part that receives: until the end of the body, or of the upstream, or of the client.
async fn receive(
    lane: &Lane<'_>,
    mut upstream: UpstreamConn,
    body: &mut ResponseBody,
    x: &mut Exchange,
    relay: &Relay,
) -> Result<(), Fault> {
    let core = lane.core;
    loop {
        start_next(core, &mut upstream, body, x.body_bytes_sent);
        // Counted from here: while a slow client was served, the upstream was not waited for.
        upstream.deadline.arm(core.clock.refresh() / 1000 + relay.read_timeout_ms);
        let (result, mut piece) = lane.unless_broken(upstream.conn.reader.done()).await?;
        upstream.deadline.clear();
        match result {
            Ok(count) if count > 0 => body.take(&mut piece).ok_or(Fault::Truncated)?,
            Ok(_) if body.ends_with_connection() && !upstream.deadline.is_over() => body.complete = true,
            _ => return Err(Fault::Truncated),
        }
        x.show_piece(core, piece.bytes(), body.complete);
        x.body_bytes_sent += piece.len() as u64;
        if relay.encoding == Encoding::Chunked {
            frame_chunk(&mut piece, body.complete);
        }
        match piece.is_empty() {
            true => core.buffers.give(piece),
            false => lane.pass(&upstream, piece).await?,
        }
        if body.complete {
            x.end_answer(core.clock.now_us());
            if let Some(addr) = relay.reuse.filter(|_| !body.surplus) {
                park(core, addr, upstream);
            }
            return Ok(());
        }
    }
}

/// The part that sends. Counts the bytes that the client has taken.
async fn send(lane: &Lane<'_>, client: &mut Client, bytes_sent: &mut u64) -> Result<(), Fault> {
    let core = lane.core;
    let Client { deadline, conn, .. } = client;
    while let Some(work) = lane.work().await {
        let piece = match (work, lane.spool.get()) {
            (Work::Piece(piece), _) => piece,
            (Work::Spooled, None) => continue,
            (Work::Spooled, Some(spool)) => {
                let mut piece = core.buffers.stream.take();
                piece.clear();
                let (result, piece) = spool.read(lane.taken.get(), piece).await;
                result.map_err(|_| Fault::Truncated)?;
                lane.taken.set(lane.taken.get() + piece.len() as u64);
                piece
            }
        };
        // A client may take its time as long as it takes something.
        deadline.arm(core.clock.now_ms() + limits::CLIENT_WRITE_MS);
        let progress = || deadline.arm(core.clock.refresh() / 1000 + limits::CLIENT_WRITE_MS);
        let len = piece.len() as u64;
        let (result, piece) = conn.writer.write_all(piece, progress).await;
        *bytes_sent += len - piece.len() as u64;
        core.buffers.give(piece);
        deadline.clear();
        result.map_err(|_| Fault::ClientGone)?;
    }
    Ok(())
}

/// Starts the next read, with a large buffer where much is to come.
fn start_next(core: &Core, upstream: &mut UpstreamConn, body: &ResponseBody, received: u64) {
    let much = match body.left() {
        Some(left) => left > limits::UPSTREAM_READ_BYTES as u64,
        None => received > limits::STREAM_BUFFER_BYTES as u64,
    };
    let stock = if much { &core.buffers.stream } else { &core.buffers.upstream };
    let mut buf = stock.take();
    buf.clear_with_headroom(PIECE_HEADROOM_BYTES);
    upstream.conn.reader.start(buf);
}

/// Gives a connection back that can carry another request.
pub fn park(core: &Core, addr: SocketAddr, mut upstream: UpstreamConn) {
    listen(core, &mut upstream);
    let size_max = core.rules().settings.upstream_keepalive_pool_size as usize;
    core.pool.park(addr, upstream, core.clock.now_ms(), size_max);
}
