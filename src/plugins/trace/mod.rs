//! HOT: headers are read and written on the stack; nothing is allocated.
//! The context of a trace as headers carry it from process to process, in the formats of nine tracing systems
//! (spec/plugins.md H.1).
//! Owns: one table of formats, each a function that reads and one that writes. Never: decides what is traced.
//! Always: whatever a peer sends reads as a context or as none.

pub mod propagation;

mod aws;
mod b3;
mod datadog;
mod gcp;
mod instana;
mod jaeger;
mod ot;
#[cfg(test)]
mod tests;
mod text;
mod w3c;

use crate::http::fields::Fields;
use crate::plugins::trace::text::Text;

/// What headers tell, or are to tell, of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// `None`: only whether to sample was told.
    pub trace: Option<TraceId>,
    /// The span of whoever sends the headers.
    pub span: Option<u64>,
    /// The parent of that span, which some formats tell.
    pub parent: Option<u64>,
    pub sampled: Option<bool>,
    /// To be sampled whatever the odds, and to be told so to others.
    pub debug: bool,
}

/// The id of a trace, and whether it was told in 8 bytes; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId {
    pub id: u128,
    pub is_short: bool,
}

impl TraceId {
    /// An id of 16 bytes.
    pub fn long(id: u128) -> Self {
        Self { id, is_short: false }
    }

    /// In hexadecimal, as long as it was told.
    pub fn text(self) -> Text {
        self.hex(true)
    }

    fn hex(self, allows_short: bool) -> Text {
        let mut text = Text::default();
        text.push_hex(self.id, if self.is_short && allows_short { 16 } else { 32 });
        text
    }
}

/// A way to write a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    W3c,
    B3,
    B3Single,
    Jaeger,
    Ot,
    Datadog,
    Aws,
    Gcp,
    Instana,
}

/// Request headers to read from.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    pub fields: &'a Fields,
    /// The bytes that `fields` points into.
    pub source: &'a [u8],
}

impl<'a> Headers<'a> {
    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.get_by_name(self.source, name.as_bytes())
    }
}

/// Request headers to write to.
pub struct HeadersOut<'a> {
    pub fields: &'a mut Fields,
    /// The bytes that `fields` points into.
    pub source: &'a [u8],
}

impl HeadersOut<'_> {
    fn set(&mut self, name: &str, value: &Text) {
        self.fields.set_by_name(self.source, name.as_bytes(), value.bytes());
    }

    fn remove(&mut self, name: &str) {
        self.fields.remove_by_name(self.source, name.as_bytes());
    }
}

/// What is written: all that every format needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    pub trace: TraceId,
    pub span: u64,
    pub parent: Option<u64>,
    pub sampled: bool,
    pub debug: bool,
}

/// How contexts are read and written in one format.
struct Kind {
    format: Format,
    name: &'static str,
    /// The format that was found, which may be a close relative.
    read: fn(&Headers<'_>) -> Option<(Context, Format)>,
    write: fn(&Outgoing, &mut HeadersOut<'_>),
    /// How log records tell the id.
    id: fn(TraceId) -> Text,
}

static FORMATS: [Kind; 9] = [
    Kind { format: Format::W3c, name: "w3c", read: w3c::read, write: w3c::write, id: |id| id.hex(false) },
    Kind { format: Format::B3, name: "b3", read: b3::read, write: b3::write, id: |id| id.hex(true) },
    Kind {
        format: Format::B3Single,
        name: "b3-single",
        read: b3::read,
        write: b3::write_single,
        id: |id| id.hex(true),
    },
    Kind { format: Format::Jaeger, name: "jaeger", read: jaeger::read, write: jaeger::write, id: |id| id.hex(true) },
    Kind { format: Format::Ot, name: "ot", read: ot::read, write: ot::write, id: |id| id.hex(true) },
    Kind { format: Format::Datadog, name: "datadog", read: datadog::read, write: datadog::write, id: datadog::id },
    Kind { format: Format::Aws, name: "aws", read: aws::read, write: aws::write, id: aws::id },
    Kind { format: Format::Gcp, name: "gcp", read: gcp::read, write: gcp::write, id: |id| id.hex(false) },
    Kind {
        format: Format::Instana,
        name: "instana",
        read: instana::read,
        write: instana::write,
        id: |id| id.hex(true),
    },
];

impl Format {
    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|kind| kind.name == name).map(|kind| kind.format)
    }

    fn kind(self) -> &'static Kind {
        // The table stands in the order of the variants.
        &FORMATS[self as usize]
    }

    /// Its name in configurations and log records.
    pub fn name(self) -> &'static str {
        self.kind().name
    }

    /// The context that the headers tell, and whether in one header or in several.
    pub fn read(self, headers: &Headers<'_>) -> Option<(Context, Self)> {
        (self.kind().read)(headers)
    }

    /// Sets the headers of the format.
    pub fn write(self, outgoing: &Outgoing, headers: &mut HeadersOut<'_>) {
        (self.kind().write)(outgoing, headers);
    }

    /// Appends `name=id` to what log records tell, unless the name is there.
    pub fn tell(self, id: TraceId, told: &mut Vec<u8>) {
        let kind = self.kind();
        let is_there = |pair: &[u8]| pair.strip_prefix(kind.name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
        if told.split(|&byte| byte == b',').any(is_there) {
            return;
        }
        if !told.is_empty() {
            told.push(b',');
        }
        told.extend_from_slice(kind.name.as_bytes());
        told.push(b'=');
        told.extend_from_slice((kind.id)(id).bytes());
    }
}
