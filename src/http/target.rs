//! HOT: no allocation after warm-up, no formatting.
//! What a request target says, and its one normal form, which is both matched and forwarded (requirements 1.6;
//! spec/router.md section 2.1).
//! Owns: the four forms, path and query, percent triplets, dot segments, repeated slashes. Never: touches the query.
//! Always: a normal path begins with `/` and holds no dot segment, no repeated slash, no NUL.

use crate::http::head::Method;

/// The form a target was written in (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `*`, of OPTIONS only. Kong answers it with 400.
    Asterisk,
    /// Whatever follows CONNECT, which is refused anyway.
    Authority,
}

/// A target cut into its parts, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub form: Form,
    /// Of the absolute form, not yet checked (`host::host_of` does).
    pub authority: Option<&'a [u8]>,
    /// Up to the first `?`, not normalised; `/` when an absolute target has none.
    pub path: &'a [u8],
    /// After the first `?`; `Some` of nothing for a bare `?`.
    pub query: Option<&'a [u8]>,
}

/// Why a target is refused. All are 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// None of the four forms, or a form that does not belong to the method.
    Form,
    /// `#`, a backslash, a control byte, a space or a byte above 0x7f.
    Byte,
    /// `%` without two hexadecimal digits, or `%00`.
    Triplet,
    /// Dot segments that climb above the root.
    AboveRoot,
}

impl BadTarget {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        400
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Form => "malformed request target",
            Self::Byte => "byte not allowed in a request target",
            Self::Triplet => "malformed percent triplet in the path",
            Self::AboveRoot => "path climbs above the root",
        }
    }
}

/// Cuts a target into its parts.
///
/// # Errors
/// `BadTarget::Form` and `BadTarget::Byte`.
pub fn split_target(raw: &[u8], method: Method) -> Result<Target<'_>, BadTarget> {
    if !raw.iter().all(|&byte| is_target_byte(byte)) {
        return Err(BadTarget::Byte);
    }
    match raw {
        [b'/', ..] if method != Method::Connect => Ok(with_path(Form::Origin, None, raw)),
        b"*" if method == Method::Options => Ok(with_path(Form::Asterisk, None, raw)),
        _ if method == Method::Connect => Ok(with_path(Form::Authority, None, raw)),
        _ => split_absolute(raw),
    }
}

fn split_absolute(raw: &[u8]) -> Result<Target<'_>, BadTarget> {
    let scheme_len = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| raw.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(BadTarget::Form)?
        .len();
    let rest = &raw[scheme_len..];
    let authority_len = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_len);
    if authority.is_empty() {
        return Err(BadTarget::Form);
    }
    Ok(match tail {
        [] => Target { form: Form::Absolute, authority: Some(authority), path: b"/", query: None },
        [b'?', query @ ..] => {
            Target { form: Form::Absolute, authority: Some(authority), path: b"/", query: Some(query) }
        }
        _ => with_path(Form::Absolute, Some(authority), tail),
    })
}

fn with_path<'a>(form: Form, authority: Option<&'a [u8]>, tail: &'a [u8]) -> Target<'a> {
    let (path, query) = match tail.iter().position(|&byte| byte == b'?') {
        Some(at) => (&tail[..at], Some(&tail[at + 1..])),
        None => (tail, None),
    };
    Target { form, authority, path, query }
}

/// Visible ASCII but `#` and backslash, which recipients disagree about.
#[inline]
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#' && byte != b'\\'
}

/// The normal form of a path: triplets of unreserved bytes decoded, reserved ones upper-cased, repeated slashes
/// merged, dot segments removed. A path that is normal already is given back as it is; else the form is written into
/// `out`, which is cleared first.
///
/// # Errors
/// `BadTarget` for a path that does not begin with `/`, a bad triplet, `%00`, and climbing above the root (Kong
/// refuses these too).
pub fn normalize_path<'a>(raw: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], BadTarget> {
    if raw.first() != Some(&b'/') {
        return Err(BadTarget::Form);
    }
    if is_normal(raw) {
        return Ok(raw);
    }
    out.clear();
    out.push(b'/');
    let mut segment = 1;
    let mut rest = &raw[1..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'/' => {
                segment = close_segment(out, segment)?;
                // An empty segment is a repeated slash.
                if out.len() > segment {
                    out.push(b'/');
                    segment = out.len();
                }
            }
            b'%' => rest = push_triplet(out, tail)?,
            _ => out.push(*byte),
        }
    }
    close_segment(out, segment)?;
    Ok(out)
}

/// Sound but not complete: a path with a segment that begins with a dot takes the slow way.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Acts on the segment that ends at the end of `out`; gives where the open segment begins then.
fn close_segment(out: &mut Vec<u8>, segment: usize) -> Result<usize, BadTarget> {
    match &out[segment..] {
        b"." => {
            out.truncate(segment);
            Ok(segment)
        }
        b".." => {
            if segment == 1 {
                return Err(BadTarget::AboveRoot);
            }
            let parent = out[..segment - 1].iter().rposition(|&byte| byte == b'/').map_or(1, |at| at + 1);
            out.truncate(parent);
            Ok(parent)
        }
        _ => Ok(segment),
    }
}

/// Decodes the two digits after a `%` into `out`; gives what follows them.
fn push_triplet<'a>(out: &mut Vec<u8>, after_percent: &'a [u8]) -> Result<&'a [u8], BadTarget> {
    let [high, low, rest @ ..] = after_percent else {
        return Err(BadTarget::Triplet);
    };
    let (Some(high_value), Some(low_value)) = (hex_value(*high), hex_value(*low)) else {
        return Err(BadTarget::Triplet);
    };
    match high_value << 4 | low_value {
        0 => return Err(BadTarget::Triplet),
        byte if is_reserved(byte) => {
            out.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
        }
        byte => out.push(byte),
    }
    Ok(rest)
}

pub(super) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Bytes whose triplet means something else than the byte (spec/router.md section 2.1).
fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'*'
            | b'\''
            | b'('
            | b')'
            | b';'
            | b':'
            | b'@'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b'/'
            | b'?'
            | b'%'
            | b'#'
            | b'['
            | b']'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &[u8]) -> Result<Vec<u8>, BadTarget> {
        normalize_path(raw, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn targets_are_cut_into_parts() {
        let table = [
            ("/", Method::Get, Form::Origin, [None, Some("/"), None]),
            ("/a?b", Method::Get, Form::Origin, [None, Some("/a"), Some("b")]),
            ("/a?", Method::Get, Form::Origin, [None, Some("/a"), Some("")]),
            ("/?a?b", Method::Get, Form::Origin, [None, Some("/"), Some("a?b")]),
            ("//a", Method::Get, Form::Origin, [None, Some("//a"), None]),
            ("/a?q={}|\"<>", Method::Get, Form::Origin, [None, Some("/a"), Some("q={}|\"<>")]),
            ("/a?u=http://x/y?z", Method::Get, Form::Origin, [None, Some("/a"), Some("u=http://x/y?z")]),
            ("http://h:1/p?q", Method::Get, Form::Absolute, [Some("h:1"), Some("/p"), Some("q")]),
            ("HTTPS://h", Method::Get, Form::Absolute, [Some("h"), Some("/"), None]),
            ("http://h?q", Method::Get, Form::Absolute, [Some("h"), Some("/"), Some("q")]),
            ("*", Method::Options, Form::Asterisk, [None, Some("*"), None]),
            ("h:443", Method::Connect, Form::Authority, [None, Some("h:443"), None]),
            ("/a/m", Method::Connect, Form::Authority, [None, Some("/a/m"), None]),
        ];
        for (raw, method, form, parts) in table {
            let [authority, path, query] = parts.map(|part| part.map(str::as_bytes));
            let want = Target { form, authority, path: path.unwrap(), query };
            assert_eq!(split_target(raw.as_bytes(), method), Ok(want), "{raw}");
        }
    }

    #[test]
    fn bad_targets_are_refused() {
        let table: &[(&[u8], BadTarget)] = &[
            (b"", BadTarget::Form),
            (b"a", BadTarget::Form),
            (b"*", BadTarget::Form),
            (b"?a", BadTarget::Form),
            (b"http://", BadTarget::Form),
            (b"http:///a", BadTarget::Form),
            (b"http:/a", BadTarget::Form),
            (b"ftp://a/b", BadTarget::Form),
            (b"/a#b", BadTarget::Byte),
            (b"/a?b#c", BadTarget::Byte),
            (b"/a\\b", BadTarget::Byte),
            (b"/a\x01", BadTarget::Byte),
            (b"/a\x7f", BadTarget::Byte),
            (b"/a b", BadTarget::Byte),
            (b"/caf\xc3\xa9", BadTarget::Byte),
            (b"/a?caf\xc3\xa9", BadTarget::Byte),
        ];
        for (raw, want) in table {
            assert_eq!(split_target(raw, Method::Get), Err(*want), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn paths_have_one_normal_form() {
        let table: &[(&[u8], &[u8])] = &[
            (b"/", b"/"),
            (b"//", b"/"),
            (b"/.", b"/"),
            (b"/./", b"/"),
            (b"/a", b"/a"),
            (b"/f%6f%6f", b"/foo"),
            (b"/a%2fb", b"/a%2Fb"),
            (b"/%20%21", b"/ %21"),
            (b"//a///b/", b"/a/b/"),
            (b"/a/./b/../c", b"/a/c"),
            (b"/a/b/..", b"/a/"),
            (b"/a/..", b"/"),
            (b"/a/../..a/.../.b", b"/..a/.../.b"),
            (b"/a//../b", b"/b"),
            (b"/a/%2E%2e/b", b"/b"),
            (b"/a/%252e/b", b"/a/%252e/b"),
            (b"/a/..%2fb", b"/a/..%2Fb"),
            (b"/a/%5c..%5C/b", b"/a/\\..\\/b"),
            (b"/.well-known/x", b"/.well-known/x"),
            (b"/%C3%A4/a/%2e./a%2E//a/%2e/./a/../a/%2e%2E/%5f%99%af%2f%2F", b"/\xc3\xa4/a./a/_\x99\xaf%2F%2F"),
        ];
        for (raw, want) in table {
            assert_eq!(normal(raw).as_deref(), Ok(*want), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn paths_without_a_normal_form_are_refused() {
        let table: &[(&[u8], BadTarget)] = &[
            (b"", BadTarget::Form),
            (b"a", BadTarget::Form),
            (b"*", BadTarget::Form),
            (b"/a/%zz", BadTarget::Triplet),
            (b"/a/%4", BadTarget::Triplet),
            (b"/a/%", BadTarget::Triplet),
            (b"/a/%00", BadTarget::Triplet),
            (b"/..", BadTarget::AboveRoot),
            (b"/../a", BadTarget::AboveRoot),
            (b"/a/../../b", BadTarget::AboveRoot),
            (b"/a/..//..", BadTarget::AboveRoot),
            (b"/%2e%2E/a", BadTarget::AboveRoot),
        ];
        for (raw, want) in table {
            assert_eq!(normal(raw), Err(*want), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        let raw = b"/a.b/c-d/e";
        let mut out = Vec::new();
        assert_eq!(normalize_path(raw, &mut out).unwrap().as_ptr(), raw.as_ptr());
        assert_eq!(out.capacity(), 0);
    }
}
