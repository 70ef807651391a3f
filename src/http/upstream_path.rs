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
}

/// Appends the target of the upstream request line to `out`: joined path, percent-encoded, and the query untouched.
pub fn build_upstream_path(parts: &UpstreamPath<'_>, out: &mut Vec<u8>) {
    let (base, middle, tail) = join(parts);
    push_path_encoded(out, base);
    out.extend_from_slice(middle);
    push_path_encoded(out, tail);
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
