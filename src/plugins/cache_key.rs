//! HOT: no allocation after warm-up; one SHA-256 over the text of the key.
//! What tells one cached response from another (spec/plugins.md part E).
//! Always: two requests have one key only if all that the key is made of is equal. Kong joins names and values by `=`, `,`,
//! `:` and `|` as they are, so that `?a=1:b=2` may stand in for `?a=1&b=2`; here such a byte inside of a text is written as
//! `%XX`. Keys of texts without such bytes are Kong's.

use std::cmp::Ordering;
use std::ops::Range;

use ring::digest;

use crate::http::head::Version;
use crate::plugins::cache::Key;
use crate::plugins::query;
use crate::plugins::query::Argument;
use crate::plugins::view::View;

/// Which parts of a request make up its key.
pub struct KeyRules {
    pub ignores_case: bool,
    /// Names of arguments, in this order; empty: all, sorted.
    pub arguments: Box<[Box<str>]>,
    pub headers: Box<[Box<str>]>,
}

/// Memory for the making of keys, reused.
#[derive(Default)]
pub struct Scratch {
    text: Vec<u8>,
    /// Names and values as they stand in keys.
    parts: Vec<u8>,
    pairs: Vec<Pair>,
}

/// A name and its value in the parts; without a value there was no `=`.
struct Pair {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

impl KeyRules {
    /// The key of a request.
    pub fn key(&self, view: &View<'_>, scratch: &mut Scratch) -> Key {
        scratch.text.clear();
        let text = &mut scratch.text;
        if let Some(route) = view.route {
            let mut room = [0; uuid::fmt::Hyphenated::LENGTH];
            if let Some(consumer) = view.identity.consumer {
                text.extend_from_slice(consumer.as_hyphenated().encode_lower(&mut room).as_bytes());
                text.push(b':');
            }
            text.extend_from_slice(route.id.as_hyphenated().encode_lower(&mut room).as_bytes());
        } else {
            text.extend_from_slice(b"default");
        }
        text.push(b'|');
        text.extend_from_slice(view.method_text);
        text.push(b'|');
        let line_at = text.len();
        text.extend_from_slice(view.method_text);
        text.push(b' ');
        match view.target.iter().position(|&byte| byte == b'?') {
            // Kong cuts the request line there, with the version behind it.
            Some(at) => text.extend_from_slice(&view.target[..at]),
            None => {
                text.extend_from_slice(view.target);
                let version: &[u8] = if view.version == Version::Http10 { b" HTTP/1.0" } else { b" HTTP/1.1" };
                text.extend_from_slice(version);
            }
        }
        if self.ignores_case {
            text[line_at..].make_ascii_lowercase();
        }
        text.push(b'|');
        self.push_arguments(view.query.get(), scratch);
        scratch.text.push(b'|');
        self.push_headers(view, scratch);
        let hash = digest::digest(&digest::SHA256, &scratch.text);
        hash.as_ref().try_into().unwrap_or_default()
    }

    fn push_arguments(&self, query: &[u8], scratch: &mut Scratch) {
        if self.arguments.is_empty() {
            scratch.gather(query::arguments(query).map(|Argument { name, value, .. }| (name, value)), true);
            scratch.push_groups(None);
            return;
        }
        let mut first = true;
        for wanted in &self.arguments {
            let of_name =
                query::arguments(query).filter(|argument| query::decodes_to(argument.name, wanted.as_bytes()));
            scratch.gather(of_name.map(|Argument { name, value, .. }| (name, value)), true);
            scratch.push_next_group(&mut first);
        }
    }

    fn push_headers(&self, view: &View<'_>, scratch: &mut Scratch) {
        let mut first = true;
        for wanted in &self.headers {
            let values = view.fields.values_by_name(view.source, wanted.as_bytes());
            scratch.gather(values.map(|value| (wanted.as_bytes(), Some(value))), false);
            scratch.push_next_group(&mut first);
        }
    }
}

impl Scratch {
    /// Takes pairs, sorted by name and value.
    fn gather<'a>(&mut self, pairs: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>, encoded: bool) {
        self.parts.clear();
        self.pairs.clear();
        for (name, value) in pairs {
            let name = self.part(name, encoded, b"|:,=%");
            let value = value.map(|value| self.part(value, encoded, b"|:,%"));
            self.pairs.push(Pair { name, value });
        }
        let parts = &self.parts;
        self.pairs.sort_unstable_by(|a, b| a.compare(b, parts));
    }

    fn part(&mut self, text: &[u8], encoded: bool, special: &[u8]) -> Range<usize> {
        let start = self.parts.len();
        let parts = &mut self.parts;
        let mut push = |byte: u8| match special.contains(&byte) {
            true => {
                let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'A' + digit - 10 };
                parts.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
            }
            false => parts.push(byte),
        };
        match encoded {
            true => query::decode(text).for_each(&mut push),
            false => text.iter().copied().for_each(&mut push),
        }
        start..self.parts.len()
    }

    fn push_next_group(&mut self, first: &mut bool) {
        if !self.pairs.is_empty() {
            self.push_groups((!std::mem::take(first)).then_some(b':'));
        }
    }

    /// Appends `name=value,value` for each name, joined by `:`, behind `before`.
    fn push_groups(&mut self, before: Option<u8>) {
        let Self { text, parts, pairs } = self;
        text.extend(before);
        let mut last: Option<&[u8]> = None;
        for Pair { name, value } in pairs {
            let name = &parts[name.clone()];
            let is_same = last == Some(name);
            if !is_same {
                text.extend(last.map(|_| b':'));
                text.extend_from_slice(name);
                text.extend(value.as_ref().map(|_| b'='));
            } else {
                text.push(b',');
            }
            match value {
                Some(value) => text.extend_from_slice(&parts[value.clone()]),
                // Beside others of its name: what no value can be.
                None => text.extend(is_same.then_some(b'%')),
            }
            last = Some(name);
        }
    }
}

impl Pair {
    /// Those with a value come first, so that the first of a name tells whether there is a `=`.
    fn compare(&self, other: &Self, parts: &[u8]) -> Ordering {
        let text = |range: &Range<usize>| &parts[range.clone()];
        let by_value = |pair: &Self| (pair.value.is_none(), pair.value.clone());
        let ((own_lacks, own), (other_lacks, others)) = (by_value(self), by_value(other));
        text(&self.name)
            .cmp(text(&other.name))
            .then(own_lacks.cmp(&other_lacks))
            .then_with(|| own.as_ref().map(text).cmp(&others.as_ref().map(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use uuid::Uuid;

    fn rules(arguments: &[&str], headers: &[&str]) -> KeyRules {
        let boxed = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        KeyRules { ignores_case: false, arguments: boxed(arguments), headers: boxed(headers) }
    }

    /// The text that is hashed, behind the prefix.
    fn text(rules: &KeyRules, lines: &[&str]) -> String {
        let mut scratch = Scratch::default();
        Exchange::new(lines).with_view(|view| rules.key(view, &mut scratch));
        String::from_utf8(scratch.text).unwrap()
    }

    #[test]
    fn a_key_is_made_of_line_arguments_and_headers() {
        let all = rules(&[], &[]);
        assert_eq!(text(&all, &["GET /p"]), "default|GET|GET /p HTTP/1.1||");
        assert_eq!(text(&all, &["GET /p?"]), "default|GET|GET /p||");
        assert_eq!(text(&all, &["GET /p?b=2&a=1&b=1&c&d="]), "default|GET|GET /p|a=1:b=1,2:c:d=|");
        assert_eq!(text(&all, &["GET /p?a%20b=%41+"]), "default|GET|GET /p|a b=A |");
        let some = rules(&["z", "a", "none"], &["X-V", "x-none", "x-w"]);
        let got = text(&some, &["GET /P?a=1&q=9&z=2&a=0", "x-w: 3", "x-v: b", "x-v: a"]);
        assert_eq!(got, "default|GET|GET /P|z=2:a=0,1|X-V=a,b:x-w=3");
        let lower = KeyRules { ignores_case: true, ..rules(&[], &[]) };
        assert_eq!(text(&lower, &["GET /P?A=B"]), "default|GET|get /p|A=B|");
    }

    #[test]
    fn consumer_and_route_come_first() {
        let mut exchange = Exchange::new(&["HEAD /p"]);
        exchange.route = Some("{}".to_owned());
        let mut scratch = Scratch::default();
        exchange.with_view(|view| rules(&[], &[]).key(view, &mut scratch));
        let nil = Uuid::nil();
        assert_eq!(scratch.text, format!("{nil}|HEAD|HEAD /p HTTP/1.1||").as_bytes());
        exchange.identity.consumer = Some(Uuid::from_u128(1));
        exchange.with_view(|view| rules(&[], &[]).key(view, &mut scratch));
        let one = Uuid::from_u128(1);
        assert_eq!(scratch.text, format!("{one}:{nil}|HEAD|HEAD /p HTTP/1.1||").as_bytes());
    }

    #[test]
    fn nobody_can_ask_for_what_stands_in_for_another_request() {
        let both = rules(&[], &["x-v"]);
        let requests: [&[&str]; 12] = [
            &["GET /p?a=1&b=2"],
            &["GET /p?a=1:b=2"],
            &["GET /p?a=1%3Ab=2"],
            &["GET /p?a=1,2"],
            &["GET /p?a=1&a=2"],
            &["GET /p?a&a=1"],
            &["GET /p?a=&a=1"],
            &["GET /p?a"],
            &["GET /p?a="],
            &["GET /p?a=1%7Cx-v=2"],
            &["GET /p?a=1", "x-v: 2"],
            &["GET /p|a=1"],
        ];
        let texts: Vec<String> = requests.iter().map(|lines| text(&both, lines)).collect();
        for (at, one) in texts.iter().enumerate() {
            let same: Vec<usize> = (0..texts.len()).filter(|other| texts[*other] == *one).collect();
            // The colon may be written in two ways.
            let want: &[usize] = if at == 1 || at == 2 { &[1, 2] } else { &[at] };
            assert_eq!(same, want, "{texts:#?}");
        }
    }
}
