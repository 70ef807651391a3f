//! One core in the process of the test, in front of a raw upstream.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway::config::Settings;
use ringway::config::Sources;
use ringway::entity::RowChange;
use ringway::metrics::counters::CoreCounters;
use ringway::proxy::listener;
use ringway::proxy::steering::Fleet;
use ringway::proxy::worker;
use ringway::proxy::worker::Chosen;
use ringway::proxy::worker::NodeFacts;
use ringway::proxy::worker::Seed;
use ringway::state::book::PeerBook;
use ringway::state::compile::Compiled;
use ringway::state::delta::Delta;
use ringway::state::mailbox::Outbox;
use ringway::state::mailbox::Post;
use ringway::state::mailbox::Sender;
use ringway::state::mailbox::mailbox;
use serde_json::Value;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running core; it ends with this.
pub struct Running {
    port: u16,
    sender: Sender,
    pub counters: Arc<CoreCounters>,
    thread: Option<JoinHandle<()>>,
}

/// A new row of an entity.
pub fn row(entity: &'static str, fields: Value) -> RowChange {
    let Value::Object(mut row) = fields else { panic!("a row is an object") };
    let id = Uuid::new_v4();
    row.entry("id").or_insert_with(|| id.to_string().into());
    let id = row["id"].as_str().and_then(|text| text.parse().ok()).expect("an id");
    RowChange { entity, id, row: Some(row), text: None, expires_at_ms: None }
}

/// What a core is given to begin with.
pub fn delta(compiled: Compiled) -> Delta {
    let peers = PeerBook::new(Arc::new(|_| {})).apply(&compiled.backends, &[], &[], 0);
    Delta { version: 1, changes: compiled.changes, directory: compiled.directory, peers }
}

impl Running {
    /// Starts a core with that configuration; `access_log` is a file or `off`.
    pub fn start(driver: Chosen, access_log: &str, configuration: Delta) -> Self {
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
            initial: Arc::new(configuration),
            mailbox: inbox,
            outbox,
            counters: counters.clone(),
            fleet: Arc::new(fleet),
            node: NodeFacts {
                node_id: Uuid::new_v4().to_string(),
                hostname: "test".to_owned(),
                spooled: Default::default(),
                debug_token: "".into(),
                counts: Arc::default(),
                cache: Arc::default(),
            },
        };
        let thread = worker::spawn(seed).expect("threads can be made");
        assert_eq!(acknowledged.recv_timeout(PATIENCE), Ok(1), "the core serves its first configuration");
        Self { port: bound.addrs[0].port(), sender, counters, thread: Some(thread) }
    }

    /// A client of the core.
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.port)).expect("the core listens");
        client.set_read_timeout(Some(PATIENCE)).expect("not zero");
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sender.post(Post::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An upstream that keeps its connections and answers each request with the same bytes. Its port.
pub fn upstream() -> u16 {
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
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-Own: 1\r\nX-Kong-Limit: v=1\r\n\r\nhello";
                        stream.write_all(answer).expect("the core reads answers");
                    }
                }
            });
        }
    });
    port
}

/// Whether a message has its end of head and as many body bytes as its Content-Length says.
pub fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lengths = head.lines().filter_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse::<usize>().ok());
    body.len() >= lengths.max().unwrap_or(0)
}
