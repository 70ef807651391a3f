//! HOT. The index of the flavour `traditional` (spec/router.md section 5).
//! Owns: matchers by category, and what all of them together have of each attribute.   Never: allocates in `find`.
//! Always: answers what the recorded algorithm answers, down to its quirks: which category a request begins at follows
//! from attributes that any route has, and in a category those go first that share the strongest such attribute.

use std::collections::BTreeSet;
use std::collections::HashMap;

use ahash::RandomState;

use crate::router::Hit;
use crate::router::Query;
use crate::router::Route;
use crate::router::RouteKey;
use crate::router::entry::CHECK_PORT;
use crate::router::entry::CHECK_REGEX;
use crate::router::entry::Entry;
use crate::router::entry::for_each_entry;
use crate::router::expressions::evaluate::Scratch;
use crate::router::hosts::Brackets;
use crate::router::hosts::Hosts;
use crate::router::hosts::split_port;
use crate::router::matcher::Compiled;
use crate::router::matcher::PathGroup;
use crate::router::priority::Rank;
use crate::router::search::Only;
use crate::router::search::Search;
use crate::router::trie::Node;

// Bits of a category; the two lowest of Kong's are for byte streams.
pub(super) const HOST: u8 = 0x40;
pub(super) const HEADER: u8 = 0x20;
pub(super) const PATH: u8 = 0x10;
pub(super) const METHOD: u8 = 0x08;
pub(super) const SNI: u8 = 0x04;

/// All categories in the order in which they are looked through: more attributes first, then the greater number.
const ORDER: [u8; 31] = in_order();

const fn in_order() -> [u8; 31] {
    let mut order = [0; 31];
    let (mut at, mut bits) = (0, 5);
    while bits > 0 {
        let mut category = 31_u8;
        while category > 0 {
            if category.count_ones() == bits {
                order[at] = category << 2;
                at += 1;
            }
            category -= 1;
        }
        bits -= 1;
    }
    order
}

/// The routes of one router.
#[derive(Default)]
pub(super) struct Categories {
    /// By category divided by 4.
    categories: [Option<Box<Category>>; 32],
    hosts: HashMap<Box<[u8]>, Ports, RandomState>,
    /// Entries whose position is that of the host in its route.
    wildcards: Hosts,
    regexes: Option<Box<Node>>,
    prefixes: Option<Box<Node>>,
    methods: Counts,
    snis: Counts,
    /// By the rank of the first matcher that has the name.
    headers: Vec<HeaderName>,
}

/// How many plain hosts of one name have each port, or none.
type Ports = Vec<(Option<u16>, u32)>;

/// The matchers that have the same attributes.
#[derive(Default)]
struct Category {
    matchers: u32,
    index: Hosts,
    hosts: Counts,
    paths: Counts,
    methods: Counts,
    snis: Counts,
    headers: Counts,
}

struct HeaderName {
    name: Box<str>,
    ranks: BTreeSet<(Rank, RouteKey)>,
}

/// How many matchers have each text.
#[derive(Default)]
struct Counts(HashMap<Box<[u8]>, u32, RandomState>);

impl Counts {
    fn get(&self, text: &[u8]) -> Option<u32> {
        self.0.get(text).copied()
    }

    fn change(&mut self, text: &[u8], step: Step) {
        match self.0.get_mut(text) {
            Some(count) if step == Step::In => *count += 1,
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.0.remove(text)),
            None if step == Step::In => drop(self.0.insert(text.into(), 1)),
            None => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    In,
    Out,
}

/// What of a request some route has.
#[derive(Default)]
struct Hits<'a> {
    category: u8,
    /// The text of the first wildcard that matches, when no plain host does.
    wildcard: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    header: Option<&'a str>,
}

impl Categories {
    pub fn insert(&mut self, key: RouteKey, compiled: &Compiled) {
        self.change(key, compiled, Step::In);
    }

    pub fn remove(&mut self, key: RouteKey, compiled: &Compiled) {
        self.change(key, compiled, Step::Out);
    }

    fn change(&mut self, key: RouteKey, compiled: &Compiled, step: Step) {
        let Some(bits) = compiled.category.filter(|_| !compiled.matchers.is_empty()) else { return };
        let slot = &mut self.categories[usize::from(bits >> 2)];
        let category = slot.get_or_insert_default();
        for_each_entry(key, compiled, |host, path, entry| match step {
            Step::In => category.index.insert(host, path, entry),
            Step::Out => category.index.remove(host, path, &entry),
        });
        category.count(compiled, step);
        if category.matchers == 0 {
            *slot = None;
        }
        for (at, matcher) in compiled.matchers.iter().enumerate() {
            self.change_hosts(key, compiled, matcher.rank, step);
            self.change_path(key, &matcher.group, matcher.rank, at as u16, step);
            self.change_headers(key, compiled, matcher.rank, step);
            compiled.conditions.each_method(|method| self.methods.change(method, step));
            compiled.conditions.snis.iter().for_each(|sni| self.snis.change(sni.text(), step));
        }
    }

    fn change_hosts(&mut self, key: RouteKey, compiled: &Compiled, rank: Rank, step: Step) {
        for (at, host) in compiled.hosts.iter().enumerate() {
            if !host.is_plain() {
                let entry = hit_entry(key, rank, at as u16, 0);
                let port = host.port.map_or(entry, |port| Entry { port, checks: CHECK_PORT, ..entry });
                match step {
                    Step::In => self.wildcards.insert(Some(&host.name), b"", port),
                    Step::Out => self.wildcards.remove(Some(&host.name), b"", &port),
                }
                continue;
            }
            let name = host.name.text();
            let ports = match self.hosts.get_mut(name) {
                Some(ports) => ports,
                None => self.hosts.entry(name.into()).or_default(),
            };
            match (ports.iter().position(|(port, _)| *port == host.port), step) {
                (Some(at), Step::In) => ports[at].1 += 1,
                (Some(at), Step::Out) if ports[at].1 > 1 => ports[at].1 -= 1,
                (Some(at), Step::Out) => drop(ports.swap_remove(at)),
                (None, Step::In) => ports.push((host.port, 1)),
                (None, Step::Out) => {}
            }
            if ports.is_empty() {
                self.hosts.remove(name);
            }
        }
    }

    fn change_path(&mut self, key: RouteKey, group: &PathGroup, rank: Rank, matcher: u16, step: Step) {
        let (trie, path, checks) = match group {
            PathGroup::Plain(members) => (&mut self.prefixes, members.first().map(|member| &member.bytes), 0),
            PathGroup::Regex(members) => {
                (&mut self.regexes, members.first().map(|member| &member.literal), CHECK_REGEX)
            }
            PathGroup::Any | PathGroup::Expression(_) => return,
        };
        let Some(path) = path else { return };
        let entry = Entry { matcher, ..hit_entry(key, rank, matcher, checks) };
        match (trie.as_mut(), step) {
            (Some(root), Step::In) => root.insert(path, entry),
            (None, Step::In) => *trie = Some(Box::new(Node::new(path, entry))),
            (Some(root), Step::Out) => {
                if root.remove(path, &entry) {
                    *trie = None;
                }
            }
            (None, Step::Out) => {}
        }
    }

    fn change_headers(&mut self, key: RouteKey, compiled: &Compiled, rank: Rank, step: Step) {
        for rule in &compiled.conditions.headers {
            match (self.headers.iter_mut().find(|known| *known.name == *rule.name()), step) {
                (Some(known), Step::In) => drop(known.ranks.insert((rank, key))),
                (Some(known), Step::Out) => drop(known.ranks.remove(&(rank, key))),
                (None, Step::In) => {
                    self.headers.push(HeaderName { name: rule.name().into(), ranks: [(rank, key)].into() });
                }
                (None, Step::Out) => {}
            }
        }
        self.headers.retain(|known| !known.ranks.is_empty());
        self.headers.sort_by(|a, b| b.ranks.last().cmp(&a.ranks.last()).then_with(|| a.name.cmp(&b.name)));
    }

    /// The matcher that the search of section 5 finds.
    pub fn find(&self, routes: &[Option<Route>], scratch: &Scratch, query: &Query<'_>) -> Option<Hit> {
        let (host, port) = split_port(query.host, Brackets::Understood);
        let port = port.unwrap_or(if query.https { 443 } else { 80 });
        let hits = self.hits(routes, query, host, port);
        if hits.category == 0 {
            return None;
        }
        let known = |category: u8| self.categories.get(usize::from(category >> 2)).and_then(Option::as_deref);
        let start = match known(hits.category) {
            Some(_) => ORDER.iter().position(|category| *category == hits.category)?,
            None => 0,
        };
        for category in ORDER.iter().skip(start).filter_map(|category| known(*category)) {
            let look = |only: Option<Only<'_>>| {
                let mut search = Search::new(routes, scratch, query, host, port);
                if let Some(only) = only {
                    search = search.only(only);
                }
                category.index.for_each_trie(host, false, |root| search.visit(root));
                search.hit()
            };
            let narrow = category.narrow(&hits, query);
            if let Some(hit) = narrow.and_then(|only| look(Some(only))).or_else(|| look(None)) {
                return Some(hit);
            }
        }
        None
    }

    fn hits<'a>(&'a self, routes: &'a [Option<Route>], query: &'a Query<'_>, host: &[u8], port: u32) -> Hits<'a> {
        let mut hits = Hits::default();
        let has = |name: &&HeaderName| {
            let mut found = false;
            query.headers.for_each(&name.name, &mut |_| {
                found = true;
                found
            });
            found
        };
        if let Some(known) = self.headers.iter().find(has) {
            hits.header = Some(&known.name);
            hits.category |= HEADER;
        }
        let plain = self
            .hosts
            .get(host)
            .is_some_and(|ports| ports.iter().any(|(wanted, _)| wanted.is_none_or(|wanted| u32::from(wanted) == port)));
        if !plain {
            hits.wildcard = self.first_wildcard(routes, host, port);
        }
        if plain || hits.wildcard.is_some() {
            hits.category |= HOST;
        }
        hits.path = self.first_regex(routes, query.path).or_else(|| self.longest_prefix(query.path));
        if hits.path.is_some() {
            hits.category |= PATH;
        }
        if self.methods.get(query.method).is_some() {
            hits.category |= METHOD;
        }
        if query.sni.is_some_and(|sni| self.snis.get(sni).is_some()) {
            hits.category |= SNI;
        }
        hits
    }

    fn first_wildcard<'a>(&self, routes: &'a [Option<Route>], host: &[u8], port: u32) -> Option<&'a [u8]> {
        let mut best: Option<&Entry> = None;
        self.wildcards.for_each_trie(host, false, |root| {
            let entries = root.walk(b"").next(0).map_or(&[][..], |(entries, _)| entries);
            let first = entries.iter().find(|entry| entry.checks & CHECK_PORT == 0 || u32::from(entry.port) == port);
            if let Some(first) = first
                && best.is_none_or(|best| best.order() < first.order())
            {
                best = Some(first);
            }
        });
        let best = best?;
        let route = routes.get(best.route.0 as usize)?.as_ref()?;
        Some(&route.compiled.hosts.get(usize::from(best.position))?.text)
    }

    fn first_regex<'a>(&self, routes: &'a [Option<Route>], path: &[u8]) -> Option<&'a [u8]> {
        let mut walk = self.regexes.as_deref()?.walk(path);
        let mut best: Option<&Entry> = None;
        while let Some((entries, _)) = walk.next(best.map_or(0, |best| best.rank.word)) {
            for entry in entries {
                if best.is_some_and(|best| best.order() >= entry.order()) {
                    break;
                }
                let route = routes.get(entry.route.0 as usize)?.as_ref()?;
                if route.regex_of(entry.matcher).is_some_and(|regex| regex.matched_len(path).is_some()) {
                    best = Some(entry);
                    break;
                }
            }
        }
        let best = best?;
        routes.get(best.route.0 as usize)?.as_ref()?.compiled.path_text(best.matcher)
    }

    /// The longest plain path of any route that the request's path begins with.
    fn longest_prefix<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let mut walk = self.prefixes.as_deref()?.walk(path);
        let mut longest = None;
        while let Some((_, depth)) = walk.next(0) {
            longest = path.get(..depth);
        }
        longest
    }
}

/// An entry that only says who has something.
fn hit_entry(route: RouteKey, rank: Rank, position: u16, checks: u8) -> Entry {
    Entry { rank, route, matcher: 0, position, regex: 0, methods: u16::MAX, port: 0, checks }
}

impl Category {
    fn count(&mut self, compiled: &Compiled, step: Step) {
        for at in 0..compiled.matchers.len() {
            match step {
                Step::In => self.matchers += 1,
                Step::Out => self.matchers -= 1,
            }
            compiled.hosts.iter().for_each(|host| self.hosts.change(&host.text, step));
            compiled.conditions.headers.iter().for_each(|rule| self.headers.change(rule.name().as_bytes(), step));
            compiled.conditions.each_method(|method| self.methods.change(method, step));
            compiled.conditions.snis.iter().for_each(|sni| self.snis.change(sni.text(), step));
            if let Some(path) = compiled.path_text(at as u16) {
                self.paths.change(path, step);
            }
        }
    }

    /// Those that are looked through first: who has the header that was hit, else the fewest that share a hit. None:
    /// all that could match share it.
    fn narrow<'a>(&self, hits: &Hits<'a>, query: &Query<'a>) -> Option<Only<'a>> {
        let host = hits.wildcard.unwrap_or(query.host);
        let by_host = self.hosts.get(host).map(|count| (count, Some(Only::Host(host))));
        if let Some(name) = hits.header.filter(|name| self.headers.get(name.as_bytes()).is_some()) {
            return Some(Only::Header(name));
        }
        let by_path = hits.path.and_then(|path| Some((self.paths.get(path)?, Some(Only::Path(path)))));
        // All that match have the method, and the name: nothing is narrowed.
        let by_method = self.methods.get(query.method).map(|count| (count, None));
        let by_sni = query.sni.and_then(|sni| self.snis.get(sni)).map(|count| (count, None));
        let fewest = [by_host, by_path, by_method, by_sni].into_iter().flatten().min_by_key(|(count, _)| *count);
        fewest.and_then(|(_, only)| only)
    }
}

#[cfg(any(test, fuzzing))]
impl Categories {
    /// The same content, whatever was there before.
    pub fn same_as(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&Option<Box<Category>>, &Option<Box<Category>>)| match (mine, theirs) {
            (None, None) => true,
            (Some(mine), Some(theirs)) => {
                let counts = |category: &Category| {
                    let all = [&category.hosts, &category.paths, &category.methods, &category.snis, &category.headers];
                    all.map(|counts| counts.0.clone())
                };
                mine.matchers == theirs.matchers && mine.index.same_as(&theirs.index) && counts(mine) == counts(theirs)
            }
            _ => false,
        };
        let ports = |categories: &Self| {
            let sorted = |ports: &Ports| {
                let mut ports = ports.clone();
                ports.sort_unstable();
                ports
            };
            categories.hosts.iter().map(|(name, ports)| (name.clone(), sorted(ports))).collect::<HashMap<_, _>>()
        };
        let headers = |categories: &Self| {
            categories.headers.iter().map(|known| (known.name.clone(), known.ranks.clone())).collect::<Vec<_>>()
        };
        self.categories.iter().zip(&other.categories).all(same)
            && self.wildcards.same_as(&other.wildcards)
            && self.regexes == other.regexes
            && self.prefixes == other.prefixes
            && self.methods.0 == other.methods.0
            && self.snis.0 == other.snis.0
            && ports(self) == ports(other)
            && headers(self) == headers(other)
    }
}
