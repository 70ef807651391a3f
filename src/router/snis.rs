//! HOT. Server names of routes, against the one of the TLS handshake (spec/router.md section 3).

/// One server name; `*` stands first or last and for any text, also none.
#[derive(Debug)]
pub(super) enum SniRule {
    Exact(Box<[u8]>),
    Suffix(Box<[u8]>),
    Prefix(Box<[u8]>),
}

impl SniRule {
    pub fn parse(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text);
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(suffix), _) => Self::Suffix(suffix.as_bytes().into()),
            (_, Some(prefix)) => Self::Prefix(prefix.as_bytes().into()),
            _ => Self::Exact(text.as_bytes().into()),
        }
    }

    /// What must be there of the request's name.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Exact(text) | Self::Suffix(text) | Self::Prefix(text) => text,
        }
    }

    pub fn matches(&self, sni: &[u8]) -> bool {
        match self {
            Self::Exact(name) => **name == *sni,
            Self::Suffix(suffix) => sni.ends_with(suffix),
            Self::Prefix(prefix) => sni.starts_with(prefix),
        }
    }
}
