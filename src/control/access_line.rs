//! A finished request -> a line of a log, as its format says (spec/proxying.md section 18).
//! Never: writes to a file. Always: no byte of a peer can begin a line of its own or, escaped, leave its quotes.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;

use crate::config::log_format::Escape;
use crate::config::log_format::LogFormat;
use crate::config::log_format::Piece;
use crate::config::log_format::Variable;
use crate::http::encode::push_ip;
use crate::http::encode::push_u64;
use crate::metrics::record::LoggedTry;
use crate::metrics::record::Record;
use crate::stdx::clock::Civil;
use crate::stdx::clock::month_name;

/// Writes lines of one format.
pub struct Lines {
    format: Arc<LogFormat>,
    hostname: String,
    time: LocalTime,
    /// The value of one variable.
    value: Vec<u8>,
}

impl Lines {
    /// A writer of such lines; `hostname` is that of this machine.
    pub fn new(format: Arc<LogFormat>, hostname: &str) -> Self {
        Self { format, hostname: hostname.to_owned(), time: LocalTime::default(), value: Vec::new() }
    }

    /// How many texts a record has.
    pub fn texts(&self) -> usize {
        self.format.sources.len()
    }

    /// Appends a line.
    pub fn push(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let format = self.format.clone();
        let mut value = std::mem::take(&mut self.value);
        for piece in &format.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => {
                    value.clear();
                    self.write(variable, record, &mut value);
                    push_escaped(&value, format.escape, out);
                }
            }
        }
        self.value = value;
        out.push(b'\n');
    }

    /// The value of a variable; nothing if it is missing.
    fn write(&mut self, variable: &Variable, record: &Record<'_>, out: &mut Vec<u8>) {
        let figures = &record.figures;
        let text = |at: &usize| record.texts.get(*at).copied().unwrap_or_default();
        let line = |at: &usize| RequestLine::of(text(at));
        match variable {
            Variable::Text(at) => out.extend_from_slice(text(at)),
            Variable::Method(at) => out.extend_from_slice(line(at).method),
            Variable::Uri(at) => out.extend_from_slice(line(at).uri),
            Variable::Arguments(at) => out.extend_from_slice(line(at).arguments().unwrap_or_default()),
            Variable::IsArguments(at) => {
                out.extend_from_slice(
                    line(at).arguments().map_or(b"", |args| if args.is_empty() { b"" } else { b"?" }),
                );
            }
            Variable::Protocol(at) => out.extend_from_slice(line(at).protocol),
            Variable::Argument(at, name) => {
                let arguments = line(at).arguments().unwrap_or_default();
                let mut named = pairs(arguments, b'&').filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
                out.extend_from_slice(named.next().map_or(b"", |(_, value)| value));
            }
            Variable::Cookie(at, name) => {
                let mut named = pairs(text(at), b';').filter(|(n, _)| n.trim_ascii() == name.as_bytes());
                out.extend_from_slice(named.next().map_or(b"", |(_, value)| value.trim_ascii()));
            }
            Variable::User(at) => out.extend(basic_user(text(at)).unwrap_or_default()),
            Variable::ClientIp if is_unix(figures.peer) => out.extend_from_slice(b"unix:"),
            Variable::ClientIp => push_ip(out, figures.client_ip),
            Variable::PeerIp if is_unix(figures.peer) => out.extend_from_slice(b"unix:"),
            Variable::PeerIp => push_ip(out, figures.peer.ip()),
            Variable::PeerPort if is_unix(figures.peer) => {}
            Variable::PeerPort => push_u64(out, figures.peer.port().into()),
            Variable::ServerIp if is_unix(figures.local) => out.extend_from_slice(b"unix:"),
            Variable::ServerIp => push_ip(out, figures.local.ip()),
            Variable::ServerPort if is_unix(figures.local) => {}
            Variable::ServerPort => push_u64(out, figures.local.port().into()),
            Variable::Scheme => out.extend_from_slice(b"http"),
            Variable::TimeLocal => out.extend_from_slice(self.time.local(figures.unix_ms / 1000)),
            Variable::TimeIso8601 => out.extend_from_slice(self.time.iso8601(figures.unix_ms / 1000)),
            Variable::Seconds => push_seconds(figures.unix_ms, out),
            Variable::Status => {
                let _ = write!(out, "{:03}", figures.status);
            }
            Variable::BodyBytesSent => push_u64(out, figures.body_bytes_sent),
            Variable::BytesSent => push_u64(out, figures.bytes_sent),
            Variable::RequestBytes => push_u64(out, figures.request_bytes),
            Variable::RequestTime => push_seconds(figures.total_us / 1000, out),
            Variable::RequestId => out.extend_from_slice(&figures.request_id),
            Variable::Completion => out.extend_from_slice(if figures.complete { b"OK" } else { b"" }),
            Variable::Connection => push_u64(out, figures.connection),
            Variable::ConnectionRequests => push_u64(out, figures.connection_requests),
            Variable::Pid => push_u64(out, std::process::id().into()),
            Variable::Hostname => out.extend_from_slice(self.hostname.as_bytes()),
            Variable::UpstreamAddr => push_tries(record, out, |t, out| drop(write!(out, "{}", t.addr))),
            Variable::UpstreamStatus => push_tries(record, out, |t, out| push_u64(out, t.status.into())),
            Variable::UpstreamConnectTime => push_tries(record, out, |t, out| push_time(t.connect_us, out)),
            Variable::UpstreamHeaderTime => push_tries(record, out, |t, out| push_time(t.header_us, out)),
            Variable::UpstreamResponseTime => push_tries(record, out, |t, out| push_time(Some(t.response_us), out)),
        }
    }
}

/// A request line taken apart; of one that is none, all is empty.
struct RequestLine<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    protocol: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn of(line: &'a [u8]) -> Self {
        let mut words = line.split(|byte| *byte == b' ');
        let mut next = || words.next().unwrap_or_default();
        Self { method: next(), uri: next(), protocol: next() }
    }

    fn arguments(&self) -> Option<&'a [u8]> {
        let at = self.uri.iter().position(|byte| *byte == b'?')?;
        Some(&self.uri[at + 1..])
    }
}

/// `name=value` pairs.
fn pairs(text: &[u8], between: u8) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(move |byte| *byte == between).map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    })
}

/// Of a unix socket nothing is known.
fn is_unix(addr: SocketAddr) -> bool {
    addr.ip().is_unspecified()
}

fn push_seconds(ms: u64, out: &mut Vec<u8>) {
    let _ = write!(out, "{}.{:03}", ms / 1000, ms % 1000);
}

fn push_time(us: Option<u64>, out: &mut Vec<u8>) {
    match us {
        Some(us) => push_seconds(us / 1000, out),
        None => out.push(b'-'),
    }
}

fn push_tries(record: &Record<'_>, out: &mut Vec<u8>, push: impl Fn(&LoggedTry, &mut Vec<u8>)) {
    for (at, t) in record.tries.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        push(t, out);
    }
}

/// Local time as text, worked out once a second; its distance from UTC is asked for once a minute.
#[derive(Default)]
struct LocalTime {
    minute: u64,
    east_seconds: i64,
    second: u64,
    local: Vec<u8>,
    iso8601: Vec<u8>,
}

impl LocalTime {
    /// `23/Nov/2025:05:37:00 +0000`
    fn local(&mut self, second: u64) -> &[u8] {
        self.work_out(second);
        &self.local
    }

    /// `2025-11-23T05:37:00+00:00`
    fn iso8601(&mut self, second: u64) -> &[u8] {
        self.work_out(second);
        &self.iso8601
    }

    fn work_out(&mut self, second: u64) {
        if !self.local.is_empty() && self.second == second {
            return;
        }
        self.second = second;
        self.ask_zone(second);
        let c = Civil::from_unix(second.saturating_add_signed(self.east_seconds));
        let (sign, offset) = (if self.east_seconds < 0 { '-' } else { '+' }, self.east_seconds.unsigned_abs() / 60);
        let (month, hours, minutes) = (month_name(c.month), offset / 60, offset % 60);
        self.local.clear();
        let _ = write!(self.local, "{:02}/{month}/{}:{:02}:{:02}:{:02} ", c.day, c.year, c.hour, c.minute, c.second);
        let _ = write!(self.local, "{sign}{hours:02}{minutes:02}");
        self.iso8601.clear();
        let _ = write!(
            self.iso8601,
            "{}-{:02}-{:02}T{:02}:{:02}:{:02}",
            c.year, c.month, c.day, c.hour, c.minute, c.second
        );
        let _ = write!(self.iso8601, "{sign}{hours:02}:{minutes:02}");
    }

    fn ask_zone(&mut self, second: u64) {
        let minute = second / 60 + 1;
        if minute != self.minute {
            self.minute = minute;
            let time = second as libc::time_t;
            // Safety: localtime_r writes into the zeroed structure that it is given and nowhere else.
            self.east_seconds = unsafe {
                let mut parts: libc::tm = std::mem::zeroed();
                libc::localtime_r(&raw const time, &raw mut parts);
                parts.tm_gmtoff
            };
        }
    }
}

fn push_escaped(value: &[u8], escape: Escape, out: &mut Vec<u8>) {
    match escape {
        Escape::Default if value.is_empty() => out.push(b'-'),
        Escape::Default => push_hex_escaped(value, out),
        Escape::Json => push_json_escaped(value, out),
        Escape::None => out.extend(value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })),
    }
}

/// As nginx does: quotes, backslashes, controls and bytes above 0x7e as `\xHH`.
fn push_hex_escaped(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f..);
    let mut rest = text;
    loop {
        let plain = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let Some(byte) = rest.get(plain) else { return };
        let _ = write!(out, "\\x{byte:02X}");
        rest = &rest[plain + 1..];
    }
}

/// As inside a string of JSON; what is no UTF-8 becomes U+FFFD, so that the line stays a JSON text.
fn push_json_escaped(text: &[u8], out: &mut Vec<u8>) {
    for c in text.utf8_chunks() {
        for byte in c.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend([b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                ..0x20 => drop(write!(out, "\\u{byte:04x}")),
                _ => out.push(byte),
            }
        }
        if !c.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn basic_user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim_ascii()).ok()?;
    let user = decoded.split(|byte| *byte == b':').next()?;
    (!user.is_empty()).then(|| user.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::log_format::BUILT_IN;
    use crate::config::log_format::Source;
    use crate::metrics::record::Figures;

    fn figures() -> Figures {
        Figures {
            unix_ms: 1_763_876_220_999,
            total_us: 3_999,
            request_bytes: 70,
            bytes_sent: 512,
            body_bytes_sent: 12,
            connection: 9,
            connection_requests: 2,
            peer: "10.0.0.9:4711".parse().unwrap(),
            local: "[::1]:8000".parse().unwrap(),
            client_ip: "127.0.0.1".parse().unwrap(),
            request_id: [b'7'; 32],
            status: 200,
            complete: true,
        }
    }

    /// A line of the last format of `formats`; `text` is what the request has.
    fn line_of(
        formats: &str,
        figures: Figures,
        tries: Vec<LoggedTry>,
        text: impl Fn(&Source) -> &'static [u8],
    ) -> String {
        let format = Arc::new(LogFormat::parse_all(formats).unwrap().pop().unwrap());
        let texts = format.sources.iter().map(text).collect();
        let mut lines = Lines::new(format.clone(), "box");
        // A zone that is not asked again within this minute.
        let (minute, east_seconds) = (figures.unix_ms / 60_000 + 1, -3 * 3600 - 30 * 60);
        lines.time = LocalTime { minute, east_seconds, ..LocalTime::default() };
        let mut out = Vec::new();
        lines.push(&Record { figures, texts, tries }, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn line(request_line: &'static [u8], authorization: &'static [u8], user_agent: &'static [u8]) -> String {
        let kongs = BUILT_IN.split(';').next().unwrap();
        line_of(kongs, figures(), Vec::new(), |source| match source {
            Source::Line => request_line,
            Source::RequestHeader(name) if name == "authorization" => authorization,
            Source::RequestHeader(name) if name == "user-agent" => user_agent,
            _ => b"",
        })
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let id = "7".repeat(32);
        assert_eq!(
            line(b"GET /x HTTP/1.1", b"", b"curl/8"),
            format!(
                "127.0.0.1 - - [23/Nov/2025:02:07:00 -0330] \"GET /x HTTP/1.1\" 200 12 \"-\" \"curl/8\" kong_request_id: \"{id}\"\n"
            )
        );
    }

    #[test]
    fn the_user_of_basic_credentials_is_shown_and_nothing_else_of_them() {
        let text = line(b"GET / HTTP/1.1", b"Basic YWxpY2U6c2VjcmV0", b"");
        assert!(text.contains(" - alice [") && !text.contains("secret"), "{text}");
        assert!(line(b"GET / HTTP/1.1", b"Bearer abc", b"").contains(" - - ["));
        assert!(line(b"GET / HTTP/1.1", b"Basic !!!", b"").contains(" - - ["));
    }

    #[test]
    fn a_peer_cannot_begin_a_line_or_close_a_quote() {
        let text = line(b"GET /\n\"x\\ HTTP/1.1", b"", b"\xff\x00");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains(r#""GET /\x0A\x22x\x5C HTTP/1.1""#) && text.contains(r#""\xFF\x00""#), "{text}");
        let dirty = |_: &Source| &b"a\"\\\n\x01\xff\xc3\xa4"[..];
        assert_eq!(line_of("f escape=none '$host'", figures(), Vec::new(), |_| b"a\"\n\r"), "a\"  \n");
        let json = line_of(r#"f escape=json '{"h":"$host"}'"#, figures(), Vec::new(), dirty);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["h"], "a\"\\\n\u{1}\u{fffd}ä");
    }

    #[test]
    fn every_variable_has_its_value() {
        let tries = vec![
            LoggedTry {
                addr: "10.0.0.1:80".parse().unwrap(),
                connect_us: None,
                header_us: None,
                response_us: 1_000,
                status: 502,
            },
            LoggedTry {
                addr: "[::1]:81".parse().unwrap(),
                connect_us: Some(0),
                header_us: Some(1_500_000),
                response_us: 2_000_000,
                status: 200,
            },
        ];
        let text = |source: &Source| match source {
            Source::Line => &b"POST /a%20b?X=1&y=&z HTTP/1.0"[..],
            Source::Path => b"/a b",
            Source::Host => b"h.test",
            Source::RequestHeader(name) if name == "cookie" => b"a=1; b=two",
            Source::RequestHeader(name) if name == "x-one" => b"one, two",
            Source::RequestHeader(_) => b"",
            Source::SentHeader(name) if name == "etag" => b"\"e\"",
            Source::SentHeader(_) => b"",
        };
        for (variable, want) in [
            ("$request_method", "POST"),
            ("$request_uri", "/a%20b?X=1&y=&z"),
            ("$args$is_args", "X=1&y=&z?"),
            ("$server_protocol", "HTTP/1.0"),
            ("$arg_x $arg_y $arg_z $arg_n", "1 - - -"),
            ("$cookie_b $cookie_c", "two -"),
            ("$uri", "/a b"),
            ("$host", "h.test"),
            ("$http_x_one", "one, two"),
            ("$content_type", "-"),
            ("$sent_http_etag", "\\x22e\\x22"),
            ("$remote_addr $realip_remote_addr $remote_port", "127.0.0.1 10.0.0.9 4711"),
            ("$server_addr $server_port", "::1 8000"),
            ("$scheme", "http"),
            ("$time_iso8601", "2025-11-23T02:07:00-03:30"),
            ("$msec", "1763876220.999"),
            ("$status $body_bytes_sent $bytes_sent $request_length", "200 12 512 70"),
            ("$request_time", "0.003"),
            ("$connection $connection_requests $request_completion", "9 2 OK"),
            ("$pid $hostname", &format!("{} box", std::process::id())),
            ("$upstream_addr", "10.0.0.1:80, [::1]:81"),
            ("$upstream_status", "502, 200"),
            ("$upstream_connect_time", "-, 0.000"),
            ("$upstream_header_time", "-, 1.500"),
            ("$upstream_response_time", "0.001, 2.000"),
        ] {
            let got = line_of(&format!("f '{variable}'"), figures(), tries.clone(), text);
            assert_eq!(got, format!("{want}\n"), "{variable}");
        }
        let nothing = line_of("f escape=json '[$upstream_addr]'", figures(), Vec::new(), text);
        assert_eq!(nothing, "[]\n");
    }

    #[test]
    fn a_unix_socket_has_no_address() {
        let nowhere: SocketAddr = "[::]:0".parse().unwrap();
        let figures = Figures { peer: nowhere, local: nowhere, client_ip: nowhere.ip(), ..figures() };
        let got = line_of("f '$remote_addr $remote_port $server_addr $server_port'", figures, Vec::new(), |_| b"");
        assert_eq!(got, "unix: - unix: -\n");
    }
}
