//! Tests only. The search of spec/router.md section 5, step by step over plain lists: what `category` is held to.

use std::cmp::Reverse;

use regex::bytes::Regex;

use crate::router::Hit;
use crate::router::RouteKey;
use crate::router::compile::Rules;
use crate::router::twin::Request;
use crate::router::twin::fold;
use crate::router::twin::value_matches;

/// One path of one route.
struct Matcher<'a> {
    route: RouteKey,
    rules: &'a Rules,
    at: usize,
    /// Without its `~`.
    path: Option<&'a str>,
    regex: Option<Regex>,
}

pub(super) struct TraditionalTwin<'a> {
    /// In the order of section 5.3.
    matchers: Vec<Matcher<'a>>,
}

impl<'a> TraditionalTwin<'a> {
    pub fn new(routes: impl IntoIterator<Item = (RouteKey, &'a Rules)>) -> Self {
        let mut matchers = Vec::new();
        for (route, rules) in routes {
            if rules.paths.is_empty() && category(rules) != 0 {
                matchers.push(Matcher { route, rules, at: 0, path: None, regex: None });
            }
            for (at, path) in rules.paths.iter().enumerate() {
                let pattern = path.strip_prefix('~');
                let regex = pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})")).unwrap());
                matchers.push(Matcher { route, rules, at, path: Some(pattern.unwrap_or(path)), regex });
            }
        }
        matchers.sort_by_key(|matcher| {
            let rules = matcher.rules;
            let wildcard = |host: &&String| host.contains('*');
            let wildcard_port = rules.hosts.iter().filter(wildcard).any(|host| host.contains(':'));
            let plain_hosts = !rules.hosts.is_empty() && !rules.hosts.iter().any(|host| host.contains('*'));
            let priority = if matcher.regex.is_some() { rules.regex_priority } else { 0 };
            let length = if matcher.regex.is_some() { 0 } else { matcher.path.map_or(0, str::len) };
            Reverse((
                (wildcard_port, plain_hosts, matcher.regex.is_some()),
                names(rules).len(),
                priority,
                length,
                Reverse(rules.created_at_s),
                rules.id,
            ))
        });
        Self { matchers }
    }

    pub fn find(&self, request: &Request) -> Option<Hit> {
        let hits = self.hits(request);
        let mut categories: Vec<u8> = self.matchers.iter().map(|matcher| category(matcher.rules)).collect();
        categories.sort_by_key(|category| Reverse((category.count_ones(), *category)));
        categories.dedup();
        if hits.category == 0 {
            return None;
        }
        let start = categories.iter().position(|category| *category == hits.category).unwrap_or(0);
        categories[start..].iter().find_map(|category| self.find_in(*category, &hits, request))
    }

    fn find_in(&self, wanted: u8, hits: &Hits, request: &Request) -> Option<Hit> {
        let all: Vec<&Matcher<'_>> = self.matchers.iter().filter(|one| category(one.rules) == wanted).collect();
        let some = |share: &dyn Fn(&Matcher<'_>) -> bool| -> Option<Vec<&Matcher<'_>>> {
            let list: Vec<&Matcher<'_>> = all.iter().copied().filter(|one| share(one)).collect();
            (!list.is_empty()).then_some(list)
        };
        let host = hits.wildcard.as_ref().unwrap_or(&request.host);
        let by_header = hits.header.as_ref().and_then(|name| some(&|one| names(one.rules).contains(name)));
        let others = [
            some(&|one| one.rules.hosts.contains(host)),
            hits.path.as_ref().and_then(|path| some(&|one| one.path == Some(path))),
            some(&|one| one.rules.methods.iter().any(|method| method == request.method)),
            some(&|one| one.rules.snis.iter().any(|sni| Some(bare(sni)) == request.sni)),
        ];
        // Of a route that names a host or a method twice, Kong's lists hold two: the sizes differ, what is found does not
        // but by the order of equally long lists.
        let first = by_header.or_else(|| others.into_iter().flatten().min_by_key(Vec::len)).unwrap_or_default();
        first.iter().chain(&all).find_map(|matcher| matcher.check(request))
    }

    fn hits(&self, request: &Request) -> Hits {
        let mut hits = Hits::default();
        for matcher in &self.matchers {
            for name in names(matcher.rules) {
                if hits.header.is_none() && request.headers.0.iter().any(|(other, _)| fold(other) == name) {
                    hits.header = Some(name);
                    hits.category |= 0x20;
                }
            }
        }
        let hosts = || self.matchers.iter().flat_map(|matcher| &matcher.rules.hosts);
        if hosts().any(|host| !host.contains('*') && host_matches(host, request)) {
            hits.category |= 0x40;
        } else if let Some(host) = hosts().find(|host| host.contains('*') && host_matches(host, request)) {
            hits.wildcard = Some(host.clone());
            hits.category |= 0x40;
        }
        let path = request.path.as_bytes();
        let regex = self.matchers.iter().find(|one| one.regex.as_ref().is_some_and(|regex| regex.is_match(path)));
        let plain = self.matchers.iter().filter(|one| one.regex.is_none()).filter_map(|one| one.path);
        let longest = plain.filter(|prefix| request.path.starts_with(prefix)).max_by_key(|prefix| prefix.len());
        hits.path = regex.and_then(|one| one.path).or(longest).map(str::to_owned);
        if hits.path.is_some() {
            hits.category |= 0x10;
        }
        if self.matchers.iter().any(|one| one.rules.methods.iter().any(|method| method == request.method)) {
            hits.category |= 0x08;
        }
        if self.matchers.iter().any(|one| one.rules.snis.iter().any(|sni| Some(bare(sni)) == request.sni)) {
            hits.category |= 0x04;
        }
        hits
    }
}

#[derive(Default)]
struct Hits {
    category: u8,
    wildcard: Option<String>,
    path: Option<String>,
    header: Option<String>,
}

impl Matcher<'_> {
    fn check(&self, request: &Request) -> Option<Hit> {
        let rules = self.rules;
        let fails = |list: &[String], matches: &dyn Fn(&str) -> bool| {
            !list.is_empty() && !list.iter().any(|element| matches(element))
        };
        if fails(&rules.hosts, &|host| host_matches(host, request))
            || fails(&rules.methods, &|method| method == request.method)
            || (request.https && fails(&rules.snis, &|sni| Some(bare(sni)) == request.sni))
        {
            return None;
        }
        let matched_len = match (&self.regex, self.path) {
            (Some(regex), _) => Some(regex.find(request.path.as_bytes())?.end()),
            (None, Some(path)) => Some(request.path.starts_with(path).then_some(path.len())?),
            (None, None) => None,
        };
        for (name, wanted) in &rules.headers {
            let mut received = request.headers.0.iter().filter(|(other, _)| fold(other) == fold(name));
            if !received.any(|(_, value)| value_matches(wanted, &value.to_lowercase())) {
                return None;
            }
        }
        let path = self.path.map(|_| self.at as u16);
        Some(Hit { route: self.route, matcher: self.at as u16, path, matched_len })
    }
}

fn category(rules: &Rules) -> u8 {
    let mut category = 0;
    for (bit, is_set) in [
        (0x40, !rules.hosts.is_empty()),
        (0x20, !rules.headers.is_empty()),
        (0x10, !rules.paths.is_empty()),
        (0x08, !rules.methods.is_empty()),
        (0x04, !rules.snis.is_empty()),
    ] {
        category |= if is_set { bit } else { 0 };
    }
    category
}

fn names(rules: &Rules) -> Vec<String> {
    let mut names: Vec<String> = rules.headers.iter().map(|(name, _)| fold(name)).collect();
    names.sort();
    names.dedup();
    names
}

/// Without the dot of a fully qualified name.
fn bare(sni: &str) -> &str {
    sni.strip_suffix('.').unwrap_or(sni)
}

/// Name and port; brackets are understood, and a port too large for its type is no port that a route can have.
fn name_and_port(host: &str) -> (&str, Option<u64>) {
    let from = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    match host[from..].split_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (&host[..from + name.len()], Some(port.parse().unwrap_or(u64::MAX)))
        }
        _ => (host, None),
    }
}

fn host_matches(rule: &str, request: &Request) -> bool {
    let (wanted, wanted_port) = name_and_port(rule);
    let (name, port) = name_and_port(&request.host);
    let port = port.unwrap_or(if request.https { 443 } else { 80 });
    let name_matches = match wanted.split_once('*') {
        None => name == wanted,
        Some(("", suffix)) => name.len() > suffix.len() && name.ends_with(suffix),
        Some((prefix, _)) => name.len() > prefix.len() && name.starts_with(prefix),
    };
    name_matches && wanted_port.is_none_or(|wanted| wanted == port)
}
