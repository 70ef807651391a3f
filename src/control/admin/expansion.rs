//! How large a YAML text becomes when its aliases are written out.
//! Always: counting stops at the bound, so that a text that names one long value very often costs no more than that.

use crate::limits::YAML_EXPANDED_BYTES_MAX;
use crate::limits::YAML_EXPANDED_TIMES_MAX;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::VariantAccess;
use serde::de::Visitor;
use std::fmt;

/// About what a node weighs besides its text.
const NODE_BYTES: usize = 64;

/// Looks at a text without keeping its values.
///
/// # Errors
/// The values that it stands for are too large (`None`), or it cannot be read.
pub fn check(text: &str) -> Result<(), Option<serde_norway::Error>> {
    // Without an anchor there is nothing to name.
    if !text.contains('&') {
        return Ok(());
    }
    let bytes_max = YAML_EXPANDED_BYTES_MAX + text.len().saturating_mul(YAML_EXPANDED_TIMES_MAX);
    let mut budget = Budget { bytes_left: bytes_max, exhausted: false };
    let read = Node(&mut budget).deserialize(serde_norway::Deserializer::from_str(text));
    read.map_err(|error| Some(error).filter(|_| !budget.exhausted))
}

struct Budget {
    bytes_left: usize,
    exhausted: bool,
}

/// One value, counted and dropped.
struct Node<'a>(&'a mut Budget);

impl Node<'_> {
    fn spend<E: Error>(&mut self, text_len: usize) -> Result<(), E> {
        match self.0.bytes_left.checked_sub(NODE_BYTES + text_len) {
            Some(left) => {
                self.0.bytes_left = left;
                Ok(())
            }
            None => {
                self.0.exhausted = true;
                Err(E::custom("too large"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_i128<E: Error>(mut self, _: i128) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_u128<E: Error>(mut self, _: u128) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }
    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_none<E: Error>(mut self) -> Result<(), E> {
        self.spend(0)
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while list.next_element_seed(Node(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while map.next_key_seed(Node(self.0))?.is_some() {
            map.next_value_seed(Node(self.0))?;
        }
        Ok(())
    }
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let ((), value) = tagged.variant_seed(Node(self.0))?;
        value.newtype_variant_seed(Node(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_excessive(text: &str) -> bool {
        matches!(check(text), Err(None))
    }

    #[test]
    fn what_is_named_counts_each_time() {
        let long = "x".repeat(1 << 20);
        let named = |times: usize| format!("a: [&a {long}, {}]", vec!["*a"; times].join(", "));
        assert!(!is_excessive(&named(3)));
        assert!(is_excessive(&named(1000)));
        let merged = |times: usize| {
            let fields: Vec<String> = (0..1000).map(|n| format!("k{n}: x")).collect();
            format!("- &a {{{}}}\n- {{<<: [{}]}}\n", fields.join(", "), vec!["*a"; times].join(", "))
        };
        assert!(!is_excessive(&merged(3)) && is_excessive(&merged(3000)));
    }

    #[test]
    fn texts_that_name_nothing_are_as_large_as_they_are() {
        let large = format!("a: '{}&'\nb: [{}]", "x".repeat(8 << 20), "1, ".repeat(100_000));
        assert!(!is_excessive(&large));
        for unreadable in ["a: [ &", "&a [1, *b]"] {
            assert!(matches!(check(unreadable), Err(Some(_))), "{unreadable}");
        }
    }
}
