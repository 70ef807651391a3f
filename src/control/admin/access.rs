//! Who may use the Admin API: the token, and the origins of browsers.
//! Always: the token is compared in time that says nothing about it; a page from elsewhere cannot change anything, nor can
//! one whose name was made to resolve to this machine read anything.

use crate::control::admin::problem::Problem;
use crate::stdx::secret::equal;
use hyper::HeaderMap;
use hyper::Method;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use hyper::header::HOST;
use hyper::header::ORIGIN;
use std::net::IpAddr;

#[derive(Debug)]
pub struct Access {
    gui_origins: Vec<String>,
    token: Option<String>,
}

impl Access {
    pub fn new(gui_origins: Vec<String>, token: Option<String>) -> Access {
        Access { gui_origins, token }
    }

    /// `at_loopback`: the request came to a loopback address, which a browser of this machine can reach.
    ///
    /// # Errors
    /// 401 without the token; 403 for a change that a page of a foreign origin asks for, and for any request to loopback
    /// under a name that is not this machine's.
    pub fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        asks_token: bool,
        at_loopback: bool,
    ) -> Result<(), Problem> {
        // With a token there is no need: the page does not know it.
        if at_loopback && self.token.is_none() {
            self.check_host(headers)?;
        }
        // A browser asks permission without credentials.
        if *method == Method::OPTIONS {
            return Ok(());
        }
        if asks_token
            && let Some(token) = &self.token
            && !given_token(headers).is_some_and(|given| equal(given.as_bytes(), token.as_bytes()))
        {
            return Err(Problem::Plain(
                StatusCode::UNAUTHORIZED,
                "Unauthorized: send the admin token as Kong-Admin-Token or as Authorization: Bearer".to_string(),
            ));
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        match headers.get(ORIGIN) {
            Some(origin) if !self.gui_origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) => {
                let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                Err(Problem::Plain(
                    StatusCode::FORBIDDEN,
                    format!("changes from the origin '{origin}' are refused: it is not listed in admin_gui_url"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// A page at `http://evil.test:8001` may let that name resolve to 127.0.0.1 and would then be of the same origin as the
    /// Admin API: its requests are told by their `Host`.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        for host in headers.get_all(HOST) {
            let host = String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase();
            let of_gui =
                |origin: &String| origin.split_once("://").is_some_and(|(_, rest)| name_of(rest) == name_of(&host));
            if !is_own(name_of(&host)) && !self.gui_origins.iter().any(of_gui) {
                let text = format!(
                    "requests for the host '{host}' are refused on a loopback address: use localhost or an IP address, or \
                     list it in admin_gui_url"
                );
                return Err(Problem::Plain(StatusCode::FORBIDDEN, text));
            }
        }
        Ok(())
    }

    /// The value of `Access-Control-Allow-Origin`, if a browser is to be told one. Unlike Kong, no page may read the
    /// answers just because no origin was configured: keys and passwords are among them.
    pub fn allow_origin(&self, headers: &HeaderMap) -> Option<String> {
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        match (self.gui_origins.first(), origin) {
            (None, None) => Some("*".to_string()),
            (None, Some(_)) => None,
            (Some(_), Some(origin)) if self.gui_origins.iter().any(|known| known == origin) => Some(origin.to_string()),
            (Some(first), _) => Some(first.clone()),
        }
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// An address, or a name that never resolves elsewhere than to loopback (RFC 6761 section 6.3).
fn is_own(name: &str) -> bool {
    name.is_empty() || name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

fn given_token(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get("kong-admin-token").and_then(|value| value.to_str().ok());
    let bearer = || headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    own.or_else(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn status(access: &Access, method: Method, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        access.check(&method, &map, true, true).err().map_or(200, |problem| problem.into_reply().status.as_u16())
    }

    #[test]
    fn the_token_opens_in_either_header() {
        let access = Access::new(Vec::new(), Some("secret".into()));
        assert_eq!(status(&access, Method::GET, &[]), 401);
        assert_eq!(status(&access, Method::GET, &[("kong-admin-token", "secreT")]), 401);
        assert_eq!(status(&access, Method::GET, &[("kong-admin-token", "secret1")]), 401);
        assert_eq!(status(&access, Method::GET, &[("kong-admin-token", "secret")]), 200);
        assert_eq!(status(&access, Method::GET, &[("authorization", "Bearer secret")]), 200);
        assert_eq!(status(&access, Method::OPTIONS, &[]), 200);
        assert!(access.check(&Method::GET, &HeaderMap::new(), false, false).is_ok(), "a unix socket asks for none");
    }

    #[test]
    fn foreign_pages_may_not_change_anything() {
        let access = Access::new(vec!["http://localhost:8002".into()], None);
        assert_eq!(status(&access, Method::POST, &[]), 200);
        assert_eq!(status(&access, Method::GET, &[("origin", "http://evil.test")]), 200);
        assert_eq!(status(&access, Method::POST, &[("origin", "http://evil.test")]), 403);
        assert_eq!(status(&access, Method::DELETE, &[("origin", "null")]), 403);
        assert_eq!(status(&access, Method::POST, &[("origin", "http://localhost:8002")]), 200);
    }

    #[test]
    fn on_loopback_only_this_machines_own_names_are_answered() {
        let access = Access::new(vec!["http://manager.test:8002".into()], None);
        let own = [
            "localhost:8001",
            "LOCALHOST",
            "a.localhost",
            "127.0.0.1:8001",
            "[::1]:8001",
            "10.0.0.1",
            "",
            "manager.test",
        ];
        for host in own {
            assert_eq!(status(&access, Method::GET, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.test:8001", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test"] {
            assert_eq!(status(&access, Method::GET, &[("host", host)]), 403, "{host}");
        }
        let evil = HeaderMap::from_iter([(HOST, HeaderValue::from_static("evil.test"))]);
        assert!(access.check(&Method::GET, &evil, true, false).is_ok(), "other machines use the names they know");
    }

    #[test]
    fn the_allowed_origin_is_the_asker_when_it_may_be() {
        let origin = |access: &Access, origin: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(ORIGIN, HeaderValue::from_static(origin));
            access.allow_origin(&map)
        };
        let open = Access::new(Vec::new(), None);
        assert_eq!(open.allow_origin(&HeaderMap::new()).as_deref(), Some("*"));
        assert_eq!(origin(&open, "http://a"), None, "a page from anywhere must not read keys");
        let listed = Access::new(vec!["http://a".into(), "http://b".into()], None);
        assert_eq!(origin(&listed, "http://b").as_deref(), Some("http://b"));
        assert_eq!(origin(&listed, "http://c").as_deref(), Some("http://a"));
    }
}
