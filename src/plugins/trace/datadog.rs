//! The `x-datadog-` headers: numbers of 64 bits in decimal.

use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::trace::text::Text;
use crate::plugins::trace::text::decimal_id;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let id = decimal_id(headers.get("x-datadog-trace-id")?)?;
    let sampled = match headers.get("x-datadog-sampling-priority") {
        Some(b"1" | b"2") => Some(true),
        Some(b"0" | b"-1") => Some(false),
        _ => None,
    };
    let context = Context {
        trace: Some(TraceId { id: u128::from(id), is_short: true }),
        span: headers.get("x-datadog-parent-id").and_then(decimal_id),
        parent: None,
        sampled,
        debug: false,
    };
    Some((context, Format::Datadog))
}

/// The last 64 bits in decimal.
pub fn id(trace: TraceId) -> Text {
    Text::decimal(trace.id as u64)
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    headers.set("x-datadog-trace-id", &id(outgoing.trace));
    headers.set("x-datadog-parent-id", &Text::decimal(outgoing.span));
    headers.set("x-datadog-sampling-priority", &Text::flag(outgoing.sampled));
}
