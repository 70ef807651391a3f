//! Checks that look at several fields of one record, as data.
//! Owns: the kinds of check and their declaration. Never: a check on one field (that is `schema::Field`).
//! Always: a check is skipped when a field it reads is already in error.

use crate::entity::schema::Literal;
use crate::entity::validators::Check;

/// Field names are top-level, or dotted paths into records (`config.redis.host`).
#[derive(Clone, Copy, Debug)]
pub enum EntityCheck {
    AtLeastOneOf(&'static [&'static str]),
    OnlyOneOf(&'static [&'static str]),
    MutuallyExclusive(&'static [&'static str]),
    MutuallyRequired(&'static [&'static str]),
    Distinct(&'static [&'static str]),
    Conditional(Conditional),
    Custom(Custom),
}

/// When `if_field` meets `if_match`, `then_field` must meet `then_match`.
#[derive(Clone, Copy, Debug)]
pub struct Conditional {
    pub if_field: &'static str,
    pub if_match: Match,
    pub then_field: &'static str,
    pub then_match: Match,
    /// The text under `@entity` instead of the usual one.
    pub then_err: Option<&'static str>,
}

/// A condition on one value. As everywhere in the schema, null meets every condition but `Eq` of something else
/// and `Required`.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    Eq(Literal),
    OneOf(&'static [Literal]),
    NotOneOf(&'static [Literal]),
    /// A Lua pattern.
    Matches(&'static str),
    Required,
    LenEq(usize),
    /// Of a list: none of these is an element.
    ElementsNotOneOf(&'static [Literal]),
    /// A named validator of strings.
    Check(Check),
}

/// A check written as code. `run` gets the record; its error is the text for `@entity`.
#[derive(Clone, Copy, Debug)]
pub struct Custom {
    /// The fields it reads.
    pub sources: &'static [&'static str],
    pub run: fn(&serde_json::Map<String, serde_json::Value>) -> Result<(), String>,
}

impl EntityCheck {
    pub const fn conditional(
        if_field: &'static str,
        if_match: Match,
        then_field: &'static str,
        then_match: Match,
    ) -> EntityCheck {
        EntityCheck::Conditional(Conditional { if_field, if_match, then_field, then_match, then_err: None })
    }
}
