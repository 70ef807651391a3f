//! Tests only. What recorded answers of Kong 3.10 say about matching: which route of many won, and what its path
//! attribute matched.

use crate::router::tables::get;
use crate::router::tables::route;
use crate::router::tables::with_header;
use crate::router::tables::world;
use crate::router::twin::Request;

#[test]
fn recorded_choices_between_many_routes() {
    let w = world(vec![
        ("root", route(1).paths(&["/"])),
        ("long", route(2).paths(&["/a/b"])),
        ("short", route(3).paths(&["/a"])),
        ("host", route(4).hosts(&["h.test"])),
        ("wild", route(5).hosts(&["*.h.test"])),
        ("wild-right", route(6).hosts(&["h.*"])),
        ("hostport", route(7).hosts(&["p.test:8000"])),
        ("hostpath", route(8).hosts(&["h.test"]).paths(&["/a"])),
        ("method", route(9).methods(&["PURGE"])),
        ("methodpath", route(10).methods(&["POST"]).paths(&["/a"])),
        ("header", route(11).header("x-v", &["1", "2"])),
        ("headerpath", route(12).header("x-v", &["1"]).paths(&["/a"])),
        ("two-headers", route(13).header("x-v", &["1"]).header("x-w", &["9"])),
        ("regex", route(14).paths(&[r"~/a/b\d"])),
        ("regex-hi", route(15).paths(&["~/a/b1"]).regex_priority(10)),
        ("regex-root", route(16).paths(&["~/q"])),
        ("plain-q", route(17).paths(&["/qq"])),
    ]);
    w.check(get("o.test", "/"), "root", Some("/"));
    w.check(get("o.test", "/a/bc"), "long", Some("/a/b"));
    w.check(get("o.test", "/a/c"), "short", Some("/a"));
    w.check(get("h.test", "/"), "host", None);
    w.check(get("h.test:99", "/"), "host", None);
    w.check(get("H.TEST", "/"), "root", Some("/"));
    w.check(get("h.test.", "/"), "root", Some("/"));
    w.check(get("x.h.test", "/"), "root", Some("/"));
    w.check(get("x.y.h.test", "/"), "root", Some("/"));
    w.check(get("h.other", "/"), "root", Some("/"));
    w.check(get("p.test:8000", "/"), "hostport", None);
    w.check(get("p.test", "/"), "hostport", None);
    w.check(get("h.test", "/a/b"), "hostpath", Some("/a"));
    w.check(Request { method: "PURGE", ..get("o.test", "/zzz") }, "root", Some("/"));
    w.check(Request { method: "POST", ..get("o.test", "/a/b/c") }, "methodpath", Some("/a"));
    w.check(with_header(get("o.test", "/"), "X-V", "1"), "header", None);
    w.check(with_header(get("o.test", "/"), "x-v", "2"), "header", None);
    w.check(with_header(with_header(get("o.test", "/"), "X-V", "1"), "X-W", "9"), "two-headers", None);
    w.check(with_header(get("o.test", "/a/b"), "X-V", "1"), "headerpath", Some("/a"));
    w.check(get("o.test", "/a/b2"), "regex", Some("/a/b2"));
    w.check(get("o.test", "/a/b1"), "regex-hi", Some("/a/b1"));
    w.check(get("o.test", "/qq"), "regex-root", Some("/q"));
    w.check(with_header(get("h.test", "/"), "X-V", "1"), "host", None);
}

#[test]
fn recorded_regexes() {
    let w = world(vec![
        ("rx", route(1).hosts(&["x.test"]).paths(&[r"~/v(?<ver>\d+)/items"])),
        ("rx2", route(2).hosts(&["y.test"]).paths(&[r"~/user/(\w+)$"])),
        ("rx3", route(3).hosts(&["z.test"]).paths(&["~/z$"])),
    ]);
    w.check(get("x.test", "/v1/items"), "rx", Some("/v1/items"));
    w.check(get("x.test", "/v12/items/3"), "rx", Some("/v12/items"));
    w.check(get("x.test", "/vx/items"), "", None);
    w.check(get("x.test", "/a/v1/items"), "", None);
    w.check(get("y.test", "/user/bob"), "rx2", Some("/user/bob"));
    w.check(get("y.test", "/user/bob/x"), "", None);
    w.check(get("z.test", "/z"), "rx3", Some("/z"));
    w.check(get("z.test", "/zz"), "", None);
}

/// One host for each route path, as in the recorded matrix of route paths and requests.
#[test]
fn recorded_prefixes() {
    let w = world(vec![
        ("slash", route(1).hosts(&["m0.test"]).paths(&["/"])),
        ("plain", route(2).hosts(&["m1.test"]).paths(&["/r"])),
        ("ended", route(3).hosts(&["m2.test"]).paths(&["/r/"])),
    ]);
    for (path, slash, plain, ended) in [
        ("/", true, false, false),
        ("/r", true, true, false),
        ("/r/", true, true, true),
        ("/rx", true, true, false),
        ("/r/x", true, true, true),
        ("/r/x/", true, true, true),
    ] {
        for (host, name, prefix, matched) in
            [("m0.test", "slash", "/", slash), ("m1.test", "plain", "/r", plain), ("m2.test", "ended", "/r/", ended)]
        {
            let (want, want_prefix) = if matched { (name, Some(prefix)) } else { ("", None) };
            w.check(get(host, path), want, want_prefix);
        }
    }
}
