//! HOT. Which route matches a request (spec/router.md, flavour `traditional_compatible`).
//! Owns: one core's index of routes.   Never: allocates, locks or fails in `find`.
//! Always: `find` answers what the flat walk of section 4 would: the matcher of highest rank whose conditions hold.

pub mod compile;
pub mod gates;
mod hosts;
pub mod matcher;
mod pattern;
mod priority;

use std::sync::Arc;

use crate::router::hosts::HostName;
use crate::router::hosts::split_port;
use crate::router::matcher::Compiled;
use crate::router::matcher::HeaderSource;
use crate::router::matcher::PathGroup;
use crate::router::matcher::method_bit;

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
#[derive(Default)]
pub struct Router {
    routes: Vec<Option<Arc<Compiled>>>,
    len: usize,
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

    /// Adds a route, or replaces the one that has this key.
    pub fn insert(&mut self, key: RouteKey, compiled: Arc<Compiled>) {
        self.remove(key);
        let index = key.0 as usize;
        if index >= self.routes.len() {
            self.routes.resize_with(index + 1, || None);
        }
        self.routes[index] = Some(compiled);
        self.len += 1;
    }

    /// Takes a route out; nothing happens when the key has none.
    pub fn remove(&mut self, key: RouteKey) {
        if let Some(slot) = self.routes.get_mut(key.0 as usize)
            && slot.take().is_some()
        {
            self.len -= 1;
        }
    }

    /// The route that matches, or None.
    pub fn find(&self, query: &Query<'_>) -> Option<Hit> {
        let mut best = None;
        for (index, compiled) in self.routes.iter().enumerate() {
            let Some(compiled) = compiled else { continue };
            for (matcher, candidate) in compiled.matchers.iter().enumerate() {
                if best.is_some_and(|(rank, _)| rank >= candidate.rank) || !accepts(compiled, query) {
                    continue;
                }
                if let Some((path, matched_len)) = match_path(&candidate.group, query.path) {
                    let route = RouteKey(index as u32);
                    best = Some((candidate.rank, Hit { route, matcher: matcher as u16, path, matched_len }));
                }
            }
        }
        best.map(|(_, hit)| hit)
    }
}

fn accepts(compiled: &Compiled, query: &Query<'_>) -> bool {
    let (host, port) = split_port(query.host);
    let port = port.unwrap_or(u32::from(query.port));
    let host_matches = compiled.hosts.is_empty()
        || compiled.hosts.iter().any(|pattern| {
            pattern.port.is_none_or(|wanted| u32::from(wanted) == port)
                && match &pattern.name {
                    HostName::Exact(name) => **name == *host,
                    HostName::Suffix(suffix) => host.ends_with(suffix),
                    HostName::Prefix(prefix) => host.starts_with(prefix),
                }
        });
    host_matches
        && compiled.conditions.accept_method(method_bit(query.method), query.method)
        && compiled.conditions.accept_sni(query.https, query.sni)
        && compiled.conditions.accept_headers(query.headers)
}

type PathMatch = (Option<u16>, Option<usize>);

fn match_path(group: &PathGroup, path: &[u8]) -> Option<PathMatch> {
    match group {
        PathGroup::Any => Some((None, None)),
        PathGroup::Plain(members) => {
            let found = members.iter().find(|member| path.starts_with(&member.bytes))?;
            Some((Some(found.position), Some(found.bytes.len())))
        }
        PathGroup::Regex(members) => {
            members.iter().find_map(|member| Some((Some(member.position), Some(member.regex.find(path)?.end()))))
        }
    }
}
