//! HOT: no allocation, no formatting.
//! How many body bytes follow a head, and whether the connection lives on.
//! Owns: every rule about Content-Length and Transfer-Encoding (requirements 1.2, 1.12; RFC 9112 section 6).
//! Never: is there a second reader of these fields. Always: what two recipients could read differently is refused.

use crate::http::fields::{Fields, tokens, trim_ows};
use crate::http::head::{RequestHead, ResponseHead, Version};
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

/// The one length that all Content-Length lines and list elements agree on; `None` without any.
///
/// # Errors
/// They are no number, too large a one, or not the same.
pub fn content_length(fields: &Fields, src: &[u8]) -> Result<Option<u64>, BadFraming> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{HeadLimits, parse_request, parse_response};

    fn request(line: &str, fields: &str) -> (RequestHead, Vec<u8>) {
        let text = format!("{line}\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        parse_request(&text, &HeadLimits::REQUEST, &mut head).unwrap();
        (head, text)
    }

    #[track_caller]
    fn check(version: &str, fields: &str, want: Result<Framing, BadFraming>) {
        let (head, text) = request(&format!("POST / {version}"), fields);
        assert_eq!(request_framing(&head, &text), want, "{fields:?}");
    }

    #[test]
    fn lengths_are_decimal_numbers_that_agree() {
        use BadFraming::*;
        let table: &[(&str, Result<Framing, BadFraming>)] = &[
            ("", Ok(Framing::Empty)),
            ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
            ("content-length: 0042\r\n", Ok(Framing::Length(42))),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5, 5\r\nContent-Length: 05\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 9223372036854775807\r\n", Ok(Framing::Length(i64::MAX as u64))),
            ("Content-Length: 9223372036854775808\r\n", Err(LengthTooLarge)),
            ("Content-Length: 18446744073709551621\r\n", Err(LengthTooLarge)),
            ("Content-Length: 99999999999999999999999\r\n", Err(LengthTooLarge)),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", Err(LengthsDiffer)),
            ("Content-Length: 1, 2\r\n", Err(LengthsDiffer)),
            ("Content-Length:\r\n", Err(LengthSyntax)),
            ("Content-Length: 5,\r\n", Err(LengthSyntax)),
            ("Content-Length: x\r\n", Err(LengthSyntax)),
            ("Content-Length: +5\r\n", Err(LengthSyntax)),
            ("Content-Length: -5\r\n", Err(LengthSyntax)),
            ("Content-Length: 0x5\r\n", Err(LengthSyntax)),
            ("Content-Length: 5 5\r\n", Err(LengthSyntax)),
            ("Content-Length: 5.0\r\n", Err(LengthSyntax)),
            ("Content-Length: \u{b2}\r\n", Err(LengthSyntax)),
        ];
        for (fields, want) in table {
            check("HTTP/1.1", fields, *want);
        }
    }

    #[test]
    fn transfer_encoding_is_one_chunked_or_nothing() {
        use BadFraming::*;
        let table: &[(&str, Result<Framing, BadFraming>)] = &[
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding: \tChunKed \r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: gzip\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: identity\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: xchunked\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(EncodingUnknown)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding: chunked;a=b\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding: chunked,\r\n", Err(EncodingSyntax)),
            ("Transfer-Encoding:\r\n", Err(EncodingSyntax)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndEncoding)),
            ("Transfer-Encoding: gzip\r\nContent-Length: 1\r\n", Err(LengthAndEncoding)),
        ];
        for (fields, want) in table {
            check("HTTP/1.1", fields, *want);
        }
        check("HTTP/1.0", "Transfer-Encoding: chunked\r\n", Err(EncodingInHttp10));
        check("HTTP/1.0", "Transfer-Encoding: gzip\r\n", Err(EncodingInHttp10));
        assert_eq!((EncodingUnknown.status(), EncodingSyntax.status()), (501, 400));
    }

    #[test]
    fn responses_without_a_body_have_none_whatever_they_say() {
        let table: &[(&str, &str, bool, Result<ResponseFraming, BadFraming>)] = &[
            ("1.1 200 OK", "", false, Ok(ResponseFraming::UntilClose)),
            ("1.1 200 OK", "Content-Length: 3\r\n", false, Ok(ResponseFraming::Length(3))),
            ("1.1 200 OK", "Transfer-Encoding: chunked\r\n", false, Ok(ResponseFraming::Chunked)),
            ("1.0 200 OK", "", false, Ok(ResponseFraming::UntilClose)),
            ("1.1 200 OK", "Content-Length: 3\r\n", true, Ok(ResponseFraming::Empty)),
            ("1.1 200 OK", "Transfer-Encoding: chunked\r\n", true, Ok(ResponseFraming::Empty)),
            ("1.1 204 No Content", "Content-Length: 3\r\n", false, Ok(ResponseFraming::Empty)),
            ("1.1 304 Not Modified", "Content-Length: 3\r\n", false, Ok(ResponseFraming::Empty)),
            ("1.1 101 Switching", "", false, Ok(ResponseFraming::Empty)),
            ("1.1 200 OK", "Content-Length: x\r\n", true, Err(BadFraming::LengthSyntax)),
            ("1.1 200 OK", "Content-Length: 3\r\nContent-Length: 4\r\n", false, Err(BadFraming::LengthsDiffer)),
            ("1.1 200 OK", "Transfer-Encoding: gzip\r\n", false, Err(BadFraming::EncodingUnknown)),
            ("1.0 200 OK", "Transfer-Encoding: chunked\r\n", false, Err(BadFraming::EncodingInHttp10)),
            (
                "1.1 204 OK",
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                false,
                Err(BadFraming::LengthAndEncoding),
            ),
        ];
        for (line, fields, to_head, want) in table {
            let text = format!("HTTP/{line}\r\n{fields}\r\n").into_bytes();
            let mut head = ResponseHead::default();
            parse_response(&text, &HeadLimits::RESPONSE, &mut head).unwrap();
            assert_eq!(response_framing(&head, &text, *to_head), *want, "{line} {fields:?}");
        }
    }

    #[test]
    fn connections_live_on_by_version_and_wish() {
        let table = [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: keep-alive, Close\r\n", false),
            ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
            ("HTTP/1.1", "Connection: closed\r\n", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
            ("HTTP/1.0", "Connection: upgrade\r\n", false),
        ];
        for (version, fields, want) in table {
            let (head, text) = request(&format!("GET / {version}"), fields);
            assert_eq!(keep_alive(head.version, &head.fields, &text), want, "{version} {fields:?}");
        }
    }

    #[test]
    fn continue_is_expected_by_http_1_1_only() {
        for (version, value, want) in
            [("HTTP/1.1", "100-Continue", true), ("HTTP/1.0", "100-continue", false), ("HTTP/1.1", "200-ok", false)]
        {
            let (head, text) = request(&format!("PUT / {version}"), &format!("Expect: {value}\r\n"));
            assert_eq!(expects_continue(&head, &text), want);
        }
    }
}
