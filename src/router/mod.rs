//! HOT. Which route matches a request (spec/router.md, flavour `traditional_compatible`).
//! Owns: one core's index of routes.   Never: allocates, locks or fails in `find`.
//! Always: `find` answers what the flat walk of section 4 would: the matcher of highest rank whose conditions hold.

pub mod compile;
mod entry;
pub mod gates;
mod hosts;
pub mod matcher;
mod pattern;
mod priority;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tables;
mod trie;
#[cfg(test)]
mod twin;
#[cfg(test)]
mod worlds;

use std::sync::Arc;

use crate::router::entry::CHECK_HEADERS;
use crate::router::entry::CHECK_PORT;
use crate::router::entry::CHECK_RARE_METHOD;
use crate::router::entry::CHECK_REGEX;
use crate::router::entry::CHECK_SNI;
use crate::router::entry::Entry;
use crate::router::entry::NO_PATH;
use crate::router::entry::for_each_entry;
use crate::router::hosts::Hosts;
use crate::router::hosts::split_port;
use crate::router::matcher::Compiled;
use crate::router::matcher::HeaderRule;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::PathGroup;
use crate::router::matcher::method_bit;
use crate::router::pattern::PathRegex;
use crate::router::trie::Node;

/// A route, by its index in the core's route table. Small and dense: the router keeps a table of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey(pub u32);

/// What of a request decides its route (spec/router.md section 2).
pub struct Query<'a> {
    /// As sent.
    pub method: &'a [u8],
    /// The Host header's value as sent, with its port if it has one; empty without the header.
    pub host: &'a [u8],
    /// Normalised, without query.
    pub path: &'a [u8],
    /// The client's connection is TLS, whatever a header says.
    pub https: bool,
    /// From the TLS handshake.
    pub sni: Option<&'a [u8]>,
    /// Of the listener, after `port_maps`; counts when the Host header has none.
    pub port: u16,
    /// The caller decides how many headers are looked at (100 by default in Kong).
    pub headers: &'a dyn HeaderSource,
}

/// The matcher that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub route: RouteKey,
    /// Which path group of the route.
    pub matcher: u16,
    /// Index into `Rules::paths`; None when the route has no paths.
    pub path: Option<u16>,
    /// Bytes at the start of the request path that the path attribute matched, plain or regex; None without paths.
    pub matched_len: Option<usize>,
}

/// One core's index of routes, changed in place.
///
/// A matcher is filed once for each of its hosts and paths: hosts lead to a path trie, where a plain path stands under
/// itself, a regex under the literal text that its matches begin with, and a matcher without paths at the root. Then
/// `find` walks down a few tries and keeps the highest rank that holds.
#[derive(Default)]
pub struct Router {
    hosts: Hosts,
    /// By `RouteKey`.
    routes: Vec<Option<Route>>,
    len: usize,
}

/// One core's share of a route: clones of what holds regexes, so that cores share the programs, not the scratch memory.
struct Route {
    compiled: Arc<Compiled>,
    /// By `Entry::regex`.
    paths: Box<[PathRegex]>,
    headers: Box<[HeaderRule]>,
}

impl Route {
    fn new(compiled: Arc<Compiled>) -> Self {
        let mut paths = Vec::new();
        for matcher in &compiled.matchers {
            if let PathGroup::Regex(members) = &matcher.group {
                // A route has at most one such group.
                paths = members.iter().map(|member| member.regex.clone()).collect();
            }
        }
        let headers = compiled.conditions.headers.clone().into();
        Self { compiled, paths: paths.into(), headers }
    }
}

impl Router {
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a route. Gives back the one that had this key, so that the caller may have it freed off-core.
    pub fn insert(&mut self, key: RouteKey, compiled: Arc<Compiled>) -> Option<Arc<Compiled>> {
        let replaced = self.remove(key);
        for_each_entry(key, &compiled, |host, path, entry| self.hosts.insert(host, path, entry));
        let index = key.0 as usize;
        if index >= self.routes.len() {
            self.routes.resize_with(index + 1, || None);
        }
        self.routes[index] = Some(Route::new(compiled));
        self.len += 1;
        replaced
    }

    /// Takes a route out and gives it back; None when the key has none.
    pub fn remove(&mut self, key: RouteKey) -> Option<Arc<Compiled>> {
        let route = self.routes.get_mut(key.0 as usize)?.take()?;
        for_each_entry(key, &route.compiled, |host, path, entry| self.hosts.remove(host, path, &entry));
        self.len -= 1;
        Some(route.compiled)
    }

    /// The route that matches, or None.
    pub fn find(&self, query: &Query<'_>) -> Option<Hit> {
        let (host, port) = split_port(query.host);
        let mut search = Search {
            routes: &self.routes,
            query,
            method_bit: method_bit(query.method),
            port: port.unwrap_or(u32::from(query.port)),
            best: None,
        };
        self.hosts.for_each_trie(host, |root| search.visit(root));
        let (entry, matched_len) = search.best?;
        let has_path = entry.checks & NO_PATH == 0;
        Some(Hit {
            route: entry.route,
            matcher: entry.matcher,
            path: has_path.then_some(entry.position),
            matched_len: has_path.then_some(matched_len),
        })
    }
}

/// One `find` under way.
struct Search<'a> {
    routes: &'a [Option<Route>],
    query: &'a Query<'a>,
    method_bit: u16,
    /// Of the Host header, else of the listener.
    port: u32,
    /// With the bytes of path that it matched.
    best: Option<(&'a Entry, usize)>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, root: &'a Node) {
        let mut walk = root.walk(self.query.path);
        while let Some((entries, depth)) = walk.next(self.best.map_or(0, |(best, _)| best.rank.word)) {
            for entry in entries {
                if self.best.is_some_and(|(best, _)| best.order() >= entry.order()) {
                    break;
                }
                if let Some(matched_len) = self.accept(entry, depth) {
                    self.best = Some((entry, matched_len));
                    break;
                }
            }
        }
    }

    /// The bytes of path that the entry matches, when all its conditions hold. Host, and `depth` bytes of plain path,
    /// are known to match.
    fn accept(&self, entry: &Entry, depth: usize) -> Option<usize> {
        let Query { method, path, https, sni, headers, .. } = *self.query;
        if entry.methods & self.method_bit == 0 {
            return None;
        }
        if entry.checks & !NO_PATH == 0 {
            return Some(depth);
        }
        if entry.checks & CHECK_PORT != 0 && u32::from(entry.port) != self.port {
            return None;
        }
        let route = self.routes.get(entry.route.0 as usize)?.as_ref()?;
        let conditions = &route.compiled.conditions;
        if entry.checks & CHECK_RARE_METHOD != 0 && !conditions.accept_method(self.method_bit, method) {
            return None;
        }
        if entry.checks & CHECK_SNI != 0 && !conditions.accept_sni(https, sni) {
            return None;
        }
        let matched_len = match entry.checks & CHECK_REGEX {
            0 => depth,
            _ => route.paths.get(usize::from(entry.regex))?.matched_len(path)?,
        };
        if entry.checks & CHECK_HEADERS != 0 && !route.headers.iter().all(|rule| rule.matches(headers)) {
            return None;
        }
        Some(matched_len)
    }
}
