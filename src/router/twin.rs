//! Tests only. The flat walk of spec/router.md section 4, written from the rules as the operator typed them: slow,
//! obvious, sharing nothing with the index but its questions. `worlds` holds the index to it.

use std::net::IpAddr;
use std::net::SocketAddr;

use regex::bytes::Regex;
use uuid::Uuid;

use crate::config::RouterFlavor;
use crate::router::Hit;
use crate::router::Query;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::header_name_matches;
use crate::router::net::Endpoint;
use crate::router::twin_expressions::Expression;
use crate::router::worlds::Written;

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: &'static str,
    pub host: String,
    pub path: String,
    pub https: bool,
    pub sni: Option<&'static str>,
    pub port: u16,
    pub arguments: &'static str,
    pub source: SocketAddr,
    pub destination: IpAddr,
    pub headers: Headers,
}

impl Request {
    pub fn find_in(&self, router: &Router) -> Option<Hit> {
        router.find(&self.query())
    }

    pub fn query(&self) -> Query<'_> {
        Query {
            method: self.method.as_bytes(),
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            https: self.https,
            sni: self.sni.map(str::as_bytes),
            port: self.port,
            arguments: self.arguments.as_bytes(),
            source: self.source,
            destination: self.destination,
            headers: &self.headers,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Headers(pub Vec<(&'static str, &'static str)>);

impl HeaderSource for Headers {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) {
        for (received, value) in &self.0 {
            if header_name_matches(name, received.as_bytes()) && f(value.as_bytes()) {
                return;
            }
        }
    }
}

/// All matchers of some routes, in the order in which they are tried: the flavours `traditional_compatible` and
/// `expressions`.
pub(super) struct Twin<'a> {
    flavor: RouterFlavor,
    matchers: Vec<TwinMatcher<'a>>,
}

struct TwinMatcher<'a> {
    /// The priority of an expression: it stands above all without.
    priority: Option<u64>,
    expression: Option<&'a Expression>,
    word: u64,
    id: Uuid,
    route: RouteKey,
    group: u16,
    rules: Rules,
    /// Index into `rules.paths`, and the path, with its regex if it is one.
    paths: Vec<(usize, String, Option<Regex>)>,
}

impl<'a> Twin<'a> {
    pub fn new(flavor: RouterFlavor, routes: impl IntoIterator<Item = (RouteKey, &'a Written)>) -> Self {
        let all = routes.into_iter().flat_map(|(key, written)| match &written.expression {
            None => split(key, &written.rules),
            Some(expression) => vec![TwinMatcher {
                priority: Some(written.rules.priority),
                expression: Some(expression),
                word: 0,
                id: written.rules.id,
                route: key,
                group: 0,
                rules: written.rules.clone(),
                paths: Vec::new(),
            }],
        });
        let mut matchers: Vec<TwinMatcher<'a>> = all.collect();
        matchers.sort_by_key(|matcher| (matcher.priority, matcher.word, *matcher.id.as_bytes()));
        matchers.reverse();
        Self { flavor, matchers }
    }

    pub fn find(&self, request: &Request) -> Option<Hit> {
        let in_protocol =
            |matcher: &&TwinMatcher<'_>| self.flavor != RouterFlavor::Expressions || takes_net(&matcher.rules, request);
        self.matchers.iter().filter(in_protocol).find_map(|matcher| matcher.check(request))
    }
}

/// Section 14.1.
fn takes_net(rules: &Rules, request: &Request) -> bool {
    let scheme = if request.https { ["https", "grpcs"] } else { ["http", "grpc"] };
    let protocols: Vec<&str> = rules.protocols.iter().map(String::as_str).collect();
    let any = |list: &[Endpoint], ip: IpAddr, port: u64| {
        list.is_empty()
            || list.iter().any(|endpoint| {
                endpoint.block.is_none_or(|block| block.contains(ip))
                    && endpoint.port.is_none_or(|wanted| u64::from(wanted) == port)
            })
    };
    (protocols == ["https"] || protocols.iter().any(|protocol| scheme.contains(protocol)))
        && any(&rules.sources, request.source.ip(), request.source.port().into())
        && any(&rules.destinations, request.destination, destination_port(request))
}

/// Of the Host header, else of the listener.
pub(super) fn destination_port(request: &Request) -> u64 {
    name_and_port(&request.host).1.unwrap_or(u64::from(request.port))
}

fn split<'a>(route: RouteKey, rules: &Rules) -> Vec<TwinMatcher<'a>> {
    let length = |path: &String| {
        if path.starts_with('~') { usize::MAX } else { path.len() }
    };
    let mut lengths: Vec<usize> = Vec::new();
    for path in &rules.paths {
        if !lengths.contains(&length(path)) {
            lengths.push(length(path));
        }
    }
    if lengths.len() < 2 {
        let paths = prepare(rules.paths.iter().enumerate());
        let word = word(rules, lengths.first().copied());
        return vec![TwinMatcher {
            priority: None,
            expression: None,
            word,
            id: rules.id,
            route,
            group: 0,
            rules: rules.clone(),
            paths,
        }];
    }
    let namespace = Uuid::parse_str("7f145bf9-0dce-4f91-98eb-debbce4b9f6b").unwrap();
    let matcher = |(index, wanted): (usize, &usize)| TwinMatcher {
        priority: None,
        expression: None,
        word: word(rules, Some(*wanted)),
        id: Uuid::new_v5(&namespace, format!("{}#{}", rules.id, index + 1).as_bytes()),
        route,
        group: index as u16,
        rules: rules.clone(),
        paths: prepare(rules.paths.iter().enumerate().filter(|(_, path)| length(path) == *wanted)),
    };
    lengths.iter().enumerate().map(matcher).collect()
}

fn prepare<'a>(paths: impl Iterator<Item = (usize, &'a String)>) -> Vec<(usize, String, Option<Regex>)> {
    let regex = |path: &String| path.strip_prefix('~').map(|p| Regex::new(&format!("^(?:{p})")).unwrap());
    paths.map(|(position, path)| (position, path.clone(), regex(path))).collect()
}

/// `length` of the plain paths of the group, `usize::MAX` for regexes.
fn word(rules: &Rules, length: Option<usize>) -> u64 {
    let mut attributes = 0;
    for set in [
        !rules.methods.is_empty(),
        !rules.hosts.is_empty(),
        !rules.headers.is_empty(),
        !rules.snis.is_empty(),
        !rules.paths.is_empty(),
        !rules.sources.is_empty(),
        !rules.destinations.is_empty(),
    ] {
        attributes += u64::from(set);
    }
    let mut names: Vec<String> = rules.headers.iter().map(|(name, _)| fold(name)).collect();
    names.sort();
    names.dedup();
    let mut word = attributes << 61 | (names.len() as u64) << 52;
    if !rules.hosts.is_empty() && !rules.hosts.iter().any(|host| host.contains('*')) {
        word |= 1 << 60;
    }
    match length {
        None => word,
        Some(usize::MAX) => word | 1 << 51 | (rules.regex_priority.max(0) as u64) << 19,
        Some(length) => word | length as u64,
    }
}

pub(super) fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

impl TwinMatcher<'_> {
    fn check(&self, request: &Request) -> Option<Hit> {
        let rules = &self.rules;
        if let Some(expression) = self.expression {
            let mut matched_len = None;
            let holds = expression.holds(request, &mut matched_len);
            return holds.then_some(Hit { route: self.route, matcher: 0, path: None, matched_len });
        }
        let nothing_set = rules.methods.is_empty()
            && rules.hosts.is_empty()
            && rules.paths.is_empty()
            && rules.headers.is_empty()
            && rules.snis.is_empty()
            && rules.sources.is_empty()
            && rules.destinations.is_empty();
        if nothing_set {
            return None;
        }
        if !rules.snis.is_empty() && request.https && !rules.snis.iter().any(|sni| sni_matches(sni, request)) {
            return None;
        }
        if !rules.methods.is_empty() && !rules.methods.iter().any(|method| method == request.method) {
            return None;
        }
        if !rules.hosts.is_empty() && !rules.hosts.iter().any(|host| host_matches(host, request)) {
            return None;
        }
        let mut hit = Hit { route: self.route, matcher: self.group, path: None, matched_len: None };
        if !self.paths.is_empty() {
            let (position, length) = self.paths.iter().find_map(|(position, path, regex)| match regex {
                Some(regex) => Some((*position, regex.find(request.path.as_bytes())?.end())),
                None => request.path.starts_with(path).then_some((*position, path.len())),
            })?;
            (hit.path, hit.matched_len) = (Some(position as u16), Some(length));
        }
        for (name, wanted) in &rules.headers {
            let mut received = request.headers.0.iter().filter(|(other, _)| fold(other) == fold(name));
            if !received.any(|(_, value)| value_matches(wanted, &value.to_lowercase())) {
                return None;
            }
        }
        Some(hit)
    }
}

pub(super) fn value_matches(wanted: &[String], received: &str) -> bool {
    match wanted {
        [regex] if regex.starts_with("~*") => Regex::new(&regex[2..]).unwrap().is_match(received.as_bytes()),
        values => values.iter().any(|value| value.to_lowercase() == received),
    }
}

fn sni_matches(rule: &str, request: &Request) -> bool {
    request.sni.is_some_and(|sni| name_matches(rule.strip_suffix('.').unwrap_or(rule), sni))
}

fn name_matches(rule: &str, name: &str) -> bool {
    match rule.split_once('*') {
        None => name == rule,
        Some(("", suffix)) => name.ends_with(suffix),
        Some((prefix, _)) => name.starts_with(prefix),
    }
}

fn host_matches(rule: &str, request: &Request) -> bool {
    let (wanted, wanted_port) = name_and_port(rule);
    let (name, port) = name_and_port(&request.host);
    let port = port.unwrap_or(u64::from(request.port));
    wanted_port.is_none_or(|wanted| wanted == port) && name_matches(wanted, name)
}

pub(super) fn name_and_port(host: &str) -> (&str, Option<u64>) {
    match host.split_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => {
            (name, Some(port.parse().unwrap_or(u64::MAX)))
        }
        _ => (host, None),
    }
}
