//! What the index holds: one way to a matcher, small enough that most requests are decided without the compiled route.
//! Owns: the list of all entries of a route, used alike to file them and to take them out.

use std::cmp::Ordering;
use std::cmp::Reverse;

use crate::router::RouteKey;
use crate::router::hosts::HostName;
use crate::router::matcher::Compiled;
use crate::router::matcher::PathGroup;
use crate::router::priority::Rank;

/// One way to a matcher: by one host and one path of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub rank: Rank,
    pub route: RouteKey,
    /// Index into the route's matchers.
    pub matcher: u16,
    /// Index into `Rules::paths`; 0 without paths.
    pub position: u16,
    /// Index into the route's regexes, when `checks` has `CHECK_REGEX`.
    pub regex: u16,
    /// Bits of `method_bit`.
    pub methods: u16,
    /// When `checks` has `CHECK_PORT`.
    pub port: u16,
    /// What remains to be checked after host, plain path and method.
    pub checks: u8,
}

pub(super) const CHECK_PORT: u8 = 1;
pub(super) const CHECK_RARE_METHOD: u8 = 1 << 1;
pub(super) const CHECK_SNI: u8 = 1 << 2;
pub(super) const CHECK_HEADERS: u8 = 1 << 3;
pub(super) const CHECK_REGEX: u8 = 1 << 4;
/// Not a check: the matcher has no path, and so matches no bytes of it.
pub(super) const NO_PATH: u8 = 1 << 5;
/// Protocol and addresses.
pub(super) const CHECK_NET: u8 = 1 << 6;
/// Of the flavour `expressions`; what it matches of the path is known after it was asked.
pub(super) const CHECK_EXPRESSION: u8 = 1 << 7;

impl Entry {
    /// Greater is tried first: the listed order decides between the regexes of one matcher.
    pub fn order(&self) -> (Rank, Reverse<u16>) {
        (self.rank, Reverse(self.position))
    }

    pub fn descending(&self, other: &Self) -> Ordering {
        let order = |entry: &Self| (entry.order(), entry.route, entry.port, entry.checks);
        order(other).cmp(&order(self))
    }
}

/// All entries of a route with the place where each is filed: what `insert` puts in and `remove` takes out.
pub(super) fn for_each_entry(
    key: RouteKey,
    compiled: &Compiled,
    mut file: impl FnMut(Option<&HostName>, &[u8], Entry),
) {
    let conditions = &compiled.conditions;
    let mut checks = 0;
    for (check, needed) in [
        (CHECK_RARE_METHOD, !conditions.rare_methods.is_empty()),
        (CHECK_SNI, !conditions.snis.is_empty()),
        (CHECK_HEADERS, !conditions.headers.is_empty()),
        (CHECK_NET, conditions.net.is_some()),
    ] {
        checks |= if needed { check } else { 0 };
    }
    let mut regexes = 0;
    for (index, matcher) in compiled.matchers.iter().enumerate() {
        let rank = matcher.rank;
        let methods = conditions.methods;
        let blank = Entry { rank, route: key, matcher: index as u16, position: 0, regex: 0, methods, port: 0, checks };
        if let PathGroup::Expression(program) = &matcher.group {
            let entry = Entry { checks: checks | NO_PATH | CHECK_EXPRESSION, ..blank };
            program.guards.iter().for_each(|guard| file(guard.host.as_ref(), &guard.path, entry));
            continue;
        }
        for_each_path(&matcher.group, &mut regexes, blank, |path, entry| {
            if compiled.hosts.is_empty() {
                file(None, path, entry);
            }
            for host in &compiled.hosts {
                let entry = match host.port {
                    None => entry,
                    Some(port) => Entry { port, checks: entry.checks | CHECK_PORT, ..entry },
                };
                file(Some(&host.name), path, entry);
            }
        });
    }
}

/// `regexes` counts those of the whole route.
fn for_each_path(group: &PathGroup, regexes: &mut u16, blank: Entry, mut file: impl FnMut(&[u8], Entry)) {
    match group {
        PathGroup::Expression(_) => {}
        PathGroup::Any => file(b"", Entry { checks: blank.checks | NO_PATH, ..blank }),
        PathGroup::Plain(paths) => {
            for path in paths {
                file(&path.bytes, Entry { position: path.position, ..blank });
            }
        }
        PathGroup::Regex(paths) => {
            for path in paths {
                let (position, regex) = (path.position, *regexes);
                file(&path.literal, Entry { position, regex, checks: blank.checks | CHECK_REGEX, ..blank });
                *regexes += 1;
            }
        }
    }
}
