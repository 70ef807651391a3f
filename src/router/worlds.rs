//! Tests and fuzz targets only. Random worlds of routes and requests, in which the index of each flavour must answer as its
//! twin does.
//!
//! A failure names its seed; `RINGWAY_SEED=<seed>` runs that world alone.

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::Cidr;
use crate::config::RouterFlavor;
use crate::router::Hit;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::compile::compile;
use crate::router::matcher::Compiled;
use crate::router::net::Endpoint;
use crate::router::twin::Headers;
use crate::router::twin::Request;
use crate::router::twin::Twin;
use crate::router::twin_expressions::Expression;
use crate::router::twin_traditional::TraditionalTwin;
use crate::stdx::fuzzing::Chance;

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

fn pick<T: Copy>(rng: &mut Chance<'_>, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

pub(super) fn some<T>(rng: &mut Chance<'_>, count: Range<usize>, mut make: impl FnMut(&mut Chance<'_>) -> T) -> Vec<T> {
    (0..rng.usize(count)).map(|_| make(rng)).collect()
}

/// Often of few bytes, so that paths are prefixes of each other.
fn random_path(rng: &mut Chance<'_>) -> String {
    let tail: String = some(rng, 0..7, |rng| pick(rng, &['a', 'b', '/'])).into_iter().collect();
    format!("/{tail}")
}

/// A route as it was made up: the twin reads the tree of an expression, never its text.
#[derive(Clone)]
pub(super) struct Written {
    pub rules: Rules,
    pub expression: Option<Expression>,
}

pub(super) fn random_route(rng: &mut Chance<'_>, flavor: RouterFlavor) -> Written {
    let mut rules =
        Rules { id: Uuid::from_u128(rng.unique()), created_at_s: rng.usize(..4) as u64, ..Rules::default() };
    let is_expressions = flavor == RouterFlavor::Expressions;
    if is_expressions {
        let protocols: &[&str] =
            pick(rng, &[&["http", "https"], &["http", "https"], &["http"], &["https"], &["grpcs"]]);
        rules.protocols = protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
        if rng.bool() {
            let expression = Expression::random(rng, 2);
            rules.expression = Some(expression.text());
            rules.priority = rng.usize(..3) as u64;
            return Written { rules, expression: Some(expression) };
        }
    }
    random_attributes(rng, &mut rules);
    if is_expressions && rng.usize(..5) == 0 {
        let endpoint = |rng: &mut Chance<'_>| Endpoint {
            block: rng.bool().then(|| Cidr::parse(pick(rng, &["10.0.0.0/8", "127.0.0.1"])).unwrap()),
            port: rng.bool().then(|| pick(rng, &[80, 8000, 40_000])),
        };
        rules.sources = some(rng, 0..3, endpoint);
        rules.destinations = some(rng, 0..3, endpoint);
    }
    if flavor == RouterFlavor::Traditional {
        // These are sets and maps, and a list that names something twice is longer in Kong.
        for list in [&mut rules.hosts, &mut rules.methods, &mut rules.snis] {
            list.sort();
            list.dedup();
        }
        rules.snis.retain(|sni| !sni.contains('*'));
        rules.snis.dedup_by(|a, b| a.trim_end_matches('.') == b.trim_end_matches('.'));
    }
    Written { rules, expression: None }
}

fn random_attributes(rng: &mut Chance<'_>, rules: &mut Rules) {
    if rng.usize(..10) < 2 {
        rules.methods = some(rng, 1..4, |rng| pick(rng, METHODS).to_owned());
    }
    if rng.usize(..10) < 5 {
        rules.hosts = some(rng, 1..4, |rng| pick(rng, HOSTS).to_owned());
    }
    if rng.usize(..10) < 8 {
        let path = |rng: &mut Chance<'_>| {
            if rng.usize(..4) == 0 { pick(rng, REGEXES).to_owned() } else { random_path(rng) }
        };
        rules.paths = some(rng, 1..4, path);
    }
    if rng.usize(..10) < 2 {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        rules.headers = some(rng, 1..3, |rng| pick(rng, RULE_HEADERS))
            .into_iter()
            .map(|(name, wanted)| (name.to_owned(), values(wanted)))
            .collect();
    }
    if rng.usize(..10) < 1 {
        rules.snis = some(rng, 1..3, |rng| pick(rng, RULE_SNIS).to_owned());
    }
    if rng.bool() {
        rules.regex_priority = rng.usize(..5) as i64 - 1;
    }
}

pub(super) fn random_request(rng: &mut Chance<'_>) -> Request {
    let https = rng.bool();
    Request {
        method: pick(rng, &["GET", "GET", "POST", "PURGE", "FOO", "BAR", "get"]),
        host: pick(rng, REQUEST_HOSTS).to_owned(),
        path: random_path(rng),
        https,
        sni: (https && rng.bool()).then(|| pick(rng, SNIS)),
        port: pick(rng, &[80, 8080, 8000]),
        arguments: pick(rng, &["", "a=1", "a", "a=1&b=2&a=x+y", "b=x%20y&&a=2", "=&b"]),
        source: pick(rng, &["10.1.2.3:80", "127.0.0.1:40000", "[fd00::1]:1"]).parse().unwrap(),
        destination: pick(rng, &["10.1.2.3", "127.0.0.1", "fd00::1"]).parse().unwrap(),
        headers: Headers(some(rng, 0..3, |rng| pick(rng, HEADERS))),
    }
}

pub(super) const FLAVORS: [RouterFlavor; 3] =
    [RouterFlavor::TraditionalCompatible, RouterFlavor::Traditional, RouterFlavor::Expressions];

pub(super) fn build<'a>(flavor: RouterFlavor, routes: impl IntoIterator<Item = (RouteKey, &'a Written)>) -> Router {
    let mut router = Router::new();
    for (key, written) in routes {
        router.insert(key, compiled(flavor, written));
    }
    router
}

pub(super) fn compiled(flavor: RouterFlavor, written: &Written) -> Arc<Compiled> {
    Arc::new(compile(&written.rules, flavor).unwrap_or_else(|errors| panic!("{:?}: {errors:?}", written.rules)))
}

pub(super) enum AnyTwin<'a> {
    Flat(Twin<'a>),
    Traditional(TraditionalTwin<'a>),
}

impl<'a> AnyTwin<'a> {
    pub fn new(flavor: RouterFlavor, routes: impl IntoIterator<Item = (RouteKey, &'a Written)>) -> Self {
        match flavor {
            RouterFlavor::Traditional => {
                Self::Traditional(TraditionalTwin::new(routes.into_iter().map(|(key, written)| (key, &written.rules))))
            }
            _ => Self::Flat(Twin::new(flavor, routes)),
        }
    }

    pub fn find(&self, request: &Request) -> Option<Hit> {
        match self {
            Self::Flat(twin) => twin.find(request),
            Self::Traditional(twin) => twin.find(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Query;
    use crate::router::examine::examine;

    fn seeds(count: u64) -> Range<u64> {
        match std::env::var("RINGWAY_SEED") {
            Ok(seed) => {
                let seed: u64 = seed.parse().expect("RINGWAY_SEED is a number");
                seed..seed + 1
            }
            Err(_) => 0..count,
        }
    }

    #[track_caller]
    fn check(place: (RouterFlavor, u64), router: &Router, twin: &AnyTwin<'_>, request: &Request) {
        let (flavor, seed) = place;
        assert_eq!(request.find_in(router), twin.find(request), "RINGWAY_SEED={seed} {flavor:?} {request:?}");
    }

    #[test]
    fn the_index_agrees_with_the_flat_walk() {
        for flavor in FLAVORS {
            let mut hits = 0;
            for seed in seeds(60) {
                let mut rng = Chance::seeded(seed);
                let routes = some(&mut rng, 1..40, |rng| random_route(rng, flavor));
                let keyed = || (0..).map(RouteKey).zip(&routes);
                let (router, twin) = (build(flavor, keyed()), AnyTwin::new(flavor, keyed()));
                for _ in 0..100 {
                    let request = random_request(&mut rng);
                    check((flavor, seed), &router, &twin, &request);
                    hits += u32::from(twin.find(&request).is_some());
                }
            }
            assert!(hits > 0, "worlds in which nothing matches prove nothing");
        }
    }

    #[test]
    fn changes_in_place_leave_what_a_fresh_build_gives() {
        for (flavor, seed) in FLAVORS.into_iter().flat_map(|flavor| seeds(24).map(move |seed| (flavor, seed))) {
            let mut rng = Chance::seeded(seed);
            let mut router = Router::new();
            let mut routes: Vec<Option<Written>> = vec![None; 24];
            for _ in 0..100 {
                let index = rng.usize(..routes.len());
                let key = RouteKey(index as u32);
                let had = routes[index].is_some();
                routes[index] = (rng.usize(..3) > 0).then(|| random_route(&mut rng, flavor));
                let replaced = match &routes[index] {
                    Some(written) => router.insert(key, compiled(flavor, written)),
                    None => router.remove(key),
                };
                assert_eq!(replaced.is_some(), had, "RINGWAY_SEED={seed} {flavor:?}");
            }
            let keyed = || (0..).map(RouteKey).zip(&routes).filter_map(|(key, written)| Some((key, written.as_ref()?)));
            let (fresh, twin) = (build(flavor, keyed()), AnyTwin::new(flavor, keyed()));
            assert_eq!(router.len(), keyed().count(), "RINGWAY_SEED={seed} {flavor:?}");
            assert!(router.same_as(&fresh), "RINGWAY_SEED={seed} {flavor:?}");
            for _ in 0..100 {
                check((flavor, seed), &router, &twin, &random_request(&mut rng));
            }
            for index in 0..routes.len() {
                router.remove(RouteKey(index as u32));
            }
            assert!(router.is_empty() && router.same_as(&Router::new()), "RINGWAY_SEED={seed} {flavor:?}");
        }
    }

    /// Alone in a router a route is found exactly when no condition fails. (In the flavour `traditional` a route may be
    /// passed over although none does: the search wants at least one attribute that it has an index of.)
    #[test]
    fn a_route_that_fails_no_condition_is_one_that_is_found() {
        for flavor in FLAVORS {
            let mut found = [0; 2];
            for seed in seeds(60) {
                let mut rng = Chance::seeded(seed);
                for _ in 0..20 {
                    let route = random_route(&mut rng, flavor);
                    let router = build(flavor, [(RouteKey(0), &route)]);
                    let compiled = compiled(flavor, &route);
                    for _ in 0..20 {
                        let request = random_request(&mut rng);
                        let hit = request.find_in(&router);
                        let examined = examine(&compiled, &request.query());
                        let place =
                            format!("RINGWAY_SEED={seed} {flavor:?} {:?} {request:?}: {examined:?}", route.rules);
                        if flavor == RouterFlavor::Traditional {
                            assert!(hit.is_none() || examined.failed.is_empty(), "{place}");
                        } else {
                            assert_eq!(hit.is_some(), examined.failed.is_empty(), "{place}");
                        }
                        if let Some(hit) = hit {
                            assert_eq!(hit.path, examined.path, "{place}");
                        }
                        found[usize::from(hit.is_some())] += 1;
                    }
                }
            }
            assert!(found.iter().all(|count| *count > 100), "{found:?}");
        }
    }

    #[test]
    fn any_bytes_of_a_peer_are_answered() {
        for (flavor, seed) in FLAVORS.into_iter().flat_map(|flavor| seeds(8).map(move |seed| (flavor, seed))) {
            let mut rng = Chance::seeded(seed);
            let routes = some(&mut rng, 1..40, |rng| random_route(rng, flavor));
            let router = build(flavor, (0..).map(RouteKey).zip(&routes));
            let bytes = |rng: &mut Chance<'_>| -> Vec<u8> {
                some(rng, 0..40, |rng| pick(rng, b"ab/.:*[]\xff\xc3\x80\0 test80"))
            };
            for _ in 0..500 {
                let (method, host, path, sni) = (bytes(&mut rng), bytes(&mut rng), bytes(&mut rng), bytes(&mut rng));
                let headers = Headers(some(&mut rng, 0..3, |rng| pick(rng, HEADERS)));
                let query = Query {
                    method: &method,
                    host: &host,
                    path: &path,
                    https: rng.bool(),
                    sni: Some(&sni),
                    port: rng.usize(..=0xffff) as u16,
                    arguments: &bytes(&mut rng),
                    source: ([127, 0, 0, 1], rng.usize(..=0xffff) as u16).into(),
                    destination: [127, 0, 0, 1].into(),
                    headers: &headers,
                };
                let matched_len = router.find(&query).and_then(|hit| hit.matched_len).unwrap_or(0);
                assert!(matched_len <= path.len(), "RINGWAY_SEED={seed}");
            }
        }
    }
}
