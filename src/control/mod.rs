//! (being written)

pub mod admin;
pub mod store;
pub mod validate;
