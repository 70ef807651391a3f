//! The upstream behind every contender: fixed answers at the least cost, so that the proxy is what saturates.
//!
//! `load origin --listen 127.0.0.1:9000`. Paths: `/api/small` (128 B), `/api/sink` (2 B), `/api/probe` (the request's own head),
//! `/api/bytes/N` (N bytes). Requests may have a body with Content-Length; connections are kept unless a request says
//! `Connection: close`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;

use crate::ring;
use crate::ring::Ring;
use slab::Slab;
use socket2::Socket;

const READ_BYTES: usize = 16 << 10;
/// Bodies are written from one block of this size, as often as needed.
const BLOCK_BYTES: usize = 1 << 20;
const ACCEPT: u64 = u64::MAX;

struct Client {
    socket: Socket,
    buf: Box<[u8]>,
    len: usize,
    /// Request body bytes still to come.
    body_left: usize,
    requests: u64,
    /// Whether the request asked for the connection's end.
    last: bool,
    /// Head of the answer, with a small body behind it; how much of it is written.
    head: Vec<u8>,
    head_sent: usize,
    /// Body bytes still to be written from the block.
    block_left: usize,
}

pub fn run() -> io::Result<()> {
    let listener = ring::listen(ring::option::<SocketAddr>("listen", None))?;
    let block = vec![b'x'; BLOCK_BYTES];
    let mut ring = Ring::new()?;
    let mut clients: Slab<Client> = Slab::new();
    ring.accept(listener.as_raw_fd(), ACCEPT);
    loop {
        let done = ring.wait(None)?;
        for &(id, result) in &done {
            if id == ACCEPT {
                ring.accept(listener.as_raw_fd(), ACCEPT);
                if result >= 0 {
                    let key = clients.insert(client(result));
                    recv(&mut ring, &mut clients[key], key);
                }
                continue;
            }
            let (key, sent) = ((id >> 1) as usize, id & 1 == 1);
            if result <= 0 {
                clients.remove(key);
                continue;
            }
            match sent {
                true => written(&mut ring, &mut clients[key], key, result as usize, &block),
                false => received(&mut ring, &mut clients[key], key, result as usize, &block),
            }
        }
        ring.give_back(done);
    }
}

fn client(fd: i32) -> Client {
    // SAFETY: the descriptor was just accepted and belongs to nobody else.
    let socket = unsafe { Socket::from_raw_fd(fd) };
    let (buf, head) = (vec![0; READ_BYTES].into(), Vec::with_capacity(1024));
    Client { socket, buf, len: 0, body_left: 0, requests: 0, last: false, head, head_sent: 0, block_left: 0 }
}

fn recv(ring: &mut Ring, client: &mut Client, key: usize) {
    let fd = client.socket.as_raw_fd();
    ring.recv(fd, &mut client.buf[client.len..], (key as u64) << 1);
}

fn received(ring: &mut Ring, client: &mut Client, key: usize, count: usize, block: &[u8]) {
    if client.body_left > 0 {
        client.body_left -= count.min(client.body_left);
    } else {
        client.len += count;
        let Some(head_len) = ring::head_len(&client.buf[..client.len]) else {
            return recv(ring, client, key);
        };
        let head = &client.buf[..head_len];
        let body: usize = ring::field(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        client.requests += 1;
        client.last = ring::field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        client.head.clear();
        client.block_left = answer(head, client.requests, &mut client.head);
        client.body_left = body.saturating_sub(client.len - head_len);
    }
    client.len = 0;
    match client.body_left {
        0 => send(ring, client, key, block),
        _ => recv(ring, client, key),
    }
}

/// Writes the head of the answer, and its body where that is small; how many bytes of the block follow.
fn answer(head: &[u8], requests: u64, out: &mut Vec<u8>) -> usize {
    let path = head.split(|byte| *byte == b' ').nth(1).and_then(|path| std::str::from_utf8(path).ok()).unwrap_or("");
    let path = path.split('?').next().unwrap_or("");
    let bytes = path.strip_prefix("/api/bytes/").and_then(|count| count.parse::<usize>().ok());
    let probe;
    let body: &[u8] = match path {
        "/api/small" => &[b'x'; 128],
        "/api/sink" => b"ok",
        "/api/probe" => {
            probe = format!("Requests-On-Connection: {requests}\r\n{}", String::from_utf8_lossy(head));
            probe.as_bytes()
        }
        _ => b"",
    };
    let status = if body.is_empty() && bytes.is_none() { "404 Not Found" } else { "200 OK" };
    let length = bytes.unwrap_or(body.len());
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
    bytes.unwrap_or(0)
}

fn send(ring: &mut Ring, client: &mut Client, key: usize, block: &[u8]) {
    client.head_sent = 0;
    // Head and the first of the body leave together.
    let first = client.block_left.min(64 << 10);
    client.head.extend_from_slice(&block[..first]);
    client.block_left -= first;
    ring.send(client.socket.as_raw_fd(), &client.head, (key as u64) << 1 | 1);
}

fn written(ring: &mut Ring, client: &mut Client, key: usize, count: usize, block: &[u8]) {
    let fd = client.socket.as_raw_fd();
    let of_head = count.min(client.head.len() - client.head_sent);
    client.head_sent += of_head;
    client.block_left -= count - of_head;
    if client.head_sent < client.head.len() {
        ring.send(fd, &client.head[client.head_sent..], (key as u64) << 1 | 1);
    } else if client.block_left > 0 {
        ring.send(fd, &block[..client.block_left.min(BLOCK_BYTES)], (key as u64) << 1 | 1);
    } else {
        if client.last {
            // What is read next is the other side's end.
            let _ = client.socket.shutdown(std::net::Shutdown::Write);
        }
        recv(ring, client, key);
    }
}
