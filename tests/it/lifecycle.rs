//! A node from its start to its end: commands, signals, drain, reload, logs, drivers, who may do what.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::client::End;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    requests_in_flight_finish_when_the_node_is_told_to_end,
    a_drain_ends_at_its_time,
    int_ends_the_node_at_once,
    idle_and_waiting_connections_end_at_their_time,
);

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_commands_tell_what_the_node_does() {
    let mut gateway = Gateway::start(Driver::any());
    let pid = gateway.pid();
    let pid_file = gateway.prefix().join("ringway.pid");
    assert_eq!(std::fs::read_to_string(&pid_file).expect("a pid file").trim(), pid.to_string());
    let version = gateway.cli(&["version"]);
    assert_eq!(version.status.code(), Some(2), "version takes no prefix: {}", said(&version));
    let health = gateway.cli(&["health"]);
    assert!(health.status.success() && said(&health).contains(&format!("process {pid}")), "{}", said(&health));
    gateway.proxy_to(Peer::hello().port);
    let stop = gateway.cli(&["stop"]);
    assert!(stop.status.success(), "{}", said(&stop));
    assert!(gateway.wait().success());
    assert!(!pid_file.exists());
    let health = gateway.cli(&["health"]);
    assert_eq!(health.status.code(), Some(1), "{}", said(&health));
    assert!(said(&health).contains("ringway start"), "{}", said(&health));
    gateway.restart();
    gateway.admin("GET", "/services/s", None).must_be(200);
    let quit = gateway.cli(&["quit"]);
    assert!(quit.status.success(), "{}", said(&quit));
    assert!(gateway.wait().success());
}

#[test]
fn a_prefix_is_used_by_one_node_at_a_time() {
    let gateway = Gateway::start(Driver::any());
    let second = gateway.cli(&["start"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains(&format!("process {}", gateway.pid())), "{}", said(&second));
    gateway.admin("GET", "/status", None).must_be(200);
}

#[test]
fn errors_of_the_configuration_are_told_together_with_the_nearest_name() {
    let mut gateway = Gateway::unstarted(Driver::any(), &[]);
    std::fs::write(gateway.file(), "prox_listen = off\nworkers = many\npg_host = db\n")
        .expect("the prefix can be written to");
    for command in ["check", "start"] {
        let mut ringway = gateway.command(command);
        let output = ringway.output().expect("the program can be run");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert!(
            text.contains("test.conf:1: unknown property \"prox_listen\"; did you mean \"proxy_listen\"?"),
            "{text}"
        );
        assert!(text.contains("test.conf:2: workers = many"), "{text}");
    }
    std::fs::write(gateway.file(), "pg_host = db\n").expect("the prefix can be written to");
    let check = gateway.command("check").output().expect("the program can be run");
    assert!(check.status.success() && said(&check).contains("pg_host has no effect"), "{}", said(&check));
    gateway.restart();
    assert!(gateway.log().contains("pg_host has no effect"), "{}", gateway.log());
}

#[test]
fn a_listener_that_cannot_be_is_told_at_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let addr = taken.local_addr().expect("a bound socket").to_string();
    for (name, value, want) in [
        ("proxy_listen", addr.as_str(), addr.as_str()),
        ("admin_listen", &addr, &addr),
        ("proxy_listen", "127.0.0.1:0 ssl", "not supported yet"),
        ("admin_listen", "0.0.0.0:0", "admin_token"),
    ] {
        let mut gateway = Gateway::unstarted(Driver::any(), &[(name, value)]);
        gateway.spawn();
        assert_eq!(gateway.wait().code(), Some(1), "{name} = {value}");
        assert!(gateway.log().contains(want), "{name} = {value}: {}", gateway.log());
    }
}

/// An upstream that answers each request only when the test says so.
fn held() -> (Peer, mpsc::Sender<()>) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let peer = Peer::scripted(move |accepted| {
        while accepted.request().is_some() {
            let told = wait.lock().expect("no script panics").recv_timeout(PATIENCE);
            if told.is_err() {
                return;
            }
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    (peer, go_on)
}

fn requests_in_flight_finish_when_the_node_is_told_to_end(driver: Driver) {
    const IN_FLIGHT: usize = 40;
    for signal in [libc::SIGTERM, libc::SIGQUIT] {
        let (peer, go_on) = held();
        let mut gateway = Gateway::start(driver);
        gateway.proxy_to(peer.port);
        let mut idle = gateway.connect();
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.arrived();
        go_on.send(()).expect("the upstream waits");
        idle.response().must_be(200);
        let mut clients: Vec<Client> = (0..IN_FLIGHT)
            .map(|_| {
                let mut client = gateway.connect();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                peer.arrived();
                client
            })
            .collect();
        gateway.signal(signal);
        idle.must_end();
        eventually("the listener to be closed", || std::net::TcpStream::connect(("127.0.0.1", gateway.proxy)).err());
        (0..IN_FLIGHT).for_each(|_| go_on.send(()).expect("the upstream waits"));
        for client in &mut clients {
            let answer = client.response().must_be(200);
            assert_eq!((answer.text().as_str(), answer.header("connection")), ("done", Some("close")));
            client.must_end();
        }
        assert!(gateway.wait().success(), "{}", gateway.log());
    }
}

fn a_drain_ends_at_its_time(driver: Driver) {
    let (peer, _go_on) = held();
    let mut gateway = Gateway::with(driver, &[("drain_timeout", "500ms")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.arrived();
    let start = Instant::now();
    gateway.signal(libc::SIGTERM);
    assert!(gateway.wait().success(), "{}", gateway.log());
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(500) && taken < Duration::from_secs(5), "{taken:?}");
    assert_ne!(client.read_to_end(), End::Open);
}

fn int_ends_the_node_at_once(driver: Driver) {
    let (peer, _go_on) = held();
    let mut gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.arrived();
    let start = Instant::now();
    gateway.signal(libc::SIGINT);
    gateway.wait();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

fn idle_and_waiting_connections_end_at_their_time(driver: Driver) {
    let peer = Peer::hello();
    let timeouts =
        [("client_keepalive_timeout", "300ms"), ("client_header_timeout", "600ms"), ("client_keepalive_requests", "3")];
    let gateway = Gateway::with(driver, &timeouts);
    gateway.proxy_to(peer.port);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = gateway.connect();
    client.ask(get).must_be(200);
    let start = Instant::now();
    client.must_end();
    assert!((250..3000).contains(&start.elapsed().as_millis()), "idle for {:?}", start.elapsed());
    let mut silent = gateway.connect();
    let start = Instant::now();
    silent.must_end();
    assert!((500..3000).contains(&start.elapsed().as_millis()), "silent for {:?}", start.elapsed());
    let mut busy = gateway.connect();
    for _ in 0..2 {
        assert_eq!(busy.ask(get).must_be(200).header("connection"), Some("keep-alive"));
    }
    assert_eq!(busy.ask(get).must_be(200).header("connection"), Some("close"), "the last one that is allowed");
    busy.must_end();
}

#[test]
fn a_reload_applies_what_may_change_and_a_broken_file_changes_nothing() {
    let peer = Peer::hello();
    let mut gateway = Gateway::unstarted(Driver::any(), &[]);
    std::fs::write(gateway.file(), "headers = off\n").expect("the prefix can be written to");
    gateway.restart();
    gateway.proxy_to(peer.port);
    let mut kept = gateway.connect();
    let ask =
        |client: &mut Client| client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200).header("via").is_some();
    assert!(!ask(&mut kept));
    std::fs::write(gateway.file(), "headers = server_tokens\n").expect("the prefix can be written to");
    let reload = gateway.cli(&["reload"]);
    assert!(reload.status.success(), "{}", said(&reload));
    eventually("the header to come", || ask(&mut kept).then_some(()));
    std::fs::write(gateway.file(), "headers = nonsense\n").expect("the prefix can be written to");
    let reload = gateway.cli(&["reload"]);
    assert_eq!(reload.status.code(), Some(1), "{}", said(&reload));
    assert!(said(&reload).contains("headers = nonsense"), "{}", said(&reload));
    gateway.signal(libc::SIGHUP);
    eventually("the log to tell", || gateway.log().contains("headers = nonsense").then_some(()));
    assert!(ask(&mut kept), "the node goes on as before");
    std::fs::write(gateway.file(), "headers = off\nworkers = 7\n").expect("the prefix can be written to");
    gateway.signal(libc::SIGHUP);
    eventually("the header to go", || (!ask(&mut kept)).then_some(()));
}

#[test]
fn where_io_uring_is_refused_the_node_serves_through_epoll_and_says_so() {
    let peer = Peer::hello();
    let mut gateway = Gateway::unstarted(Driver::any(), &[]);
    gateway.choose_no_driver();
    gateway.spawn_with(|command| {
        // SAFETY: system calls only, between fork and exec.
        unsafe { command.pre_exec(refuse_io_uring) };
    });
    gateway.wait_until_it_serves();
    assert!(gateway.log().contains("[warn]") && gateway.log().contains("io_uring is refused"), "{}", gateway.log());
    gateway.proxy_to(peer.port);
    assert_eq!(gateway.get("/").must_be(200).text(), "hello");
    let mut gateway = Gateway::unstarted(Driver::IoUring, &[]);
    gateway.spawn_with(|command| {
        // SAFETY: as above.
        unsafe { command.pre_exec(refuse_io_uring) };
    });
    assert_eq!(gateway.wait().code(), Some(1), "what was demanded is not replaced");
    assert!(gateway.log().contains("io_uring is refused"), "{}", gateway.log());
}

/// Has the kernel answer EPERM to io_uring_setup from here on, as the seccomp profile of a container does.
fn refuse_io_uring() -> std::io::Result<()> {
    let load = libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
    let is_setup = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let answer = |k: u32| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let mut filter =
        [load, is_setup, answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32), answer(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn the_admin_api_is_closed_to_others() {
    let mut gateway = Gateway::with(Driver::any(), &[("admin_token", "s3cret")]);
    let mode = std::fs::metadata(gateway.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |fields: &str| {
        let request = format!("GET /services HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        Client::connect(gateway.admin).ask(request).status
    };
    assert_eq!(ask(""), 401);
    assert_eq!(ask("Kong-Admin-Token: wrong\r\n"), 401);
    assert_eq!(ask("Kong-Admin-Token: s3cret\r\n"), 200);
    assert_eq!(ask("Authorization: Bearer s3cret\r\n"), 200);
    gateway.admin("GET", "/services", None).must_be(200);
    let request = "POST /consumers HTTP/1.1\r\nHost: localhost\r\nKong-Admin-Token: s3cret\r\nOrigin: http://evil.test\r\n\
                   Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"username\":\"e\"}";
    Client::connect(gateway.admin).ask(request).must_be(403);
    gateway.signal(libc::SIGTERM);
    gateway.wait();
    assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());
}

#[test]
fn the_status_listener_tells_readiness_and_nothing_else() {
    let port = crate::harness::port::Port::reserve();
    let listen = format!("127.0.0.1:{}", port.number);
    let gateway = Gateway::with(Driver::any(), &[("status_listen", &listen)]);
    let ask = |path: &str| Client::connect(port.number).ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(ask("/status/ready").must_be(200).json(), json!({"message": "ready"}));
    let status = ask("/status").must_be(200).json();
    assert_eq!(status["cores"].as_array().map(Vec::len), Some(2), "{status}");
    ask("/services").must_be(404);
    gateway.admin("GET", "/status/ready", None).must_be(404);
}

#[test]
fn listeners_are_shown_with_the_ports_that_the_kernel_chose() {
    let any = [("admin_listen", "127.0.0.1:0, unix:admin.sock"), ("status_listen", "127.0.0.1:0")];
    let gateway = Gateway::with(Driver::any(), &any);
    let about = gateway.admin("GET", "/", None).must_be(200).json();
    for name in ["proxy_listeners", "admin_listeners", "status_listeners"] {
        let listener = &about["configuration"][name][0];
        let port = listener["port"].as_u64().expect("a port") as u16;
        assert_ne!(port, 0, "{name}: {listener}");
        Client::connect(port).ask("GET /status HTTP/1.1\r\nHost: a\r\n\r\n");
    }
}

#[test]
fn a_restart_may_change_the_flavour_of_the_router() {
    let answering = |name: &str| Peer::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{name}"));
    let (older, newer, said) = (answering("older"), answering("newer"), answering("said!"));
    let mut gateway = Gateway::unstarted(Driver::any(), &[]);
    let flavor = |gateway: &Gateway, name: &str| {
        std::fs::write(gateway.file(), format!("router_flavor = {name}\n")).expect("the prefix can be written to");
    };
    let restart = |gateway: &mut Gateway, name: &str| {
        gateway.signal(libc::SIGTERM);
        assert!(gateway.wait().success());
        flavor(gateway, name);
        gateway.restart();
    };
    flavor(&gateway, "traditional_compatible");
    gateway.restart();
    for (service, peer, id, created_at) in [
        ("one", &older, "11111111-1111-4111-8111-111111111111", 1000),
        ("two", &newer, "22222222-2222-4222-8222-222222222222", 2000),
    ] {
        gateway.service(service, peer.port, json!({}));
        let route = json!({"id": id, "paths": ["/"], "created_at": created_at});
        gateway.create(&format!("/services/{service}/routes"), route);
    }
    // The larger id; then the older one; then the larger id again.
    assert_eq!(gateway.get("/").text(), "newer");
    restart(&mut gateway, "traditional");
    assert_eq!(gateway.get("/").text(), "older");
    restart(&mut gateway, "expressions");
    assert_eq!(gateway.get("/").text(), "newer");
    gateway.service("three", said.port, json!({}));
    gateway.create("/services/three/routes", json!({"name": "said", "expression": r#"http.path ^= "/x""#}));
    assert_eq!(gateway.get("/x").text(), "said!");
}
