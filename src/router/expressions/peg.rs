//! A reader of texts by rules that remembers how far it came and what it would have taken there, as the parser generator
//! under Kong's compiler does: the operator reads the same "expected ..." as there.
//! Always: a rule that fails leaves the place where it was.

use crate::limits::EXPRESSION_NESTING_MAX;

/// The rules that may be named as expected, in the order in which several are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    End,
    Ident,
    Rhs,
    TransformFunc,
    Lhs,
    IntLiteral,
    HexDigits,
    OctDigits,
    DecDigits,
    StrLiteral,
    StrEsc,
    StrChar,
    RawstrLiteral,
    RawstrChar,
    Ipv4Literal,
    Ipv6Literal,
    Ipv4CidrLiteral,
    Ipv6CidrLiteral,
    BinaryOperator,
    AndOp,
    OrOp,
    NotOp,
    Predicate,
    ParenthesisedExpression,
    Term,
    Expression,
    Matcher,
}

impl Rule {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "EOI",
            Self::Ident => "ident",
            Self::Rhs => "rhs",
            Self::TransformFunc => "transform_func",
            Self::Lhs => "lhs",
            Self::IntLiteral => "int_literal",
            Self::HexDigits => "hex_digits",
            Self::OctDigits => "oct_digits",
            Self::DecDigits => "dec_digits",
            Self::StrLiteral => "str_literal",
            Self::StrEsc => "str_esc",
            Self::StrChar => "str_char",
            Self::RawstrLiteral => "rawstr_literal",
            Self::RawstrChar => "rawstr_char",
            Self::Ipv4Literal => "ipv4_literal",
            Self::Ipv6Literal => "ipv6_literal",
            Self::Ipv4CidrLiteral => "ipv4_cidr_literal",
            Self::Ipv6CidrLiteral => "ipv6_cidr_literal",
            Self::BinaryOperator => "binary_operator",
            Self::AndOp => "and_op",
            Self::OrOp => "or_op",
            Self::NotOp => "not_op",
            Self::Predicate => "predicate",
            Self::ParenthesisedExpression => "parenthesised_expression",
            Self::Term => "term",
            Self::Expression => "expression",
            Self::Matcher => "matcher",
        }
    }
}

/// The text, the place in it, and what failed furthest on.
pub(super) struct Peg<'a> {
    text: &'a str,
    at: usize,
    /// Inside a rule whose parts are not worth naming.
    atomic: bool,
    nesting: usize,
    too_deep: bool,
    furthest: usize,
    expected: Vec<Rule>,
}

/// Why a text is refused.
pub(super) enum Failure {
    /// At this byte, one of these was expected.
    Expected(usize, Vec<Rule>),
    TooDeep,
}

impl<'a> Peg<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, atomic: false, nesting: 0, too_deep: false, furthest: 0, expected: Vec::new() }
    }

    pub fn failure(mut self) -> Failure {
        if self.too_deep {
            return Failure::TooDeep;
        }
        self.expected.sort_unstable();
        self.expected.dedup();
        Failure::Expected(self.furthest, self.expected)
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// What was read since `start`.
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    pub fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Reads exactly this.
    pub fn literal(&mut self, wanted: &str) -> Option<()> {
        self.rest().strip_prefix(wanted)?;
        self.at += wanted.len();
        Some(())
    }

    /// Reads one character that `wanted` takes.
    pub fn char(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let next = self.rest().chars().next().filter(|c| wanted(*c))?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Reads `min` to `max` such characters, as many as there are.
    pub fn chars(&mut self, min: usize, max: usize, wanted: impl Fn(char) -> bool) -> Option<()> {
        let start = self.at;
        let count = (0..max).take_while(|_| self.char(&wanted).is_some()).count();
        if count < min {
            self.at = start;
            return None;
        }
        Some(())
    }

    /// What `read` gives, or nothing and the place as it was.
    pub fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let found = read(self);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    /// One level deeper into parentheses.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.nesting == EXPRESSION_NESTING_MAX {
            self.too_deep = true;
            return None;
        }
        self.nesting += 1;
        let found = read(self);
        self.nesting -= 1;
        found
    }

    /// Reads by a rule that messages name.
    pub fn rule<T>(&mut self, rule: Rule, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let (kept, before) = if start == self.furthest { (self.expected.len(), self.failed_at(start)) } else { (0, 0) };
        let found = self.attempt(read);
        if found.is_none() {
            self.note(rule, start, kept, before);
        }
        found
    }

    /// As `rule`, without naming what the rule is made of.
    pub fn atomic_rule<T>(&mut self, rule: Rule, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.rule(rule, |peg| {
            let outer = std::mem::replace(&mut peg.atomic, true);
            let found = read(peg);
            peg.atomic = outer;
            found
        })
    }

    fn failed_at(&self, at: usize) -> usize {
        if at == self.furthest { self.expected.len() } else { 0 }
    }

    /// A rule that came no further than its own parts stands for all of them, unless it has but one such part.
    fn note(&mut self, rule: Rule, at: usize, kept: usize, before: usize) {
        if self.atomic || self.failed_at(at) == before + 1 || at < self.furthest {
            return;
        }
        if at > self.furthest {
            self.expected.clear();
            self.furthest = at;
        } else {
            self.expected.truncate(kept);
        }
        self.expected.push(rule);
    }
}
