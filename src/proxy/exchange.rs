//! HOT: no allocation after warm-up, no lock.
//! One request, top to bottom: every branch of the data plane is here or one call below.
//! Never: keeps a borrow of the core's cells across an await.
//! Always: ends with exactly one record, and says whether the connection may carry another request.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::balancer::Tried;
use crate::config::port_seen;
use crate::http::encode::request_id;
use crate::http::fields::Span;
use crate::http::framing;
use crate::http::head::Method;
use crate::http::head::RequestHead;
use crate::http::head::ResponseHead;
use crate::http::head::Version;
use crate::http::hop;
use crate::http::known::Known;
use crate::limits;
use crate::metrics::full_record::Try;
use crate::plugins::Verdict;
use crate::plugins::ask::Asking;
use crate::plugins::chain::Placed;
use crate::plugins::view::BodyUse;
use crate::plugins::view::Identity;
use crate::plugins::view::Notes;
use crate::plugins::view::Reply;
use crate::plugins::view::Rewrite;
use crate::plugins::view::Told;
use crate::proxy::body::RequestBody;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::Client;
use crate::proxy::core::Core;
use crate::proxy::core::Rules;
use crate::proxy::fault::Fault;
use crate::proxy::timeline::Phase;
use crate::proxy::timeline::Timeline;
use crate::proxy::timeline::Timings;
use crate::router::Hit;
use crate::router::Query;
use crate::router::gates;
use crate::router::gates::Arrival;
use crate::router::gates::Gate;
use crate::router::gates::Gates;
use crate::router::gates::write_https_location;
use crate::state::core::Links;
use crate::state::core::Route;
use crate::state::request::HeadFields;
use crate::state::request::NO_ROUTE;
use crate::state::request::NO_SERVICE;
use crate::state::request::client_of;
use crate::state::request::read_aim;
use crate::stdx::decimal::Decimal;

/// The working memory of one request. Lent by the core, so that idle connections own none.
#[derive(Default)]
pub struct Exchange {
    pub head: RequestHead,
    pub response: ResponseHead,
    /// Output: heads, and small bodies behind them.
    pub out: Buf,
    /// Normalised request path.
    pub path: Vec<u8>,
    /// In the client's buffer: request target up to the `?`; query behind it; Host with and without port.
    pub raw_path: Span,
    pub query: Option<Span>,
    pub host: Option<Span>,
    pub host_name: Span,
    pub request_id: [u8; 32],
    /// Core clock, microseconds: request begun; handed to the upstream; first byte of its answer.
    pub started_us: u64,
    pub handed_over_us: Option<u64>,
    pub first_byte_us: u64,
    pub client_ip: Option<IpAddr>,
    /// Whether the direct peer's forwarding fields are believed.
    pub trusted: bool,
    pub accepts_trailers: bool,
    /// Whether the request opens a WebSocket: the upstream is asked to switch, and may.
    pub opens_websocket: bool,
    pub identity: Identity,
    pub reply: Reply,
    pub query_edit: Option<Vec<u8>>,
    pub body_edit: Option<Vec<u8>>,
    pub body: RequestBody,
    /// What a plugin allows the body to be.
    pub body_bytes_max: Option<u64>,
    pub rewrite: Rewrite,
    pub route: Option<Rc<Route>>,
    pub links: Option<Rc<Links>>,
    /// How the route matched.
    pub hit: Option<Hit>,
    pub tried: Tried,
    /// What was hashed to choose a peer, and the cookie that lets the client meet it again; empty: none.
    pub hash_text: Vec<u8>,
    pub hash_cookie: Vec<u8>,
    /// Plugin configurations chosen for this request, in order.
    pub collected: Vec<Rc<Placed>>,
    /// What each of them keeps between its phases; may be longer.
    pub notes: Vec<Notes>,
    pub told: Told,
    pub asking: Option<Asking>,
    /// Whether one of them ships records.
    pub ships: bool,
    /// What they want of the response body, all together.
    pub body_use: BodyUse,
    /// A response body that a plugin wants whole.
    pub held: Vec<u8>,
    /// How much of a stored body stands in `out`.
    pub stored_bytes_out: usize,
    /// The response head as sent, when records are shipped.
    pub sent_head: Vec<u8>,
    pub tries: Vec<Try>,
    /// What its time was spent in, of a request that asks for it.
    pub timeline: Option<Box<Timeline>>,
    /// The same for plugins that trace.
    pub timings: Timings,
    /// Whether peers were looked for.
    pub balanced: bool,
    /// Whether the response is an upstream's.
    pub from_upstream: bool,
    /// Core clock, microseconds: when the gateway began an answer of its own.
    pub replied_us: Option<u64>,
    /// Whether the client said that this is its last request.
    pub client_is_done: bool,
    /// Whether the client's connection may carry another request.
    pub keep: bool,
    /// Whether bytes of an answer have left, and whether all have.
    pub answered: bool,
    pub complete: bool,
    pub status: u16,
    pub body_bytes_sent: u64,
    /// All bytes written to the client.
    pub bytes_sent: u64,
}

impl Exchange {
    /// Forgets the request, keeps the memory. Answers whether it is worth keeping.
    pub fn clear_for_reuse(&mut self) -> bool {
        self.clear();
        let notes: usize = self.notes.iter().map(|notes| notes.bytes.capacity()).sum();
        let kept = self.out.capacity() + self.path.capacity() + self.body.memory_bytes() + self.held.capacity();
        kept + notes < limits::EXCHANGE_KEPT_BYTES_MAX
    }

    /// In place: to build a fresh value and move it would cost more than all this.
    fn clear(&mut self) {
        // All fields by name, so that no new one is forgotten. Each request makes its own id.
        let Self {
            head,
            response,
            out,
            path,
            raw_path,
            query,
            host,
            host_name,
            request_id: _,
            started_us,
            handed_over_us,
            first_byte_us,
            client_ip,
            trusted,
            accepts_trailers,
            opens_websocket,
            identity,
            reply,
            query_edit,
            body_edit,
            body,
            route,
            links,
            hit,
            tried,
            hash_text,
            hash_cookie,
            collected,
            notes,
            told,
            asking,
            ships,
            body_use,
            held,
            stored_bytes_out,
            sent_head,
            tries,
            timeline,
            timings,
            balanced,
            from_upstream,
            replied_us,
            client_is_done,
            keep,
            answered,
            complete,
            status,
            body_bytes_sent,
            bytes_sent,
            body_bytes_max,
            rewrite,
        } = self;
        head.clear();
        response.clear();
        out.clear();
        path.clear();
        *raw_path = Span::EMPTY;
        *query = None;
        *host = None;
        *host_name = Span::EMPTY;
        *started_us = 0;
        *handed_over_us = None;
        *first_byte_us = 0;
        *client_ip = None;
        *trusted = false;
        *accepts_trailers = false;
        *opens_websocket = false;
        *identity = Identity::default();
        reply.clear();
        *query_edit = None;
        *body_edit = None;
        body.clear();
        *route = None;
        *links = None;
        *hit = None;
        tried.clear();
        hash_text.clear();
        hash_cookie.clear();
        collected.clear();
        notes.iter_mut().for_each(Notes::clear);
        told.clear();
        *asking = None;
        *ships = false;
        *body_use = BodyUse::Pass;
        held.clear();
        *stored_bytes_out = 0;
        sent_head.clear();
        tries.clear();
        *timeline = None;
        timings.clear();
        *balanced = false;
        *from_upstream = false;
        *replied_us = None;
        *client_is_done = false;
        *keep = false;
        *answered = false;
        *complete = false;
        *status = 0;
        *body_bytes_sent = 0;
        *bytes_sent = 0;
        *body_bytes_max = None;
        rewrite.clear();
    }
}

/// What follows an exchange on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next request may come.
    KeepAlive,
    /// Close now.
    Close,
    /// Say that nothing more comes, listen a little for what the client still sends, then close: closing at once would
    /// reset the connection and might take the answer with it.
    Linger,
}

/// One request being served: what it works with.
pub struct Job<'a> {
    pub core: &'a Core,
    pub rules: &'a Rules,
    pub client: &'a mut Client,
    pub x: &'a mut Exchange,
}

/// Serves the request whose head stands parsed in `x.head`, at the front of the client's buffer.
pub async fn serve(core: &Core, client: &mut Client, x: &mut Exchange) -> Next {
    let rules = core.rules();
    let mut job = Job { core, rules: &rules, client, x };
    job.begin();
    let fault = match job.run().await {
        Ok(()) => None,
        Err(fault) => job.answer(fault).await.err(),
    };
    if fault.is_some() && !job.x.answered {
        job.x.status = 499;
    }
    job.x.complete = fault.is_none();
    // Before the request leaves the buffer that its texts lie in.
    job.record();
    match fault {
        None => job.finish_body().await,
        Some(fault) => {
            // Without a length the end of the connection is the end of the body, unless it is a reset.
            if fault == Fault::Truncated && job.x.head.version == Version::Http10 {
                job.client.conn.reset();
            }
            Next::Close
        }
    }
}

impl Job<'_> {
    /// Starts the clock and the count of a request.
    pub fn begin(&mut self) {
        let x = &mut *self.x;
        // The clock was asked when the bytes of the head began to be read.
        x.started_us = self.core.clock.now_us();
        x.timings.wanted = self.core.facts.instrumented.any();
        x.request_id = request_id(self.core.random.bits(), self.core.random.bits());
        self.core.counters.requests.add();
        self.client.facts.requests += 1;
    }

    async fn run(&mut self) -> Result<(), Fault> {
        self.read_head()?;
        if self.x.head.fields.has(Known::XKongRequestDebug) {
            self.begin_timeline();
        }
        self.rewrite();
        let since_us = self.stopwatch();
        let routed = self.route();
        self.note_time(since_us, Phase::Router, None);
        let links = routed?;
        if links.chain.reads_body() {
            self.gather_body().await?;
        }
        if self.access(&links).await? == Verdict::Reply {
            return Err(Fault::Reply);
        }
        let Some(service) = links.service.clone() else {
            self.x.reply.gateway(503, NO_SERVICE);
            return Err(Fault::Reply);
        };
        self.forward(&service).await
    }

    /// What a request must be before anything else is asked (requirements sections 1.2 to 1.7).
    fn read_head(&mut self) -> Result<(), Fault> {
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let settings = &self.rules.settings;
        let under_limit = self.client.facts.requests < u64::from(settings.client_keepalive_requests);
        let keep = framing::keep_alive(x.head.version, &x.head.fields, src);
        x.client_is_done = !keep;
        x.keep = keep && under_limit && !self.core.draining.get() && settings.client_keepalive_timeout_ms > 0;
        let framing = framing::request_framing(&x.head, src).map_err(|bad| {
            x.keep = false;
            Fault::refused(bad.status())
        })?;
        x.body.begin(framing, x.head.len, framing::expects_continue(&x.head, src));
        if x.head.method.is_refused() {
            x.keep = false;
            return Err(Fault::refused(405));
        }
        let aim = read_aim(&x.head, src, &mut x.path).map_err(|bad| Fault::refused(bad.status))?;
        (x.raw_path, x.query, x.host, x.host_name) = (aim.raw_path, aim.query, aim.host, aim.host_name);
        if x.body.declared_length().is_some_and(|n| self.rules.exceeds_body_limit(n)) {
            return Err(Fault::refused(413));
        }
        x.accepts_trailers = hop::accepts_trailers(&x.head.fields, src);
        x.opens_websocket = hop::opens_websocket(&x.head, src);
        let peer = self.client.facts.peer.ip();
        let (client_ip, trusted) = client_of(settings, &x.head.fields, src, peer, self.client.preface_ip);
        (x.client_ip, x.trusted) = (Some(client_ip), trusted);
        let max_forwards = if x.head.method == Method::Options { hop::max_forwards(&x.head, src) } else { None };
        match max_forwards {
            Some(0) => {
                x.reply.empty(200);
                Err(Fault::Reply)
            }
            Some(left) => {
                x.head.fields.set(Known::MaxForwards, Decimal::of(left - 1).bytes());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Port of the listener as clients see it.
    pub fn port(&self) -> u16 {
        port_seen(&self.rules.settings.port_maps, self.client.facts.local.port())
    }

    fn route(&mut self) -> Result<Rc<Links>, Fault> {
        let port = self.port();
        let facts = self.client.facts;
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let state = self.core.state.borrow();
        let query = Query {
            method: x.head.method_span.of(src),
            host: x.host.map_or(&[], |span| span.of(src)),
            path: &x.path,
            https: false,
            sni: None,
            port,
            arguments: x.query.map_or(&[], |span| span.of(src)),
            source: SocketAddr::new(x.client_ip.unwrap_or(facts.peer.ip()), facts.peer.port()),
            destination: facts.local.ip(),
            headers: &HeadFields { fields: &x.head.fields, src },
        };
        let Some((route, hit)) = state.find(&query) else {
            x.links = Some(state.links_unmatched());
            x.reply.gateway(404, NO_ROUTE);
            drop(state);
            self.collect_global();
            return Err(Fault::Reply);
        };
        x.hit = Some(hit);
        let links = state.links(&route);
        let gates = route.spec.gates;
        x.route = Some(route);
        drop(state);
        self.gate(gates)?;
        self.x.links = Some(links.clone());
        Ok(links)
    }

    /// What the route's protocols demand (spec/router.md section 9).
    fn gate(&mut self, gates: Gates) -> Result<(), Fault> {
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let forwarded = x.head.fields.get(src, Known::XForwardedProto).filter(|_| x.trusted);
        let arrival = Arrival {
            forwarded_https: forwarded.is_some_and(|proto| proto == b"https"),
            http2: false,
            content_type: x.head.fields.get(src, Known::ContentType).unwrap_or(&[]),
        };
        match gates.check(arrival) {
            Gate::Open => return Ok(()),
            Gate::UseHttps => {
                x.reply.gateway(426, gates::USE_HTTPS);
                x.reply.fields.set(Known::Upgrade, b"TLS/1.2, HTTP/1.1");
            }
            Gate::RedirectToHttps(status) => {
                let forwarded = x.head.fields.get(src, Known::XForwardedHost).filter(|_| x.trusted);
                let mut location = Vec::new();
                write_https_location(forwarded.unwrap_or(x.host_name.of(src)), x.head.target.of(src), &mut location);
                x.reply.empty(status);
                x.reply.fields.set(Known::Location, &location);
            }
            Gate::NotGrpc => x.reply.gateway(415, gates::NOT_GRPC),
            Gate::UseHttp2 | Gate::GrpcNeedsTls => {
                x.reply.gateway(426, gates::USE_HTTP2);
                x.reply.fields.set(Known::Upgrade, b"HTTP/2");
            }
        }
        self.x.links = Some(self.core.state.borrow().links_unmatched());
        self.collect_global();
        Err(Fault::Reply)
    }

    /// For an answer without a route: only the configurations without a scope take part in its later phases.
    pub fn collect_global(&mut self) {
        let Some(links) = self.x.links.clone() else { return };
        self.x.collected.clear();
        for placed in links.chain.global() {
            self.x.collect(placed.clone());
        }
    }
}

impl Exchange {
    /// The method that the upstream is asked with.
    pub fn upstream_method<'a>(&'a self, src: &'a [u8]) -> &'a [u8] {
        match self.rewrite.method.as_slice() {
            b"" => self.head.method_span.of(src),
            method => method,
        }
    }

    /// Whether the request may be sent again after some of it reached an upstream.
    pub fn may_repeat(&self, src: &[u8]) -> bool {
        Method::of(self.upstream_method(src)).may_repeat()
    }

    /// Keeps the response head that stands in `out`, for those who tell of it afterwards.
    pub fn keep_sent_head(&mut self) {
        self.sent_head.clear();
        // Heads differ by some digits; room for more than this one keeps the next from growing it.
        self.sent_head.reserve(self.out.bytes().len().max(limits::SENT_HEAD_ROOM_BYTES));
        self.sent_head.extend_from_slice(self.out.bytes());
    }

    /// Notes that a configuration takes part in the later phases.
    pub fn collect(&mut self, placed: Rc<Placed>) {
        self.ships |= placed.instance.plugin.ships().is_some();
        self.timings.wanted |= placed.instance.plugin.traces();
        self.collected.push(placed);
        if self.notes.len() < self.collected.len() {
            self.notes.push(Notes::default());
        }
    }
}

impl Rules {
    /// Whether a body of so many bytes is above `client_max_body_size`.
    pub fn exceeds_body_limit(&self, bytes: u64) -> bool {
        self.settings.client_max_body_size > 0 && bytes > self.settings.client_max_body_size
    }
}
