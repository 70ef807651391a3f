//! Where plugins send the records of finished requests: what their configurations say, for the control plane to act on.
//! Never: sends anything.

/// A destination. A new one is a variant and a sink of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Shipping {}
