//! The data plane allocates nothing for a request on a warm connection.
//! One core runs in this process, in front of a raw upstream; an allocator counts what that core's thread asks for. The
//! only allocation allowed is the next batch of access log records, at most one for each sweep.

mod in_process;

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ringway::config::Driver;
use ringway::entity::RowChange;
use ringway::entity::schema::Record;
use ringway::limits;
use ringway::plugins::PLUGINS;
use ringway::proxy::worker;
use ringway::proxy::worker::Chosen;
use ringway::state::compile::Compiler;
use ringway::state::delta::Delta;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use in_process::Running;
use in_process::delta;
use in_process::is_whole;
use in_process::row;
use in_process::upstream;

const WARMING_REQUESTS: usize = 100;
const COUNTED_REQUESTS: usize = 1000;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Thread whose allocations count; 0: none.
static WATCHED_THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BATCHES: AtomicU64 = AtomicU64::new(0);
/// Where the first counted allocation came from.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    // Const and without a destructor: reading them allocates nothing.
    static THREAD: Cell<i32> = const { Cell::new(0) };
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

fn note(bytes: usize) {
    let watched = WATCHED_THREAD.load(Ordering::Relaxed);
    if watched == 0 || thread_id() != watched || LOOKING.get() {
        return;
    }
    if bytes == limits::RECORD_BATCH_BYTES {
        BATCHES.fetch_add(1, Ordering::Relaxed);
    } else if ALLOCATIONS.fetch_add(1, Ordering::Relaxed) == 0 {
        LOOKING.set(true);
        let trace = format!("{bytes} bytes\n{}", Backtrace::force_capture());
        *FIRST.lock().expect("nothing panics while it is held") = Some(trace);
        LOOKING.set(false);
    }
}

fn thread_id() -> i32 {
    if THREAD.get() == 0 {
        // SAFETY: gettid() has no preconditions.
        THREAD.set(unsafe { libc::gettid() });
    }
    THREAD.get()
}

/// The tests count one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Serves `/` from a raw upstream, `/locked` likewise to who has a key, `/chain` behind five plugins, `/limited` behind a limit
/// that the upstream uses up, `/kept` out of the cache.
fn configuration(upstream_port: u16) -> Delta {
    let [service, route, locked, measured, traced, consumer] = [(); 6].map(|()| Uuid::new_v4().to_string());
    let key_auth = json!({"key_names": ["apikey"], "key_in_header": true, "key_in_query": true, "key_in_body": false,
        "hide_credentials": false, "run_on_preflight": true, "anonymous": null, "realm": null});
    let mut rows = vec![
        row("services", json!({"id": service, "protocol": "http", "host": "127.0.0.1", "port": upstream_port})),
        row("routes", json!({"id": route, "protocols": ["http"], "paths": ["/"], "service": {"id": service}})),
        row("routes", json!({"id": locked, "protocols": ["http"], "paths": ["/locked"], "service": {"id": service}})),
        row("plugins", json!({"name": "key-auth", "enabled": true, "route": {"id": locked}, "config": key_auth})),
        row(
            "routes",
            json!({"id": measured, "protocols": ["http"], "paths": ["/measured"], "service": {"id": service}}),
        ),
        row(
            "plugins",
            json!({"name": "prometheus", "enabled": true, "route": {"id": measured}, "config":
            {"status_code_metrics": true, "bandwidth_metrics": true, "latency_metrics": true, "per_consumer": true}}),
        ),
        row("routes", json!({"id": traced, "protocols": ["http"], "paths": ["/traced"], "service": {"id": service}})),
        row(
            "plugins",
            json!({"name": "opentelemetry", "enabled": true, "route": {"id": traced}, "config":
            {"traces_endpoint": "http://127.0.0.1:1/", "header_type": "jaeger", "queue": {}}}),
        ),
        row(
            "plugins",
            json!({"name": "zipkin", "enabled": true, "route": {"id": traced}, "config":
            {"http_endpoint": "http://127.0.0.1:1/", "sample_ratio": 0, "queue": {}}}),
        ),
        row("consumers", json!({"id": consumer, "username": "c"})),
        row("keyauth_credentials", json!({"key": "secret", "consumer": {"id": consumer}})),
    ];
    rows.extend(plugged("chain", &service));
    rows.push(row("acls", json!({"group": "g", "consumer": {"id": consumer}})));
    rows.extend(guarded(&service, "hmac-auth", json!({"clock_skew": 300, "algorithms": ["hmac-sha256"]})));
    rows.push(row("hmacauth_credentials", json!({"username": "u", "secret": "s", "consumer": {"id": consumer}})));
    rows.extend(guarded(&service, "oauth2", json!({"auth_header_name": "authorization"})));
    let app = Uuid::new_v4().to_string();
    rows.push(row("oauth2_credentials", json!({"id": app, "client_id": "a", "consumer": {"id": consumer}})));
    let granted = json!({"access_token": "t", "expires_in": 0, "credential": {"id": app}, "service": {"id": service}});
    rows.push(row("oauth2_tokens", granted));
    rows.extend(balanced("least-connections", "none", upstream_port));
    rows.extend(balanced("latency", "none", upstream_port));
    rows.extend(balanced("consistent-hashing", "cookie", upstream_port));
    let compiled = Compiler::default().compile(&rows).unwrap_or_else(|refusals| panic!("refused: {refusals:?}"));
    delta(compiled)
}

/// A route of that name behind the plugins that stand for such a chain, and one for each of two others.
fn plugged(name: &str, service: &str) -> Vec<RowChange> {
    let route = || Uuid::new_v4().to_string();
    let [chain, limited, kept] = [(); 3].map(|()| route());
    let plugin = |route: &str, name: &str, config: Value| {
        let kind = PLUGINS.iter().find(|kind| kind.schema.name == name).expect("the program has it");
        let mut row_of = json!({"name": name, "enabled": true, "route": {"id": route}, "config": config});
        complete(&mut row_of["config"], &kind.schema.config);
        row("plugins", row_of)
    };
    let to = |id: &str, path: &str| {
        row("routes", json!({"id": id, "protocols": ["http"], "paths": [path], "service": {"id": service}}))
    };
    vec![
        to(&chain, &format!("/{name}")),
        plugin(&chain, "key-auth", json!({})),
        plugin(&chain, "acl", json!({"allow": ["g"]})),
        plugin(&chain, "rate-limiting", json!({"year": 1_000_000, "policy": "local"})),
        plugin(&chain, "correlation-id", json!({"echo_downstream": true})),
        plugin(&chain, "request-transformer", json!({"add": {"headers": ["x-added:$(headers.host)", "x-fixed:1"]}})),
        to(&limited, "/limited"),
        plugin(&limited, "response-ratelimiting", json!({"limits": {"v": {"year": 1_000_000}}})),
        to(&kept, "/kept"),
        plugin(&kept, "proxy-cache", json!({"strategy": "memory", "content_type": ["*/*"]})),
    ]
}

/// Adds the defaults of a record's fields.
fn complete(config: &mut Value, record: &Record) {
    for field in record.fields {
        if config.get(field.name).is_none() {
            config[field.name] = field.default.map_or(Value::Null, |default| default.to_value());
        }
    }
}

/// A route of the plugin's name with the plugin on it.
fn guarded(service: &str, plugin: &str, config: Value) -> [RowChange; 2] {
    let route = Uuid::new_v4().to_string();
    let path = format!("/{plugin}");
    [
        row("routes", json!({"id": route, "protocols": ["http"], "paths": [path], "service": {"id": service}})),
        row("plugins", json!({"name": plugin, "enabled": true, "route": {"id": route}, "config": config})),
    ]
}

/// A route of the algorithm's name to an upstream of two targets, with passive checks on.
fn balanced(algorithm: &str, hash_on: &str, port: u16) -> Vec<RowChange> {
    let [upstream, service] = [(); 2].map(|()| Uuid::new_v4().to_string());
    let checks = json!({"passive": {"healthy": {"successes": 1, "http_statuses": [200]},
        "unhealthy": {"tcp_failures": 3, "http_failures": 3, "timeouts": 3, "http_statuses": [500]}}});
    let target = |host: &str| {
        row("targets", json!({"upstream": {"id": upstream}, "target": format!("{host}:{port}"), "weight": 100}))
    };
    vec![
        row(
            "upstreams",
            json!({"id": upstream, "name": algorithm, "algorithm": algorithm, "healthchecks": checks,
            "hash_on": hash_on, "hash_on_cookie": "c", "hash_fallback": "none"}),
        ),
        target("127.0.0.1"),
        target("localhost.test"),
        row("services", json!({"id": service, "protocol": "http", "host": algorithm, "port": 80})),
        row("routes", json!({"protocols": ["http"], "paths": [format!("/{algorithm}")], "service": {"id": service}})),
    ]
}

fn core_thread() -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
    let mut threads = tasks.filter_map(|task| {
        let task = task.ok()?;
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        (name.trim_end() == "ringway-core-0").then(|| task.file_name().to_string_lossy().parse().ok())?
    });
    threads.next().expect("the core has a thread of that name")
}

fn ask(client: &mut TcpStream, request: &[u8], want: &str) {
    client.write_all(request).expect("the core reads requests");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        let count = client.read(&mut piece).expect("the core answers");
        assert_ne!(count, 0, "the core closed after {}", answer.escape_ascii());
        answer.extend_from_slice(&piece[..count]);
    }
    assert!(answer.starts_with(want.as_bytes()), "{}", answer.escape_ascii());
}

#[track_caller]
fn check(request: &str, want: &str, access_log: &str) {
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut drivers = vec![Chosen::Epoll];
    match worker::choose(Driver::IoUring) {
        Ok((chosen, _)) => drivers.push(chosen),
        Err(why) => eprintln!("not counted on io_uring: {why}"),
    }
    for driver in drivers {
        let core = Running::start(driver, access_log, configuration(upstream()));
        let mut client = core.connect();
        (0..WARMING_REQUESTS).for_each(|_| ask(&mut client, request.as_bytes(), want));
        let (counted, batches) = (ALLOCATIONS.swap(0, Ordering::SeqCst), BATCHES.swap(0, Ordering::SeqCst));
        assert_eq!((counted, batches), (0, 0), "nothing is counted yet");
        let start = Instant::now();
        WATCHED_THREAD.store(core_thread(), Ordering::SeqCst);
        (0..COUNTED_REQUESTS).for_each(|_| ask(&mut client, request.as_bytes(), want));
        WATCHED_THREAD.store(0, Ordering::SeqCst);
        let sweeps = start.elapsed().as_millis() as u64 / limits::SWEEP_MS + 2;
        let (counted, batches) = (ALLOCATIONS.swap(0, Ordering::SeqCst), BATCHES.swap(0, Ordering::SeqCst));
        assert_eq!(core.counters.panics.get(), 0, "nothing went wrong on the way");
        let first = FIRST.lock().expect("nothing panics while it is held").take().unwrap_or_default();
        assert_eq!(counted, 0, "allocations in {COUNTED_REQUESTS} requests on {driver:?}; the first: {first}");
        assert!(batches <= sweeps, "{batches} batches of records in {sweeps} sweeps on {driver:?}");
    }
    drop(turn);
}

const GET: &str = "GET /a/b?c=d HTTP/1.1\r\nHost: test\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n";

#[test]
fn a_get_allocates_nothing() {
    check(GET, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_that_is_logged_allocates_only_batches_of_records() {
    check(GET, "HTTP/1.1 200 OK\r\n", "access.log");
}

#[test]
fn a_post_with_a_small_body_allocates_nothing() {
    let post = "POST /a HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello there";
    check(post, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_with_a_key_allocates_nothing() {
    let get = "GET /locked/x HTTP/1.1\r\nHost: test\r\napikey: secret\r\n\r\n";
    check(get, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_signed_get_allocates_nothing() {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let signed = format!("x-date: {date}\nGET /hmac-auth HTTP/1.1");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s"), signed.as_bytes());
    let signature = STANDARD.encode(signature);
    let says = format!(
        r#"hmac username="u", algorithm="hmac-sha256", headers="x-date request-line", signature="{signature}""#
    );
    let get = format!("GET /hmac-auth HTTP/1.1\r\nHost: test\r\nX-Date: {date}\r\nAuthorization: {says}\r\n\r\n");
    check(&get, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_with_a_token_allocates_nothing() {
    check("GET /oauth2 HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer t\r\n\r\n", "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_that_is_measured_allocates_nothing() {
    check("GET /measured HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_whose_trace_is_passed_on_allocates_nothing() {
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let get = format!("GET /traced HTTP/1.1\r\nHost: test\r\n{trace}\r\n\r\n");
    check(&get, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_behind_five_plugins_allocates_nothing() {
    let get = "GET /chain/x?a=b HTTP/1.1\r\nHost: test\r\napikey: secret\r\n\r\n";
    check(get, "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_whose_response_uses_up_a_limit_allocates_nothing() {
    check("GET /limited HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn a_get_that_the_cache_answers_allocates_nothing() {
    check("GET /kept?b=1&a=2 HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 200 OK\r\n", "off");
}

#[test]
fn an_answer_without_a_route_or_a_key_allocates_nothing() {
    check("GET /locked HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n", "off");
}

#[test]
fn every_way_of_balancing_with_passive_checks_allocates_nothing() {
    for algorithm in ["least-connections", "latency", "consistent-hashing"] {
        check(&format!("GET /{algorithm} HTTP/1.1\r\nHost: test\r\n\r\n"), "HTTP/1.1 200 OK\r\n", "off");
    }
}
