//! HOT: between two requests of a connection nothing is allocated.
//! The keep-alive loop and the timeouts of one client connection.
//! Owns: the client's socket and what was received of it. Never: knows what a request means.
//! Always: a malformed head is answered and ends the connection; a panic while serving costs that connection alone.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use crate::http::parse::Progress;
use crate::http::parse::parse_request;
use crate::http::proxy_protocol::BadPreface;
use crate::http::proxy_protocol::Preface;
use crate::http::proxy_protocol::PrefaceProgress;
use crate::http::proxy_protocol::parse_preface;
use crate::limits;
use crate::plugins::view::ConnFacts;
use crate::proxy::buffers::Buf;
use crate::proxy::core::Core;
use crate::proxy::deadline::Deadline;
use crate::proxy::exchange;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Next;
use crate::proxy::io::Conn;
use crate::proxy::io::ReadDone;
use crate::proxy::reply;

/// A client's connection.
pub struct Client {
    // Before the connection: it must be gone when the descriptor closes.
    pub deadline: Deadline,
    pub conn: Conn,
    /// Received and not used up; the head of the request in work stands at its front.
    pub buf: Buf,
    /// What was received behind a streamed body: the beginning of the next request.
    pub extra: Vec<u8>,
    pub facts: ConnFacts,
    /// The client that the preface of the connection named.
    pub preface_ip: Option<IpAddr>,
}

impl Client {
    /// Leaves a finished request behind, `taken` bytes of the buffer.
    pub fn next_request(&mut self, taken: usize) {
        leave_request(&mut self.buf, &mut self.extra, taken);
    }
}

/// Leaves in `buf` what came behind a request: behind its `taken` bytes of the buffer, or, when its body was streamed,
/// in `extra`.
pub fn leave_request(buf: &mut Buf, extra: &mut Vec<u8>, taken: usize) {
    buf.consume(taken);
    if !extra.is_empty() {
        buf.clear();
        buf.extend(extra);
        extra.clear();
    }
}

impl Client {
    /// Starts the read of the next request already, so that the client is heard while this one waits for its upstream: its
    /// end, above all. Only when nothing of that request is at hand; `taken` bytes of the buffer belong to this one.
    pub fn listen(&mut self, core: &Core, taken: usize) {
        if self.buf.len() <= taken && self.extra.is_empty() && !self.conn.reader.is_started() {
            self.conn.reader.start(core.buffers.client.take());
        }
    }

    /// Whether the client has ended its side, or the connection broke: seen as long as a read is under way.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let gone = |done: &ReadDone| !matches!(done, (Ok(count), _) if *count > 0);
        let reader = &mut self.conn.reader;
        reader.is_started() && reader.poll_ended(cx).is_ready() && reader.peek(gone) == Some(true)
    }

    /// Does something that the client waits for. `None`: it went away before.
    pub async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.poll_gone(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// What waiting for a head came to.
enum Head {
    Complete,
    /// The client ended the connection.
    End,
    /// An error page is due; `status`, and the status whose text it carries.
    Refused(u16, u16),
}

/// Serves a client until its connection ends, in whatever way.
///
/// `has_preface`: it begins with the PROXY protocol.
pub async fn serve(core: Rc<Core>, conn: Conn, facts: ConnFacts, has_preface: bool) {
    core.counters.active.add();
    if catch(serve_requests(&core, conn, facts, has_preface)).await.is_none() {
        core.counters.panics.add();
    }
    core.counters.active.sub();
}

async fn serve_requests(core: &Rc<Core>, conn: Conn, facts: ConnFacts, has_preface: bool) {
    let deadline = core.deadlines.watch(conn.fd());
    let buf = core.buffers.client.take();
    let mut client = Client { deadline, conn, buf, extra: Vec::new(), facts, preface_ip: None };
    if has_preface && read_preface(core, &mut client).await.is_none() {
        return core.buffers.client.give(client.buf);
    }
    let mut first = true;
    let next = loop {
        if !await_request(core, &mut client, first).await {
            break Next::Close;
        }
        first = false;
        let mut x = core.take_exchange();
        let next = match read_head(core, &mut client, &mut x).await {
            Head::End => Next::Close,
            Head::Refused(status, text_of) => reply::refuse_head(core, &mut client, &mut x, status, text_of).await,
            Head::Complete => match catch(exchange::serve(core, &mut client, &mut x)).await {
                Some(next) => next,
                None => {
                    core.counters.panics.add();
                    reply::after_panic(core, &mut client, &mut x).await
                }
            },
        };
        core.give_exchange(x);
        if next != Next::KeepAlive {
            break next;
        }
    };
    if next == Next::Linger {
        linger(core, &mut client).await;
    }
    core.buffers.client.give(std::mem::take(&mut client.buf));
}

/// Reads the preface of the PROXY protocol. `None`: there is none in time, and whoever speaks here is not who we were told
/// to expect, so nothing is answered.
async fn read_preface(core: &Core, client: &mut Client) -> Option<()> {
    client.deadline.arm_reading(core.clock.now_ms() + core.rules().settings.client_header_timeout_ms);
    client.deadline.set_idle(true);
    loop {
        match parse_preface(client.buf.bytes()) {
            Ok(PrefaceProgress::Complete(preface, len)) => {
                client.buf.consume(len);
                if let Preface::Client(addr) = preface {
                    client.preface_ip = Some(addr.ip().to_canonical());
                }
                client.deadline.set_idle(false);
                return Some(());
            }
            Ok(PrefaceProgress::NeedMore) => {}
            Err(BadPreface) => return None,
        }
        if client.buf.room() == 0 {
            client.buf.reserve(limits::PROXY_PREFACE_BYTES_MAX);
        }
        let buf = std::mem::take(&mut client.buf);
        let (result, buf) = client.conn.reader.read(buf).await;
        client.buf = buf;
        result.ok().filter(|count| *count > 0)?;
    }
}

/// Waits until bytes of a request are there. `false`: the connection ended, or was idle for too long.
async fn await_request(core: &Core, client: &mut Client, first: bool) -> bool {
    if !client.buf.is_empty() {
        client.buf.compact();
        return true;
    }
    client.buf.clear();
    if !first && core.draining.get() {
        return false;
    }
    let rules = core.rules();
    let settings = &rules.settings;
    let timeout_ms = if first { settings.client_header_timeout_ms } else { settings.client_keepalive_timeout_ms };
    // As of the end of the last request, or of the last sweep for a new connection.
    client.deadline.arm_reading(core.clock.now_ms() + timeout_ms);
    client.deadline.set_idle(true);
    core.counters.waiting.add();
    if !client.conn.reader.is_started() {
        client.conn.reader.start(std::mem::take(&mut client.buf));
    }
    let (result, buf) = client.conn.reader.done().await;
    core.buffers.client.give(std::mem::replace(&mut client.buf, buf));
    core.counters.waiting.sub();
    client.deadline.set_idle(false);
    matches!(result, Ok(count) if count > 0)
}

/// Reads on until the request head that has begun is complete.
async fn read_head(core: &Core, client: &mut Client, x: &mut Exchange) -> Head {
    let rules = core.rules();
    client.deadline.arm_reading(core.clock.refresh() / 1000 + rules.settings.client_header_timeout_ms);
    loop {
        match parse_request(client.buf.bytes(), &rules.request_limits, &mut x.head) {
            Ok(Progress::Complete) => break,
            Ok(Progress::NeedMore) => {}
            Err(bad) => return Head::Refused(bad.status(), bad.message_status()),
        }
        if client.buf.room() == 0 {
            client.buf.reserve(client.buf.len().max(limits::CLIENT_READ_BYTES));
        }
        let buf = std::mem::take(&mut client.buf);
        let (result, buf) = client.conn.reader.read(buf).await;
        client.buf = buf;
        if !matches!(result, Ok(count) if count > 0) {
            return if client.deadline.is_over() { Head::Refused(408, 408) } else { Head::End };
        }
    }
    client.deadline.clear();
    Head::Complete
}

/// Ends the writing side and listens until the client has ended too, for a short time and without keeping anything.
async fn linger(core: &Core, client: &mut Client) {
    client.conn.shutdown_write();
    client.deadline.arm(core.clock.refresh() / 1000 + limits::LINGER_MS);
    let mut dropped = 0u64;
    while dropped < limits::REQUEST_BODY_DRAINED_BYTES {
        if !client.conn.reader.is_started() {
            client.conn.reader.start(core.buffers.client.take());
        }
        let (result, buf) = client.conn.reader.done().await;
        core.buffers.client.give(buf);
        match result {
            Ok(count) if count > 0 => dropped += count as u64,
            _ => break,
        }
    }
}

/// Runs a future to its end, or to its panic (`None`), which is logged by the panic hook.
pub async fn catch<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_panic) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn run<F: Future>(future: F) -> F::Output {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("nothing to wait for"),
        }
    }

    #[test]
    fn a_panic_ends_the_future_and_not_the_thread() {
        assert_eq!(run(catch(async { 7 })), Some(7));
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let caught = run(catch(async {
            if true {
                panic!("boom")
            }
        }));
        std::panic::set_hook(hook);
        assert_eq!(caught, None);
    }
}
