//! HOT. Hosts of routes and of requests (spec/router.md section 3, "Host ports").
//! Always: compared byte for byte, case not folded.

/// One entry of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPattern {
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

impl HostPattern {
    /// The error is one line for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, port) = split_port(text.as_bytes());
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
        Ok(Self { name, port })
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.name, HostName::Exact(_))
    }
}

/// Cuts `name:port` at its first colon. What follows is a port only when it is all digits; else there is none and the
/// text stays whole, as does `[::1]:80`. A port too large for its type is the largest.
pub(super) fn split_port(host: &[u8]) -> (&[u8], Option<u32>) {
    let Some(colon) = host.iter().position(|byte| *byte == b':') else {
        return (host, None);
    };
    let (name, digits) = (&host[..colon], &host[colon + 1..]);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return (host, None);
    }
    let add = |port: u32, digit: &u8| port.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    (name, Some(digits.iter().fold(0, add)))
}
