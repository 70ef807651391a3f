//! HOT: one pass over the fields, straight into the output buffer.
//! The head that goes upstream (spec/proxying.md sections 2 to 4).
//! Owns: which fields of a request travel, and those that are written from our own values. Never: picks the upstream.
//! Always: no byte is passed on that was not parsed; what a peer may not set is ours.

use std::net::IpAddr;

use crate::http::encode::CRLF;
use crate::http::encode::push_field;
use crate::http::encode::push_field_u64;
use crate::http::encode::push_fields;
use crate::http::encode::push_ip;
use crate::http::encode::push_path_encoded;
use crate::http::encode::push_request_line;
use crate::http::encode::push_u64;
use crate::http::fields::Field;
use crate::http::fields::Fields;
use crate::http::head::Version;
use crate::http::hop;
use crate::http::known::Known;
use crate::http::upstream_path::UpstreamPath;
use crate::http::upstream_path::build_upstream_path;

/// Product token in `Server` and `Via`.
pub const PRODUCT: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));
/// What `Via` says of a message received over HTTP/1.1, respectively 1.0.
pub const VIA_HTTP11: &str = concat!("1.1 ringway/", env!("CARGO_PKG_VERSION"));
pub const VIA_HTTP10: &str = concat!("1 ringway/", env!("CARGO_PKG_VERSION"));

/// What a head for an upstream is written from. Texts of the client are as parsed.
#[derive(Clone, Copy)]
pub struct UpstreamHead<'a> {
    pub method: &'a [u8],
    /// Of the client's request.
    pub version: Version,
    /// Those of the client after [`hop::strip_request`], and the changes of plugins.
    pub fields: &'a Fields,
    /// The bytes that `fields` points into.
    pub src: &'a [u8],
    pub target: UpstreamPath<'a>,
    /// Request target up to the `?`, as sent; empty stands for `/`.
    pub raw_path: &'a [u8],
    /// The Host field as sent, and its name without the port; `None`: there was none.
    pub host: Option<(&'a [u8], &'a [u8])>,
    /// `preserve_host`.
    pub keeps_host: bool,
    pub upstream: UpstreamName<'a>,
    /// What `Host` says in place of all that.
    pub host_replacement: Option<&'a [u8]>,
    pub opens_websocket: bool,
    /// The client's connection is TLS.
    pub https: bool,
    /// Whether the direct peer's forwarding fields are believed.
    pub trusted: bool,
    pub peer_ip: IpAddr,
    /// After replacement by a trusted peer's header.
    pub client_ip: IpAddr,
    /// Of the listener, as clients see it.
    pub port: u16,
    /// `None`: it is not sent.
    pub request_id: Option<&'a [u8]>,
    pub body: SentBody,
}

/// What `Host` says to an upstream.
#[derive(Clone, Copy)]
pub struct UpstreamName<'a> {
    /// Of the target.
    pub host: &'a str,
    pub port: u16,
    /// `host_header` of the upstream, whatever the target.
    pub host_header: Option<&'a str>,
}

/// How the body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentBody {
    /// No body, and no length is said.
    None,
    Length(u64),
    Chunked,
}

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

impl UpstreamHead<'_> {
    /// Appends the whole head.
    pub fn write(&self, out: &mut Vec<u8>) {
        push_request_line(out, self.method, |out| build_upstream_path(&self.target, out));
        let via = if self.version == Version::Http10 { VIA_HTTP10 } else { VIA_HTTP11 };
        push_list_field(out, b"Via", self.fields.get(self.src, Known::Via), via.as_bytes());
        self.push_host(out);
        if self.opens_websocket {
            push_field(out, b"Upgrade", hop::WEBSOCKET);
            push_field(out, b"Connection", b"keep-alive, Upgrade");
        } else {
            push_field(out, b"Connection", b"keep-alive");
        }
        self.push_forwarded(out);
        if let Some(id) = self.request_id {
            push_field(out, b"X-Kong-Request-Id", id);
        }
        push_fields(out, self.fields, self.src, |field: &Field<'_>| !is_ours(field.known));
        match self.body {
            SentBody::None => {}
            SentBody::Length(len) => push_field_u64(out, b"Content-Length", len),
            SentBody::Chunked => push_field(out, b"Transfer-Encoding", b"chunked"),
        }
        out.extend_from_slice(CRLF);
    }

    /// Section 3: the client's Host where the route keeps it, else the upstream's name with the peer's port.
    fn push_host(&self, out: &mut Vec<u8>) {
        if let Some(host) = self.host_replacement {
            return push_field(out, b"Host", host);
        }
        if let Some((host, _)) = self.host.filter(|_| self.keeps_host) {
            return push_field(out, b"Host", host);
        }
        let UpstreamName { host, port, host_header } = self.upstream;
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(host_header.unwrap_or(host).as_bytes());
        // A port that the operator wrote into host_header is the last word.
        let has_port = host_header.is_some_and(|name| {
            name.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        });
        if port != 80 && !has_port {
            out.push(b':');
            push_u64(out, u64::from(port));
        }
        out.extend_from_slice(CRLF);
    }

    /// Section 4.2.
    fn push_forwarded(&self, out: &mut Vec<u8>) {
        let (fields, src) = (self.fields, self.src);
        let believed = |known| fields.get(src, known).filter(|_| self.trusted);
        out.extend_from_slice(b"X-Forwarded-For: ");
        match fields.get(src, Known::XForwardedFor) {
            Some(list) => {
                push_list_start(out, list);
                push_ip(out, self.peer_ip);
            }
            None => push_ip(out, self.client_ip),
        }
        out.extend_from_slice(CRLF);
        let scheme: &[u8] = if self.https { b"https" } else { b"http" };
        push_field(out, b"X-Forwarded-Proto", believed(Known::XForwardedProto).unwrap_or(scheme));
        match believed(Known::XForwardedHost) {
            Some(host) => push_field(out, b"X-Forwarded-Host", host),
            None => {
                out.extend_from_slice(b"X-Forwarded-Host: ");
                let own = self.host.map_or(&b"kong"[..], |(_, name)| name);
                out.extend(own.iter().map(u8::to_ascii_lowercase));
                out.extend_from_slice(CRLF);
            }
        }
        match believed(Known::XForwardedPort) {
            Some(text) => push_field(out, b"X-Forwarded-Port", text),
            None => push_field_u64(out, b"X-Forwarded-Port", u64::from(self.port)),
        }
        let path = if self.raw_path.is_empty() { b"/" } else { self.raw_path };
        push_field(out, b"X-Forwarded-Path", believed(Known::XForwardedPath).unwrap_or(path));
        match believed(Known::XForwardedPrefix) {
            Some(prefix) => push_field(out, b"X-Forwarded-Prefix", prefix),
            None => self.push_prefix(out),
        }
        out.extend_from_slice(b"X-Real-IP: ");
        push_ip(out, self.client_ip);
        out.extend_from_slice(CRLF);
    }

    /// The prefix that `strip_path` took off; nothing when that is nothing, or `/`.
    fn push_prefix(&self, out: &mut Vec<u8>) {
        let UpstreamPath { path, matched_len, strip, .. } = self.target;
        let Some(len) = matched_len.filter(|len| strip && *len > 0) else { return };
        let prefix = &path[..len.min(path.len())];
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
    push_list_start(out, before.unwrap_or_default());
    out.extend_from_slice(ours);
    out.extend_from_slice(CRLF);
}

fn push_list_start(out: &mut Vec<u8>, list: &[u8]) {
    if !list.is_empty() {
        out.extend_from_slice(list);
        out.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_field_goes_on_where_the_last_hop_ended() {
        let mut out = Vec::new();
        push_list_field(&mut out, b"Via", None, b"1.1 x");
        push_list_field(&mut out, b"Via", Some(b"1.0 a"), b"1.1 x");
        assert_eq!(out, b"Via: 1.1 x\r\nVia: 1.0 a, 1.1 x\r\n");
    }
}
