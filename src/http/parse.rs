//! HOT: no allocation after warm-up, no formatting.
//! Bytes -> head, "need more", or a refusal. One strict parser for both directions.
//! Owns: the syntax and the limits of heads (design: requirements 1.1 and 2). Never: passes a doubtful head on.
//! Always: lines end in CRLF; a head that arrives in many pieces costs time linear in its length.

use crate::http::fields::{Fields, Span};
use crate::http::head::{Method, RequestHead, ResponseHead, Resume, Version};
use crate::limits;
use std::mem::MaybeUninit;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Request line or status line, bytes without CRLF.
    pub line_bytes_max: usize,
    /// One field line, bytes without CRLF.
    pub field_bytes_max: usize,
    /// The whole head, bytes with the empty line.
    pub head_bytes_max: usize,
    /// Number of fields, at most `limits::FIELDS_MAX`.
    pub fields_max: usize,
}

impl HeadLimits {
    /// Defaults for requests.
    pub const REQUEST: Self = Self {
        line_bytes_max: limits::REQUEST_LINE_BYTES_MAX,
        field_bytes_max: limits::REQUEST_FIELD_BYTES_MAX,
        head_bytes_max: limits::REQUEST_HEAD_BYTES_MAX,
        fields_max: limits::REQUEST_FIELDS_MAX,
    };
    /// Defaults for responses: one line may fill the head.
    pub const RESPONSE: Self = Self {
        line_bytes_max: limits::RESPONSE_HEAD_BYTES_MAX,
        field_bytes_max: limits::RESPONSE_HEAD_BYTES_MAX,
        head_bytes_max: limits::RESPONSE_HEAD_BYTES_MAX,
        fields_max: limits::RESPONSE_FIELDS_MAX,
    };
}

/// What a parse that was not refused came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head has no end yet; call again with the same bytes and more behind them, and the same head.
    NeedMore,
    /// The head is filled; its body begins at `head.len`.
    Complete,
}

/// Why a head is refused. The connection it came on is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not `METHOD target HTTP/1.x`.
    RequestLine,
    /// A version other than 1.0 and 1.1, well written.
    Version,
    /// Not `HTTP/1.x NNN reason`.
    StatusLine,
    /// Empty name, name that is not a token, space before the colon, no colon, or a folded line.
    FieldName,
    /// A control byte in a value.
    FieldValue,
    /// A line that does not end in CRLF, or more than one empty line before the request line.
    LineEnd,
    /// The request line is longer than its limit.
    LineTooLong,
    /// A field line is longer than its limit.
    FieldTooLong,
    /// The head is longer than its limit.
    HeadTooLong,
    /// More fields than the limit.
    TooManyFields,
}

impl BadHead {
    /// The status to answer a request with. (A response refused so is always a 502.)
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::LineTooLong => 414,
            Self::TooManyFields => 431,
            _ => 400,
        }
    }

    /// The status whose message the body carries: Kong sends 494's text with a 400 (spec/proxying.md section 7.2).
    pub fn message_status(self) -> u16 {
        match self {
            Self::FieldTooLong | Self::HeadTooLong => 494,
            other => other.status(),
        }
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "malformed request line",
            Self::Version => "HTTP version not supported",
            Self::StatusLine => "malformed status line",
            Self::FieldName => "malformed header name",
            Self::FieldValue => "control byte in a header value",
            Self::LineEnd => "a line does not end in CRLF",
            Self::LineTooLong => "request line above its limit",
            Self::FieldTooLong => "header line above its limit",
            Self::HeadTooLong => "head above its limit",
            Self::TooManyFields => "more header fields than the limit",
        }
    }
}

type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; limits::FIELDS_MAX];

/// Parses the head of a request at the start of `buf`, after at most one empty line. `head` must be clear, or be the
/// one of an earlier `NeedMore` on a prefix of these bytes.
///
/// # Errors
/// `BadHead` when no bytes to come could make this a head within `limits`.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Progress, BadHead> {
    let at = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let text = &buf[at..];
    match text {
        [] => return Ok(Progress::NeedMore),
        [b'\r'] if at == 0 => return Ok(Progress::NeedMore),
        [b'\r' | b'\n', ..] => return Err(BadHead::LineEnd),
        _ if !worth_parsing(text, &mut head.resume) => return unfinished(text, limits),
        _ => {}
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; limits::FIELDS_MAX];
    let slots = &mut slots[..limits.fields_max.min(limits::FIELDS_MAX)];
    let mut parsed = httparse::Request::new(&mut []);
    let end = match parsed.parse_with_uninit_headers(text, slots) {
        Ok(httparse::Status::Complete(end)) => at + end,
        Ok(httparse::Status::Partial) => return unfinished(text, limits),
        // A line that is too long is that, whatever else is wrong with it: its end may not have come when that is seen.
        Err(httparse::Error::Version | httparse::Error::Token | httparse::Error::Status)
            if line_is_long(text, limits) =>
        {
            return Err(BadHead::LineTooLong);
        }
        Err(httparse::Error::Version) => return Err(bad_version(text, parsed.path)),
        Err(httparse::Error::Token | httparse::Error::Status) => return Err(BadHead::RequestLine),
        Err(error) => return Err(refusal(error)),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadHead::RequestLine);
    };
    let method_span = span_of(buf, method.as_bytes());
    let target_span = span_of(buf, target.as_bytes());
    // "HTTP/1.x" stands one space after the target; then nothing but the end of the line.
    let line_end = target_span.end() + 9;
    if !is_method(method.as_bytes()) {
        return Err(BadHead::RequestLine);
    }
    if line_end - at > limits.line_bytes_max {
        return Err(BadHead::LineTooLong);
    }
    check_size(end - at, limits)?;
    take_fields(buf, line_end, end, parsed.headers, limits, &mut head.fields)?;
    head.method = Method::of(method.as_bytes());
    (head.method_span, head.target, head.version, head.len) = (method_span, target_span, version_of(version), end);
    Ok(Progress::Complete)
}

/// Parses the head of a response at the start of `buf`. `head` as for `parse_request`.
///
/// # Errors
/// `BadHead` when no bytes to come could make this a head within `limits`: the upstream connection must be closed and
/// the client answered 502.
pub fn parse_response(buf: &[u8], limits: &HeadLimits, head: &mut ResponseHead) -> Result<Progress, BadHead> {
    match buf {
        [] => return Ok(Progress::NeedMore),
        [b'H', ..] => {}
        _ => return Err(BadHead::StatusLine),
    }
    if !worth_parsing(buf, &mut head.resume) {
        return unfinished(buf, limits);
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; limits::FIELDS_MAX];
    let slots = &mut slots[..limits.fields_max.min(limits::FIELDS_MAX)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let end = match config.parse_response_with_uninit_headers(&mut parsed, buf, slots) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return unfinished(buf, limits),
        Err(httparse::Error::Version | httparse::Error::Status) => return Err(BadHead::StatusLine),
        Err(error) => return Err(refusal(error)),
    };
    let (Some(version), Some(status)) = (parsed.version, parsed.code) else {
        return Err(BadHead::StatusLine);
    };
    if status < 100 {
        return Err(BadHead::StatusLine);
    }
    // "HTTP/1.x NNN" is twelve bytes; a space and a reason may follow. The line ends at the first LF.
    let Some(line_feed) = buf.iter().position(|&byte| byte == b'\n') else {
        return Err(BadHead::LineEnd);
    };
    let line_end = line_feed.saturating_sub(1);
    if line_end > limits.line_bytes_max {
        return Err(BadHead::LineTooLong);
    }
    check_size(end, limits)?;
    take_fields(buf, line_end, end, parsed.headers, limits, &mut head.fields)?;
    // httparse answers a reason that is not ASCII with an empty text that does not lie in the buffer.
    let reason = parsed.reason.unwrap_or("");
    head.reason = if reason.is_empty() { Span::EMPTY } else { span_of(buf, reason.as_bytes()) };
    (head.version, head.status, head.len) = (version_of(version), status, end);
    Ok(Progress::Complete)
}

/// Whether a full parse can tell more than the last one did: the head's end has come, or the bytes have doubled (so
/// that garbage without an end is refused too). Between, only new bytes are searched.
fn worth_parsing(text: &[u8], resume: &mut Resume) -> bool {
    let (len, tried, scanned) = (text.len(), resume.tried as usize, resume.scanned as usize);
    let restarted = len < scanned;
    let from = if restarted { 0 } else { scanned.saturating_sub(2) };
    let worth = tried == 0 || restarted || len >= 2 * tried || has_end(&text[from..]);
    resume.scanned = len as u32;
    if worth {
        resume.tried = len as u32;
    }
    worth
}

/// Whether an empty line, well or badly ended, is in the bytes.
pub(crate) fn has_end(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
        rest = &rest[at + 1..];
        if matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]) {
            return true;
        }
    }
    false
}

/// No end yet: are the limits passed already?
fn unfinished(text: &[u8], limits: &HeadLimits) -> Result<Progress, BadHead> {
    if line_is_long(text, limits) {
        return Err(BadHead::LineTooLong);
    }
    if text.len() >= limits.head_bytes_max { Err(BadHead::HeadTooLong) } else { Ok(Progress::NeedMore) }
}

/// Whether the first line is longer than its limit, as far as can be seen.
fn line_is_long(text: &[u8], limits: &HeadLimits) -> bool {
    // The CR, and one byte beyond.
    let window = limits.line_bytes_max + 2;
    text.len() >= window && !text[..window].contains(&b'\n')
}

fn check_size(bytes: usize, limits: &HeadLimits) -> Result<(), BadHead> {
    if bytes > limits.head_bytes_max { Err(BadHead::HeadTooLong) } else { Ok(()) }
}

/// Checks how every line ends, which httparse is lax about, and keeps the fields. `line_end` is where the CRLF of the
/// first line must be, `end` where the head ends.
fn take_fields(
    buf: &[u8],
    line_end: usize,
    end: usize,
    parsed: &[httparse::Header<'_>],
    limits: &HeadLimits,
    fields: &mut Fields,
) -> Result<(), BadHead> {
    fields.clear();
    let is_crlf = |at: usize| buf.get(at..at + 2) == Some(b"\r\n".as_slice());
    let last = end - 2;
    let mut next = line_end + 2;
    if !is_crlf(line_end) || !is_crlf(last) {
        return Err(BadHead::LineEnd);
    }
    for (index, field) in parsed.iter().enumerate() {
        let name = span_of(buf, field.name.as_bytes());
        let value = if field.value.is_empty() { Span::new(name.end(), 0) } else { span_of(buf, field.value) };
        if name.start as usize != next {
            return Err(BadHead::LineEnd);
        }
        next = match parsed.get(index + 1) {
            Some(after) => span_of(buf, after.name.as_bytes()).start as usize,
            None => last,
        };
        if !is_crlf(next - 2) {
            return Err(BadHead::LineEnd);
        }
        if next - 2 - name.start as usize > limits.field_bytes_max {
            return Err(BadHead::FieldTooLong);
        }
        fields.push_parsed(buf, name, value);
    }
    if next == last { Ok(()) } else { Err(BadHead::LineEnd) }
}

/// Where `part`, a piece of `buf`, lies.
#[inline]
fn span_of(buf: &[u8], part: &[u8]) -> Span {
    Span::new((part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize), part.len())
}

fn refusal(error: httparse::Error) -> BadHead {
    match error {
        httparse::Error::HeaderName => BadHead::FieldName,
        httparse::Error::HeaderValue => BadHead::FieldValue,
        httparse::Error::NewLine => BadHead::LineEnd,
        httparse::Error::TooManyHeaders => BadHead::TooManyFields,
        httparse::Error::Status => BadHead::StatusLine,
        httparse::Error::Token | httparse::Error::Version => BadHead::RequestLine,
    }
}

/// Tells a version that is not spoken (505) from text that is no version (400). Looks only at bytes that are there at
/// the earliest refusal, so that the answer does not hang on how the bytes were cut. `*` is 400 as in Kong, which
/// makes the preface of HTTP/2 a bad request.
fn bad_version(text: &[u8], target: Option<&str>) -> BadHead {
    let Some(target) = target.filter(|target| !target.starts_with('*')) else {
        return BadHead::RequestLine;
    };
    let after = span_of(text, target.as_bytes()).end() + 1;
    match text.get(after..) {
        Some([b'H', b'T', b'T', b'P', b'/', b'2'..=b'9', ..]) => BadHead::Version,
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', ..]) => BadHead::Version,
        _ => BadHead::RequestLine,
    }
}

/// Kong takes methods of upper-case letters, `_` and `-` only.
fn is_method(name: &[u8]) -> bool {
    name.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'_' | b'-'))
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::known::Known;

    fn request(text: &[u8]) -> Result<(Progress, RequestHead), BadHead> {
        let mut head = RequestHead::default();
        parse_request(text, &HeadLimits::REQUEST, &mut head).map(|progress| (progress, head))
    }

    fn response(text: &[u8]) -> Result<(Progress, ResponseHead), BadHead> {
        let mut head = ResponseHead::default();
        parse_response(text, &HeadLimits::RESPONSE, &mut head).map(|progress| (progress, head))
    }

    #[test]
    fn a_request_is_read_into_spans() {
        let text = b"\r\nPOST /a?b HTTP/1.0\r\nHost: x\r\nEmpty:\r\nBlank: \t \r\nA_b:  1 2\t\r\n\r\nbody";
        let (progress, head) = request(text).unwrap();
        assert_eq!(progress, Progress::Complete);
        assert_eq!((head.method, head.version, head.len), (Method::Post, Version::Http10, text.len() - 4));
        assert_eq!((head.method_span.of(text), head.target.of(text)), (b"POST".as_slice(), b"/a?b".as_slice()));
        let want = [["Host", "x"], ["Empty", ""], ["Blank", ""], ["A_b", "1 2"]];
        let fields: Vec<_> = head.fields.iter(text).map(|field| [field.name, field.value]).collect();
        assert_eq!(fields, want.map(|pair| pair.map(str::as_bytes)));
        assert_eq!(head.fields.get(text, Known::Host), Some(b"x".as_slice()));
    }

    #[test]
    fn a_request_without_fields_is_a_head() {
        let (progress, head) = request(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!((progress, head.len, head.fields.len()), (Progress::Complete, 18, 0));
    }

    #[test]
    fn bad_request_heads_are_refused() {
        let table: &[(&[u8], BadHead)] = &[
            (b"GET /a\r\n\r\n", BadHead::RequestLine),
            (b"GET /a HTTP/0.9\r\n\r\n", BadHead::RequestLine),
            (b"GET /a HTTX/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a http/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a HTTP/2.0\r\n\r\n", BadHead::Version),
            (b"GET /a HTTP/3.0\r\n\r\n", BadHead::Version),
            (b"GET /a HTTP/1.2\r\n\r\n", BadHead::Version),
            (b"GET /a HTTP/1.10\r\n\r\n", BadHead::LineEnd),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadHead::RequestLine),
            (b"get /a HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::RequestLine),
            (b"GET  /a HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a  HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET\t/a HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a b HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b" GET /a HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a\x01 HTTP/1.1\r\n\r\n", BadHead::RequestLine),
            (b"GET /a HTTP/1.1 \r\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\r\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\nHost: a\n\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\nHost: a\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\nHost: a\r\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\nHost: a\r\n\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\nHost:\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\nA: b\nHost: a\r\n\r\n", BadHead::LineEnd),
            (b"\n GET /a HTTP/1.1\r\n\r\n", BadHead::LineEnd),
            (b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n", BadHead::LineEnd),
            (b"\r\n\nGET /a HTTP/1.1\r\n\r\n", BadHead::LineEnd),
            (b"\rGET /a HTTP/1.1\r\n\r\n", BadHead::LineEnd),
            (b"GET /a HTTP/1.1\r\nfoo\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX Y: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX : z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX\t: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\n: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\n X: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX\0: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX(: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX\xe9: z\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX: b\r\n c\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX: b\r\n\tc\r\n\r\n", BadHead::FieldName),
            (b"GET /a HTTP/1.1\r\nX: a\0b\r\n\r\n", BadHead::FieldValue),
            (b"GET /a HTTP/1.1\r\nX: a\rb\r\n\r\n", BadHead::FieldValue),
            (b"GET /a HTTP/1.1\r\nX: a\x0bb\r\n\r\n", BadHead::FieldValue),
            (b"GET /a HTTP/1.1\r\nX: \x7f\r\n\r\n", BadHead::FieldValue),
            (b"GET /a HTTP/1.1\r\nX:\r\r\n\r\n", BadHead::FieldValue),
            (b"\x16\x03\x01\x02\0\r\n\r\n", BadHead::RequestLine),
        ];
        for (text, want) in table {
            assert_eq!(request(text).map(|(progress, _)| progress), Err(*want), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn bad_response_heads_are_refused() {
        let table: &[(&[u8], BadHead)] = &[
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", BadHead::StatusLine),
            (b"<html>", BadHead::StatusLine),
            (b"HTTP/0.9 200 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/2.0 200 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1 20 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1 2000 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1 099 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1  200 OK\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1 200 O\0K\r\n\r\n", BadHead::StatusLine),
            (b"HTTP/1.1 200 OK\n\n", BadHead::LineEnd),
            (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BadHead::LineEnd),
            (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", BadHead::LineEnd),
            (b"HTTP/1.1 200\n\r\n", BadHead::LineEnd),
            (b"HTTP/1.1 200 OK\r\nfoo\r\n\r\n", BadHead::FieldName),
            (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BadHead::FieldName),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", BadHead::FieldName),
            (b"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", BadHead::FieldValue),
        ];
        for (text, want) in table {
            assert_eq!(response(text).map(|(progress, _)| progress), Err(*want), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn responses_are_read_with_any_reason() {
        let table: &[(&[u8], u16, &[u8])] = &[
            (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, b"OK"),
            (b"HTTP/1.0 404 Not  Found!\r\n\r\n", 404, b"Not  Found!"),
            (b"HTTP/1.1 999 \r\n\r\n", 999, b""),
            (b"HTTP/1.1 204\r\nA: b\r\n\r\n", 204, b""),
            (b"HTTP/1.1 200 caf\xc3\xa9\r\nA: b\r\n\r\n", 200, b""),
        ];
        for (text, status, reason) in table {
            let (progress, head) = response(text).unwrap();
            assert_eq!((progress, head.status, head.len), (Progress::Complete, *status, text.len()));
            assert_eq!(head.reason.of(text), *reason);
        }
    }

    #[test]
    fn limits_have_their_own_answers() {
        let of = |limits: &HeadLimits, text: &str| {
            parse_request(text.as_bytes(), limits, &mut RequestHead::default()).map_err(|e| (e, e.message_status()))
        };
        let limits = HeadLimits { line_bytes_max: 30, field_bytes_max: 20, head_bytes_max: 100, fields_max: 3 };
        let line = |bytes: usize| format!("GET /{} HTTP/1.1", "u".repeat(bytes - 14));
        let with = |fields: &str| format!("{}\r\n{fields}\r\n", line(20));
        assert_eq!(of(&limits, &format!("{}\r\n\r\n", line(30))), Ok(Progress::Complete));
        assert_eq!(of(&limits, &format!("{}\r\n\r\n", line(31))), Err((BadHead::LineTooLong, 414)));
        assert_eq!(of(&limits, &line(30)), Ok(Progress::NeedMore));
        assert_eq!(of(&limits, &line(300)), Err((BadHead::LineTooLong, 414)));
        assert_eq!(of(&limits, &format!("GET {}", "/".repeat(300))), Err((BadHead::LineTooLong, 414)));
        assert_eq!(of(&limits, &format!("GET {} x\r\n\r\n", "/".repeat(300))), Err((BadHead::LineTooLong, 414)));
        assert_eq!(of(&limits, &with("A: 01234567890123456\r\n")), Ok(Progress::Complete));
        assert_eq!(of(&limits, &with("A: 012345678901234567\r\n")), Err((BadHead::FieldTooLong, 494)));
        assert_eq!(of(&limits, &with("A:1\r\nB:1\r\nC:1\r\n")), Ok(Progress::Complete));
        assert_eq!(of(&limits, &with("A:1\r\nB:1\r\nC:1\r\nD:1\r\n")), Err((BadHead::TooManyFields, 431)));
        assert_eq!(of(&limits, &format!("{}\r\nA: {}", line(20), "A".repeat(200))), Err((BadHead::HeadTooLong, 494)));
        assert_eq!(BadHead::HeadTooLong.status(), 400);
    }

    #[test]
    fn the_default_limits_take_what_they_must() {
        let get = |fields: &str, uri: usize| {
            request(format!("GET /{} HTTP/1.1\r\nHost: a\r\n{fields}\r\n", "u".repeat(uri)).as_bytes())
                .map(|(progress, _)| progress)
        };
        assert_eq!(get(&"A: b\r\n".repeat(100), 1), Ok(Progress::Complete));
        assert_eq!(get(&"A: b\r\n".repeat(200), 1), Err(BadHead::TooManyFields));
        assert_eq!(get(&format!("A: {}\r\n", "y".repeat(6000)), 1), Ok(Progress::Complete));
        assert_eq!(get(&format!("A: {}\r\n", "y".repeat(20000)), 1), Err(BadHead::FieldTooLong));
        assert_eq!(get(&format!("A: {}\r\n", "y".repeat(8000)).repeat(4), 1), Ok(Progress::Complete));
        assert_eq!(get(&format!("A: {}\r\n", "y".repeat(8000)).repeat(9), 1), Err(BadHead::HeadTooLong));
        assert_eq!(get("", 8100), Ok(Progress::Complete));
        assert_eq!(get("", 10_000), Err(BadHead::LineTooLong));
        let big = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "y".repeat(32 << 10));
        assert_eq!(response(big.as_bytes()).map(|(progress, _)| progress), Ok(Progress::Complete));
    }

    #[test]
    fn a_head_in_single_bytes_is_parsed_a_few_times_only() {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "A: 0123456789\r\n".repeat(100));
        let (mut resume, mut parses) = (Resume::default(), 0);
        for cut in 1..=text.len() {
            parses += usize::from(worth_parsing(&text.as_bytes()[..cut], &mut resume));
        }
        assert!(parses <= 13, "{parses}");
    }

    #[test]
    fn a_warm_head_keeps_its_memory() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
        let mut head = RequestHead::default();
        let mut memory = Vec::new();
        for _ in 0..3 {
            head.clear();
            assert_eq!(parse_request(text, &HeadLimits::REQUEST, &mut head), Ok(Progress::Complete));
            head.fields.set(Known::Via, b"1.1 x");
            memory.push(head.fields.memory_bytes());
        }
        assert_eq!(memory[1], memory[2]);
    }
}
