//! HOT: one pass over the fields, straight into the output buffer.
//! The head that goes upstream (spec/proxying.md sections 2 to 4).
//! Never: passes on a byte that was not parsed; what a peer may not set is written from our own values.

use std::io::Write;
use std::net::IpAddr;

use crate::balancer::Peer;
use crate::http::encode::CRLF;
use crate::http::encode::push_field;
use crate::http::encode::push_field_u64;
use crate::http::encode::push_path_encoded;
use crate::http::encode::push_request_line;
use crate::http::encode::push_u64;
use crate::http::fields::Field;
use crate::http::framing::Framing;
use crate::http::head::Version;
use crate::http::hop;
use crate::http::known::Known;
use crate::http::upstream_path::PathHandling;
use crate::http::upstream_path::UpstreamPath;
use crate::http::upstream_path::build_upstream_path;
use crate::proxy::core::VIA_HTTP10;
use crate::proxy::core::VIA_HTTP11;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::state::spec::ServiceSpec;

/// Fields that are written from our own values instead of copied.
fn is_ours(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::Via
            | Known::ContentLength
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedPath
            | Known::XForwardedPrefix
            | Known::XRealIp
            | Known::XKongRequestId
    )
}

impl Job<'_> {
    /// Writes the head for this peer into `x.out`.
    pub fn write_request_head(&mut self, service: &ServiceSpec, peer: &Peer, host_header: Option<&str>) {
        let port = self.port();
        let src = self.client.buf.bytes();
        let peer_ip = self.client.facts.peer.ip();
        let body_len = self.x.upstream_body_len(src);
        let sends_id = self.rules.settings.headers_upstream.request_id;
        let x = &mut *self.x;
        hop::strip_request(&mut x.head.fields, src);
        let mut out = std::mem::take(&mut x.out);
        out.clear();
        let bytes = out.vec_mut();
        let x = &*x;
        push_request_line(bytes, x.head.method_span.of(src), |out| x.push_target(src, service, out));
        x.push_via(src, bytes);
        x.push_host(src, peer, host_header, bytes);
        if x.opens_websocket {
            push_field(bytes, b"Upgrade", hop::WEBSOCKET);
            push_field(bytes, b"Connection", b"keep-alive, Upgrade");
        } else {
            push_field(bytes, b"Connection", b"keep-alive");
        }
        x.push_forwarded(src, peer_ip, port, bytes);
        if sends_id {
            push_field(bytes, b"X-Kong-Request-Id", &x.request_id);
        }
        crate::http::encode::push_fields(bytes, &x.head.fields, src, |field: &Field<'_>| !is_ours(field.known));
        match body_len {
            Some(len) => push_field_u64(bytes, b"Content-Length", len),
            None if x.body.framing() == Framing::Chunked => push_field(bytes, b"Transfer-Encoding", b"chunked"),
            None => {}
        }
        bytes.extend_from_slice(CRLF);
        self.x.out = out;
    }
}

impl Exchange {
    /// The length to announce upstream; `None`: no body, or one of unknown length.
    fn upstream_body_len(&self, src: &[u8]) -> Option<u64> {
        match (&self.body_edit, self.body.framing()) {
            (Some(edited), _) => Some(edited.len() as u64),
            (None, Framing::Empty) => None,
            (None, Framing::Length(n)) => Some(n),
            (None, Framing::Chunked) => self.body.is_complete().then(|| self.body.kept_len(src)),
        }
    }

    /// Appends the target that the upstream is asked for.
    pub fn push_target(&self, src: &[u8], service: &ServiceSpec, out: &mut Vec<u8>) {
        let query = match &self.query_edit {
            Some(edited) => Some(edited.as_slice()).filter(|query| !query.is_empty()),
            None => self.query.map(|span| span.of(src)),
        };
        let route = self.route.as_ref().map(|route| &route.spec);
        let parts = UpstreamPath {
            base: service.path.as_bytes(),
            path: &self.path,
            matched_len: self.hit.and_then(|hit| hit.matched_len),
            strip: route.is_some_and(|route| route.strip_path),
            handling: route.map_or(PathHandling::V0, |route| route.path_handling),
            query,
        };
        build_upstream_path(&parts, out);
    }

    fn push_via(&self, src: &[u8], out: &mut Vec<u8>) {
        let ours = if self.head.version == Version::Http10 { VIA_HTTP10 } else { VIA_HTTP11 };
        push_list_field(out, b"Via", self.head.fields.get(src, Known::Via), ours.as_bytes());
    }

    /// Section 3: the client's Host where the route keeps it, else the upstream's name with the peer's port.
    fn push_host(&self, src: &[u8], peer: &Peer, host_header: Option<&str>, out: &mut Vec<u8>) {
        let keeps = self.route.as_ref().is_some_and(|route| route.spec.preserve_host);
        if let Some(host) = self.host.filter(|_| keeps) {
            return push_field(out, b"Host", host.of(src));
        }
        let name = host_header.unwrap_or(&peer.host);
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(name.as_bytes());
        // A port that the operator wrote into host_header is the last word.
        let has_port = host_header.is_some_and(|name| {
            name.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        });
        if peer.addr.port() != 80 && !has_port {
            out.push(b':');
            push_u64(out, u64::from(peer.addr.port()));
        }
        out.extend_from_slice(CRLF);
    }

    /// Section 4.2.
    fn push_forwarded(&self, src: &[u8], peer: IpAddr, port: u16, out: &mut Vec<u8>) {
        let fields = &self.head.fields;
        let believed = |known| fields.get(src, known).filter(|_| self.trusted);
        let client_ip = IpText::new(self.client_ip.unwrap_or(peer));
        match fields.get(src, Known::XForwardedFor) {
            Some(list) => push_list_field(out, b"X-Forwarded-For", Some(list), IpText::new(peer).bytes()),
            None => push_field(out, b"X-Forwarded-For", client_ip.bytes()),
        }
        push_field(out, b"X-Forwarded-Proto", believed(Known::XForwardedProto).unwrap_or(b"http"));
        match believed(Known::XForwardedHost) {
            Some(host) => push_field(out, b"X-Forwarded-Host", host),
            None => {
                out.extend_from_slice(b"X-Forwarded-Host: ");
                let own = if self.host.is_some() { self.host_name.of(src) } else { b"kong" };
                out.extend(own.iter().map(u8::to_ascii_lowercase));
                out.extend_from_slice(CRLF);
            }
        }
        match believed(Known::XForwardedPort) {
            Some(text) => push_field(out, b"X-Forwarded-Port", text),
            None => push_field_u64(out, b"X-Forwarded-Port", u64::from(port)),
        }
        let path: &[u8] = if self.raw_path.is_empty() { b"/" } else { self.raw_path.of(src) };
        push_field(out, b"X-Forwarded-Path", believed(Known::XForwardedPath).unwrap_or(path));
        match believed(Known::XForwardedPrefix) {
            Some(prefix) => push_field(out, b"X-Forwarded-Prefix", prefix),
            None => self.push_prefix(out),
        }
        push_field(out, b"X-Real-IP", client_ip.bytes());
    }

    /// The prefix that `strip_path` took off; nothing when that is nothing, or `/`.
    fn push_prefix(&self, out: &mut Vec<u8>) {
        let strips = self.route.as_ref().is_some_and(|route| route.spec.strip_path);
        let Some(len) = self.hit.and_then(|hit| hit.matched_len).filter(|len| strips && *len > 0) else { return };
        let prefix = &self.path[..len.min(self.path.len())];
        if prefix == b"/" {
            return;
        }
        out.extend_from_slice(b"X-Forwarded-Prefix: ");
        push_path_encoded(out, prefix);
        out.extend_from_slice(CRLF);
    }
}

/// A list field: what came before, a comma, and our element.
pub fn push_list_field(out: &mut Vec<u8>, name: &[u8], before: Option<&[u8]>, ours: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    if let Some(list) = before.filter(|list| !list.is_empty()) {
        out.extend_from_slice(list);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(ours);
    out.extend_from_slice(CRLF);
}

/// An address as text, without an allocation.
struct IpText {
    text: [u8; 46],
    len: usize,
}

impl IpText {
    fn new(ip: IpAddr) -> Self {
        let mut new = Self { text: [0; 46], len: 0 };
        match ip.to_canonical() {
            // By hand: the usual case, and several times quicker than the formatter.
            IpAddr::V4(ip) => {
                for (place, octet) in ip.octets().into_iter().enumerate() {
                    if place > 0 {
                        new.push(b'.');
                    }
                    if octet >= 100 {
                        new.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        new.push(b'0' + octet / 10 % 10);
                    }
                    new.push(b'0' + octet % 10);
                }
            }
            IpAddr::V6(ip) => {
                let mut rest = &mut new.text[..];
                // The longest form is 39 bytes.
                let _ = write!(rest, "{ip}");
                new.len = 46 - rest.len();
            }
        }
        new
    }

    fn push(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_their_shortest_usual_form() {
        let check = |ip: &str, want: &str| assert_eq!(IpText::new(ip.parse().unwrap()).bytes(), want.as_bytes());
        check("127.0.0.1", "127.0.0.1");
        check("255.100.99.10", "255.100.99.10");
        check("::1", "::1");
        check("::ffff:10.1.2.3", "10.1.2.3");
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        check(longest, longest);
    }

    #[test]
    fn a_list_field_goes_on_where_the_last_hop_ended() {
        let mut out = Vec::new();
        push_list_field(&mut out, b"Via", None, b"1.1 x");
        push_list_field(&mut out, b"Via", Some(b"1.0 a"), b"1.1 x");
        assert_eq!(out, b"Via: 1.1 x\r\nVia: 1.0 a, 1.1 x\r\n");
    }
}
