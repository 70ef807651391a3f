//! The expressions language of routes (spec/router.md section 14): a text in, a [`program::Program`] out, or the reason
//! why not in the words of Kong's compiler.
//! Never: meets a request before everything about a text is known; no text of an operator survives into matching.
//!
//! `grammar` reads the text through `peg`, `check` types it, `guards` finds what of host and path it demands, so that the
//! index can file it, and `evaluate` asks it of a request.

pub mod check;
pub(super) mod evaluate;
mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grammar;
mod guards;
mod peg;
pub(super) mod program;
mod report;
mod syntax;
#[cfg(test)]
mod tests;
