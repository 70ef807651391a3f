//! HOT: texts are put together in memory that the exchange keeps; only a repeated query argument and a path capture allocate.
//! What of a request consistent hashing hashes, and the cookie by which a client comes back to its peer.
//! Owns: spec/balancer.md section 9. Never: picks.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use crate::balancer::hash_on::HashInput;
use crate::balancer::hash_on::HashOn;
use crate::balancer::xxhash::xxhash32;
use crate::http::fields::Fields;
use crate::http::fields::trim_ows;
use crate::http::known::Known;
use crate::plugins::query;
use crate::plugins::view::Identity;
use crate::router::Hit;
use crate::state::spec::RouteSpec;
use crate::stdx::random::Random;

/// What of a request may be hashed.
pub struct Hashable<'a> {
    pub identity: &'a Identity,
    pub client_ip: Option<IpAddr>,
    pub fields: &'a Fields,
    /// The bytes that `fields` points into.
    pub src: &'a [u8],
    /// Normalised.
    pub path: &'a [u8],
    /// As plugins left it; empty without one.
    pub query: &'a [u8],
    pub route: Option<(&'a RouteSpec, &'a Hit)>,
    /// For the cookie of a client that has none.
    pub random: &'a Random,
}

impl Hashable<'_> {
    /// Where on the continuum the request belongs. A request without any of the inputs belongs where the empty text does.
    /// What was hashed stands in `text` then; `cookie` is changed if the client is to get one.
    pub fn hash(&self, on: &HashOn, text: &mut Vec<u8>, cookie: &mut Vec<u8>) -> u32 {
        text.clear();
        if !self.push_input(&on.first, on, text, cookie) {
            self.push_input(&on.fallback, on, text, cookie);
        }
        xxhash32(text)
    }

    /// Appends the input's value; `false`: the request has none.
    fn push_input(&self, input: &HashInput, on: &HashOn, text: &mut Vec<u8>, cookie: &mut Vec<u8>) -> bool {
        match input {
            HashInput::None => false,
            HashInput::Consumer => match self.identity.consumer.or(self.identity.credential) {
                Some(id) => {
                    text.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
                    true
                }
                None => false,
            },
            HashInput::Ip => self.client_ip.is_some_and(|ip| write!(text, "{ip}").is_ok()),
            HashInput::Header(name) => push_joined(self.fields.values_by_name(self.src, name.as_bytes()), b", ", text),
            HashInput::Path => {
                text.extend(percent_decoded(self.path));
                true
            }
            HashInput::QueryArg(name) => push_argument(self.query, name.as_bytes(), text),
            HashInput::UriCapture(group) => {
                let captures = self.route.and_then(|(route, hit)| route.matchers.captures(hit, self.path));
                let caught = captures.as_ref().and_then(|captures| match group.parse() {
                    Ok(number) => captures.get(number),
                    Err(_) => captures.name(group),
                });
                caught.is_some_and(|caught| {
                    text.extend_from_slice(caught);
                    true
                })
            }
            HashInput::Cookie(name) => {
                if let Some(value) = cookie_value(self.fields, self.src, name.as_bytes()) {
                    text.extend_from_slice(value);
                    return true;
                }
                let random = uuid::Uuid::from_u64_pair(self.random.bits(), self.random.bits());
                let id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
                text.extend_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
                cookie.clear();
                for part in [name.as_bytes(), b"=", text, b"; Path=", on.cookie_path.as_bytes(), COOKIE_END] {
                    cookie.extend_from_slice(part);
                }
                true
            }
        }
    }
}

/// Kong spells the attribute so.
const COOKIE_END: &[u8] = b"; Same-Site=Lax; HttpOnly";

/// Puts the cookie of [`Hashable::hash`] among the fields of a response, in place of one of the same name.
pub fn set_hash_cookie(fields: &mut Fields, src: &[u8], cookie: &[u8]) {
    let Some(equals) = cookie.iter().position(|byte| *byte == b'=') else { return };
    let name_and_equals = &cookie[..=equals];
    fields.retain(src, |field| field.known != Known::SetCookie || !field.value.starts_with(name_and_equals));
    fields.append(Known::SetCookie, cookie);
}

/// Appends the values with a separator between them; `false`: there are none.
fn push_joined<'a>(values: impl Iterator<Item = &'a [u8]>, separator: &[u8], text: &mut Vec<u8>) -> bool {
    let mut some = false;
    for value in values {
        if some {
            text.extend_from_slice(separator);
        }
        text.extend_from_slice(value);
        some = true;
    }
    some
}

/// The value of a cookie; of several the last, as Kong has it.
fn cookie_value<'a>(fields: &'a Fields, src: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pairs = fields.values(src, Known::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(|pair| trim_ows(pair).strip_prefix(name)?.strip_prefix(b"=")).last()
}

/// Appends the values of a query argument, in order of their bytes; one without `=` says `true`.
fn push_argument(query: &[u8], name: &[u8], text: &mut Vec<u8>) -> bool {
    let mut found = query::arguments(query).filter(|argument| query::decodes_to(argument.name, name));
    let Some(first) = found.next() else { return false };
    let Some(second) = found.next() else {
        text.extend_from_slice(&value_of(first));
        return true;
    };
    // Rare: a request that repeats the argument pays for putting its values in order.
    let mut values: Vec<_> = [first, second].into_iter().chain(found).map(value_of).collect();
    values.sort_unstable();
    push_joined(values.iter().map(AsRef::as_ref), b",", text)
}

fn value_of(argument: query::Argument<'_>) -> Cow<'_, [u8]> {
    argument.value.map_or(Cow::Borrowed(b"true"), query::decoded)
}

/// The bytes that a path stands for.
fn percent_decoded(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        let digit = |at: usize| behind.get(at).and_then(|digit| (*digit as char).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = &behind[2..];
                Some((high * 16 + low) as u8)
            }
            _ => Some(byte),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_argument(query: &str, want: Option<&str>) {
        let mut text = Vec::new();
        let found = push_argument(query.as_bytes(), b"a", &mut text);
        assert_eq!(found.then(|| String::from_utf8(text).unwrap()).as_deref(), want, "{query}");
    }

    #[test]
    fn query_arguments_are_decoded_and_put_in_order() {
        check_argument("a=1", Some("1"));
        check_argument("b=1", None);
        check_argument("a=x%20y", Some("x y"));
        check_argument("a=2&b=3&a=1", Some("1,2"));
        check_argument("a", Some("true"));
        check_argument("a=", Some(""));
        check_argument("%61=1", Some("1"));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut fields = Fields::default();
        fields.append(Known::Cookie, b"xa=0; a=1; b=2");
        fields.append(Known::Cookie, b"c=3;a=4");
        let check = |name: &[u8], want: Option<&[u8]>| assert_eq!(cookie_value(&fields, &[], name), want);
        check(b"a", Some(b"4"));
        check(b"b", Some(b"2"));
        check(b"xa", Some(b"0"));
        check(b"x", None);
    }

    #[test]
    fn a_hash_cookie_replaces_its_namesake_and_no_other() {
        let mut fields = Fields::default();
        fields.append(Known::SetCookie, b"a=old");
        fields.append(Known::SetCookie, b"ab=kept");
        set_hash_cookie(&mut fields, &[], b"a=new; Path=/");
        let values: Vec<_> = fields.values(&[], Known::SetCookie).collect();
        assert_eq!(values, [&b"ab=kept"[..], b"a=new; Path=/"]);
    }

    #[test]
    fn header_lines_are_joined_and_paths_decoded() {
        let mut text = Vec::new();
        assert!(push_joined([&b"a"[..], b"b"].into_iter(), b", ", &mut text));
        assert_eq!(text, b"a, b");
        assert!(!push_joined(std::iter::empty(), b", ", &mut text));
        assert_eq!(percent_decoded(b"/a%2Fb%20%zz%4").collect::<Vec<_>>(), b"/a/b %zz%4");
    }
}
