//! HOT: borrows only.
//! `Cache-Control` of requests and responses (RFC 9111 section 5.2).
//! Always: what cannot be understood is passed over; of a directive that stands twice the last counts.

use crate::http::fields::tokens;
use crate::http::fields::trim_ows;

/// The directives that a shared cache obeys. Times in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub only_if_cached: bool,
    pub max_age_s: Option<u64>,
    pub s_maxage_s: Option<u64>,
    /// Without a value it is [`u64::MAX`]: any staleness will do.
    pub max_stale_s: Option<u64>,
    pub min_fresh_s: Option<u64>,
}

impl Directives {
    /// Of all fields of that name.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::default();
        for token in values.flat_map(tokens) {
            found.add(token);
        }
        found
    }

    fn add(&mut self, token: &[u8]) {
        let (name, value) = match token.iter().position(|&byte| byte == b'=') {
            Some(at) => (trim_ows(&token[..at]), Some(trim_ows(&token[at + 1..]))),
            None => (token, None),
        };
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("private") {
            self.private = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age_s = value.and_then(seconds).or(self.max_age_s);
        } else if is("s-maxage") {
            self.s_maxage_s = value.and_then(seconds).or(self.s_maxage_s);
        } else if is("max-stale") {
            self.max_stale_s = value.map_or(Some(u64::MAX), seconds).or(self.max_stale_s);
        } else if is("min-fresh") {
            self.min_fresh_s = value.and_then(seconds).or(self.min_fresh_s);
        }
    }
}

/// Digits, quoted or not; more than fits is as good as for ever (RFC 9111 section 1.2.2).
fn seconds(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], want: Directives) {
        assert_eq!(Directives::of(values.iter().map(|value| value.as_bytes())), want, "{values:?}");
    }

    #[test]
    fn directives_are_known_in_any_case_and_over_several_fields() {
        check(&[], Directives::default());
        let none = Directives::default();
        check(&["No-Store, PRIVATE=\"set-cookie\""], Directives { no_store: true, private: true, ..none });
        check(
            &["max-age=60", " s-maxage = 5 ,no-cache"],
            Directives { max_age_s: Some(60), s_maxage_s: Some(5), no_cache: true, ..none },
        );
        check(&["max-age=\"7\""], Directives { max_age_s: Some(7), ..none });
        check(&["max-stale, only-if-cached"], Directives { max_stale_s: Some(u64::MAX), only_if_cached: true, ..none });
        check(&["max-stale=9,min-fresh=3"], Directives { max_stale_s: Some(9), min_fresh_s: Some(3), ..none });
        check(&["max-age=1,max-age=2"], Directives { max_age_s: Some(2), ..none });
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        let none = Directives::default();
        for nonsense in
            ["", ",,,", "=", "max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=a", "\"", "no-store2"]
        {
            check(&[nonsense], none);
        }
        check(&["max-age=99999999999999999999999"], Directives { max_age_s: Some(u64::MAX), ..none });
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let noise: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            Directives::of(std::iter::once(noise.as_slice()));
        }
    }
}
