//! What a kind of property is: how its text becomes a value, and how the value is shown again.
//! Owns: the trait, and the three ways in which a text can be wrong.
//! Never: knows a property's name; the same kind serves many.

use serde_json::Value as Json;

/// One way to read the text of a property. Implemented by empty types; what they produce is `Value`.
pub trait Kind {
    type Value: Clone + PartialEq;
    /// What is accepted, as the end of "accepted: ...".
    const ACCEPTS: &'static str;
    /// Secret values appear as `******` in descriptions and errors.
    const SECRET: bool = false;
    /// `text` is trimmed, and empty only where the default is blank.
    fn parse(text: &str) -> Result<Self::Value, Problem>;
    /// The value as `GET /` of the Admin API shows it (spec/admin-api.md 7.1); secrets are masked.
    fn describe(value: &Self::Value) -> Json;
}

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not of the kind; the message adds what is accepted.
    NotAccepted,
    /// A part of it is wrong in the way said; the message adds what is accepted.
    Because(String),
    /// It asks for something that Kong has and this version does not.
    NotYet(String),
}

impl Problem {
    pub fn because(text: impl Into<String>) -> Self {
        Self::Because(text.into())
    }

    pub fn not_yet(text: impl Into<String>) -> Self {
        Self::NotYet(text.into())
    }
}

/// The parts of a comma-separated list, trimmed, without empty ones.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A list as JSON strings.
pub fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Json {
    Json::Array(items.into_iter().map(|item| Json::String(item.to_string())).collect())
}
