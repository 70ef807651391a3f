//! Kong's order between matchers as one `Ord` key (spec/router.md sections 4.2, 4.3, 5 and 14.1).
//! Always: matchers of different routes never have equal ranks, but by a rare accident that the index survives; those of
//! one route only in the flavour `traditional`, where the listed order of their paths decides.
//!
//! Another flavour is another way to make a [`Rank`]: the index only ever compares ranks.

use std::cmp::Ordering;
use std::cmp::Reverse;

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

/// The place of a matcher among all others, for operators.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub(super) category: Option<u8>,
    pub(super) rank: Rank,
}

impl Standing {
    /// What decides, in that order, with its value; after these the age in the flavour `traditional`, then the id.
    pub fn criteria(&self) -> Vec<(&'static str, i64)> {
        let word = self.rank.word;
        let bits = |shift: u32, count: u32| ((word >> shift) & ((1 << count) - 1)) as i64;
        if let Some(category) = self.category {
            let is_regex = bits(61, 1) == 1;
            let low = match is_regex {
                true => ("regex_priority", bits(0, 53) - CATEGORY_PRIORITY_MAX - 1),
                false => ("path_bytes", bits(0, 53)),
            };
            return vec![
                ("attributes", i64::from(category.count_ones())),
                ("category", i64::from(category)),
                ("wildcard_host_with_port", bits(63, 1)),
                ("plain_hosts", bits(62, 1)),
                ("regex_path", i64::from(is_regex)),
                ("header_names", bits(53, 8)),
                low,
            ];
        }
        if word >= EXPRESSION_WORD {
            return vec![("expression", 1), ("priority", (word & EXPRESSION_PRIORITY_MAX) as i64)];
        }
        vec![
            ("attributes", bits(ATTRIBUTES_SHIFT, 3)),
            ("plain_hosts", bits(60, 1)),
            ("header_names", bits(HEADER_NAMES_SHIFT, 8)),
            ("regex_path", bits(51, 1)),
            ("regex_priority", bits(REGEX_PRIORITY_SHIFT, 32)),
            ("path_bytes", bits(0, REGEX_PRIORITY_SHIFT)),
        ]
    }

    /// The criterion by which this one comes before the other; `None`: it does not.
    pub fn leads_by(&self, other: &Self) -> Option<&'static str> {
        let (mine, theirs) = (self.criteria(), other.criteria());
        for ((name, value), (other_name, other_value)) in mine.iter().zip(&theirs) {
            match (name == other_name, value.cmp(other_value)) {
                (true, Ordering::Equal) => {}
                (true, Ordering::Greater) => return Some(name),
                (true, Ordering::Less) => return None,
                // Expressions stand above attributes.
                (false, _) => return (*name == "expression").then_some("expression"),
            }
        }
        let decides = match self.category.is_some() && self.rank.id[..6] != other.rank.id[..6] {
            true => "created_at",
            false => "id",
        };
        (self.rank.id > other.rank.id).then_some(decides)
    }

    /// A key by which those tried first come first.
    pub fn order(&self) -> impl Ord + use<> {
        let category = self.category.unwrap_or(0);
        Reverse((category.count_ones(), category, self.rank))
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

/// The greatest `regex_priority` that counts in the flavour `traditional`; the least is one further on the other side.
const CATEGORY_PRIORITY_MAX: i64 = (1 << 32) - 1;

impl CategoryWeights {
    /// Bits 63 to 61 the three kinds, 60 to 53 header names, 32 to 0 regex priority or path length.
    fn word(&self) -> u64 {
        const PRIORITY_MAX: i64 = CATEGORY_PRIORITY_MAX;
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
    fn a_standing_says_what_decides() {
        let flat = |word, id| Standing { category: None, rank: Rank::new(word, Uuid::from_u128(id)) };
        let regex = flat(word(2, true, 3, PathWeight::Regex(9)), 1);
        let value = |standing: &Standing, wanted: &str| {
            standing.criteria().into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let all = ["attributes", "plain_hosts", "header_names", "regex_path", "regex_priority", "path_bytes"];
        assert_eq!(all.map(|name| value(&regex, name)), [2, 1, 3, 1, 9, 0].map(Some));
        let plain = flat(word(2, true, 3, PathWeight::Plain(7)), 1);
        assert_eq!((regex.leads_by(&plain), plain.leads_by(&regex)), (Some("regex_path"), None));
        assert_eq!(flat(5, 2).leads_by(&flat(5, 1)), Some("id"));
        let expression = Standing { category: None, rank: Rank::of_expression(4, Uuid::nil()) };
        assert_eq!((expression.leads_by(&regex), regex.leads_by(&expression)), (Some("expression"), None));
        assert_eq!(value(&expression, "priority"), Some(4));
        let aged = |category, priority, created_at_s| {
            let weights = CategoryWeights { path: PathWeight::Regex(priority), ..CategoryWeights::default() };
            Standing { category: Some(category), rank: Rank::of_age(&weights, created_at_s, Uuid::nil()) }
        };
        assert_eq!(aged(0x50, -3, 1).leads_by(&aged(0x10, 9, 1)), Some("attributes"));
        assert_eq!(aged(0x50, 0, 1).leads_by(&aged(0x30, 0, 1)), Some("category"));
        assert_eq!(aged(0x50, 1, 9).leads_by(&aged(0x50, -1, 1)), Some("regex_priority"));
        assert_eq!(aged(0x50, 0, 1).leads_by(&aged(0x50, 0, 9)), Some("created_at"));
        assert_eq!(value(&aged(0x50, -3, 1), "regex_priority"), Some(-3));
    }

    #[test]
    fn equal_words_go_to_the_larger_id() {
        let small = Rank::new(5, Uuid::from_u128(u128::MAX >> 1));
        let large = Rank::new(5, Uuid::from_u128(1 << 127));
        assert!(large > small);
        assert!(Rank::new(6, Uuid::nil()) > large);
    }
}
