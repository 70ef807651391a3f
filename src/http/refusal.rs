//! HOT: no allocation, no formatting.
//! A parsed request head, judged as a whole, and the one error of everything a client can write wrongly.
//! Owns: the order of the checks. Never: rules of its own.

use crate::http::chunked::BadChunk;
use crate::http::framing::{BadFraming, Framing, request_framing};
use crate::http::head::RequestHead;
use crate::http::host::{BadHost, Host, host_of};
use crate::http::parse::BadHead;
use crate::http::target::{BadTarget, Target, split_target};

/// What a request says, beyond the texts of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    pub target: Target<'a>,
    /// `None` only in HTTP/1.0.
    pub host: Option<Host<'a>>,
    pub framing: Framing,
}

/// Why a request is refused: answer `status` and close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    Head(BadHead),
    Target(BadTarget),
    Host(BadHost),
    Framing(BadFraming),
    Chunk(BadChunk),
}

/// Judges the head that `parse_request` completed on `src`: target, host and framing. The methods that are always
/// refused (`Method::is_refused`) and the path (`target::normalize_path`) are the caller's next questions.
///
/// # Errors
/// The first rule that is broken.
pub fn judge<'a>(head: &'a RequestHead, src: &'a [u8]) -> Result<Judged<'a>, BadRequest> {
    let target = split_target(head.target.of(src), head.method)?;
    let host = host_of(head, src, &target)?;
    let framing = request_framing(head, src)?;
    Ok(Judged { target, host, framing })
}

impl BadRequest {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Target(error) => error.status(),
            Self::Host(error) => error.status(),
            Self::Framing(error) => error.status(),
            Self::Chunk(error) => error.status(),
        }
    }

    /// The status whose default message the body carries; differs from `status` for heads above their limits.
    pub fn message_status(self) -> u16 {
        match self {
            Self::Head(error) => error.message_status(),
            other => other.status(),
        }
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Head(error) => error.reason(),
            Self::Target(error) => error.reason(),
            Self::Host(error) => error.reason(),
            Self::Framing(error) => error.reason(),
            Self::Chunk(error) => error.reason(),
        }
    }
}

impl From<BadHead> for BadRequest {
    fn from(error: BadHead) -> Self {
        Self::Head(error)
    }
}

impl From<BadTarget> for BadRequest {
    fn from(error: BadTarget) -> Self {
        Self::Target(error)
    }
}

impl From<BadHost> for BadRequest {
    fn from(error: BadHost) -> Self {
        Self::Host(error)
    }
}

impl From<BadFraming> for BadRequest {
    fn from(error: BadFraming) -> Self {
        Self::Framing(error)
    }
}

impl From<BadChunk> for BadRequest {
    fn from(error: BadChunk) -> Self {
        Self::Chunk(error)
    }
}
