//! `uber-trace-id` of Jaeger. Its baggage (`uberctx-*`) goes on to the upstream as it came.

use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::trace::text::hex;

const SAMPLED: u128 = 1;
const DEBUG: u128 = 2;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let value = headers.get("uber-trace-id")?;
    let mut parts = value.split(|&byte| byte == b':');
    let (trace, span, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || span.len() > 16 || parent.len() > 16 {
        return None;
    }
    // Leading zeros may be left out.
    let id = hex(trace).filter(|id| *id != 0)?;
    let flags = hex(flags)?;
    let context = Context {
        trace: Some(TraceId { id, is_short: trace.len() <= 16 }),
        span: Some(hex(span).filter(|id| *id != 0)? as u64),
        parent: Some(hex(parent)? as u64).filter(|id| *id != 0),
        sampled: Some(flags & SAMPLED != 0),
        debug: flags & (SAMPLED | DEBUG) == SAMPLED | DEBUG,
    };
    Some((context, Format::Jaeger))
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    let mut text = outgoing.trace.hex(true);
    text.push(b":");
    text.push_hex(u128::from(outgoing.span), 16);
    text.push(b":");
    match outgoing.parent {
        Some(parent) => text.push_hex(u128::from(parent), 16),
        None => text.push(b"0"),
    }
    text.push(if outgoing.sampled { b":01" } else { b":00" });
    headers.set("uber-trace-id", &text);
}
