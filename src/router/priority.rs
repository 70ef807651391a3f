//! Kong's order between matchers as one `Ord` key (spec/router.md sections 4.2, 4.3, 5 and 14.1).
//! Always: matchers of different routes never have equal ranks, but by a rare accident that the index survives; those of
//! one route only in the flavour `traditional`, where the listed order of their paths decides.
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

/// Words of expressions stand above those of attributes.
const EXPRESSION_WORD: u64 = !(EXPRESSION_PRIORITY_MAX);
/// The largest `priority`.
pub(super) const EXPRESSION_PRIORITY_MAX: u64 = (1 << 46) - 1;

impl Rank {
    pub fn new(word: u64, id: Uuid) -> Self {
        Self { word, id: id.into_bytes() }
    }

    /// Of a route that has an expression.
    pub fn of_expression(priority: u64, id: Uuid) -> Self {
        Self::new(EXPRESSION_WORD | priority.min(EXPRESSION_PRIORITY_MAX), id)
    }

    /// Of attributes beside routes that have expressions. Only a word that nobody can reach in earnest (all seven
    /// attributes, 255 headers, a regex priority beyond four billions) loses its place among its like.
    pub fn below_expressions(self) -> Self {
        Self { word: self.word.min(EXPRESSION_WORD - 1), ..self }
    }

    /// In the flavour `traditional`, among the matchers that have the same attributes: of equal weights the older is
    /// greater, then the larger id.
    pub fn of_age(weights: &CategoryWeights, created_at_s: u64, id: Uuid) -> Self {
        let mut rank = Self::new(weights.word(), id);
        rank.id.copy_within(..10, 6);
        rank.id[..6].copy_from_slice(&(!created_at_s).to_be_bytes()[2..]);
        rank
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

/// What decides among the matchers of one category before their age (spec/router.md section 5).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CategoryWeights {
    /// A wildcard host has a port.
    pub wildcard_port: bool,
    /// `hosts` is set and none of them has a wildcard.
    pub plain_hosts: bool,
    pub header_names: usize,
    /// Of the one path.
    pub path: PathWeight,
}

impl CategoryWeights {
    /// Bits 63 to 61 the three kinds, 60 to 53 header names, 32 to 0 regex priority or path length.
    fn word(&self) -> u64 {
        const PRIORITY_MAX: i64 = (1 << 32) - 1;
        let regex = matches!(self.path, PathWeight::Regex(_));
        let kinds = u64::from(self.wildcard_port) << 2 | u64::from(self.plain_hosts) << 1 | u64::from(regex);
        let low = match self.path {
            PathWeight::None => 0,
            PathWeight::Plain(bytes) => bytes.min(PATH_BYTES_MAX) as u64,
            PathWeight::Regex(priority) => (priority.clamp(-PRIORITY_MAX - 1, PRIORITY_MAX) + PRIORITY_MAX + 1) as u64,
        };
        kinds << 61 | (self.header_names.min(HEADER_NAMES_MAX) as u64) << 53 | low
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
    fn expressions_stand_above_all_attributes() {
        let id = Uuid::nil();
        let highest = Rank::new(word(7, true, 255, PathWeight::Regex(i64::MAX)), Uuid::max()).below_expressions();
        assert!(Rank::of_expression(0, id) > highest);
        assert!(Rank::of_expression(1, id) > Rank::of_expression(0, Uuid::max()));
        assert!(
            Rank::of_expression(EXPRESSION_PRIORITY_MAX, id) > Rank::of_expression(EXPRESSION_PRIORITY_MAX - 1, id)
        );
        assert_eq!(Rank::of_expression(u64::MAX, id), Rank::of_expression(EXPRESSION_PRIORITY_MAX, id));
    }

    #[test]
    fn age_decides_after_kinds_headers_priority_and_length() {
        let of = |wildcard_port, plain_hosts, header_names, path, created_at_s| {
            let weights = CategoryWeights { wildcard_port, plain_hosts, header_names, path };
            Rank::of_age(&weights, created_at_s, Uuid::nil())
        };
        let descending = [
            of(true, false, 0, PathWeight::None, 9),
            of(false, true, 0, PathWeight::Regex(0), 9),
            of(false, true, 0, PathWeight::Plain(9), 9),
            of(false, false, 0, PathWeight::Regex(7), 9),
            of(false, false, 0, PathWeight::Regex(-7), 9),
            of(false, false, 2, PathWeight::None, 9),
            of(false, false, 0, PathWeight::Plain(2), 9),
            of(false, false, 0, PathWeight::Plain(1), 8),
            of(false, false, 0, PathWeight::Plain(1), 9),
        ];
        assert!(descending.is_sorted_by(|high, low| high > low), "{descending:#x?}");
        let weights = CategoryWeights::default();
        assert!(Rank::of_age(&weights, 1, Uuid::max()) > Rank::of_age(&weights, 1, Uuid::nil()));
        assert!(Rank::of_age(&weights, 0, Uuid::nil()) > Rank::of_age(&weights, 1 << 40, Uuid::max()));
    }

    #[test]
    fn equal_words_go_to_the_larger_id() {
        let small = Rank::new(5, Uuid::from_u128(u128::MAX >> 1));
        let large = Rank::new(5, Uuid::from_u128(1 << 127));
        assert!(large > small);
        assert!(Rank::new(6, Uuid::nil()) > large);
    }
}
