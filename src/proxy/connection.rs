//! HOT: between two requests of a connection nothing is allocated.
//! The keep-alive loop and the timeouts of one client connection, which has a task as long as something happens on it and
//! is parked otherwise.
//! Owns: the client's socket and what was received of it. Never: knows what a request means.
//! Always: a malformed head is answered and ends the connection; a panic while serving costs that connection alone.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use crate::http::head::Resume;
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
use crate::proxy::io::is_cancelled;
use crate::proxy::parked::Resting;
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
            self.await_quietly(core, core.buffers.client.take());
        }
    }

    /// Starts a read into an empty buffer that may have to be taken back.
    fn await_quietly(&mut self, core: &Core, buf: Buf) {
        match core.withdraws_reads {
            true => self.conn.reader.start(buf),
            false => self.conn.reader.start_cancellable(buf),
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

/// What a connection's task begins with.
pub struct Arrival {
    pub conn: Conn,
    pub facts: ConnFacts,
    pub entry: Arrived,
}

/// How a connection comes to have a task.
pub enum Arrived {
    /// It is new; it may have to begin with the PROXY protocol.
    New { has_preface: bool },
    /// It was parked: what had come of a head, until when the rest must have, and the client that its preface named.
    Parked { begun: Box<[u8]>, until_ms: u64, preface_ip: Option<IpAddr> },
}

/// How a request comes to be waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The first of a connection.
    First,
    /// The next of a connection.
    Next,
    /// Taken up again after a time in the park, because there is something to read, or because the time given is up.
    Again(u64),
}

/// What waiting for a head came to.
enum Awaited {
    Request(Box<Exchange>),
    /// An error page is due; `status`, and the status whose text it carries.
    Refused(Box<Exchange>, u16, u16),
    /// The connection ended, or was idle for too long.
    End,
    /// Nothing comes: what is awaited may take until then, and needs no task.
    Park(u64),
}

/// What a read while a head is awaited brought.
enum Received {
    Bytes,
    End,
    /// Nothing, for long.
    Quiet,
}

/// Begins to serve a new client. `has_preface`: its connection begins with the PROXY protocol.
pub fn open(core: &Rc<Core>, conn: Conn, facts: ConnFacts, has_preface: bool) {
    core.counters.active.add();
    monoio::spawn(serve(core.clone(), Arrival { conn, facts, entry: Arrived::New { has_preface } }));
}

/// Takes a parked connection up again.
pub fn reopen(core: &Rc<Core>, resting: Resting) {
    core.counters.parked.sub();
    if resting.begun.is_empty() {
        core.counters.waiting.sub();
    }
    match Conn::of_socket(resting.socket) {
        Ok(conn) => {
            let Resting { facts, begun, until_ms, preface_ip, .. } = resting;
            let entry = Arrived::Parked { begun, until_ms, preface_ip };
            monoio::spawn(serve(core.clone(), Arrival { conn, facts, entry }));
        }
        Err(_) => core.counters.active.sub(),
    }
}

/// Ends a parked connection without a word, as is due to one that is between two requests.
pub fn end_parked(core: &Core, resting: Resting) {
    core.counters.parked.sub();
    if resting.begun.is_empty() {
        core.counters.waiting.sub();
    }
    core.counters.active.sub();
}

/// Descriptors are short: ends some of the connections that were served and wait for a next request, those that have
/// waited longest, so that who has a request is served. Answers whether there were any.
pub fn make_room(core: &Core) -> bool {
    let before = core.parked.len();
    core.parked.take_spare((before / 64).max(limits::SPARED_AT_LEAST), |resting| end_parked(core, resting));
    core.parked.len() < before
}

/// Ends the parked connections whose time is up; who has begun a request is told.
pub fn end_overdue(core: &Rc<Core>) {
    core.parked.take_due(core.clock.now_ms(), |resting| match resting.begun.is_empty() {
        true => end_parked(core, resting),
        false => reopen(core, resting),
    });
}

/// Serves a client until its connection ends, in whatever way, or is parked.
async fn serve(core: Rc<Core>, arrival: Arrival) {
    let served = catch(serve_requests(&core, arrival)).await;
    if served.is_none() {
        core.counters.panics.add();
    }
    if let Some(Some(resting)) = served {
        let is_idle = resting.begun.is_empty();
        if core.parked.insert(resting).is_ok() {
            core.counters.parked.add();
            if is_idle {
                core.counters.waiting.add();
            }
            return;
        }
    }
    core.counters.active.sub();
}

/// Until the first request is there a connection has this small future; what serving needs comes with it.
async fn serve_requests(core: &Rc<Core>, arrival: Arrival) -> Option<Resting> {
    let Arrival { conn, facts, entry } = arrival;
    let deadline = core.deadlines.watch(conn.fd());
    let mut client = Client { deadline, conn, buf: Buf::default(), extra: Vec::new(), facts, preface_ip: None };
    let entry = match entry {
        Arrived::New { has_preface } => {
            if has_preface && read_preface(core, &mut client).await.is_none() {
                core.buffers.give(std::mem::take(&mut client.buf));
                return None;
            }
            Entry::First
        }
        Arrived::Parked { begun, until_ms, preface_ip } => {
            client.preface_ip = preface_ip;
            if !begun.is_empty() {
                client.buf = core.buffers.first.take();
                client.buf.extend(&begun);
            }
            Entry::Again(until_ms)
        }
    };
    match await_request(core, &mut client, entry).await {
        Awaited::End => None,
        Awaited::Park(until_ms) => client.park(core, until_ms),
        request => Box::pin(serve_from(core, client, request)).await,
    }
}

/// Serves the request that has come and those after it.
async fn serve_from(core: &Rc<Core>, mut client: Client, mut awaited: Awaited) -> Option<Resting> {
    let next = loop {
        let (x, next) = match awaited {
            Awaited::End => break Next::Close,
            Awaited::Park(until_ms) => return client.park(core, until_ms),
            Awaited::Refused(mut x, status, text_of) => {
                let next = reply::refuse_head(core, &mut client, &mut x, status, text_of).await;
                (x, next)
            }
            Awaited::Request(mut x) => {
                let next = match catch(exchange::serve(core, &mut client, &mut x)).await {
                    Some(next) => next,
                    None => {
                        core.counters.panics.add();
                        reply::after_panic(core, &mut client, &mut x).await
                    }
                };
                (x, next)
            }
        };
        core.give_exchange(x);
        if next != Next::KeepAlive {
            break next;
        }
        awaited = await_request(core, &mut client, Entry::Next).await;
    };
    if next == Next::Linger {
        linger(core, &mut client).await;
    }
    core.buffers.give(std::mem::take(&mut client.buf));
    None
}

/// Reads the preface of the PROXY protocol. `None`: there is none in time, and whoever speaks here is not who we were told
/// to expect, so nothing is answered.
async fn read_preface(core: &Core, client: &mut Client) -> Option<()> {
    client.deadline.arm_reading(core.clock.now_ms() + core.rules().settings.client_header_timeout_ms);
    client.deadline.set_idle(true);
    client.buf = core.buffers.first.take();
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

/// Waits until the head of a request is complete.
async fn await_request(core: &Core, client: &mut Client, entry: Entry) -> Awaited {
    let rules = core.rules();
    let settings = &rules.settings;
    let mut head_until_ms = None;
    if client.buf.is_empty() {
        if entry == Entry::Next && core.draining.get() {
            return Awaited::End;
        }
        // As of the end of the last request, or of the last sweep for a new connection.
        let until_ms = match entry {
            Entry::First => core.clock.now_ms() + settings.client_header_timeout_ms,
            Entry::Next => core.clock.now_ms() + settings.client_keepalive_timeout_ms,
            Entry::Again(until_ms) => until_ms,
        };
        client.deadline.arm_reading(until_ms);
        client.deadline.set_idle(true);
        core.counters.waiting.add();
        if !client.conn.reader.is_started() {
            client.prepare_buffer(core, entry);
        }
        let received = client.receive(core).await;
        core.counters.waiting.sub();
        client.deadline.set_idle(false);
        match received {
            Received::Bytes => {}
            Received::End => return Awaited::End,
            Received::Quiet => return Awaited::Park(until_ms),
        }
    } else {
        client.buf.compact();
        if let Entry::Again(until_ms) = entry {
            head_until_ms = Some(until_ms);
        }
    }
    // The clock is asked here: a request begins with the first bytes of its head.
    let now_ms = core.clock.refresh() / 1000;
    let until_ms = head_until_ms.unwrap_or(now_ms + settings.client_header_timeout_ms);
    client.deadline.arm_reading(until_ms);
    let mut resume = Resume::default();
    loop {
        let mut x = core.take_exchange();
        x.head.resume = resume;
        match parse_request(client.buf.bytes(), &rules.request_limits, &mut x.head) {
            Ok(Progress::Complete) => {
                client.deadline.clear();
                return Awaited::Request(x);
            }
            Ok(Progress::NeedMore) => {}
            Err(bad) => return Awaited::Refused(x, bad.status(), bad.message_status()),
        }
        // Lent again for the next look: a client that takes its time holds none.
        resume = x.head.resume;
        core.give_exchange(x);
        if client.buf.room() == 0 {
            client.buf.reserve(client.buf.len().max(limits::CLIENT_READ_BYTES));
        }
        match client.receive(core).await {
            Received::Bytes => {}
            Received::End if client.deadline.is_over() => return Awaited::Refused(core.take_exchange(), 408, 408),
            Received::End => return Awaited::End,
            Received::Quiet => return Awaited::Park(until_ms),
        }
    }
}

impl Client {
    /// A buffer for the next head: a small one as long as nothing speaks for the client, the usual one afterwards.
    fn prepare_buffer(&mut self, core: &Core, entry: Entry) {
        self.buf.clear();
        let wanted = if entry == Entry::First { limits::FIRST_READ_BYTES } else { limits::CLIENT_READ_BYTES };
        if self.buf.capacity() < wanted {
            let small = std::mem::take(&mut self.buf);
            core.buffers.give(small);
            let stock = if entry == Entry::First { &core.buffers.first } else { &core.buffers.client };
            self.buf = stock.take();
        }
    }

    /// Reads more behind what is there. After a while without anything the read is taken back from the kernel.
    async fn receive(&mut self, core: &Core) -> Received {
        if !self.conn.reader.is_started() {
            let buf = std::mem::take(&mut self.buf);
            match buf.is_empty() {
                true => self.await_quietly(core, buf),
                // Withdrawn, it would take with it what has come of the head.
                false => self.conn.reader.start_cancellable(buf),
            }
        }
        let quiet_at_ms = core.clock.now_ms() + limits::PARK_MS;
        let (reader, deadline) = (&mut self.conn.reader, &self.deadline);
        let mut given_up = false;
        let received = std::future::poll_fn(|cx| {
            if !given_up && core.clock.now_ms() >= quiet_at_ms && !reader.has_ended(cx) {
                if reader.is_cancellable() {
                    given_up = true;
                    reader.cancel();
                } else if core.may_withdraw() {
                    // The read goes with the task; otherwise it is asked again at the next sweep.
                    return Poll::Ready(None);
                }
            }
            let done = reader.poll_done(cx);
            if done.is_pending() && !given_up {
                deadline.watch_quiet(quiet_at_ms, cx.waker());
            }
            done.map(Some)
        })
        .await;
        deadline.forget_quiet();
        let Some((result, buf)) = received else { return Received::Quiet };
        core.buffers.give(std::mem::replace(&mut self.buf, buf));
        match result {
            Ok(count) if count > 0 => Received::Bytes,
            result if given_up && is_cancelled(&result) && !self.deadline.is_over() => Received::Quiet,
            _ => Received::End,
        }
    }

    /// Keeps what must be kept of a client on which nothing comes. `None`: the connection is over.
    fn park(self, core: &Core, until_ms: u64) -> Option<Resting> {
        let Self { deadline, conn, buf, facts, preface_ip, .. } = self;
        drop(deadline);
        let begun = buf.bytes().into();
        core.buffers.give(buf);
        Some(Resting { socket: conn.into_socket()?, facts, preface_ip, begun, until_ms })
    }
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
        core.buffers.give(buf);
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
