//! Tests only. What spec/router.md says of the flavour `traditional` alone (sections 3, 5 and 15), as rows.

use crate::config::RouterFlavor;
use crate::router::compile::Rules;
use crate::router::tables::World;
use crate::router::tables::get;
use crate::router::tables::route;
use crate::router::tables::with_header;
use crate::router::tables::world_in;
use crate::router::twin::Request;

fn world(routes: Vec<(&'static str, Rules)>) -> World {
    world_in(RouterFlavor::Traditional, routes)
}

fn aged(created_at_s: u64, rules: Rules) -> Rules {
    Rules { created_at_s, ..rules }
}

#[test]
fn of_equal_routes_the_older_wins_whatever_the_ids() {
    let w = world(vec![
        ("young", aged(9, route(9).paths(&["/a"]))),
        ("old", aged(1, route(1).paths(&["/a"]))),
        ("middle", aged(5, route(5).paths(&["/a"]))),
    ]);
    w.check(get("h", "/a"), "old", Some("/a"));
}

#[test]
fn more_attributes_win_then_host_header_path_method() {
    let host = ("host", route(1).hosts(&["h"]));
    let header = ("header", route(2).header("x-v", &["1"]));
    let path = ("path", route(3).paths(&["/"]));
    let method = ("method", route(4).methods(&["GET"]));
    let two = ("two", route(5).paths(&["/"]).methods(&["GET"]));
    let request = || with_header(get("h", "/"), "x-v", "1");
    world(vec![host.clone(), header.clone(), path.clone(), method.clone(), two]).check(request(), "two", Some("/"));
    world(vec![method.clone(), path.clone(), header.clone(), host]).check(request(), "host", None);
    world(vec![method.clone(), path.clone(), header]).check(request(), "header", None);
    world(vec![method.clone(), path]).check(request(), "path", Some("/"));
    world(vec![method]).check(request(), "method", None);
}

#[test]
fn inside_a_category_regexes_then_length_decide() {
    let w = world(vec![
        ("long", route(1).paths(&["/a/b"])),
        ("short", route(2).paths(&["/a"])),
        ("regex", route(3).paths(&[r"~/a/b\d"])),
        ("regex-hi", route(4).paths(&["~/a/b1"]).regex_priority(10)),
    ]);
    w.check(get("h", "/a/b1"), "regex-hi", Some("/a/b1"));
    w.check(get("h", "/a/b2"), "regex", Some("/a/b2"));
    w.check(get("h", "/a/bc"), "long", Some("/a/b"));
    w.check(get("h", "/a/c"), "short", Some("/a"));
}

#[test]
fn ports_of_hosts_default_to_those_of_the_scheme() {
    let w = world(vec![("r", route(1).hosts(&["h:80", "s:443", "x:8000", "[::1]:80", "*.w:81"]))]);
    let tls = |host| Request { https: true, ..get(host, "/") };
    for (request, want) in [
        (get("h", "/"), true),
        (get("h:80", "/"), true),
        (get("h:8000", "/"), false),
        (tls("h"), false),
        (tls("s"), true),
        (get("s", "/"), false),
        (get("x", "/"), false),
        (get("x:8000", "/"), true),
        (get("[::1]", "/"), true),
        (get("[::1]:80", "/"), true),
        (get("[::1]:81", "/"), false),
        (get("a.w:81", "/"), true),
        (get("a.w", "/"), false),
    ] {
        w.check(request, if want { "r" } else { "" }, None);
    }
}

#[test]
fn the_star_of_a_host_stands_for_something() {
    let w = world(vec![("left", route(1).hosts(&["*.example.com"])), ("right", route(2).hosts(&["example.*"]))]);
    w.check(get("a.b.example.com", "/"), "left", None);
    w.check(get("example.co.uk", "/"), "right", None);
    w.check(get(".example.com", "/"), "", None);
    w.check(get("example.", "/"), "", None);
}

/// A request over plain http has no server name to be indexed by: a route with snis is met only when no category stands
/// for what the request does have.
#[test]
fn where_a_request_begins_follows_from_what_any_route_has() {
    let snis = ("snis", route(1).paths(&["/a"]).snis(&["x.test"]));
    world(vec![snis.clone()]).check(get("h", "/a"), "snis", Some("/a"));
    world(vec![snis, ("root", route(2).paths(&["/"]))]).check(get("h", "/a"), "root", Some("/"));
}

/// Of the routes with host and path, the fewer are looked at first that share the host or the path that was hit.
#[test]
fn what_shares_the_rarest_hit_goes_first() {
    let wildcard_with_port = ("wildcard", route(1).hosts(&["*.test:80"]).paths(&["/a"]));
    let plain = ("plain", route(2).hosts(&["x.test"]).paths(&["/"]));
    world(vec![wildcard_with_port.clone(), plain.clone()]).check(get("x.test", "/a"), "plain", Some("/"));
    let another = ("another", route(3).hosts(&["x.test"]).paths(&["/z"]));
    world(vec![wildcard_with_port, plain, another]).check(get("x.test", "/a"), "wildcard", Some("/a"));
}

#[test]
fn nothing_of_any_route_is_no_match() {
    world(vec![("r", route(1).hosts(&["h"]))]).check(get("other", "/"), "", None);
    world(vec![("none", route(1))]).check(get("h", "/"), "", None);
}
