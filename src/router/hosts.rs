//! HOT. Hosts of routes and of requests (spec/router.md section 3), and the index from a host to its path tries.
//! Always: compared byte for byte, case not folded; a host costs in proportion to the configured names, however long
//! or full of dots it is.

use std::collections::HashMap;

use ahash::RandomState;

use crate::router::entry::Entry;
use crate::router::trie::Node;

/// One entry of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPattern {
    /// As the operator wrote it.
    pub text: Box<[u8]>,
    pub name: HostName,
    /// The request must have come to this port (its Host header's, else the listener's).
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostName {
    Exact(Box<[u8]>),
    /// Of `*.example.com`: `.example.com`.
    Suffix(Box<[u8]>),
    /// Of `example.*`: `example.`.
    Prefix(Box<[u8]>),
}

impl HostName {
    /// What must be there of the request's host.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Exact(text) | Self::Suffix(text) | Self::Prefix(text) => text,
        }
    }
}

impl HostPattern {
    /// The error is one line for the operator.
    pub fn parse(text: &str, brackets: Brackets) -> Result<Self, String> {
        let (name, port) = split_port(text.as_bytes(), brackets);
        let port = match port {
            None => None,
            Some(port) => Some(u16::try_from(port).map_err(|_| "invalid port number".to_owned())?),
        };
        let name = match name {
            [b'*', rest @ ..] if rest.starts_with(b".") => HostName::Suffix(rest.into()),
            [rest @ .., b'*'] if rest.ends_with(b".") => HostName::Prefix(rest.into()),
            whole => HostName::Exact(whole.into()),
        };
        let (HostName::Exact(rest) | HostName::Suffix(rest) | HostName::Prefix(rest)) = &name;
        if rest.contains(&b'*') {
            return Err("invalid wildcard: must be placed at leftmost or rightmost label".to_owned());
        }
        Ok(Self { text: text.as_bytes().into(), name, port })
    }

    /// Whether a request to this name and port is meant; for operators, requests are led by [`Hosts`].
    pub fn takes(&self, host: &[u8], port: u32, empty_star: bool) -> bool {
        let something = |text: &[u8]| empty_star || host.len() > text.len();
        let name = match &self.name {
            HostName::Exact(name) => **name == *host,
            HostName::Suffix(text) => host.ends_with(text) && something(text),
            HostName::Prefix(text) => host.starts_with(text) && something(text),
        };
        name && self.port.is_none_or(|wanted| u32::from(wanted) == port)
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.name, HostName::Exact(_))
    }
}

/// Whether the port behind `[v6]` is seen: only the flavour `traditional` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brackets {
    Opaque,
    Understood,
}

/// Cuts `name:port` at its first colon. What follows is a port only when it is all digits; else there is none and the
/// text stays whole, as does `[::1]:80` unless brackets are understood. A port too large for its type is the largest.
pub(super) fn split_port(host: &[u8], brackets: Brackets) -> (&[u8], Option<u32>) {
    let name_end = match brackets {
        Brackets::Understood if host.starts_with(b"[") => host.iter().position(|byte| *byte == b']').unwrap_or(0),
        _ => 0,
    };
    let Some(colon) = host[name_end..].iter().position(|byte| *byte == b':').map(|at| name_end + at) else {
        return (host, None);
    };
    let (name, digits) = (&host[..colon], &host[colon + 1..]);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return (host, None);
    }
    let add = |port: u32, digit: &u8| port.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    (name, Some(digits.iter().fold(0, add)))
}

/// The path tries of one router, by what they demand of the host.
#[derive(Default)]
pub(super) struct Hosts {
    exact: Tries,
    suffixes: Tries,
    prefixes: Tries,
    /// Of routes without hosts.
    any: Option<Box<Node>>,
}

impl Hosts {
    /// `host` None: any host.
    pub fn insert(&mut self, host: Option<&HostName>, path: &[u8], entry: Entry) {
        match host {
            None => match &mut self.any {
                Some(root) => root.insert(path, entry),
                empty => *empty = Some(Box::new(Node::new(path, entry))),
            },
            Some(HostName::Exact(name)) => self.exact.insert(name, path, entry),
            Some(HostName::Suffix(name)) => self.suffixes.insert(name, path, entry),
            Some(HostName::Prefix(name)) => self.prefixes.insert(name, path, entry),
        }
    }

    pub fn remove(&mut self, host: Option<&HostName>, path: &[u8], entry: &Entry) {
        match host {
            None => {
                if self.any.as_mut().is_some_and(|root| root.remove(path, entry)) {
                    self.any = None;
                }
            }
            Some(HostName::Exact(name)) => self.exact.remove(name, path, entry),
            Some(HostName::Suffix(name)) => self.suffixes.remove(name, path, entry),
            Some(HostName::Prefix(name)) => self.prefixes.remove(name, path, entry),
        }
    }

    /// Gives `search` each trie that a request to `host` (without port) may use, those of higher ranks first as a rule.
    /// `empty_star`: whether a `*` may stand for nothing.
    pub fn for_each_trie<'a>(&'a self, host: &[u8], empty_star: bool, mut search: impl FnMut(&'a Node)) {
        if let Some(root) = self.exact.get(host) {
            search(root);
        }
        if !self.suffixes.is_empty() {
            let skip = host.len().saturating_sub(self.suffixes.longest());
            let skip = if empty_star { skip } else { skip.max(1) };
            for (at, _) in host.iter().enumerate().skip(skip).filter(|(_, byte)| **byte == b'.') {
                if let Some(root) = self.suffixes.get(&host[at..]) {
                    search(root);
                }
            }
        }
        if !self.prefixes.is_empty() {
            let within = host.iter().enumerate().take(self.prefixes.longest());
            for (at, _) in within.filter(|(at, byte)| **byte == b'.' && (empty_star || at + 1 < host.len())) {
                if let Some(root) = self.prefixes.get(&host[..=at]) {
                    search(root);
                }
            }
        }
        if let Some(root) = &self.any {
            search(root);
        }
    }
}

/// Tries by name.
#[derive(Default)]
struct Tries {
    by_name: HashMap<Box<[u8]>, Box<Node>, RandomState>,
    /// How many names have each byte length: most texts that are no name are told by it, without hashing them.
    lengths: Vec<u32>,
}

impl Tries {
    fn get(&self, name: &[u8]) -> Option<&Node> {
        if self.lengths.get(name.len()).is_none_or(|names| *names == 0) {
            return None;
        }
        self.by_name.get(name).map(|root| &**root)
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Bytes of the longest name there is or was.
    fn longest(&self) -> usize {
        self.lengths.len().saturating_sub(1)
    }

    fn insert(&mut self, name: &[u8], path: &[u8], entry: Entry) {
        if let Some(root) = self.by_name.get_mut(name) {
            root.insert(path, entry);
            return;
        }
        self.by_name.insert(name.into(), Box::new(Node::new(path, entry)));
        if self.lengths.len() <= name.len() {
            self.lengths.resize(name.len() + 1, 0);
        }
        self.lengths[name.len()] += 1;
    }

    fn remove(&mut self, name: &[u8], path: &[u8], entry: &Entry) {
        let Some(root) = self.by_name.get_mut(name) else {
            return;
        };
        if root.remove(path, entry) {
            self.by_name.remove(name);
            self.lengths[name.len()] -= 1;
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Hosts {
    /// The same tries in the same shape, whatever was there before.
    pub fn same_as(&self, other: &Self) -> bool {
        let tables =
            [(&self.exact, &other.exact), (&self.suffixes, &other.suffixes), (&self.prefixes, &other.prefixes)];
        let same = |(mine, theirs): &(&Tries, &Tries)| {
            let lengths = mine.lengths.len().max(theirs.lengths.len());
            let names = |tries: &Tries, length| tries.lengths.get(length).copied().unwrap_or(0);
            mine.by_name == theirs.by_name && (0..lengths).all(|length| names(mine, length) == names(theirs, length))
        };
        self.any == other.any && tables.iter().all(same)
    }
}
