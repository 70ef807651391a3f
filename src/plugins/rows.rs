//! Rows that plugins write while they serve requests: sessions, tokens.
//! Never: writes one; the control plane does, all of a question in one transaction or nothing.

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowWrite {
    /// A new row of these fields; the rest has its defaults. It goes after `ttl_s` seconds; 0: it stays.
    Insert { entity: &'static str, fields: Map<String, Value>, ttl_s: u64 },
    /// No row any more. A transaction that takes what is gone already does nothing ([`super::ask::Answer::Gone`]).
    Take { entity: &'static str, id: Uuid },
    /// No row any more, whether or not there was one.
    Delete { entity: &'static str, id: Uuid },
    /// The row, if it is there, goes after `ttl_s` seconds.
    Expire { entity: &'static str, id: Uuid, ttl_s: u64 },
}

impl RowWrite {
    /// A new row of texts, numbers and references; null where there is nothing.
    pub fn insert<const N: usize>(entity: &'static str, fields: [(&str, Value); N], ttl_s: u64) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self::Insert { entity, fields, ttl_s }
    }
}
