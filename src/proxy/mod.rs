//! The data plane: the life of a connection, on one pinned monoio runtime per core.
//! Owns: sockets, buffers, deadlines, upstream pools, the order of a request's steps ([`exchange`]). Never: resolves names,
//! writes files, waits for the control plane, is called by it.
//! Always: a core shares nothing that is locked; what it tells goes out as values through its outbox.
//!
//! In the order of a request's life: [`listener`], [`worker`], [`steering`], [`connection`] ([`parked`]), [`exchange`], [`phases`] ([`asks`]),
//! [`body`] ([`spool`]), [`forward`] ([`dial`], [`pool`], [`request_head`], [`upload`]), [`respond`] ([`relay`], [`lane`], [`tunnel`]),
//! [`reply`], [`log`], [`timeline`]; below them
//! [`io`], [`buffers`], [`deadline`], [`fault`].

pub mod asks;
pub mod body;
pub mod buffers;
pub mod connection;
pub mod core;
pub mod deadline;
pub mod dial;
pub mod exchange;
pub mod fault;
pub mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod io;
pub mod lane;
pub mod listener;
pub mod log;
pub mod parked;
pub mod phases;
pub mod pool;
pub mod relay;
pub mod reply;
pub mod request_head;
pub mod respond;
pub mod spool;
pub mod steering;
pub mod timeline;
pub mod tunnel;
pub mod upload;
pub mod worker;
