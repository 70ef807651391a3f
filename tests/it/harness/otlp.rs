//! What a collector of OTLP reads from the bytes that it gets: Protocol Buffers by the wire format alone.
//! Never: shares code with what writes them. Always: panics at bytes that are no message.

use std::collections::BTreeMap;

/// The fields of a message, in order: number and value.
#[derive(Debug, Clone)]
pub struct Message(Vec<(u64, Value)>);

/// A value as the wire has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    Fixed64(u64),
    Bytes(Vec<u8>),
}

impl Message {
    /// Reads a message.
    #[track_caller]
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Fixed64(u64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight bytes"))),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Value::Bytes(take(&mut bytes, length).to_vec())
                }
                kind => panic!("no wire type of OTLP: {kind}"),
            };
            assert_ne!(key >> 3, 0, "fields count from 1");
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |(number, _)| *number == field).map(|(_, value)| value)
    }

    /// Messages under a number.
    #[track_caller]
    pub fn messages(&self, field: u64) -> Vec<Message> {
        self.all(field).map(|value| Message::read(bytes_of(value))).collect()
    }

    /// The bytes under a number; empty if there are none.
    #[track_caller]
    pub fn bytes(&self, field: u64) -> Vec<u8> {
        self.all(field).last().map(|value| bytes_of(value).to_vec()).unwrap_or_default()
    }

    /// The text under a number.
    #[track_caller]
    pub fn text(&self, field: u64) -> String {
        String::from_utf8(self.bytes(field)).expect("a text is UTF-8")
    }

    /// The number under a number; 0 if there is none.
    pub fn number(&self, field: u64) -> u64 {
        match self.all(field).last() {
            Some(Value::Number(number) | Value::Fixed64(number)) => *number,
            Some(other) => panic!("field {field} is no number: {other:?}"),
            None => 0,
        }
    }

    /// Attributes under a number, as texts.
    #[track_caller]
    pub fn attributes(&self, field: u64) -> BTreeMap<String, String> {
        let pairs = self.messages(field);
        let all: BTreeMap<_, _> = pairs
            .iter()
            .map(|pair| {
                let value = pair.messages(2).pop().expect("an attribute has a value");
                let text = match value.0.as_slice() {
                    [(1, Value::Bytes(_))] => value.text(1),
                    [(3, Value::Number(number))] => number.to_string(),
                    other => panic!("no value of ours: {other:?}"),
                };
                (pair.text(1), text)
            })
            .collect();
        assert_eq!(all.len(), pairs.len(), "an attribute stands once");
        all
    }
}

fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        other => panic!("not bytes: {other:?}"),
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for at in 0..10 {
        let byte = take(bytes, 1)[0];
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number has ten bytes at most");
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at_checked(count).expect("the message is cut");
    *bytes = rest;
    head
}

/// A span as it was sent.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: the trace begins with it.
    pub parent: String,
    pub name: String,
    pub kind: u64,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
}

/// Attributes of the resource, and the items of all scopes (spans or log records), of one request to a collector.
#[track_caller]
pub fn items(body: &[u8]) -> (BTreeMap<String, String>, Vec<Message>) {
    let mut resources = Message::read(body).messages(1);
    assert_eq!(resources.len(), 1);
    let of_resource = resources.remove(0);
    let attributes = of_resource.messages(1)[0].attributes(1);
    let scopes = of_resource.messages(2);
    for scope in &scopes {
        let told = &scope.messages(1)[0];
        assert_eq!((told.text(1).as_str(), told.text(2).as_str()), ("kong-internal", "0.1.0"));
    }
    (attributes, scopes.iter().flat_map(|scope| scope.messages(2)).collect())
}

/// The spans of a request to a collector of traces.
#[track_caller]
pub fn spans(body: &[u8]) -> Vec<Span> {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spans = items(body).1.into_iter().map(|span| Span {
        trace: hex(span.bytes(1)),
        id: hex(span.bytes(2)),
        parent: hex(span.bytes(4)),
        name: span.text(5),
        kind: span.number(6),
        begun_ns: span.number(7),
        ended_ns: span.number(8),
        failed: span.messages(15).iter().any(|status| status.number(3) == 2),
        attributes: span.attributes(9),
    });
    spans.collect()
}
