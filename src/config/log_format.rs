//! The lines of access logs, as nginx's `log_format` declares them: texts with `$variables` between.
//! Owns: which variables there are, and the formats that are there without being declared. Never: writes a line.
//! Always: a variable that no request could give a value is an error when the format is read.

use std::fmt;

use super::kind::Problem;

/// How the values of variables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Quotes, backslashes, controls and bytes above 0x7e as `\xHH`; a value that is missing as `-`.
    Default,
    /// As inside a string of JSON; a value that is missing as nothing.
    Json,
    /// As they are, but for ends of lines; a value that is missing as nothing.
    None,
}

/// A text of a request that a line may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The request line.
    Line,
    /// The normalised path.
    Path,
    /// The host without its port.
    Host,
    /// A header of the request, by its lower-case name with `-` for `_`.
    RequestHeader(String),
    /// A header of the response as it was sent.
    SentHeader(String),
}

/// What stands for a variable in a line; texts by their index in [`LogFormat::sources`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// A text as it is.
    Text(usize),
    /// Of the request line.
    Method(usize),
    Uri(usize),
    Arguments(usize),
    /// `?`, if there are arguments.
    IsArguments(usize),
    Protocol(usize),
    Argument(usize, String),
    /// Of a Cookie header.
    Cookie(usize, String),
    /// The user of Basic credentials.
    User(usize),
    ClientIp,
    PeerIp,
    PeerPort,
    ServerIp,
    ServerPort,
    Scheme,
    TimeLocal,
    TimeIso8601,
    /// Seconds since 1970, with milliseconds.
    Seconds,
    Status,
    BodyBytesSent,
    BytesSent,
    RequestBytes,
    /// Seconds from the first byte of the request to the last of the answer.
    RequestTime,
    RequestId,
    /// `OK`, if the answer was sent whole.
    Completion,
    Connection,
    ConnectionRequests,
    Pid,
    Hostname,
    /// Of each try on an upstream.
    UpstreamAddr,
    UpstreamStatus,
    UpstreamConnectTime,
    UpstreamHeaderTime,
    UpstreamResponseTime,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    Variable(Variable),
}

/// A format that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFormat {
    pub name: String,
    pub escape: Escape,
    pub pieces: Vec<Piece>,
    /// The texts that a record for it carries, in this order.
    pub sources: Vec<Source>,
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Formats that need no declaration. The first is that of `proxy_access_log`, the second that of `admin_access_log`.
pub const BUILT_IN: &str = concat!(
    r#"kong_log_format '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "#,
    r#""$http_referer" "$http_user_agent" kong_request_id: "$kong_request_id"'; "#,
    r#"combined '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "#,
    r#""$http_referer" "$http_user_agent"'"#,
);

impl LogFormat {
    /// Whether lines show what was sent to the client.
    pub fn shows_sent_head(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::SentHeader(_)))
    }

    /// Whether lines show the tries on upstreams.
    pub fn shows_tries(&self) -> bool {
        use Variable::*;
        [UpstreamAddr, UpstreamStatus, UpstreamConnectTime, UpstreamHeaderTime, UpstreamResponseTime]
            .iter()
            .any(|variable| self.shows(variable))
    }

    /// A variable that has no value in the log of the Admin API, whose connections nobody counts the bytes of.
    pub fn unknown_to_admin(&self) -> Option<&'static str> {
        let unknown = [
            (Variable::BytesSent, "$bytes_sent"),
            (Variable::RequestBytes, "$request_length"),
            (Variable::Connection, "$connection"),
            (Variable::ConnectionRequests, "$connection_requests"),
            (Variable::RequestId, "$kong_request_id"),
        ];
        unknown.into_iter().find(|(variable, _)| self.shows(variable)).map(|(_, name)| name)
    }

    fn shows(&self, variable: &Variable) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Variable(shown) if shown == variable))
    }

    /// Reads declarations: `name [escape=default|json|none] 'text' ['text' ...]`, more of them behind `;`.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Problem> {
        let mut formats: Vec<Self> = Vec::new();
        for words in declarations(text)? {
            let format = Self::parse(&words)?;
            if formats.iter().any(|other| other.name == format.name) {
                return Err(Problem::Because(format!("\"{}\" is declared twice", format.name)));
            }
            formats.push(format);
        }
        Ok(formats)
    }

    fn parse(words: &[Word]) -> Result<Self, Problem> {
        let [name, rest @ ..] = words else { return Err(Problem::NotAccepted) };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.quoted || !name.text.chars().all(is_plain) {
            return Err(Problem::Because(format!("\"{}\" is no name of a format", name.text)));
        }
        let escape = rest.first().filter(|word| !word.quoted).and_then(|word| word.text.strip_prefix("escape="));
        let (escape, texts) = match escape {
            None => (Escape::Default, rest),
            Some("default") => (Escape::Default, &rest[1..]),
            Some("json") => (Escape::Json, &rest[1..]),
            Some("none") => (Escape::None, &rest[1..]),
            Some(other) => return Err(Problem::Because(format!("there is no escape={other}"))),
        };
        if texts.is_empty() {
            return Err(Problem::Because(format!("\"{}\" has no text", name.text)));
        }
        let mut format = Self { name: name.text.clone(), escape, pieces: Vec::new(), sources: Vec::new() };
        let text: String = texts.iter().map(|word| word.text.as_str()).collect();
        format.read(&text).map_err(|why| Problem::Because(format!("\"{}\": {why}", name.text)))?;
        Ok(format)
    }

    /// Takes the text apart.
    fn read(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text;
        while let Some((literal, behind)) = rest.split_once('$') {
            self.push_literal(literal);
            let (name, behind) = match behind.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or_else(|| "a ${ has no }".to_owned())?,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    behind.split_at(behind.find(|c| !is_name(c)).unwrap_or(behind.len()))
                }
            };
            let variable = self.variable(name).ok_or_else(|| format!("there is no variable ${name}"))?;
            self.pieces.push(Piece::Variable(variable));
            rest = behind;
        }
        self.push_literal(rest);
        Ok(())
    }

    fn push_literal(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece::Literal(text.to_owned()));
        }
    }

    /// Where a text stands in the records of this format.
    fn source(&mut self, wanted: Source) -> usize {
        let found = self.sources.iter().position(|source| *source == wanted);
        found.unwrap_or_else(|| {
            self.sources.push(wanted);
            self.sources.len() - 1
        })
    }

    fn variable(&mut self, name: &str) -> Option<Variable> {
        let header = |name: &str| (!name.is_empty()).then(|| name.to_ascii_lowercase().replace('_', "-"));
        if let Some(name) = name.strip_prefix("http_") {
            return Some(Variable::Text(self.source(Source::RequestHeader(header(name)?))));
        }
        if let Some(name) = name.strip_prefix("sent_http_") {
            return Some(Variable::Text(self.source(Source::SentHeader(header(name)?))));
        }
        if let Some(name) = name.strip_prefix("arg_").filter(|name| !name.is_empty()) {
            return Some(Variable::Argument(self.source(Source::Line), name.to_owned()));
        }
        if let Some(name) = name.strip_prefix("cookie_").filter(|name| !name.is_empty()) {
            return Some(Variable::Cookie(self.source(Source::RequestHeader("cookie".into())), name.to_owned()));
        }
        Some(match name {
            "request" => Variable::Text(self.source(Source::Line)),
            "request_method" => Variable::Method(self.source(Source::Line)),
            "request_uri" => Variable::Uri(self.source(Source::Line)),
            "args" | "query_string" => Variable::Arguments(self.source(Source::Line)),
            "is_args" => Variable::IsArguments(self.source(Source::Line)),
            "server_protocol" => Variable::Protocol(self.source(Source::Line)),
            "uri" | "document_uri" => Variable::Text(self.source(Source::Path)),
            "host" => Variable::Text(self.source(Source::Host)),
            "content_length" => Variable::Text(self.source(Source::RequestHeader("content-length".into()))),
            "content_type" => Variable::Text(self.source(Source::RequestHeader("content-type".into()))),
            "remote_user" => Variable::User(self.source(Source::RequestHeader("authorization".into()))),
            "remote_addr" => Variable::ClientIp,
            "realip_remote_addr" => Variable::PeerIp,
            "remote_port" | "realip_remote_port" => Variable::PeerPort,
            "server_addr" => Variable::ServerIp,
            "server_port" => Variable::ServerPort,
            "scheme" => Variable::Scheme,
            "time_local" => Variable::TimeLocal,
            "time_iso8601" => Variable::TimeIso8601,
            "msec" => Variable::Seconds,
            "status" => Variable::Status,
            "body_bytes_sent" => Variable::BodyBytesSent,
            "bytes_sent" => Variable::BytesSent,
            "request_length" => Variable::RequestBytes,
            "request_time" => Variable::RequestTime,
            "kong_request_id" | "request_id" => Variable::RequestId,
            "request_completion" => Variable::Completion,
            "connection" => Variable::Connection,
            "connection_requests" => Variable::ConnectionRequests,
            "pid" => Variable::Pid,
            "hostname" => Variable::Hostname,
            "upstream_addr" => Variable::UpstreamAddr,
            "upstream_status" => Variable::UpstreamStatus,
            "upstream_connect_time" => Variable::UpstreamConnectTime,
            "upstream_header_time" => Variable::UpstreamHeaderTime,
            "upstream_response_time" => Variable::UpstreamResponseTime,
            _ => return None,
        })
    }
}

/// A word of a declaration.
struct Word {
    text: String,
    quoted: bool,
}

/// The words of each declaration, as nginx reads a directive: quotes of both kinds, a backslash before what would end them.
fn declarations(text: &str) -> Result<Vec<Vec<Word>>, Problem> {
    let (mut all, mut words) = (Vec::new(), Vec::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_whitespace() => {}
            ';' if words.is_empty() => {}
            ';' => all.push(std::mem::take(&mut words)),
            '\'' | '"' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        None => return Err(Problem::because("a quote does not end")),
                        Some(end) if end == c => break,
                        Some('\\') => match chars.next() {
                            Some('t') => text.push('\t'),
                            Some(escaped) if escaped == c || escaped == '\\' => text.push(escaped),
                            Some('n' | 'r') => {
                                return Err(Problem::because("a line of a log has no end of a line in it"));
                            }
                            Some(other) => text.extend(['\\', other]),
                            None => return Err(Problem::because("a quote does not end")),
                        },
                        Some(other) => text.push(other),
                    }
                }
                words.push(Word { text, quoted: true });
            }
            _ => {
                let mut text = String::from(c);
                while let Some(more) = chars.next_if(|c| !c.is_whitespace() && *c != ';') {
                    text.push(more);
                }
                words.push(Word { text, quoted: false });
            }
        }
    }
    if !words.is_empty() {
        all.push(words);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> LogFormat {
        LogFormat::parse_all(text).unwrap().remove(0)
    }

    #[track_caller]
    fn refused(text: &str, want: &str) {
        assert_eq!(LogFormat::parse_all(text), Err(Problem::because(want)), "{text}");
    }

    #[test]
    fn a_format_is_texts_and_variables() {
        let format = one(r#"f 'a$status "b' "-${status}c' \"d" $bytes_sent"#);
        let status = || Piece::Variable(Variable::Status);
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let want = [
            literal("a"),
            status(),
            literal(" \"b-"),
            status(),
            literal("c' \"d"),
            Piece::Variable(Variable::BytesSent),
        ];
        assert_eq!((format.name.as_str(), format.escape, &format.pieces[..]), ("f", Escape::Default, &want[..]));
    }

    #[test]
    fn a_text_is_carried_once_however_often_it_is_shown() {
        let format = one("f '$request $request_method $args $http_x_Forwarded_For $http_x_forwarded_for $remote_user'");
        let header = |name: &str| Source::RequestHeader(name.to_owned());
        assert_eq!(format.sources, [Source::Line, header("x-forwarded-for"), header("authorization")]);
        assert!(!format.shows_sent_head() && !format.shows_tries());
        assert!(one("f $sent_http_etag").shows_sent_head() && one("f '$upstream_addr'").shows_tries());
    }

    #[test]
    fn several_formats_stand_in_one_text() {
        let formats = LogFormat::parse_all("a $status; b escape=json '{\"s\":$status}' ;c escape=none x;").unwrap();
        let shown: Vec<_> = formats.iter().map(|format| (format.name.as_str(), format.escape)).collect();
        assert_eq!(shown, [("a", Escape::Default), ("b", Escape::Json), ("c", Escape::None)]);
        assert_eq!(LogFormat::parse_all(" ; ").unwrap(), []);
        assert_eq!(LogFormat::parse_all(BUILT_IN).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_format_is_said() {
        refused("f '$nobody'", "\"f\": there is no variable $nobody");
        refused("f '$'", "\"f\": there is no variable $");
        refused("f '$http_'", "\"f\": there is no variable $http_");
        refused("f '${status'", "\"f\": a ${ has no }");
        refused("f 'a", "a quote does not end");
        refused("f", "\"f\" has no text");
        refused("f escape=json", "\"f\" has no text");
        refused("f escape=xml 'a'", "there is no escape=xml");
        refused("'f' 'a'", "\"f\" is no name of a format");
        refused("f a; f b", "\"f\" is declared twice");
        refused("f 'a\\n'", "a line of a log has no end of a line in it");
    }
}
