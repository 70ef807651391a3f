//! Bytes <-> values of HTTP/1.1, both directions.
//!
//! Owns: the one strict parser of heads, chunks and trailers; how long a body is; what a request target means; what a
//! head looks like on the wire; the gateway's own answers.
//! Never: touches a socket, reads a clock, decides where a request goes, panics on a peer's bytes.
//! Always: what leaves is written from parsed values; what is doubtful is refused, with a status and a reason.
//!
//! Reading order: `known`, `fields`, `head`, `parse`, `framing`, `host`, `target`, `upstream_path`, `upstream_head`, `hop`, `chunked`,
//! `encode`, `status`, `media`, `cache_control`, `reply`.

pub mod cache_control;
pub mod chunked;
pub mod encode;
pub mod fields;
pub mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing_rewriting;
pub mod head;
pub mod hop;
pub mod host;
pub mod known;
pub mod media;
pub mod parse;
pub mod proxy_protocol;
pub mod reply;
pub mod status;
pub mod target;
pub mod upstream_head;
pub mod upstream_path;
