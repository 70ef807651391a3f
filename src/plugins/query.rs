//! HOT: looking for an argument allocates nothing unless its value is encoded.
//! Arguments as query strings and form bodies carry them: `name=value` pieces between `&`, percent-encoded, `+` for a
//! space.
//! Always: a `%` without two hexadecimal digits stands for itself; other arguments are never re-encoded.

use std::borrow::Cow;

use crate::plugins::edit::Action;

/// One piece, still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument<'a> {
    pub whole: &'a [u8],
    pub name: &'a [u8],
    /// `None`: there is no `=`.
    pub value: Option<&'a [u8]>,
}

/// What was found under a name, in any part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Nothing,
    /// Something that is no text: an argument without `=`, a number in JSON.
    NoText,
    Text(Cow<'a, [u8]>),
    /// More than one value, or an array or object in JSON.
    Several,
}

/// The arguments in order, empty pieces left out.
pub fn arguments(text: &[u8]) -> impl Iterator<Item = Argument<'_>> {
    text.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()).map(|whole| {
        match whole.iter().position(|&byte| byte == b'=') {
            Some(at) => Argument { whole, name: &whole[..at], value: Some(&whole[at + 1..]) },
            None => Argument { whole, name: whole, value: None },
        }
    })
}

/// What stands under that name.
pub(super) fn find<'a>(text: &'a [u8], name: &[u8]) -> Found<'a> {
    let mut matching = arguments(text).filter(|argument| decodes_to(argument.name, name));
    match (matching.next(), matching.next()) {
        (None, _) => Found::Nothing,
        (Some(_), Some(_)) => Found::Several,
        (Some(Argument { value: Some(value), .. }), None) => Found::Text(decoded(value)),
        (Some(_), None) => Found::NoText,
    }
}

/// The text without the arguments of that name; `None`: there are none.
pub(super) fn without(text: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    if matches!(find(text, name), Found::Nothing) {
        return None;
    }
    let mut rest = Vec::with_capacity(text.len());
    for argument in arguments(text).filter(|argument| !decodes_to(argument.name, name)) {
        if !rest.is_empty() {
            rest.push(b'&');
        }
        rest.extend_from_slice(argument.whole);
    }
    Some(rest)
}

/// The bytes that an encoded text stands for, one by one.
pub fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    Decoder(text)
}

/// The bytes that an encoded text stands for.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    match text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        true => Cow::Owned(Decoder(text).collect()),
        false => Cow::Borrowed(text),
    }
}

/// Whether an encoded text stands for a plain one.
pub fn decodes_to(text: &[u8], plain: &[u8]) -> bool {
    text == plain && !text.contains(&b'%') && !text.contains(&b'+')
        || (text.len() >= plain.len() && Decoder(text).eq(plain.iter().copied()))
}

struct Decoder<'a>(&'a [u8]);

impl Iterator for Decoder<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if let (b'%', [high, low, after @ ..]) = (first, rest)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            self.0 = after;
            return Some(high << 4 | low);
        }
        Some(if first == b'+' { b' ' } else { first })
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|value| value as u8)
}

/// Arguments taken apart to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl List {
    /// The arguments of a query string or a form, decoded.
    pub fn of(text: &[u8]) -> Self {
        let owned = |text: &[u8]| decoded(text).into_owned();
        Self(arguments(text).map(|argument| (owned(argument.name), argument.value.map(owned))).collect())
    }

    /// Does it to all arguments of a name; `value` is the new name for a rename.
    pub fn change(&mut self, action: Action, name: &[u8], value: &[u8]) {
        let place = self.0.iter().position(|(own, _)| own == name);
        let new = (name.to_vec(), Some(value.to_vec()));
        match (action, place) {
            (Action::Remove, _) => self.0.retain(|(own, _)| own != name),
            (Action::Rename, _) => {
                let renamed = self.0.iter_mut().filter(|(own, _)| own == name);
                renamed.for_each(|(own, _)| *own = value.to_vec());
            }
            (Action::Replace, Some(place)) => {
                self.0.retain(|(own, _)| own != name);
                self.0.insert(place, new);
            }
            (Action::Add, None) | (Action::Append, None) => self.0.push(new),
            (Action::Append, Some(_)) => {
                let last = self.0.iter().rposition(|(own, _)| own == name).unwrap_or_default();
                self.0.insert(last + 1, new);
            }
            (Action::Replace, None) | (Action::Add, Some(_)) => {}
        }
    }

    /// Adds the other's arguments.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The arguments as text: all but letters, digits and `-._~` encoded.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push(b'&');
            }
            push_encoded(&mut out, name);
            if let Some(value) = value {
                out.push(b'=');
                push_encoded(&mut out, value);
            }
        }
        out
    }
}

fn push_encoded(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Found<'_> {
        Found::Text(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn arguments_are_found_by_their_decoded_name() {
        let cases = [
            ("", Found::Nothing),
            ("b=1", Found::Nothing),
            ("a", Found::NoText),
            ("a=", text("")),
            ("a=1", text("1")),
            ("b=2&&a=1&", text("1")),
            ("%61=1", text("1")),
            ("A=1", Found::Nothing),
            ("aa=1", Found::Nothing),
            ("a=x%20y+z%2", text("x y z%2")),
            ("a=%zz%+", text("%zz% ")),
            ("a=b=c", text("b=c")),
            ("a=1&a=2", Found::Several),
            ("a&%61=2", Found::Several),
            ("=a", Found::Nothing),
        ];
        for (query, want) in cases {
            assert_eq!(find(query.as_bytes(), b"a"), want, "{query}");
        }
        assert_eq!(find(b"x+y=1", b"x y"), text("1"));
        assert_eq!(find(b"x+y=1", b"x+y"), Found::Nothing);
    }

    #[test]
    fn a_list_is_changed_by_decoded_names() {
        let check = |query: &str, change: (Action, &str, &str), want: &str| {
            let mut list = List::of(query.as_bytes());
            list.change(change.0, change.1.as_bytes(), change.2.as_bytes());
            assert_eq!(String::from_utf8(list.encoded()).unwrap(), want, "{query} {change:?}");
        };
        check("%61=1&b&a=2", (Action::Remove, "a", ""), "b");
        check("a=1&b=&a=2", (Action::Rename, "a", "c d"), "c%20d=1&b=&c%20d=2");
        check("b=1&a=1&c=1&a=2", (Action::Replace, "a", "x&y"), "b=1&a=x%26y&c=1");
        check("b=1", (Action::Replace, "a", "x"), "b=1");
        check("a=1", (Action::Add, "a", "x"), "a=1");
        check("", (Action::Add, "a", "\u{e9}"), "a=%C3%A9");
        check("a=1&b=1", (Action::Append, "a", "2"), "a=1&a=2&b=1");
    }

    #[test]
    fn removing_an_argument_leaves_the_others_as_they_were() {
        let cases =
            [("b=%20&c", None), ("a=1", Some("")), ("a=1&z=1", Some("z=1")), ("b=%2f+&a&c&%61=2", Some("b=%2f+&c"))];
        for (query, want) in cases {
            assert_eq!(without(query.as_bytes(), b"a").as_deref(), want.map(str::as_bytes), "{query}");
        }
    }
}
