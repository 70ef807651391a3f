//! `x-amzn-trace-id` of AWS X-Ray: `Root=1-<8 digits>-<24 digits>;Parent=<16 digits>;Sampled=1`, in any order.

use crate::http::fields::trim_ows;
use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::trace::text::Text;
use crate::plugins::trace::text::flag;
use crate::plugins::trace::text::hex;
use crate::plugins::trace::text::span_id;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let value = headers.get("x-amzn-trace-id")?;
    let mut context = Context { trace: None, span: None, parent: None, sampled: None, debug: false };
    for part in value.split(|&byte| byte == b';').map(trim_ows) {
        if let Some(root) = part.strip_prefix(b"Root=") {
            context.trace = Some(TraceId::long(root_id(root)?));
        } else if let Some(parent) = part.strip_prefix(b"Parent=") {
            context.span = Some(span_id(parent)?);
        } else if let Some(sampled) = part.strip_prefix(b"Sampled=") {
            context.sampled = flag(sampled);
        }
    }
    context.trace.is_some().then_some((context, Format::Aws))
}

fn root_id(root: &[u8]) -> Option<u128> {
    let (time, unique) = root.strip_prefix(b"1-")?.split_at_checked(8)?;
    let unique = unique.strip_prefix(b"-").filter(|unique| unique.len() == 24)?;
    Some(hex(time)? << 96 | hex(unique)?).filter(|id| *id != 0)
}

/// `1-<8 digits>-<24 digits>`
pub fn id(trace: TraceId) -> Text {
    let mut text = Text::of(b"1-");
    text.push_hex(trace.id >> 96, 8);
    text.push(b"-");
    text.push_hex(trace.id, 24);
    text
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    let mut text = Text::of(b"Root=");
    text.push(id(outgoing.trace).bytes());
    text.push(b";Parent=");
    text.push_hex(u128::from(outgoing.span), 16);
    text.push(if outgoing.sampled { b";Sampled=1" } else { b";Sampled=0" });
    headers.set("x-amzn-trace-id", &text);
}
