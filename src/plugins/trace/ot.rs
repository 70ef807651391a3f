//! The headers of OpenTracing's basic tracers. Their baggage (`ot-baggage-*`) goes on to the upstream as it came.

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
    let context = Context {
        trace: Some(trace_id(headers.get("ot-tracer-traceid")?)?),
        span: Some(span_id(headers.get("ot-tracer-spanid")?)?),
        parent: None,
        sampled: headers.get("ot-tracer-sampled").and_then(flag),
        debug: false,
    };
    Some((context, Format::Ot))
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    headers.set("ot-tracer-traceid", &outgoing.trace.hex(true));
    headers.set("ot-tracer-spanid", &Text::span(outgoing.span));
    headers.set("ot-tracer-sampled", &Text::flag(outgoing.sampled));
}
