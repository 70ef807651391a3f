//! HOT: no allocation, no formatting.
//! How many body bytes follow a head, and whether the connection lives on.
//! Owns: every rule about Content-Length and Transfer-Encoding (requirements 1.2, 1.12; RFC 9112 section 6).
//! Never: is there a second reader of these fields. Always: what two recipients could read differently is refused.

use crate::http::fields::{Fields, tokens, trim_ows};
use crate::http::head::{Method, RequestHead, ResponseHead, Version};
use crate::http::known::Known;
use crate::limits;

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no length was said.
    Empty,
    /// Exactly so many bytes, said by Content-Length; may be 0.
    Length(u64),
    Chunked,
}

/// The body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body whatever the fields say: an answer to HEAD, 1xx, 204, 304.
    Empty,
    /// Exactly so many bytes; may be 0.
    Length(u64),
    Chunked,
    /// All bytes until the upstream closes; the connection cannot be used again.
    UntilClose,
}

/// Why the length of a body cannot be known. After it the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFraming {
    /// Content-Length beside Transfer-Encoding.
    LengthAndEncoding,
    /// Two different Content-Length values.
    LengthsDiffer,
    /// Content-Length is not a decimal number.
    LengthSyntax,
    /// Content-Length is above `limits::BODY_LENGTH_MAX`.
    LengthTooLarge,
    /// Transfer-Encoding in HTTP/1.0.
    EncodingInHttp10,
    /// Transfer-Encoding is not exactly one `chunked`.
    EncodingSyntax,
    /// A transfer coding other than chunked.
    EncodingUnknown,
}

impl BadFraming {
    /// The status to answer a request with. (A response refused so is always a 502.)
    pub fn status(self) -> u16 {
        if self == Self::EncodingUnknown { 501 } else { 400 }
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::LengthAndEncoding => "Content-Length beside Transfer-Encoding",
            Self::LengthsDiffer => "different Content-Length values",
            Self::LengthSyntax => "Content-Length is not a number",
            Self::LengthTooLarge => "Content-Length is too large",
            Self::EncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::EncodingSyntax => "Transfer-Encoding is not exactly one chunked",
            Self::EncodingUnknown => "unknown transfer coding",
        }
    }
}

/// How the body of a request is delimited.
///
/// # Errors
/// `BadFraming`: answer its status and close.
pub fn request_framing(head: &RequestHead, src: &[u8]) -> Result<Framing, BadFraming> {
    Ok(match declared(&head.fields, src, head.version)? {
        Declared::Nothing => Framing::Empty,
        Declared::Length(bytes) => Framing::Length(bytes),
        Declared::Chunked => Framing::Chunked,
    })
}

/// How the body of a response is delimited. The fields are checked even where there is no body, so that a broken
/// upstream is not believed elsewhere.
///
/// # Errors
/// `BadFraming`: answer 502 and close the upstream connection.
pub fn response_framing(head: &ResponseHead, src: &[u8], to_head_request: bool) -> Result<ResponseFraming, BadFraming> {
    let declared = declared(&head.fields, src, head.version)?;
    if to_head_request || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(ResponseFraming::Empty);
    }
    Ok(match declared {
        Declared::Nothing => ResponseFraming::UntilClose,
        Declared::Length(bytes) => ResponseFraming::Length(bytes),
        Declared::Chunked => ResponseFraming::Chunked,
    })
}

enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

fn declared(fields: &Fields, src: &[u8], version: Version) -> Result<Declared, BadFraming> {
    let length = content_length(fields, src)?;
    if !fields.has(Known::TransferEncoding) {
        return Ok(length.map_or(Declared::Nothing, Declared::Length));
    }
    if fields.has(Known::ContentLength) {
        return Err(BadFraming::LengthAndEncoding);
    }
    if version == Version::Http10 {
        return Err(BadFraming::EncodingInHttp10);
    }
    let mut lines = fields.values(src, Known::TransferEncoding);
    match (lines.next(), lines.next()) {
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(Declared::Chunked),
        _ => Err(bad_encoding(fields, src)),
    }
}

/// Says why: a coding we do not know, or chunked written in a way that another reader may take differently.
fn bad_encoding(fields: &Fields, src: &[u8]) -> BadFraming {
    let is_coding = |token: &[u8]| crate::http::fields::is_token(token);
    let all = || fields.values(src, Known::TransferEncoding).flat_map(tokens);
    let unknown = all().all(is_coding) && all().any(|token| !token.eq_ignore_ascii_case(b"chunked"));
    if unknown { BadFraming::EncodingUnknown } else { BadFraming::EncodingSyntax }
}

/// The one length that all Content-Length lines and list elements agree on.
fn content_length(fields: &Fields, src: &[u8]) -> Result<Option<u64>, BadFraming> {
    let mut agreed = None;
    for line in fields.values(src, Known::ContentLength) {
        for element in line.split(|&byte| byte == b',') {
            let bytes = decimal(trim_ows(element))?;
            if agreed.is_some_and(|known| known != bytes) {
                return Err(BadFraming::LengthsDiffer);
            }
            agreed = Some(bytes);
        }
    }
    Ok(agreed)
}

fn decimal(digits: &[u8]) -> Result<u64, BadFraming> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadFraming::LengthSyntax);
    }
    digits
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|&sum| sum <= limits::BODY_LENGTH_MAX)
        .ok_or(BadFraming::LengthTooLarge)
}

/// Whether the sender of this head wants the connection kept after the message (RFC 9112 section 9.3). A body that
/// ends with the connection is the caller's to add.
pub fn keep_alive(version: Version, fields: &Fields, src: &[u8]) -> bool {
    if !fields.has(Known::Connection) {
        return version == Version::Http11;
    }
    !connection_has(fields, src, b"close") && (version == Version::Http11 || connection_has(fields, src, b"keep-alive"))
}

/// Whether the Connection fields list `token`, in any case.
pub fn connection_has(fields: &Fields, src: &[u8], token: &[u8]) -> bool {
    fields.values(src, Known::Connection).flat_map(tokens).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// Whether the client waits for a `100 Continue` before it sends the body (RFC 9110 section 10.1.1). Other
/// expectations are ignored, as in Kong.
pub fn expects_continue(head: &RequestHead, src: &[u8]) -> bool {
    head.version == Version::Http11
        && head.fields.get(src, Known::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Whether this is a WebSocket handshake: GET of HTTP/1.1 with `Connection: upgrade` and `Upgrade: websocket`, and no
/// body (RFC 6455 section 4.1). Every other upgrade is ignored and its field removed.
pub fn is_websocket_upgrade(head: &RequestHead, src: &[u8]) -> bool {
    head.method == Method::Get
        && head.version == Version::Http11
        && head.fields.get(src, Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && connection_has(&head.fields, src, b"upgrade")
        && matches!(request_framing(head, src), Ok(Framing::Empty | Framing::Length(0)))
}
