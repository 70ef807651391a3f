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
