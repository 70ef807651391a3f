//! Host-like strings: names, IPv4, IPv6, each perhaps with a port (spec/entities.md section 1.1).
//! Owns: how such a string is classified and normalised. Never: resolves a name.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// A host-like string, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// Why a string is no address, by the kind it seemed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAddress {
    Name,
    V4,
    V6,
    Port,
}

impl Address {
    /// Classifies and checks: two or more colons make IPv6, only digits and dots IPv4, anything else a name.
    pub fn parse(text: &str) -> Result<Address, BadAddress> {
        if text.matches(':').count() > 1 {
            return parse_v6(text);
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port)),
        };
        let port = port.map(parse_port).transpose()?;
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !host.is_empty() {
            let host = parse_v4(host).ok_or(BadAddress::V4)?;
            return Ok(Address { host: Host::V4(host), port });
        }
        if !is_name(host) {
            return Err(BadAddress::Name);
        }
        Ok(Address { host: Host::Name(host.to_string()), port })
    }

    /// As a target is stored: IPv4 without leading zeros, IPv6 in full, lower-case, bracketed; the port always said.
    pub fn normalised(&self, default_port: u16) -> String {
        let port = self.port.unwrap_or(default_port);
        match &self.host {
            Host::Name(name) => format!("{name}:{port}"),
            Host::V4(address) => format!("{address}:{port}"),
            Host::V6(address) => {
                let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:04x}")).collect();
                format!("[{}]:{port}", groups.join(":"))
            }
        }
    }
}

fn parse_port(text: &str) -> Result<u16, BadAddress> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().map_err(|_| BadAddress::Port) } else { Err(BadAddress::Port) }
}

/// Leading zeros are decimal, as the admin may have typed them.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.len() <= 3)?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_v6(text: &str) -> Result<Address, BadAddress> {
    let (host, port) = match text.strip_prefix('[') {
        None => (text, None),
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BadAddress::V6)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(parse_port(port)?)),
                None if after.is_empty() => (host, None),
                None => return Err(BadAddress::V6),
            }
        }
    };
    let host = host.parse().map_err(|_| BadAddress::V6)?;
    Ok(Address { host: Host::V6(host), port })
}

/// Letters, digits, `.`, `_`, `-`; no empty label but a final one, no label that ends in `-`.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    !labels.is_empty()
        && labels.split('.').all(|label| {
            !label.is_empty()
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        })
}

/// IPv4 or IPv6, without port.
pub fn is_ip(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok()
}

/// IPv4 or IPv6, perhaps with a prefix length.
pub fn is_ip_or_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return is_ip(text);
    };
    let longest = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    let digits = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_digit());
    digits && prefix.parse::<u16>().is_ok_and(|bits| bits <= longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_classified_by_their_colons_and_digits() {
        let check = |text: &str, want: Result<&str, BadAddress>| {
            let got = Address::parse(text).map(|address| address.normalised(8000));
            assert_eq!(got.as_deref(), want.as_deref(), "{text:?}");
        };
        check("a.com", Ok("a.com:8000"));
        check("A.com:80", Ok("A.com:80"));
        check("1.2.3.4", Ok("1.2.3.4:8000"));
        check("001.02.3.4:80", Ok("1.2.3.4:80"));
        check("::1", Ok("[0000:0000:0000:0000:0000:0000:0000:0001]:8000"));
        check("[::1]:80", Ok("[0000:0000:0000:0000:0000:0000:0000:0001]:80"));
        check("a_b", Ok("a_b:8000"));
        check("-a.com", Ok("-a.com:8000"));
        check("a.com.", Ok("a.com.:8000"));
        check("localhost", Ok("localhost:8000"));
        check("1.2.3", Err(BadAddress::V4));
        check("300.1.1.1", Err(BadAddress::V4));
        check("a.com:99999", Err(BadAddress::Port));
        check("a.com:", Err(BadAddress::Port));
        check("a b", Err(BadAddress::Name));
        check("", Err(BadAddress::Name));
        check("a..b", Err(BadAddress::Name));
        check("a-.b", Err(BadAddress::Name));
        check("[::1", Err(BadAddress::V6));
        check("::1]:80", Err(BadAddress::V6));
    }

    #[test]
    fn ranges_need_a_prefix_of_the_family() {
        for good in ["1.2.3.4", "::1", "1.2.3.0/24", "fe80::/10", "1.2.3.4/0"] {
            assert!(is_ip_or_cidr(good), "{good}");
        }
        for bad in ["1.2.3.4/33", "fe80::/129", "a/8", "1.2.3.4/", "1.2.3.4/+1"] {
            assert!(!is_ip_or_cidr(bad), "{bad}");
        }
    }
}
