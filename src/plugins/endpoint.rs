//! Where a plugin sends over HTTP: one URL taken apart.

use crate::entity::address::Address;

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: Box<str>,
    pub port: u16,
    /// At least `/`; without the query.
    pub path: Box<str>,
    /// Between `?` and `#`.
    pub query: Option<Box<str>>,
    /// In front of the `@`.
    pub userinfo: Option<Box<str>>,
}

impl Endpoint {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in Kong's words where Kong has any.
    pub fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err("missing host in url".to_owned()) };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("only http and https are supported in url".to_owned()),
        };
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("invalid character in url".to_owned());
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(authority_end);
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo.into()), address),
            None => (None, authority),
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.into())),
            None => (target, None),
        };
        let (host, port) = split_port(address);
        if host.is_empty() {
            return Err("missing host in url".to_owned());
        }
        if Address::parse(address).is_err() {
            return Err("invalid host in url".to_owned());
        }
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(text) => text.parse().ok().filter(|port| *port > 0).ok_or("invalid port in url")?,
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { tls, host: host.trim_matches(['[', ']']).into(), port, path: path.into(), query, userinfo })
    }

    /// As [`Self::parse`], for schemas.
    pub(super) fn check(url: &str) -> Result<(), String> {
        Self::parse(url).map(drop)
    }

    /// What `Host` says: the port only where it is not that of the scheme.
    pub fn host_field(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Path and query, as a request names them.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_string(),
        }
    }
}

/// The colon in front of a port is the last one, and not inside of brackets.
fn split_port(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let part = |url: &str| Endpoint::parse(url).map(|e| (e.tls, e.host_field(), e.target(), e.userinfo));
        assert_eq!(part("http://h.test"), Ok((false, "h.test".into(), "/".into(), None)));
        assert_eq!(part("https://u:p@h:443/a?b#c"), Ok((true, "h".into(), "/a?b".into(), Some("u:p".into()))));
        assert_eq!(part("HTTP://[::1]:9/x"), Ok((false, "[::1]:9".into(), "/x".into(), None)));
        assert_eq!(part("http://h?q"), Ok((false, "h".into(), "/?q".into(), None)));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for (url, why) in [
            ("nonsense", "missing host in url"),
            ("http://", "missing host in url"),
            ("http://:80/", "missing host in url"),
            ("ftp://h/", "only http and https are supported in url"),
            ("http://h:99999/", "invalid host in url"),
            ("http://h/a b", "invalid character in url"),
            ("http://a\r\nb/", "invalid character in url"),
        ] {
            assert_eq!(Endpoint::parse(url), Err(why.to_owned()), "{url:?}");
        }
    }
}
