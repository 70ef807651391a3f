//! services: where a route sends its requests (spec/entities.md section 2).

use crate::entity::Entity;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Meaning;
use crate::entity::schema::Pattern;
use crate::entity::schema::Record;
use crate::entity::schema::Shorthand;
use crate::entity::validators::Check;
use crate::strs;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

pub static SERVICES: Entity = Entity::new("services", "name", &RECORD);

/// Rules of *path* that Kong shows in schema documents.
pub const NO_EMPTY_SEGMENTS: &[Pattern] = &[Pattern { lua: "//", err: "must not have empty segments" }];
pub const PROTOCOLS: &[Literal] = strs!["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
const TIMEOUT_MS_MAX: i64 = 2_147_483_646;
const CA_ID: Field = Field::string("").uuid();

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::updated_at(),
    Field::string("name").unique().check(Check::Utf8Name),
    Field::integer("retries").default_int(5).between(0, 32767),
    Field::string("protocol").required().default_str("http").one_of(PROTOCOLS),
    Field::string("host").required().check(Check::Host),
    Field::integer("port").required().default_int(80).between(0, 65535),
    path("path"),
    Field::integer("connect_timeout").default_int(60000).between(1, TIMEOUT_MS_MAX),
    Field::integer("write_timeout").default_int(60000).between(1, TIMEOUT_MS_MAX),
    Field::integer("read_timeout").default_int(60000).between(1, TIMEOUT_MS_MAX),
    Field::tags(),
    Field::foreign("client_certificate", "certificates"),
    Field::boolean("tls_verify"),
    Field::integer("tls_verify_depth").default(Literal::Null).between(0, 64),
    Field::array("ca_certificates", &CA_ID),
    Field::boolean("enabled").required().default_bool(true),
])
.checks(&[
    EntityCheck::conditional(
        "protocol",
        Match::OneOf(strs!["tcp", "tls", "udp", "grpc", "grpcs"]),
        "path",
        Match::Eq(Literal::Null),
    ),
    only_with_tls("client_certificate"),
    only_with_tls("tls_verify"),
    only_with_tls("tls_verify_depth"),
    only_with_tls("ca_certificates"),
])
.shorthands(&[Shorthand { field: Field::string("url"), meaning: Meaning::Expands(split_url) }]);

/// A path sent upstream: `/`-rooted, no empty segment, RFC 3986 characters.
pub const fn path(name: &'static str) -> Field {
    Field::string(name).starts_with("/").match_none(NO_EMPTY_SEGMENTS).check(Check::Path)
}

const fn only_with_tls(field: &'static str) -> EntityCheck {
    EntityCheck::conditional("protocol", Match::NotOneOf(strs!["https", "tls"]), field, Match::Eq(Literal::Null))
}

/// `url` into protocol, host, port and path; what cannot be split is left to the rules of these four.
fn split_url(url: &Value) -> Map<String, Value> {
    // No URL at all is a bad protocol and a bad path, as if it had been spelled out.
    let Some(url) = url.as_str() else {
        return four("null".into(), Value::Null, 80.into(), "null".into());
    };
    let scheme = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = match scheme {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, url),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        let protocol = scheme.unwrap_or_else(|| "http".to_string());
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        return four(protocol.into(), Value::Null, 80.into(), path.into());
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => {
            let path = rest[at..].split(['?', '#']).next().unwrap_or_default();
            (&rest[..at], Value::from(path))
        }
        None => (rest, Value::Null),
    };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = split_port(authority);
    let protocol = match (&scheme, port) {
        (Some(scheme), _) => scheme.as_str(),
        (None, Some(443)) => "https",
        (None, _) => "http",
    };
    let port = port.unwrap_or(if protocol == "https" { 443 } else { 80 });
    let host = if host.is_empty() { Value::Null } else { host.into() };
    four(protocol.into(), host, port.into(), path)
}

fn four(protocol: Value, host: Value, port: Value, path: Value) -> Map<String, Value> {
    let fields = json!({ "protocol": protocol, "host": host, "port": port, "path": path });
    fields.as_object().cloned().unwrap_or_default()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The host without brackets, and the port when there is a numeric one.
fn split_port(authority: &str) -> (&str, Option<u64>) {
    let port = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some((host, after)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, after.strip_prefix(':').and_then(port));
    }
    match authority.rsplit_once(':') {
        Some((host, digits)) => match port(digits) {
            Some(number) => (host, Some(number)),
            None => (authority, None),
        },
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_as_kong_splits_them() {
        let check = |url: Value, protocol: Value, host: Value, port: u64, path: Value| {
            assert_eq!(split_url(&url), four(protocol, host, port.into(), path), "{url}");
        };
        let none = Value::Null;
        check("http://a.com".into(), "http".into(), "a.com".into(), 80, none.clone());
        check("https://a.com".into(), "https".into(), "a.com".into(), 443, none.clone());
        check("https://a.com:9000/x/y?q=1#f".into(), "https".into(), "a.com".into(), 9000, "/x/y".into());
        check("http://u:p@a.com/".into(), "http".into(), "a.com".into(), 80, "/".into());
        check("http://[::1]:81".into(), "http".into(), "::1".into(), 81, none.clone());
        check("grpcs://a.com".into(), "grpcs".into(), "a.com".into(), 80, none.clone());
        check("//a.com:443".into(), "https".into(), "a.com".into(), 443, none.clone());
        check("//a.com".into(), "http".into(), "a.com".into(), 80, none.clone());
        check("http://a.com?x=1".into(), "http".into(), "a.com?x=1".into(), 80, none.clone());
        check("a.com".into(), "http".into(), none.clone(), 80, "a.com".into());
        check("a.com:80".into(), "a.com".into(), none.clone(), 80, "80".into());
        check(none.clone(), "null".into(), none.clone(), 80, "null".into());
    }
}
