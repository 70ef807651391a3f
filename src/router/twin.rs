//! Tests only. The flat walk of spec/router.md section 4, written from the rules as the operator typed them: slow,
//! obvious, sharing nothing with the index but its questions. `worlds` holds the index to it.

use regex::bytes::Regex;
use uuid::Uuid;

use crate::router::Hit;
use crate::router::Query;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::header_name_matches;

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: &'static str,
    pub host: String,
    pub path: String,
    pub https: bool,
    pub sni: Option<&'static str>,
    pub port: u16,
    pub headers: Headers,
}

impl Request {
    pub fn find_in(&self, router: &Router) -> Option<Hit> {
        router.find(&Query {
            method: self.method.as_bytes(),
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            https: self.https,
            sni: self.sni.map(str::as_bytes),
            port: self.port,
            headers: &self.headers,
        })
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

/// All matchers of some routes, in the order in which they are tried.
pub(super) struct Twin {
    matchers: Vec<TwinMatcher>,
}

struct TwinMatcher {
    word: u64,
    id: Uuid,
    route: RouteKey,
    group: u16,
    rules: Rules,
    /// Index into `rules.paths`, and the path, with its regex if it is one.
    paths: Vec<(usize, String, Option<Regex>)>,
}

impl Twin {
    pub fn new<'a>(routes: impl IntoIterator<Item = (RouteKey, &'a Rules)>) -> Self {
        let mut matchers: Vec<TwinMatcher> = routes.into_iter().flat_map(|(key, rules)| split(key, rules)).collect();
        matchers.sort_by_key(|matcher| (matcher.word, *matcher.id.as_bytes()));
        matchers.reverse();
        Self { matchers }
    }

    pub fn find(&self, request: &Request) -> Option<Hit> {
        self.matchers.iter().find_map(|matcher| matcher.check(request))
    }
}

fn split(route: RouteKey, rules: &Rules) -> Vec<TwinMatcher> {
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
        return vec![TwinMatcher { word, id: rules.id, route, group: 0, rules: rules.clone(), paths }];
    }
    let namespace = Uuid::parse_str("7f145bf9-0dce-4f91-98eb-debbce4b9f6b").unwrap();
    let matcher = |(index, wanted): (usize, &usize)| TwinMatcher {
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

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

impl TwinMatcher {
    fn check(&self, request: &Request) -> Option<Hit> {
        let rules = &self.rules;
        let nothing_set = rules.methods.is_empty()
            && rules.hosts.is_empty()
            && rules.paths.is_empty()
            && rules.headers.is_empty()
            && rules.snis.is_empty();
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

fn value_matches(wanted: &[String], received: &str) -> bool {
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

fn name_and_port(host: &str) -> (&str, Option<u64>) {
    match host.split_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => {
            (name, Some(port.parse().unwrap_or(u64::MAX)))
        }
        _ => (host, None),
    }
}
