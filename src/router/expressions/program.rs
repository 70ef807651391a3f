//! An expression whose every part has its type: what requests are asked by.

use std::net::IpAddr;

use regex_automata::util::captures::Captures;

use crate::config::Cidr;
use crate::router::expressions::fields::Field;
use crate::router::expressions::guards::Guard;
use crate::router::pattern::TextRegex;

/// A typed expression. Made once by `compile`, shared by all cores but for its regexes, which they clone.
#[derive(Debug)]
pub(in crate::router) struct Program {
    pub root: Node,
    /// By `Test::Regex`.
    pub regexes: Vec<TextRegex>,
    /// A request for which the expression holds meets at least one of these.
    pub guards: Vec<Guard>,
}

impl Program {
    /// What the groups of a regex on the path caught, of an expression that holds: of several such predicates that had to
    /// hold, the last one's, of alternatives the first that matches. Those on the lower-cased path catch nothing.
    pub fn captures(&self, path: &[u8]) -> Option<Captures> {
        self.captures_of(&self.root, path)
    }

    fn captures_of(&self, node: &Node, path: &[u8]) -> Option<Captures> {
        match node {
            Node::All(all) => all.iter().rev().find_map(|one| self.captures_of(one, path)),
            Node::Any(any) => any.iter().find_map(|one| self.captures_of(one, path)),
            Node::Predicate(Predicate { field: Field::Path, lower: false, test: Test::Regex(at), .. }) => {
                self.regexes.get(*at)?.captures(path)
            }
            Node::Not(_) | Node::Predicate(_) => None,
        }
    }
}

#[derive(Debug)]
pub(in crate::router) enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Predicate(Predicate),
}

#[derive(Debug)]
pub(in crate::router) struct Predicate {
    pub field: Field,
    /// The value is lower-cased before it is tested.
    pub lower: bool,
    /// One value that passes is enough; else all must.
    pub any: bool,
    pub test: Test,
}

#[derive(Debug)]
pub(in crate::router) enum Test {
    Equals(Box<[u8]>),
    Differs(Box<[u8]>),
    Begins(Box<[u8]>),
    Ends(Box<[u8]>),
    Contains(Box<[u8]>),
    /// Index into `Program::regexes`.
    Regex(usize),
    Int(Comparison, i64),
    IpEquals(IpAddr),
    IpDiffers(IpAddr),
    Within(Cidr),
    Outside(Cidr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Comparison {
    Equals,
    Differs,
    GreaterOrEqual,
    Greater,
    LessOrEqual,
    Less,
}

impl Comparison {
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Equals => left == right,
            Self::Differs => left != right,
            Self::GreaterOrEqual => left >= right,
            Self::Greater => left > right,
            Self::LessOrEqual => left <= right,
            Self::Less => left < right,
        }
    }
}
