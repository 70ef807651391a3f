//! A write that was answered is on disk and served by every core: no request afterwards sees what was before, and no end
//! of the process, however sudden, takes it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::admin_request;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    no_request_after_a_write_sees_the_old_configuration,
    killed_during_writes_it_keeps_every_acknowledged_one,
);

/// Four kinds of writes, each so many times.
const ROUNDS: usize = 250;

fn no_request_after_a_write_sees_the_old_configuration(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[("workers", "3")]);
    gateway.proxy_with(peer.port, json!({}), json!({"paths": ["/kept"]}));
    let terminated = gateway.create("/services/s/routes", json!({"paths": ["/terminated"]}));
    let route = format!("/routes/{}", terminated["id"].as_str().expect("an id"));
    let config = json!({"name": "request-termination", "config": {"status_code": 418, "message": "none"}});
    let plugin = gateway.create(&format!("{route}/plugins"), config);
    let plugin = format!("/plugins/{}", plugin["id"].as_str().expect("an id"));
    gateway.create("/services/s/routes", json!({"name": "locked", "paths": ["/locked"]}));
    gateway.create("/routes/locked/plugins", json!({"name": "key-auth"}));
    gateway.create("/consumers", json!({"username": "c"}));
    let mut admin = gateway.admin_client();
    let mut write = |method: &str, path: &str, body: Option<Value>, status: u16| {
        let answer = admin.ask(admin_request(method, path, body.as_ref())).must_be(status);
        answer.header("x-ringway-config-version").and_then(|v| v.parse::<u64>().ok()).expect("a version")
    };
    let status = |path: &str| gateway.get(path).status;
    let mut last_version = 0;
    for n in 0..ROUNDS {
        write("PATCH", &plugin, Some(json!({"config": {"message": format!("m{n}")}})), 200);
        assert_eq!(gateway.get("/terminated").text(), format!("{{\"message\":\"m{n}\"}}"), "round {n}");
        write("PATCH", "/routes/r", Some(json!({"paths": [format!("/v{n}")]})), 200);
        assert_eq!(status(&format!("/v{n}")), 200, "round {n}: the new path");
        if let Some(before) = n.checked_sub(1) {
            assert_eq!(status(&format!("/v{before}")), 404, "round {n}: the old path");
        }
        let key = format!("/locked?apikey=k{n}");
        write("POST", "/consumers/c/key-auth", Some(json!({"key": format!("k{n}")})), 201);
        assert_eq!(status(&key), 200, "round {n}: a new key");
        let version = write("DELETE", &format!("/consumers/c/key-auth/k{n}"), None, 204);
        assert_eq!(status(&key), 401, "round {n}: a key taken away");
        assert!(version > last_version, "versions rise: {last_version}, {version}");
        last_version = version;
    }
    let node = gateway.admin("GET", "/status", None).must_be(200).json();
    let cores = node["cores"].as_array().expect("a list of cores");
    assert_eq!(cores.len(), 3);
    for core in cores {
        assert_eq!(core["version"], last_version, "{core}");
        assert!(core["requests"].as_u64() > Some(ROUNDS as u64 / 2), "every core was asked: {core}");
    }
}

/// Writers at the same time, each with entities of its own.
const WRITERS: usize = 3;
/// How often the process is killed.
const KILLS: usize = 6;

/// What one writer was told.
struct Told {
    /// Number of the last round that was answered as a whole.
    rounds: usize,
    /// How many of the three writes of the next round were answered.
    writes: usize,
    /// Version of the last write that was answered.
    version: u64,
}

fn killed_during_writes_it_keeps_every_acknowledged_one(driver: Driver) {
    let peer = Peer::hello();
    let mut gateway = Gateway::start(driver);
    gateway.service("s", peer.port, json!({}));
    for w in 0..WRITERS {
        gateway.create("/services/s/routes", json!({"name": format!("r{w}"), "paths": [format!("/w{w}/0")]}));
    }
    let mut rounds = [0; WRITERS];
    for kill in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = rounds.iter().enumerate().map(|(w, done)| {
            let (stop, done, socket) = (stop.clone(), *done, gateway.socket());
            let client = Client::connect_unix(&socket).expect("the gateway listens");
            std::thread::spawn(move || write_until_refused(client, w, done, &stop))
        });
        let writers: Vec<_> = writers.collect();
        // The instant is what the test is about; nothing is awaited.
        std::thread::sleep(Duration::from_micros(fastrand::u64(20_000..400_000)));
        gateway.kill();
        stop.store(true, Ordering::SeqCst);
        let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect();
        // And now and then while it starts.
        if kill % 2 == 1 {
            gateway.spawn();
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..40_000)));
            gateway.kill();
        }
        gateway.restart();
        let status = gateway.admin("GET", "/status", None).must_be(200).json();
        let version = status["configuration_version"].as_u64().expect("a version");
        let last = told.iter().map(|told| told.version).max().unwrap_or(0);
        assert!(version >= last, "kill {kill}: version {last} was acknowledged, {version} is there");
        for (w, told) in told.iter().enumerate() {
            rounds[w] = check_writer(&gateway, w, told, kill);
        }
    }
    assert!(rounds.iter().sum::<usize>() > KILLS, "hardly anything was written: {rounds:?}");
}

/// Rounds of three writes: a consumer more, the one of two rounds ago away, the route's path changed to the round.
fn write_until_refused(mut client: Client, w: usize, done: usize, stop: &AtomicBool) -> Told {
    let mut told = Told { rounds: done, writes: 0, version: 0 };
    while !stop.load(Ordering::SeqCst) {
        let n = told.rounds + 1;
        let new = json!({"username": format!("c{w}-{n}"), "tags": [format!("w{w}")]});
        let path = json!({"paths": [format!("/w{w}/{n}")]});
        let gone = format!("/consumers/c{w}-{}", n.saturating_sub(2));
        let writes = [
            ("POST", "/consumers".to_owned(), Some(new)),
            ("DELETE", gone, None),
            ("PATCH", format!("/routes/r{w}"), Some(path)),
        ];
        for (method, path, body) in writes {
            let Some(version) = answered(&mut client, &admin_request(method, &path, body.as_ref())) else {
                return told;
            };
            assert!(version > 0, "a write tells its version");
            told.version = told.version.max(version);
            told.writes += 1;
        }
        (told.rounds, told.writes) = (n, 0);
    }
    told
}

/// The configuration version that answers a write; a gateway that is killed gives none.
fn answered(client: &mut Client, request: &str) -> Option<u64> {
    use std::io::Read;
    use std::io::Write;
    client.stream.write_all(request.as_bytes()).ok()?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match client.stream.read(&mut piece) {
            Ok(count) if count > 0 => received.extend_from_slice(&piece[..count]),
            _ => return None,
        }
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 20"), "a write was refused: {text}");
        let head = head.to_ascii_lowercase();
        let number =
            |name: &str| head.split(name).nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<u64>().ok());
        if body.len() as u64 >= number("content-length: ").unwrap_or(0) {
            return Some(number("x-ringway-config-version: ").unwrap_or(0));
        }
    }
}

/// Compares what is there with what the writer was told; answers the round to go on from.
fn check_writer(gateway: &Gateway, w: usize, told: &Told, kill: usize) -> usize {
    let context = format!("kill {kill}, writer {w}, told of round {} and {} writes more", told.rounds, told.writes);
    let list = gateway.admin("GET", &format!("/consumers?size=1000&tags=w{w}"), None).must_be(200).json();
    let consumers = list["data"].as_array().expect("a list");
    let present: BTreeSet<usize> = consumers
        .iter()
        .map(|consumer| {
            assert_eq!(consumer["tags"], json!([format!("w{w}")]), "{context}: torn: {consumer}");
            assert!(consumer["id"].is_string() && consumer["created_at"].is_u64(), "{context}: torn: {consumer}");
            let name = consumer["username"].as_str().unwrap_or_default();
            name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{context}: {consumer}"))
        })
        .collect();
    let route = gateway.admin("GET", &format!("/routes/r{w}"), None).must_be(200).json();
    let path = route["paths"][0].as_str().expect("a path").to_owned();
    let at: usize = path.rsplit('/').next().and_then(|n| n.parse().ok()).expect("a round");

    // The write under way when the process died may be there or not; all before it must, none after it can.
    let n = told.rounds + 1;
    let possible: &[(bool, bool, bool)] = match told.writes {
        0 => &[(false, false, false), (true, false, false)],
        1 => &[(true, false, false), (true, true, false)],
        _ => &[(true, true, false), (true, true, true)],
    };
    let found = possible.iter().any(|(created, deleted, patched)| {
        let first = if *deleted { n.saturating_sub(1) } else { n.saturating_sub(2) };
        let last = if *created { n } else { n - 1 };
        let want: BTreeSet<usize> = (first.max(1)..=last).collect();
        present == want && at == if *patched { n } else { n - 1 }
    });
    assert!(found, "{context}: there are {present:?} and {path}");
    assert_eq!(gateway.get(&path).status, 200, "{context}: {path} is served");
    // Goes on as if the round had never begun.
    gateway.patch(&format!("/routes/r{w}"), json!({"paths": [format!("/w{w}/{n}")]}));
    gateway.admin("PUT", &format!("/consumers/c{w}-{n}"), Some(&json!({"tags": [format!("w{w}")]}))).must_be(200);
    gateway.admin("DELETE", &format!("/consumers/c{w}-{}", n.saturating_sub(2)), None).must_be(204);
    n
}
