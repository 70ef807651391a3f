//! What of host and path an expression demands, so that the index can file it beside routes with hosts and paths instead
//! of asking it of every request.
//! Always: sound. A request for which the expression holds meets one of its guards; the reverse is not promised.

use crate::limits::EXPRESSION_GUARDS_MAX;
use crate::router::expressions::fields::Field;
use crate::router::expressions::program::Node;
use crate::router::expressions::program::Predicate;
use crate::router::expressions::program::Test;
use crate::router::hosts::HostName;
use crate::router::pattern::TextRegex;

/// A host, and bytes that the path begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::router) struct Guard {
    /// None: any.
    pub host: Option<HostName>,
    pub path: Box<[u8]>,
}

/// The guards of a node: none at all when nothing can satisfy it.
pub(super) fn guards(node: &Node, regexes: &[TextRegex]) -> Vec<Guard> {
    let open = || vec![Guard::default()];
    match node {
        Node::All(all) => all.iter().fold(open(), |so_far, one| both(so_far, guards(one, regexes))),
        Node::Any(any) => {
            let mut list: Vec<Guard> = Vec::new();
            for guard in any.iter().flat_map(|one| guards(one, regexes)) {
                if !list.contains(&guard) {
                    list.push(guard);
                }
            }
            if list.len() > EXPRESSION_GUARDS_MAX { open() } else { list }
        }
        // What is demanded inside says nothing about what is not.
        Node::Not(_) => open(),
        Node::Predicate(predicate) => vec![guard(predicate, regexes)],
    }
}

fn guard(predicate: &Predicate, regexes: &[TextRegex]) -> Guard {
    if predicate.lower {
        return Guard::default();
    }
    let host = |name: HostName| Guard { host: Some(name), path: Box::default() };
    let path = |bytes: Box<[u8]>| Guard { host: None, path: bytes };
    match (&predicate.field, &predicate.test) {
        (Field::Host, Test::Equals(name)) => host(HostName::Exact(name.clone())),
        // The index looks such texts up at the dots of a host.
        (Field::Host, Test::Ends(text)) if text.starts_with(b".") => host(HostName::Suffix(text.clone())),
        (Field::Host, Test::Begins(text)) if text.ends_with(b".") => host(HostName::Prefix(text.clone())),
        (Field::Path, Test::Equals(text) | Test::Begins(text)) => path(text.clone()),
        (Field::Path, Test::Regex(regex)) => {
            path(regexes.get(*regex).map(TextRegex::literal_start).unwrap_or_default())
        }
        (Field::Segment(0) | Field::Segments(0, _), Test::Equals(text) | Test::Begins(text)) => {
            path([b"/", &**text].concat().into())
        }
        _ => Guard::default(),
    }
}

/// What meets a guard of either list. A product that grows too long is given up for the shorter list alone.
fn both(left: Vec<Guard>, right: Vec<Guard>) -> Vec<Guard> {
    if left.len() * right.len() > EXPRESSION_GUARDS_MAX {
        return if left.len() <= right.len() { left } else { right };
    }
    let mut list = Vec::with_capacity(left.len() * right.len());
    for guard in left.iter().flat_map(|one| right.iter().filter_map(move |other| merged(one, other))) {
        if !list.contains(&guard) {
            list.push(guard);
        }
    }
    list
}

/// None: no request meets both.
fn merged(one: &Guard, other: &Guard) -> Option<Guard> {
    let path = match (&one.path, &other.path) {
        (long, short) if long.starts_with(short) => long.clone(),
        (short, long) if long.starts_with(short) => long.clone(),
        _ => return None,
    };
    let host = match (&one.host, &other.host) {
        (None, only) | (only, None) => only.clone(),
        (Some(HostName::Exact(a)), Some(HostName::Exact(b))) if a != b => return None,
        (Some(exact @ HostName::Exact(_)), Some(_)) | (Some(_), Some(exact)) => Some(exact.clone()),
    };
    Some(Guard { host, path })
}
