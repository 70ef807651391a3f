//! An expression as it was written, before anything in it has a type.

use std::ops::Range;

/// A place in the text, in bytes.
pub(super) type Span = Range<usize>;

#[derive(Debug, PartialEq)]
pub(super) enum Syntax {
    /// `a && b && ...`
    All(Vec<Syntax>),
    /// `a || b || ...`
    Any(Vec<Syntax>),
    /// `!(...)`
    Not(Box<Syntax>),
    Predicate(Predicate),
}

#[derive(Debug, PartialEq)]
pub(super) struct Predicate {
    pub field: String,
    /// Names of the functions around the field with the whole call, the innermost first.
    pub functions: Vec<(String, Span)>,
    pub operator: Operator,
    pub literal: Literal,
    pub literal_at: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    Differs,
    Regex,
    Begins,
    Ends,
    GreaterOrEqual,
    Greater,
    LessOrEqual,
    Less,
    In,
    NotIn,
    Contains,
}

/// What stands on the right, read no further than its kind, but for texts.
#[derive(Debug, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Int { negative: bool, digits: String, radix: u32 },
    Ip(String),
    Block(String),
}
