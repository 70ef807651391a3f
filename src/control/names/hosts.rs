//! The hosts file.
//! Always: the first line wins for each name and family; `localhost` is there even when the file lacks it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;

use crate::control::names::rules::Kind;

/// Names that need no name server.
#[derive(Debug, Default)]
pub struct Hosts(HashMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Hosts {
    /// Reads the file; without one, `localhost` is all that is known.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; only localhost is known without asking a name server", path.display());
            String::new()
        });
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
            words.for_each(|name| hosts.add(name, ip));
        }
        hosts.add("localhost", Ipv4Addr::LOCALHOST.into());
        hosts.add("localhost", Ipv6Addr::LOCALHOST.into());
        hosts
    }

    fn add(&mut self, name: &str, ip: IpAddr) {
        let entry = self.0.entry(name.to_ascii_lowercase()).or_default();
        match ip {
            IpAddr::V4(ip) => drop(entry.v4.get_or_insert(ip)),
            IpAddr::V6(ip) => drop(entry.v6.get_or_insert(ip)),
        }
    }

    /// The address of the first of `kinds` that the file has for the name.
    pub fn find(&self, name: &str, kinds: &[Kind]) -> Option<IpAddr> {
        let entry = self.0.get(&name.trim_end_matches('.').to_ascii_lowercase())?;
        kinds.iter().find_map(|kind| match kind {
            Kind::A => entry.v4.map(IpAddr::from),
            Kind::Aaaa => entry.v6.map(IpAddr::from),
            Kind::Srv | Kind::Cname => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[Kind] = &[Kind::Srv, Kind::A];
    const BOTH: &[Kind] = &[Kind::Aaaa, Kind::A];

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_first_line_wins_per_family() {
        let hosts = Hosts::parse("# comment\n10.0.0.1 a A.alias # more\n10.0.0.2 a\n::2 a\nbroken line\n");
        assert_eq!(hosts.find("A.", A), ip("10.0.0.1"));
        assert_eq!(hosts.find("a", BOTH), ip("::2"));
        assert_eq!(hosts.find("a.alias", BOTH), ip("10.0.0.1"));
        assert_eq!((hosts.find("line", BOTH), hosts.find("more", A)), (None, None));
    }

    #[test]
    fn localhost_is_known_without_a_file() {
        assert_eq!(Hosts::parse("").find("localhost", A), ip("127.0.0.1"));
        assert_eq!(Hosts::parse("").find("localhost", BOTH), ip("::1"));
        assert_eq!(Hosts::parse("127.0.0.9 localhost").find("localhost", A), ip("127.0.0.9"));
        assert_eq!(Hosts::parse("127.0.0.9 localhost").find("localhost", BOTH), ip("::1"));
    }
}
