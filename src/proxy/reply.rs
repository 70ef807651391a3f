//! HOT for plugins' answers; no allocation after warm-up.
//! Answers that the gateway makes itself, and what every answer carries.
//! Owns: the head and body of error pages and plugin replies (spec/proxying.md sections 5 and 7).
//! Never: touches what an upstream answered.

use crate::http::encode::CRLF;
use crate::http::encode::push_field;
use crate::http::encode::push_field_u64;
use crate::http::encode::push_fields;
use crate::http::encode::push_status_line;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::http::media::CHARSET_ROOM_BYTES;
use crate::http::media::with_charset;
use crate::http::reply::EXIT_CONTENT_TYPE;
use crate::http::reply::ErrorFormat;
use crate::http::reply::Message;
use crate::http::reply::STUB_CONTENT_TYPE;
use crate::http::reply::exit_body_len;
use crate::http::reply::has_error_page;
use crate::http::reply::push_exit_body;
use crate::http::reply::render;
use crate::http::reply::render_stub;
use crate::http::reply::rendered_len;
use crate::http::reply::stub_len;
use crate::http::upstream_head::PRODUCT;
use crate::http::upstream_head::VIA_HTTP11;
use crate::limits;
use crate::plugins::view::BodyUse;
use crate::plugins::view::Reply;
use crate::plugins::view::ReplyKind;
use crate::proxy::connection::Client;
use crate::proxy::core::Core;
use crate::proxy::core::Rules;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::proxy::exchange::Next;
use crate::proxy::fault::Fault;
use crate::proxy::respond::push_debug;
use crate::proxy::timeline::Times;

/// The body of an answer that the gateway makes.
#[derive(Clone, Copy)]
enum Page {
    /// An error page of the HTTP layer, with the text of this status.
    Error { text_of: u16 },
    /// What stands in the exchange's reply.
    Reply(ReplyKind),
}

/// Where the body of an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Rendered into the output as it goes.
    OfPage,
    /// In `x.held`.
    Held,
}

impl Job<'_> {
    /// Answers a fault, if there is anybody to answer.
    ///
    /// # Errors
    /// The fault itself, when nothing can be said any more.
    pub async fn answer(&mut self, fault: Fault) -> Result<(), Fault> {
        if self.x.links.is_none() && !matches!(fault, Fault::ClientGone | Fault::Truncated) {
            // Refused before a route was looked for.
            self.x.links = Some(self.core.state.borrow().links_unmatched());
            self.collect_global();
        }
        match fault {
            Fault::ClientGone | Fault::Truncated => Err(fault),
            Fault::Reply => {
                self.x.keep &= self.body_allows_keeping();
                let kind = self.x.reply.kind;
                if kind == ReplyKind::Stored {
                    // What an upstream said once counts as proxied.
                    self.x.handed_over_us = Some(self.core.clock.refresh());
                }
                self.send(self.x.reply.status, Page::Reply(kind)).await
            }
            Fault::Refused { status, text_of } => {
                self.x.keep = false;
                self.send(status, Page::Error { text_of }).await
            }
            Fault::Upstream { status } => {
                self.x.keep &= self.body_allows_keeping();
                self.send(status, Page::Error { text_of: status }).await
            }
        }
    }

    async fn send(&mut self, status: u16, page: Page) -> Result<(), Fault> {
        let now_us = self.core.clock.refresh();
        self.x.replied_us = Some(now_us);
        self.x.status = status;
        self.prepare_fields(status, page);
        let drop_body = self.run_response_head(None, self.x.handed_over_us.is_some());
        self.do_before_response().await;
        if self.x.body_use == BodyUse::Pass && !drop_body {
            self.encode(self.x.status, page, Body::OfPage);
        } else {
            self.render_for_plugins(status, page, drop_body);
            self.encode(self.x.status, page, Body::Held);
        }
        self.x.answered = true;
        self.write_out().await?;
        self.send_rest_of_stored().await
    }

    /// Sends what of a long stored body did not go with the head.
    async fn send_rest_of_stored(&mut self) -> Result<(), Fault> {
        let Some(stored) = self.x.reply.stored.take() else { return Ok(()) };
        let mut at = std::mem::take(&mut self.x.stored_bytes_out);
        while at > 0 && at < stored.body.len() {
            let piece = &stored.body[at..stored.body.len().min(at + limits::STREAM_BUFFER_BYTES)];
            self.x.out.clear();
            self.x.out.extend(piece);
            at += piece.len();
            self.write_out().await?;
        }
        Ok(())
    }

    /// Leaves the body in `x.held`, after plugins that wanted it have had it.
    fn render_for_plugins(&mut self, status: u16, page: Page, drop_body: bool) {
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        x.held.clear();
        if drop_body || !has_body(x.status) || x.head.method == Method::Head {
            return;
        }
        let text = std::str::from_utf8(&x.reply.text).unwrap_or_default();
        match page {
            Page::Error { .. } if !has_error_page(status) => render_stub(status, &mut x.held),
            Page::Error { text_of } => {
                let format = ErrorFormat::for_error_page(&x.head.fields, src, self.rules.error_format);
                render(&self.rules.templates, format, Message::Status(text_of), &x.request_id, &mut x.held);
            }
            Page::Reply(ReplyKind::Gateway) => {
                let format = ErrorFormat::for_gateway_error(&x.head.fields, src);
                render(&self.rules.templates, format, Message::Text(text), &x.request_id, &mut x.held);
            }
            Page::Reply(ReplyKind::Exit) => push_exit_body(text, &mut x.held),
            Page::Reply(ReplyKind::Raw) => x.held.extend_from_slice(&x.reply.text),
            Page::Reply(ReplyKind::Stored) => x.held.extend_from_slice(stored_body(&x.reply)),
            Page::Reply(ReplyKind::Empty) => {}
        }
        self.run_response_body();
        let held = std::mem::take(&mut self.x.held);
        self.x.show_piece(self.core, &held, true);
        self.x.held = held;
    }

    /// Content-Type and the headers of an answer, where plugins can still change them.
    fn prepare_fields(&mut self, status: u16, page: Page) {
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let mut room = [0u8; CHARSET_ROOM_BYTES];
        let content_type: &[u8] = match page {
            Page::Error { .. } if has_error_page(status) => {
                ErrorFormat::for_error_page(&x.head.fields, src, self.rules.error_format).content_type().as_bytes()
            }
            Page::Error { .. } => STUB_CONTENT_TYPE.as_bytes(),
            Page::Reply(ReplyKind::Gateway) => {
                ErrorFormat::for_gateway_error(&x.head.fields, src).content_type().as_bytes()
            }
            Page::Reply(ReplyKind::Exit) => EXIT_CONTENT_TYPE.as_bytes(),
            Page::Reply(ReplyKind::Raw) => {
                with_charset(&x.reply.content_type, &mut room).unwrap_or(&x.reply.content_type)
            }
            // A stored response brings its own.
            Page::Reply(ReplyKind::Stored) => {
                let own = x.reply.fields.get(&[], Known::ContentType);
                own.and_then(|value| with_charset(value, &mut room)).unwrap_or_default()
            }
            Page::Reply(ReplyKind::Empty) => b"",
        };
        if !content_type.is_empty() {
            x.reply.fields.set(Known::ContentType, content_type);
        }
        // Only what counts as proxied brings the cookie.
        if !x.hash_cookie.is_empty() && x.handed_over_us.is_some() {
            x.reply.fields.append(Known::SetCookie, &x.hash_cookie);
        }
    }

    fn encode(&mut self, status: u16, page: Page, body: Body) {
        let src = self.client.buf.bytes();
        let rules = self.rules;
        let now_us = self.core.clock.now_us();
        let Exchange {
            head,
            reply,
            out,
            request_id,
            keep,
            started_us,
            handed_over_us,
            body_bytes_sent,
            route,
            links,
            held,
            ships,
            sent_head,
            timeline,
            stored_bytes_out,
            ..
        } = &mut *self.x;
        let text = std::str::from_utf8(&reply.text).unwrap_or_default();
        let format = match page {
            Page::Error { .. } => ErrorFormat::for_error_page(&head.fields, src, rules.error_format),
            Page::Reply(_) => ErrorFormat::for_gateway_error(&head.fields, src),
        };
        let message = match page {
            Page::Error { text_of } => Message::Status(text_of),
            Page::Reply(_) => Message::Text(text),
        };
        let is_stub = matches!(page, Page::Error { .. }) && !has_error_page(status);
        let len = match page {
            _ if body == Body::Held => held.len(),
            Page::Error { .. } if is_stub => stub_len(status),
            Page::Error { .. } | Page::Reply(ReplyKind::Gateway) => {
                rendered_len(&rules.templates, format, message, request_id)
            }
            Page::Reply(ReplyKind::Exit) => exit_body_len(text),
            Page::Reply(ReplyKind::Raw) => reply.text.len(),
            Page::Reply(ReplyKind::Stored) => stored_len(reply, head.method),
            Page::Reply(ReplyKind::Empty) => 0,
        };
        out.clear();
        let out = out.vec_mut();
        push_status_line(out, status, b"");
        if !reply.fields.has(Known::Date) {
            push_field(out, b"Date", &self.core.clock.date());
        }
        push_fields(out, &reply.fields, &[], |_| true);
        Connection { keep: *keep, upgrade: reply.fields.has(Known::Upgrade) }.push(out);
        let has_body = has_body(status);
        if has_body {
            push_field_u64(out, b"Content-Length", len as u64);
        }
        let headers = rules.settings.headers;
        match *handed_over_us {
            Some(handed_over_us) => {
                let upstream_us = now_us.saturating_sub(handed_over_us);
                push_latencies(out, rules, handed_over_us.saturating_sub(*started_us), upstream_us);
                if headers.via {
                    push_field(out, b"Via", VIA_HTTP11.as_bytes());
                }
            }
            None if headers.response_latency => {
                push_field_u64(out, b"X-Kong-Response-Latency", now_us.saturating_sub(*started_us) / 1000);
            }
            None => {}
        }
        if headers.server && !reply.fields.has(Known::Server) {
            push_field(out, b"Server", PRODUCT.as_bytes());
        }
        if headers.request_id {
            push_field(out, b"X-Kong-Request-Id", request_id);
        }
        if rules.settings.allow_debug_header && head.fields.has(Known::KongDebug) {
            push_debug(out, route.as_deref(), links.as_deref());
        }
        if let Some(timeline) = timeline {
            let (started_us, handed_over_us) = (*started_us, *handed_over_us);
            let times = Times { started_us, now_us, handed_over_us, first_byte_us: None, last_byte_us: None };
            timeline.push_header(request_id, &times, out);
        }
        out.extend_from_slice(CRLF);
        if *ships || rules.logged.as_ref().is_some_and(|logged| logged.sent_head) {
            sent_head.clear();
            sent_head.extend_from_slice(out);
        }
        if has_body && head.method != Method::Head {
            *body_bytes_sent = len as u64;
            match page {
                _ if body == Body::Held => out.extend_from_slice(held),
                Page::Error { .. } if is_stub => render_stub(status, out),
                Page::Error { .. } | Page::Reply(ReplyKind::Gateway) => {
                    render(&rules.templates, format, message, request_id, out);
                }
                Page::Reply(ReplyKind::Exit) => push_exit_body(text, out),
                Page::Reply(ReplyKind::Raw) => out.extend_from_slice(&reply.text),
                Page::Reply(ReplyKind::Stored) => {
                    let body = stored_body(reply);
                    let with_head = body.len().min(limits::STREAM_BUFFER_BYTES);
                    out.extend_from_slice(&body[..with_head]);
                    *stored_bytes_out = with_head;
                }
                Page::Reply(ReplyKind::Empty) => {}
            }
        }
    }
}

fn stored_body(reply: &Reply) -> &[u8] {
    reply.stored.as_ref().map_or(&[], |stored| &stored.body)
}

/// What `Content-Length` says: of an answer to HEAD, what the upstream said.
fn stored_len(reply: &Reply, method: Method) -> usize {
    let told = reply.stored.as_ref().and_then(|stored| stored.body_bytes_told).filter(|_| method == Method::Head);
    told.map_or(stored_body(reply).len(), |bytes| bytes as usize)
}

fn has_body(status: u16) -> bool {
    status >= 200 && status != 204 && status != 304
}

/// What a response says of its connection.
pub struct Connection {
    pub keep: bool,
    /// An `Upgrade` field stands in the response and is named here, as RFC 9110 section 7.8 wants.
    pub upgrade: bool,
}

impl Connection {
    /// Appends the field.
    pub fn push(&self, out: &mut Vec<u8>) {
        let value: &[u8] = match (self.keep, self.upgrade) {
            (true, false) => b"keep-alive",
            (false, false) => b"close",
            (true, true) => b"keep-alive, Upgrade",
            (false, true) => b"close, Upgrade",
        };
        push_field(out, b"Connection", value);
    }
}

/// Appends the latencies of a proxied response, as far as `headers` wants them.
pub fn push_latencies(out: &mut Vec<u8>, rules: &Rules, proxy_us: u64, upstream_us: u64) {
    let headers = rules.settings.headers;
    if headers.upstream_latency {
        push_field_u64(out, b"X-Kong-Upstream-Latency", upstream_us / 1000);
    }
    if headers.proxy_latency {
        push_field_u64(out, b"X-Kong-Proxy-Latency", proxy_us / 1000);
    }
}

/// Answers a head that cannot be read as a request; the connection ends.
pub async fn refuse_head(core: &Core, client: &mut Client, x: &mut Exchange, status: u16, text_of: u16) -> Next {
    let rules = core.rules();
    let mut job = Job { core, rules: &rules, client, x };
    // What was read before the fault is not believed, whatever it asked for.
    job.x.head.clear();
    job.begin();
    let sent = job.answer(Fault::Refused { status, text_of }).await;
    job.x.complete = sent.is_ok();
    job.record();
    if sent.is_ok() { Next::Linger } else { Next::Close }
}

/// Answers 500 for a request whose handling panicked, unless an answer had begun; the connection ends.
pub async fn after_panic(core: &Core, client: &mut Client, x: &mut Exchange) -> Next {
    let rules = core.rules();
    let mut job = Job { core, rules: &rules, client, x };
    job.x.collected.clear();
    if !job.x.answered {
        job.x.reply.clear();
        let _ = job.answer(Fault::refused(500)).await;
    }
    job.record();
    Next::Close
}
