//! HOT: no allocation after warm-up, no formatting machinery.
//! The bodies of answers that the gateway makes itself (spec/proxying.md section 7).
//! Owns: the choice of format and the exact bytes of each. Never: chooses a status, writes a head.
//! Always: a message is escaped for its format; the length of a body is known before it is written, so that head and
//! body go into one buffer.

use crate::http::encode::push_u64;
use crate::http::fields::{Fields, tokens, trim_ows};
use crate::http::known::Known;
use crate::http::status::{default_message, reason_phrase};

/// The format of a gateway error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    #[default]
    Json,
    Html,
    Xml,
    Plain,
    /// Asked for by `application/grpc`: no body, and Kong's Content-Type is empty then.
    Grpc,
}

/// What a gateway error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    /// The default message of this status.
    Status(u16),
}

/// Content type of an exit body (spec/proxying.md section 7.3).
pub const EXIT_CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// Content type of a stub page.
pub const STUB_CONTENT_TYPE: &str = "text/html; charset=UTF-8";

/// A body is these three texts with the message and the request id between.
struct Template {
    before: &'static str,
    between: &'static str,
    after: &'static str,
}

impl ErrorFormat {
    /// The value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
            Self::Grpc => "",
        }
    }

    /// For errors of router, balancer and plugins (section 7.1): Accept alone decides, JSON without it.
    pub fn for_gateway_error(fields: &Fields, src: &[u8]) -> Self {
        Self::from_accept(fields.get(src, Known::Accept)).unwrap_or_default()
    }

    /// For errors of the HTTP layer (section 7.2): Accept, else the request's content type, else the setting
    /// `error_default_type`.
    pub fn for_error_page(fields: &Fields, src: &[u8], default: Self) -> Self {
        match fields.get(src, Known::Accept).or_else(|| fields.get(src, Known::ContentType)) {
            Some(value) if starts_with_grpc(value) => Self::Grpc,
            value => Self::from_accept(value).unwrap_or(default),
        }
    }

    /// The format of the media range with the highest quality, the first on a tie; JSON if none is acceptable or
    /// readable. `None` only without a value.
    pub fn from_accept(accept: Option<&[u8]>) -> Option<Self> {
        let (mut best, mut best_quality) = (Self::Json, 0);
        for range in tokens(accept?) {
            let mut parts = range.split(|&byte| byte == b';').map(trim_ows);
            let media_type = parts.next().unwrap_or(&[]);
            if !media_type.contains(&b'/') {
                continue;
            }
            let quality = parts.find_map(quality_thousandths).unwrap_or(1000);
            if quality > best_quality {
                (best, best_quality) = (Self::from_media_type(media_type), quality);
            }
        }
        Some(best)
    }

    /// The format of one media type, parameters ignored; JSON for every unknown one.
    pub fn from_media_type(value: &[u8]) -> Self {
        let name = value.split(|&byte| byte == b';').next().map_or(&[][..], trim_ows);
        let table: [(&[u8], Self); 5] = [
            (b"text/html", Self::Html),
            (b"application/xml", Self::Xml),
            (b"text/plain", Self::Plain),
            (b"text/*", Self::Plain),
            (b"application/grpc", Self::Grpc),
        ];
        table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(Self::Json, |(_, format)| *format)
    }

    fn template(self) -> Option<Template> {
        let (before, between, after) = match self {
            Self::Json => ("{\n  \"message\":\"", "\",\n  \"request_id\":\"", "\"\n}"),
            Self::Html => (
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  \
                 <body>\n    <h1>Error</h1>\n    <p>",
                ".</p>\n    <p>request_id: ",
                "</p>\n  </body>\n</html>\n",
            ),
            Self::Xml => (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>",
                "</message>\n  <requestid>",
                "</requestid>\n</error>\n",
            ),
            Self::Plain => ("", "\nrequest_id: ", "\n"),
            Self::Grpc => return None,
        };
        Some(Template { before, between, after })
    }

    /// The escape of a character in this format; `None` if it stands for itself.
    fn escape(self, byte: u8) -> Option<[u8; 6]> {
        match self {
            Self::Json => escape_json(byte),
            Self::Html | Self::Xml => escape_markup(byte),
            Self::Plain | Self::Grpc => None,
        }
    }
}

/// Appends the body of a gateway error to `out`. `request_id` is hexadecimal digits.
pub fn render(format: ErrorFormat, message: Message<'_>, request_id: &[u8], out: &mut Vec<u8>) {
    let Some(template) = format.template() else {
        return;
    };
    out.extend_from_slice(template.before.as_bytes());
    let (text, status) = message.parts();
    push_escaped(text, format, out);
    if let Some(status) = status {
        push_u64(out, u64::from(status));
    }
    out.extend_from_slice(template.between.as_bytes());
    out.extend_from_slice(request_id);
    out.extend_from_slice(template.after.as_bytes());
}

/// How many bytes `render` will append.
pub fn rendered_len(format: ErrorFormat, message: Message<'_>, request_id: &[u8]) -> usize {
    let Some(template) = format.template() else {
        return 0;
    };
    let (text, status) = message.parts();
    let statics = template.before.len() + template.between.len() + template.after.len();
    statics + escaped_len(text, format) + status.map_or(0, digits) + request_id.len()
}

impl<'a> Message<'a> {
    /// The text, and the number to put behind it.
    fn parts(self) -> (&'a str, Option<u16>) {
        match self {
            Self::Text(text) => (text, None),
            Self::Status(status) => match default_message(status) {
                Some(text) => (text, None),
                None => ("The upstream server responded with ", Some(status)),
            },
        }
    }
}

/// Whether Kong has an error page for a status of the HTTP layer (spec/proxying.md section 7.2). For 501 and 505,
/// which have none, it sends the stub page.
pub fn has_error_page(status: u16) -> bool {
    !matches!(status, 501 | 505)
}

/// Appends the stub page of a status to `out`.
pub fn render_stub(status: u16, out: &mut Vec<u8>) {
    let push_title = |out: &mut Vec<u8>| {
        push_u64(out, u64::from(status));
        out.push(b' ');
        out.extend_from_slice(reason_phrase(status).as_bytes());
    };
    out.extend_from_slice(b"<html>\r\n<head><title>");
    push_title(out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<center><h1>");
    push_title(out);
    out.extend_from_slice(b"</h1></center>\r\n</body>\r\n</html>\r\n");
}

/// How many bytes `render_stub` will append.
pub fn stub_len(status: u16) -> usize {
    const STATICS: usize =
        "<html>\r\n<head><title></title></head>\r\n<body>\r\n<center><h1></h1></center>\r\n</body>\r\n\
                            </html>\r\n"
            .len();
    STATICS + 2 * (digits(status) + 1 + reason_phrase(status).len())
}

/// Appends the compact JSON body of some plugins, `{"message":"..."}` (spec/proxying.md section 7.3).
pub fn push_exit_body(message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"message\":\"");
    push_escaped(message, ErrorFormat::Json, out);
    out.extend_from_slice(b"\"}");
}

/// How many bytes `push_exit_body` will append.
pub fn exit_body_len(message: &str) -> usize {
    "{\"message\":\"\"}".len() + escaped_len(message, ErrorFormat::Json)
}

fn starts_with_grpc(value: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    value.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// The quality of a `q=` parameter in thousandths; `None` for another parameter or a number out of RFC 9110's form.
fn quality_thousandths(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', number @ ..] = parameter else {
        return None;
    };
    let (whole, fraction) = match number {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut thousandths = u32::from(whole - b'0') * 1000;
    for (digit, weight) in fraction.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths += u32::from(digit - b'0') * weight;
    }
    (thousandths <= 1000).then_some(thousandths)
}

fn push_escaped(text: &str, format: ErrorFormat, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match format.escape(byte) {
            Some(escape) => out.extend_from_slice(without_padding(&escape)),
            None => out.push(byte),
        }
    }
}

fn escaped_len(text: &str, format: ErrorFormat) -> usize {
    text.bytes().map(|byte| format.escape(byte).map_or(1, |escape| without_padding(&escape).len())).sum()
}

/// Escapes are padded with NUL at the end to one size.
fn without_padding(escape: &[u8; 6]) -> &[u8] {
    let len = escape.iter().position(|&byte| byte == 0).unwrap_or(escape.len());
    &escape[..len]
}

fn escape_json(byte: u8) -> Option<[u8; 6]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Some(match byte {
        b'"' => *b"\\\"\0\0\0\0",
        b'\\' => *b"\\\\\0\0\0\0",
        b'\n' => *b"\\n\0\0\0\0",
        b'\r' => *b"\\r\0\0\0\0",
        b'\t' => *b"\\t\0\0\0\0",
        0..=0x1f | 0x7f => [b'\\', b'u', b'0', b'0', DIGITS[byte as usize >> 4], DIGITS[byte as usize & 0xf]],
        _ => return None,
    })
}

/// Only what would open a tag or an entity; quotes stand in text, never in an attribute. A control byte has no form in
/// XML at all.
fn escape_markup(byte: u8) -> Option<[u8; 6]> {
    Some(match byte {
        b'&' => *b"&amp;\0",
        b'<' => *b"&lt;\0\0",
        b'>' => *b"&gt;\0\0",
        b'\t' | b'\n' | b'\r' => return None,
        0..=0x1f => *b" \0\0\0\0\0",
        _ => return None,
    })
}

fn digits(status: u16) -> usize {
    match status {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => 5,
    }
}
