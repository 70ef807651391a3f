//! A load generator that costs less than what it measures. One thread, one ring.
//!
//! `load generate --to 127.0.0.1:8080 --path /api/small --connections 64 --seconds 5 [--post BYTES] [--close] [--rate PER_SECOND]
//! [--header 'apikey: secret']`
//!
//! Closed loop: each connection asks again as soon as it is answered. With `--rate` open loop: requests are due at fixed
//! times whatever the answers do, and latency counts from when a request was due, so that waiting for a free connection
//! is part of it. With `--close` every request has a connection of its own, which the proxy closes.
//! Prints one line of JSON.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::time::Instant;

use crate::ring;
use crate::ring::Ring;
use socket2::SockAddr;
use socket2::Socket;

const READ_BYTES: usize = 64 << 10;
/// A request that waits for longer at the end of the run counts as never answered.
const STALLED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum State {
    Connecting,
    Idle,
    Sending,
    /// Reading the head of the answer, or its body: bytes left.
    Head,
    Body(usize),
    /// Waiting for the proxy to close.
    Closing,
}

struct Connection {
    socket: Socket,
    state: State,
    buf: Box<[u8]>,
    len: usize,
    sent: usize,
    /// Whether the answer ends the connection.
    last: bool,
    due: Instant,
}

#[derive(Default)]
struct Errors {
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
    status: u64,
}

/// Latencies in buckets of 1/64 of a power of two nanoseconds.
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    most_ns: u64,
}

impl Histogram {
    fn add(&mut self, ns: u64) {
        let ns = ns.max(64);
        let shift = 57 - ns.leading_zeros();
        self.buckets[shift as usize * 64 + (ns >> shift) as usize - 64] += 1;
        self.count += 1;
        self.most_ns = self.most_ns.max(ns);
    }

    /// Microseconds under which `share` of all are.
    fn quantile_us(&self, share: f64) -> f64 {
        let mut left = (self.count as f64 * share).ceil() as u64;
        for (at, &count) in self.buckets.iter().enumerate() {
            if left <= count {
                return ((at as u64 % 64 + 64) << (at / 64)) as f64 / 1e3;
            }
            left -= count;
        }
        self.most_ns as f64 / 1e3
    }
}

struct Load {
    ring: Ring,
    to: SocketAddr,
    address: SockAddr,
    request: Vec<u8>,
    close: bool,
    open_loop: bool,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    /// Requests that were due while no connection was idle.
    waiting: VecDeque<Instant>,
    latencies: Histogram,
    errors: Errors,
}

pub fn run() -> io::Result<()> {
    let to: SocketAddr = ring::option("to", None);
    let path: String = ring::option("path", Some("/".to_owned()));
    let body: usize = ring::option("post", Some(0));
    let count: usize = ring::option("connections", Some(64));
    let duration = Duration::from_secs_f64(ring::option("seconds", Some(5.0)));
    let rate: f64 = ring::option("rate", Some(0.0));
    let header: String = ring::option("header", Some(String::new()));
    let close = ring::flag("close");
    let method = if body > 0 { "POST" } else { "GET" };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if !header.is_empty() {
        request.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    if body > 0 {
        request.extend_from_slice(format!("Content-Length: {body}\r\n").as_bytes());
    }
    if close {
        request.extend_from_slice(b"Connection: close\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.resize(request.len() + body, b'x');
    let mut load = Load {
        ring: Ring::new()?,
        to,
        address: to.into(),
        request,
        close,
        open_loop: rate > 0.0,
        connections: Vec::with_capacity(count),
        idle: VecDeque::with_capacity(count),
        waiting: VecDeque::new(),
        latencies: Histogram { buckets: vec![0; 64 * 64], count: 0, most_ns: 0 },
        errors: Errors::default(),
    };
    for key in 0..count {
        let buf = vec![0; READ_BYTES].into();
        let due = Instant::now();
        let socket = ring::socket(to)?;
        load.connections.push(Connection { socket, state: State::Connecting, buf, len: 0, sent: 0, last: close, due });
        load.connect(key);
    }
    let start = Instant::now();
    load.run(start, duration, rate)?;
    load.print(start.elapsed());
    Ok(())
}

impl Load {
    fn run(&mut self, start: Instant, duration: Duration, rate: f64) -> io::Result<()> {
        let (end, mut scheduled) = (start + duration, 0u64);
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let mut until = end - now;
            if self.open_loop {
                let next = loop {
                    let due = start + Duration::from_secs_f64(scheduled as f64 / rate);
                    if due > now {
                        break due;
                    }
                    self.waiting.push_back(due);
                    scheduled += 1;
                };
                self.hand_out();
                until = until.min(next - now);
            }
            let done = self.ring.wait(Some(until))?;
            for &(key, result) in &done {
                self.go_on(key as usize, result);
            }
            self.ring.give_back(done);
        }
    }

    fn hand_out(&mut self) {
        while !self.waiting.is_empty()
            && let Some(key) = self.idle.pop_front()
        {
            self.connections[key].due = self.waiting.pop_front().expect("one was there");
            self.ask(key);
        }
    }

    fn connect(&mut self, key: usize) {
        self.connections[key].state = State::Connecting;
        let fd = self.connections[key].socket.as_raw_fd();
        self.ring.connect(fd, &self.address, key as u64);
    }

    /// A new connection in the place of one that is over.
    fn reconnect(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        connection.socket = ring::socket(self.to).unwrap_or_else(|error| ring::exit(&format!("no socket: {error}")));
        connection.due = Instant::now();
        self.connect(key);
    }

    fn ready(&mut self, key: usize) {
        self.connections[key].state = State::Idle;
        if self.open_loop {
            self.idle.push_back(key);
            self.hand_out();
        } else {
            // With a connection per request the connecting is part of the latency.
            if !self.close {
                self.connections[key].due = Instant::now();
            }
            self.ask(key);
        }
    }

    fn ask(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        (connection.state, connection.sent, connection.len) = (State::Sending, 0, 0);
        self.ring.send(connection.socket.as_raw_fd(), &self.request, key as u64);
    }

    fn recv(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let from = if connection.state == State::Head { connection.len } else { 0 };
        self.ring.recv(connection.socket.as_raw_fd(), &mut connection.buf[from..], key as u64);
    }

    fn go_on(&mut self, key: usize, result: i32) {
        let connection = &mut self.connections[key];
        match connection.state {
            State::Connecting if result < 0 => {
                self.errors.connect += 1;
                // A refused connection must not become a busy loop.
                std::thread::sleep(Duration::from_millis(1));
                self.reconnect(key);
            }
            State::Connecting => self.ready(key),
            State::Sending if result <= 0 => {
                self.errors.write += 1;
                self.reconnect(key);
            }
            State::Sending => {
                connection.sent += result as usize;
                if connection.sent < self.request.len() {
                    let fd = connection.socket.as_raw_fd();
                    self.ring.send(fd, &self.request[connection.sent..], key as u64);
                } else {
                    connection.state = State::Head;
                    self.recv(key);
                }
            }
            State::Closing => self.reconnect(key),
            State::Head | State::Body(_) if result <= 0 => {
                self.errors.read += 1;
                self.reconnect(key);
            }
            State::Head => self.head(key, result as usize),
            State::Body(left) => self.body(key, left.saturating_sub(result as usize)),
            State::Idle => {}
        }
    }

    fn head(&mut self, key: usize, count: usize) {
        let connection = &mut self.connections[key];
        connection.len += count;
        let Some(len) = ring::head_len(&connection.buf[..connection.len]) else {
            return match connection.len < connection.buf.len() {
                true => self.recv(key),
                false => ring::exit("the head of an answer is too long"),
            };
        };
        let head = &connection.buf[..len];
        if !matches!(head.get(9), Some(b'2' | b'3')) {
            self.errors.status += 1;
        }
        let Some(body) = ring::field(head, "content-length").and_then(|text| text.parse::<usize>().ok()) else {
            ring::exit("an answer without Content-Length");
        };
        connection.last =
            self.close || ring::field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let have = connection.len - len;
        self.body(key, body.saturating_sub(have));
    }

    fn body(&mut self, key: usize, left: usize) {
        let connection = &mut self.connections[key];
        if left > 0 {
            connection.state = State::Body(left);
            return self.recv(key);
        }
        self.latencies.add(connection.due.elapsed().as_nanos() as u64);
        if connection.last {
            connection.state = State::Closing;
            self.recv(key);
        } else {
            self.ready(key);
        }
    }

    fn print(&mut self, took: Duration) {
        let asked = |connection: &&Connection| !matches!(connection.state, State::Idle | State::Closing);
        let stalled = self.connections.iter().filter(asked).filter(|connection| connection.due.elapsed() > STALLED);
        self.errors.timeout = stalled.count() as u64;
        let (latencies, errors) = (&self.latencies, &self.errors);
        println!(
            "{{\"requests\":{},\"duration_us\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.1},\"unsent\":{},\
             \"errors\":{{\"connect\":{},\"read\":{},\"write\":{},\"timeout\":{},\"status\":{}}}}}",
            latencies.count,
            took.as_micros(),
            latencies.quantile_us(0.5),
            latencies.quantile_us(0.99),
            latencies.most_ns as f64 / 1e3,
            self.waiting.len(),
            errors.connect,
            errors.read,
            errors.write,
            errors.timeout,
            errors.status,
        );
    }
}
