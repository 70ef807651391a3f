//! HOT: looking for an argument allocates nothing unless its value is encoded.
//! Arguments as query strings and form bodies carry them: `name=value` pieces between `&`, percent-encoded, `+` for a
//! space.
//! Always: a `%` without two hexadecimal digits stands for itself; other arguments are never re-encoded.

use std::borrow::Cow;

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
    fn removing_an_argument_leaves_the_others_as_they_were() {
        let cases =
            [("b=%20&c", None), ("a=1", Some("")), ("a=1&z=1", Some("z=1")), ("b=%2f+&a&c&%61=2", Some("b=%2f+&c"))];
        for (query, want) in cases {
            assert_eq!(without(query.as_bytes(), b"a").as_deref(), want.map(str::as_bytes), "{query}");
        }
    }
}
