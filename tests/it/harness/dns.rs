//! A name server whose table the test changes while it runs, over UDP and TCP.
//! Owns: one port for both, and what is answered there. Always: every question is counted, also one that gets no answer.

use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::harness::PATIENCE;
use crate::harness::eventually;
use crate::harness::port::Port;

const HEADER_BYTES: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const TYPE_CNAME: [u8; 2] = [0, 5];
const TYPE_SRV: [u8; 2] = [0, 33];
const CLASS_IN: [u8; 2] = [0, 1];
/// A name that stands at the beginning of the question.
const NAME_OF_QUESTION: [u8; 2] = [0xC0, HEADER_BYTES as u8];
/// An answer, recursion asked for and available.
const ANSWER: [u8; 2] = [0x81, 0x80];
const CUT: u8 = 0x02;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: &'static str,
}

/// What is said about a name; nothing about types of records that are not in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// A records in this order.
    Addresses(Vec<Ipv4Addr>, u32),
    /// SRV records, with a time to live.
    Services(Vec<Srv>, u32),
    /// A CNAME record with a time to live, without the records of the name that it leads to.
    Alias(&'static str, u32),
    /// NOERROR without a record.
    Empty,
    /// NXDOMAIN; what is said about every name that is not in the table.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    Nothing,
}

/// The name server.
pub struct Dns {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    port: Arc<Port>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<HashMap<String, Says>>,
    asked: Mutex<HashMap<String, usize>>,
    asked_over_tcp: Mutex<HashMap<String, usize>>,
    cuts: AtomicBool,
    closing: AtomicBool,
}

impl Dns {
    /// A server that knows no name.
    pub fn start() -> Self {
        Self::at(Arc::new(Port::reserve()))
    }

    fn at(port: Arc<Port>) -> Self {
        let shared = Arc::new(Shared::default());
        let udp = UdpSocket::bind(("127.0.0.1", port.number)).expect("a reserved port is free");
        let tcp = TcpListener::bind(("127.0.0.1", port.number)).expect("a reserved port is free");
        let (of_udp, of_tcp) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || of_udp.serve_datagrams(&udp)),
            std::thread::spawn(move || of_tcp.serve_connections(&tcp)),
        ];
        Self { shared, threads, port }
    }

    /// Ends the server and starts another one, with an empty table, at the same address.
    pub fn restarted(self) -> Self {
        let port = self.port.clone();
        drop(self);
        Self::at(port)
    }

    /// Ends the server; its address stays reserved.
    pub fn stop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Both threads are waiting for somebody.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], ("127.0.0.1", self.port.number));
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port.number));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Its address, as `dns_resolver` takes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }

    /// Sets what is said about a name from now on.
    pub fn say(&self, name: &str, says: Says) {
        self.shared.table.lock().expect("no panic while holding it").insert(name.to_owned(), says);
    }

    /// Sets the addresses 127.0.0.x of a name, and their time to live in seconds.
    pub fn set(&self, name: &str, last_bytes: &[u8], ttl_s: u32) {
        let ips = last_bytes.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last));
        self.say(name, Says::Addresses(ips.collect(), ttl_s));
    }

    /// From now on answers over UDP are cut, so that questions are repeated over TCP.
    pub fn cut(&self) {
        self.shared.cuts.store(true, Ordering::SeqCst);
    }

    /// How often a name was asked for; a repetition of a question counts.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().expect("no panic while holding it").get(name).copied().unwrap_or(0)
    }

    /// How often a name was asked for over TCP.
    pub fn asked_over_tcp(&self, name: &str) -> usize {
        self.shared.asked_over_tcp.lock().expect("no panic while holding it").get(name).copied().unwrap_or(0)
    }

    /// Waits until a name was asked for `more` times more than by now.
    #[track_caller]
    pub fn asked_again(&self, name: &str, more: usize) {
        let wanted = self.asked(name) + more;
        eventually(&format!("question {wanted} for {name}"), || (self.asked(name) >= wanted).then_some(()));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut query = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut query) {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            if let Some(answer) = self.answer(&query[..count], self.cuts.load(Ordering::SeqCst)) {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// One question on each connection.
    fn serve_connections(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            let _ = stream.map(|stream| self.serve_connection(stream));
        }
    }

    fn serve_connection(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(PATIENCE / 4)).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).ok()?;
        let (name, ..) = question(&query)?;
        *self.asked_over_tcp.lock().expect("no panic while holding it").entry(name).or_default() += 1;
        let answer = self.answer(&query, false)?;
        let length = u16::try_from(answer.len()).expect("a short table");
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).ok()
    }

    fn answer(&self, query: &[u8], cut: bool) -> Option<Vec<u8>> {
        let (name, kind, end) = question(query)?;
        // Looked up first: who has seen the count knows which table was read.
        let says = self.says(&name);
        *self.asked.lock().expect("no panic while holding it").entry(name).or_default() += 1;
        let (code, records): (u8, Vec<Vec<u8>>) = match &says {
            Says::Nothing => return None,
            Says::Failure => (SERVER_FAILURE, vec![]),
            Says::NoSuchName => (NAME_ERROR, vec![]),
            Says::Empty => (0, vec![]),
            _ if cut => (0, vec![]),
            Says::Addresses(ips, ttl_s) if kind == TYPE_A => {
                (0, ips.iter().map(|ip| record(TYPE_A, *ttl_s, &ip.octets())).collect())
            }
            Says::Services(services, ttl_s) if kind == TYPE_SRV => {
                (0, services.iter().map(|srv| record(TYPE_SRV, *ttl_s, &srv.data())).collect())
            }
            Says::Addresses(..) | Says::Services(..) => (0, vec![]),
            Says::Alias(other, ttl_s) => (0, vec![record(TYPE_CNAME, *ttl_s, &labels(other))]),
        };
        let mut answer = query[..2].to_vec();
        answer.extend([ANSWER[0] | if cut { CUT } else { 0 }, ANSWER[1] | code]);
        answer.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend_from_slice(&query[HEADER_BYTES..end]);
        answer.extend(records.concat());
        Some(answer)
    }

    /// A name of the table also answers for itself with a search domain behind it, so that it does not matter which ones
    /// this machine has.
    fn says(&self, name: &str) -> Says {
        let table = self.table.lock().expect("no panic while holding it");
        let is_meant =
            |known: &str| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        table.iter().find(|(known, _)| is_meant(known)).map_or(Says::NoSuchName, |(_, says)| says.clone())
    }
}

impl Srv {
    fn data(&self) -> Vec<u8> {
        let numbers = [self.priority, self.weight, self.port].map(u16::to_be_bytes).concat();
        [numbers, labels(self.target)].concat()
    }
}

/// The name that is asked for, in small letters and without the last dot, the type, and where the question ends.
fn question(query: &[u8]) -> Option<(String, [u8; 2], usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            let kind = query.get(at..at + 2)?.try_into().ok()?;
            return (at + 4 <= query.len()).then(|| (labels.join("."), kind, at + 4));
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

fn record(kind: [u8; 2], ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&NAME_OF_QUESTION, &kind, &CLASS_IN, ttl_s.to_be_bytes().as_slice(), &length, data].concat()
}

fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}
