//! HOT: no allocation after warm-up, no formatting.
//! The request target sent upstream (spec/router.md section 7).
//! Owns: the joining of service path and request path, and the encoding of the result. Never: matches a route.

use crate::http::encode::push_path_encoded;

/// How service path and request path are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathHandling {
    #[default]
    V0,
    /// Only in the `traditional` router flavour.
    V1,
}

/// What an upstream target is built from.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamPath<'a> {
    /// `service.path`, or `/` if it has none.
    pub base: &'a [u8],
    /// The normalised request path; begins with `/`.
    pub path: &'a [u8],
    /// How many bytes of `path` the route's path matched; `None` for a route without paths.
    pub matched_len: Option<usize>,
    pub strip: bool,
    pub handling: PathHandling,
    /// After the `?`, as sent; `Some` of nothing keeps a bare `?`.
    pub query: Option<&'a [u8]>,
    /// A path in place of the joined one, encoded.
    pub replacement: Option<&'a [u8]>,
}

/// Appends the target of the upstream request line to `out`: joined path, percent-encoded, and the query untouched.
pub fn build_upstream_path(parts: &UpstreamPath<'_>, out: &mut Vec<u8>) {
    match parts.replacement {
        Some(path) => out.extend_from_slice(path),
        None => {
            let (base, middle, tail) = join(parts);
            push_path_encoded(out, base);
            out.extend_from_slice(middle);
            push_path_encoded(out, tail);
        }
    }
    if let Some(query) = parts.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
}

/// The three pieces whose concatenation is the upstream path: of the base, a slash or nothing, of the request.
fn join<'a>(parts: &UpstreamPath<'a>) -> (&'a [u8], &'static [u8], &'a [u8]) {
    let base = if parts.base.is_empty() { b"/" } else { parts.base };
    let rest = parts.path.strip_prefix(b"/").unwrap_or(parts.path);
    let tail = if parts.strip { postfix(parts) } else { rest };
    match (parts.handling, parts.strip) {
        (PathHandling::V1, _) => (base, b"", without_double_slash(base, tail)),
        (PathHandling::V0, true) => join_stripped(base, parts.path, tail),
        (PathHandling::V0, false) if base.ends_with(b"/") => (base, b"", tail),
        (PathHandling::V0, false) if parts.path == b"/" => (base, b"", b""),
        (PathHandling::V0, false) => (base, b"/", tail),
    }
}

fn join_stripped<'a>(base: &'a [u8], path: &[u8], tail: &'a [u8]) -> (&'a [u8], &'static [u8], &'a [u8]) {
    let request_ends_in_slash = path.ends_with(b"/");
    match (base.strip_suffix(b"/"), tail) {
        (Some(shorter), []) if base == b"/" || request_ends_in_slash => (shorter, b"/", b""),
        (Some(shorter), []) => (shorter, b"", b""),
        (Some(_), _) => (base, b"", without_double_slash(base, tail)),
        (None, []) if path.len() > 1 && request_ends_in_slash => (base, b"/", b""),
        (None, []) => (base, b"", b""),
        (None, [b'/', ..]) => (base, b"", tail),
        (None, _) => (base, b"/", tail),
    }
}

fn without_double_slash<'a>(base: &[u8], tail: &'a [u8]) -> &'a [u8] {
    match tail {
        [b'/', rest @ ..] if base.ends_with(b"/") => rest,
        _ => tail,
    }
}

/// The request path after the matched part. What a prefix cut out of a normal path may look like a dot segment again
/// (`/route` out of `/route../x`), so one at its start is dropped (spec/router.md section 7.1).
fn postfix<'a>(parts: &UpstreamPath<'a>) -> &'a [u8] {
    let from = parts.matched_len.unwrap_or(1);
    match parts.path.get(from..).unwrap_or(&[]) {
        b"." | b".." => &[],
        [b'.', b'/', rest @ ..] | [b'.', b'.', b'/', rest @ ..] => rest,
        tail => tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(base: &str, route: &str, request: &str, strip: bool, handling: PathHandling) -> String {
        let mut normal = Vec::new();
        let path = crate::http::target::normalize_path(request.as_bytes(), &mut normal).unwrap();
        let matched_len = (route != "-").then_some(route.len());
        let parts =
            UpstreamPath { base: base.as_bytes(), path, matched_len, strip, handling, query: None, replacement: None };
        let mut out = Vec::new();
        build_upstream_path(&parts, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// spec/router.md section 7.4, row by row: service path, route path (`-` for none), request; keep v0, keep v1,
    /// strip v0, strip v1.
    const TABLE: &[[&str; 7]] = &[
        ["/", "/", "/", "/", "/", "/", "/"],
        ["/", "-", "/", "/", "/", "/", "/"],
        ["/", "/", "/route", "/route", "/route", "/route", "/route"],
        ["/", "-", "/route", "/route", "/route", "/route", "/route"],
        ["/", "/", "/route/", "/route/", "/route/", "/route/", "/route/"],
        ["/", "-", "/route/", "/route/", "/route/", "/route/", "/route/"],
        ["/", "/route", "/route", "/route", "/route", "/", "/"],
        ["/", "/route", "/route/", "/route/", "/route/", "/", "/"],
        ["/", "/route", "/routereq", "/routereq", "/routereq", "/req", "/req"],
        ["/", "/route/", "/route/", "/route/", "/route/", "/", "/"],
        ["/", "/route/", "/route/req", "/route/req", "/route/req", "/req", "/req"],
        ["/srv", "/rou", "/roureq", "/srv/roureq", "/srvroureq", "/srv/req", "/srvreq"],
        ["/srv/", "/rou", "/rou", "/srv/rou", "/srv/rou", "/srv", "/srv/"],
        ["/service", "/", "/", "/service", "/service", "/service", "/service"],
        ["/service", "-", "/", "/service", "/service", "/service", "/service"],
        ["/service", "/", "/route", "/service/route", "/serviceroute", "/service/route", "/serviceroute"],
        ["/service", "-", "/route", "/service/route", "/serviceroute", "/service/route", "/serviceroute"],
        ["/service", "/", "/route/", "/service/route/", "/serviceroute/", "/service/route/", "/serviceroute/"],
        ["/service", "-", "/route/", "/service/route/", "/serviceroute/", "/service/route/", "/serviceroute/"],
        [
            "/service",
            "/",
            "/route/req",
            "/service/route/req",
            "/serviceroute/req",
            "/service/route/req",
            "/serviceroute/req",
        ],
        ["/service", "/route", "/route", "/service/route", "/serviceroute", "/service", "/service"],
        ["/service", "/route", "/route/", "/service/route/", "/serviceroute/", "/service/", "/service/"],
        ["/service", "/route", "/routereq", "/service/routereq", "/serviceroutereq", "/service/req", "/servicereq"],
        ["/service", "/route", "/route/req", "/service/route/req", "/serviceroute/req", "/service/req", "/service/req"],
        ["/service", "/route/", "/route/", "/service/route/", "/serviceroute/", "/service/", "/service"],
        ["/service", "/route/", "/route/req", "/service/route/req", "/serviceroute/req", "/service/req", "/servicereq"],
        ["/service/", "/", "/", "/service/", "/service/", "/service/", "/service/"],
        ["/service/", "-", "/", "/service/", "/service/", "/service/", "/service/"],
        ["/service/", "/", "/route", "/service/route", "/service/route", "/service/route", "/service/route"],
        ["/service/", "-", "/route", "/service/route", "/service/route", "/service/route", "/service/route"],
        ["/service/", "/", "/route/", "/service/route/", "/service/route/", "/service/route/", "/service/route/"],
        ["/service/", "-", "/route/", "/service/route/", "/service/route/", "/service/route/", "/service/route/"],
        ["/service/", "/route", "/route", "/service/route", "/service/route", "/service", "/service/"],
        ["/service/", "/route", "/route/", "/service/route/", "/service/route/", "/service/", "/service/"],
        ["/service/", "/route", "/routereq", "/service/routereq", "/service/routereq", "/service/req", "/service/req"],
        ["/service/", "/route/", "/route/", "/service/route/", "/service/route/", "/service/", "/service/"],
        [
            "/service/",
            "/route/",
            "/route/req",
            "/service/route/req",
            "/service/route/req",
            "/service/req",
            "/service/req",
        ],
        [
            "/service",
            "/route",
            "/route./req",
            "/service/route./req",
            "/serviceroute./req",
            "/service/req",
            "/servicereq",
        ],
        [
            "/service",
            "/route",
            "/route../req",
            "/service/route../req",
            "/serviceroute../req",
            "/service/req",
            "/servicereq",
        ],
        [
            "/service",
            "/route",
            "/route%2E/req",
            "/service/route./req",
            "/serviceroute./req",
            "/service/req",
            "/servicereq",
        ],
        [
            "/service",
            "/route",
            "/route%2e%2E/req",
            "/service/route../req",
            "/serviceroute../req",
            "/service/req",
            "/servicereq",
        ],
        [
            "/service/",
            "/route",
            "/route./req",
            "/service/route./req",
            "/service/route./req",
            "/service/req",
            "/service/req",
        ],
        [
            "/service/",
            "/route",
            "/route../req",
            "/service/route../req",
            "/service/route../req",
            "/service/req",
            "/service/req",
        ],
        [
            "/service/",
            "/route",
            "/route%2e/req",
            "/service/route./req",
            "/service/route./req",
            "/service/req",
            "/service/req",
        ],
        [
            "/service/",
            "/route",
            "/route%2E%2e/req",
            "/service/route../req",
            "/service/route../req",
            "/service/req",
            "/service/req",
        ],
    ];

    #[test]
    fn paths_join_as_the_table_says() {
        for row in TABLE {
            let [base, route, request, keep_v0, keep_v1, strip_v0, strip_v1] = *row;
            assert_eq!(built(base, route, request, false, PathHandling::V0), keep_v0, "keep v0 {row:?}");
            assert_eq!(built(base, route, request, false, PathHandling::V1), keep_v1, "keep v1 {row:?}");
            assert_eq!(built(base, route, request, true, PathHandling::V0), strip_v0, "strip v0 {row:?}");
            assert_eq!(built(base, route, request, true, PathHandling::V1), strip_v1, "strip v1 {row:?}");
        }
    }

    #[test]
    fn what_a_strip_leaves_is_no_dot_segment() {
        for (request, want) in
            [("/route.", "/s"), ("/route..", "/s"), ("/route.x", "/s/.x"), ("/route.../x", "/s/.../x")]
        {
            assert_eq!(built("/s", "/route", request, true, PathHandling::V0), want);
        }
    }

    #[test]
    fn the_result_is_encoded_and_the_query_is_not_touched() {
        let table: &[(&str, Option<&str>, &str)] = &[
            ("/a/%20b", None, "/%20b"),
            ("/a/%2Fb", None, "/%2Fb"),
            ("/a/%2fb", None, "/%2Fb"),
            ("/a/caf%c3%A9", None, "/caf%C3%A9"),
            ("/a/%41;c=d", None, "/A;c=d"),
            ("/a/%22%3C%5c%7C", None, "/%22%3C%5C%7C"),
            ("/a/%0d%0aX:y", None, "/%0D%0AX:y"),
            ("/a", Some(""), "/?"),
            ("/a", Some("x=%20+b&x=2{}"), "/?x=%20+b&x=2{}"),
        ];
        for (request, query, want) in table {
            let mut normal = Vec::new();
            let path = crate::http::target::normalize_path(request.as_bytes(), &mut normal).unwrap();
            let parts = UpstreamPath {
                base: b"/",
                path,
                matched_len: Some(2),
                strip: true,
                handling: PathHandling::V0,
                query: query.map(str::as_bytes),
                replacement: None,
            };
            let mut out = Vec::new();
            build_upstream_path(&parts, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), *want);
        }
    }
}
