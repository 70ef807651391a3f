//! The named validators of single strings (spec/entities.md section 1).
//! Owns: the list of validators and their error texts. Never: knows which entity uses one.

use crate::entity::address;
use crate::entity::address::Address;
use crate::entity::address::BadAddress;
use crate::entity::address::Host;
use crate::entity::path;
use crate::entity::pem;

/// A named rule on one string; its texts are spec/entities.md section 1.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    Utf8Name,
    Tag,
    HeaderName,
    CookieName,
    /// Name or address without port.
    Host,
    /// Name or address with an optional port.
    HostWithOptionalPort,
    /// As `HostWithOptionalPort`, with `*` as its leftmost or rightmost label.
    RouteHost,
    /// Name without port, at most one `*` as first or last character.
    WildcardHost,
    Sni,
    Ip,
    IpOrCidr,
    UpstreamName,
    Target,
    Path,
    RouterPath,
    /// A PEM text that begins with a certificate.
    Certificate,
    /// A PEM text with a private key that is not encrypted.
    PrivateKey,
    /// Any other rule; the error is the text to show.
    Custom(fn(&str) -> Result<(), String>),
}

impl Check {
    /// Tests one string; the error is the text to show.
    pub fn test(self, text: &str) -> Result<(), String> {
        match self {
            Check::Utf8Name => utf8_name(text),
            Check::Tag => tag(text),
            Check::HeaderName => header_name(text),
            Check::CookieName => cookie_name(text),
            Check::Host => host(text),
            Check::HostWithOptionalPort | Check::RouteHost => host_with_optional_port(text),
            Check::WildcardHost => wildcard_host(text),
            Check::Sni => sni(text),
            Check::Ip => or(address::is_ip(text), || format!("not an ip address: {text}")),
            Check::IpOrCidr => or(address::is_ip_or_cidr(text), || format!("invalid ip or cidr range: '{text}'")),
            Check::UpstreamName => upstream_name(text),
            Check::Target => or(Address::parse(text).is_ok(), || {
                format!("Invalid target ('{text}'); not a valid hostname or ip address")
            }),
            Check::Path => path::check_path(text),
            Check::RouterPath => path::check_router_path(text),
            Check::Certificate => {
                pem::Certificate::read(text).map(drop).map_err(|reason| format!("invalid certificate: {reason}"))
            }
            Check::PrivateKey => {
                pem::PrivateKey::read(text).map(drop).map_err(|reason| format!("invalid key: {reason}"))
            }
            Check::Custom(run) => run(text),
        }
    }
}

fn or(good: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(text()) }
}

fn utf8_name(text: &str) -> Result<(), String> {
    let good = text.bytes().all(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric() || b".-_~".contains(&byte));
    or(good && !text.is_empty(), || {
        format!("invalid value '{text}': the only accepted ascii characters are alphanumerics or ., -, _, and ~")
    })
}

/// A tag: printable ASCII without `,` and `/`, or any other UTF-8.
pub fn tag(text: &str) -> Result<(), String> {
    let good = |byte: u8| !byte.is_ascii() || (matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'/');
    or(text.bytes().all(good) && !text.is_empty(), || {
        format!("invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences")
    })
}

fn header_name(text: &str) -> Result<(), String> {
    let good = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    or(good && !text.is_empty(), || {
        format!("bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'")
    })
}

fn cookie_name(text: &str) -> Result<(), String> {
    let good = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/?={}[]".contains(&byte));
    or(good && !text.is_empty(), || {
        "contains one or more invalid characters. ASCII control characters (0-31;127), space, tab and the characters \
         ()<>@,;:\\\"/?={}[] are not allowed."
            .to_string()
    })
}

fn host(text: &str) -> Result<(), String> {
    match Address::parse(text) {
        Ok(Address { port: None, .. }) => Ok(()),
        Ok(_) => Err("must not have a port".to_string()),
        Err(_) => Err(format!("invalid value: {text}")),
    }
}

/// The declaration has seen to it that `*` is at most one whole label.
fn host_with_optional_port(text: &str) -> Result<(), String> {
    let text = text.replace('*', "abc");
    match Address::parse(&text) {
        Ok(_) => Ok(()),
        Err(BadAddress::Name) => Err(format!("invalid hostname: {text}")),
        Err(BadAddress::V4) => Err(format!("invalid ipv4 address: {text}")),
        Err(BadAddress::V6) => Err(format!("invalid ipv6 address: {text}")),
        Err(BadAddress::Port) => Err("invalid port number".to_string()),
    }
}

fn wildcard_host(text: &str) -> Result<(), String> {
    match text.matches('*').count() {
        0 => return sni(text),
        1 if text.starts_with('*') || text.ends_with('*') => {}
        1 => return Err("wildcard must be leftmost or rightmost character".to_string()),
        _ => return Err("only one wildcard must be specified".to_string()),
    }
    sni(&text.replace('*', "wildcard"))
}

fn sni(text: &str) -> Result<(), String> {
    match Address::parse(text) {
        Ok(Address { host: Host::V4(_) | Host::V6(_), .. }) => Err("must not be an IP".to_string()),
        Ok(Address { port: Some(_), .. }) => Err("must not have a port".to_string()),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("invalid value: {text}")),
    }
}

fn upstream_name(text: &str) -> Result<(), String> {
    let why = match Address::parse(text) {
        Ok(Address { host: Host::V4(_) | Host::V6(_), .. }) => "no ip addresses allowed",
        Ok(Address { port: Some(_), .. }) => "no port allowed",
        Ok(_) => return Ok(()),
        Err(_) => "must be a valid hostname",
    };
    Err(format!("Invalid name ('{text}'); {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: Check, text: &str, want: &str) {
        assert_eq!(rule.test(text).err().unwrap_or_default(), want, "{rule:?} {text:?}");
    }

    #[test]
    fn hosts() {
        check(Check::Host, "h.test", "");
        check(Check::Host, "::1", "");
        check(Check::Host, "h.test:80", "must not have a port");
        check(Check::Host, "a b", "invalid value: a b");
        check(Check::RouteHost, "*.com:80", "");
        check(Check::RouteHost, "a b.*", "invalid hostname: a b.abc");
        check(Check::RouteHost, "a.com:x", "invalid port number");
        check(Check::HostWithOptionalPort, "1.2.3", "invalid ipv4 address: 1.2.3");
        check(Check::HostWithOptionalPort, "1::2::3", "invalid ipv6 address: 1::2::3");
    }

    #[test]
    fn server_names() {
        for good in ["*.com", "a.*", "*a.com", "*", "a.com"] {
            check(Check::WildcardHost, good, "");
        }
        check(Check::WildcardHost, "*.a.*", "only one wildcard must be specified");
        check(Check::WildcardHost, "a.*.b", "wildcard must be leftmost or rightmost character");
        check(Check::WildcardHost, "1.2.3.4", "must not be an IP");
        check(Check::Sni, "a.com:1", "must not have a port");
        check(Check::Sni, "a b", "invalid value: a b");
    }

    #[test]
    fn names_and_tags() {
        check(Check::Utf8Name, "café-1_.~", "");
        check(
            Check::Utf8Name,
            "a/b",
            "invalid value 'a/b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        );
        check(Check::Tag, "a b", "");
        check(
            Check::Tag,
            "a,b",
            "invalid tag 'a,b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences",
        );
        check(Check::UpstreamName, "1.2.3.4", "Invalid name ('1.2.3.4'); no ip addresses allowed");
        check(Check::UpstreamName, "a:80", "Invalid name ('a:80'); no port allowed");
        check(Check::UpstreamName, "a b", "Invalid name ('a b'); must be a valid hostname");
        check(Check::HeaderName, "x y", "bad header name 'x y', allowed characters are A-Z, a-z, 0-9, '_', and '-'");
    }
}
