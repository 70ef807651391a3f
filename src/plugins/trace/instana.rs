//! The `x-instana-` headers: trace, span, and level (1: sampled), which may carry more behind a comma.

use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::text::Text;
use crate::plugins::trace::text::flag;
use crate::plugins::trace::text::span_id;
use crate::plugins::trace::text::trace_id;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let level = headers.get("x-instana-l").and_then(|level| level.split(|&byte| byte == b',').next());
    let context = Context {
        trace: Some(trace_id(headers.get("x-instana-t")?)?),
        span: Some(span_id(headers.get("x-instana-s")?)?),
        parent: None,
        sampled: level.and_then(flag),
        debug: false,
    };
    Some((context, Format::Instana))
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    headers.set("x-instana-t", &outgoing.trace.hex(true));
    headers.set("x-instana-s", &Text::span(outgoing.span));
    headers.set("x-instana-l", &Text::flag(outgoing.sampled));
}
