//! HOT. Which route matches a request (spec/router.md), in any of the three flavours.
//! Owns: one core's index of routes.   Never: allocates, locks or fails in `find`.
//! Always: `find` answers what the flat walk of section 4, respectively the search of section 5, would.

mod category;
pub mod compile;
mod entry;
pub mod examine;
pub mod expressions;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gates;
mod hosts;
pub mod matcher;
pub mod net;
mod pattern;
pub mod priority;
#[cfg(test)]
mod recorded;
mod search;
mod snis;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod traditional_tables;
mod trie;
#[cfg(any(test, fuzzing))]
mod twin;
#[cfg(any(test, fuzzing))]
mod twin_expressions;
#[cfg(any(test, fuzzing))]
mod twin_traditional;
#[cfg(any(test, fuzzing))]
mod worlds;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::router::category::Categories;
use crate::router::entry::for_each_entry;
use crate::router::expressions::evaluate::Scratch;
use crate::router::hosts::Brackets;
use crate::router::hosts::Hosts;
use crate::router::hosts::split_port;
use crate::router::matcher::Compiled;
use crate::router::matcher::HeaderRule;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::PathGroup;
use crate::router::pattern::PathRegex;
use crate::router::pattern::TextRegex;
use crate::router::search::Search;

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
    /// From the TLS handshake; None without one.
    pub sni: Option<&'a [u8]>,
    /// Of the listener, after `port_maps`; counts when the Host header has none.
    pub port: u16,
    /// After the `?`, as sent; empty without one.
    pub arguments: &'a [u8],
    /// The client, after what trusted proxies say of it.
    pub source: SocketAddr,
    /// The address that it reached.
    pub destination: IpAddr,
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
    /// Bytes at the start of the request path that `strip_path` takes off: what the path attribute matched, plain or
    /// regex, or an expression's last predicate on the path; None without these.
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
    /// In the flavour `traditional`, instead of `hosts`.
    categories: Option<Box<Categories>>,
    scratch: Scratch,
    /// By `RouteKey`.
    routes: Vec<Option<Route>>,
    len: usize,
}

/// One core's share of a route: clones of what holds regexes, so that cores share the programs, not the scratch memory.
struct Route {
    compiled: Arc<Compiled>,
    /// By `Entry::regex`.
    paths: Box<[PathRegex]>,
    /// Of its expression.
    texts: Box<[TextRegex]>,
    headers: Box<[HeaderRule]>,
}

impl Route {
    fn new(compiled: Arc<Compiled>) -> Self {
        let (mut paths, mut texts) = (Vec::new(), Vec::new());
        for matcher in &compiled.matchers {
            match &matcher.group {
                PathGroup::Regex(members) => paths.extend(members.iter().map(|member| member.regex.clone())),
                PathGroup::Expression(program) => texts.clone_from(&program.regexes),
                PathGroup::Any | PathGroup::Plain(_) => {}
            }
        }
        let headers = compiled.conditions.headers.clone().into();
        Self { compiled, paths: paths.into(), texts: texts.into(), headers }
    }

    /// The one regex of a matcher of the flavour `traditional`.
    fn regex_of(&self, matcher: u16) -> Option<&PathRegex> {
        let is_regex = |group: &PathGroup| matches!(group, PathGroup::Regex(_));
        let before = self.compiled.matchers.get(..usize::from(matcher))?;
        self.paths.get(before.iter().filter(|matcher| is_regex(&matcher.group)).count())
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
        match compiled.category {
            Some(_) => self.categories.get_or_insert_default().insert(key, &compiled),
            None => for_each_entry(key, &compiled, |host, path, entry| self.hosts.insert(host, path, entry)),
        }
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
        match (&mut self.categories, route.compiled.category) {
            (Some(categories), Some(_)) => categories.remove(key, &route.compiled),
            _ => for_each_entry(key, &route.compiled, |host, path, entry| self.hosts.remove(host, path, &entry)),
        }
        self.len -= 1;
        Some(route.compiled)
    }

    /// The route that matches, or None.
    pub fn find(&self, query: &Query<'_>) -> Option<Hit> {
        if let Some(categories) = &self.categories {
            return categories.find(&self.routes, &self.scratch, query);
        }
        let (host, port) = split_port(query.host, Brackets::Opaque);
        let port = port.unwrap_or(u32::from(query.port));
        let mut search = Search::new(&self.routes, &self.scratch, query, host, port);
        self.hosts.for_each_trie(host, true, |root| search.visit(root));
        search.hit()
    }
}

#[cfg(any(test, fuzzing))]
impl Router {
    /// The same index, whatever was there before.
    fn same_as(&self, other: &Self) -> bool {
        let empty = Categories::default();
        let mine = self.categories.as_deref().unwrap_or(&empty);
        self.hosts.same_as(&other.hosts) && mine.same_as(other.categories.as_deref().unwrap_or(&empty))
    }
}
