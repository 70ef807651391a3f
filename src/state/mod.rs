//! The only thing that crosses between the planes: compiled configuration one way, acknowledgements and records the other.
//! Owns: the compiled forms ([`spec`]), deltas ([`delta`]), the compiler from stored rows ([`compile`]), the peers that come
//! of them ([`book`], [`peers`]), one core's state and how a delta changes it ([`core`]), and the mailboxes ([`mailbox`]).
//! Never: does I/O, blocks, is shared by two cores except through `Arc` of what never changes.
//! Always: a core that applied the deltas 1..n is in the same state as one that was built from the configuration n.

pub mod book;
pub mod compile;
mod compile_checks;
pub mod core;
pub mod delta;
pub mod explain;
pub mod hashing;
pub mod mailbox;
pub mod peers;
pub mod request;
mod scratch;
pub mod spec;

mod compile_people;

#[cfg(test)]
mod compile_replay;
#[cfg(test)]
mod simulation;
