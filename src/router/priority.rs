//! Kong's order between matchers as one `Ord` key (spec/router.md section 4.2 and 4.3).
//! Always: two matchers of one router never have equal ranks, since the id is part of the rank.
//!
//! Another flavour is another way to make a [`Rank`]: the index only ever compares ranks.

use uuid::Uuid;

/// Greater is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Section 4.2.
    pub word: u64,
    /// Of the matcher, not of the route: a route with several path groups derives one id for each.
    pub id: [u8; 16],
}

impl Rank {
    pub fn new(word: u64, id: Uuid) -> Self {
        Self { word, id: id.into_bytes() }
    }
}

/// What the priority word is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weights {
    /// Attributes that are set, 0 to 7.
    pub attributes: u32,
    /// `hosts` is set and none of them has a wildcard.
    pub plain_hosts: bool,
    /// Distinct header names; beyond 255 counts as 255.
    pub header_names: usize,
    pub path: PathWeight,
}

/// The part of the word that the path group decides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum PathWeight {
    #[default]
    None,
    /// Bytes of each path of the group.
    Plain(usize),
    /// `regex_priority`. The word has 32 unsigned bits for it: what is outside counts as the nearest end.
    Regex(i64),
}

const ATTRIBUTES_SHIFT: u32 = 61;
const PLAIN_HOSTS_BIT: u64 = 1 << 60;
const HEADER_NAMES_SHIFT: u32 = 52;
const HEADER_NAMES_MAX: usize = 255;
const REGEX_BIT: u64 = 1 << 51;
const REGEX_PRIORITY_SHIFT: u32 = 19;
const PATH_BYTES_MAX: usize = (1 << REGEX_PRIORITY_SHIFT) - 1;

impl Weights {
    /// The 64-bit word of section 4.2.
    pub fn word(self) -> u64 {
        let mut word = u64::from(self.attributes.min(7)) << ATTRIBUTES_SHIFT;
        if self.plain_hosts {
            word |= PLAIN_HOSTS_BIT;
        }
        word |= (self.header_names.min(HEADER_NAMES_MAX) as u64) << HEADER_NAMES_SHIFT;
        word | match self.path {
            PathWeight::None => 0,
            PathWeight::Plain(bytes) => bytes.min(PATH_BYTES_MAX) as u64,
            PathWeight::Regex(priority) => {
                let priority = priority.clamp(0, i64::from(u32::MAX)) as u64;
                REGEX_BIT | (priority << REGEX_PRIORITY_SHIFT)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(attributes: u32, plain_hosts: bool, header_names: usize, path: PathWeight) -> u64 {
        Weights { attributes, plain_hosts, header_names, path }.word()
    }

    #[test]
    fn the_word_has_the_bits_of_the_table() {
        let cases = [
            (word(0, false, 0, PathWeight::None), 0),
            (word(7, false, 0, PathWeight::None), 7 << 61),
            (word(1, true, 0, PathWeight::None), 1 << 61 | 1 << 60),
            (word(1, false, 3, PathWeight::None), 1 << 61 | 3 << 52),
            (word(1, false, 300, PathWeight::None), 1 << 61 | 255 << 52),
            (word(1, false, 0, PathWeight::Plain(5)), 1 << 61 | 5),
            (word(1, false, 0, PathWeight::Plain(1 << 20)), 1 << 61 | 0x7ffff),
            (word(1, false, 0, PathWeight::Regex(0)), 1 << 61 | 1 << 51),
            (word(1, false, 0, PathWeight::Regex(9)), 1 << 61 | 1 << 51 | 9 << 19),
            (word(1, false, 0, PathWeight::Regex(-4)), 1 << 61 | 1 << 51),
            (word(1, false, 0, PathWeight::Regex(i64::MAX)), 1 << 61 | 1 << 51 | 0xffff_ffff << 19),
        ];
        for (row, (got, want)) in cases.into_iter().enumerate() {
            assert_eq!(got, want, "row {row}: {got:#x} {want:#x}");
        }
    }

    #[test]
    fn order_is_attributes_hosts_headers_regex_priority_length() {
        let descending = [
            word(3, false, 0, PathWeight::None),
            word(2, true, 0, PathWeight::Plain(1)),
            word(2, false, 9, PathWeight::Plain(1)),
            word(2, false, 1, PathWeight::Regex(0)),
            word(2, false, 0, PathWeight::Regex(2)),
            word(2, false, 0, PathWeight::Regex(1)),
            word(2, false, 0, PathWeight::Plain(9)),
            word(2, false, 0, PathWeight::Plain(8)),
            word(2, false, 0, PathWeight::None),
        ];
        assert!(descending.is_sorted_by(|high, low| high > low), "{descending:#x?}");
    }

    #[test]
    fn equal_words_go_to_the_larger_id() {
        let small = Rank::new(5, Uuid::from_u128(u128::MAX >> 1));
        let large = Rank::new(5, Uuid::from_u128(1 << 127));
        assert!(large > small);
        assert!(Rank::new(6, Uuid::nil()) > large);
    }
}
