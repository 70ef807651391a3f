//! HOT: no allocation after warm-up, no lock.
//! What of a request decides where it goes: its target, its host, the client behind trusted proxies.
//! Never: looks at a body or at a connection; both the proxy and `POST /explain` ask here, so that they cannot differ.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::config::RealIpSource;
use crate::config::Settings;
use crate::http::fields::Fields;
use crate::http::fields::Span;
use crate::http::head::RequestHead;
use crate::http::host::host_of;
use crate::http::known::Known;
use crate::http::parse::HeadLimits;
use crate::http::target::Form;
use crate::http::target::normalize_path;
use crate::http::target::split_target;
use crate::plugins::view::PathCapture;
use crate::plugins::view::PathCaptures;
use crate::router::Hit;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::header_name_matches;
use crate::state::spec::RouteSpec;

/// What of the head of a request is bounded, and how.
pub fn request_limits(settings: &Settings) -> HeadLimits {
    HeadLimits {
        line_bytes_max: settings.client_request_line_bytes_max as usize,
        field_bytes_max: (settings.client_head_bytes_max as usize).min(HeadLimits::REQUEST.field_bytes_max),
        head_bytes_max: settings.client_head_bytes_max as usize,
        fields_max: settings.client_head_fields_max as usize,
    }
}

/// What is said when nothing matches, respectively when what matches leads nowhere.
pub const NO_ROUTE: &str = "no Route matched with those values";
pub const NO_SERVICE: &str = "no Service found with those values";

/// Where a request wants to go, as spans into the bytes of its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aim {
    /// Request target up to the `?`; empty: `/`.
    pub raw_path: Span,
    /// Behind the `?`.
    pub query: Option<Span>,
    /// Of an absolute target, else of the Host field; with and without its port.
    pub host: Option<Span>,
    pub host_name: Span,
}

/// Why a request is refused before anything else is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAim {
    pub status: u16,
    /// What was wrong.
    pub reason: &'static str,
}

/// Reads target and host of a parsed head and leaves the normalised path in `path` (requirements sections 1.5 and 1.6).
///
/// # Errors
/// The status to answer.
pub fn read_aim(head: &RequestHead, src: &[u8], path: &mut Vec<u8>) -> Result<Aim, BadAim> {
    let bad = |status, reason| BadAim { status, reason };
    let target = split_target(head.target.of(src), head.method).map_err(|e| bad(e.status(), e.reason()))?;
    if !matches!(target.form, Form::Origin | Form::Absolute) {
        return Err(bad(400, "the request target is no path"));
    }
    let host = host_of(head, src, &target).map_err(|e| bad(e.status(), e.reason()))?;
    let normal = normalize_path(target.path, path).map_err(|e| bad(e.status(), e.reason()))?;
    if std::ptr::eq(normal, target.path) {
        path.clear();
        path.extend_from_slice(target.path);
    }
    Ok(Aim {
        raw_path: span_in(src, target.path),
        query: target.query.map(|query| span_in(src, query)),
        host: host.map(|host| span_in(src, host.text)),
        host_name: host.map_or(Span::EMPTY, |host| span_in(src, host.name)),
    })
}

/// The client's address, and whether the peer's forwarding fields are believed (spec/proxying.md section 4.1). `preface`:
/// what the PROXY protocol said.
pub fn client_of(
    settings: &Settings,
    fields: &Fields,
    src: &[u8],
    peer: IpAddr,
    preface: Option<IpAddr>,
) -> (IpAddr, bool) {
    let trusted = settings.trusted_ips.contains(Some(peer));
    let client_ip = match &settings.real_ip_header {
        _ if !trusted => peer,
        RealIpSource::ProxyProtocol => preface.unwrap_or(peer),
        RealIpSource::Header(name) => real_ip(settings, fields, src, name, peer),
    };
    (client_ip, trusted)
}

/// What the named header says. Of several lines the first counts, but those of X-Forwarded-For are one list, as in nginx: a
/// proxy may put the address that it saw on a line of its own behind whatever the client sent.
fn real_ip(settings: &Settings, fields: &Fields, src: &[u8], name: &str, peer: IpAddr) -> IpAddr {
    let lines = || fields.values_by_name(src, name.as_bytes());
    let count = if Known::of(name.as_bytes()) == Known::XForwardedFor { lines().count() } else { 1 };
    let words = (0..count).rev().filter_map(|at| lines().nth(at)).flat_map(|line| line.rsplit(|byte| *byte == b','));
    let mut found = peer;
    for word in words {
        let Some(ip) = std::str::from_utf8(word.trim_ascii()).ok().and_then(ip_of) else { break };
        found = ip;
        if !settings.real_ip_recursive || !settings.trusted_ips.contains(Some(ip)) {
            break;
        }
    }
    found
}

/// An address as forwarding headers carry it: with brackets and a port, or without.
fn ip_of(word: &str) -> Option<IpAddr> {
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    bare.parse().ok().or_else(|| word.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
}

/// Request headers as the router asks for them.
pub struct HeadFields<'a> {
    pub fields: &'a Fields,
    /// The bytes that `fields` points into.
    pub src: &'a [u8],
}

impl HeaderSource for HeadFields<'_> {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) {
        for field in self.fields.iter(self.src) {
            if header_name_matches(name, field.name) && f(field.value) {
                return;
            }
        }
    }
}

/// What the route's path regex caught, found only if a plugin asks.
pub struct Captured<'a> {
    pub route: Option<&'a RouteSpec>,
    pub hit: Option<Hit>,
    /// Normalised.
    pub path: &'a [u8],
}

impl PathCaptures for Captured<'_> {
    fn each(&self, tell: &mut dyn FnMut(PathCapture<'_>)) {
        let (Some(route), Some(hit)) = (self.route, self.hit) else { return };
        let Some(captures) = route.matchers.captures(&hit, self.path) else { return };
        for (_, name, text) in captures.iter().filter(|(number, ..)| *number > 0) {
            tell(PathCapture { name, text });
        }
    }
}

/// Where a piece of the buffer lies in it.
fn span_in(src: &[u8], piece: &[u8]) -> Span {
    match (piece.as_ptr() as usize).checked_sub(src.as_ptr() as usize) {
        Some(start) if start + piece.len() <= src.len() => Span::new(start, piece.len()),
        // A constant such as the `/` of an absolute target without a path.
        _ => Span::EMPTY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::http::parse::parse_request;

    #[test]
    fn an_address_may_come_with_a_port() {
        for (word, want) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:80", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("[::1]:80", Some("::1")),
            ("unix:", None),
            ("", None),
            ("10.0.0.1:x", None),
        ] {
            assert_eq!(ip_of(word), want.map(|ip| ip.parse().unwrap()), "{word}");
        }
    }

    #[test]
    fn of_several_lines_the_first_counts_and_those_of_x_forwarded_for_are_one_list() {
        let peer = "127.0.0.1".parse().unwrap();
        for (header, recursive, lines, want) in [
            ("X-Real-IP", "off", "X-Real-IP: 1.1.1.1\r\nx-real-ip: 2.2.2.2\r\n", "1.1.1.1"),
            ("X-Client", "off", "X-Client: 1.1.1.1, 3.3.3.3\r\nX-Client: 2.2.2.2\r\n", "3.3.3.3"),
            ("X-Forwarded-For", "off", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 3.3.3.3, 2.2.2.2\r\n", "2.2.2.2"),
            ("x-forwarded-for", "on", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 127.0.0.1\r\n", "1.1.1.1"),
            ("X-Forwarded-For", "on", "X-Forwarded-For: 127.0.0.1\r\n", "127.0.0.1"),
            ("X-Forwarded-For", "on", "X-Forwarded-For: 1.1.1.1, junk\r\n", "127.0.0.1"),
        ] {
            let flags = [("trusted_ips", "127.0.0.1"), ("real_ip_header", header), ("real_ip_recursive", recursive)];
            let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let settings = Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings;
            let src = format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
            let mut head = RequestHead::default();
            parse_request(&src, &request_limits(&settings), &mut head).unwrap();
            let found = client_of(&settings, &head.fields, &src, peer, None);
            assert_eq!(found, (want.parse().unwrap(), true), "{header} {recursive} {lines}");
        }
    }

    #[test]
    fn a_span_is_found_in_its_buffer_and_nowhere_else() {
        let src = b"GET /x HTTP/1.1".as_slice();
        assert_eq!(span_in(src, &src[4..6]), Span::new(4, 2));
        assert_eq!(span_in(src, b"elsewhere"), Span::EMPTY);
    }
}
