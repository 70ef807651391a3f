//! HOT: the rewritten head goes in front of the body in the buffer it was read into; both leave in one write.
//! An upstream's answer on its way to the client.
//! Owns: interim answers, the response head both ways (spec/proxying.md section 5). Never: passes on an unparsed byte.
//! Always: what is wrong before anything was sent is a failed try; what is wrong later is a visible truncation.

use crate::balancer::Pick;
use crate::http::encode::CRLF;
use crate::http::encode::push_field;
use crate::http::encode::push_field_u64;
use crate::http::encode::push_fields;
use crate::http::encode::push_status_line;
use crate::http::fields::Field;
use crate::http::framing::ResponseFraming;
use crate::http::framing::content_length;
use crate::http::framing::keep_alive;
use crate::http::framing::response_framing;
use crate::http::head::Method;
use crate::http::head::Version;
use crate::http::hop;
use crate::http::known::Known;
use crate::http::media::CHARSET_ROOM_BYTES;
use crate::http::media::with_charset;
use crate::http::parse::Progress;
use crate::http::parse::parse_response;
use crate::http::upstream_head::PRODUCT;
use crate::http::upstream_head::VIA_HTTP11;
use crate::http::upstream_head::push_list_field;
use crate::limits;
use crate::plugins::view::BodyUse;
use crate::proxy::buffers::Buf;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Broken;
use crate::proxy::fault::Fault;
use crate::proxy::forward::Failure;
use crate::proxy::io::ReadDone;
use crate::proxy::lane::Relay;
use crate::proxy::lane::park;
use crate::proxy::pool::UpstreamConn;
use crate::proxy::relay::Encoding;
use crate::proxy::relay::ResponseBody;
use crate::proxy::reply::Connection;
use crate::proxy::reply::push_latencies;
use crate::proxy::timeline::Times;
use crate::state::core::Links;
use crate::state::core::Route;
use crate::state::hashing::set_hash_cookie;
use crate::state::peers::CorePeers;
use crate::state::spec::ServiceSpec;

impl Job<'_> {
    /// Reads the upstream's answer and passes it on; the connection goes back to the pool if it can be used again.
    ///
    /// # Errors
    /// A failed try as long as nothing was sent to the client.
    pub async fn respond(
        &mut self,
        mut upstream: UpstreamConn,
        peers: &CorePeers,
        pick: Pick<'_>,
        service: &ServiceSpec,
        ended_early: bool,
    ) -> Result<(), Failure> {
        let addr = pick.peer.addr;
        let mut buf = self.read_response_head(&mut upstream, service).await?;
        if self.x.response.status == 101 {
            self.judge_head(peers, pick);
            return self.tunnel(upstream, buf, service).await.map_err(Failure::Fault);
        }
        let to_head = self.x.upstream_method(self.client.buf.bytes()) == b"HEAD";
        let framing = match response_framing(&self.x.response, buf.bytes(), to_head) {
            Ok(framing) => framing,
            Err(_) => return Err(self.broken_response(&upstream, buf)),
        };
        let response = &self.x.response;
        let reusable = !ended_early
            && keep_alive(response.version, &response.fields, buf.bytes())
            && framing != ResponseFraming::UntilClose
            && self.may_carry_more(&upstream);
        // A plugin may have asked with another method: then the upstream sent a body that the client does not expect.
        let drop_body = self.shape_response_head(buf.bytes()) || (self.x.head.method == Method::Head && !to_head);
        self.do_before_response().await;
        let holds = self.x.body_use == BodyUse::Whole && framing != ResponseFraming::Empty && !drop_body;
        let announced = match framing {
            _ if drop_body || (to_head && self.x.head.method != Method::Head) => ResponseFraming::Length(0),
            // How long a body becomes is not known before the plugins have had it.
            _ if holds => ResponseFraming::Chunked,
            framing => framing,
        };
        let encoding = self.encode_response_head(buf.bytes(), announced);
        buf.consume(self.x.response.len);
        let Some(mut body) = self.take_response_body(&mut buf, framing) else {
            return Err(self.broken_response(&upstream, buf));
        };
        if holds {
            buf = self.hold_response_body(&mut upstream, buf, &mut body, service).await?;
        }
        self.judge_head(peers, pick);
        self.x.answered = true;
        self.x.from_upstream = true;
        upstream.deadline.clear();
        if drop_body {
            // What is left of the body goes with its connection.
            self.core.buffers.give(buf);
            return Ok(self.write_out().await?);
        }
        if body.complete {
            self.x.end_answer(self.core.clock.now_us());
            if reusable && !body.surplus {
                park(self.core, addr, upstream);
            }
            self.send_whole(buf, encoding).await?;
            return Ok(());
        }
        self.frame_with_head(&mut buf, encoding, false);
        let relay = Relay {
            encoding,
            read_timeout_ms: service.read_timeout_ms,
            buffers: self.x.route.as_ref().is_none_or(|route| route.spec.response_buffering),
            reuse: reusable.then_some(addr),
        };
        Ok(self.relay_rest(upstream, buf, body, &relay).await?)
    }

    fn may_carry_more(&self, upstream: &UpstreamConn) -> bool {
        let max = self.rules.settings.upstream_keepalive_max_requests;
        max == 0 || upstream.requests < max
    }

    /// Reads up to the end of the final response head; it stands parsed in `x.response`, at the front of the buffer.
    async fn read_response_head(&mut self, upstream: &mut UpstreamConn, service: &ServiceSpec) -> Result<Buf, Failure> {
        upstream.deadline.arm(self.core.clock.now_ms() + service.read_timeout_ms);
        let mut interim = 0;
        let mut received = false;
        let (mut result, mut buf) = self.awaited(upstream).await?;
        loop {
            if !matches!(result, Ok(count) if count > 0) {
                let timed_out = upstream.deadline.is_over();
                self.core.buffers.give(buf);
                return Err(Failure::Broken(Broken {
                    timed_out,
                    ours: false,
                    sent: true,
                    stale: !received && !timed_out && upstream.requests > 1,
                    body_spent: self.x.body.is_spent(),
                }));
            }
            if !received {
                received = true;
                self.x.first_byte_us = self.core.clock.refresh();
                self.x.response.clear();
            }
            match parse_response(buf.bytes(), &self.rules.response_limits, &mut self.x.response) {
                Ok(Progress::Complete) if self.x.response.status >= 200 || self.switches_as_asked(&buf) => {
                    return Ok(buf);
                }
                Ok(Progress::Complete) => {
                    interim += 1;
                    // Nobody asked to switch to that.
                    if self.x.response.status == 101 || interim > limits::INTERIM_RESPONSES_MAX {
                        return Err(self.broken_response(upstream, buf));
                    }
                    self.pass_on_interim(&buf).await?;
                    buf.consume(self.x.response.len);
                    self.x.response.clear();
                    if !buf.is_empty() {
                        continue;
                    }
                    buf.clear_with_headroom(limits::RESPONSE_HEADROOM_BYTES);
                }
                Ok(Progress::NeedMore) => {}
                Err(_) => return Err(self.broken_response(upstream, buf)),
            }
            if buf.room() == 0 {
                buf.reserve(limits::UPSTREAM_READ_BYTES);
            }
            upstream.deadline.arm(self.core.clock.refresh() / 1000 + service.read_timeout_ms);
            upstream.conn.reader.start(buf);
            (result, buf) = self.awaited(upstream).await?;
        }
    }

    /// What the upstream sends next, as long as the client waits for it.
    async fn awaited(&mut self, upstream: &mut UpstreamConn) -> Result<ReadDone, Fault> {
        let done = upstream.conn.reader.done();
        match self.heeds_client() {
            true => self.client.unless_gone(done).await.ok_or(Fault::ClientGone),
            false => Ok(done.await),
        }
    }

    /// Begins to hear the client, if its going away is to end the request. A body that is still coming is read by others,
    /// who see the end.
    pub fn heeds_client(&mut self) -> bool {
        let heeds = self.x.body.is_complete() && !self.rules.settings.proxy_ignore_client_abort;
        if heeds {
            self.client.listen(self.core, self.x.body.taken());
        }
        heeds
    }

    /// Whether the head that was read switches to the WebSocket that the client asked for.
    fn switches_as_asked(&self, buf: &Buf) -> bool {
        let x = &*self.x;
        x.response.status == 101 && x.opens_websocket && hop::accepts_websocket(&x.response.fields, buf.bytes())
    }

    /// An answer that cannot be understood: 502 and the end of that connection.
    fn broken_response(&mut self, upstream: &UpstreamConn, buf: Buf) -> Failure {
        self.core.buffers.give(buf);
        let timed_out = upstream.deadline.is_over();
        Failure::Broken(Broken { timed_out, ours: false, sent: true, stale: false, body_spent: self.x.body.is_spent() })
    }

    /// 102 to 199 go to clients that can know them; 100 was answered by ourselves (requirements section 1.11).
    async fn pass_on_interim(&mut self, buf: &Buf) -> Result<(), Failure> {
        if self.x.response.status == 100 || self.x.head.version == Version::Http10 {
            return Ok(());
        }
        let x = &mut *self.x;
        hop::strip_response(&mut x.response.fields, buf.bytes(), None, false);
        x.out.clear();
        let out = x.out.vec_mut();
        push_status_line(out, x.response.status, x.response.reason.of(buf.bytes()));
        push_fields(out, &x.response.fields, buf.bytes(), |field: &Field<'_>| field.known != Known::ContentLength);
        out.extend_from_slice(CRLF);
        self.write_out().await.map_err(Failure::Fault)
    }

    /// Makes the response's fields what the client gets; plugins have their say. Answers whether the body is to be dropped.
    pub fn shape_response_head(&mut self, src: &[u8]) -> bool {
        let x = &mut *self.x;
        x.status = x.response.status;
        let fields = &mut x.response.fields;
        hop::strip_response(fields, src, x.opens_websocket.then_some(hop::WEBSOCKET), x.accepts_trailers);
        // Headers that plugins set in the access phase go out with whatever response follows.
        for field in x.reply.fields.iter(&[]) {
            fields.set_by_name(src, field.name, field.value);
        }
        if !x.hash_cookie.is_empty() {
            set_hash_cookie(fields, src, &x.hash_cookie);
        }
        let drop_body = self.run_response_head(Some(src), true);
        // Behind the plugins, as in Kong: they see the type as the upstream told it.
        let fields = &mut self.x.response.fields;
        let mut room = [0u8; CHARSET_ROOM_BYTES];
        let content_type = fields.get(src, Known::ContentType);
        if let Some(value) = content_type.and_then(|value| with_charset(value, &mut room)) {
            fields.set(Known::ContentType, value);
        }
        drop_body
    }

    /// Writes the head for the client into `x.out`; says how the body is to be framed.
    pub fn encode_response_head(&mut self, src: &[u8], framing: ResponseFraming) -> Encoding {
        let rules = self.rules;
        let x = &mut *self.x;
        let upstream_latency_us = x.first_byte_us.saturating_sub(x.handed_over_us.unwrap_or(x.first_byte_us));
        let proxy_latency_us = x.handed_over_us.unwrap_or(x.started_us).saturating_sub(x.started_us);
        let may_chunk = x.head.version == Version::Http11;
        let encoding = match framing {
            ResponseFraming::Chunked | ResponseFraming::UntilClose if may_chunk => Encoding::Chunked,
            ResponseFraming::Chunked | ResponseFraming::UntilClose => {
                x.keep = false;
                Encoding::UntilClose
            }
            ResponseFraming::Empty | ResponseFraming::Length(_) => Encoding::Sized,
        };
        x.keep &= x.body.may_drain() && !self.core.draining.get();
        x.out.clear();
        let out = x.out.vec_mut();
        let reason = if x.status == x.response.status { x.response.reason.of(src) } else { b"" };
        push_status_line(out, x.status, reason);
        let fields = &x.response.fields;
        let length = match framing {
            ResponseFraming::Length(n) => Some(n),
            // Of an answer without a body it is what it would have been: it is kept (RFC 9110 section 8.6).
            ResponseFraming::Empty if !matches!(x.response.status, 101 | 204) => {
                content_length(fields, src).ok().flatten()
            }
            _ => None,
        };
        let headers = rules.settings.headers;
        let (mut dates, mut servers) = (0, 0);
        push_fields(out, fields, src, |field| match field.known {
            Known::ContentLength => false,
            Known::XKongRequestId => !headers.request_id,
            Known::Via => !headers.via,
            Known::XKongUpstreamLatency => !headers.upstream_latency,
            Known::XKongProxyLatency => !headers.proxy_latency,
            Known::XKongUpstreamStatus => !headers.upstream_status,
            // Fields of which there can be one: the first counts.
            Known::Date => is_first(&mut dates),
            Known::Server => is_first(&mut servers),
            _ => true,
        });
        match (length, encoding) {
            (Some(n), _) => push_field_u64(out, b"Content-Length", n),
            (_, Encoding::Chunked) => push_field(out, b"Transfer-Encoding", b"chunked"),
            _ => {}
        }
        if !fields.has(Known::Date) {
            push_field(out, b"Date", &self.core.clock.date());
        }
        match x.response.status {
            101 => push_field(out, b"Connection", b"Upgrade"),
            _ => Connection { keep: x.keep, upgrade: fields.has(Known::Upgrade) }.push(out),
        }
        push_latencies(out, rules, proxy_latency_us, upstream_latency_us);
        if headers.upstream_status {
            push_field_u64(out, b"X-Kong-Upstream-Status", u64::from(x.response.status));
        }
        if headers.server && !fields.has(Known::Server) {
            push_field(out, b"Server", PRODUCT.as_bytes());
        }
        if headers.via {
            push_list_field(out, b"Via", fields.get(src, Known::Via), VIA_HTTP11.as_bytes());
        }
        if headers.request_id {
            push_field(out, b"X-Kong-Request-Id", &x.request_id);
        }
        if rules.settings.allow_debug_header && x.head.fields.has(Known::KongDebug) {
            push_debug(out, x.route.as_deref(), x.links.as_deref());
        }
        if let Some(timeline) = &x.timeline {
            let times = Times {
                started_us: x.started_us,
                now_us: self.core.clock.refresh(),
                handed_over_us: x.handed_over_us,
                first_byte_us: Some(x.first_byte_us),
                last_byte_us: None,
            };
            timeline.push_header(&x.request_id, &times, out);
        }
        out.extend_from_slice(CRLF);
        if x.ships || rules.logged.as_ref().is_some_and(|logged| logged.sent_head) {
            x.keep_sent_head();
        }
        encoding
    }

    /// Receives a body that a plugin wants whole, and lets the plugins have it. A body that is too long passes them by:
    /// then what was received is given back, and the rest is still to come.
    ///
    /// # Errors
    /// A failed try: nothing was sent to the client yet.
    async fn hold_response_body(
        &mut self,
        upstream: &mut UpstreamConn,
        mut buf: Buf,
        body: &mut ResponseBody,
        service: &ServiceSpec,
    ) -> Result<Buf, Failure> {
        let mut held = std::mem::take(&mut self.x.held);
        held.clear();
        held.extend_from_slice(buf.bytes());
        while !body.complete && held.len() <= limits::RESPONSE_BODY_HELD_BYTES {
            upstream.deadline.arm(self.core.clock.refresh() / 1000 + service.read_timeout_ms);
            buf.clear();
            let (result, back) = upstream.conn.reader.read(buf).await;
            buf = back;
            let taken = match result {
                Ok(count) if count > 0 => body.take(&mut buf).is_some(),
                Ok(_) if body.ends_with_connection() && !upstream.deadline.is_over() => {
                    body.complete = true;
                    true
                }
                _ => false,
            };
            if !taken {
                return Err(self.broken_response(upstream, buf));
            }
            held.extend_from_slice(buf.bytes());
        }
        self.x.held = held;
        if body.complete {
            self.run_response_body();
        }
        buf.clear_with_headroom(limits::RESPONSE_HEADROOM_BYTES);
        buf.extend(&self.x.held);
        Ok(buf)
    }
}

/// Counts one more; whether it is the first.
fn is_first(count: &mut u32) -> bool {
    *count += 1;
    *count == 1
}

/// Which route and service served the request, for those who ask with `Kong-Debug` (spec/router.md section 11).
pub fn push_debug(out: &mut Vec<u8>, route: Option<&Route>, links: Option<&Links>) {
    let mut push = |name: &[u8], text: Option<&str>| {
        if let Some(text) = text {
            push_field(out, name, text.as_bytes());
        }
    };
    if let Some(route) = route {
        push(b"Kong-Route-Id", Some(&route.spec.id_text));
        push(b"Kong-Route-Name", route.spec.name.as_deref());
    }
    if let Some(service) = links.and_then(|links| links.service.as_deref()) {
        push(b"Kong-Service-Id", Some(&service.spec.id_text));
        push(b"Kong-Service-Name", service.spec.name.as_deref());
    }
}
