//! The named validators of single strings (spec/entities.md section 1).
//! Owns: the list of validators. Never: knows which entity uses one.

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
    /// Any other rule; the error is the text to show.
    Custom(fn(&str) -> Result<(), String>),
}
