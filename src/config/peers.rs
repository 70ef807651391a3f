//! Which peers are believed, and how ports look from outside.
//! HOT: `TrustedIps::contains` and `port_seen` run for every request; no allocation there.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value as Json;

use super::kind::{Kind, Problem, list, strings};

/// A block of addresses. IPv4 written as IPv6 (`::ffff:a.b.c.d`) counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// With the bits beyond `bits` cleared.
    ip: IpAddr,
    /// 0-32 or 0-128.
    bits: u8,
}

impl Cidr {
    /// `ip` or `ip/bits`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            None => (text.parse::<IpAddr>().ok()?, None),
            Some((ip, bits)) => (ip.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
        };
        let ip = if bits.is_none() { ip.to_canonical() } else { ip };
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(whole);
        (bits <= whole).then(|| Self { ip: masked(ip, bits), bits })
    }

    /// The first address of the block.
    pub fn first(&self) -> IpAddr {
        self.ip
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && masked(ip, self.bits) == self.ip
    }
}

/// `bits` is at most the width of `ip`.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip.is_ipv4(), self.bits) {
            (true, 32) | (false, 128) => write!(f, "{}", self.ip),
            _ => write!(f, "{}/{}", self.ip, self.bits),
        }
    }
}

/// The peers whose forwarding headers are believed (spec/proxying.md 4.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedIps {
    blocks: Vec<Cidr>,
    unix: bool,
}

impl TrustedIps {
    /// Whether `peer` is trusted; `None` is a peer on a unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => self.unix,
            Some(ip) => self.blocks.iter().any(|block| block.contains(ip)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && !self.unix
    }
}

/// A list of addresses, blocks and `unix:`.
pub struct TrustedPeers;
impl Kind for TrustedPeers {
    type Value = TrustedIps;
    const ACCEPTS: &'static str = "a list of IP addresses, CIDR blocks and unix:";
    fn parse(text: &str) -> Result<TrustedIps, Problem> {
        let mut trusted = TrustedIps::default();
        for part in list(text) {
            match Cidr::parse(part) {
                _ if part == "unix:" => trusted.unix = true,
                Some(block) => trusted.blocks.push(block),
                None => return Err(Problem::Because(format!("\"{part}\" is neither an address nor a block"))),
            }
        }
        Ok(trusted)
    }
    fn describe(value: &TrustedIps) -> Json {
        strings(value.blocks.iter().map(Cidr::to_string).chain(value.unix.then(|| "unix:".to_owned())))
    }
}

/// A port that clients see in place of the one listened on (spec/proxying.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    pub external: u16,
    pub listener: u16,
}

/// The port that a client used to reach `listener`.
pub fn port_seen(maps: &[PortMap], listener: u16) -> u16 {
    maps.iter().find(|map| map.listener == listener).map_or(listener, |map| map.external)
}

/// A list of `external:listener`.
pub struct PortMaps;
impl Kind for PortMaps {
    type Value = Vec<PortMap>;
    const ACCEPTS: &'static str = "a list of external:listener ports (80:8000)";
    fn parse(text: &str) -> Result<Vec<PortMap>, Problem> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let pair = |part: &str| {
            let (external, listener) = part.split_once(':')?;
            Some(PortMap { external: port(external)?, listener: port(listener)? })
        };
        list(text).map(|part| pair(part).ok_or_else(|| Problem::Because(format!("\"{part}\" is no pair")))).collect()
    }
    fn describe(value: &Vec<PortMap>) -> Json {
        strings(value.iter().map(|map| format!("{}:{}", map.external, map.listener)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_addresses_only() {
        for (block, ip, want) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", false),
            ("::/0", "fe80::1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let cidr = Cidr::parse(block).expect(block);
            assert_eq!(cidr.contains(ip.parse().expect(ip)), want, "{ip} in {block}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "host"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_unix_peer_is_trusted_only_when_named() {
        assert!(!TrustedPeers::parse("0.0.0.0/0,::/0").unwrap().contains(None));
        let trusted = TrustedPeers::parse("unix:, 10.0.0.0/8").unwrap();
        assert!(trusted.contains(None) && !trusted.is_empty());
        assert_eq!(TrustedPeers::describe(&trusted).to_string(), r#"["10.0.0.0/8","unix:"]"#);
    }

    #[test]
    fn a_mapped_port_is_seen_as_the_external_one() {
        let maps = PortMaps::parse("80:8000, 443 : 8443").unwrap();
        assert_eq!([8000, 8443, 9].map(|port| port_seen(&maps, port)), [80, 443, 9]);
        for text in ["80", "80:x", "0:1", "80:8000:1"] {
            assert!(PortMaps::parse(text).is_err(), "{text}");
        }
    }
}
