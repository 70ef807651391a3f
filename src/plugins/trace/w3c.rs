//! `traceparent` (W3C Trace Context, level 1).

use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::trace::text::Text;
use crate::plugins::trace::text::hex;
use crate::plugins::trace::text::span_id;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let value = headers.get("traceparent")?;
    let shape = value.len() == 55 && [2, 35, 52].iter().all(|&at| value[at] == b'-');
    if !shape || &value[..2] != b"00" {
        return None;
    }
    let id = hex(&value[3..35]).filter(|id| *id != 0)?;
    let flags = hex(&value[53..])?;
    let context = Context {
        trace: Some(TraceId::long(id)),
        span: Some(span_id(&value[36..52])?),
        parent: None,
        sampled: Some(flags & 1 != 0),
        debug: false,
    };
    Some((context, Format::W3c))
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    let mut text = Text::of(b"00-");
    text.push_hex(outgoing.trace.id, 32);
    text.push(b"-");
    text.push_hex(u128::from(outgoing.span), 16);
    text.push(if outgoing.sampled { b"-01" } else { b"-00" });
    headers.set("traceparent", &text);
}
