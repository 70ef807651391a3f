//! HOT. One look through a few tries for the matcher of highest rank that takes a request.
//! Never: allocates.   Always: asks the cheap conditions first, and a condition only of entries that could still win.

use crate::router::Hit;
use crate::router::Query;
use crate::router::Route;
use crate::router::entry::CHECK_EXPRESSION;
use crate::router::entry::CHECK_HEADERS;
use crate::router::entry::CHECK_NET;
use crate::router::entry::CHECK_PORT;
use crate::router::entry::CHECK_RARE_METHOD;
use crate::router::entry::CHECK_REGEX;
use crate::router::entry::CHECK_SNI;
use crate::router::entry::Entry;
use crate::router::entry::NO_PATH;
use crate::router::expressions::evaluate::Evaluation;
use crate::router::expressions::evaluate::Scratch;
use crate::router::matcher::Compiled;
use crate::router::matcher::PathGroup;
use crate::router::matcher::method_bit;
use crate::router::trie::Node;

/// One look under way.
pub(super) struct Search<'a> {
    routes: &'a [Option<Route>],
    scratch: &'a Scratch,
    query: &'a Query<'a>,
    method_bit: u16,
    /// Of the Host header, without its port.
    host: &'a [u8],
    /// Of the Host header, else what the flavour takes instead.
    port: u32,
    /// Others are passed over.
    only: Option<Only<'a>>,
    best: Option<(&'a Entry, Taken)>,
}

/// Routes that have this among their attributes, as the operator wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only<'a> {
    Host(&'a [u8]),
    /// The path, or the pattern without its `~`.
    Path(&'a [u8]),
    Header(&'a str),
}

/// The conditions of an entry hold.
#[derive(Clone, Copy)]
struct Taken {
    /// Bytes of path; None when the path plays no part.
    matched_len: Option<usize>,
}

impl<'a> Search<'a> {
    pub fn new(
        routes: &'a [Option<Route>],
        scratch: &'a Scratch,
        query: &'a Query<'a>,
        host: &'a [u8],
        port: u32,
    ) -> Self {
        Self { routes, scratch, query, method_bit: method_bit(query.method), host, port, only: None, best: None }
    }

    /// Passes over all other routes.
    pub fn only(mut self, only: Only<'a>) -> Self {
        self.only = Some(only);
        self
    }

    /// Looks through one trie, whose host is known to match.
    pub fn visit(&mut self, root: &'a Node) {
        let mut walk = root.walk(self.query.path);
        while let Some((entries, depth)) = walk.next(self.best.map_or(0, |(best, _)| best.rank.word)) {
            for entry in entries {
                if self.best.is_some_and(|(best, _)| best.order() >= entry.order()) {
                    break;
                }
                if let Some(taken) = self.accept(entry, depth) {
                    self.best = Some((entry, taken));
                    break;
                }
            }
        }
    }

    /// What was found.
    pub fn hit(&self) -> Option<Hit> {
        let (entry, taken) = self.best?;
        Some(Hit {
            route: entry.route,
            matcher: entry.matcher,
            path: (entry.checks & NO_PATH == 0).then_some(entry.position),
            matched_len: taken.matched_len,
        })
    }

    /// Whether all conditions of the entry hold. Host, and `depth` bytes of plain path, are known to match.
    fn accept(&self, entry: &Entry, depth: usize) -> Option<Taken> {
        let Query { method, path, https, sni, headers, .. } = *self.query;
        if entry.methods & self.method_bit == 0 {
            return None;
        }
        let plain_len = if entry.checks & NO_PATH == 0 { Some(depth) } else { None };
        if entry.checks & !NO_PATH == 0 && self.only.is_none() {
            return Some(Taken { matched_len: plain_len });
        }
        if entry.checks & CHECK_PORT != 0 && u32::from(entry.port) != self.port {
            return None;
        }
        let route = self.routes.get(entry.route.0 as usize)?.as_ref()?;
        let conditions = &route.compiled.conditions;
        if self.only.is_some_and(|only| !only.admits(&route.compiled, entry)) {
            return None;
        }
        if entry.checks & CHECK_RARE_METHOD != 0 && !conditions.accept_method(self.method_bit, method) {
            return None;
        }
        if entry.checks & CHECK_SNI != 0 && !conditions.accept_sni(https, sni) {
            return None;
        }
        if entry.checks & CHECK_NET != 0
            && conditions.net.as_ref().is_some_and(|net| !net.accepts(self.query, self.port))
        {
            return None;
        }
        if entry.checks & CHECK_EXPRESSION != 0 {
            return self.evaluate(route, entry);
        }
        let matched_len = match entry.checks & CHECK_REGEX {
            0 => plain_len,
            _ => Some(route.paths.get(usize::from(entry.regex))?.matched_len(path)?),
        };
        if entry.checks & CHECK_HEADERS != 0 && !route.headers.iter().all(|rule| rule.matches(headers)) {
            return None;
        }
        Some(Taken { matched_len })
    }

    fn evaluate(&self, route: &Route, entry: &Entry) -> Option<Taken> {
        let PathGroup::Expression(program) = &route.compiled.matchers.get(usize::from(entry.matcher))?.group else {
            return None;
        };
        let mut evaluation = Evaluation {
            query: self.query,
            host: self.host,
            port: self.port,
            regexes: &route.texts,
            scratch: self.scratch,
            matched_len: None,
        };
        evaluation.holds(&program.root).then_some(Taken { matched_len: evaluation.matched_len })
    }
}

impl Only<'_> {
    fn admits(self, compiled: &Compiled, entry: &Entry) -> bool {
        match self {
            Self::Host(text) => compiled.hosts.iter().any(|host| *host.text == *text),
            Self::Header(name) => compiled.conditions.headers.iter().any(|rule| rule.name() == name),
            Self::Path(text) => compiled.path_text(entry.matcher) == Some(text),
        }
    }
}
