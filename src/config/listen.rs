//! Listeners as kong.conf writes them: `address [option]...`, comma-separated, or `off`.
//! Always: an option that is accepted is one that the listener honours; the others are refused by name.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::kind::{Kind, Problem, list, strings};

/// Asked for when `backlog=` is absent; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG_DEFAULT: u32 = 16384;

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub addr: ListenAddr,
    /// Connections that may wait to be accepted, 1-65535.
    pub backlog: u32,
    /// Written down as given; the proxy's TCP listeners always share their port (one socket for each worker).
    pub reuseport: bool,
    /// TCP_DEFER_ACCEPT: a connection is accepted with its first bytes.
    pub deferred: bool,
    /// SO_KEEPALIVE on accepted connections, with the system's times.
    pub so_keepalive: bool,
    /// Connections begin with a preface of the PROXY protocol, version 1 or 2.
    pub proxy_protocol: bool,
    /// IPV6_V6ONLY; on unless `ipv6only=off`, of use for IPv6 addresses only.
    pub ipv6only: bool,
}

/// Where a listener is. Port 0 lets the kernel choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    Tcp(SocketAddr),
    /// A relative path is under `prefix`; the loader has made it absolute.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Whether other machines can reach it.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Tcp(addr) => !addr.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As kong.conf would write it.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        let words = [
            (self.proxy_protocol, " proxy_protocol"),
            (self.reuseport, " reuseport"),
            (self.deferred, " deferred"),
            (self.so_keepalive, " so_keepalive=on"),
            (!self.ipv6only, " ipv6only=off"),
        ];
        for (_, word) in words.iter().filter(|(present, _)| *present) {
            f.write_str(word)?;
        }
        write!(f, " backlog={}", self.backlog)
    }
}

/// A list of [`Listen`]; `off` is the empty list.
pub struct Listeners;
impl Kind for Listeners {
    type Value = Vec<Listen>;
    const ACCEPTS: &'static str = "off, or a list of ip:port or unix:path, each followed by any of \
        backlog=N reuseport deferred bind proxy_protocol so_keepalive=on|off ipv6only=on|off";
    fn parse(text: &str) -> Result<Vec<Listen>, Problem> {
        if text == "off" {
            return Ok(Vec::new());
        }
        let listens = list(text).map(listen).collect::<Result<Vec<_>, _>>()?;
        if listens.is_empty() { Err(Problem::NotAccepted) } else { Ok(listens) }
    }
    fn describe(value: &Vec<Listen>) -> Json {
        if value.is_empty() { strings(["off"]) } else { strings(value) }
    }
}

fn listen(text: &str) -> Result<Listen, Problem> {
    let mut words = text.split_whitespace();
    let addr = address(words.next().unwrap_or_default())?;
    let mut listen = Listen {
        addr,
        backlog: BACKLOG_DEFAULT,
        reuseport: false,
        deferred: false,
        so_keepalive: false,
        proxy_protocol: false,
        ipv6only: true,
    };
    for word in words {
        option(&mut listen, word)?;
    }
    Ok(listen)
}

fn address(word: &str) -> Result<ListenAddr, Problem> {
    if let Some(path) = word.strip_prefix("unix:") {
        return match path {
            "" => Err(Problem::because("unix: without a path")),
            path => Ok(ListenAddr::Unix(PathBuf::from(path))),
        };
    }
    match word.parse::<SocketAddr>() {
        Ok(addr) => Ok(ListenAddr::Tcp(addr)),
        Err(_) if word == "off" => Err(Problem::because("\"off\" must stand alone")),
        Err(_) => Err(Problem::Because(format!("\"{word}\" is no ip:port (names are not resolved here)"))),
    }
}

fn option(listen: &mut Listen, word: &str) -> Result<(), Problem> {
    let switch = |on: &str| match on {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Problem::Because(format!("\"{word}\" takes on or off"))),
    };
    match word.split_once('=') {
        None if word == "reuseport" => listen.reuseport = true,
        None if word == "deferred" => listen.deferred = true,
        None if word == "proxy_protocol" => listen.proxy_protocol = true,
        // Each address has a socket of its own anyway, which is all that nginx's word asks for.
        None if word == "bind" => {}
        None if matches!(word, "ssl" | "http2" | "udp") => {
            return Err(Problem::NotYet(format!("a listener with \"{word}\"")));
        }
        Some(("backlog", n)) => match n.parse::<u32>() {
            Ok(n @ 1..=65535) => listen.backlog = n,
            _ => return Err(Problem::Because(format!("\"{word}\" takes 1-65535"))),
        },
        Some(("so_keepalive", value)) => listen.so_keepalive = switch(value)?,
        Some(("ipv6only", value)) => listen.ipv6only = switch(value)?,
        _ => return Err(Problem::Because(format!("unknown option \"{word}\""))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let listens = Listeners::parse(text).expect(text);
        assert_eq!(listens.iter().map(Listen::to_string).collect::<Vec<_>>(), want, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, want: Problem) {
        assert_eq!(Listeners::parse(text), Err(want), "{text}");
    }

    #[test]
    fn off_is_no_listener() {
        check("off", &[]);
    }

    #[test]
    fn addresses_and_options_are_read_in_any_order() {
        check(
            "0.0.0.0:8000 reuseport backlog=512, [::1]:0 deferred ipv6only=off bind,unix:admin.sock so_keepalive=on",
            &[
                "0.0.0.0:8000 reuseport backlog=512",
                "[::1]:0 deferred ipv6only=off backlog=16384",
                "unix:admin.sock so_keepalive=on backlog=16384",
            ],
        );
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let text = "127.0.0.1:1 proxy_protocol reuseport deferred so_keepalive=on backlog=7, [::]:2 ipv6only=off";
        let once = Listeners::parse(text).unwrap();
        let shown = once.iter().map(Listen::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(Listeners::parse(&shown), Ok(once));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for word in ["ssl", "http2", "udp"] {
            refused(&format!("0.0.0.0:1 {word}"), Problem::NotYet(format!("a listener with \"{word}\"")));
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_word_in_question() {
        for (text, word) in [
            ("8000", "\"8000\" is no ip:port (names are not resolved here)"),
            ("localhost:8000", "\"localhost:8000\" is no ip:port (names are not resolved here)"),
            ("127.0.0.1:1, off", "\"off\" must stand alone"),
            ("unix:", "unix: without a path"),
            ("127.0.0.1:1 backlog=0", "\"backlog=0\" takes 1-65535"),
            ("127.0.0.1:1 so_keepalive=30m::10", "\"so_keepalive=30m::10\" takes on or off"),
            ("127.0.0.1:1 fast", "unknown option \"fast\""),
        ] {
            refused(text, Problem::because(word));
        }
        refused(" , ", Problem::NotAccepted);
    }

    #[test]
    fn only_loopback_and_unix_are_local() {
        for (addr, remote) in [
            ("127.0.0.1:1", false),
            ("127.9.9.9:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("unix:x", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            assert_eq!(address(addr).expect(addr).is_remote(), remote, "{addr}");
        }
    }
}
