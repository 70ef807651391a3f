//! What is counted, and the record of one finished request.
//! Owns: per-core counters (read by the control plane without stopping a core) and the encoding of log records.
//! Never: formats text on a data core, locks.

pub mod counters;
pub mod full_record;
pub mod record;
pub mod series;
