//! HOT: nothing but borrows.
//! What of a request the head for an upstream is written from (spec/proxying.md sections 2 to 4).
//! Never: writes a field; [`UpstreamHead`] does.

use crate::balancer::Peer;
use crate::http::fields::Span;
use crate::http::framing::Framing;
use crate::http::hop;
use crate::http::upstream_head::SentBody;
use crate::http::upstream_head::UpstreamHead;
use crate::http::upstream_head::UpstreamName;
use crate::http::upstream_path::PathHandling;
use crate::http::upstream_path::UpstreamPath;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::state::spec::ServiceSpec;

impl Job<'_> {
    /// Writes the head for this peer into `x.out`.
    pub fn write_request_head(&mut self, service: &ServiceSpec, peer: &Peer, host_header: Option<&str>) {
        let port = self.port();
        let src = self.client.buf.bytes();
        let peer_ip = self.client.facts.peer.ip();
        let sends_id = self.rules.settings.headers_upstream.request_id;
        let x = &mut *self.x;
        hop::strip_request(&mut x.head.fields, src);
        let mut out = std::mem::take(&mut x.out);
        out.clear();
        let head = UpstreamHead {
            method: x.upstream_method(src),
            version: x.head.version,
            fields: &x.head.fields,
            src,
            target: x.upstream_path(src, service),
            raw_path: x.raw_path.of(src),
            host: x.host.map(|host| (host.of(src), x.host_name.of(src))),
            keeps_host: x.route.as_ref().is_some_and(|route| route.spec.preserve_host),
            upstream: UpstreamName { host: &peer.host, port: peer.addr.port(), host_header },
            host_replacement: Some(x.rewrite.host.as_slice()).filter(|host| !host.is_empty()),
            opens_websocket: x.opens_websocket,
            https: false,
            trusted: x.trusted,
            peer_ip,
            client_ip: x.client_ip.unwrap_or(peer_ip),
            port,
            request_id: sends_id.then_some(&x.request_id),
            body: x.sent_body(src),
        };
        head.write(out.vec_mut());
        x.out = out;
    }
}

impl Exchange {
    fn sent_body(&self, src: &[u8]) -> SentBody {
        match (&self.body_edit, self.body.framing()) {
            (Some(edited), _) => SentBody::Length(edited.len() as u64),
            (None, Framing::Empty) => SentBody::None,
            (None, Framing::Length(n)) => SentBody::Length(n),
            (None, Framing::Chunked) if self.body.is_complete() => SentBody::Length(self.body.kept_len(src)),
            (None, Framing::Chunked) => SentBody::Chunked,
        }
    }

    /// What the target that the upstream is asked for is built from.
    pub fn upstream_path<'a>(&'a self, src: &'a [u8], service: &'a ServiceSpec) -> UpstreamPath<'a> {
        let query = match &self.query_edit {
            Some(edited) => Some(edited.as_slice()).filter(|query| !query.is_empty()),
            None => self.query.map(|span: Span| span.of(src)),
        };
        let route = self.route.as_ref().map(|route| &route.spec);
        UpstreamPath {
            base: service.path.as_bytes(),
            path: &self.path,
            matched_len: self.hit.and_then(|hit| hit.matched_len),
            strip: route.is_some_and(|route| route.strip_path),
            handling: route.map_or(PathHandling::V0, |route| route.path_handling),
            query,
            replacement: Some(self.rewrite.path.as_slice()).filter(|path| !path.is_empty()),
        }
    }
}
