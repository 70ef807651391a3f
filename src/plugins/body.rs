//! Named values in request bodies: forms, JSON objects, multipart forms.
//! Never: re-encodes what it leaves in place. Always: a body that is not what its type says holds no values.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::http::fields::trim_ows;
use crate::plugins::query;
use crate::plugins::query::Found;

/// How the values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format<'a> {
    Form,
    Json,
    Multipart { boundary: &'a [u8] },
}

impl<'a> Format<'a> {
    /// The format of that `Content-Type`, if it is one of these.
    pub fn of(content_type: &'a [u8]) -> Option<Self> {
        let media_type = trim_ows(content_type.split(|&byte| byte == b';').next()?);
        if media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            return Some(Self::Form);
        }
        if media_type.eq_ignore_ascii_case(b"application/json") {
            return Some(Self::Json);
        }
        if media_type.eq_ignore_ascii_case(b"multipart/form-data") {
            let boundary = parameter(content_type, b"boundary").filter(|boundary| !boundary.is_empty())?;
            return Some(Self::Multipart { boundary });
        }
        None
    }

    /// What stands under that name.
    pub fn find<'b>(self, body: &'b [u8], name: &[u8]) -> Found<'b> {
        match self {
            Self::Form => query::find(body, name),
            Self::Json => {
                // Of several members of one name the last counts.
                let last = members(body).into_iter().rfind(|member| member.is(body, name));
                last.map_or(Found::Nothing, |member| json_value(&body[member.value]))
            }
            Self::Multipart { boundary } => {
                let parts = parts(body, boundary);
                let mut matching = parts.iter().filter(|part| part.name == name);
                match (matching.next(), matching.next()) {
                    (None, _) => Found::Nothing,
                    (Some(part), None) => Found::Text(Cow::Borrowed(part.content)),
                    _ => Found::Several,
                }
            }
        }
    }

    /// The body without the values of that name; `None`: there are none.
    pub fn without(self, body: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Form => query::without(body, name),
            Self::Json => {
                let members = members(body);
                let kept: Vec<&[u8]> =
                    members.iter().filter(|m| !m.is(body, name)).map(|m| &body[m.key.start..m.value.end]).collect();
                (kept.len() < members.len()).then(|| [b"{", kept.join(&b","[..]).as_slice(), b"}"].concat())
            }
            Self::Multipart { boundary } => {
                let parts = parts(body, boundary);
                let mut rest = Vec::with_capacity(body.len());
                let mut at = 0;
                for part in parts.iter().filter(|part| part.name == name) {
                    rest.extend_from_slice(&body[at..part.whole.start]);
                    at = part.whole.end;
                }
                rest.extend_from_slice(&body[at..]);
                (at > 0).then_some(rest)
            }
        }
    }
}

/// A member of a JSON object, as places in its text.
struct Member {
    /// With its quotes.
    key: Range<usize>,
    value: Range<usize>,
}

impl Member {
    fn is(&self, text: &[u8], name: &[u8]) -> bool {
        json_text(&text[self.key.clone()]).is_some_and(|key| *key == *name)
    }
}

/// The members of the object that `text` is; none if it is anything else.
fn members(text: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    if serde_json::from_slice::<IgnoredAny>(text).is_err() {
        return members;
    }
    let mut scanner = Scanner { text, at: 0 };
    if !scanner.take(b'{') {
        return members;
    }
    while let Some(key) = scanner.string() {
        if !scanner.take(b':') {
            break;
        }
        let value = scanner.value();
        members.push(Member { key, value });
        if !scanner.take(b',') {
            break;
        }
    }
    members
}

/// Walks over JSON that is known to be well formed; over any other it may stop anywhere.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn string(&mut self) -> Option<Range<usize>> {
        self.skip_space();
        let start = self.at;
        if !self.take(b'"') {
            return None;
        }
        while let Some(&byte) = self.text.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return Some(start..self.at);
            }
        }
        None
    }

    fn value(&mut self) -> Range<usize> {
        self.skip_space();
        let start = self.at;
        let mut depth = 0u32;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    if self.string().is_none() {
                        break;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        let end = self.at.min(self.text.len());
        start..start + self.text[start..end].trim_ascii_end().len()
    }
}

fn json_value(value: &[u8]) -> Found<'_> {
    match value.first() {
        Some(b'"') => json_text(value).map_or(Found::NoText, Found::Text),
        Some(b'{' | b'[') => Found::Several,
        _ => Found::NoText,
    }
}

/// The bytes of a JSON string, given with its quotes.
fn json_text(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inner.contains(&b'\\') {
        return Some(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_slice(quoted).ok()?;
    Some(Cow::Owned(text.into_bytes()))
}

/// One part of a multipart form.
pub(super) struct Part<'a> {
    /// From its delimiter to the next.
    whole: Range<usize>,
    pub name: &'a [u8],
    pub content: &'a [u8],
}

/// The parts that have a name, in order (RFC 7578).
pub(super) fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<Part<'a>> {
    let delimiter = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut next = delimiter_from(body, 0, &delimiter);
    while let Some(start) = next {
        let inside = start + delimiter.len();
        next = delimiter_from(body, inside, &delimiter);
        let Some(end) = next else { break };
        let part = body[inside..end].strip_prefix(b"\r\n").and_then(|part| part.strip_suffix(b"\r\n"));
        let Some(part) = part else { continue };
        let Some(head_len) = position(part, b"\r\n\r\n") else { continue };
        if let Some(name) = part_name(&part[..head_len]) {
            parts.push(Part { whole: start..end, name, content: &part[head_len + 4..] });
        }
    }
    parts
}

/// Where a delimiter line starts, from `from` on.
fn delimiter_from(body: &[u8], mut from: usize, delimiter: &[u8]) -> Option<usize> {
    loop {
        let at = from + position(body.get(from..)?, delimiter)?;
        let begins_line = at == 0 || body[..at].ends_with(b"\r\n");
        if begins_line && matches!(body[at + delimiter.len()..], [b'\r', b'\n', ..] | [b'-', b'-', ..]) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn part_name(head: &[u8]) -> Option<&[u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        if !name.eq_ignore_ascii_case(b"content-disposition") {
            return None;
        }
        parameter(value, b"name")
    })
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// The value of a parameter behind the first `;`, without quotes.
fn parameter<'a>(text: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = text;
    loop {
        let semicolon = rest.iter().position(|&byte| byte == b';')?;
        rest = &rest[semicolon + 1..];
        let equals = rest.iter().position(|&byte| byte == b'=')?;
        let is_wanted = rest[..equals].trim_ascii().eq_ignore_ascii_case(wanted);
        rest = &rest[equals + 1..];
        let value = match rest.strip_prefix(b"\"") {
            Some(quoted) => &quoted[..quoted.iter().position(|&byte| byte == b'"')?],
            None => rest.split(|&byte| byte == b';').next()?.trim_ascii(),
        };
        if is_wanted {
            return Some(value);
        }
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = &quoted[value.len()..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Found<'_> {
        Found::Text(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn the_content_type_tells_the_format() {
        let cases: [(&str, Option<Format<'_>>); 8] = [
            ("application/json", Some(Format::Json)),
            ("Application/JSON; charset=utf-8", Some(Format::Json)),
            ("application/jsonp", None),
            ("application/x-www-form-urlencoded", Some(Format::Form)),
            ("multipart/form-data; boundary=xy", Some(Format::Multipart { boundary: b"xy" })),
            (
                "multipart/form-data; a=\"; boundary=no\"; Boundary=\"x y\"",
                Some(Format::Multipart { boundary: b"x y" }),
            ),
            ("multipart/form-data", None),
            ("", None),
        ];
        for (content_type, want) in cases {
            assert_eq!(Format::of(content_type.as_bytes()), want, "{content_type}");
        }
    }

    #[test]
    fn json_members_are_found_at_the_top_only() {
        let cases = [
            (r#"{"apikey":"k1","z":1}"#, text("k1")),
            (r#" { "z" : {"apikey":"no"} , "apikey" : "k1" } "#, text("k1")),
            (r#"{"z":["apikey","x"],"y":"\"apikey\":\"no\""}"#, Found::Nothing),
            (r#"{"\u0061pikey":"k\n1"}"#, text("k\n1")),
            (r#"{"apikey":"a","apikey":"b"}"#, text("b")),
            (r#"{"apikey":1}"#, Found::NoText),
            (r#"{"apikey":null}"#, Found::NoText),
            (r#"{"apikey":["k1"]}"#, Found::Several),
            (r#"{"apikey":{}}"#, Found::Several),
            (r#"{"apikey":"k1""#, Found::Nothing),
            (r#"["apikey"]"#, Found::Nothing),
            (r#""apikey""#, Found::Nothing),
            ("{}", Found::Nothing),
            ("", Found::Nothing),
        ];
        for (body, want) in cases {
            assert_eq!(Format::Json.find(body.as_bytes(), b"apikey"), want, "{body}");
        }
    }

    #[test]
    fn removing_a_json_member_keeps_the_others_to_the_byte() {
        let cases = [
            (r#"{"apikey":"k1","z":1}"#, Some(r#"{"z":1}"#)),
            (
                r#"{"a":12345678901234567890,"apikey":"k1","b": [1, 2]}"#,
                Some(r#"{"a":12345678901234567890,"b": [1, 2]}"#),
            ),
            (r#"{"apikey":"a","apikey":"b"}"#, Some("{}")),
            (r#"{"z":1}"#, None),
            ("[]", None),
        ];
        for (body, want) in cases {
            assert_eq!(Format::Json.without(body.as_bytes(), b"apikey").as_deref(), want.map(str::as_bytes), "{body}");
        }
    }

    const MULTIPART: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\n1 --x\r\n--xy\r\n--x\r\n\
        content-disposition: form-data; filename=\"name=apikey\"; name=\"apikey\"\r\nContent-Type: text/plain\r\n\r\nk1\r\n\
        --x--\r\n";

    #[test]
    fn multipart_values_are_found_and_removed() {
        let format = Format::Multipart { boundary: b"x" };
        assert_eq!(format.find(MULTIPART, b"apikey"), text("k1"));
        assert_eq!(format.find(MULTIPART, b"z"), text("1 --x\r\n--xy"));
        assert_eq!(format.find(MULTIPART, b"y"), Found::Nothing);
        let want = b"--x\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\n1 --x\r\n--xy\r\n--x--\r\n";
        assert_eq!(format.without(MULTIPART, b"apikey").as_deref(), Some(&want[..]));
        assert_eq!(format.without(MULTIPART, b"y"), None);
    }

    #[test]
    fn any_cut_of_a_body_is_harmless() {
        let json = br#"{"a":{"b":["\"]}",1]},"apikey":"k\u00e91","c":"\\"}"#;
        for (format, body) in [(Format::Json, &json[..]), (Format::Multipart { boundary: b"x" }, MULTIPART)] {
            for end in 0..body.len() {
                format.find(&body[..end], b"apikey");
                format.without(&body[end..], b"apikey");
                let mut scanner = Scanner { text: &body[end..], at: 0 };
                scanner.value();
            }
        }
    }
}
