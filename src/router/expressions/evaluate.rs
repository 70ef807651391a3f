//! HOT: no allocation once the scratch memory has grown to the values that come.
//! Does an expression hold for a request, and how much of the path did it match?
//! Always: in the order in which it was written, and no further than needed: the last predicate on the path that held
//! decides what `strip_path` takes off (spec/router.md section 14.1).

use std::cell::RefCell;
use std::net::IpAddr;

use crate::router::Query;
use crate::router::expressions::fields::Field;
use crate::router::expressions::program::Node;
use crate::router::expressions::program::Predicate;
use crate::router::expressions::program::Test;
use crate::router::pattern::TextRegex;

/// Memory that values are decoded and lower-cased in; one per router, kept.
#[derive(Debug, Default)]
pub(in crate::router) struct Scratch {
    decoded: RefCell<Vec<u8>>,
    lowered: RefCell<Vec<u8>>,
}

/// One expression being asked of one request.
pub(in crate::router) struct Evaluation<'a> {
    pub query: &'a Query<'a>,
    /// Of the Host header, without its port.
    pub host: &'a [u8],
    /// Of the Host header, else of the listener.
    pub port: u32,
    pub regexes: &'a [TextRegex],
    pub scratch: &'a Scratch,
    /// Bytes of path that the last predicate on it matched.
    pub matched_len: Option<usize>,
}

impl Evaluation<'_> {
    pub fn holds(&mut self, node: &Node) -> bool {
        match node {
            Node::All(all) => all.iter().all(|one| self.holds(one)),
            Node::Any(any) => any.iter().any(|one| self.holds(one)),
            Node::Not(inner) => !self.holds(inner),
            Node::Predicate(predicate) => self.test(predicate),
        }
    }

    /// A field that the request does not have passes no test, not even one for difference.
    fn test(&mut self, predicate: &Predicate) -> bool {
        match &predicate.field {
            Field::SourceIp => passes_ip(&predicate.test, self.query.source.ip()),
            Field::DestinationIp => passes_ip(&predicate.test, self.query.destination),
            Field::SourcePort => passes_int(&predicate.test, i64::from(self.query.source.port())),
            Field::DestinationPort => passes_int(&predicate.test, i64::from(self.port)),
            Field::SegmentCount => passes_int(&predicate.test, segments(self.query.path).count() as i64),
            _ => self.test_texts(predicate),
        }
    }

    fn test_texts(&mut self, predicate: &Predicate) -> bool {
        let (regexes, scratch) = (self.regexes, self.scratch);
        let (mut seen, mut passed, mut failed) = (false, false, false);
        let mut matched_len = None;
        self.each_value(&predicate.field, &mut |value| {
            seen = true;
            match with_case(predicate, scratch, value, |value| passes(&predicate.test, regexes, value)) {
                Some(len) => (passed, matched_len) = (true, len.or(matched_len)),
                None => failed = true,
            }
            // One is enough, respectively one is too many.
            if predicate.any { passed } else { failed }
        });
        if predicate.field == Field::Path && matched_len.is_some() {
            self.matched_len = matched_len;
        }
        seen && if predicate.any { passed } else { !failed }
    }

    /// Calls `f` with each value until it says true.
    fn each_value(&self, field: &Field, f: &mut dyn FnMut(&[u8]) -> bool) {
        let query = self.query;
        let only = match field {
            Field::Protocol => Some(if query.https { b"https".as_slice() } else { b"http" }),
            Field::Sni => query.sni,
            Field::Method => Some(query.method),
            Field::Host => (!query.host.is_empty()).then_some(self.host),
            Field::Path => Some(query.path),
            Field::Segment(at) => segments(query.path).nth(*at),
            Field::Segments(first, last) => segment_range(query.path, *first, *last),
            Field::Header(name) => return query.headers.for_each(name, f),
            Field::Argument(name) => return each_argument(query.arguments, name, &self.scratch.decoded, f),
            _ => None,
        };
        if let Some(value) = only {
            f(value);
        }
    }
}

fn with_case<T>(predicate: &Predicate, scratch: &Scratch, value: &[u8], test: impl FnOnce(&[u8]) -> T) -> T {
    if !predicate.lower {
        return test(value);
    }
    let mut lowered = scratch.lowered.borrow_mut();
    lowered.clear();
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars().flat_map(char::to_lowercase) {
            lowered.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        lowered.extend_from_slice(chunk.invalid());
    }
    test(&lowered)
}

/// None: the value does not pass. Else how many bytes of it were matched, for the tests that match.
fn passes(test: &Test, regexes: &[TextRegex], value: &[u8]) -> Option<Option<usize>> {
    let matched = |len: usize| Some(Some(len));
    match test {
        Test::Equals(text) if **text == *value => matched(text.len()),
        Test::Begins(text) if value.starts_with(text) => matched(text.len()),
        Test::Ends(text) if value.ends_with(text) => matched(text.len()),
        Test::Regex(regex) => matched(regexes.get(*regex)?.matched_len(value)?),
        Test::Differs(text) if **text != *value => Some(None),
        Test::Contains(text) if text.is_empty() || value.windows(text.len()).any(|piece| *piece == **text) => {
            Some(None)
        }
        _ => None,
    }
}

fn passes_int(test: &Test, value: i64) -> bool {
    matches!(test, Test::Int(comparison, wanted) if comparison.holds(value, *wanted))
}

fn passes_ip(test: &Test, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    match test {
        Test::IpEquals(wanted) => *wanted == ip,
        Test::IpDiffers(wanted) => *wanted != ip,
        Test::Within(block) => block.contains(ip),
        Test::Outside(block) => !block.contains(ip),
        _ => false,
    }
}

/// The path without its first slash and the slashes at its end.
fn inner_path(path: &[u8]) -> &[u8] {
    let mut inner = path.strip_prefix(b"/").unwrap_or(path);
    while let Some(shorter) = inner.strip_suffix(b"/") {
        inner = shorter;
    }
    inner
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = inner_path(path);
    inner.split(|byte| *byte == b'/').filter(|_| !inner.is_empty())
}

/// From the first to the last segment, with the slashes between; None when there is no such last one.
fn segment_range(path: &[u8], first: usize, last: usize) -> Option<&[u8]> {
    let inner = inner_path(path);
    let (mut start, mut at) = (None, 0);
    for (index, segment) in segments(path).enumerate() {
        if index == first {
            start = Some(at);
        }
        at += segment.len();
        if index == last {
            return inner.get(start?..at);
        }
        at += 1;
    }
    None
}

/// Calls `f` with the decoded value of each argument of that name until it says true. An argument without `=` is empty.
fn each_argument(query: &[u8], name: &[u8], scratch: &RefCell<Vec<u8>>, f: &mut dyn FnMut(&[u8]) -> bool) {
    let mut decoded = scratch.borrow_mut();
    for piece in query.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
        let (key, value) = match piece.iter().position(|byte| *byte == b'=') {
            Some(at) => (&piece[..at], &piece[at + 1..]),
            None => (piece, &b""[..]),
        };
        if !decode(key, &mut decoded, |key| key == name) {
            continue;
        }
        if decode(value, &mut decoded, &mut *f) {
            return;
        }
    }
}

fn decode<T>(text: &[u8], scratch: &mut Vec<u8>, f: impl FnOnce(&[u8]) -> T) -> T {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return f(text);
    }
    scratch.clear();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                scratch.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (b'+', ..) => scratch.push(b' '),
            _ => scratch.push(*byte),
        }
    }
    f(scratch)
}
