//! Every format by table, by seed, and with what no client should send.

use crate::http::fields::Fields;
use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;

/// Names and values of headers.
type Lines<'a> = &'a [(&'a str, &'a str)];

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const ALL: [Format; 9] = [
    Format::W3c,
    Format::B3,
    Format::B3Single,
    Format::Jaeger,
    Format::Ot,
    Format::Datadog,
    Format::Aws,
    Format::Gcp,
    Format::Instana,
];

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        assert!(fields.append_by_name(name.as_bytes(), value.as_bytes()), "{name}: {value}");
    }
    fields
}

fn read(format: Format, lines: &[(&str, &str)]) -> Option<Context> {
    let fields = fields(lines);
    Some(format.read(&Headers { fields: &fields, source: b"" })?.0)
}

fn written(format: Format, outgoing: &Outgoing) -> Vec<(String, String)> {
    let mut fields = Fields::default();
    format.write(outgoing, &mut HeadersOut { fields: &mut fields, source: b"" });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter(b"").map(|field| (text(field.name), text(field.value))).collect()
}

fn id(hex: &str) -> u128 {
    u128::from_str_radix(hex, 16).expect("hexadecimal")
}

fn long() -> Context {
    let span = Some(id(SPAN) as u64);
    Context { trace: Some(TraceId::long(id(TRACE))), span, parent: None, sampled: Some(true), debug: false }
}

fn short() -> Context {
    Context { trace: Some(TraceId { id: id("8448eb211c80319c"), is_short: true }), ..long() }
}

#[test]
fn the_table_stands_in_the_order_of_the_variants() {
    for format in ALL {
        assert_eq!(Format::named(format.name()), Some(format));
    }
}

#[test]
fn contexts_are_read() {
    use Format::*;
    let no = |context: Context| Context { sampled: Some(false), ..context };
    let open = |context: Context| Context { sampled: None, ..context };
    let parent = |context: Context| Context { parent: Some(5), ..context };
    let debug = |context: Context| Context { debug: true, ..context };
    let only = |sampled| Context { trace: None, span: None, parent: None, sampled: Some(sampled), debug: false };
    let t = TRACE;
    let s = SPAN;
    let cases: &[(Format, Lines<'_>, Context)] = &[
        (W3c, &[("traceparent", &format!("00-{t}-{s}-01"))], long()),
        (W3c, &[("traceparent", &format!("00-{t}-{s}-00"))], no(long())),
        (W3c, &[("traceparent", &format!("00-{t}-{s}-ff"))], long()),
        (B3, &[("x-b3-traceid", t), ("x-b3-spanid", s), ("x-b3-sampled", "1")], long()),
        (B3, &[("x-b3-traceid", &t[16..]), ("x-b3-spanid", s), ("x-b3-sampled", "true")], short()),
        (B3, &[("X-B3-TraceId", t), ("X-B3-SpanId", s)], open(long())),
        (
            B3,
            &[("x-b3-traceid", t), ("x-b3-spanid", s), ("x-b3-parentspanid", "0000000000000005"), ("x-b3-flags", "1")],
            debug(parent(long())),
        ),
        (B3, &[("x-b3-sampled", "0")], only(false)),
        (B3, &[("b3", &format!("{t}-{s}-1"))], long()),
        (B3, &[("b3", &format!("{t}-{s}"))], open(long())),
        (B3, &[("b3", &format!("{}-{s}-0-0000000000000005", &t[16..]))], no(parent(short()))),
        (B3, &[("b3", &format!("{t}-{s}-d"))], debug(long())),
        (B3, &[("b3", "0")], only(false)),
        (B3, &[("b3", "d")], debug(only(true))),
        (B3, &[("tracestate", &format!("a=b, b3={t}-{s}-1"))], long()),
        (Jaeger, &[("uber-trace-id", &format!("{t}:{s}:0:1"))], long()),
        (Jaeger, &[("uber-trace-id", &format!("{}:{s}:5:0", &t[16..]))], no(parent(short()))),
        (Jaeger, &[("uber-trace-id", &format!("{t}:{s}:0:03"))], debug(long())),
        (Ot, &[("ot-tracer-traceid", t), ("ot-tracer-spanid", s), ("ot-tracer-sampled", "1")], long()),
        (Ot, &[("ot-tracer-traceid", &t[16..]), ("ot-tracer-spanid", s), ("ot-tracer-sampled", "false")], no(short())),
        (
            Datadog,
            &[
                ("x-datadog-trace-id", "9532127138774266268"),
                ("x-datadog-parent-id", "13235353014750950193"),
                ("x-datadog-sampling-priority", "2"),
            ],
            short(),
        ),
        (Aws, &[("x-amzn-trace-id", &format!("Root=1-{}-{};Parent={s};Sampled=1", &t[..8], &t[8..]))], long()),
        (Aws, &[("x-amzn-trace-id", &format!("Sampled=0 ; Parent={s}; Root=1-{}-{}", &t[..8], &t[8..]))], no(long())),
        (Aws, &[("x-amzn-trace-id", &format!("Root=1-{}-{};Parent={s};Sampled=?", &t[..8], &t[8..]))], open(long())),
        (Gcp, &[("x-cloud-trace-context", &format!("{t}/13235353014750950193;o=1"))], long()),
        (Gcp, &[("x-cloud-trace-context", &format!("{t}/13235353014750950193"))], open(long())),
        (Instana, &[("x-instana-t", t), ("x-instana-s", s), ("x-instana-l", "1")], long()),
        (Instana, &[("x-instana-t", t), ("x-instana-s", s), ("x-instana-l", "0,correlationType=web")], no(long())),
    ];
    for (format, lines, want) in cases {
        assert_eq!(read(*format, lines), Some(*want), "{lines:?}");
    }
}

#[test]
fn what_is_no_context_is_ignored() {
    use Format::*;
    let (t, s, zero) = (TRACE, SPAN, "0".repeat(32));
    let cases: &[(Format, Lines<'_>)] = &[
        (W3c, &[("traceparent", "")]),
        (W3c, &[("traceparent", &format!("01-{t}-{s}-01"))]),
        (W3c, &[("traceparent", &format!("00-{t}-{s}-01-x"))]),
        (W3c, &[("traceparent", &format!("00-{zero}-{s}-01"))]),
        (W3c, &[("traceparent", &format!("00-{t}-0000000000000000-01"))]),
        (W3c, &[("traceparent", &format!("00-{t}-{s}-0g"))]),
        (W3c, &[("traceparent", &format!("00-{t}é-{s}-01"))]),
        (W3c, &[("traceparent", &format!("00-+{}-{s}-01", &t[1..]))]),
        (B3, &[("x-b3-traceid", &t[1..]), ("x-b3-spanid", s)]),
        (B3, &[("x-b3-traceid", t)]),
        (B3, &[("x-b3-spanid", s)]),
        (B3, &[("x-b3-traceid", t), ("x-b3-spanid", s), ("x-b3-parentspanid", "x")]),
        (B3, &[("b3", "2")]),
        (B3, &[("b3", &format!("{t}-{s}-1-{s}-1"))]),
        (B3, &[("b3", &format!("{t}-{s}-x"))]),
        (Jaeger, &[("uber-trace-id", &format!("{t}:{s}:0"))]),
        (Jaeger, &[("uber-trace-id", &format!("{t}{t}:{s}:0:1"))]),
        (Jaeger, &[("uber-trace-id", &format!("0:{s}:0:1"))]),
        (Ot, &[("ot-tracer-traceid", t)]),
        (Datadog, &[("x-datadog-trace-id", "0"), ("x-datadog-parent-id", "1")]),
        (Datadog, &[("x-datadog-trace-id", "18446744073709551616"), ("x-datadog-parent-id", "1")]),
        (Datadog, &[("x-datadog-trace-id", "-1"), ("x-datadog-parent-id", "1")]),
        (Aws, &[("x-amzn-trace-id", &format!("Root=2-{}-{};Parent={s}", &t[..8], &t[8..]))]),
        (Aws, &[("x-amzn-trace-id", &format!("Parent={s}"))]),
        (Gcp, &[("x-cloud-trace-context", t)]),
        (Gcp, &[("x-cloud-trace-context", &format!("{t}/x"))]),
        (Instana, &[("x-instana-s", s)]),
    ];
    for (format, lines) in cases {
        assert_eq!(read(*format, lines), None, "{lines:?}");
    }
}

#[test]
fn contexts_are_written() {
    use Format::*;
    let (span, sampled) = (id(SPAN) as u64, true);
    let long = Outgoing { trace: TraceId::long(id(TRACE)), span, parent: Some(5), sampled, debug: false };
    let short =
        Outgoing { trace: TraceId { id: id(&TRACE[16..]), is_short: true }, parent: None, sampled: false, ..long };
    let (t, s) = (TRACE, SPAN);
    let (half, zeros) = (&t[16..], "0".repeat(16));
    let cases: &[(Format, Outgoing, Lines<'_>)] = &[
        (W3c, long, &[("traceparent", &format!("00-{t}-{s}-01"))]),
        (W3c, short, &[("traceparent", &format!("00-{zeros}{half}-{s}-00"))]),
        (
            B3,
            long,
            &[
                ("x-b3-traceid", t),
                ("x-b3-spanid", s),
                ("x-b3-parentspanid", "0000000000000005"),
                ("x-b3-sampled", "1"),
            ],
        ),
        (B3, short, &[("x-b3-traceid", half), ("x-b3-spanid", s), ("x-b3-sampled", "0")]),
        (B3Single, long, &[("b3", &format!("{t}-{s}-1-0000000000000005"))]),
        (B3Single, Outgoing { debug: true, ..short }, &[("b3", &format!("{half}-{s}-d"))]),
        (Jaeger, long, &[("uber-trace-id", &format!("{t}:{s}:0000000000000005:01"))]),
        (Jaeger, short, &[("uber-trace-id", &format!("{half}:{s}:0:00"))]),
        (Ot, long, &[("ot-tracer-traceid", t), ("ot-tracer-spanid", s), ("ot-tracer-sampled", "1")]),
        (
            Datadog,
            long,
            &[
                ("x-datadog-trace-id", "9532127138774266268"),
                ("x-datadog-parent-id", "13235353014750950193"),
                ("x-datadog-sampling-priority", "1"),
            ],
        ),
        (Aws, long, &[("x-amzn-trace-id", &format!("Root=1-{}-{};Parent={s};Sampled=1", &t[..8], &t[8..]))]),
        (Gcp, long, &[("x-cloud-trace-context", &format!("{t}/13235353014750950193;o=1"))]),
        (Instana, short, &[("x-instana-t", half), ("x-instana-s", s), ("x-instana-l", "0")]),
    ];
    for (format, outgoing, want) in cases {
        let got = written(*format, outgoing);
        assert!(got.iter().map(|(name, value)| (&**name, &**value)).eq(want.iter().copied()), "{format:?} {got:?}");
    }
}

#[test]
fn what_is_written_reads_as_the_same() {
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let is_short = rng.bool();
        let trace = TraceId { id: if is_short { u128::from(rng.u64(1..)) } else { rng.u128(1 << 64..) }, is_short };
        let parent = rng.bool().then(|| rng.u64(1..));
        let outgoing = Outgoing { trace, span: rng.u64(1..), parent, sampled: rng.bool(), debug: false };
        for format in ALL {
            let lines = written(format, &outgoing);
            let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
            let back = read(format, &lines).unwrap_or_else(|| panic!("seed {seed}: {lines:?}"));
            let kept = match format {
                Format::Datadog => TraceId { id: trace.id & u128::from(u64::MAX), is_short: true },
                Format::W3c | Format::Aws | Format::Gcp => TraceId::long(trace.id),
                _ => trace,
            };
            assert_eq!(back.trace, Some(kept), "seed {seed} {lines:?}");
            assert_eq!((back.span, back.sampled), (Some(outgoing.span), Some(outgoing.sampled)), "{lines:?}");
            if matches!(format, Format::B3 | Format::B3Single | Format::Jaeger) {
                assert_eq!(back.parent, parent, "seed {seed} {lines:?}");
            }
        }
    }
}

#[test]
fn hostile_values_are_read_without_harm() {
    let names = [
        "traceparent",
        "tracestate",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "uber-trace-id",
        "ot-tracer-traceid",
        "ot-tracer-spanid",
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
        "x-instana-t",
        "x-instana-s",
    ];
    let pieces: [&[u8]; 14] = [
        b"-",
        b":",
        b"/",
        b";",
        b"=",
        b"\xff",
        b"0",
        b"a",
        b"Root",
        b"Parent",
        b"b3=",
        b",",
        TRACE.as_bytes(),
        SPAN.as_bytes(),
    ];
    for seed in 0..3000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut fields = Fields::default();
        for name in names {
            let value: Vec<u8> =
                (0..rng.usize(0..9)).flat_map(|_| rng.choice(pieces).expect("some")).copied().collect();
            fields.append_by_name(name.as_bytes(), &value);
        }
        for format in ALL {
            format.read(&Headers { fields: &fields, source: b"" });
        }
    }
}

#[test]
fn log_records_tell_each_format_once() {
    let mut told = Vec::new();
    for format in [Format::W3c, Format::B3, Format::Datadog, Format::Aws, Format::W3c] {
        format.tell(TraceId::long(id(TRACE)), &mut told);
    }
    let want = format!("w3c={TRACE},b3={TRACE},datadog=9532127138774266268,aws=1-{}-{}", &TRACE[..8], &TRACE[8..]);
    assert_eq!(String::from_utf8_lossy(&told), want);
}
