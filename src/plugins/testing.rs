//! A request as plugins meet it, from the bytes of its head.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use serde_json::Value;
use uuid::Uuid;

use crate::config::Instrumented;
use crate::entity::basicauth_credential::password_hash;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::http::parse::HeadLimits;
use crate::http::parse::Progress;
use crate::http::parse::parse_request;
use crate::metrics::series::CoreSeries;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Asking;
use crate::plugins::ask::Question;
use crate::plugins::cache::CoreCache;
use crate::plugins::chain::Scope;
use crate::plugins::counts::CoreCounts;
use crate::plugins::directory::Consumer;
use crate::plugins::directory::Credential;
use crate::plugins::directory::Directory;
use crate::plugins::recent::Recent;
use crate::plugins::token_key::TokenKey;
use crate::plugins::view::ConnFacts;
use crate::plugins::view::CoreFacts;
use crate::plugins::view::Editable;
use crate::plugins::view::EntityFacts;
use crate::plugins::view::Figures;
use crate::plugins::view::Identity;
use crate::plugins::view::LogView;
use crate::plugins::view::Notes;
use crate::plugins::view::PathCaptures;
use crate::plugins::view::PieceView;
use crate::plugins::view::Reply;
use crate::plugins::view::ResponseView;
use crate::plugins::view::Rewrite;
use crate::plugins::view::Told;
use crate::plugins::view::View;

/// The configuration with the defaults of its schema, compiled.
#[track_caller]
pub fn plugin(kind: &Kind, config: Value) -> Box<dyn Plugin> {
    (kind.build)(&complete(kind, config)).expect("the configuration is a good one")
}

/// What is wrong with a configuration: field and message.
#[track_caller]
pub fn refusal(kind: &Kind, config: Value) -> (String, String) {
    let error = (kind.build)(&complete(kind, config)).err().expect("the configuration is refused");
    (error.field, error.message)
}

fn complete(kind: &Kind, mut config: Value) -> serde_json::Map<String, Value> {
    for field in kind.schema.config.fields {
        if config.get(field.name).is_none() {
            let automatic = field.auto.map_or(Value::Null, |_| Value::from("random text"));
            config[field.name] = field.default.map_or(automatic, |default| default.to_value());
        }
    }
    config.as_object().expect("a configuration is an object").clone()
}

/// One exchange and all that surrounds it.
pub struct Exchange {
    source: Vec<u8>,
    head: RequestHead,
    body: Option<Vec<u8>>,
    edited_query: Option<Vec<u8>>,
    edited_body: Option<Vec<u8>>,
    pub identity: Identity,
    pub directory: Directory,
    pub core: CoreFacts,
    pub captures: Option<Box<dyn PathCaptures>>,
    pub route: Option<String>,
    pub service: Option<Uuid>,
    pub now_unix_ms: u64,
    pub reply: Reply,
    pub notes: Notes,
    pub told: Told,
    pub body_bytes_max: Option<u64>,
    pub rewrite: Rewrite,
    /// Whether what forwarding headers say is believed.
    pub peer_is_trusted: bool,
    /// What the last phase asked.
    pub asking: Option<Asking>,
    /// Of the response that `response_head` is shown.
    pub status: u16,
    pub drop_body: bool,
    response_fields: Fields,
}

impl Exchange {
    /// A request line without its version and field lines, one per element: `["GET /p", "apikey: k1"]`.
    #[track_caller]
    pub fn new(lines: &[&str]) -> Self {
        let source = format!("{} HTTP/1.1\r\n{}\r\n\r\n", lines[0], lines[1..].join("\r\n"))
            .replace("\r\n\r\n\r\n", "\r\n\r\n")
            .into_bytes();
        let mut head = RequestHead::default();
        let limits = HeadLimits { line_bytes_max: 8192, field_bytes_max: 8192, head_bytes_max: 32768, fields_max: 100 };
        assert_eq!(parse_request(&source, &limits, &mut head), Ok(Progress::Complete), "{lines:?}");
        Self {
            source,
            head,
            body: None,
            edited_query: None,
            edited_body: None,
            identity: Identity::default(),
            directory: directory(),
            core: CoreFacts {
                node_id: "node".into(),
                hostname: "host".into(),
                pid: 77,
                worker_id: "worker".into(),
                serial: Cell::new(0),
                random: || 0x0123_4567_89ab_cdef,
                counts: CoreCounts::default(),
                series: CoreSeries::default(),
                recent: RefCell::new(Recent::new(100)),
                instrumented: Instrumented::default(),
                sampling_rate: 0.0,
                cache: CoreCache::default(),
            },
            captures: None,
            route: None,
            service: None,
            now_unix_ms: NOW_UNIX_MS,
            reply: Reply::default(),
            notes: Notes::default(),
            told: Told::default(),
            body_bytes_max: None,
            rewrite: Rewrite::default(),
            peer_is_trusted: false,
            asking: None,
            status: 200,
            drop_body: false,
            response_fields: Fields::default(),
        }
    }

    pub fn with_body(mut self, body: &str) -> Self {
        self.body = Some(body.as_bytes().to_vec());
        self
    }

    pub fn access(&mut self, plugin: &dyn Plugin) -> Verdict {
        self.with_view(|view| plugin.access(view))
    }

    pub fn answered(&mut self, plugin: &dyn Plugin, answer: Answer) -> Verdict {
        self.with_view(|view| plugin.answered(view, answer))
    }

    /// Shows the request as the access phase shows it.
    pub fn with_view<T>(&mut self, phase: impl FnOnce(&mut View<'_>) -> T) -> T {
        let target = self.head.target.of(&self.source);
        let (path, query) = match target.iter().position(|&byte| byte == b'?') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &b""[..]),
        };
        let edited_body = &mut self.edited_body;
        let mut view = View {
            method: self.head.method,
            method_text: self.head.method_span.of(&self.source),
            scheme: "http",
            peer_is_trusted: self.peer_is_trusted,
            host: b"Example.test",
            port: 8000,
            version: self.head.version,
            target,
            path,
            query: Editable::new(query, &mut self.edited_query),
            body: self.body.as_deref().map(|body| Editable::new(body, edited_body)),
            body_bytes_max: &mut self.body_bytes_max,
            rewrite: &mut self.rewrite,
            fields: &mut self.head.fields,
            source: &self.source,
            identity: &mut self.identity,
            directory: &self.directory,
            core: &self.core,
            conn: CONN,
            scope: Scope::default(),
            route: self.route.as_deref().map(|document| EntityFacts { id: Uuid::nil(), name: None, document }),
            service: self.service.map(|id| EntityFacts { id, name: None, document: "{}" }),
            captures: self.captures.as_deref(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            now_unix_ms: self.now_unix_ms,
            reply: &mut self.reply,
            notes: &mut self.notes,
            told: &mut self.told,
            asking: &mut self.asking,
        };
        phase(&mut view)
    }

    pub fn response_head(&mut self, plugin: &dyn Plugin) {
        let mut view = ResponseView {
            status: self.status,
            drop_body: self.drop_body,
            fields: &mut self.response_fields,
            source: &[],
            request_fields: &self.head.fields,
            request_source: &self.source,
            proxied: true,
            from_upstream: true,
            method: self.head.method,
            notes: &mut self.notes,
            identity: &self.identity,
            directory: &self.directory,
            core: &self.core,
            conn: CONN,
            now_unix_ms: self.now_unix_ms,
            asking: &mut self.asking,
        };
        plugin.response_head(&mut view);
        (self.status, self.drop_body) = (view.status, view.drop_body);
    }

    /// Shows a piece of the response's body.
    pub fn response_piece(&mut self, plugin: &dyn Plugin, piece: &[u8], last: bool) {
        plugin.response_piece(&mut PieceView { piece, last, notes: &mut self.notes, now_unix_ms: NOW_UNIX_MS });
    }

    /// The log phase; what it tells.
    pub fn log(&mut self, plugin: &dyn Plugin) -> Option<Question> {
        let mut tell = None;
        plugin.log(&mut LogView {
            status: self.status,
            from_upstream: true,
            route: None,
            service: None,
            identity: &self.identity,
            directory: &self.directory,
            notes: &mut self.notes,
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            figures: Figures::default(),
            core: &self.core,
            now_unix_ms: NOW_UNIX_MS,
            tell: &mut tell,
        });
        tell
    }

    /// A field of the response that `response_head` is shown.
    pub fn response_field(&mut self, name: &str, value: &str) {
        assert!(self.response_fields.append_by_name(name.as_bytes(), value.as_bytes()));
    }

    /// The request's fields as `Name: value`, in order.
    pub fn fields(&self) -> Vec<String> {
        lines(&self.head.fields, &self.source)
    }

    /// The values of one field of the response.
    pub fn response_fields(&self) -> Vec<String> {
        lines(&self.response_fields, &[])
    }

    /// The fields that the answer carries.
    pub fn reply_fields(&self) -> Vec<String> {
        lines(&self.reply.fields, &[])
    }

    pub fn reply_text(&self) -> String {
        String::from_utf8_lossy(&self.reply.text).into_owned()
    }

    /// The query string that replaced the one received.
    pub fn edited_query(&self) -> Option<&str> {
        self.edited_query.as_deref().map(|query| std::str::from_utf8(query).expect("tests edit text"))
    }

    /// The body that replaced the one received.
    pub fn edited_body(&self) -> Option<&str> {
        self.edited_body.as_deref().map(|body| std::str::from_utf8(body).expect("tests edit text"))
    }
}

/// 1 s after `EXPIRES_UNIX_MS`.
pub const NOW_UNIX_MS: u64 = 1_700_000_001_042;
pub const EXPIRES_UNIX_MS: u64 = 1_700_000_000_042;

const CONN: ConnFacts = ConnFacts {
    peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000),
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
    serial: 12,
    requests: 3,
};

fn lines(fields: &Fields, source: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter(source).map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
}

/// alice (1, custom id a1, keys k1 and an expired one, password p1 of u1, signatures of h1 with s1, tokens of iss1, groups g1 and g2), bob (2, key k2), anon (3).
fn directory() -> Directory {
    let mut directory = Directory::default();
    for (n, username, custom_id) in [(1, "alice", Some("a1")), (2, "bob", None), (3, "anon", None)] {
        let id = Uuid::from_u128(n);
        directory.put_consumer(Consumer {
            id,
            id_text: id.to_string().into(),
            username: Some(username.into()),
            custom_id: custom_id.map(Box::from),
        });
    }
    for (n, owner, key, expires_at_ms) in
        [(0x11, 1, "k1", None), (0x12, 2, "k2", None), (0x13, 1, "expired", Some(EXPIRES_UNIX_MS))]
    {
        let (id, consumer) = (Uuid::from_u128(n), Uuid::from_u128(owner));
        directory.keys.put(Credential { id, consumer, key: key.into(), secret: (), expires_at_ms });
    }
    let hash = password_hash(b"p1", &Uuid::from_u128(1).to_string()).into_boxed_str();
    directory.passwords.put(Credential {
        id: Uuid::from_u128(0x21),
        consumer: Uuid::from_u128(1),
        key: "u1".into(),
        secret: hash,
        expires_at_ms: None,
    });
    directory.signers.put(Credential {
        id: Uuid::from_u128(0x51),
        consumer: Uuid::from_u128(1),
        key: "h1".into(),
        secret: "s1".into(),
        expires_at_ms: None,
    });
    directory.tokens.put(Credential {
        id: Uuid::from_u128(0x41),
        consumer: Uuid::from_u128(1),
        key: "iss1".into(),
        secret: TokenKey::new("HS256", Some("sec1"), None),
        expires_at_ms: None,
    });
    for (n, group) in [(0x31, "g1"), (0x32, "g2")] {
        directory.put_membership(Uuid::from_u128(n), Uuid::from_u128(1), group);
    }
    directory
}
