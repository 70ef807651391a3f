//! HOT: copies a few texts into the core's batch.
//! The record of a finished request.
//! Never: formats, writes; the control plane does.

use crate::http::known::Known;
use crate::metrics::record::Record;
use crate::proxy::exchange::Job;

impl Job<'_> {
    /// Appends the record of this request, unless no log wants it.
    pub fn record(&mut self) {
        let now_us = self.core.clock.refresh();
        if !self.rules.logs_access {
            return;
        }
        let src = self.client.buf.bytes();
        let x = &*self.x;
        let text = |known| x.head.fields.get(src, known).unwrap_or_default();
        // A head that could not be parsed has no request line to show.
        let from_line = src.get(x.head.method_span.start as usize..).filter(|_| x.head.len > 0).unwrap_or_default();
        let line = from_line.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let record = Record {
            unix_ms: self.core.clock.unix_us() / 1000,
            client_ip: x.client_ip.unwrap_or(self.client.facts.peer.ip()),
            request_id: x.request_id,
            status: x.status,
            bytes_sent: x.body_bytes_sent,
            total_ms: (now_us.saturating_sub(x.started_us) / 1000) as u32,
            request_line: line,
            authorization: text(Known::Authorization),
            referer: text(Known::Referer),
            user_agent: text(Known::UserAgent),
        };
        self.core.record(|batch| record.encode(batch));
    }
}
