//! Who may use the Admin API: the token, and the origins of browsers.
//! Always: the token is compared in time that says nothing about it; a page from elsewhere cannot change anything.

use crate::control::admin::problem::Problem;
use crate::stdx::secret::equal;
use hyper::HeaderMap;
use hyper::Method;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use hyper::header::ORIGIN;

#[derive(Debug)]
pub struct Access {
    gui_origins: Vec<String>,
    token: Option<String>,
}

impl Access {
    pub fn new(gui_origins: Vec<String>, token: Option<String>) -> Access {
        Access { gui_origins, token }
    }

    /// # Errors
    /// 401 without the token; 403 for a change that a page of a foreign origin asks for.
    pub fn check(&self, method: &Method, headers: &HeaderMap, asks_token: bool) -> Result<(), Problem> {
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
        access.check(&method, &map, true).err().map_or(200, |problem| problem.into_reply().status.as_u16())
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
        assert!(access.check(&Method::GET, &HeaderMap::new(), false).is_ok(), "a unix socket asks for none");
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
