//! Tests only. The tables of spec/router.md section 14: what is refused and how it is said, and what holds for a request.

use super::check::check;
use super::check::compile;
use crate::config::RouterFlavor;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::tables::get;
use crate::router::tables::route;
use crate::router::tables::with_header;
use crate::router::tables::world_in;
use crate::router::twin::Request;

#[track_caller]
fn refused(text: &str, want: &str) {
    assert_eq!(check(text), Err(want.to_owned()), "{text}");
}

/// A mark of `column`, and what it says.
#[track_caller]
fn refused_at(text: &str, column: usize, mark: &str, reason: &str) {
    let indent = " ".repeat(column - 1);
    refused(text, &format!(" --> 1:{column}\n  |\n1 | {text}\n  | {indent}{mark}\n  |\n  = {reason}"));
}

#[test]
fn syntax_errors_name_the_place_and_what_was_expected() {
    for (text, column, expected) in [
        ("()", 2, "term"),
        ("", 1, "term"),
        ("! http.path == \"/\"", 1, "term"),
        ("http.path == \"/\" || ! http.path == \"/\"", 21, "term"),
        ("http.path", 10, "binary_operator"),
        ("http.path == ", 14, "rhs"),
        ("http.path == /a", 14, "rhs"),
        ("http.path = \"/a\"", 11, "binary_operator"),
        ("http.path == \"/a\" http.path == \"/b\"", 19, "EOI, and_op, or or_op"),
        ("(http.path == \"/a\"", 19, "and_op or or_op"),
        ("http.path == \"/a\" &&", 21, "term"),
        ("http.path == \"/a", 17, "str_esc or str_char"),
        ("http.path == r#\"/a", 19, "rawstr_char"),
    ] {
        refused_at(text, column, "^---", &format!("expected {expected}"));
    }
    refused(
        "http.path == \"/a\" &&\n\thttp.path",
        " --> 2:11\n  |\n2 | \thttp.path\n  | \t         ^---\n  |\n  = expected binary_operator",
    );
}

#[test]
fn literals_that_say_nothing_are_marked() {
    refused_at("upper(http.path) == \"/\"", 1, "^--------------^", "unknown transformation function: upper");
    refused_at("http.path ~ 1", 13, "^", "regex operator can only be used with String operands");
    let too_large = "number too large to fit in target type";
    refused_at("net.src.port == 99999999999999999999", 17, "^------------------^", too_large);
    refused_at("net.src.ip in 10.1.0.0/8", 15, "^--------^", "host part of address was not zero");
    refused_at("net.src.ip in 10.0.0.0/33", 15, "^---------^", "not a block of addresses");
    refused_at("net.src.ip == 1.2.3.999", 15, "^-------^", "invalid IP address syntax");
    let message = check(r#"http.path ~ "(""#).unwrap_err();
    assert!(message.contains("\n  = regex parse error:\n") && message.ends_with("unclosed group"), "{message}");
    assert!(check(r#"http.path ~ "(?=a)""#).unwrap_err().contains("look-around"));
}

#[test]
fn types_must_fit() {
    let mismatch = "Type mismatch between the LHS and RHS values of predicate";
    for (text, want) in [
        (r#"http.pat == "/""#, "Unknown LHS field"),
        (r#"http.headers. == "/""#, "Unknown LHS field"),
        (r#"http.path.segments.x == "a""#, "illformed http.path.segments.* field"),
        (r#"http.path.segments.1_1 == "a""#, "illformed http.path.segments.* field"),
        (r#"http.path.segments.2_1 == "a""#, "illformed http.path.segments.* field"),
        (r#"http.path.segments.01 == "a""#, "illformed http.path.segments.* field"),
        ("http.path == 1", mismatch),
        ("http.path ^= 1", mismatch),
        ("http.path > 1", mismatch),
        ("http.path contains 1", mismatch),
        (r#"net.src.port == "1""#, mismatch),
        ("net.src.ip == 10.0.0.0/8", mismatch),
        (r#"net.src.ip ~ "1""#, "Regex operators only supports string operands"),
        ("net.src.port ^= 1", "Regex/Prefix/Postfix operators only supports string operands"),
        ("net.src.port contains 1", "Contains operator only supports string operands"),
        (r#"http.path < "1""#, "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands"),
        ("net.src.ip in 10.0.0.1", "In/NotIn operators only supports IP in CIDR"),
        (r#"http.path in "a""#, "In/NotIn operators only supports IP in CIDR"),
        ("lower(net.src.port) == 1", "lower-case transformation function only supported with String type fields"),
    ] {
        refused(text, want);
    }
}

#[test]
fn texts_of_any_size_are_judged() {
    let nested = |depth: usize| format!("{}http.path == \"/\"{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(check(&nested(64)), Ok(()));
    refused(&nested(65), "parentheses nest deeper than 64");
    refused(&nested(20_000), "parentheses nest deeper than 64");
    refused(&nested(40_000), "length must be at most 65536");
    let calls = |depth: usize| format!("{}http.path{} == \"/\"", "any(".repeat(depth), ")".repeat(depth));
    assert_eq!(check(&calls(64)), Ok(()));
    refused(&calls(65), "parentheses nest deeper than 64");
    let long = vec!["http.path == \"/a\""; 3000].join(" && ");
    assert_eq!(check(&long), Ok(()));
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let pieces = [
            "http.path",
            "==",
            "~",
            "\"a\"",
            "\"",
            "r#\"",
            "\"#",
            "(",
            ")",
            "!",
            "&&",
            "||",
            "any(",
            " ",
            "é",
            "0x",
            "10.",
            "::",
            "-",
            "\n",
        ];
        let text: String = (0..rng.usize(..12)).map(|_| pieces[rng.usize(..pieces.len())]).collect();
        let _ = check(&text);
    }
}

/// Does a route with this expression take the request, and how much of the path does it match?
#[track_caller]
fn asked(expression: &str, request: &Request) -> (bool, Option<usize>) {
    let rules =
        Rules { expression: Some(expression.to_owned()), protocols: vec!["http".into(), "https".into()], ..route(1) };
    let compiled =
        crate::router::compile::compile(&rules, RouterFlavor::Expressions).unwrap_or_else(|e| panic!("{e:?}"));
    let mut router = Router::new();
    router.insert(RouteKey(0), compiled.into());
    let hit = request.find_in(&router);
    (hit.is_some(), hit.and_then(|hit| hit.matched_len))
}

#[test]
fn operators_table() {
    let request = Request { arguments: "a=1&b&c=x%20y&d=1&d=2", ..get("Example.test:8000", "/a/b/c//") };
    let request = with_header(with_header(request, "X-One", "Abc"), "x_two", "1");
    let request = with_header(request, "X-Two", "2");
    for (expression, want) in [
        (r#"http.path == "/a/b/c//""#, true),
        (r#"http.path == "/a/b/c""#, false),
        (r#"http.path != "/a""#, true),
        (r#"http.path ^= "/a""#, true),
        (r#"http.path =^ "//""#, true),
        (r#"http.path contains "b/c""#, true),
        (r#"http.path ~ "b""#, true),
        (r#"http.path ~ "^b""#, false),
        (r##"http.path ~ r#"^/\w/\w"#"##, true),
        (r#"http.method == "GET""#, true),
        (r#"net.protocol == "http""#, true),
        (r#"http.host == "Example.test""#, true),
        (r#"http.host == "example.test""#, false),
        (r#"lower(http.host) == "example.test""#, true),
        (r#"tls.sni != "a""#, false),
        (r#"http.headers.x_one == "Abc""#, true),
        (r#"http.headers.x_one == "abc""#, false),
        (r#"lower(http.headers.x_one) == "abc""#, true),
        (r#"http.headers.x_two == "1""#, false),
        (r#"any(http.headers.x_two) == "1""#, true),
        (r#"any(lower(http.headers.x_two)) == "2""#, true),
        (r#"http.headers.x_two ~ "[12]""#, true),
        (r#"http.headers.x_none != "a""#, false),
        (r#"any(http.headers.x_none) != "a""#, false),
        (r#"http.queries.a == "1""#, true),
        (r#"http.queries.b == """#, true),
        (r#"http.queries.c == "x y""#, true),
        (r#"http.queries.d == "1""#, false),
        (r#"any(http.queries.d) == "2""#, true),
        (r#"http.queries.z == """#, false),
        ("http.path.segments.len == 3", true),
        (r#"http.path.segments.0 == "a""#, true),
        (r#"http.path.segments.1_2 == "b/c""#, true),
        (r#"http.path.segments.1_3 != "x""#, false),
        (r#"http.path.segments.3 != "x""#, false),
        ("net.dst.port == 8000", true),
        ("net.port == 0x1F40", true),
        ("net.port == 017500", true),
        ("net.src.port >= 40000 && net.src.port < 40001 && net.src.port > -1", true),
        ("net.src.ip == 127.0.0.1", true),
        ("net.src.ip in 127.0.0.0/8", true),
        ("net.src.ip not in 127.0.0.0/8", false),
        ("net.src.ip in ::/0", false),
        ("net.src.ip != ::1", true),
        (r#"!(http.path == "/a")"#, true),
        (r#"! (http.path ^= "/a")"#, false),
        // The reverse of most languages: read as a && (b || c), respectively (a || b) && c.
        (r#"http.method == "PUT" && http.method == "GET" || http.method == "GET""#, false),
        (r#"http.method == "GET" || http.method == "GET" && http.method == "PUT""#, false),
        (r#"(http.method == "PUT" && http.method == "GET") || http.method == "GET""#, true),
        ("\thttp.method\n==\r\"GET\" ", true),
        (r#"http.method=="GET"&&http.method!="PUT""#, true),
    ] {
        assert_eq!(asked(expression, &request).0, want, "{expression}");
    }
}

#[test]
fn escapes_and_raw_texts() {
    let request = with_header(get("h", "/"), "x-v", "a\"\\\n\r\tb");
    assert!(asked(r#"http.headers.x_v == "a\"\\\n\r\tb""#, &request).0);
    let request = with_header(get("h", "/"), "x-v", r#"a\n"b"#);
    assert!(asked(r##"http.headers.x_v == r#"a\n"b"#"##, &request).0);
    assert!(asked(r#"http.headers.x_v != "ä""#, &request).0);
}

/// What `strip_path` takes off follows from the last predicate on the path that held.
#[test]
fn matched_length_is_that_of_the_literal_or_of_the_match() {
    let request = get("h", "/foo/bar");
    for (expression, want) in [
        (r#"http.path ^= "/foo""#, Some(4)),
        (r#"http.path == "/foo/bar""#, Some(8)),
        (r#"http.path =^ "bar""#, Some(3)),
        (r#"http.path ~ "o+/""#, Some(3)),
        (r#"http.path ~ "^/f""#, Some(2)),
        (r#"http.path contains "foo""#, None),
        (r#"http.path != "x""#, None),
        (r#"http.method == "GET""#, None),
        (r#"http.path ^= "/foo" && http.path ^= "/""#, Some(1)),
        (r#"http.path ^= "/x" || http.path ^= "/f""#, Some(2)),
        (r#"http.path ^= "/f" || http.path ^= "/foo""#, Some(2)),
        (r#"(http.path ^= "/foo" && http.method == "PUT") || http.method == "GET""#, Some(4)),
        (r#"lower(http.path) ^= "/fo""#, Some(3)),
        (r#"http.path.segments.0 == "foo""#, None),
    ] {
        assert_eq!(asked(expression, &request), (true, want), "{expression}");
    }
}

fn expression(id: u128, text: &str, priority: u64) -> Rules {
    let protocols = vec!["http".to_owned(), "https".to_owned()];
    Rules { expression: Some(text.to_owned()), priority, protocols, ..route(id) }
}

#[test]
fn expressions_outrank_attributes_then_priority_then_id_decide() {
    let attributes =
        Rules { protocols: vec!["http".into()], ..route(9).hosts(&["h"]).paths(&["/a/b"]).methods(&["GET"]) };
    let w = world_in(
        RouterFlavor::Expressions,
        vec![
            ("attributes", attributes),
            ("weak", expression(1, r#"http.path ^= "/a""#, 0)),
            ("strong", expression(2, r#"http.path ^= "/a/b""#, 5)),
            ("first", expression(3, r#"http.path ^= "/t""#, 1)),
            ("second", expression(4, r#"http.path ^= "/t""#, 1)),
        ],
    );
    w.check(get("h", "/a/b"), "strong", Some("/a/b"));
    w.check(get("h", "/a/c"), "weak", Some("/a"));
    w.check(get("h", "/t"), "second", Some("/t"));
    w.check(get("h", "/z"), "", None);
}

#[test]
fn protocols_take_part_in_matching_in_this_flavour_only() {
    let with = |id, protocols: &[&str]| Rules {
        protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        ..route(id).paths(&[["/http", "/https", "/both", "/grpcs"][id as usize - 1]])
    };
    let w = world_in(
        RouterFlavor::Expressions,
        vec![
            ("http", with(1, &["http"])),
            ("https", with(2, &["https"])),
            ("both", with(3, &["http", "https"])),
            ("grpcs", with(4, &["grpcs"])),
        ],
    );
    let tls = |path| Request { https: true, ..get("h", path) };
    w.check(get("h", "/http"), "http", Some("/http"));
    w.check(tls("/http"), "", None);
    // A plain request must reach the redirect to https.
    w.check(get("h", "/https"), "https", Some("/https"));
    w.check(tls("/https"), "https", Some("/https"));
    w.check(get("h", "/both"), "both", Some("/both"));
    w.check(tls("/both"), "both", Some("/both"));
    w.check(get("h", "/grpcs"), "", None);
    w.check(tls("/grpcs"), "grpcs", Some("/grpcs"));
}

#[test]
fn expressions_are_filed_by_what_they_demand() {
    let guards = |text: &str| {
        let show = |guard: &super::guards::Guard| {
            let host = guard.host.as_ref().map_or("*".to_owned(), |host| format!("{host:?}"));
            format!("{} {}", host.split('(').next().unwrap_or_default(), String::from_utf8_lossy(&guard.path))
        };
        compile(text).unwrap().guards.iter().map(show).collect::<Vec<_>>()
    };
    assert_eq!(guards(r#"http.path ^= "/a" && http.host == "h""#), ["Exact /a"]);
    assert_eq!(guards(r#"http.path ~ "^/a/(b|c)""#), ["* /a/"]);
    assert_eq!(guards(r#"http.path ~ "/a""#), ["* "]);
    assert_eq!(guards(r#"http.path == "/a" || http.path == "/b" && http.host =^ ".x""#), ["Suffix /a", "Suffix /b"]);
    assert_eq!(guards(r#"http.path.segments.0 == "v1" && http.path ^= "/v1/x""#), ["* /v1/x"]);
    assert_eq!(guards(r#"!(http.path == "/a")"#), ["* "]);
    assert_eq!(guards(r#"lower(http.path) == "/a""#), ["* "]);
    assert_eq!(guards(r#"http.host == "a" && http.host == "b""#), [""; 0], "nothing satisfies it");
    assert_eq!(guards(r#"http.path == "/a" && http.path ^= "/b""#), [""; 0]);
    let many: Vec<String> = (0..20).map(|n| format!("http.path == \"/{n}\"")).collect();
    let hosts: Vec<String> = (0..20).map(|n| format!("http.host == \"h{n}\"")).collect();
    assert_eq!(guards(&format!("({}) && ({})", many.join("||"), hosts.join("||"))).len(), 20, "one side is given up");
}

#[test]
fn only_this_flavour_serves_expressions() {
    let rules = expression(1, r#"http.path == "/""#, 0);
    for flavor in [RouterFlavor::Traditional, RouterFlavor::TraditionalCompatible] {
        let errors = crate::router::compile::compile(&rules, flavor).unwrap_err();
        assert_eq!(errors[0].field, "expression");
    }
    let bad = expression(1, "http.path", 0);
    let errors = crate::router::compile::compile(&bad, RouterFlavor::Expressions).unwrap_err();
    assert!(
        errors[0].field.is_empty() && errors[0].message.starts_with("Router Expression failed validation:  --> 1:10\n")
    );
}

#[test]
fn groups_of_regexes_on_the_path_are_caught() {
    let path = "/users/42/posts";
    for (text, want) in [
        (r##"http.path ~ r#"^/users/([0-9]+)"#"##, Some("42")),
        (r##"http.path ~ r#"/([a-z]+)$"#"##, Some("posts")),
        (r##"http.path ~ r#"/(users)/"# && http.path ~ r#"/(posts)"#"##, Some("posts")),
        (r##"http.path ~ r#"/(none)/"# || http.path ~ r#"/(users)/"# || http.path ~ r#"/(posts)"#"##, Some("users")),
        (r##"http.path ^= "/users" && (http.host == "a" || http.path ~ r#"/(posts)"#)"##, Some("posts")),
        (r##"http.path ~ r#"^/users"#"##, None),
        (r##"!(http.path ~ r#"/(none)"#)"##, None),
        (r##"lower(http.path) ~ r#"/(users)"#"##, None),
        (r##"http.host ~ r#"(.*)"#"##, None),
    ] {
        let program = compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let groups = program.captures(path.as_bytes());
        let got = groups.and_then(|groups| groups.get_group(1)).map(|span| &path[span.range()]);
        assert_eq!(got, want, "{text}");
    }
}
