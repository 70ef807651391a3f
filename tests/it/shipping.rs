//! Plugins that send a record of each request somewhere: what arrives, and what becomes of it when the other side is down,
//! slow or lying.

use std::collections::HashSet;
use std::io::BufRead;
use std::io::BufReader;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::certificates;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Accepted;
use crate::harness::peer::Arrived;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

on_both_drivers!(a_collector_gets_one_object_per_request);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A collector that takes everything.
fn collector() -> Peer {
    Peer::scripted(take_all)
}

fn take_all(accepted: &mut Accepted) {
    while accepted.request().is_some() {
        accepted.send(OK);
    }
}

/// A gateway in front of an upstream, with a plugin on its route.
fn gateway_with(plugin: &str, config: Value) -> (Gateway, Peer) {
    with_settings(plugin, config, &[])
}

fn with_settings(plugin: &str, config: Value, settings: &[(&str, &str)]) -> (Gateway, Peer) {
    let peer = Peer::hello();
    let gateway = Gateway::with(Driver::any(), settings);
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", json!({ "name": plugin, "config": config }));
    (gateway, peer)
}

fn to(port: u16) -> String {
    format!("http://127.0.0.1:{port}/logs")
}

fn record(arrived: &Arrived) -> Value {
    serde_json::from_slice(&arrived.body).expect("a record is JSON")
}

fn uri(record: &Value) -> &str {
    record["request"]["uri"].as_str().unwrap_or_default()
}

fn said(gateway: &Gateway, what: &str) -> usize {
    gateway.log().matches(what).count()
}

#[track_caller]
fn gateway_says(gateway: &Gateway, what: &str) {
    eventually(what, || (said(gateway, what) > 0).then_some(()));
}

fn a_collector_gets_one_object_per_request(driver: Driver) {
    let (peer, sink) = (Peer::hello(), collector());
    let gateway = Gateway::with(driver, &[]);
    gateway.proxy_to(peer.port);
    let endpoint = format!("http://al:secret@127.0.0.1:{}/logs?not=sent", sink.port);
    let config = json!({ "http_endpoint": endpoint, "headers": { "X-From": "test" }, "method": "PUT" });
    gateway.create("/routes/r/plugins", json!({ "name": "http-log", "config": config }));
    gateway.get("/a?b=c").must_be(200);
    let arrived = sink.arrived();
    assert_eq!(arrived.line(), "PUT /logs HTTP/1.1");
    for (name, want) in
        [("content-type", "application/json"), ("x-from", "test"), ("authorization", "Basic YWw6c2VjcmV0")]
    {
        assert_eq!(arrived.header(name), Some(want), "{name}");
    }
    let record = record(&arrived);
    assert_eq!(uri(&record), "/a?b=c");
    assert_eq!((&record["response"]["status"], &record["source"]), (&json!(200), &json!("upstream")));
    assert_eq!((&record["route"]["name"], &record["service"]["name"]), (&json!("r"), &json!("s")));
    assert_eq!(record["tries"][0]["port"], peer.port);
    gateway.get("/second").must_be(200);
    assert_eq!(uri(&self::record(&sink.arrived())), "/second");
    assert_eq!(sink.connections(), 1, "the connection is kept");
}

#[test]
fn requests_are_batched_as_arrays_up_to_the_size_or_the_delay() {
    let sink = collector();
    let queue = json!({ "max_batch_size": 3, "max_coalescing_delay": 3600 });
    let config = json!({ "http_endpoint": to(sink.port), "queue": queue });
    // Records of several workers would come in any order.
    let (mut gateway, _peer) = with_settings("http-log", config, &[("workers", "1")]);
    for at in 0..5 {
        gateway.get(&format!("/{at}")).must_be(200);
    }
    let batch = record(&sink.arrived());
    assert_eq!(batch.as_array().expect("an array").iter().map(uri).collect::<Vec<_>>(), ["/0", "/1", "/2"]);
    // What waits for others is sent when the node ends.
    gateway.signal(libc::SIGTERM);
    let rest = record(&sink.arrived());
    assert_eq!(rest.as_array().expect("an array").iter().map(uri).collect::<Vec<_>>(), ["/3", "/4"]);
    assert!(gateway.wait().success());
}

#[test]
fn a_collector_that_lies_closes_or_stalls_gets_the_same_record_until_it_takes_it() {
    let asked = AtomicUsize::new(0);
    let sink = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => accepted.send("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
                1 => accepted.send("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
                2 => return,
                3 => accepted.send("no HTTP at all\r\n\r\n"),
                4 => drop(accepted.until_closed()),
                _ => accepted.send(OK),
            }
        }
    });
    let config = json!({ "http_endpoint": to(sink.port), "timeout": 300 });
    let (gateway, _peer) = gateway_with("http-log", config);
    gateway.get("/first").must_be(200);
    for _ in 0..6 {
        assert_eq!(uri(&record(&sink.arrived())), "/first");
    }
    gateway_says(&gateway, "sends again; 0 entries were lost");
    gateway.get("/second").must_be(200);
    assert_eq!(uri(&record(&sink.arrived())), "/second");
    assert_eq!(said(&gateway, "cannot send"), 1, "{}", gateway.log());
}

#[test]
fn while_a_collector_is_down_requests_pass_and_the_oldest_records_are_dropped_and_counted() {
    let port = Port::reserve();
    let config = json!({ "http_endpoint": to(port.number),
                         "queue": { "max_entries": 4, "max_retry_delay": 0.05 } });
    let (gateway, _peer) = gateway_with("http-log", config);
    for at in 0..20 {
        gateway.get(&format!("/{at}")).must_be(200);
    }
    gateway_says(&gateway, "the queue is full");
    gateway_says(&gateway, "cannot send");
    assert_eq!((said(&gateway, "cannot send"), said(&gateway, "the queue is full")), (1, 1), "{}", gateway.log());
    let sink = Peer::scripted_at(port.number, take_all);
    gateway_says(&gateway, "sends again");
    gateway.get("/after").must_be(200);
    let mut got = HashSet::new();
    eventually("every record arrives or is counted as lost", || {
        got.extend(sink.arrived_by_now().iter().map(|arrived| uri(&record(arrived)).to_owned()));
        let log = gateway.log();
        let counts = log.lines().filter_map(|line| line.split_once("sends again; ")?.1.split(' ').next());
        let lost: usize = counts.map(|count| count.parse::<usize>().expect("a count")).sum();
        (lost > 0 && lost + got.len() == 21).then_some(())
    });
    assert!(got.contains("/after"));
}

#[test]
fn a_batch_is_given_up_after_its_time() {
    let asked = AtomicUsize::new(0);
    let sink = Peer::scripted(move |accepted| {
        while let Some(arrived) = accepted.request() {
            let refused = uri(&record(&arrived)) == "/bad";
            asked.fetch_add(1, Ordering::SeqCst);
            accepted.send(if refused { "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n" } else { OK });
        }
    });
    let config = json!({ "http_endpoint": to(sink.port), "queue": { "max_retry_time": -1 } });
    let (gateway, _peer) = gateway_with("http-log", config);
    gateway.get("/bad").must_be(200);
    assert_eq!(uri(&record(&sink.arrived())), "/bad");
    gateway.get("/good").must_be(200);
    assert_eq!(uri(&record(&sink.arrived())), "/good");
    gateway_says(&gateway, "sends again; 1 entries were lost");
}

#[test]
fn lines_are_appended_to_a_file_that_may_be_moved_away_and_may_come_later() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let path = directory.path().join("later").join("file.log");
    let (gateway, _peer) = gateway_with("file-log", json!({ "path": path, "reopen": true }));
    gateway.get("/lost").must_be(200);
    gateway_says(&gateway, "cannot send");
    std::fs::create_dir(directory.path().join("later")).expect("a new directory");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    let arrives = |want: &str| {
        gateway.get(want).must_be(200);
        eventually(want, || {
            let text = lines();
            let last = text.lines().next_back().filter(|_| text.ends_with('\n'))?;
            let record: Value = serde_json::from_str(last).expect("a line is JSON");
            (uri(&record) == want).then_some(())
        });
    };
    arrives("/one");
    arrives("/two");
    assert_eq!(lines().lines().count(), 2);
    std::fs::rename(&path, directory.path().join("old")).expect("it can be moved");
    arrives("/three");
    assert_eq!(lines().lines().count(), 1);
    gateway_says(&gateway, "sends again; 1 entries were lost");
}

#[test]
fn lines_go_over_a_connection_that_is_opened_anew_when_the_server_ends_it() {
    let (tell, lines) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let sink = Peer::scripted(move |accepted| {
        let tell = tell.lock().expect("no script panics").clone();
        let mut reader = BufReader::new(accepted.stream.try_clone().expect("a socket can be shared"));
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            let record: Value = serde_json::from_str(&line).expect("a line is JSON");
            let last = uri(&record) == "/last";
            let _ = tell.send(uri(&record).to_owned());
            line.clear();
            if last {
                return;
            }
        }
    });
    let (gateway, _peer) = gateway_with("tcp-log", json!({ "host": "127.0.0.1", "port": sink.port }));
    for (path, connections) in [("/one", 1), ("/last", 1), ("/anew", 2)] {
        gateway.get(path).must_be(200);
        assert_eq!(lines.recv_timeout(PATIENCE).as_deref(), Ok(path));
        assert_eq!(sink.connections(), connections, "{path}");
    }
}

#[test]
fn lines_go_over_tls_with_the_name_that_is_asked_for() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    certificates::write(directory.path(), "logs.test");
    let port = Port::reserve();
    let mut command = Command::new("openssl");
    command.current_dir(directory.path()).args(["s_server", "-quiet", "-cert", "leaf.pem", "-key", "leaf.key"]);
    command.args(["-servername", "logs.test", "-servername_fatal", "-cert2", "leaf.pem", "-key2", "leaf.key"]);
    command.args(["-accept", &format!("127.0.0.1:{}", port.number)]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.stderr(Stdio::null()).spawn().expect("openssl can be run");
    let config = json!({ "host": "127.0.0.1", "port": port.number, "tls": true, "tls_sni": "logs.test" });
    let (gateway, _peer) = gateway_with("tcp-log", config);
    let (tell, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(server.stdout.take().expect("it is piped"));
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    // Until the server listens records are lost.
    let line = eventually("a line over TLS", || {
        gateway.get("/a").must_be(200);
        lines.try_recv().ok()
    });
    let record: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(uri(&record), "/a");
    server.kill().expect("it runs");
    server.wait().expect("it ended");
}

/// A socket for datagrams, and its port.
fn datagrams() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let port = socket.local_addr().expect("a bound socket").port();
    (socket, port)
}

fn next(socket: &UdpSocket) -> String {
    let mut room = vec![0; 64 << 10];
    let count = socket.recv(&mut room).expect("a datagram");
    String::from_utf8(room[..count].to_vec()).expect("a text")
}

#[test]
fn a_datagram_is_one_record() {
    let (socket, port) = datagrams();
    let (gateway, _peer) = gateway_with("udp-log", json!({ "host": "127.0.0.1", "port": port }));
    for path in ["/one", "/two"] {
        gateway.get(path).must_be(200);
        let text = next(&socket);
        let record: Value = serde_json::from_str(&text).expect("a datagram is JSON");
        assert_eq!((uri(&record), text.ends_with('}')), (path, true));
    }
}

#[test]
fn datagrams_that_nobody_takes_are_told_of_once() {
    let (socket, port) = datagrams();
    drop(socket);
    let (gateway, _peer) = gateway_with("udp-log", json!({ "host": "127.0.0.1", "port": port }));
    eventually("the refusal", || {
        gateway.get("/").must_be(200);
        (said(&gateway, "nobody listens for datagrams") > 0).then_some(())
    });
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("the port is free again");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    gateway.get("/again").must_be(200);
    while uri(&serde_json::from_str(&next(&socket)).expect("JSON")) != "/again" {}
    assert_eq!(said(&gateway, "nobody listens for datagrams"), 1);
}

#[test]
fn loggly_gets_syslog_datagrams_of_what_is_severe_enough() {
    let (socket, port) = datagrams();
    let config = json!({ "host": "127.0.0.1", "port": port, "key": "k1", "log_level": "notice",
                         "client_errors_severity": "warning", "successful_severity": "info" });
    let (gateway, _peer) = gateway_with("loggly", config);
    gateway.create("/routes/r/plugins", json!({ "name": "key-auth" }));
    gateway.create("/consumers", json!({ "username": "al" }));
    gateway.create("/consumers/al/key-auth", json!({ "key": "k" }));
    gateway.get("/?apikey=k").must_be(200);
    gateway.get("/bad").must_be(401);
    let text = next(&socket);
    let (head, record) = text.split_once("] ").expect("a head and a record");
    let words: Vec<&str> = head.split(' ').collect();
    assert_eq!((words[0], words[3], words[6]), ("<12>1", "kong", "[k1@41058"), "{head}");
    assert_eq!(words[7], r#"tag="kong""#);
    assert_eq!(uri(&serde_json::from_str(record).expect("JSON")), "/bad", "the request before it is not severe enough");
}

#[test]
fn the_log_of_the_machine_gets_records_also_after_its_daemon_was_restarted() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let path = directory.path().join("log");
    let listen = || {
        let socket = UnixDatagram::bind(&path).expect("a new path");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    };
    let socket = listen();
    let config = json!({ "facility": "local0", "successful_severity": "notice" });
    let settings = [("syslog_socket", path.to_str().expect("a text"))];
    let (gateway, _peer) = with_settings("syslog", config, &settings);
    let arrives = |socket: &UnixDatagram, want: &str| {
        gateway.get(want).must_be(200);
        let mut room = vec![0; 64 << 10];
        let count = socket.recv(&mut room).expect("a line");
        let line = String::from_utf8(room[..count].to_vec()).expect("a text");
        let (head, record) = line.split_once(" kong: ").expect("a head and a record");
        assert!(head.starts_with("<133>") && head.len() == "<133>Nov 23 18:00:00".len(), "{head}");
        assert_eq!(uri(&serde_json::from_str(record).expect("JSON")), want);
    };
    arrives(&socket, "/one");
    drop(socket);
    std::fs::remove_file(&path).expect("it is there");
    arrives(&listen(), "/two");
}

#[test]
fn figures_are_lines_of_statsd_over_udp_and_tcp() {
    let (socket, port) = datagrams();
    let (gateway, _peer) = gateway_with("statsd", json!({ "host": "127.0.0.1", "port": port, "prefix": "gw" }));
    gateway.get("/").must_be(200);
    let lines: Vec<String> = (0..8).map(|_| next(&socket)).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.split(':').next().expect("a name")).collect();
    for want in ["request.count", "latency", "request.size", "status.200", "response.size", "upstream_latency"] {
        assert!(names.contains(&format!("gw.service.s.{want}").as_str()), "{want}: {lines:?}");
    }
    assert!(lines.contains(&"gw.service.s.request.count:1|c".to_owned()), "{lines:?}");
    // Line by line over TCP; a change of the configuration keeps the queue.
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let sink = Peer::scripted(move |accepted| {
        let tell = tell.lock().expect("no script panics").clone();
        let reader = BufReader::new(accepted.stream.try_clone().expect("a socket can be shared"));
        let _ = reader.lines().map_while(Result::ok).try_for_each(|line| tell.send(line));
    });
    let id = gateway.admin("GET", "/routes/r/plugins", None).json()["data"][0]["id"].clone();
    let change = json!({ "config": { "port": sink.port, "use_tcp": true } });
    gateway.patch(&format!("/plugins/{}", id.as_str().expect("an id")), change);
    gateway.get("/").must_be(200);
    let lines: Vec<String> = (0..8).map(|_| told.recv_timeout(PATIENCE).expect("a line")).collect();
    assert!(lines.contains(&"gw.service.s.status.200:1|c".to_owned()), "{lines:?}");
}

#[test]
fn figures_share_datagrams_and_go_to_a_datadog_agent_with_tags() {
    let (socket, port) = datagrams();
    let (gateway, _peer) = gateway_with("datadog", json!({ "host": "127.0.0.1", "port": port }));
    gateway.get("/").must_be(200);
    let lines: Vec<String> = (0..6).map(|_| next(&socket)).collect();
    assert!(lines.contains(&"kong.request.count:1|c|#name:s,status:200,app:kong".to_owned()), "{lines:?}");
    let (packets, port) = datagrams();
    let config = json!({ "host": "127.0.0.1", "port": port, "udp_packet_size": 65507 });
    gateway.create("/routes/r/plugins", json!({ "name": "statsd", "config": config }));
    gateway.get("/").must_be(200);
    let packet = next(&packets);
    assert_eq!(packet.lines().count(), 8, "{packet}");
}
