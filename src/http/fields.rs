//! HOT: no allocation after warm-up, no formatting.
//! The header fields of one message, in order, as texts that lie in the read buffer or in a scratch of their own.
//! Owns: lookup, removal, replacement. Never: owns the read buffer; every reader passes it, and it must be the one that
//! was parsed. Always: no name is anything but a token, no value holds CR, LF, NUL or another control byte but HTAB.

use std::ops::Range;

use crate::http::known::Known;

/// A piece of a buffer: `start` and `len` in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// A span over nothing.
    pub const EMPTY: Self = Self { start: 0, len: 0 };

    /// A span of `len` bytes at `start`. Heads are bounded far below 4 GiB.
    #[inline]
    pub fn new(start: usize, len: usize) -> Self {
        debug_assert!(start + len <= u32::MAX as usize, "heads are bounded");
        Self { start: start as u32, len: len as u32 }
    }

    /// The bytes; nothing when the buffer is not the one that was measured.
    #[inline]
    pub fn of(self, src: &[u8]) -> &[u8] {
        src.get(self.start as usize..self.end()).unwrap_or(&[])
    }

    /// The offset just after the span, bytes.
    #[inline]
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// Whether the span covers nothing.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Which buffer a text lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// The read buffer that was parsed.
    Source,
    /// The scratch of the `Fields`.
    Scratch,
    /// The static spelling of a known name.
    Usual,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    name: Span,
    value: Span,
    known: Known,
    name_home: Home,
    value_home: Home,
    /// Set while a removal runs; no item is dead between two calls.
    dead: bool,
}

impl Item {
    #[inline]
    fn name<'a>(&self, src: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        match self.name_home {
            Home::Source => self.name.of(src),
            Home::Scratch => self.name.of(scratch),
            Home::Usual => self.known.name().as_bytes(),
        }
    }

    #[inline]
    fn value<'a>(&self, src: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        match self.value_home {
            Home::Source => self.value.of(src),
            _ => self.value.of(scratch),
        }
    }

    /// The whole line in the source, if it is written as the encoder writes lines.
    #[inline]
    fn line(&self, src: &[u8]) -> Option<Range<usize>> {
        let (colon, value, end) = (self.name.end(), self.value.start as usize, self.value.end());
        let is_usual = self.name_home == Home::Source
            && self.value_home == Home::Source
            && src.get(colon..value) == Some(b": ".as_slice())
            && src.get(end..end + 2) == Some(b"\r\n".as_slice());
        is_usual.then(|| self.name.start as usize..end + 2)
    }

    #[inline]
    fn is(&self, known: Known, name: &[u8], src: &[u8], scratch: &[u8]) -> bool {
        self.known == known && (known != Known::Other || self.name(src, scratch).eq_ignore_ascii_case(name))
    }
}

/// One field as its readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub known: Known,
    /// As it was received or set; compare without case.
    pub name: &'a [u8],
    /// Without surrounding whitespace; may hold bytes above 0x7f.
    pub value: &'a [u8],
}

/// The ordered fields of one message. Reused between messages: `clear` keeps the memory.
#[derive(Debug, Default)]
pub struct Fields {
    items: Vec<Item>,
    scratch: Vec<u8>,
    /// Which known names are there; exact.
    present: u128,
}

impl Fields {
    /// Forgets every field, keeps the memory.
    pub fn clear(&mut self) {
        self.items.clear();
        self.scratch.clear();
        self.present = 0;
    }

    /// How many fields there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no field.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of memory kept for reuse, for the owner's accounting.
    pub fn memory_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>() + self.scratch.capacity()
    }

    /// Adds a field that the parser found and checked.
    #[inline]
    pub(super) fn push_parsed(&mut self, src: &[u8], name: Span, value: Span) {
        let known = Known::of(name.of(src));
        self.present |= known.bit();
        self.items.push(Item { name, value, known, name_home: Home::Source, value_home: Home::Source, dead: false });
    }

    /// Whether a known name is there at all; one bit test.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// How many fields have this known name.
    pub fn count(&self, known: Known) -> usize {
        if self.has(known) { self.items.iter().filter(|item| item.known == known).count() } else { 0 }
    }

    /// The value of the first field with this known name.
    #[inline]
    pub fn get<'a>(&'a self, src: &'a [u8], known: Known) -> Option<&'a [u8]> {
        if !self.has(known) {
            return None;
        }
        let item = self.items.iter().find(|item| item.known == known)?;
        Some(item.value(src, &self.scratch))
    }

    /// The value of the first field of this name, in any case.
    pub fn get_by_name<'a>(&'a self, src: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let known = Known::of(name);
        if known != Known::Other {
            return self.get(src, known);
        }
        let item = self.items.iter().find(|item| item.is(known, name, src, &self.scratch))?;
        Some(item.value(src, &self.scratch))
    }

    /// The values of every field with this known name, in order.
    pub fn values<'a>(&'a self, src: &'a [u8], known: Known) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let items: &[Item] = if self.has(known) { &self.items } else { &[] };
        items.iter().filter(move |item| item.known == known).map(move |item| item.value(src, &self.scratch))
    }

    /// The values of every field of this name, in any case, in order.
    pub fn values_by_name<'a>(&'a self, src: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let known = Known::of(name);
        self.items
            .iter()
            .filter(move |item| item.is(known, name, src, &self.scratch))
            .map(move |item| item.value(src, &self.scratch))
    }

    /// Every field, in order.
    pub fn iter<'a>(&'a self, src: &'a [u8]) -> impl Iterator<Item = Field<'a>> + use<'a> {
        self.items.iter().map(move |item| Field {
            known: item.known,
            name: item.name(src, &self.scratch),
            value: item.value(src, &self.scratch),
        })
    }

    /// Every field, in order, and where in the source its line stands if a writer would write just that.
    pub(super) fn lines<'a>(
        &'a self,
        src: &'a [u8],
    ) -> impl Iterator<Item = (Field<'a>, Option<Range<usize>>)> + use<'a> {
        self.iter(src).zip(self.items.iter().map(|item| item.line(src)))
    }

    /// Removes every field with this known name; says whether there was one.
    pub fn remove(&mut self, known: Known) -> bool {
        self.remove_all(known.bit())
    }

    /// Removes every field whose known name has its bit set; says whether there was one.
    pub fn remove_all(&mut self, unwanted: u128) -> bool {
        if self.present & unwanted == 0 {
            return false;
        }
        self.items.retain(|item| item.known.bit() & unwanted == 0);
        self.present &= !unwanted;
        true
    }

    /// Removes every field of this name, in any case; says whether there was one.
    pub fn remove_by_name(&mut self, src: &[u8], name: &[u8]) -> bool {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove(known);
        }
        let before = self.items.len();
        let scratch = &self.scratch;
        self.items.retain(|item| !item.is(known, name, src, scratch));
        self.items.len() != before
    }

    /// Removes every field that `keep` does not want.
    pub fn retain(&mut self, src: &[u8], mut keep: impl FnMut(Field<'_>) -> bool) {
        let scratch = &self.scratch;
        let mut present = 0;
        self.items.retain(|item| {
            let kept =
                keep(Field { known: item.known, name: item.name(src, scratch), value: item.value(src, scratch) });
            if kept {
                present |= item.known.bit();
            }
            kept
        });
        self.present = present;
    }

    /// Removes every field whose name is listed in a field `list` (a comma list), but those that `protected` names.
    pub fn remove_listed(&mut self, src: &[u8], list: Known, protected: impl Fn(Known) -> bool) {
        if !self.has(list) {
            return;
        }
        let mut any = false;
        for at in 0..self.items.len() {
            let lister = self.items[at];
            if lister.known != list {
                continue;
            }
            for token in tokens(lister.value(src, &self.scratch)) {
                let known = Known::of(token);
                if protected(known) || (known != Known::Other && !self.has(known)) {
                    continue;
                }
                for item in &mut self.items {
                    let listed = item.is(known, token, src, &self.scratch);
                    item.dead |= listed;
                    any |= listed;
                }
            }
        }
        if any {
            self.items.retain(|item| !item.dead);
            self.present = self.items.iter().fold(0, |set, item| set | item.known.bit());
        }
    }

    /// Replaces every field with this known name by one with `value`, in the place of the first; appends it if there
    /// was none. Control bytes of `value` become spaces.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        debug_assert!(known != Known::Other, "an unknown name has no spelling");
        let value = self.keep_value(value);
        if !self.has(known) {
            return self.push_kept(Span::EMPTY, Home::Usual, value, known);
        }
        let mut first = true;
        self.items.retain_mut(|item| {
            if item.known != known {
                return true;
            }
            if first {
                (item.value, item.value_home) = (value, Home::Scratch);
            }
            std::mem::take(&mut first)
        });
    }

    /// `set` for a name in bytes. False, and nothing is done, when the name is not a token.
    pub fn set_by_name(&mut self, src: &[u8], name: &[u8], value: &[u8]) -> bool {
        let known = Known::of(name);
        let scratch = &self.scratch;
        let Some(at) = self.items.iter().position(|item| item.is(known, name, src, scratch)) else {
            return self.append_by_name(name, value);
        };
        let value = self.keep_value(value);
        let item = &mut self.items[at];
        (item.value, item.value_home) = (value, Home::Scratch);
        let (mut index, scratch) = (0, &self.scratch);
        self.items.retain(|item| {
            let kept = index <= at || !item.is(known, name, src, scratch);
            index += 1;
            kept
        });
        true
    }

    /// Adds a field at the end, beside any others of its name. Control bytes of `value` become spaces.
    pub fn append(&mut self, known: Known, value: &[u8]) {
        debug_assert!(known != Known::Other, "an unknown name has no spelling");
        let value = self.keep_value(value);
        self.push_kept(Span::EMPTY, Home::Usual, value, known);
    }

    /// `append` for a name in bytes. False, and nothing is done, when the name is not a token.
    pub fn append_by_name(&mut self, name: &[u8], value: &[u8]) -> bool {
        if !is_token(name) {
            return false;
        }
        let start = self.scratch.len();
        self.scratch.extend_from_slice(name);
        let name_span = Span::new(start, name.len());
        let value = self.keep_value(value);
        self.push_kept(name_span, Home::Scratch, value, Known::of(name));
        true
    }

    fn push_kept(&mut self, name: Span, name_home: Home, value: Span, known: Known) {
        self.present |= known.bit();
        self.items.push(Item { name, value, known, name_home, value_home: Home::Scratch, dead: false });
    }

    /// Copies a value that may come from anywhere. RFC 9110 section 5.5 lets a recipient put a space for such bytes;
    /// here that keeps a plugin's text from ending the line it stands in.
    fn keep_value(&mut self, value: &[u8]) -> Span {
        let value = value.trim_ascii();
        let start = self.scratch.len();
        self.scratch.extend(value.iter().map(|&byte| if is_value_byte(byte) { byte } else { b' ' }));
        Span::new(start, value.len())
    }
}

/// The elements of a comma list, without surrounding whitespace; empty ones are skipped (RFC 9110 section 5.6.1).
pub fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(trim_ows).filter(|token| !token.is_empty())
}

/// The text without spaces and tabs around it.
pub fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Whether the bytes are a token of RFC 9110 section 5.6.2: one or more of letters, digits and some signs.
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))
}

#[inline]
pub(super) fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[inline]
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields parsed out of `src`, which holds lines of `name:value` ended by LF.
    fn parsed(src: &[u8]) -> Fields {
        let mut fields = Fields::default();
        let mut start = 0;
        for line in src.split_inclusive(|&byte| byte == b'\n') {
            let colon = line.iter().position(|&byte| byte == b':').unwrap();
            let value = Span::new(start + colon + 1, line.len() - colon - 2);
            fields.push_parsed(src, Span::new(start, colon), value);
            start += line.len();
        }
        fields
    }

    fn shown(fields: &Fields, src: &[u8]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter(src).map(|field| format!("{}:{}\n", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn lookups_ignore_case_and_keep_order() {
        let src = b"host:a\nX-Dup:1\nx-dup:2\nVIA:v\nX-DUP:3\n";
        let fields = parsed(src);
        assert_eq!(fields.get(src, Known::Host), Some(b"a".as_slice()));
        assert_eq!(fields.get_by_name(src, b"via"), Some(b"v".as_slice()));
        assert_eq!(fields.get_by_name(src, b"X-duP"), Some(b"1".as_slice()));
        assert_eq!(fields.get_by_name(src, b"absent"), None);
        assert_eq!(fields.get(src, Known::Cookie), None);
        assert_eq!(fields.values_by_name(src, b"x-dup").collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        assert_eq!((fields.count(Known::Via), fields.count(Known::Te), fields.len()), (1, 0, 5));
    }

    #[test]
    fn set_replaces_all_in_the_place_of_the_first() {
        let src = b"A:1\nVia:x\nB:2\nvia:y\na:3\n";
        let mut fields = parsed(src);
        fields.set(Known::Via, b"new");
        fields.set(Known::XRealIp, b"::1");
        assert!(fields.set_by_name(src, b"A", b"9"));
        assert!(fields.set_by_name(src, b"C", b"4"));
        assert_eq!(shown(&fields, src), "A:9\nVia:new\nB:2\nX-Real-IP:::1\nC:4\n");
        assert!(fields.remove_by_name(src, b"x-REAL-ip") && fields.remove_by_name(src, b"b"));
        assert!(!fields.remove_by_name(src, b"b") && !fields.remove(Known::XRealIp));
        assert_eq!(shown(&fields, src), "A:9\nVia:new\nC:4\n");
    }

    #[test]
    fn no_value_ends_its_line_and_no_name_is_no_token() {
        let mut fields = Fields::default();
        fields.append(Known::Location, b" a\r\nSet-Cookie: b\0\x7f\tc ");
        assert!(!fields.append_by_name(b"a b", b"x") && !fields.append_by_name(b"", b"x"));
        assert!(!fields.set_by_name(b"", b"a\r\nb", b"x") && !fields.append_by_name(b"a:", b"x"));
        assert_eq!(shown(&fields, b""), "Location:a  Set-Cookie: b  \tc\n");
    }

    #[test]
    fn listed_names_go_unless_protected() {
        let src = b"Connection:close, X-a,,host , via\nX-A:1\nHost:h\nConnection:b\nB:2\nVia:v\nC:3\n";
        let mut fields = parsed(src);
        fields.remove_listed(src, Known::Connection, |known| known == Known::Host);
        fields.remove(Known::Connection);
        assert_eq!(shown(&fields, src), "Host:h\nC:3\n");
        assert!(!fields.has(Known::Via) && fields.has(Known::Host));
    }

    #[test]
    fn a_list_may_name_itself() {
        let src = b"Connection:connection, a\nA:1\nConnection:b\nB:2\n";
        let mut fields = parsed(src);
        fields.remove_listed(src, Known::Connection, |_| false);
        assert!(fields.is_empty() && !fields.has(Known::Connection));
    }

    #[test]
    fn tokens_are_trimmed_and_empty_ones_skipped() {
        assert_eq!(tokens(b" a ,, b\t,c d,").collect::<Vec<_>>(), [b"a".as_slice(), b"b", b"c d"]);
        assert_eq!(tokens(b"").count(), 0);
    }

    /// The twin: a list of owned pairs.
    fn twin_set(twin: &mut Vec<(String, String)>, name: &str, value: &str) {
        let Some(at) = twin.iter().position(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            return twin.push((name.to_owned(), value.to_owned()));
        };
        twin[at].1 = value.to_owned();
        let mut index = 0;
        twin.retain(|(known, _)| {
            index += 1;
            index - 1 <= at || !known.eq_ignore_ascii_case(name)
        });
    }

    #[test]
    fn edits_agree_with_a_list_of_pairs() {
        let src = b"Host:a\nX-A:1\nVia:v\nx-a:2\nTE:t\nvia:w\n";
        let names = ["Host", "host", "X-A", "x-a", "Via", "TE", "New", "Date"];
        for seed in 0..2000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut fields = parsed(src);
            let mut twin: Vec<(String, String)> = shown(&fields, src)
                .lines()
                .map(|l| l.split_once(':').unwrap())
                .map(|(n, v)| (n.into(), v.into()))
                .collect();
            for step in 0..rng.usize(..12) {
                let (name, value) = (rng.choice(names).unwrap(), format!("v{step}"));
                match rng.u8(..3) {
                    0 => {
                        let there = twin.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
                        assert_eq!(fields.remove_by_name(src, name.as_bytes()), there, "seed {seed}");
                        twin.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                    }
                    1 => {
                        assert!(fields.set_by_name(src, name.as_bytes(), value.as_bytes()));
                        twin_set(&mut twin, name, &value);
                    }
                    _ => {
                        assert!(fields.append_by_name(name.as_bytes(), value.as_bytes()));
                        twin.push((name.to_owned(), value));
                    }
                }
                let known = Known::of(name.as_bytes());
                let there = twin.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
                assert!(known == Known::Other || fields.has(known) == there, "seed {seed}");
            }
            let twin: String = twin.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
            assert_eq!(shown(&fields, src), twin, "seed {seed}");
        }
    }
}
