//! What would become of a request: the functions that serve one, asked in the same order and without a connection.
//! Never: runs a plugin that does more than change or answer the request, claims a trial, moves a turn on: a request that is
//! explained leaves no trace.
//! Always: what is told is what this core would do next.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::balancer::Ask;
use crate::balancer::Tried;
use crate::config::Settings;
use crate::config::port_seen;
use crate::http::framing::Framing;
use crate::http::framing::request_framing;
use crate::http::head::Method;
use crate::http::head::RequestHead;
use crate::http::hop;
use crate::http::known::Known;
use crate::http::parse::Progress;
use crate::http::parse::parse_request;
use crate::http::upstream_head::SentBody;
use crate::http::upstream_head::UpstreamHead;
use crate::http::upstream_head::UpstreamName;
use crate::http::upstream_path::UpstreamPath;
use crate::plugins::Instance;
use crate::plugins::KindIdx;
use crate::plugins::Verdict;
use crate::plugins::chain::Scope;
use crate::router::Hit;
use crate::router::Query;
use crate::router::gates::Arrival;
use crate::router::gates::Gate;
use crate::state::core::CoreState;
use crate::state::core::Links;
use crate::state::core::Service;
use crate::state::hashing::Hashable;
use crate::state::peers::Lack;
use crate::state::peers::PeerSet;
use crate::state::request::Aim;
use crate::state::request::BadAim;
use crate::state::request::HeadFields;
use crate::state::request::client_of;
use crate::state::request::read_aim;
use crate::state::request::request_limits;
use crate::state::scratch::Around;
use crate::state::scratch::Scratch;
use crate::state::spec::RouteSpec;
use crate::state::spec::ServiceSpec;
use crate::stdx::clock;
use crate::stdx::random::Random;

/// A request that an operator asks about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The whole head, as a client would send it.
    pub head: Vec<u8>,
    /// The connection is TLS, with this server name.
    pub https: bool,
    pub sni: Option<Vec<u8>>,
    /// The two ends of the connection; the port of `local` is the listener's.
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Who authentication would find.
    pub consumer: Option<Uuid>,
}

/// A request read as a connection reads one.
pub struct Arrived {
    pub asked: Asked,
    pub head: RequestHead,
    /// Normalised.
    pub path: Vec<u8>,
    pub aim: Aim,
    /// After replacement by a trusted peer's header.
    pub client: SocketAddr,
    pub trusted: bool,
    /// Of the listener, as clients see it.
    pub port: u16,
}

/// What would become of it.
pub struct Explained {
    /// Of the configuration.
    pub version: u64,
    pub arrived: Arrived,
    pub matched: Option<(Arc<RouteSpec>, Hit)>,
    /// What the protocols of the route demand.
    pub gate: Gate,
    pub service: Option<Arc<ServiceSpec>>,
    /// In the order in which they run.
    pub plugins: Vec<Step>,
    /// `None`: the request is not proxied.
    pub forwarded: Option<Forwarded>,
}

/// The turn of one plugin.
pub struct Step {
    pub kind: KindIdx,
    /// `None`: it runs for some consumers only, and not for this request.
    pub chosen: Option<(Arc<Instance>, Scope)>,
    /// Whether another configuration may run once a consumer is known.
    pub depends_on_consumer: bool,
    pub access: Access,
}

/// What came of the access phase of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It ran, and what it changed is in what is told of the upstream.
    Ran,
    /// It ran and gave the answer.
    Answers { status: u16, message: String },
    /// It was not asked: what it does is more than to change the request, or no request is told of.
    NotRun,
    /// An earlier one gave the answer.
    NotReached,
}

/// Where a request would be sent.
pub struct Forwarded {
    pub peers: Arc<PeerSet>,
    /// Indices into the peers: the choice, then that after it has failed, and so on.
    pub order: Vec<usize>,
    /// Why there is no choice.
    pub lack: Option<Lack>,
    /// The head for the first of them.
    pub head: Vec<u8>,
}

/// Explains a request.
///
/// # Errors
/// The status with which the request would be refused, and why.
pub fn explain(
    state: &CoreState,
    settings: &Settings,
    asked: &Asked,
    now_ms: u64,
    random: &Random,
) -> Result<Explained, BadAim> {
    let arrived = arrive(settings, asked)?;
    let found = arrived.query(|query| state.find(query));
    let version = state.version();
    let Some((route, hit)) = found else {
        let plugins = global_steps(&state.links_unmatched());
        let (gate, service) = (Gate::Open, None);
        return Ok(Explained { version, arrived, matched: None, gate, service, plugins, forwarded: None });
    };
    let gate = route.spec.gates.check(arrived.arrival());
    let links = if gate == Gate::Open { state.links(&route) } else { state.links_unmatched() };
    let spec = route.spec.clone();
    let service = links.service.as_deref();
    let mut scratch = Scratch::new(settings, &arrived);
    let plugins = match gate {
        Gate::Open => {
            let directory = state.directory();
            let around = Around {
                arrived: &arrived,
                directory: &directory,
                route: &spec,
                hit,
                service: service.map(|service| &*service.spec),
                now_unix_ms: clock::unix_ms(),
            };
            steps(state, &links, &around, &mut scratch)
        }
        _ => global_steps(&links),
    };
    let is_sent = gate == Gate::Open && !plugins.iter().any(|step| matches!(step.access, Access::Answers { .. }));
    let forwarded = service
        .filter(|_| is_sent)
        .and_then(|service| forward(state, settings, &arrived, &mut scratch, (&spec, hit), service, (now_ms, random)));
    let service = service.map(|service| service.spec.clone());
    Ok(Explained { version, arrived, matched: Some((spec, hit)), gate, service, plugins, forwarded })
}

fn arrive(settings: &Settings, asked: &Asked) -> Result<Arrived, BadAim> {
    let src = &asked.head;
    let mut head = RequestHead::default();
    let bad = |status, reason| BadAim { status, reason };
    match parse_request(src, &request_limits(settings), &mut head) {
        Ok(Progress::Complete) if head.len == src.len() => {}
        Ok(_) => return Err(bad(400, "malformed request line")),
        Err(error) => return Err(bad(error.status(), error.reason())),
    }
    request_framing(&head, src).map_err(|error| bad(error.status(), error.reason()))?;
    if head.method.is_refused() {
        return Err(bad(405, "CONNECT and TRACE are refused"));
    }
    if head.method == Method::Options && hop::max_forwards(&head, src) == Some(0) {
        return Err(bad(200, "the gateway answers OPTIONS with Max-Forwards: 0 itself"));
    }
    let mut path = Vec::new();
    let aim = read_aim(&head, src, &mut path)?;
    let (client_ip, trusted) = client_of(settings, &head.fields, src, asked.peer.ip(), None);
    let port = port_seen(&settings.port_maps, asked.local.port());
    let client = SocketAddr::new(client_ip, asked.peer.port());
    Ok(Arrived { asked: asked.clone(), head, path, aim, client, trusted, port })
}

impl Arrived {
    /// What decides the route.
    pub fn query<T>(&self, ask: impl FnOnce(&Query<'_>) -> T) -> T {
        let src = &self.asked.head;
        ask(&Query {
            method: self.head.method_span.of(src),
            host: self.aim.host.map_or(&[], |span| span.of(src)),
            path: &self.path,
            https: self.asked.https,
            sni: self.asked.sni.as_deref(),
            port: self.port,
            arguments: self.aim.query.map_or(&[], |span| span.of(src)),
            source: self.client,
            destination: self.asked.local.ip(),
            headers: &HeadFields { fields: &self.head.fields, src },
        })
    }

    fn arrival(&self) -> Arrival<'_> {
        let (src, fields) = (&self.asked.head, &self.head.fields);
        let forwarded = fields.get(src, Known::XForwardedProto).filter(|_| self.trusted);
        Arrival {
            forwarded_https: forwarded.map_or(self.asked.https, |proto| proto == b"https"),
            http2: false,
            content_type: fields.get(src, Known::ContentType).unwrap_or(&[]),
        }
    }
}

fn global_steps(links: &Links) -> Vec<Step> {
    let placed = links.chain.global();
    let step = |instance: &Arc<Instance>, scope| Step {
        kind: instance.kind,
        chosen: Some((instance.clone(), scope)),
        depends_on_consumer: false,
        access: Access::NotRun,
    };
    placed.map(|placed| step(&placed.instance, placed.scope)).collect()
}

/// The turns of plugins, in their order; those that are pure have theirs.
fn steps(state: &CoreState, links: &Links, around: &Around<'_>, scratch: &mut Scratch) -> Vec<Step> {
    let service = links.service.as_ref().map(|service| service.spec.id);
    let (mut steps, mut answered) = (Vec::new(), false);
    for entry in links.chain.entries() {
        let consumer = scratch.identity.consumer;
        let placed = state.plugins().resolve(entry, Some(around.route.id), service, consumer);
        let access = match &placed {
            Some(_) if answered => Access::NotReached,
            Some(placed) if placed.instance.plugin.is_pure() => {
                match scratch.run(around, &placed.instance, placed.scope) {
                    Verdict::Reply => {
                        answered = true;
                        let message = String::from_utf8_lossy(&scratch.reply.text).into_owned();
                        Access::Answers { status: scratch.reply.status, message }
                    }
                    _ => Access::Ran,
                }
            }
            _ => Access::NotRun,
        };
        steps.push(Step {
            kind: entry.kind,
            chosen: placed.map(|placed| (placed.instance.clone(), placed.scope)),
            depends_on_consumer: entry.depends_on_consumer() && consumer.is_none(),
            access,
        });
    }
    steps
}

fn forward(
    state: &CoreState,
    settings: &Settings,
    arrived: &Arrived,
    scratch: &mut Scratch,
    (route, hit): (&RouteSpec, Hit),
    service: &Service,
    (now_ms, random): (u64, &Random),
) -> Option<Forwarded> {
    let peers = state.peers(service)?;
    let src = &arrived.asked.head;
    let hash = peers.set.hash_on().map_or(0, |on| {
        let hashable = Hashable {
            identity: &scratch.identity,
            client_ip: Some(arrived.client.ip()),
            fields: &scratch.head.fields,
            src,
            path: &arrived.path,
            query: scratch.query(arrived).unwrap_or(&[]),
            route: Some((route, &hit)),
            random,
        };
        hashable.hash(on, &mut Vec::new(), &mut Vec::new())
    });
    let may_repeat = Method::of(scratch.method(src)).may_repeat();
    let (mut tried, mut order, mut lack) = (Tried::default(), Vec::new(), None);
    // A copy: what is only asked for takes nobody's turn.
    let turn = Cell::new(peers.turn().get());
    for _ in 0..=service.spec.retries {
        let picked = peers.foresee(&Ask { turn: &turn, tried: &tried, hash, now_ms, may_repeat });
        let peer = match picked {
            Ok(peer) if !tried.contains(peer.addr) => peer,
            Err(found) if order.is_empty() => {
                lack = Some(found.clone());
                break;
            }
            // From here on the same ones come again.
            _ => break,
        };
        tried.add(peer.addr);
        order.extend(peers.set.peers().iter().position(|other| std::ptr::eq(other, peer)));
    }
    let mut head = Vec::new();
    if let Some(peer) = order.first().and_then(|first| peers.set.peers().get(*first)) {
        let opens_websocket = hop::opens_websocket(&scratch.head, src);
        hop::strip_request(&mut scratch.head.fields, src);
        let scratch = &*scratch;
        let sent = UpstreamHead {
            method: scratch.method(src),
            version: scratch.head.version,
            fields: &scratch.head.fields,
            src,
            target: UpstreamPath {
                base: service.spec.path.as_bytes(),
                path: &arrived.path,
                matched_len: hit.matched_len,
                strip: route.strip_path,
                handling: route.path_handling,
                query: scratch.query(arrived),
                replacement: Some(scratch.rewrite.path.as_slice()).filter(|path| !path.is_empty()),
            },
            raw_path: arrived.aim.raw_path.of(src),
            host: arrived.aim.host.map(|host| (host.of(src), arrived.aim.host_name.of(src))),
            keeps_host: route.preserve_host,
            upstream: UpstreamName { host: &peer.host, port: peer.addr.port(), host_header: peers.set.host_header() },
            host_replacement: Some(scratch.rewrite.host.as_slice()).filter(|host| !host.is_empty()),
            opens_websocket,
            https: arrived.asked.https,
            trusted: arrived.trusted,
            peer_ip: arrived.asked.peer.ip(),
            client_ip: arrived.client.ip(),
            port: arrived.port,
            request_id: settings.headers_upstream.request_id.then_some(b"<made for each request>"),
            body: match request_framing(&arrived.head, src) {
                Ok(Framing::Length(len)) => SentBody::Length(len),
                Ok(Framing::Chunked) => SentBody::Chunked,
                _ => SentBody::None,
            },
        };
        sent.write(&mut head);
    }
    Some(Forwarded { peers: peers.set.clone(), order, lack, head })
}
