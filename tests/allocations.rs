//! The data plane allocates nothing for a request on a warm connection.
//! One core runs in this process, in front of a raw upstream; an allocator counts what that core's thread asks for. The
//! only allocation allowed is the next batch of access log records, at most one for each sweep.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ringway::config::Driver;
use ringway::config::Settings;
use ringway::config::Sources;
use ringway::entity::RowChange;
use ringway::limits;
use ringway::metrics::counters::CoreCounters;
use ringway::proxy::listener;
use ringway::proxy::steering::Fleet;
use ringway::proxy::worker;
use ringway::proxy::worker::Chosen;
use ringway::proxy::worker::NodeFacts;
use ringway::proxy::worker::Seed;
use ringway::state::book::PeerBook;
use ringway::state::compile::Compiler;
use ringway::state::delta::Delta;
use ringway::state::mailbox::Outbox;
use ringway::state::mailbox::Post;
use ringway::state::mailbox::Sender;
use ringway::state::mailbox::mailbox;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
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

/// A core that serves `/` from a raw upstream, `/locked` likewise to who has a key.
struct Running {
    port: u16,
    sender: Sender,
    thread: Option<JoinHandle<()>>,
}

fn row(entity: &'static str, fields: Value) -> RowChange {
    let Value::Object(mut row) = fields else { panic!("a row is an object") };
    let id = Uuid::new_v4();
    row.entry("id").or_insert_with(|| id.to_string().into());
    let id = row["id"].as_str().and_then(|text| text.parse().ok()).expect("an id");
    RowChange { entity, id, row: Some(row), text: None, expires_at_ms: None }
}

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
    rows.extend(balanced("least-connections", "none", upstream_port));
    rows.extend(balanced("latency", "none", upstream_port));
    rows.extend(balanced("consistent-hashing", "cookie", upstream_port));
    let compiled = Compiler::default().compile(&rows).unwrap_or_else(|refusals| panic!("refused: {refusals:?}"));
    let peers = PeerBook::new(Arc::new(|_| {})).apply(&compiled.backends, &[], &[], 0);
    Delta { version: 1, changes: compiled.changes, directory: compiled.directory, peers }
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

impl Running {
    fn start(driver: Chosen, access_log: &str) -> Self {
        let flags = [("proxy_listen", "127.0.0.1:0"), ("proxy_access_log", access_log), ("prefix", "/nowhere")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = Settings::load(Sources { flags: &flags, ..Sources::default() });
        let settings =
            loaded.unwrap_or_else(|errors| panic!("{:?}", errors.iter().map(ToString::to_string).collect::<Vec<_>>()));
        let settings = Arc::new(settings.settings);
        let mut bound = listener::bind(&settings.proxy_listen, 1, None).expect("loopback has free ports");
        let (sender, inbox) = mailbox().expect("sockets can be made");
        let (told, acknowledged) = mpsc::channel();
        let (outbox, records) = Outbox::new(Arc::new(move |_, version| {
            let _ = told.send(version);
        }));
        // The log writer of this test; it ends with the core.
        std::thread::spawn(move || while records.recv().is_ok() {});
        let counters = Arc::new(CoreCounters::default());
        let fleet = Fleet::new([(sender.clone(), counters.clone())].into_iter());
        let seed = Seed {
            index: 0,
            cpu: None,
            listeners: bound.sockets.remove(0),
            settings,
            driver,
            initial: Arc::new(configuration(upstream())),
            mailbox: inbox,
            outbox,
            counters,
            fleet: Arc::new(fleet),
            node: NodeFacts {
                node_id: Uuid::new_v4().to_string(),
                hostname: "test".to_owned(),
                spooled: Default::default(),
                debug_token: "".into(),
                counts: Arc::default(),
            },
        };
        let thread = worker::spawn(seed).expect("threads can be made");
        assert_eq!(acknowledged.recv_timeout(PATIENCE), Ok(1), "the core serves its first configuration");
        Self { port: bound.addrs[0].port(), sender, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        WATCHED_THREAD.store(0, Ordering::SeqCst);
        self.sender.post(Post::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An upstream that keeps its connections and answers each request with the same bytes. Its port.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("a bound socket").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut received = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    received.extend_from_slice(&piece[..count]);
                    if is_whole(&received) {
                        received.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-Own: 1\r\n\r\nhello";
                        stream.write_all(answer).expect("the core reads answers");
                    }
                }
            });
        }
    });
    port
}

/// Whether a message has its end of head and as many body bytes as its Content-Length says.
fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lengths = head.lines().filter_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse::<usize>().ok());
    body.len() >= lengths.max().unwrap_or(0)
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
        let core = Running::start(driver, access_log);
        let mut client = TcpStream::connect(("127.0.0.1", core.port)).expect("the core listens");
        client.set_read_timeout(Some(PATIENCE)).expect("not zero");
        (0..WARMING_REQUESTS).for_each(|_| ask(&mut client, request.as_bytes(), want));
        let (counted, batches) = (ALLOCATIONS.swap(0, Ordering::SeqCst), BATCHES.swap(0, Ordering::SeqCst));
        assert_eq!((counted, batches), (0, 0), "nothing is counted yet");
        let start = Instant::now();
        WATCHED_THREAD.store(core_thread(), Ordering::SeqCst);
        (0..COUNTED_REQUESTS).for_each(|_| ask(&mut client, request.as_bytes(), want));
        WATCHED_THREAD.store(0, Ordering::SeqCst);
        let sweeps = start.elapsed().as_millis() as u64 / limits::SWEEP_MS + 2;
        let (counted, batches) = (ALLOCATIONS.swap(0, Ordering::SeqCst), BATCHES.swap(0, Ordering::SeqCst));
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
fn an_answer_without_a_route_or_a_key_allocates_nothing() {
    check("GET /locked HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n", "off");
}

#[test]
fn every_way_of_balancing_with_passive_checks_allocates_nothing() {
    for algorithm in ["least-connections", "latency", "consistent-hashing"] {
        check(&format!("GET /{algorithm} HTTP/1.1\r\nHost: test\r\n\r\n"), "HTTP/1.1 200 OK\r\n", "off");
    }
}
