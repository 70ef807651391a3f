//! Comparing what a stranger sent with what only a friend knows, and carrying it about.

use std::fmt;

/// Bytes that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Box<[u8]>);

impl Hidden {
    /// Hides a copy.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// Whether both are the same. Takes a time that depends on their lengths only.
pub fn equal(given: &[u8], wanted: &[u8]) -> bool {
    // What is known of the differences must not be seen by the compiler, or it may end early.
    std::hint::black_box(differing_bits(given.iter(), wanted.iter())) == 0 && given.len() == wanted.len()
}

/// The bits that differ anywhere; looks at every pair of bytes.
fn differing_bits<'a>(given: impl Iterator<Item = &'a u8>, wanted: impl Iterator<Item = &'a u8>) -> u8 {
    given.zip(wanted).fold(0, |found, (a, b)| found | (a ^ b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_is_hidden_is_not_printed() {
        let hidden = Hidden::new(b"abc");
        assert_eq!((format!("{hidden:?}").as_str(), hidden.expose()), ("******", &b"abc"[..]));
    }

    #[test]
    fn only_the_same_bytes_are_equal() {
        assert!(equal(b"", b"") && equal(b"abc", b"abc"));
        for (a, b) in [("abc", "abd"), ("abc", "ab"), ("ab", "abc"), ("", "a"), ("abc", "bbc")] {
            assert!(!equal(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn every_byte_is_looked_at_wherever_the_first_difference_is() {
        let wanted = b"a token of some length";
        for at in 0..wanted.len() {
            let mut given = *wanted;
            given[at] ^= 1;
            let seen = Cell::new(0);
            let counted = given.iter().inspect(|_| seen.set(seen.get() + 1));
            assert_eq!(differing_bits(counted, wanted.iter()), 1);
            assert_eq!(seen.get(), wanted.len(), "the difference is at {at}");
        }
    }
}
