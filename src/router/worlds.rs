//! Tests only. Random worlds of routes and requests, in which the index must answer as the flat walk of `twin` does.
//!
//! A failure names its seed; `RINGWAY_SEED=<seed>` runs that world alone.

use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use uuid::Uuid;

use crate::router::Query;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::compile::compile;
use crate::router::twin::Headers;
use crate::router::twin::Request;
use crate::router::twin::Twin;

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
const HEADERS: &[(&str, &str)] =
    &[("X-V", "1"), ("x-v", "2"), ("x_v", "3"), ("X_W", "Ab"), ("x-w", "v2"), ("x-z", "1")];
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
const RULE_SNIS: &[&str] = &["a.test", "a.test.", "b.test", "*.test", "a.*", "*a.test", "*"];
const SNIS: &[&str] = &["a.test", "b.test", "x.a.test", "a.other", "other"];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn some<T>(rng: &mut Rng, count: Range<usize>, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(count)).map(|_| make(rng)).collect()
}

/// Often of few bytes, so that paths are prefixes of each other.
fn random_path(rng: &mut Rng) -> String {
    let tail: String = some(rng, 0..7, |rng| pick(rng, &['a', 'b', '/'])).into_iter().collect();
    format!("/{tail}")
}

fn random_rules(rng: &mut Rng) -> Rules {
    let mut rules = Rules { id: Uuid::from_u128(rng.u128(..)), ..Rules::default() };
    if rng.u8(..10) < 2 {
        rules.methods = some(rng, 1..4, |rng| pick(rng, METHODS).to_owned());
    }
    if rng.u8(..10) < 5 {
        rules.hosts = some(rng, 1..4, |rng| pick(rng, HOSTS).to_owned());
    }
    if rng.u8(..10) < 8 {
        let path = |rng: &mut Rng| {
            if rng.u8(..4) == 0 { pick(rng, REGEXES).to_owned() } else { random_path(rng) }
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
    assert_eq!(request.find_in(router), twin.find(request), "RINGWAY_SEED={seed} {request:?}");
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
            let had = routes[index].is_some();
            routes[index] = (rng.u8(..3) > 0).then(|| random_rules(&mut rng));
            let replaced = match &routes[index] {
                Some(rules) => router.insert(key, Arc::new(compile(rules).unwrap())),
                None => router.remove(key),
            };
            assert_eq!(replaced.is_some(), had, "RINGWAY_SEED={seed}");
        }
        let keyed = || (0..).map(RouteKey).zip(&routes).filter_map(|(key, rules)| Some((key, rules.as_ref()?)));
        let (fresh, twin) = (build(keyed()), Twin::new(keyed()));
        assert_eq!(router.len(), keyed().count(), "RINGWAY_SEED={seed}");
        assert!(router.hosts.same_as(&fresh.hosts), "RINGWAY_SEED={seed}");
        for _ in 0..100 {
            check(seed, &router, &twin, &random_request(&mut rng));
        }
        for index in 0..routes.len() {
            router.remove(RouteKey(index as u32));
        }
        assert!(router.is_empty() && router.hosts.same_as(&Router::new().hosts), "RINGWAY_SEED={seed}");
    }
}

#[test]
fn any_bytes_of_a_peer_are_answered() {
    for seed in seeds(20) {
        let mut rng = Rng::with_seed(seed);
        let routes = some(&mut rng, 1..40, random_rules);
        let router = build((0..).map(RouteKey).zip(&routes));
        let bytes = |rng: &mut Rng| -> Vec<u8> { some(rng, 0..40, |rng| pick(rng, b"ab/.:*[]\xff\xc3\x80\0 test80")) };
        for _ in 0..500 {
            let (method, host, path, sni) = (bytes(&mut rng), bytes(&mut rng), bytes(&mut rng), bytes(&mut rng));
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
            let matched_len = router.find(&query).and_then(|hit| hit.matched_len).unwrap_or(0);
            assert!(matched_len <= path.len(), "RINGWAY_SEED={seed}");
        }
    }
}
