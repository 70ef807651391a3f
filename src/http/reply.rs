//! HOT: no allocation after warm-up, no formatting machinery.
//! The bodies of answers that the gateway makes itself (spec/proxying.md section 7).
//! Owns: the choice of format and the exact bytes of each. Never: chooses a status, writes a head.
//! Always: a message is escaped for its format; the length of a body is known before it is written, so that head and
//! body go into one buffer.

use crate::http::encode::push_u64;
use crate::http::fields::{Fields, tokens, trim_ows};
use crate::http::known::Known;
use crate::http::media::is_grpc;
use crate::http::status::{default_message, reason_phrase};

/// The format of a gateway error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    #[default]
    Json,
    Html,
    Xml,
    Plain,
    /// Asked for by `application/grpc` of a gateway error: no body, and Kong's Content-Type is empty then.
    Grpc,
    /// Asked for by `application/grpc` of an error page, by a request that is not gRPC itself: the body of section 7.3.
    Exit,
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
struct Template<'a> {
    before: &'a str,
    /// `None`: without the request id.
    between: Option<&'a str>,
    after: &'a str,
}

/// Templates of the operator, each in three parts; `None`: that of the gateway.
#[derive(Debug, Default)]
pub struct Templates {
    pub json: Option<[String; 3]>,
    pub html: Option<[String; 3]>,
    pub xml: Option<[String; 3]>,
    pub plain: Option<[String; 3]>,
}

impl Templates {
    fn of(&self, format: ErrorFormat) -> Option<Template<'_>> {
        let own = match format {
            ErrorFormat::Json => &self.json,
            ErrorFormat::Html => &self.html,
            ErrorFormat::Xml => &self.xml,
            ErrorFormat::Plain => &self.plain,
            ErrorFormat::Grpc | ErrorFormat::Exit => &None,
        };
        match own {
            Some([before, between, after]) => Some(Template { before, between: Some(between), after }),
            None => format.template(),
        }
    }
}

impl ErrorFormat {
    /// The value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Exit => EXIT_CONTENT_TYPE,
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
            Some(value) if is_grpc(value) => Self::Exit,
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

    fn template(self) -> Option<Template<'static>> {
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
            Self::Exit => return Some(Template { before: "{\"message\":\"", between: None, after: "\"}" }),
            Self::Grpc => return None,
        };
        Some(Template { before, between: Some(between), after })
    }

    /// The escape of a character in this format; `None` if it stands for itself.
    fn escape(self, byte: u8) -> Option<[u8; 6]> {
        match self {
            Self::Json | Self::Exit => escape_json(byte),
            Self::Html | Self::Xml => escape_markup(byte),
            Self::Plain | Self::Grpc => None,
        }
    }
}

/// Appends the body of a gateway error to `out`. `request_id` is hexadecimal digits.
pub fn render(templates: &Templates, format: ErrorFormat, message: Message<'_>, request_id: &[u8], out: &mut Vec<u8>) {
    let Some(template) = templates.of(format) else {
        return;
    };
    out.extend_from_slice(template.before.as_bytes());
    let (text, status) = message.parts();
    push_escaped(text, format, out);
    if let Some(status) = status {
        push_u64(out, u64::from(status));
    }
    if let Some(between) = template.between {
        out.extend_from_slice(between.as_bytes());
        out.extend_from_slice(request_id);
    }
    out.extend_from_slice(template.after.as_bytes());
}

/// How many bytes `render` will append.
pub fn rendered_len(templates: &Templates, format: ErrorFormat, message: Message<'_>, request_id: &[u8]) -> usize {
    let Some(template) = templates.of(format) else {
        return 0;
    };
    let (text, status) = message.parts();
    let id = template.between.map_or(0, |between| between.len() + request_id.len());
    template.before.len() + escaped_len(text, format) + status.map_or(0, digits) + id + template.after.len()
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
/// which have none, it sends the stub page, as it does for redirects.
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NO_ROUTE: Message<'_> = Message::Text("no Route matched with those values");

    fn body(format: ErrorFormat, message: Message<'_>) -> String {
        by(&Templates::default(), format, message)
    }

    fn by(templates: &Templates, format: ErrorFormat, message: Message<'_>) -> String {
        let mut out = Vec::new();
        render(templates, format, message, ID, &mut out);
        assert_eq!(out.len(), rendered_len(templates, format, message, ID), "{format:?} {message:?}");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn templates_of_the_operator_take_the_place_of_ours_and_messages_stay_escaped() {
        let parts = |parts: [&str; 3]| Some(parts.map(str::to_owned));
        let templates = Templates {
            html: parts(["<b>", "</b><i>", "</i>"]),
            json: parts(["{\"m\":\"", "\",\"i\":\"", "\"}"]),
            ..Templates::default()
        };
        let id = std::str::from_utf8(ID).unwrap();
        let message = Message::Text("<\">");
        assert_eq!(by(&templates, ErrorFormat::Html, message), format!("<b>&lt;\"&gt;</b><i>{id}</i>"));
        assert_eq!(by(&templates, ErrorFormat::Json, message), format!("{{\"m\":\"<\\\">\",\"i\":\"{id}\"}}"));
        assert_eq!(by(&templates, ErrorFormat::Plain, message), body(ErrorFormat::Plain, message));
        assert_eq!(by(&templates, ErrorFormat::Exit, message), "{\"message\":\"<\\\">\"}");
    }

    #[test]
    fn the_accept_field_chooses_the_format() {
        use ErrorFormat::*;
        let table: &[(&str, ErrorFormat)] = &[
            ("*/*", Json),
            ("application/json", Json),
            ("text/html", Html),
            ("text/plain", Plain),
            ("application/xml", Xml),
            ("application/grpc", Grpc),
            ("image/png", Json),
            ("text/html;q=0.5, application/xml", Xml),
            ("application/json;q=0.1, text/plain", Plain),
            ("text/*", Plain),
            ("application/*", Json),
            ("application/vnd.x+json", Json),
            ("", Json),
            ("garbage", Json),
            ("text/html, text/plain", Html),
            ("text/plain;q=0.3, text/html;q=0.31", Html),
            ("text/plain;q=0", Json),
            ("TEXT/HTML; charset=utf-8 ; Q=1.000", Html),
            ("text/html;q=2, text/plain", Html),
            ("image/png, text/html;q=0.9", Json),
        ];
        for (accept, want) in table {
            assert_eq!(ErrorFormat::from_accept(Some(accept.as_bytes())), Some(*want), "{accept:?}");
        }
        assert_eq!(ErrorFormat::from_accept(None), None);
    }

    #[test]
    fn error_pages_fall_back_to_the_content_type() {
        let of = |pairs: &[(Known, &[u8])]| {
            let mut fields = Fields::default();
            pairs.iter().for_each(|(known, value)| fields.append(*known, value));
            (
                ErrorFormat::for_error_page(&fields, b"", ErrorFormat::Plain),
                ErrorFormat::for_gateway_error(&fields, b""),
            )
        };
        assert_eq!(of(&[]), (ErrorFormat::Plain, ErrorFormat::Json));
        assert_eq!(of(&[(Known::ContentType, b"text/html; charset=x")]), (ErrorFormat::Html, ErrorFormat::Json));
        assert_eq!(of(&[(Known::ContentType, b"application/grpc+proto")]), (ErrorFormat::Exit, ErrorFormat::Json));
        assert_eq!(of(&[(Known::Accept, b"application/grpc")]), (ErrorFormat::Exit, ErrorFormat::Grpc));
        assert_eq!(
            of(&[(Known::ContentType, b"text/html"), (Known::Accept, b"application/xml")]),
            (ErrorFormat::Xml, ErrorFormat::Xml)
        );
    }

    #[test]
    fn bodies_are_kongs_to_the_byte() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            body(ErrorFormat::Json, NO_ROUTE),
            format!("{{\n  \"message\":\"no Route matched with those values\",\n  \"request_id\":\"{id}\"\n}}")
        );
        assert_eq!(
            body(ErrorFormat::Html, NO_ROUTE),
            format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    \
                 <h1>Error</h1>\n    <p>no Route matched with those values.</p>\n    <p>request_id: {id}</p>\n  </body>\n</html>\n"
            )
        );
        assert_eq!(
            body(ErrorFormat::Xml, NO_ROUTE),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>no Route matched with those values</message>\n  \
                 <requestid>{id}</requestid>\n</error>\n"
            )
        );
        assert_eq!(
            body(ErrorFormat::Plain, NO_ROUTE),
            format!("no Route matched with those values\nrequest_id: {id}\n")
        );
        assert_eq!(body(ErrorFormat::Grpc, NO_ROUTE), "");
        assert_eq!(body(ErrorFormat::Exit, NO_ROUTE), "{\"message\":\"no Route matched with those values\"}");
    }

    #[test]
    fn lengths_are_the_recorded_ones() {
        let len = |format, message| rendered_len(&Templates::default(), format, message, ID);
        assert_eq!(len(ErrorFormat::Json, NO_ROUTE), 103);
        assert_eq!(len(ErrorFormat::Html, NO_ROUTE), 243);
        assert_eq!(len(ErrorFormat::Plain, NO_ROUTE), 80);
        assert_eq!(len(ErrorFormat::Xml, NO_ROUTE), 170);
        assert_eq!(len(ErrorFormat::Plain, Message::Status(400)), 57);
        assert_eq!(len(ErrorFormat::Plain, Message::Status(414)), 58);
        assert_eq!(len(ErrorFormat::Json, Message::Status(494)), 103);
        assert_eq!(len(ErrorFormat::Exit, Message::Status(502)), 71);
    }

    #[test]
    fn every_status_has_a_message() {
        for status in [400, 418, 494, 502, 599, 299, 99, 0, u16::MAX] {
            let text = body(ErrorFormat::Plain, Message::Status(status));
            match default_message(status) {
                Some(message) => assert!(text.starts_with(message)),
                None => assert!(text.starts_with(&format!("The upstream server responded with {status}\n"))),
            }
        }
        assert!(body(ErrorFormat::Html, Message::Status(418)).contains("<p>I'm a teapot.</p>"));
    }

    #[test]
    fn messages_are_escaped_for_their_format() {
        let message = Message::Text("<a href=\"x\">&\\\n\u{1}é</a>");
        assert!(body(ErrorFormat::Json, message).contains(r#""<a href=\"x\">&\\\n\u0001é</a>""#));
        assert!(body(ErrorFormat::Html, message).contains("<p>&lt;a href=\"x\"&gt;&amp;\\\n é&lt;/a&gt;.</p>"));
        assert!(
            body(ErrorFormat::Xml, message).contains("<message>&lt;a href=\"x\"&gt;&amp;\\\n é&lt;/a&gt;</message>")
        );
    }

    #[test]
    fn stub_pages_and_exit_bodies_have_the_length_they_say() {
        let mut out = Vec::new();
        render_stub(505, &mut out);
        assert_eq!((out.len(), stub_len(505)), (152, 152));
        out.clear();
        render_stub(501, &mut out);
        assert_eq!((out.len(), stub_len(501)), (130, 130));
        assert_eq!(
            out,
            b"<html>\r\n<head><title>501 Not Implemented</title></head>\r\n<body>\r\n<center><h1>501 Not Implemented</h1>\
              </center>\r\n</body>\r\n</html>\r\n"
        );
        out.clear();
        push_exit_body("say \"x\"", &mut out);
        assert_eq!((out.as_slice(), out.len()), (br#"{"message":"say \"x\""}"#.as_slice(), exit_body_len("say \"x\"")));
        assert!(has_error_page(400) && !has_error_page(501));
    }
}
