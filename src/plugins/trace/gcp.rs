//! `x-cloud-trace-context` of Google Cloud: `<32 digits>/<decimal span>;o=1`.

use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::trace::text::decimal_id;
use crate::plugins::trace::text::flag;
use crate::plugins::trace::text::hex;

pub fn read(headers: &Headers<'_>) -> Option<(Context, Format)> {
    let value = headers.get("x-cloud-trace-context")?;
    let (trace, rest) = value.split_at_checked(32)?;
    let rest = rest.strip_prefix(b"/")?;
    let end = rest.iter().position(|&byte| byte == b';').unwrap_or(rest.len());
    let (span, options) = rest.split_at(end);
    let context = Context {
        trace: Some(TraceId::long(hex(trace).filter(|id| *id != 0)?)),
        span: Some(decimal_id(span)?),
        parent: None,
        sampled: options.strip_prefix(b";o=").and_then(flag),
        debug: false,
    };
    Some((context, Format::Gcp))
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    let mut text = outgoing.trace.hex(false);
    text.push(b"/");
    text.push_decimal(outgoing.span);
    text.push(if outgoing.sampled { b";o=1" } else { b";o=0" });
    headers.set("x-cloud-trace-context", &text);
}
