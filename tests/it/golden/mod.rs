//! Replaying recorded exchanges of a real Kong: the records, the servers they talk to, their configurations, and what of
//! an exchange is compared. Never: judges; which differences are meant stands with the test.

pub mod bindings;
pub mod compare;
pub mod pattern;
pub mod record;
pub mod servers;
pub mod setup;
