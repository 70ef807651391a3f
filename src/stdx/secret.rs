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
    let differing = given.iter().zip(wanted).fold(0, |found, (a, b)| found | (a ^ b));
    // What the fold knows must not be seen by the compiler, or it may end early.
    std::hint::black_box(differing) == 0 && given.len() == wanted.len()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
