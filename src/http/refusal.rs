//! HOT: no allocation, no formatting.
//! A parsed request head, judged as a whole, and the one error of everything a client can write wrongly.
//! Owns: the order of the checks. Never: rules of its own.

use crate::http::chunked::BadChunk;
use crate::http::framing::{BadFraming, Framing, request_framing};
use crate::http::head::RequestHead;
use crate::http::host::{BadHost, Host, host_of};
use crate::http::parse::BadHead;
use crate::http::target::{BadTarget, Target, split_target};

/// What a request says, beyond the texts of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    pub target: Target<'a>,
    /// `None` only in HTTP/1.0.
    pub host: Option<Host<'a>>,
    pub framing: Framing,
}

/// Why a request is refused: answer `status` and close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    Head(BadHead),
    Target(BadTarget),
    Host(BadHost),
    Framing(BadFraming),
    Chunk(BadChunk),
}

/// Judges the head that `parse_request` completed on `src`: target, host and framing. The methods that are always
/// refused (`Method::is_refused`) and the path (`target::normalize_path`) are the caller's next questions.
///
/// # Errors
/// The first rule that is broken.
pub fn judge<'a>(head: &'a RequestHead, src: &'a [u8]) -> Result<Judged<'a>, BadRequest> {
    let target = split_target(head.target.of(src), head.method)?;
    let host = host_of(head, src, &target)?;
    let framing = request_framing(head, src)?;
    Ok(Judged { target, host, framing })
}

impl BadRequest {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Target(error) => error.status(),
            Self::Host(error) => error.status(),
            Self::Framing(error) => error.status(),
            Self::Chunk(error) => error.status(),
        }
    }

    /// The status whose default message the body carries; differs from `status` for heads above their limits.
    pub fn message_status(self) -> u16 {
        match self {
            Self::Head(error) => error.message_status(),
            other => other.status(),
        }
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Head(error) => error.reason(),
            Self::Target(error) => error.reason(),
            Self::Host(error) => error.reason(),
            Self::Framing(error) => error.reason(),
            Self::Chunk(error) => error.reason(),
        }
    }
}

impl From<BadHead> for BadRequest {
    fn from(error: BadHead) -> Self {
        Self::Head(error)
    }
}

impl From<BadTarget> for BadRequest {
    fn from(error: BadTarget) -> Self {
        Self::Target(error)
    }
}

impl From<BadHost> for BadRequest {
    fn from(error: BadHost) -> Self {
        Self::Host(error)
    }
}

impl From<BadFraming> for BadRequest {
    fn from(error: BadFraming) -> Self {
        Self::Framing(error)
    }
}

impl From<BadChunk> for BadRequest {
    fn from(error: BadChunk) -> Self {
        Self::Chunk(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::chunked::ChunkDecoder;
    use crate::http::parse::{HeadLimits, Progress, parse_request};
    use crate::http::target::normalize_path;

    /// The status that a request in one piece is refused with, 0 if it is not; the body is decoded if it is chunked.
    fn status(text: &[u8]) -> u16 {
        let mut head = RequestHead::default();
        let mut all = || {
            assert_eq!(parse_request(text, &HeadLimits::REQUEST, &mut head)?, Progress::Complete);
            let judged = judge(&head, text)?;
            if judged.target.path.starts_with(b"/") {
                normalize_path(judged.target.path, &mut Vec::new())?;
            }
            if judged.framing == Framing::Chunked {
                ChunkDecoder::new().feed(&text[head.len..])?;
            }
            Ok(())
        };
        all().map_or_else(|error: BadRequest| error.message_status(), |()| 0)
    }

    #[test]
    fn recorded_bad_requests_get_the_recorded_status() {
        let long = |bytes: usize| format!("GET /a/{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(bytes));
        let (long_uri, very_long_uri) = (long(10_000), long(40_000));
        let big = format!("GET /a HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "y".repeat(20_000));
        let table: &[(&[u8], u16)] = &[
            (b"GET /a HTTP/1.1\r\n\r\n", 400),
            (b"GET /a HTTP/3.0\r\nHost: a\r\n\r\n", 505),
            (b"\x16\x03\x01\x02\0\r\n\r\n", 400),
            (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
            (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
            (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            (b"POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET http://abs.test/a/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 0),
            (long_uri.as_bytes(), 414),
            (very_long_uri.as_bytes(), 414),
            (big.as_bytes(), 494),
            (b"get /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a/b c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET /a HTTP/1.0\r\n\r\n", 0),
            (b"FOO /a/m HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ];
        for (text, want) in table {
            assert_eq!(status(text), *want, "{}", text[..text.len().min(200)].escape_ascii());
        }
    }

    #[test]
    fn we_refuse_what_kong_lets_pass() {
        let table: &[&[u8]] = &[
            b"GET /a\r\n\r\n",
            b"GET /a HTTP/1.1\nHost: a\n\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n",
            b"GET /a/caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a/b#frag HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for text in table {
            assert_eq!(status(text), 400, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn damaged_requests_never_panic() {
        let good: &[&[u8]] = &[
            b"POST /a/../b%20?c HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nConnection: a, te\r\nTE: trailers\r\n\r\n\
              3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n",
            b"GET http://a.b:1/%41//./x HTTP/1.0\r\nContent-Length: 3, 3\r\nAccept: text/html;q=0.1,*/*\r\n\r\nabc",
        ];
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut text = rng.choice(good).unwrap().to_vec();
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..text.len());
                match rng.u8(..3) {
                    0 => text[at] = rng.u8(..),
                    1 => text.insert(at, *rng.choice(b"\r\n %,:;/.[]\0\xff").unwrap()),
                    _ => drop(text.remove(at)),
                }
            }
            let mut head = RequestHead::default();
            let Ok(Progress::Complete) = parse_request(&text, &HeadLimits::REQUEST, &mut head) else {
                continue;
            };
            let _ = judge(&head, &text).map(|judged| normalize_path(judged.target.path, &mut Vec::new()).is_ok());
            let _ = ChunkDecoder::new().decode_in_place(&mut text.clone()[head.len..]);
            let _ = crate::http::reply::ErrorFormat::for_error_page(&head.fields, &text, Default::default());
            crate::http::hop::strip_request(&mut head.fields, &text);
            assert!(head.fields.iter(&text).all(|field| crate::http::fields::is_token(field.name)));
        }
    }
}
