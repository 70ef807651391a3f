//! HOT: no allocation after warm-up, no formatting.
//! Heads of requests and responses as values: what a line said, as spans into the read buffer.
//! Owns: methods, versions, the two heads. Never: judges what a head means (`framing`, `host`, `target` do).
//! Always: a head is filled by `parse` alone, and `clear` makes it ready for the next message and keeps its memory.

use crate::http::fields::{Fields, Span};

/// The version of a message; no other is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// A request method that some part of the gateway treats specially, or `Other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Lock,
    Other,
}

impl Method {
    /// The method of these bytes; case counts.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            b"LOCK" => Self::Lock,
            _ => Self::Other,
        }
    }

    /// Whether a request may be sent again after some of it reached an upstream (spec/proxying.md section 8, rule 4).
    pub fn may_repeat(self) -> bool {
        !matches!(self, Self::Post | Self::Patch | Self::Lock)
    }

    /// CONNECT and TRACE: always answered 405 (spec/proxying.md section 12).
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Connect | Self::Trace)
    }
}

/// How far an unfinished head was looked at, so that one that arrives in many pieces costs linear time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resume {
    /// Buffer length of the last full attempt, bytes; 0 before the first.
    pub(super) tried: u32,
    /// Bytes already searched for the end of the head.
    pub(super) scanned: u32,
}

/// The head of one request. Spans and `fields` are valid for the buffer that `parse_request` completed on.
#[derive(Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    /// The method as sent.
    pub method_span: Span,
    /// The request target as sent: any form, not yet checked (`target::split_target` does).
    pub target: Span,
    pub version: Version,
    pub fields: Fields,
    /// Bytes from the start of the buffer to the first byte after the head.
    pub len: usize,
    /// Of a head that is not complete: to be kept for the next attempt, in this head or in another that is clear.
    pub resume: Resume,
}

impl RequestHead {
    /// Ready for the next request; keeps memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}

/// The head of one response. Spans and `fields` are valid for the buffer that `parse_response` completed on.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub version: Version,
    /// 100..=999.
    pub status: u16,
    /// The reason phrase as sent; empty if there was none or it was not ASCII.
    pub reason: Span,
    pub fields: Fields,
    /// Bytes from the start of the buffer to the first byte after the head.
    pub len: usize,
    pub(super) resume: Resume,
}

impl ResponseHead {
    /// Ready for the next response; keeps memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}
