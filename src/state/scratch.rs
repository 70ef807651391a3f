//! A request that never was, in the hands of plugins: the side of `POST /explain` where something changes.
//! Never: runs a plugin that does more than look at the request and change or answer it.

use std::cell::Cell;
use std::cell::RefCell;

use crate::config::Instrumented;
use crate::config::Settings;
use crate::http::encode::push_u64;
use crate::http::head::Method;
use crate::http::head::RequestHead;
use crate::http::hop;
use crate::http::known::Known;
use crate::http::parse::parse_request;
use crate::metrics::series::CoreSeries;
use crate::plugins::Instance;
use crate::plugins::Verdict;
use crate::plugins::ask::Asking;
use crate::plugins::cache::CoreCache;
use crate::plugins::chain::Scope;
use crate::plugins::counts::CoreCounts;
use crate::plugins::directory::Directory;
use crate::plugins::recent::Recent;
use crate::plugins::view::ConnFacts;
use crate::plugins::view::CoreFacts;
use crate::plugins::view::Editable;
use crate::plugins::view::Identity;
use crate::plugins::view::Notes;
use crate::plugins::view::PathCaptures;
use crate::plugins::view::Reply;
use crate::plugins::view::Rewrite;
use crate::plugins::view::Told;
use crate::plugins::view::View;
use crate::router::Hit;
use crate::state::explain::Arrived;
use crate::state::request::Captured;
use crate::state::request::request_limits;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;

/// The request as plugins have left it.
pub struct Scratch {
    pub head: RequestHead,
    pub query: Option<Vec<u8>>,
    pub rewrite: Rewrite,
    pub identity: Identity,
    /// The answer, once a plugin has given one.
    pub reply: Reply,
}

/// What is around the plugins of a request.
pub struct Around<'a> {
    pub arrived: &'a Arrived,
    pub directory: &'a Directory,
    pub route: &'a RouteSpec,
    pub hit: Hit,
    pub service: Option<&'a ServiceSpec>,
    pub now_unix_ms: u64,
}

impl Scratch {
    /// The request as it arrived.
    pub fn new(settings: &Settings, arrived: &Arrived) -> Self {
        let src = &arrived.asked.head;
        let mut head = RequestHead::default();
        // It was parsed before; here are fields that may be changed.
        let _ = parse_request(src, &request_limits(settings), &mut head);
        if let Some(left) = hop::max_forwards(&head, src).filter(|_| head.method == Method::Options) {
            let mut text = Vec::new();
            push_u64(&mut text, left.saturating_sub(1));
            head.fields.set(Known::MaxForwards, &text);
        }
        let identity = Identity { consumer: arrived.asked.consumer, ..Identity::default() };
        Self { head, query: None, rewrite: Rewrite::default(), identity, reply: Reply::default() }
    }

    /// The query that the upstream would be asked with.
    pub fn query<'a>(&'a self, arrived: &'a Arrived) -> Option<&'a [u8]> {
        match &self.query {
            Some(edited) => Some(edited.as_slice()).filter(|query| !query.is_empty()),
            None => arrived.aim.query.map(|span| span.of(&arrived.asked.head)),
        }
    }

    /// The method that the upstream would be asked with.
    pub fn method<'a>(&'a self, src: &'a [u8]) -> &'a [u8] {
        match self.rewrite.method.as_slice() {
            b"" => self.head.method_span.of(src),
            method => method,
        }
    }

    /// Runs the access phase of a pure plugin.
    pub fn run(&mut self, around: &Around<'_>, instance: &Instance, scope: Scope) -> Verdict {
        let arrived = around.arrived;
        let src = &arrived.asked.head;
        let core = CoreFacts {
            node_id: "".into(),
            hostname: "".into(),
            pid: 0,
            worker_id: "".into(),
            serial: Cell::new(0),
            random: || 0,
            counts: CoreCounts::default(),
            cache: CoreCache::default(),
            series: CoreSeries::default(),
            recent: RefCell::new(Recent::new(1)),
            instrumented: Instrumented::default(),
            sampling_rate: 0.0,
        };
        let captures = Captured { route: Some(around.route), hit: Some(around.hit), path: &arrived.path };
        let (mut body_bytes_max, mut notes, mut told) = (None, Notes::default(), Told::default());
        let mut asking: Option<Asking> = None;
        instance.plugin.access(&mut View {
            method: self.head.method,
            method_text: self.head.method_span.of(src),
            scheme: if arrived.asked.https { "https" } else { "http" },
            peer_is_trusted: arrived.trusted,
            host: arrived.aim.host_name.of(src),
            port: arrived.port,
            version: self.head.version,
            target: self.head.target.of(src),
            path: &arrived.path,
            captures: Some(&captures as &dyn PathCaptures),
            query: Editable::new(arrived.aim.query.map_or(&[], |span| span.of(src)), &mut self.query),
            body: None,
            body_bytes_max: &mut body_bytes_max,
            rewrite: &mut self.rewrite,
            fields: &mut self.head.fields,
            source: src,
            identity: &mut self.identity,
            directory: around.directory,
            core: &core,
            conn: ConnFacts { peer: arrived.asked.peer, local: arrived.asked.local, serial: 0, requests: 1 },
            scope,
            route: Some(around.route.facts()),
            service: around.service.map(ServiceSpec::facts),
            client_ip: arrived.client.ip(),
            now_unix_ms: around.now_unix_ms,
            reply: &mut self.reply,
            notes: &mut notes,
            told: &mut told,
            asking: &mut asking,
        })
    }
}
