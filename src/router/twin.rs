//! Tests only. The flat walk of spec/router.md section 4, written from the rules as the operator typed them: slow,
//! obvious, sharing nothing with the index but its questions. Random worlds hold the index to it.
//!
//! A failure names its seed; `RINGWAY_SEED=<seed>` runs that world alone.

use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use regex::bytes::Regex;
use uuid::Uuid;

use crate::router::Hit;
use crate::router::Query;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::compile::compile;
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
struct Twin {
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
    fn new<'a>(routes: impl IntoIterator<Item = (RouteKey, &'a Rules)>) -> Self {
        let mut matchers: Vec<TwinMatcher> = routes
            .into_iter()
            .flat_map(|(key, rules)| split(key, rules))
            .collect();
        matchers.sort_by_key(|matcher| (matcher.word, *matcher.id.as_bytes()));
        matchers.reverse();
        Self { matchers }
    }

    fn find(&self, request: &Request) -> Option<Hit> {
        self.matchers
            .iter()
            .find_map(|matcher| matcher.check(request))
    }
}

fn split(route: RouteKey, rules: &Rules) -> Vec<TwinMatcher> {
    let length = |path: &String| {
        if path.starts_with('~') {
            usize::MAX
        } else {
            path.len()
        }
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
        word: word(rules, Some(*wanted)),
        id: Uuid::new_v5(&namespace, format!("{}#{}", rules.id, index + 1).as_bytes()),
        route,
        group: index as u16,
        rules: rules.clone(),
        paths: prepare(
            rules
                .paths
                .iter()
                .enumerate()
                .filter(|(_, path)| length(path) == *wanted),
        ),
    };
    lengths.iter().enumerate().map(matcher).collect()
}

fn prepare<'a>(
    paths: impl Iterator<Item = (usize, &'a String)>,
) -> Vec<(usize, String, Option<Regex>)> {
    let regex = |path: &String| {
        path.strip_prefix('~')
            .map(|p| Regex::new(&format!("^(?:{p})")).unwrap())
    };
    paths
        .map(|(position, path)| (position, path.clone(), regex(path)))
        .collect()
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
        if !rules.snis.is_empty()
            && request.https
            && !rules.snis.iter().any(|sni| sni_matches(sni, request))
        {
            return None;
        }
        if !rules.methods.is_empty() && !rules.methods.iter().any(|method| method == request.method)
        {
            return None;
        }
        if !rules.hosts.is_empty() && !rules.hosts.iter().any(|host| host_matches(host, request)) {
            return None;
        }
        let mut hit = Hit {
            route: self.route,
            matcher: self.group,
            path: None,
            matched_len: None,
        };
        if !self.paths.is_empty() {
            let (position, length) =
                self.paths
                    .iter()
                    .find_map(|(position, path, regex)| match regex {
                        Some(regex) => {
                            Some((*position, regex.find(request.path.as_bytes())?.end()))
                        }
                        None => request
                            .path
                            .starts_with(path)
                            .then_some((*position, path.len())),
                    })?;
            (hit.path, hit.matched_len) = (Some(position as u16), Some(length));
        }
        for (name, wanted) in &rules.headers {
            let mut received = request
                .headers
                .0
                .iter()
                .filter(|(other, _)| fold(other) == fold(name));
            if !received.any(|(_, value)| value_matches(wanted, &value.to_lowercase())) {
                return None;
            }
        }
        Some(hit)
    }
}

fn value_matches(wanted: &[String], received: &str) -> bool {
    match wanted {
        [regex] if regex.starts_with("~*") => Regex::new(&regex[2..])
            .unwrap()
            .is_match(received.as_bytes()),
        values => values.iter().any(|value| value.to_lowercase() == received),
    }
}

fn sni_matches(rule: &str, request: &Request) -> bool {
    request
        .sni
        .is_some_and(|sni| name_matches(rule.strip_suffix('.').unwrap_or(rule), sni))
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
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() =>
        {
            (name, Some(port.parse().unwrap_or(u64::MAX)))
        }
        _ => (host, None),
    }
}

const METHODS: &[&str] = &["GET", "POST", "PURGE", "FOO", "OPTIONS"];
const HOSTS: &[&str] = &[
    "a.test",
    "b.test",
    "x.a.test",
    "a.test:80",
    "a.test:8080",
    "*.a.test",
    "*.test",
    "*.a.test:8080",
    "a.*",
    "x.a.*",
    "a.*:80",
    "[::1]",
    "[::1]:80",
    "localhost",
];
const REQUEST_HOSTS: &[&str] = &[
    "a.test",
    "a.test",
    "b.test",
    "x.a.test",
    "y.x.a.test",
    "A.test",
    "a.test:80",
    "a.test:8080",
    "a.test:99999999999",
    "x.a.test:8080",
    ".a.test",
    "a.",
    "a..test",
    "a.test:",
    "a.test:x",
    "[::1]",
    "[::1]:80",
    "localhost",
    "",
    ":80",
    "a.other:80",
    "a.other",
    ".",
    "....",
    "other",
];
const REGEXES: &[&str] = &[
    "~/a",
    "~/a/b",
    "~/a/[ab]",
    "~/(?<id>a+)/b$",
    "~/.*b",
    "~/a|/b",
    "~/(a|b)/",
    "~/ab?",
    "~/a+",
    "~/a{2}",
    "~/(?i)A",
    "~(?i)/B",
    "~/",
    "~/$",
    "~.*",
    "~a",
];
const HEADERS: &[(&str, &str)] = &[
    ("X-V", "1"),
    ("x-v", "2"),
    ("x_v", "3"),
    ("X_W", "Ab"),
    ("x-w", "v2"),
    ("x-z", "1"),
];
const RULE_HEADERS: &[(&str, &[&str])] = &[
    ("x-v", &["1"]),
    ("X-V", &["1", "2"]),
    ("x_v", &["3"]),
    ("x-w", &["aB"]),
    ("x-w", &["~*^v[12]$"]),
    ("x-w", &["~*b", "ab"]),
    ("X-Z", &["1"]),
    ("x-v", &["~*[23]"]),
];
const RULE_SNIS: &[&str] = &[
    "a.test", "a.test.", "b.test", "*.test", "a.*", "*a.test", "*",
];
const SNIS: &[&str] = &["a.test", "b.test", "x.a.test", "a.other", "other"];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn some<T>(rng: &mut Rng, count: Range<usize>, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(count)).map(|_| make(rng)).collect()
}

/// Often of few bytes, so that paths are prefixes of each other.
fn random_path(rng: &mut Rng) -> String {
    let tail: String = some(rng, 0..7, |rng| pick(rng, &['a', 'b', '/']))
        .into_iter()
        .collect();
    format!("/{tail}")
}

fn random_rules(rng: &mut Rng) -> Rules {
    let mut rules = Rules {
        id: Uuid::from_u128(rng.u128(..)),
        ..Rules::default()
    };
    if rng.u8(..10) < 2 {
        rules.methods = some(rng, 1..4, |rng| pick(rng, METHODS).to_owned());
    }
    if rng.u8(..10) < 5 {
        rules.hosts = some(rng, 1..4, |rng| pick(rng, HOSTS).to_owned());
    }
    if rng.u8(..10) < 8 {
        let path = |rng: &mut Rng| {
            if rng.u8(..4) == 0 {
                pick(rng, REGEXES).to_owned()
            } else {
                random_path(rng)
            }
        };
        rules.paths = some(rng, 1..4, path);
    }
    if rng.u8(..10) < 2 {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        rules.headers = some(rng, 1..3, |rng| pick(rng, RULE_HEADERS))
            .into_iter()
            .map(|(name, wanted)| (name.to_owned(), values(wanted)))
            .collect();
    }
    if rng.u8(..10) < 1 {
        rules.snis = some(rng, 1..3, |rng| pick(rng, RULE_SNIS).to_owned());
    }
    if rng.bool() {
        rules.regex_priority = rng.i64(-1..4);
    }
    rules
}

fn random_request(rng: &mut Rng) -> Request {
    Request {
        method: pick(rng, &["GET", "GET", "POST", "PURGE", "FOO", "BAR", "get"]),
        host: pick(rng, REQUEST_HOSTS).to_owned(),
        path: random_path(rng),
        https: rng.bool(),
        sni: rng.bool().then(|| pick(rng, SNIS)),
        port: pick(rng, &[80, 8080, 8000]),
        headers: Headers(some(rng, 0..3, |rng| pick(rng, HEADERS))),
    }
}

fn seeds(count: u64) -> Range<u64> {
    match std::env::var("RINGWAY_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("RINGWAY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    }
}

fn build<'a>(routes: impl IntoIterator<Item = (RouteKey, &'a Rules)>) -> Router {
    let mut router = Router::new();
    for (key, rules) in routes {
        router.insert(key, Arc::new(compile(rules).unwrap()));
    }
    router
}

#[track_caller]
fn check(seed: u64, router: &Router, twin: &Twin, request: &Request) {
    assert_eq!(
        request.find_in(router),
        twin.find(request),
        "RINGWAY_SEED={seed} {request:?}"
    );
}

#[test]
fn the_index_agrees_with_the_flat_walk() {
    let mut hits = 0;
    for seed in seeds(150) {
        let mut rng = Rng::with_seed(seed);
        let routes = some(&mut rng, 1..40, random_rules);
        let keyed = || (0..).map(RouteKey).zip(&routes);
        let (router, twin) = (build(keyed()), Twin::new(keyed()));
        for _ in 0..100 {
            let request = random_request(&mut rng);
            check(seed, &router, &twin, &request);
            hits += u32::from(twin.find(&request).is_some());
        }
    }
    assert!(hits > 0, "worlds in which nothing matches prove nothing");
}

#[test]
fn changes_in_place_leave_what_a_fresh_build_gives() {
    for seed in seeds(60) {
        let mut rng = Rng::with_seed(seed);
        let mut router = Router::new();
        let mut routes: Vec<Option<Rules>> = vec![None; 24];
        for _ in 0..100 {
            let index = rng.usize(..routes.len());
            let key = RouteKey(index as u32);
            routes[index] = (rng.u8(..3) > 0).then(|| random_rules(&mut rng));
            match &routes[index] {
                Some(rules) => router.insert(key, Arc::new(compile(rules).unwrap())),
                None => router.remove(key),
            }
        }
        let keyed = || {
            (0..)
                .map(RouteKey)
                .zip(&routes)
                .filter_map(|(key, rules)| Some((key, rules.as_ref()?)))
        };
        let (fresh, twin) = (build(keyed()), Twin::new(keyed()));
        assert_eq!(router.len(), keyed().count(), "RINGWAY_SEED={seed}");
        assert!(router.hosts.same_as(&fresh.hosts), "RINGWAY_SEED={seed}");
        for _ in 0..100 {
            check(seed, &router, &twin, &random_request(&mut rng));
        }
        for index in 0..routes.len() {
            router.remove(RouteKey(index as u32));
        }
        assert!(
            router.is_empty() && router.hosts.same_as(&Router::new().hosts),
            "RINGWAY_SEED={seed}"
        );
    }
}

#[test]
fn any_bytes_of_a_peer_are_answered() {
    for seed in seeds(20) {
        let mut rng = Rng::with_seed(seed);
        let routes = some(&mut rng, 1..40, random_rules);
        let router = build((0..).map(RouteKey).zip(&routes));
        let bytes = |rng: &mut Rng| -> Vec<u8> {
            some(rng, 0..40, |rng| {
                pick(rng, b"ab/.:*[]\xff\xc3\x80\0 test80")
            })
        };
        for _ in 0..500 {
            let (method, host, path, sni) = (
                bytes(&mut rng),
                bytes(&mut rng),
                bytes(&mut rng),
                bytes(&mut rng),
            );
            let headers = Headers(some(&mut rng, 0..3, |rng| pick(rng, HEADERS)));
            let query = Query {
                method: &method,
                host: &host,
                path: &path,
                https: rng.bool(),
                sni: Some(&sni),
                port: rng.u16(..),
                headers: &headers,
            };
            let matched_len = router
                .find(&query)
                .and_then(|hit| hit.matched_len)
                .unwrap_or(0);
            assert!(matched_len <= path.len(), "RINGWAY_SEED={seed}");
        }
    }
}
