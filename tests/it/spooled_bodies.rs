//! Buffered request bodies beyond memory (spec/proxying.md section 10): received whole before the upstream is asked, kept so
//! that a failed try can be repeated, bounded on disk, gone when the request is.

use std::io::Write;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    a_long_body_is_received_before_the_upstream_is_asked,
    a_long_body_is_sent_again_on_another_try,
    a_body_without_room_on_disk_is_streamed,
    a_body_that_is_too_large_or_cut_short_never_reaches_the_upstream,
    files_are_gone_when_their_requests_are,
);

const BYTES: usize = 3_000_001;

fn body() -> Vec<u8> {
    (0..BYTES).map(|n| (n % 253) as u8).collect()
}

/// The body with a Content-Length, and in chunks of various sizes.
fn framings() -> [(String, Vec<u8>); 2] {
    let body = body();
    let mut chunks = Vec::new();
    let (mut rest, mut size) = (&body[..], 1);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        write!(chunks, "{:x}\r\n", piece.len()).expect("memory takes it");
        chunks.extend_from_slice(piece);
        chunks.extend_from_slice(b"\r\n");
        (rest, size) = (behind, size * 3);
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    [(format!("Content-Length: {BYTES}"), body), ("Transfer-Encoding: chunked".to_owned(), chunks)]
}

fn head(method: &str, framing: &str) -> String {
    format!("{method} /up HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
}

fn a_long_body_is_received_before_the_upstream_is_asked(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for (framing, bytes) in framings() {
        client.send(head("POST", &framing));
        let (first, last) = bytes.split_at(bytes.len() - 1);
        client.send(first);
        // The subject is that nothing happens meanwhile.
        std::thread::sleep(Duration::from_millis(100));
        assert!(peer.arrived_by_now().is_empty(), "{framing}: it was not waited for the end");
        client.send(last);
        client.response().must_be(200);
        let arrived = peer.arrived();
        assert_eq!(arrived.header("content-length"), Some(BYTES.to_string().as_str()), "{framing}");
        assert_eq!(arrived.header("transfer-encoding"), None);
        assert!(arrived.body == body(), "{framing}");
    }
    assert_eq!(peer.connections(), 1);
}

fn a_long_body_is_sent_again_on_another_try(driver: Driver) {
    let tries = AtomicUsize::new(0);
    let peer = Peer::scripted(move |accepted| {
        while let Some(mut arrived) = accepted.head() {
            match tries.fetch_add(1, Ordering::SeqCst) % 3 {
                // Not a byte of the body is taken; then all of it, and no answer.
                0 => return accepted.reset(),
                1 => {
                    accepted.body(&mut arrived);
                    return;
                }
                _ if accepted.body(&mut arrived).is_none() => return,
                _ => accepted.record(&arrived),
            }
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    for (framing, bytes) in framings() {
        let mut client = gateway.connect();
        client.send(head("PUT", &framing));
        client.send(&bytes);
        client.response().must_be(200);
        assert!(peer.arrived().body == body(), "{framing}");
    }
}

fn a_body_without_room_on_disk_is_streamed(driver: Driver) {
    let peer = Peer::hello();
    for settings in [
        &[("client_body_temp_bytes_max", "0")][..],
        // Room for a part of the body only: what was kept goes first, the rest follows as it comes.
        &[("client_body_temp_bytes_max", "1m")],
        &[("client_body_temp_path", "/proc/none")],
    ] {
        let gateway = Gateway::with(driver, settings);
        gateway.proxy_to(peer.port);
        for (framing, bytes) in framings() {
            let mut client = gateway.connect();
            client.send(head("POST", &framing));
            client.send(&bytes);
            client.response().must_be(200);
            assert!(peer.arrived().body == body(), "{settings:?} {framing}");
        }
    }
}

fn a_body_that_is_too_large_or_cut_short_never_reaches_the_upstream(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[("client_max_body_size", "2m")]);
    gateway.proxy_to(peer.port);
    for (framing, bytes) in framings() {
        let mut client = gateway.connect();
        client.send(head("POST", &framing));
        client.send_what_is_taken(&bytes);
        client.response().must_be(413);
        let mut client = gateway.connect();
        client.send(head("POST", &framing.replace(&BYTES.to_string(), "1000000")));
        client.send(&bytes[..700_000]);
        drop(client);
    }
    gateway.get("/end").must_be(200);
    assert_eq!(peer.arrived().line(), "GET /end HTTP/1.1");
}

fn files_are_gone_when_their_requests_are(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[("workers", "1"), ("client_body_temp_bytes_max", "4m")]);
    gateway.proxy_to(peer.port);
    let open_files = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs").flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("client_body_temp")).count()
    };
    let (framing, bytes) = &framings()[0];
    // More than the disk may hold at a time, one after the other; some are given up in the middle.
    for n in 0..6 {
        let mut client = gateway.connect();
        client.send(head("POST", framing));
        if n % 3 == 1 {
            client.send(&bytes[..BYTES / 2]);
            eventually("a file", || (open_files() == 1).then_some(()));
        } else {
            client.send(bytes);
            client.response().must_be(200);
            assert_eq!(peer.arrived().header("content-length"), Some(BYTES.to_string().as_str()));
        }
        drop(client);
        eventually("no file", || (open_files() == 0).then_some(()));
    }
    let status = gateway.admin("GET", "/status", None).json();
    assert_eq!(status["cores"][0]["bodies_not_spooled"], 0, "{status}");
    let folder = gateway.prefix().join("client_body_temp");
    assert_eq!(std::fs::read_dir(folder).expect("it was made").count(), 0);
}
