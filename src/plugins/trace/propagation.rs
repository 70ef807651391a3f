//! HOT: lists of formats are walked; nothing is allocated.
//! From which headers a trace is taken, which are removed, and which are set for the upstream (spec/plugins.md H.1).
//! Owns: the record `propagation`, the deprecated `header_type`, and the notes by which a plugin keeps what it decided.

use serde_json::Map;
use serde_json::Value;

use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::plugins::settings;
use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Headers;
use crate::plugins::trace::HeadersOut;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::TraceId;
use crate::plugins::view::CoreFacts;
use crate::plugins::view::Notes;
use crate::plugins::view::View;
use crate::strs;

const EXTRACTED: &[Literal] = strs!["w3c", "b3", "jaeger", "ot", "datadog", "aws", "gcp", "instana"];
pub(in crate::plugins) const FORMATS: &[Literal] =
    strs!["w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp", "instana"];
const INJECTED: &[Literal] =
    strs!["preserve", "w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp", "instana"];
pub(in crate::plugins) const HEADER_TYPES: &[Literal] =
    strs!["preserve", "ignore", "b3", "b3-single", "w3c", "jaeger", "ot", "aws", "datadog", "gcp", "instana"];

const EXTRACT: Field = Field::string("").one_of(EXTRACTED);
const CLEAR: Field = Field::string("");
const INJECT: Field = Field::string("").one_of(INJECTED);

const fn record(default_format: Field) -> [Field; 4] {
    [Field::array("extract", &EXTRACT), Field::array("clear", &CLEAR), Field::array("inject", &INJECT), default_format]
}

const DEFAULT_FORMAT: Field = Field::string("default_format").required().one_of(FORMATS);
static W3C_FIELDS: [Field; 4] = record(DEFAULT_FORMAT.default_str("w3c"));
static B3_FIELDS: [Field; 4] = record(DEFAULT_FORMAT.default_str("b3"));
static W3C_RECORD: Record = Record::of(&W3C_FIELDS);
static B3_RECORD: Record = Record::of(&B3_FIELDS);

/// The field `propagation`, with that default format.
pub(in crate::plugins) const W3C: Field = Field::record("propagation", &W3C_RECORD).required();
pub(in crate::plugins) const B3: Field = Field::record("propagation", &B3_RECORD).required();

/// All formats in the order of the deprecated rules.
const ALL: [Format; 8] =
    [Format::B3, Format::W3c, Format::Jaeger, Format::Ot, Format::Datadog, Format::Aws, Format::Gcp, Format::Instana];

/// What a configuration says of headers.
#[derive(Debug, Clone, PartialEq)]
pub struct Propagation {
    extract: Box<[Format]>,
    clear: Box<[Box<str>]>,
    inject: Box<[Injection]>,
    default: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Injection {
    /// As it came, otherwise the default.
    Preserve,
    As(Format),
}

impl Propagation {
    /// Reads the fields `propagation`, `header_type` and `default_header_type` of a configuration.
    pub(in crate::plugins) fn of(config: &Map<String, Value>, absent: Format) -> Self {
        let empty = Map::new();
        let given = config.get("propagation").and_then(Value::as_object).unwrap_or(&empty);
        let is_set = |name: &str| given.get(name).is_some_and(|value| !value.is_null());
        let default = settings::text(given, "default_format").and_then(Format::named).unwrap_or(absent);
        if ["extract", "clear", "inject"].into_iter().any(is_set) {
            let inject = settings::texts(given, "inject").filter_map(|word| match word {
                "preserve" => Some(Injection::Preserve),
                name => Format::named(name).map(Injection::As),
            });
            return Self {
                extract: settings::texts(given, "extract").filter_map(Format::named).collect(),
                clear: settings::texts(given, "clear").map(Box::from).collect(),
                inject: inject.collect(),
                default,
            };
        }
        // The old name for the default counts where it says something of its own.
        let old = settings::text(config, "default_header_type").and_then(Format::named);
        let default = old.filter(|old| *old != absent).unwrap_or(default);
        let (extract, inject): (&[Format], Vec<Injection>) = match settings::text(config, "header_type") {
            Some("ignore") => (&[], vec![Injection::As(default)]),
            Some(name) if name != "preserve" => {
                (&ALL, Format::named(name).map(Injection::As).into_iter().chain([Injection::Preserve]).rev().collect())
            }
            _ => (&ALL, vec![Injection::Preserve]),
        };
        Self { extract: extract.into(), clear: Box::default(), inject: inject.into(), default }
    }

    /// The first context that the headers tell; then the headers to be cleared are gone.
    pub fn extract(&self, view: &mut View<'_>) -> Option<(Context, Format)> {
        let headers = Headers { fields: view.fields, source: view.source };
        let found = self.extract.iter().find_map(|format| format.read(&headers));
        for name in &self.clear {
            view.fields.remove_by_name(view.source, name.as_bytes());
        }
        if let Some((Context { trace: Some(id), .. }, format)) = found {
            format.tell(id, &mut view.told.trace_ids);
        }
        found
    }

    /// Sets the headers of the formats that are wanted; `found`: the format of what was extracted.
    pub fn inject(&self, found: Option<Format>, outgoing: &Outgoing, view: &mut View<'_>) {
        for injection in &self.inject {
            let format = match injection {
                Injection::Preserve => found.unwrap_or(self.default),
                Injection::As(format) => *format,
            };
            format.write(outgoing, &mut HeadersOut { fields: view.fields, source: view.source });
            format.tell(outgoing.trace, &mut view.told.trace_ids);
        }
    }
}

/// A trace as a plugin has decided on it, kept in its notes and shipped with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    pub trace: TraceId,
    /// The span of the request.
    pub span: u64,
    pub parent: Option<u64>,
    /// The span of the call to the upstream.
    pub call: u64,
    pub sampled: bool,
}

const NOTED: u8 = 1;
const SHORT: u8 = 2;
const HAS_PARENT: u8 = 4;
const SAMPLED: u8 = 8;

impl Traced {
    /// A trace that begins here, of 8 or 16 bytes.
    pub fn begin(core: &CoreFacts, is_short: bool) -> Self {
        let low = new_id(core);
        let high = if is_short { 0 } else { u128::from(new_id(core)) };
        let trace = TraceId { id: high << 64 | u128::from(low), is_short };
        Self { trace, span: new_id(core), parent: None, call: new_id(core), sampled: false }
    }

    /// Writes it down.
    pub fn note(&self, notes: &mut Notes) {
        notes.numbers = [(self.trace.id >> 64) as u64, self.trace.id as u64, self.span, self.call];
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let flags = NOTED
            | flag(SHORT, self.trace.is_short)
            | flag(HAS_PARENT, self.parent.is_some())
            | flag(SAMPLED, self.sampled);
        notes.bytes.clear();
        notes.bytes.push(flags);
        notes.bytes.extend_from_slice(&self.parent.unwrap_or(0).to_le_bytes());
    }

    /// What was written down.
    pub fn noted(numbers: [u64; 4], bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first().filter(|(flags, _)| **flags & NOTED != 0)?;
        let parent = u64::from_le_bytes(rest.first_chunk().copied()?);
        Some(Self {
            trace: TraceId { id: u128::from(numbers[0]) << 64 | u128::from(numbers[1]), is_short: flags & SHORT != 0 },
            span: numbers[2],
            parent: (flags & HAS_PARENT != 0).then_some(parent),
            call: numbers[3],
            sampled: flags & SAMPLED != 0,
        })
    }

    /// Whether a share of all traces holds this one: the same answer wherever it is asked with the same share.
    pub fn is_within(&self, share: f64) -> bool {
        // 53 bits are what a float holds exactly.
        ((self.trace.id as u64) >> 11) as f64 / (1u64 << 53) as f64 <= share && share > 0.0
    }
}

fn new_id(core: &CoreFacts) -> u64 {
    (core.random)().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: Value) -> Propagation {
        Propagation::of(config.as_object().expect("an object"), Format::W3c)
    }

    #[test]
    fn the_old_rules_hold_only_where_the_new_say_nothing() {
        use Injection::*;
        let told = |config: Value| {
            let all = of(config);
            (all.extract.len(), all.inject.to_vec())
        };
        assert_eq!(told(json!({})), (8, vec![Preserve]));
        assert_eq!(told(json!({"header_type": "preserve"})), (8, vec![Preserve]));
        assert_eq!(told(json!({"header_type": "ignore"})), (0, vec![As(Format::W3c)]));
        assert_eq!(told(json!({"header_type": "jaeger"})), (8, vec![Preserve, As(Format::Jaeger)]));
        let new = json!({"extract": ["b3"], "default_format": "ot"});
        assert_eq!(told(json!({"header_type": "jaeger", "propagation": new})), (1, vec![]));
        let old = json!({"default_header_type": "b3", "propagation": {"default_format": "w3c"}});
        assert_eq!(of(old).default, Format::B3);
    }

    #[test]
    fn notes_come_back_as_they_were() {
        let trace = TraceId { id: u128::MAX - 5, is_short: true };
        let whole = Traced { trace, span: 1, parent: Some(u64::MAX), call: 3, sampled: true };
        for traced in [whole, Traced { parent: None, sampled: false, trace: TraceId::long(1 << 100), ..whole }] {
            let mut notes = Notes::default();
            traced.note(&mut notes);
            assert_eq!(Traced::noted(notes.numbers, &notes.bytes), Some(traced));
        }
        assert_eq!(Traced::noted([0; 4], b""), None);
    }

    #[test]
    fn a_share_of_traces_is_about_that_share_and_always_the_same() {
        let mut rng = fastrand::Rng::with_seed(7);
        let traced =
            |id: u64| Traced { trace: TraceId::long(u128::from(id)), span: 1, parent: None, call: 2, sampled: false };
        let hits = (0..10_000).filter(|_| traced(rng.u64(..)).is_within(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!(traced(u64::MAX).is_within(1.0) && !traced(0).is_within(0.0));
    }
}
