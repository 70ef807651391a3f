//! HOT: copies a few texts into the core's batch.
//! The records of a finished request: for the access log, for plugins.
//! Never: formats, writes; the control plane does.

use std::net::SocketAddr;

use crate::http::head::Version;
use crate::http::upstream_path::build_upstream_path;
use crate::metrics::full_record::Figures;
use crate::metrics::full_record::Shipment;
use crate::metrics::full_record::Writer;
use crate::metrics::full_record::head_fields;
use crate::metrics::record;
use crate::metrics::record::push_joined;
use crate::metrics::record::push_text;
use crate::metrics::record::push_tries;
use crate::plugins::chain::Placed;
use crate::plugins::view;
use crate::plugins::view::Notes;
use crate::proxy::core::Logged;
use crate::proxy::core::LoggedText;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::router::matcher::header_name_matches;

impl Job<'_> {
    /// Appends the records of this request that are wanted, and runs the log phase of its plugins.
    pub fn record(&mut self) {
        let now_us = self.core.clock.refresh();
        if self.x.timeline.is_some() {
            self.log_timeline(now_us);
        }
        if !self.x.collected.is_empty() {
            self.run_log(self.figures(now_us));
        }
        // A log phase may have decided against it.
        let ships = |x: &Exchange| x.collected.iter().zip(&x.notes).any(|(placed, notes)| ships(placed, notes));
        if self.x.ships && ships(self.x) {
            self.record_full(now_us);
        }
        if let Some(logged) = &self.rules.logged {
            self.record_access(logged, now_us);
        }
    }

    fn record_access(&self, logged: &Logged, now_us: u64) {
        let src = self.client.buf.bytes();
        let x = &*self.x;
        let facts = &self.client.facts;
        let figures = record::Figures {
            unix_ms: self.core.clock.unix_us() / 1000,
            total_us: now_us.saturating_sub(x.started_us),
            request_bytes: x.head.len as u64 + x.body.received(),
            bytes_sent: x.bytes_sent,
            body_bytes_sent: x.body_bytes_sent,
            connection: facts.serial,
            connection_requests: facts.requests,
            peer: facts.peer,
            local: SocketAddr::new(facts.local.ip(), self.port()),
            client_ip: x.client_ip.unwrap_or(facts.peer.ip()),
            request_id: x.request_id,
            status: x.status,
            complete: x.complete,
        };
        self.core.record(|batch| {
            figures.encode(batch);
            for text in &logged.texts {
                match text {
                    LoggedText::Line => push_text(self.request_line(), batch),
                    LoggedText::Path => push_text(&x.path, batch),
                    LoggedText::Host => push_text(x.host_name.of(src), batch),
                    LoggedText::Known(known) => match x.head.fields.count(*known) {
                        0 => push_text(b"", batch),
                        _ => push_joined(x.head.fields.values(src, *known), batch),
                    },
                    LoggedText::Named(name) => {
                        let same = x.head.fields.iter(src).filter(|field| header_name_matches(name, field.name));
                        push_joined(same.map(|field| field.value), batch);
                    }
                    LoggedText::Sent(name) => {
                        let same = head_fields(&x.sent_head).filter(|(other, _)| header_name_matches(name, other));
                        push_joined(same.map(|(_, value)| value), batch);
                    }
                }
            }
            push_tries(if logged.tries { &x.tries } else { &[] }, batch);
        });
    }

    /// As received; nothing of a head that could not be parsed.
    fn request_line(&self) -> &[u8] {
        let src = self.client.buf.bytes();
        let from_line = src.get(self.x.head.method_span.start as usize..).filter(|_| self.x.head.len > 0);
        from_line.unwrap_or_default().split(|byte| *byte == b'\r').next().unwrap_or_default()
    }

    fn figures(&self, now_us: u64) -> view::Figures {
        let x = &*self.x;
        let begun_us = x.handed_over_us.or(x.replied_us).unwrap_or(now_us);
        let upstream_us = x.handed_over_us.filter(|_| x.from_upstream).map(|us| x.first_byte_us.saturating_sub(us));
        view::Figures {
            total_us: now_us.saturating_sub(x.started_us),
            gateway_us: begun_us.saturating_sub(x.started_us),
            upstream_us,
            request_bytes: x.head.len as u64 + x.body.received(),
            response_bytes: x.bytes_sent,
        }
    }

    /// Appends the full record, for plugins that ship.
    fn record_full(&self, now_us: u64) {
        let src = self.client.buf.bytes();
        let x = &*self.x;
        let seen = self.figures(now_us);
        let since = |us: u64| us.saturating_sub(x.started_us);
        let figures = Figures {
            started_unix_us: self.core.clock.unix_us().saturating_sub(seen.total_us),
            total_us: seen.total_us,
            handed_over_us: x.handed_over_us.map(since),
            first_byte_us: seen.upstream_us.map(|_| since(x.first_byte_us)),
            replied_us: x.replied_us.map(since),
            request_bytes: seen.request_bytes,
            response_bytes: seen.response_bytes,
            body_bytes: x.body_bytes_sent,
            status: x.status,
            port: self.port(),
            request_id: x.request_id,
            client_ip: x.client_ip.unwrap_or(self.client.facts.peer.ip()),
            peer_ip: self.client.facts.peer.ip(),
            from_upstream: x.from_upstream,
            balanced: x.balanced,
            consumer: x.identity.consumer,
            credential: x.identity.credential,
        };
        let service = x.links.as_ref().and_then(|links| links.service.as_deref());
        self.core.record_full(|batch| {
            let mut writer = Writer::new(batch, &figures);
            writer.text(x.head.method_span.of(src));
            writer.text(b"http");
            writer.text(x.host_name.of(src));
            writer.text(if x.head.version == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
            writer.text(x.head.target.of(src));
            writer.written(|out| {
                if let Some(service) = service {
                    build_upstream_path(&x.upstream_path(src, &service.spec), out);
                }
            });
            writer.text(&x.sent_head);
            writer.text(x.route.as_ref().map_or(b"", |route| route.spec.document.as_bytes()));
            writer.text(service.map_or(b"", |service| service.spec.document.as_bytes()));
            writer.text(&x.told.correlation_id);
            writer.text(&x.told.trace_ids);
            writer.fields(x.head.fields.iter(src).map(|field| (field.name, field.value)));
            writer.tries(&x.tries);
            writer.timings(x.timings.list());
            let shipping = x.collected.iter().zip(&x.notes).filter(|(placed, notes)| ships(placed, notes));
            writer.shipments(shipping.map(|(placed, notes)| Shipment {
                plugin: placed.instance.id,
                numbers: notes.numbers,
                bytes: &notes.bytes,
            }));
        });
    }
}

/// Whether a configuration sends the record of this request somewhere.
fn ships(placed: &Placed, notes: &Notes) -> bool {
    !notes.unshipped && placed.instance.plugin.ships().is_some()
}
