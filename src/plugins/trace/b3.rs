//! B3 of Zipkin: in several `x-b3-` headers, or in the single header `b3`, also inside of `tracestate`.

use crate::http::fields::trim_ows;
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
    let in_state = || headers.get("tracestate").and_then(state_member);
    match headers.get("b3").or_else(in_state) {
        Some(single) => Some((read_single(single)?, Format::B3Single)),
        None => Some((read_several(headers)?, Format::B3)),
    }
}

/// The member `b3` of a list of pairs.
fn state_member(state: &[u8]) -> Option<&[u8]> {
    state.split(|&byte| byte == b',').find_map(|member| trim_ows(member).strip_prefix(b"b3="))
}

const NOTHING: Context = Context { trace: None, span: None, parent: None, sampled: None, debug: false };

fn read_single(value: &[u8]) -> Option<Context> {
    let mut parts = value.split(|&byte| byte == b'-');
    let first = parts.next()?;
    let Some(span) = parts.next() else { return sampling(first, NOTHING) };
    let known = Context { trace: Some(trace_id(first)?), span: Some(span_id(span)?), ..NOTHING };
    let known = match parts.next() {
        Some(word) => sampling(word, known)?,
        None => known,
    };
    let known = match parts.next() {
        Some(parent) => Context { parent: Some(span_id(parent)?), ..known },
        None => known,
    };
    parts.next().is_none().then_some(known)
}

fn sampling(word: &[u8], context: Context) -> Option<Context> {
    match word {
        b"0" => Some(Context { sampled: Some(false), ..context }),
        b"1" => Some(Context { sampled: Some(true), ..context }),
        b"d" => Some(Context { sampled: Some(true), debug: true, ..context }),
        _ => None,
    }
}

fn read_several(headers: &Headers<'_>) -> Option<Context> {
    let debug = headers.get("x-b3-flags").is_some_and(|flags| flags == b"1");
    let sampled = if debug { Some(true) } else { headers.get("x-b3-sampled").and_then(flag) };
    let ids = match (headers.get("x-b3-traceid"), headers.get("x-b3-spanid")) {
        (Some(trace), Some(span)) => Some((trace_id(trace)?, span_id(span)?)),
        (None, None) if sampled.is_some() => None,
        _ => return None,
    };
    let parent = match headers.get("x-b3-parentspanid").filter(|_| ids.is_some()) {
        Some(text) => Some(span_id(text)?),
        None => None,
    };
    Some(Context { trace: ids.map(|ids| ids.0), span: ids.map(|ids| ids.1), parent, sampled, debug })
}

pub fn write(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    headers.set("x-b3-traceid", &outgoing.trace.hex(true));
    headers.set("x-b3-spanid", &Text::span(outgoing.span));
    match outgoing.parent {
        Some(parent) => headers.set("x-b3-parentspanid", &Text::span(parent)),
        None => headers.remove("x-b3-parentspanid"),
    }
    // Debug implies sampling, and both are not told together.
    let (told, other) = if outgoing.debug { ("x-b3-flags", "x-b3-sampled") } else { ("x-b3-sampled", "x-b3-flags") };
    headers.set(told, &Text::flag(outgoing.debug || outgoing.sampled));
    headers.remove(other);
}

pub fn write_single(outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
    let mut text = outgoing.trace.hex(true);
    text.push(b"-");
    text.push_hex(u128::from(outgoing.span), 16);
    text.push(match (outgoing.debug, outgoing.sampled) {
        (true, _) => b"-d",
        (_, true) => b"-1",
        (_, false) => b"-0",
    });
    if let Some(parent) = outgoing.parent {
        text.push(b"-");
        text.push_hex(u128::from(parent), 16);
    }
    headers.set("b3", &text);
}
