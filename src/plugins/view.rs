//! HOT: reading costs a borrow; only a change copies, into memory that the exchange keeps.
//! All that a plugin may see and change of one exchange.
//! Never: reaches a socket or another request.

use std::any::Any;
use std::cell::Cell;
use std::cell::RefCell;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::Instrumented;
use crate::http::fields::Fields;
use crate::http::head::Method;
use crate::http::head::Version;
use crate::metrics::series::CoreSeries;
use crate::plugins::Verdict;
use crate::plugins::ask::Asking;
use crate::plugins::ask::Question;
use crate::plugins::cache::CoreCache;
use crate::plugins::cache::Held;
use crate::plugins::chain::Scope;
use crate::plugins::counts::CoreCounts;
use crate::plugins::directory::Consumer;
use crate::plugins::directory::Directory;
use crate::plugins::directory::Groups;
use crate::plugins::recent::Recent;

/// Who the request comes from, as far as authentication has told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub consumer: Option<Uuid>,
    /// Id of the credential; the anonymous consumer has none.
    pub credential: Option<Uuid>,
    /// Groups that authentication itself told, whatever those of the consumer are.
    pub groups: Option<Arc<Groups>>,
}

/// What stays the same for all requests of one core.
pub struct CoreFacts {
    pub node_id: Box<str>,
    pub hostname: Box<str>,
    pub pid: u32,
    /// A UUID of this core and run, for generated ids.
    pub worker_id: Box<str>,
    /// A count that each use raises, for generated ids; starts at 0.
    pub serial: Cell<u64>,
    /// 64 random bits per call.
    pub random: fn() -> u64,
    /// Uses that are limited.
    pub counts: CoreCounts,
    /// Figures by route.
    pub series: CoreSeries,
    /// What servers said of credentials lately.
    pub recent: RefCell<Recent>,
    /// What is traced, and the share of traces that is sent.
    pub instrumented: Instrumented,
    pub sampling_rate: f64,
    /// Responses that are kept.
    pub cache: CoreCache,
}

/// The client's connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnFacts {
    /// Peer of the TCP connection.
    pub peer: SocketAddr,
    /// Our end of it.
    pub local: SocketAddr,
    /// Number of the connection on this core.
    pub serial: u64,
    /// Number of this request on the connection, from 1.
    pub requests: u64,
}

/// What plugins may know of the matched route or service.
#[derive(Clone, Copy)]
pub struct EntityFacts<'a> {
    pub id: Uuid,
    pub name: Option<&'a str>,
    /// The entity as JSON text, as the Admin API shows it.
    pub document: &'a str,
}

/// The groups of the path regex that matched.
pub trait PathCaptures {
    /// Calls `tell` for every group from 1 on that caught something, in order.
    fn each(&self, tell: &mut dyn FnMut(PathCapture<'_>));
}

/// What one group of a path regex caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathCapture<'a> {
    /// Of `(?<name>...)`.
    pub name: Option<&'a str>,
    pub text: &'a [u8],
}

/// A text that a plugin may replace: the query string or the body.
pub struct Editable<'a> {
    original: &'a [u8],
    edited: &'a mut Option<Vec<u8>>,
}

impl<'a> Editable<'a> {
    /// `edited` is where a replacement is kept.
    pub fn new(original: &'a [u8], edited: &'a mut Option<Vec<u8>>) -> Self {
        Self { original, edited }
    }

    /// The present text.
    pub fn get(&self) -> &[u8] {
        self.edited.as_deref().unwrap_or(self.original)
    }

    /// Replaces the text.
    pub fn set(&mut self, text: Vec<u8>) {
        *self.edited = Some(text);
    }
}

/// What the upstream is asked differently from what the client asked; empty: no difference. Every text must be fit to stand
/// in a request head. Reused from request to request.
#[derive(Default)]
pub struct Rewrite {
    pub method: Vec<u8>,
    /// All of the path, in place of what route and service make of it.
    pub path: Vec<u8>,
    pub host: Vec<u8>,
}

impl Rewrite {
    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.method.clear();
        self.path.clear();
        self.host.clear();
    }
}

/// What one configuration of a plugin keeps of one request between its phases. Reused from request to request.
#[derive(Default)]
pub struct Notes {
    /// Of the plugin's own meaning; 0 at first.
    pub numbers: [u64; 4],
    /// Of the plugin's own meaning; empty at first. They go with the record of the request to where the plugin ships it.
    pub bytes: Vec<u8>,
    /// What `response_head` wanted of the body.
    pub body: BodyUse,
    /// Set by a plugin that ships: not this request.
    pub unshipped: bool,
    /// Of the plugin's own meaning; let go of with the request, however that ends.
    pub kept: Option<Box<dyn Any + Send>>,
}

impl Notes {
    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.numbers = [0; 4];
        self.bytes.clear();
        self.body = BodyUse::Pass;
        self.unshipped = false;
        self.kept = None;
    }
}

/// What a plugin wants of the body of a response.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyUse {
    /// Nothing.
    #[default]
    Pass,
    /// To see it piece by piece as it goes to the client.
    Pieces,
    /// To have it whole, and perhaps to change it. A body above [`crate::limits::RESPONSE_BODY_HELD_BYTES`] passes unseen.
    Whole,
}

/// What plugins have found out of a request and log records tell. Reused from request to request.
#[derive(Default)]
pub struct Told {
    /// Of correlation-id.
    pub correlation_id: Vec<u8>,
    /// The trace that the request belongs to, as pairs `format=id` joined by `,`.
    pub trace_ids: Vec<u8>,
}

impl Told {
    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.correlation_id.clear();
        self.trace_ids.clear();
    }
}

/// The request side of one exchange, in the rewrite and access phases.
pub struct View<'a> {
    pub method: Method,
    pub method_text: &'a [u8],
    /// `http` or `https`: of the connection.
    pub scheme: &'static str,
    /// Whether the peer is one whose forwarding headers are believed.
    pub peer_is_trusted: bool,
    /// Host of the request without its port, as received; empty if there was none.
    pub host: &'a [u8],
    /// Port of the listener, or what `port_maps` makes of it.
    pub port: u16,
    pub version: Version,
    /// Request target, as received.
    pub target: &'a [u8],
    /// Normalised path.
    pub path: &'a [u8],
    /// Query string without the `?`; a change reaches the upstream.
    pub query: Editable<'a>,
    /// Body, when a plugin of the chain asked for it and it fits in memory; a change reaches the upstream.
    pub body: Option<Editable<'a>>,
    /// Set: a body that becomes longer than that ends the request with 413.
    pub body_bytes_max: &'a mut Option<u64>,
    pub rewrite: &'a mut Rewrite,
    /// Header fields; a change reaches the upstream.
    pub fields: &'a mut Fields,
    /// The bytes that `fields` points into.
    pub source: &'a [u8],
    pub identity: &'a mut Identity,
    pub directory: &'a Directory,
    pub core: &'a CoreFacts,
    pub conn: ConnFacts,
    /// To what the configuration that runs applies.
    pub scope: Scope,
    pub route: Option<EntityFacts<'a>>,
    pub service: Option<EntityFacts<'a>>,
    /// What the path regex of the route caught; `None` without a regex. Behind a trait, as finding it costs a search that
    /// few plugins ask for.
    pub captures: Option<&'a dyn PathCaptures>,
    /// After replacement by a trusted peer's header.
    pub client_ip: IpAddr,
    pub now_unix_ms: u64,
    /// The answer, for [`super::Verdict::Reply`].
    pub reply: &'a mut Reply,
    /// The plugin's own.
    pub notes: &'a mut Notes,
    pub told: &'a mut Told,
    /// Where [`View::ask`] leaves a question.
    pub asking: &'a mut Option<Asking>,
}

impl<'a> View<'a> {
    /// The first value of a header, by any-case name.
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.get_by_name(self.source, name)
    }

    /// Puts a question to the control plane; the verdict to return. The answer comes to [`super::Plugin::answered`], at the
    /// latest after `patience_ms`, then as [`super::ask::Answer::Failed`].
    pub fn ask(&mut self, question: Question, patience_ms: u64) -> Verdict {
        *self.asking = Some(Asking { question, patience_ms });
        Verdict::Ask
    }

    /// The authenticated consumer.
    pub fn consumer(&self) -> Option<&'a Consumer> {
        self.directory.consumer(self.identity.consumer?)
    }
}

/// The response side of one exchange, in the `response_head` phase.
pub struct ResponseView<'a> {
    /// May be changed.
    pub status: u16,
    /// Set: the response goes without its body.
    pub drop_body: bool,
    /// Header fields of the response; a change reaches the client.
    pub fields: &'a mut Fields,
    /// The bytes that `fields` points into.
    pub source: &'a [u8],
    /// Header fields of the request, as the access phase left them.
    pub request_fields: &'a Fields,
    /// The bytes that `request_fields` points into.
    pub request_source: &'a [u8],
    /// Whether the response came from an upstream (or from a failed attempt to ask one).
    pub proxied: bool,
    /// Whether the response is an upstream's.
    pub from_upstream: bool,
    pub method: Method,
    /// The plugin's own; `notes.body` says what the plugin wants of the body.
    pub notes: &'a mut Notes,
    pub identity: &'a Identity,
    pub directory: &'a Directory,
    pub core: &'a CoreFacts,
    pub conn: ConnFacts,
    pub now_unix_ms: u64,
    /// Where [`ResponseView::ask_first`] leaves a question.
    pub asking: &'a mut Option<Asking>,
}

impl ResponseView<'_> {
    /// Puts a question to the control plane. The response waits until it is answered, or for `patience_ms`; what the answer
    /// is makes no difference to it. One question for a response.
    pub fn ask_first(&mut self, question: Question, patience_ms: u64) {
        *self.asking = Some(Asking { question, patience_ms });
    }
}

/// A whole response body, in the `response_body` phase.
pub struct BodyView<'a> {
    pub status: u16,
    /// A change reaches the client.
    pub body: &'a mut Vec<u8>,
    /// The plugin's own.
    pub notes: &'a mut Notes,
}

/// A piece of a response body on its way to the client.
pub struct PieceView<'a> {
    pub piece: &'a [u8],
    /// Whether the body ends with this piece. A body that was cut off has no last piece.
    pub last: bool,
    /// The plugin's own.
    pub notes: &'a mut Notes,
    pub now_unix_ms: u64,
}

/// A finished exchange, in the `log` phase.
pub struct LogView<'a> {
    /// As sent; 499 when the client went away before.
    pub status: u16,
    /// Whether an upstream made the response.
    pub from_upstream: bool,
    pub route: Option<EntityFacts<'a>>,
    pub service: Option<EntityFacts<'a>>,
    pub identity: &'a Identity,
    pub directory: &'a Directory,
    /// The plugin's own.
    pub notes: &'a mut Notes,
    pub client_ip: IpAddr,
    pub figures: Figures,
    pub core: &'a CoreFacts,
    pub now_unix_ms: u64,
    /// A question whose answer nobody waits for.
    pub tell: &'a mut Option<Question>,
}

/// The figures of a finished exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// From the first byte of the request to the last one of the response.
    pub total_us: u64,
    /// Until the request was handed to an upstream, or until the gateway's own answer was begun.
    pub gateway_us: u64,
    /// From there to the head of the upstream's answer; `None`: no upstream answered.
    pub upstream_us: Option<u64>,
    /// Bytes of the request's head and body.
    pub request_bytes: u64,
    /// Bytes written to the client, heads included.
    pub response_bytes: u64,
}

/// The body of an answer that the gateway makes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// `text` is a message, rendered by `Accept` with the request id (spec/proxying.md section 7.1).
    #[default]
    Gateway,
    /// `text` is a message, sent as `{"message":...}` (section 7.3).
    Exit,
    /// `text` is the body itself.
    Raw,
    /// No body.
    Empty,
    /// The response in `stored`, which goes out as if an upstream had sent it.
    Stored,
}

/// An answer that the gateway makes. Reused from request to request.
#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub kind: ReplyKind,
    pub text: Vec<u8>,
    /// For [`ReplyKind::Raw`]; empty: no `Content-Type`.
    pub content_type: Vec<u8>,
    /// Further header fields. Those set in an access phase go out with whatever response follows.
    pub fields: Fields,
    /// For [`ReplyKind::Stored`].
    pub stored: Option<Arc<Held>>,
}

impl Reply {
    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.kind = ReplyKind::Gateway;
        self.text.clear();
        self.content_type.clear();
        self.fields.clear();
        self.stored = None;
    }

    fn fill(&mut self, status: u16, kind: ReplyKind, text: &[u8]) {
        self.status = status;
        self.kind = kind;
        self.text.clear();
        self.text.extend_from_slice(text);
    }

    /// An error whose format follows `Accept`.
    pub fn gateway(&mut self, status: u16, message: &str) {
        self.fill(status, ReplyKind::Gateway, message.as_bytes());
    }

    /// A `{"message":...}` body whatever the client accepts.
    pub fn exit(&mut self, status: u16, message: &str) {
        self.fill(status, ReplyKind::Exit, message.as_bytes());
    }

    /// A body of the plugin's own; without a type if `content_type` is empty.
    pub fn raw(&mut self, status: u16, content_type: &str, body: &[u8]) {
        self.fill(status, ReplyKind::Raw, body);
        self.content_type.clear();
        self.content_type.extend_from_slice(content_type.as_bytes());
    }

    /// A response that was kept, with its fields; those that plugins have set already stay.
    pub fn stored(&mut self, stored: Arc<Held>) {
        self.fill(stored.status, ReplyKind::Stored, b"");
        let set = self.fields.len();
        for (name, value) in stored.fields() {
            let is_set = self.fields.iter(&[]).take(set).any(|field| field.name.eq_ignore_ascii_case(name));
            if !is_set {
                self.fields.append_by_name(name, value);
            }
        }
        self.stored = Some(stored);
    }

    /// A status alone.
    pub fn empty(&mut self, status: u16) {
        self.fill(status, ReplyKind::Empty, b"");
    }
}
