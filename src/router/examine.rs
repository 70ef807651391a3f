//! Why a route takes a request or does not, condition by condition: for operators who ask, not for requests.
//! Never: decides; [`super::Router::find`] does. Asks the same conditions in the order of spec/router.md section 4.4.
//! Always: without a failed condition the router has the route among those it may find (`worlds` holds it to that).

use std::cmp::Reverse;

use crate::router::Query;
use crate::router::expressions::evaluate::Evaluation;
use crate::router::expressions::evaluate::Scratch;
use crate::router::hosts::Brackets;
use crate::router::hosts::split_port;
use crate::router::matcher::Compiled;
use crate::router::matcher::PathGroup;
use crate::router::matcher::method_bit;
use crate::router::priority::Standing;

/// A condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Protocols,
    Snis,
    Sources,
    Destinations,
    Methods,
    Hosts,
    Paths,
    /// Of that name: lower-case, with `-` for `_`.
    Header(Box<str>),
    Expression,
}

impl Condition {
    /// The field of the entity that it comes from.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Protocols => "protocols",
            Self::Snis => "snis",
            Self::Sources => "sources",
            Self::Destinations => "destinations",
            Self::Methods => "methods",
            Self::Hosts => "hosts",
            Self::Paths => "paths",
            Self::Header(_) => "headers",
            Self::Expression => "expression",
        }
    }
}

/// What was found of one route and one request.
#[derive(Debug)]
pub struct Examined {
    /// In the order in which they are asked; empty: the route takes the request.
    pub failed: Vec<Condition>,
    /// The configured host that took the request's.
    pub host: Option<Box<str>>,
    /// Index into `Rules::paths` of the path that matched.
    pub path: Option<u16>,
    /// Of the matcher whose path matched, else of the highest.
    pub standing: Option<Standing>,
}

/// Asks a route every condition.
pub fn examine(compiled: &Compiled, query: &Query<'_>) -> Examined {
    let traditional = compiled.category.is_some();
    let brackets = if traditional { Brackets::Understood } else { Brackets::Opaque };
    let (host, port) = split_port(query.host, brackets);
    let port = port.unwrap_or(match (traditional, query.https) {
        (true, true) => 443,
        (true, false) => 80,
        (false, _) => u32::from(query.port),
    });
    let conditions = &compiled.conditions;
    let mut failed = Vec::new();
    let mut ask = |holds: bool, condition: Condition| {
        if !holds {
            failed.push(condition);
        }
    };
    if let Some(net) = &conditions.net {
        ask(net.takes_protocol(query), Condition::Protocols);
        ask(net.takes_source(query), Condition::Sources);
        ask(net.takes_destination(query, port), Condition::Destinations);
    }
    ask(conditions.accept_sni(query.https, query.sni), Condition::Snis);
    ask(conditions.accept_method(method_bit(query.method), query.method), Condition::Methods);
    let taken_by = compiled.hosts.iter().find(|pattern| pattern.takes(host, port, !traditional));
    ask(compiled.hosts.is_empty() || taken_by.is_some(), Condition::Hosts);
    // A route without any attribute, as one for byte streams, has no matcher and takes no path.
    let found = best_matcher(compiled, query, host, port);
    let is_expression = matches!(compiled.matchers.first().map(|m| &m.group), Some(PathGroup::Expression(_)));
    ask(found.is_some(), if is_expression { Condition::Expression } else { Condition::Paths });
    for rule in &conditions.headers {
        ask(rule.matches(query.headers), Condition::Header(rule.name().into()));
    }
    let rank = found.map(|(matcher, _)| matcher).or_else(|| highest(compiled));
    Examined {
        failed,
        host: taken_by.map(|pattern| String::from_utf8_lossy(&pattern.text).into()),
        path: found.and_then(|(_, path)| path),
        standing: rank.map(|at| Standing { category: compiled.category, rank: compiled.matchers[at].rank }),
    }
}

fn highest(compiled: &Compiled) -> Option<usize> {
    (0..compiled.matchers.len()).max_by_key(|at| compiled.matchers[*at].rank)
}

/// The highest matcher whose path takes the request's, and which of the route's paths did.
fn best_matcher(compiled: &Compiled, query: &Query<'_>, host: &[u8], port: u32) -> Option<(usize, Option<u16>)> {
    let takes = |at: usize| match &compiled.matchers[at].group {
        PathGroup::Any => Some((at, None)),
        PathGroup::Plain(paths) => {
            let path = paths.iter().find(|path| query.path.starts_with(&path.bytes))?;
            Some((at, Some(path.position)))
        }
        PathGroup::Regex(paths) => {
            let path = paths.iter().find(|path| path.regex.matched_len(query.path).is_some())?;
            Some((at, Some(path.position)))
        }
        PathGroup::Expression(program) => {
            let scratch = Scratch::default();
            let regexes = &program.regexes;
            let mut evaluation = Evaluation { query, host, port, regexes, scratch: &scratch, matched_len: None };
            evaluation.holds(&program.root).then_some((at, None))
        }
    };
    let found = (0..compiled.matchers.len()).filter_map(takes);
    found.max_by_key(|(at, path)| (compiled.matchers[*at].rank, Reverse(*path)))
}
