//! HOT. One compiled route and the conditions that the index leaves to be checked: methods, SNIs, headers.
//! Never: allocates in a check.   Always: shared read-only by all cores.

use regex_automata::PatternID;

use crate::router::Hit;
use crate::router::expressions::program::Program;
use crate::router::hosts::HostPattern;
use crate::router::net::NetRule;
use crate::router::pattern::PathRegex;
use crate::router::pattern::ValueRegex;
use crate::router::priority::Rank;
use crate::router::snis::SniRule;

/// One route, ready to be met by requests. Made once by `compile`, shared by all cores.
#[derive(Debug)]
pub struct Compiled {
    /// Empty: any host.
    pub(super) hosts: Vec<HostPattern>,
    pub(super) conditions: Conditions,
    /// One per path group; at most one without paths; none when the route has no attribute.
    pub(super) matchers: Vec<Matcher>,
    /// In the flavour `traditional` only: which attributes are set, bits of `category`.
    pub(super) category: Option<u8>,
}

/// One path group of a route with its place in the order (spec/router.md section 4.1).
#[derive(Debug)]
pub(super) struct Matcher {
    pub rank: Rank,
    pub group: PathGroup,
}

#[derive(Debug)]
pub(super) enum PathGroup {
    /// The route has no paths.
    Any,
    /// Of equal length.
    Plain(Vec<PlainPath>),
    /// In the listed order, which decides between two that match.
    Regex(Vec<RegexPath>),
    /// Not a group of paths: the whole condition of a route that has an expression.
    Expression(Program),
}

#[derive(Debug)]
pub(super) struct PlainPath {
    pub bytes: Box<[u8]>,
    /// Index into `Rules::paths`.
    pub position: u16,
}

#[derive(Debug)]
pub(super) struct RegexPath {
    /// The pattern.
    pub text: Box<[u8]>,
    pub regex: PathRegex,
    /// Every path that matches begins with these bytes: what the path trie files the regex under.
    pub literal: Box<[u8]>,
    /// Index into `Rules::paths`.
    pub position: u16,
}

impl Compiled {
    /// The one path of a matcher of the flavour `traditional`: plain, or a pattern without its `~`.
    pub(super) fn path_text(&self, matcher: u16) -> Option<&[u8]> {
        match &self.matchers.get(usize::from(matcher))?.group {
            PathGroup::Plain(members) => members.first().map(|member| &*member.bytes),
            PathGroup::Regex(members) => members.first().map(|member| &*member.text),
            PathGroup::Any | PathGroup::Expression(_) => None,
        }
    }

    /// The capture groups of the regex path that won, or of an expression's regex on the path: None without a regex or
    /// without groups in it (spec/router.md section 6). `path` is the path that was matched. Meant for the plugins that ask: it allocates, and may wait
    /// for another core that uses the same regex in this moment.
    pub fn captures<'a>(&'a self, hit: &Hit, path: &'a [u8]) -> Option<Captures<'a>> {
        let groups = match &self.matchers.get(usize::from(hit.matcher))?.group {
            PathGroup::Regex(members) => {
                members.iter().find(|member| Some(member.position) == hit.path)?.regex.captures(path)?
            }
            PathGroup::Expression(program) => program.captures(path)?,
            PathGroup::Any | PathGroup::Plain(_) => return None,
        };
        Some(Captures { path, groups })
    }
}

/// What the groups of a path regex caught. Groups that took no part in the match are missing.
#[derive(Debug)]
pub struct Captures<'a> {
    path: &'a [u8],
    groups: regex_automata::util::captures::Captures,
}

impl<'a> Captures<'a> {
    /// Group 0 is the whole match, the others count from 1.
    pub fn get(&self, group: usize) -> Option<&'a [u8]> {
        self.path.get(self.groups.get_group(group)?.range())
    }

    /// The group `(?<name>...)`.
    pub fn name(&self, name: &str) -> Option<&'a [u8]> {
        self.path.get(self.groups.get_group_by_name(name)?.range())
    }

    /// All groups that caught something: number, name if it has one, bytes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Option<&str>, &'a [u8])> {
        let names = self.groups.group_info().pattern_names(PatternID::ZERO).enumerate();
        names.filter_map(|(group, name)| Some((group, name, self.get(group)?)))
    }
}

/// What a request must satisfy besides host and path; the same for all matchers of a route.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Bits of `method_bit`; all of them when any method will do.
    pub methods: u16,
    /// Methods without a bit of their own.
    pub rare_methods: Vec<Box<[u8]>>,
    /// Checked through the router's own clones, see `HeaderRule`.
    pub headers: Vec<HeaderRule>,
    pub snis: Vec<SniRule>,
    /// None: any protocol and any address.
    pub net: Option<NetRule>,
}

const ANY_METHOD: u16 = u16::MAX;
const RARE_METHOD: u16 = 1 << 15;

/// Those with a bit of their own.
const COMMON_METHODS: [&[u8]; 7] = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS"];

/// The bit of a method in a mask. Methods without a bit of their own share one, and must be compared as text.
pub(super) fn method_bit(method: &[u8]) -> u16 {
    match method {
        b"GET" => 1,
        b"POST" => 1 << 1,
        b"PUT" => 1 << 2,
        b"PATCH" => 1 << 3,
        b"DELETE" => 1 << 4,
        b"HEAD" => 1 << 5,
        b"OPTIONS" => 1 << 6,
        _ => RARE_METHOD,
    }
}

impl Conditions {
    pub fn new(methods: &[String], headers: Vec<HeaderRule>, snis: Vec<SniRule>, net: Option<NetRule>) -> Self {
        let mut mask = if methods.is_empty() { ANY_METHOD } else { 0 };
        let mut rare_methods = Vec::new();
        for method in methods {
            let bit = method_bit(method.as_bytes());
            mask |= bit;
            if bit == RARE_METHOD {
                rare_methods.push(method.as_bytes().into());
            }
        }
        Self { methods: mask, rare_methods, headers, snis, net }
    }

    /// Tells the methods that are asked for; none when any will do.
    pub fn each_method(&self, mut tell: impl FnMut(&[u8])) {
        if self.methods != ANY_METHOD {
            COMMON_METHODS
                .iter()
                .filter(|method| self.methods & method_bit(method) != 0)
                .for_each(|method| tell(method));
            self.rare_methods.iter().for_each(|method| tell(method));
        }
    }

    /// Distinct names, whatever their spelling.
    pub fn header_names(&self) -> usize {
        let mut names: Vec<&str> = self.headers.iter().map(|rule| &*rule.name).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// `bit` is the `method_bit` of `method`, which the caller computes once per request.
    pub fn accept_method(&self, bit: u16, method: &[u8]) -> bool {
        self.methods & bit != 0
            && (bit != RARE_METHOD
                || self.rare_methods.is_empty()
                || self.rare_methods.iter().any(|rare| **rare == *method))
    }

    /// Over plain http the names do not count (spec/router.md section 3).
    pub fn accept_sni(&self, https: bool, sni: Option<&[u8]>) -> bool {
        !https || self.snis.is_empty() || sni.is_some_and(|sni| self.snis.iter().any(|rule| rule.matches(sni)))
    }
}

/// The headers of one request.
pub trait HeaderSource {
    /// Calls `f` with the value of each header line called `name`, in order, until it says true.
    /// `name` is lower-case and has `-`, never `_`; compare with [`header_name_matches`].
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool);
}

/// Is `received`, as sent by the peer, the header `name` (lower-case, `-`)? Case does not count, and `_` is `-`.
pub fn header_name_matches(name: &str, received: &[u8]) -> bool {
    name.len() == received.len()
        && name
            .bytes()
            .zip(received)
            .all(|(want, got)| want == got.to_ascii_lowercase() || (want == b'-' && *got == b'_'))
}

/// One header that must be there with one of some values. Each router has clones of its own: a regex in it must be
/// used by one core only, or its scratch memory is behind a lock.
#[derive(Clone, Debug)]
pub(super) struct HeaderRule {
    /// Lower-case, with `-` for `_`.
    name: Box<str>,
    values: HeaderValues,
}

#[derive(Clone, Debug)]
enum HeaderValues {
    /// Any of these, in lower case.
    OneOf(Vec<Box<[u8]>>),
    Regex(ValueRegex),
}

impl HeaderRule {
    pub fn compile(name: &str, values: &[String]) -> Result<Self, String> {
        let name = name.to_ascii_lowercase().replace('_', "-").into();
        let values = match values {
            [only] if only.starts_with("~*") => HeaderValues::Regex(ValueRegex::compile(&only[2..])?),
            _ => {
                HeaderValues::OneOf(values.iter().map(|value| value.to_ascii_lowercase().into_bytes().into()).collect())
            }
        };
        Ok(Self { name, values })
    }

    /// Lower-case, with `-` for `_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn matches(&self, headers: &dyn HeaderSource) -> bool {
        let mut found = false;
        headers.for_each(&self.name, &mut |value| {
            found = self.values.accept(value);
            found
        });
        found
    }
}

impl HeaderValues {
    fn accept(&self, value: &[u8]) -> bool {
        match self {
            Self::OneOf(accepted) => accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(value)),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
