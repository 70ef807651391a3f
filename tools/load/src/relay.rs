//! A blind relay of bytes: the floor under every proxy. It reads no HTTP, keeps no log, counts nothing; each client has an
//! upstream connection of its own, and what either side sends goes to the other as it came.
//!
//! `load relay --listen 127.0.0.1:8080 --to 127.0.0.1:9000`

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::RawFd;

use crate::ring;
use crate::ring::Ring;
use slab::Slab;
use socket2::SockAddr;
use socket2::Socket;

/// Bytes taken in one read, as nginx and HAProxy take.
const READ_BYTES: usize = 16 << 10;
const ACCEPT: u64 = u64::MAX;

/// One direction of a pair: read into `buf`, write all of it, read again.
struct Way {
    buf: Box<[u8]>,
    from: usize,
    until: usize,
    ended: bool,
}

/// A client and its upstream connection, ways 0 (to the upstream) and 1 (to the client).
struct Pair {
    sockets: [Socket; 2],
    ways: [Way; 2],
    in_flight: u8,
}

#[derive(Clone, Copy)]
enum Step {
    Connect,
    Recv,
    Send,
}

fn name(pair: usize, way: usize, step: Step) -> u64 {
    (pair as u64) << 8 | (way as u64) << 4 | step as u64
}

pub fn run() -> io::Result<()> {
    let listener = ring::listen(ring::option::<SocketAddr>("listen", None))?;
    let to: SocketAddr = ring::option("to", None);
    let address = SockAddr::from(to);
    let mut ring = Ring::new()?;
    let mut pairs: Slab<Pair> = Slab::new();
    ring.accept(listener.as_raw_fd(), ACCEPT);
    loop {
        let done = ring.wait(None)?;
        for &(id, result) in &done {
            if id == ACCEPT {
                ring.accept(listener.as_raw_fd(), ACCEPT);
                if result >= 0 {
                    let key = pairs.insert(pair(result, to)?);
                    let upstream = pairs[key].sockets[1].as_raw_fd();
                    ring.connect(upstream, &address, name(key, 0, Step::Connect));
                }
                continue;
            }
            let (key, way, step) = ((id >> 8) as usize, (id >> 4 & 1) as usize, id & 0xf);
            go_on(&mut ring, &mut pairs[key], key, way, step, result);
            if pairs[key].in_flight == 0 {
                pairs.remove(key);
            }
        }
        ring.give_back(done);
    }
}

fn pair(client: RawFd, to: SocketAddr) -> io::Result<Pair> {
    let way = || Way { buf: vec![0; READ_BYTES].into(), from: 0, until: 0, ended: false };
    // SAFETY: the descriptor was just accepted and belongs to nobody else.
    let client = unsafe { Socket::from_raw_fd(client) };
    Ok(Pair { sockets: [client, ring::socket(to)?], ways: [way(), way()], in_flight: 1 })
}

fn go_on(ring: &mut Ring, pair: &mut Pair, key: usize, way: usize, step: u64, result: i32) {
    pair.in_flight -= 1;
    if step == Step::Connect as u64 {
        if result >= 0 {
            recv(ring, pair, key, 0);
            recv(ring, pair, key, 1);
        }
        return;
    }
    let (mine, target) = (&mut pair.ways[way], pair.sockets[1 - way].as_raw_fd());
    if result <= 0 {
        mine.ended = true;
        // The other side hears that nothing more comes; when it ends too, both are let go.
        let how = if step == Step::Recv as u64 { std::net::Shutdown::Write } else { std::net::Shutdown::Both };
        let _ = pair.sockets[1 - way].shutdown(how);
        return;
    }
    match step == Step::Recv as u64 {
        true => (mine.from, mine.until) = (0, result as usize),
        false => mine.from += result as usize,
    }
    if mine.from < mine.until {
        ring.send(target, &mine.buf[mine.from..mine.until], name(key, way, Step::Send));
        pair.in_flight += 1;
    } else {
        recv(ring, pair, key, way);
    }
}

fn recv(ring: &mut Ring, pair: &mut Pair, key: usize, way: usize) {
    ring.recv(pair.sockets[way].as_raw_fd(), &mut pair.ways[way].buf, name(key, way, Step::Recv));
    pair.in_flight += 1;
}
