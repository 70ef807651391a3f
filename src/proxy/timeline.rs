//! The times of one request that asked for them (spec/proxying.md section 19).
//! Owns: who may ask, what is measured, and the JSON text that tells it. Never: costs another request more than a bit test.
//! Always: times are milliseconds with three digits behind the point.

use std::cell::Cell;

use crate::http::encode::push_u64;
use crate::http::known::Known;
use crate::limits;
use crate::metrics::full_record::Step;
use crate::metrics::full_record::Timing;
use crate::plugins::KindIdx;
use crate::plugins::PLUGINS;
use crate::plugins::ask::Question;
use crate::proxy::exchange::Job;
use crate::stdx::secret;

/// What time was spent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Rewrite,
    Router,
    Access,
    Balancer,
    HeaderFilter,
}

/// One stretch of time; of a plugin, or of what a phase does itself.
struct Span {
    phase: Phase,
    plugin: Option<KindIdx>,
    us: u64,
}

/// The times of a request.
pub struct Timeline {
    spans: Vec<Span>,
    /// Whether the log is told too.
    logged: Cell<bool>,
    /// Whether the client gets it whole, however long it is.
    whole: bool,
}

/// When steps began and how long they took, for plugins that trace. Reused from request to request.
#[derive(Default)]
pub struct Timings {
    pub wanted: bool,
    list: Vec<Timing>,
}

impl Timings {
    /// In order of their ends.
    pub fn list(&self) -> &[Timing] {
        &self.list
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.wanted = false;
        self.list.clear();
    }

    /// Notes a step, if they are wanted, that began so long after the request did.
    pub fn note(&mut self, begun_us: u64, took_us: u64, phase: Phase, plugin: Option<KindIdx>) {
        let step = match (phase, plugin) {
            (Phase::Router, _) => Step::Router,
            (Phase::Access, Some(kind)) => Step::Access(kind.0),
            (Phase::HeaderFilter, Some(kind)) => Step::ResponseHead(kind.0),
            // Tries have times of their own, and no plugin rewrites.
            _ => return,
        };
        if self.wanted {
            self.list.push(Timing { step, begun_us, took_us });
        }
    }
}

/// The times that every request has, in microseconds of the core's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub started_us: u64,
    pub now_us: u64,
    /// When the last upstream was given the request, and when its answer began; `None`: it did not.
    pub handed_over_us: Option<u64>,
    pub first_byte_us: Option<u64>,
    /// When its answer ended, if it has.
    pub last_byte_us: Option<u64>,
}

impl Timeline {
    fn new(logged: bool, whole: bool) -> Self {
        Self { spans: Vec::with_capacity(16), logged: Cell::new(logged), whole }
    }

    /// Notes the time that a plugin, or a phase itself, took.
    pub fn note(&mut self, phase: Phase, plugin: Option<KindIdx>, us: u64) {
        self.spans.push(Span { phase, plugin, us });
    }

    fn total_us(&self, phase: Phase) -> u64 {
        self.spans.iter().filter(|span| span.phase == phase).map(|span| span.us).sum()
    }

    /// Appends the header that tells the client.
    pub fn push_header(&self, id: &[u8], times: &Times, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Kong-Request-Debug-Output: ");
        let at = out.len();
        self.write(id, times, out);
        if !self.whole && out.len() - at > limits::DEBUG_OUTPUT_BYTES_MAX {
            out.truncate(at);
            out.extend_from_slice(b"{\"truncated\":true,\"request_id\":\"");
            out.extend_from_slice(id);
            out.extend_from_slice(
                b"\",\"message\":\"Output is truncated, please check the error_log for full output by filtering with the \
                  request_id.\"}",
            );
            self.logged.set(true);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write(&self, id: &[u8], times: &Times, out: &mut Vec<u8>) {
        let total_us = times.now_us.saturating_sub(times.started_us);
        let mut upstream_us = 0;
        out.extend_from_slice(b"{\"child\":{");
        self.write_phase(b"rewrite", Phase::Rewrite, None, out);
        out.push(b',');
        self.write_phase(b"access", Phase::Access, Some((b"router", self.total_us(Phase::Router))), out);
        if let Some(handed_over_us) = times.handed_over_us {
            out.push(b',');
            self.write_phase(b"balancer", Phase::Balancer, None, out);
            upstream_us = times.last_byte_us.unwrap_or(times.now_us).saturating_sub(handed_over_us);
            if let Some(first_byte_us) = times.first_byte_us {
                upstream_us = times.last_byte_us.unwrap_or(first_byte_us).saturating_sub(handed_over_us);
                let wait_us = first_byte_us.saturating_sub(handed_over_us);
                out.extend_from_slice(b",\"upstream\":{\"child\":{");
                push_total(b"time_to_first_byte", wait_us, out);
                if times.last_byte_us.is_some() {
                    out.push(b',');
                    push_total(b"streaming", upstream_us - wait_us, out);
                }
                out.extend_from_slice(b"},\"total_time\":");
                push_ms(upstream_us, out);
                out.push(b'}');
            }
        }
        out.push(b',');
        self.write_phase(b"header_filter", Phase::HeaderFilter, None, out);
        out.extend_from_slice(b"},\"request_id\":\"");
        out.extend_from_slice(id);
        out.extend_from_slice(b"\",\"total_time\":");
        push_ms(total_us, out);
        out.extend_from_slice(b",\"total_time_without_upstream\":");
        push_ms(total_us.saturating_sub(upstream_us), out);
        out.push(b'}');
    }

    /// A phase with its plugins, and with one more thing that it does.
    fn write_phase(&self, name: &[u8], phase: Phase, more: Option<(&[u8], u64)>, out: &mut Vec<u8>) {
        let total_us = self.total_us(phase) + more.map_or(0, |(_, us)| us);
        let plugins = || self.spans.iter().filter(|span| span.phase == phase && span.plugin.is_some());
        begin(name, out);
        if more.is_some() || plugins().next().is_some() {
            out.extend_from_slice(b"\"child\":{");
            if let Some((name, us)) = more {
                push_total(name, us, out);
            }
            if plugins().next().is_some() {
                out.extend_from_slice(if more.is_some() { b"," } else { b"" });
                begin(b"plugins", out);
                out.extend_from_slice(b"\"child\":{");
                let mut plugins_us = 0;
                for (at, span) in plugins().enumerate() {
                    out.extend_from_slice(if at > 0 { b"," } else { b"" });
                    let name = span.plugin.map_or("", |kind| PLUGINS[usize::from(kind.0)].schema.name);
                    push_total(name.as_bytes(), span.us, out);
                    plugins_us += span.us;
                }
                out.extend_from_slice(b"},\"total_time\":");
                push_ms(plugins_us, out);
                out.push(b'}');
            }
            out.extend_from_slice(b"},");
        }
        out.extend_from_slice(b"\"total_time\":");
        push_ms(total_us, out);
        out.push(b'}');
    }
}

fn begin(name: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name);
    out.extend_from_slice(b"\":{");
}

fn push_total(name: &[u8], us: u64, out: &mut Vec<u8>) {
    begin(name, out);
    out.extend_from_slice(b"\"total_time\":");
    push_ms(us, out);
    out.push(b'}');
}

fn push_ms(us: u64, out: &mut Vec<u8>) {
    push_u64(out, us / 1000);
    out.push(b'.');
    out.extend([us / 100 % 10, us / 10 % 10, us % 10].map(|digit| b'0' + digit as u8));
}

impl Job<'_> {
    /// Begins to measure, if the request asks for it and may: it comes from this machine, or brings the token.
    pub fn begin_timeline(&mut self) {
        let src = self.client.buf.bytes();
        let fields = &self.x.head.fields;
        let settings = &self.rules.settings;
        if !settings.request_debug || fields.get(src, Known::XKongRequestDebug) != Some(b"*") {
            return;
        }
        // A proxy at this machine does not make its clients local.
        let peer_ip = self.client.facts.peer.ip();
        let is_local = [peer_ip, self.x.client_ip.unwrap_or(peer_ip)].iter().all(|ip| ip.to_canonical().is_loopback());
        let wanted =
            settings.request_debug_token.as_ref().map_or(self.core.debug_token.as_bytes(), |token| token.expose());
        let given = fields.get(src, Known::XKongRequestDebugToken);
        if is_local || given.is_some_and(|given| secret::equal(given, wanted)) {
            let logged = fields.get(src, Known::XKongRequestDebugLog) == Some(b"true");
            self.x.timeline = Some(Box::new(Timeline::new(logged, is_local)));
        }
    }

    /// The time now, if this request is measured.
    #[inline]
    pub fn stopwatch(&self) -> Option<u64> {
        (self.x.timings.wanted || self.x.timeline.is_some()).then(|| self.core.clock.refresh())
    }

    /// Notes what the time since then was spent in.
    #[inline]
    pub fn note_time(&mut self, since_us: Option<u64>, phase: Phase, plugin: Option<KindIdx>) {
        let Some(since_us) = since_us else { return };
        let us = self.core.clock.refresh().saturating_sub(since_us);
        self.x.timings.note(since_us.saturating_sub(self.x.started_us), us, phase, plugin);
        if let Some(timeline) = &mut self.x.timeline {
            timeline.note(phase, plugin, us);
        }
    }

    /// Tells the log of a finished request that asked for it.
    pub fn log_timeline(&self, now_us: u64) {
        let x = &*self.x;
        let Some(timeline) = x.timeline.as_ref().filter(|timeline| timeline.logged.get()) else { return };
        let answered = x.handed_over_us.zip(x.tries.last()).filter(|_| x.from_upstream);
        let times = Times {
            started_us: x.started_us,
            now_us,
            handed_over_us: x.handed_over_us,
            first_byte_us: Some(x.first_byte_us).filter(|_| x.from_upstream),
            last_byte_us: answered.map(|(begun_us, last)| begun_us + last.whole_us),
        };
        let mut text = b"request debugging: ".to_vec();
        timeline.write(&x.request_id, &times, &mut text);
        self.core.tell(Question::Note(String::from_utf8_lossy(&text).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        started_us: 1_000,
        now_us: 9_123,
        handed_over_us: Some(3_000),
        first_byte_us: Some(7_000),
        last_byte_us: Some(8_005),
    };

    fn timeline(plugins: usize, whole: bool) -> Timeline {
        let mut timeline = Timeline::new(false, whole);
        let span = |phase, plugin, us| Span { phase, plugin, us };
        timeline.spans.push(span(Phase::Router, None, 15));
        timeline.spans.extend((0..plugins).map(|_| span(Phase::Access, Some(KindIdx(0)), 1_100)));
        timeline.spans.push(span(Phase::Balancer, None, 20));
        timeline
    }

    #[test]
    fn the_times_of_phases_and_plugins_are_told() {
        let mut out = Vec::new();
        timeline(1, true).write(b"id", &TIMES, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"child\":{\"rewrite\":{\"total_time\":0.000},\"access\":{\"child\":{\"router\":{\"total_time\":0.015},\
             \"plugins\":{\"child\":{\"acl\":{\"total_time\":1.100}},\"total_time\":1.100}},\"total_time\":1.115},\
             \"balancer\":{\"total_time\":0.020},\"upstream\":{\"child\":{\"time_to_first_byte\":{\"total_time\":4.000},\
             \"streaming\":{\"total_time\":1.005}},\"total_time\":5.005},\"header_filter\":{\"total_time\":0.000}},\
             \"request_id\":\"id\",\"total_time\":8.123,\"total_time_without_upstream\":3.118}"
        );
    }

    #[test]
    fn only_a_client_at_this_machine_gets_a_long_output() {
        for (whole, plugins, is_cut) in [(true, 500, false), (false, 500, true), (false, 1, false)] {
            let timeline = timeline(plugins, whole);
            let mut out = Vec::new();
            timeline.push_header(b"id", &TIMES, &mut out);
            let text = String::from_utf8(out).unwrap();
            let cut = "X-Kong-Request-Debug-Output: {\"truncated\":true,\"request_id\":\"id\",\"message\":\"Output is truncated, \
                       please check the error_log for full output by filtering with the request_id.\"}\r\n";
            assert_eq!(text == cut, is_cut, "{text}");
            assert_eq!(timeline.logged.get(), is_cut, "what was cut is in the log");
        }
    }
}
