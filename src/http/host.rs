//! HOT: no allocation, no formatting.
//! Which host a request names (requirements 1.5; RFC 9112 section 3.2).
//! Owns: the count and the syntax of Host, and that an absolute target replaces it. Never: resolves or folds case.

use crate::http::head::{RequestHead, Version};
use crate::http::known::Known;
use crate::http::target::Target;
use std::net::Ipv6Addr;

/// A checked host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// As sent, with its port.
    pub text: &'a [u8],
    /// Without the port and without the dot that ends an absolute name; an IPv6 address keeps its brackets. Case as sent.
    pub name: &'a [u8],
    pub port: Option<u16>,
}

/// Why a request names no usable host. All are 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHost {
    Missing,
    Twice,
    Syntax,
}

impl BadHost {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        400
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no Host in HTTP/1.1",
            Self::Twice => "more than one Host",
            Self::Syntax => "malformed Host",
        }
    }
}

/// The host of a request: the authority of an absolute target, else the Host field. `None` for HTTP/1.0 without one.
///
/// # Errors
/// `BadHost` if there is not exactly one Host (at most one in HTTP/1.0), or it or the authority is malformed.
pub fn host_of<'a>(head: &'a RequestHead, src: &'a [u8], target: &Target<'a>) -> Result<Option<Host<'a>>, BadHost> {
    let mut lines = head.fields.values(src, Known::Host);
    let field = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(BadHost::Twice),
        (None, None) if head.version == Version::Http11 => return Err(BadHost::Missing),
        (None, None) => None,
        (Some(text), None) => Some(parse_host(text)?),
    };
    match target.authority {
        Some(authority) => Ok(Some(parse_host(authority)?)),
        None => Ok(field),
    }
}

/// Checks a host with an optional port.
///
/// # Errors
/// `BadHost::Syntax` for anything but a registered name, an IPv4 or a bracketed IPv6 address, and a port of
/// 1..=5 digits up to 65535.
pub fn parse_host(text: &[u8]) -> Result<Host<'_>, BadHost> {
    let name_len = match text {
        [b'[', ..] => bracketed_len(text)?,
        _ => text.iter().position(|&byte| byte == b':').unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at(name_len);
    if name.is_empty() || (name[0] != b'[' && !is_registered_name(name)) {
        return Err(BadHost::Syntax);
    }
    let port = match rest {
        [] => None,
        [b':', digits @ ..] => Some(parse_port(digits)?),
        _ => return Err(BadHost::Syntax),
    };
    let name = name.strip_suffix(b".").filter(|name| !name.is_empty()).unwrap_or(name);
    Ok(Host { text, name, port })
}

/// The length of a bracketed IPv6 address at the start of `text`.
fn bracketed_len(text: &[u8]) -> Result<usize, BadHost> {
    let close = text.iter().position(|&byte| byte == b']').ok_or(BadHost::Syntax)?;
    let address = std::str::from_utf8(&text[1..close]).map_err(|_| BadHost::Syntax)?;
    address.parse::<Ipv6Addr>().map_err(|_| BadHost::Syntax)?;
    Ok(close + 1)
}

/// RFC 3986's reg-name without the comma, which some recipients take for a list, and without empty labels.
fn is_registered_name(name: &[u8]) -> bool {
    const ALLOWED: [bool; 256] = {
        let mut table = [false; 256];
        let signs = b"-._~!$&'()*+;=%";
        let mut index = 0;
        while index < 256 {
            table[index] = (index as u8).is_ascii_alphanumeric();
            index += 1;
        }
        index = 0;
        while index < signs.len() {
            table[signs[index] as usize] = true;
            index += 1;
        }
        table
    };
    let mut before = 0;
    name.iter().all(|&byte| {
        let follows_dot = before == b'.';
        before = byte;
        ALLOWED[usize::from(byte)] && !(follows_dot && byte == b'.')
    })
}

fn parse_port(digits: &[u8]) -> Result<u16, BadHost> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHost::Syntax);
    }
    let port = digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(port).map_err(|_| BadHost::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{HeadLimits, parse_request};
    use crate::http::target::split_target;

    #[test]
    fn hosts_are_names_and_addresses_with_a_port() {
        let table: &[(&str, &str, Option<u16>)] = &[
            ("a", "a", None),
            ("Example.COM:8080", "Example.COM", Some(8080)),
            ("a_b-c.~d", "a_b-c.~d", None),
            (".example.com", ".example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:80", "example.com", Some(80)),
            ("127.0.0.1:0", "127.0.0.1", Some(0)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:65535", "[2001:db8::1]", Some(65535)),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
        ];
        for (text, name, port) in table {
            let want = Host { text: text.as_bytes(), name: name.as_bytes(), port: *port };
            assert_eq!(parse_host(text.as_bytes()), Ok(want));
        }
    }

    #[test]
    fn doubtful_hosts_are_refused() {
        let table: &[&[u8]] = &[
            b"",
            b":80",
            b"a b",
            b"a,b",
            b"u@a",
            b"u:p@a",
            b"a/b",
            b"a?b",
            b"a#b",
            b"a\\b",
            b"a..b",
            b"a:",
            b"a:x",
            b"a:-1",
            b"a:65536",
            b"a:99999",
            b"a:123456",
            b"a:1:2",
            b"::1",
            b"[::1",
            b"::1]",
            b"[]",
            b"[a]",
            b"[::1]x",
            b"[::1]:",
            b"[[::1]]",
            b"a[::1]",
            b"[::1%25eth0]",
            b"a\x00",
            b"a\x7f",
            b"caf\xc3\xa9",
            b"a\"b",
            b"<a>",
            b"a|b",
            b"a^b",
        ];
        for text in table {
            assert_eq!(parse_host(text), Err(BadHost::Syntax), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn there_is_one_host_and_an_absolute_target_replaces_it() {
        let table: &[(&str, Result<Option<&str>, BadHost>)] = &[
            ("GET / HTTP/1.1\r\nHost: a:1\r\n", Ok(Some("a:1"))),
            ("GET / HTTP/1.1\r\n", Err(BadHost::Missing)),
            ("GET / HTTP/1.0\r\n", Ok(None)),
            ("GET / HTTP/1.0\r\nHost: a\r\n", Ok(Some("a"))),
            ("GET / HTTP/1.1\r\nHost:\r\n", Err(BadHost::Syntax)),
            ("GET / HTTP/1.0\r\nHost:\r\n", Err(BadHost::Syntax)),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n", Err(BadHost::Twice)),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", Err(BadHost::Twice)),
            ("GET http://abs.test/ HTTP/1.1\r\nHost: other\r\n", Ok(Some("abs.test"))),
            ("GET http://abs.test:81 HTTP/1.0\r\n", Ok(Some("abs.test:81"))),
            ("GET http://abs.test/ HTTP/1.1\r\n", Err(BadHost::Missing)),
            ("GET http://abs.test/ HTTP/1.1\r\nHost: a b\r\n", Err(BadHost::Syntax)),
            ("GET http://u@abs.test/ HTTP/1.1\r\nHost: a\r\n", Err(BadHost::Syntax)),
        ];
        for (text, want) in table {
            let text = format!("{text}\r\n").into_bytes();
            let mut head = RequestHead::default();
            parse_request(&text, &HeadLimits::REQUEST, &mut head).unwrap();
            let target = split_target(head.target.of(&text), head.method).unwrap();
            let host = host_of(&head, &text, &target).map(|host| host.map(|host| host.text));
            assert_eq!(host, want.map(|want| want.map(str::as_bytes)), "{}", text.escape_ascii());
        }
    }
}
