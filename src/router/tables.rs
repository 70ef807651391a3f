//! Tests only. The tables and worked examples of spec/router.md (sections 3, 4, 6, 15, 16) as rows of routes, requests
//! and winners.

use std::sync::Arc;

use uuid::Uuid;

use crate::config::RouterFlavor;
use crate::router::Hit;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile;
use crate::router::compile::RuleError;
use crate::router::compile::Rules;
use crate::router::matcher::Compiled;
use crate::router::twin::Headers;
use crate::router::twin::Request;

/// Rules whose id grows with `id`.
pub(super) fn route(id: u128) -> Rules {
    Rules { id: Uuid::from_u128(id), ..Rules::default() }
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

impl Rules {
    pub fn methods(mut self, methods: &[&str]) -> Self {
        self.methods = list(methods);
        self
    }

    pub fn hosts(mut self, hosts: &[&str]) -> Self {
        self.hosts = list(hosts);
        self
    }

    pub fn paths(mut self, paths: &[&str]) -> Self {
        self.paths = list(paths);
        self
    }

    pub fn header(mut self, name: &str, values: &[&str]) -> Self {
        self.headers.push((name.to_owned(), list(values)));
        self
    }

    pub fn snis(mut self, snis: &[&str]) -> Self {
        self.snis = list(snis);
        self
    }

    pub fn regex_priority(mut self, priority: i64) -> Self {
        self.regex_priority = priority;
        self
    }
}

/// `GET <path>` with this Host, over plain http on port 8000.
pub(super) fn get(host: &str, path: &str) -> Request {
    Request {
        method: "GET",
        host: host.to_owned(),
        path: path.to_owned(),
        https: false,
        sni: None,
        port: 8000,
        arguments: "",
        source: ([127, 0, 0, 1], 40_000).into(),
        destination: [127, 0, 0, 1].into(),
        headers: Headers::default(),
    }
}

pub(super) fn with_header(mut request: Request, name: &'static str, value: &'static str) -> Request {
    request.headers.0.push((name, value));
    request
}

fn compile(rules: &Rules) -> Result<Compiled, Vec<RuleError>> {
    compile::compile(rules, RouterFlavor::TraditionalCompatible)
}

fn compiled(rules: &Rules) -> Arc<Compiled> {
    Arc::new(compile(rules).expect("the rules of the table are valid"))
}

pub(super) struct World {
    names: Vec<&'static str>,
    router: Router,
}

pub(super) fn world(routes: Vec<(&'static str, Rules)>) -> World {
    world_in(RouterFlavor::TraditionalCompatible, routes)
}

pub(super) fn world_in(flavor: RouterFlavor, routes: Vec<(&'static str, Rules)>) -> World {
    let mut router = Router::new();
    for (index, (_, rules)) in routes.iter().enumerate() {
        let compiled = compile::compile(rules, flavor).expect("the rules of the table are valid");
        router.insert(RouteKey(index as u32), Arc::new(compiled));
    }
    World { names: routes.iter().map(|(name, _)| *name).collect(), router }
}

impl World {
    pub fn find(&self, request: &Request) -> Option<Hit> {
        request.find_in(&self.router)
    }

    /// `want`: name of the route, text that its path attribute matched; "" and None for no route.
    #[track_caller]
    pub fn check(&self, request: Request, want: &str, want_prefix: Option<&str>) {
        let hit = self.find(&request);
        let got = hit.map_or("", |hit| self.names[hit.route.0 as usize]);
        let prefix = hit.and_then(|hit| hit.matched_len).map(|length| &request.path[..length]);
        assert_eq!((got, prefix), (want, want_prefix), "{request:?}");
    }
}

/// One route: does it match?
#[track_caller]
fn matches(rules: &Rules, request: &Request) -> bool {
    let mut router = Router::new();
    router.insert(RouteKey(3), compiled(rules));
    request.find_in(&router).is_some()
}

#[test]
fn nothing_matches_an_empty_router_or_another_path() {
    let w = world(vec![]);
    w.check(get("h.test", "/"), "", None);
    let w = world(vec![("a", route(1).paths(&["/a"]))]);
    w.check(get("h.test", "/b"), "", None);
    w.check(get("h.test", "/A/b"), "", None);
    w.check(get("h.test", ""), "", None);
}

#[test]
fn methods_are_exact() {
    let rules = route(1).methods(&["GET", "PURGE", "FOO"]).paths(&["/"]);
    for (method, want) in
        [("GET", true), ("PURGE", true), ("FOO", true), ("POST", false), ("BAR", false), ("get", false), ("", false)]
    {
        assert_eq!(matches(&rules, &Request { method, ..get("", "/") }), want, "{method}");
    }
    assert!(matches(&route(1).paths(&["/"]), &Request { method: "ANY", ..get("", "/") }));
}

#[test]
fn hosts_table() {
    for (rule, host, want) in [
        ("example.com", "example.com", true),
        ("example.com", "example.com:9999", true),
        ("example.com", "EXAMPLE.com", false),
        ("example.com", "example.com.", false),
        ("example.com", "example.com:", false),
        ("example.com", "example.com:80a", false),
        ("example.com", "", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", ".example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "a.example.com:1", true),
        ("example.*", "example.org", true),
        ("example.*", "example.co.uk", true),
        ("example.*", "example.", true),
        ("example.*", "example", false),
        ("example.*", "an.example.org", false),
        ("*.com:80", "x.com:80", true),
        ("*.com:80", "x.com:81", false),
        ("example.*:81", "example.org:81", true),
        ("example.com:8000", "example.com", true),
        ("example.com:9443", "example.com", false),
        ("example.com:9443", "example.com:9443", true),
        ("example.com:80", "example.com", false),
        ("[::1]", "[::1]", true),
        ("[::1]", "[::1]:8000", false),
        ("[::1]:8000", "[::1]:8000", true),
        ("[::1]:8000", "[::1]", false),
    ] {
        assert_eq!(matches(&route(1).hosts(&[rule]), &get(host, "/")), want, "{rule} {host}");
    }
}

#[test]
fn a_host_with_port_means_the_listener_port_when_the_header_has_none() {
    let rules = route(1).hosts(&["example.com:9443"]);
    assert!(matches(&rules, &Request { port: 9443, ..get("example.com", "/") }));
    assert!(!matches(&rules, &Request { port: 9443, ..get("example.com:8000", "/") }));
}

#[test]
fn headers_table() {
    let one = |name, value| with_header(get("", "/"), name, value);
    for (name, values, request, want) in [
        ("x-v", &["1", "2"][..], with_header(one("X-V", "3"), "X-V", "2"), true),
        ("x-v", &["1", "2"], one("X-V", "3"), false),
        ("x-v", &["1"], get("", "/"), false),
        ("X-V", &["1"], one("x_v", "1"), true),
        ("X_V", &["1"], one("x-v", "1"), true),
        ("x-v", &["One"], one("x-v", "oNE"), true),
        ("x-v", &["one"], one("x-v", "ones"), false),
        ("x-v", &["~*v[12]"], one("x-v", "my-V1.0"), true),
        ("x-v", &["~*^v[12]$"], one("x-v", "v3"), false),
        ("x-v", &["~*V1"], one("x-v", "v1"), true),
        ("x-v", &["~*v1", "v2"], one("x-v", "v1"), false),
        ("x-v", &["~*v1", "v2"], one("x-v", "~*V1"), true),
        ("x-v", &[""], one("x-v", ""), true),
    ] {
        assert_eq!(matches(&route(1).header(name, values), &request), want, "{name} {values:?} {request:?}");
    }
    let both = route(1).header("x-a", &["1"]).header("x-b", &["2"]);
    assert!(matches(&both, &with_header(one("x-b", "2"), "x-a", "1")));
    assert!(!matches(&both, &one("x-a", "1")));
}

#[test]
fn snis_count_over_tls_only() {
    for (rule, https, sni, want) in [
        ("a.com", false, None, true),
        ("a.com", false, Some("b.com"), true),
        ("a.com", true, Some("a.com"), true),
        ("a.com", true, Some("b.com"), false),
        ("a.com", true, None, false),
        ("a.com.", true, Some("a.com"), true),
        ("*.com", true, Some("a.com"), true),
        ("a.*", true, Some("a.org"), true),
        ("*a.com", true, Some("ba.com"), true),
        ("*", true, Some("x"), true),
        ("*", true, None, false),
    ] {
        let rules = route(1).snis(&[rule]).paths(&["/"]);
        assert_eq!(matches(&rules, &Request { https, sni, ..get("", "/") }), want, "{rule} {https} {sni:?}");
    }
}

#[test]
fn more_attributes_beat_a_regex_which_beats_a_longer_prefix() {
    let a = ("A", route(9).paths(&["/a"]));
    let b = ("B", route(8).paths(&["/a/b"]));
    let c = ("C", route(7).paths(&["~/a/.*"]));
    let d = ("D", route(6).hosts(&["x.com"]).paths(&["/a"]));
    let w = world(vec![a.clone(), b.clone(), c, d.clone()]);
    w.check(get("x.com", "/a/b"), "D", Some("/a"));
    w.check(get("y.com", "/a/b"), "C", Some("/a/b"));
    world(vec![a, b, d]).check(get("y.com", "/a/b"), "B", Some("/a/b"));
}

#[test]
fn a_route_with_paths_of_several_lengths_is_several_matchers() {
    let rules = route(1).paths(&["/x", "/xyz", r"~/q\d+", "/y"]);
    let w = world(vec![("r", rules)]);
    for (path, matcher, position, length) in
        [("/xyz1", 1, 1, 4), ("/xy", 0, 0, 2), ("/q12z", 2, 2, 4), ("/yz", 0, 3, 2)]
    {
        let hit = Hit { route: RouteKey(0), matcher, path: Some(position), matched_len: Some(length) };
        assert_eq!(w.find(&get("", path)), Some(hit), "{path}");
    }
}

#[test]
fn matchers_of_a_split_route_have_derived_ids() {
    let id = Uuid::parse_str("286eb53a-0367-4c7b-b763-79aecf68190d").unwrap();
    let rules = Rules { id, ..route(0) };
    let ids = |rules: &Rules| {
        let compiled = compile(rules).unwrap();
        compiled.matchers.iter().map(|matcher| Uuid::from_bytes(matcher.rank.id).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&rules.clone().paths(&["/a", "/b"])), [id.to_string()]);
    assert_eq!(
        ids(&rules.paths(&["/a", "/bb", "/c", "~/d", "~/ee"])),
        [
            "592b3277-c195-5540-8a4b-8659c115b83b",
            "aacf2b88-0210-550f-81c3-777e245fb254",
            "9d8325ff-36ee-50b5-ba6b-4b5643d7ba0a"
        ]
    );
}

#[test]
fn equal_priority_goes_to_the_larger_id() {
    for (first, second, want) in [(1, 2, "second"), (2, 1, "first"), (u128::MAX, u128::MAX >> 1, "first")] {
        let plain = |id| route(id).paths(&["/a"]);
        world(vec![("first", plain(first)), ("second", plain(second))]).check(get("", "/a"), want, Some("/a"));
        let regex = |id| route(id).paths(&["~/a"]);
        world(vec![("first", regex(first)), ("second", regex(second))]).check(get("", "/a"), want, Some("/a"));
    }
}

#[test]
fn hosts_that_mix_plain_and_wildcard_lose_the_plain_host_bit_for_all() {
    let w = world(vec![
        ("mixed", route(1).hosts(&["a.test", "*.b.test"]).header("x-v", &["1"])),
        ("plain", route(2).hosts(&["a.test"]).paths(&["/"])),
    ]);
    w.check(with_header(get("a.test", "/"), "x-v", "1"), "plain", Some("/"));
    w.check(with_header(get("x.b.test", "/"), "x-v", "1"), "mixed", None);
}

#[test]
fn a_header_counts_once_per_name() {
    let w = world(vec![
        ("one name", route(9).header("x-a", &["1", "2", "3"])),
        ("two names", route(1).header("x-a", &["1"]).header("x-b", &["1"])),
    ]);
    w.check(with_header(with_header(get("", "/"), "x-a", "1"), "x-b", "1"), "two names", None);
}

#[test]
fn of_regexes_in_one_route_the_first_listed_that_matches_wins() {
    let w = world(vec![("r", route(1).paths(&["~/ab", "~/a", "~/abc"]))]);
    assert_eq!(w.find(&get("", "/abc")).and_then(|hit| hit.path), Some(0));
    assert_eq!(w.find(&get("", "/axx")).and_then(|hit| hit.path), Some(1));
    let w = world(vec![("r", route(1).paths(&["~/a", "~/ab", "~/abc"]))]);
    w.check(get("", "/abc"), "r", Some("/a"));
}

#[test]
fn an_encoded_slash_never_equals_a_slash() {
    let w = world(vec![("encoded", route(1).paths(&["/a%2Fb"])), ("plain", route(2).paths(&["/a/b"]))]);
    w.check(get("", "/a%2Fb/c"), "encoded", Some("/a%2Fb"));
    w.check(get("", "/a/b"), "plain", Some("/a/b"));
}

#[test]
fn a_segment_bound_prefix_is_written_as_a_regex() {
    let w = world(vec![("r", route(1).paths(&["~/foo(/|$)"]))]);
    w.check(get("", "/foo"), "r", Some("/foo"));
    w.check(get("", "/foo/bar"), "r", Some("/foo/"));
    w.check(get("", "/foobar"), "", None);
}

#[test]
fn captures_have_numbers_and_names() {
    let rules = route(1).paths(&["/plain", r"~/users/(?<id>\d+)(/x)?", "~/none"]);
    let w = world(vec![("r", rules.clone())]);
    let compiled = compile(&rules).unwrap();
    let captures = |path: &'static str| compiled.captures(&w.find(&get("", path)).unwrap(), path.as_bytes());
    let found = captures("/users/42/posts").expect("the regex has groups");
    assert_eq!(found.get(0), Some(&b"/users/42"[..]));
    assert_eq!((found.get(1), found.name("id")), (Some(&b"42"[..]), Some(&b"42"[..])));
    assert_eq!((found.get(2), found.get(9), found.name("x")), (None, None, None));
    let all: Vec<_> = found.iter().collect();
    assert_eq!(all, [(0, None, &b"/users/42"[..]), (1, Some("id"), &b"42"[..])]);
    assert!(captures("/none").is_none(), "a regex without groups");
    assert!(captures("/plain").is_none());
}

#[test]
fn refusals_name_field_and_element() {
    let rules = route(1)
        .hosts(&["ok", "a.*.b", "*", "x:70000", "*.a.*"])
        .paths(&["/ok", "~/a([", r"~/(?=x)", &"/x".repeat(4000)])
        .header("X-V", &["~*("]);
    let errors = compile(&rules).unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|RuleError { field, .. }| field.as_str()).collect();
    assert_eq!(
        fields,
        ["hosts.2", "hosts.3", "hosts.4", "hosts.5", "headers.X-V", "paths.2", "paths.3", "paths.4"],
        "{errors:#?}"
    );
    assert_eq!(errors[5].message, "invalid regex: '/a([' (unclosed character class)");

    let many: Vec<String> = (0..300).map(|n| format!("h{n}")).collect();
    let crowd = Rules { hosts: many.clone(), paths: many.iter().map(|name| format!("/{name}")).collect(), ..route(1) };
    assert_eq!(compile(&crowd).unwrap_err()[0].field, "paths");
}

#[test]
fn a_route_without_attributes_matches_nothing() {
    assert!(!matches(&route(1), &get("a", "/")));
    assert!(!matches(&Rules { regex_priority: 7, ..route(1) }, &get("a", "/")));
}

#[test]
fn inserting_a_key_again_replaces_its_route() {
    let mut w = world(vec![("r", route(1).paths(&["/a"]))]);
    w.router.insert(RouteKey(0), compiled(&route(1).hosts(&["h"])));
    assert_eq!(w.router.len(), 1);
    w.check(get("", "/a"), "", None);
    w.check(get("h", "/a"), "r", None);
    w.router.remove(RouteKey(0));
    w.router.remove(RouteKey(0));
    w.router.remove(RouteKey(77));
    assert!(w.router.is_empty());
    w.check(get("h", "/a"), "", None);
}

/// Each path is a prefix of the next: the deepest trie that the bound on paths allows, on a small stack.
#[test]
fn the_deepest_trie_fits_a_small_stack() {
    let deepest = crate::limits::ROUTE_PATH_BYTES_MAX;
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    let run = move || {
        let mut router = Router::new();
        for length in 1..=deepest {
            router.insert(RouteKey(length as u32), compiled(&route(1).paths(&[&path(length)])));
        }
        let hit = get("", &path(deepest + 9)).find_in(&router);
        assert_eq!(hit.and_then(|hit| hit.matched_len), Some(deepest));
        router.remove(RouteKey(deepest as u32));
        drop(router);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_router_moves_between_threads_and_compiled_routes_are_shared() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync>() {}
    send::<Router>();
    share::<Compiled>();
}
