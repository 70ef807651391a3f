//! What consistent hashing hashes (spec/balancer.md section 9), as configured.
//! Never: looks at a request; the proxy does.

/// `hash_on` with its fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashOn {
    pub first: HashInput,
    /// Where the first has nothing.
    pub fallback: HashInput,
    /// Of the cookie that is set where either input is a cookie and the request has none.
    pub cookie_path: Box<str>,
}

/// One input, with the name it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashInput {
    None,
    Consumer,
    Ip,
    Header(Box<str>),
    Cookie(Box<str>),
    Path,
    QueryArg(Box<str>),
    UriCapture(Box<str>),
}
