//! ringway: an API gateway and L7 load balancer with Kong's model and Admin API, on io_uring, one pinned worker
//! thread per CPU.
//!
//! # The map, in reading order
//!
//! | layer | folder | what it owns | may import |
//! |---|---|---|---|
//! | 0 | [`limits`], [`stdx`] | every bound of the program; what std lacks | nothing of ours |
//! | 1 | [`http`] | bytes <-> values of HTTP/1.1, no sockets | 0 |
//! | 1 | [`entity`] | the nouns of the Admin API and the schema engine | 0 |
//! | 1 | [`metrics`] | what is counted, and the record of one finished request | 0 |
//! | 1 | [`config`] | kong.conf, environment and flags -> `Settings` | 0 |
//! | 2 | [`router`] | which route? | 0-1 |
//! | 2 | [`plugins`] | what else happens to it? | 0-1 |
//! | 2 | [`balancer`] | which target? | 0-1 |
//! | 3 | [`state`] | the only thing that crosses between the planes: deltas, mailboxes, one core's state | 0-2 |
//! | 4 | [`proxy`] | the data plane: the life of a connection, on monoio | 0-3, never control |
//! | 4 | [`control`] | the control plane: Admin API, store, names, logs, on tokio | 0-3, never proxy |
//! | 5 | `main` | flags and commands; starts both planes | all |
//!
//! # What always holds
//!
//! * Imports go down this table only; `tests/tidy.rs` reads the sources and fails on any other.
//! * Only `proxy` names monoio, only `control` names tokio, sqlx and hyper, only `http` names httparse.
//! * Layers 0-3 never block and do no I/O; only `stdx::clock` reads time. They take values and give values.
//! * A write is answered when it is durable and every core has applied it.
//! * A peer's bytes never panic, and are never passed on unparsed.

pub mod balancer;
pub mod config;
pub mod control;
pub mod entity;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod plugins;
pub mod proxy;
pub mod router;
pub mod state;
pub mod stdx;
