//! Many at once: changes under load, too few descriptors, readers that do not read, writers in each other's way
//! (requirements section 3).

use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    changes_under_load_fail_no_request,
    out_of_descriptors_it_goes_on_and_recovers,
    clients_that_never_read_cost_bounded_memory,
    no_end_of_a_connection_leaks_a_descriptor,
);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn changes_under_load_fail_no_request(driver: Driver) {
    let peers = [Peer::hello(), Peer::hello()];
    let gateway = Gateway::start(driver);
    gateway.create("/upstreams", json!({"name": "u"}));
    for peer in &peers {
        gateway.create("/upstreams/u/targets", json!({"target": format!("127.0.0.1:{}", peer.port)}));
    }
    gateway.create("/services", json!({"name": "s", "host": "u"}));
    gateway.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (stop, served, port) = (stop.clone(), served.clone(), gateway.proxy);
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::SeqCst) {
                    // One keeps its connection, the others take a new one each time.
                    if n > 0 {
                        client = Client::connect(port);
                    }
                    assert_eq!(client.ask(GET).must_be(200).text(), "hello");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let second = format!("/upstreams/u/targets/127.0.0.1:{}", peers[1].port);
    for n in 0..100 {
        gateway.patch("/routes/r", json!({"paths": ["/", format!("/{n}")]}));
        gateway.patch("/services/s", json!({"retries": n % 7 + 1, "read_timeout": 10_000 + n}));
        gateway.patch(&second, json!({"weight": n % 3 * 50}));
        let plugin = gateway.create("/services/s/plugins", json!({"name": "correlation-id"}));
        gateway.admin("DELETE", &format!("/plugins/{}", plugin["id"].as_str().expect("an id")), None).must_be(204);
    }
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("no request failed"));
    assert!(served.load(Ordering::SeqCst) > 100, "hardly anything was served");
}

/// Descriptors that the node may have, and clients that come.
const DESCRIPTORS: u64 = 128;
const CLIENTS: usize = 300;

fn out_of_descriptors_it_goes_on_and_recovers(driver: Driver) {
    let peer = Peer::hello();
    let mut gateway = Gateway::unstarted(driver, &[]);
    gateway.spawn_with(|command| {
        // SAFETY: one system call, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let limit = libc::rlimit { rlim_cur: DESCRIPTORS, rlim_max: DESCRIPTORS };
                match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
    });
    gateway.wait_until_it_serves();
    gateway.proxy_to(peer.port);
    gateway.connect().ask(GET).must_be(200);
    // Clients that are answered and stay hold no descriptor that others need: these are ended, and nobody waits in vain.
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    for client in &mut clients {
        assert_eq!(client.response().must_be(200).text(), "hello");
    }
    // Clients that say nothing hold theirs; those behind them wait until these end.
    let silent: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    drop(clients);
    drop(silent);
    for _ in 0..50 {
        gateway.connect().ask(GET).must_be(200);
    }
    let mut waiting: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    for client in &mut waiting {
        let status = client.response().status;
        assert!(status == 200 || status == 502, "{status}");
    }
    gateway.admin("GET", "/status", None).must_be(200);
    drop(waiting);
    gateway.connect().ask(GET).must_be(200);
}

fn clients_that_never_read_cost_bounded_memory(driver: Driver) {
    const READERS: usize = 60;
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let large = arrived.line().contains("/large");
            let bytes = if large { 50 << 20 } else { 5 };
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            accepted.send(vec![b'x'; bytes]);
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("the gateway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    (0..20).for_each(|_| drop(gateway.get("/")));
    let before = resident();
    let clients: Vec<Client> = (0..READERS)
        .map(|_| {
            let mut client = gateway.connect();
            client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
            // The answer has begun, so its body fills whatever there is.
            client.head();
            client
        })
        .collect();
    let mut last = 0;
    eventually("memory to settle", || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = resident();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    let grown = last.saturating_sub(before);
    assert!(grown < 10 << 10, "{READERS} clients that do not read cost {grown} KiB");
    assert_eq!(gateway.get("/").must_be(200).text(), "xxxxx");
    drop(clients);
}

#[test]
fn of_writers_of_the_same_name_exactly_one_wins() {
    let gateway = Gateway::start(Driver::any());
    for round in 0..10 {
        let socket = gateway.socket();
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let mut client = Client::connect_unix(&socket).expect("the gateway listens");
                let body = json!({"username": format!("same-{round}")});
                let request = crate::harness::gateway::admin_request("POST", "/consumers", Some(&body));
                std::thread::spawn(move || client.ask(request).status)
            })
            .collect();
        let mut statuses: Vec<u16> = writers.into_iter().map(|writer| writer.join().expect("an answer")).collect();
        statuses.sort();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    }
    let list = gateway.admin("GET", "/consumers", None).json();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(10));
}

fn no_end_of_a_connection_leaks_a_descriptor(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            match arrived.line().split(' ').nth(1).unwrap_or_default() {
                "/silent" => return drop(accepted.until_closed()),
                "/reset" => return accepted.reset(),
                "/cut" => return accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut"),
                "/garbage" => accepted.send("garbage\r\n\r\n"),
                "/endless" => {
                    accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 40));
                    let piece = [b'x'; 64 << 10];
                    while std::io::Write::write_all(&mut accepted.stream, &piece).is_ok() {}
                    return;
                }
                _ => accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            }
        }
    });
    let gateway =
        Gateway::with(driver, &[("upstream_keepalive_idle_timeout", "100ms"), ("client_body_timeout", "200ms")]);
    gateway.proxy_with(peer.port, json!({"read_timeout": 800, "retries": 0}), json!({"strip_path": false}));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("the gateway runs").count();
    let active = || gateway.admin("GET", "/status", None).json()["server"]["connections_active"].as_u64();
    gateway.get("/").must_be(200);
    eventually("quiet", || (active() == Some(0)).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before = descriptors();
    for _ in 0..5 {
        let mut clients = Vec::new();
        for path in ["/", "/silent", "/reset", "/cut", "/garbage", "/endless"] {
            for method in ["GET", "POST"] {
                let mut client = gateway.connect();
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                clients.push(client);
            }
        }
        for part in ["", "GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "nonsense\r\n\r\n"]
        {
            let mut client = gateway.connect();
            client.send(part);
            clients.push(client);
        }
        // Half of them wait for an answer, the others go away without.
        for (n, mut client) in clients.into_iter().enumerate() {
            if n % 2 == 0 && n < 10 {
                client.head();
            }
        }
    }
    eventually("all connections to be gone", || (active() == Some(0)).then_some(()));
    eventually("all descriptors to be given back", || (descriptors() <= before).then_some(()));
    gateway.get("/").must_be(200);
}
