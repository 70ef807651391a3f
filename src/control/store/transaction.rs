//! One write in progress: sees its own changes, nobody else does.
//! Owns: which rows were touched, in which order. Always: what has expired is deleted before anything else.

use crate::control::store::tables::Conflict;
use crate::control::store::tables::Tables;
use crate::entity::Entity;
use crate::entity::RowChange;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// A clone of the tables that is being changed.
pub struct Transaction {
    /// Rows as this write sees them.
    pub tables: Tables,
    /// Each row once, at its first change.
    touched: Vec<(&'static Entity, Uuid)>,
    seen: HashSet<(&'static str, Uuid)>,
}

impl Transaction {
    pub(super) fn begin(tables: Tables) -> Transaction {
        let mut transaction = Transaction { tables, touched: Vec::new(), seen: HashSet::new() };
        for (entity, id) in transaction.tables.expired() {
            transaction.remove(entity, id);
        }
        transaction
    }

    /// Stores a row under an id that must be free.
    ///
    /// # Errors
    /// The id is taken, another row has a unique value, or a reference dangles.
    pub fn insert(
        &mut self,
        entity: &'static Entity,
        id: Uuid,
        row: &Map<String, Value>,
        expires_at_ms: Option<u64>,
    ) -> Result<(), Conflict> {
        if self.tables.get(entity, id).is_some() {
            return Err(Conflict::PrimaryKey(id));
        }
        self.put(entity, id, row, expires_at_ms)
    }

    /// Stores a row, replacing what stands under its id.
    ///
    /// # Errors
    /// Another row has a unique value, or a reference dangles.
    pub fn put(
        &mut self,
        entity: &'static Entity,
        id: Uuid,
        row: &Map<String, Value>,
        expires_at_ms: Option<u64>,
    ) -> Result<(), Conflict> {
        self.tables.admit(entity, id, row)?;
        self.tables.put(entity, id, row, expires_at_ms);
        self.touch(entity, id);
        Ok(())
    }

    /// Deletes a row and what belongs to it; whether there was one.
    ///
    /// # Errors
    /// A row that refers to it forbids that.
    pub fn delete(&mut self, entity: &'static Entity, id: Uuid) -> Result<bool, Conflict> {
        if self.tables.get(entity, id).is_none() {
            return Ok(false);
        }
        for (child, child_id) in self.tables.cascade(entity, id)? {
            self.remove(child, child_id);
        }
        self.remove(entity, id);
        Ok(true)
    }

    pub(super) fn remove(&mut self, entity: &'static Entity, id: Uuid) {
        if self.tables.remove(entity, id) {
            self.touch(entity, id);
        }
    }

    pub(super) fn touch(&mut self, entity: &'static Entity, id: Uuid) {
        if self.seen.insert((entity.name, id)) {
            self.touched.push((entity, id));
        }
    }

    /// How many rows were touched so far.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    pub(super) fn finish(self) -> (Tables, Vec<RowChange>) {
        let Transaction { tables, touched, .. } = self;
        let change = |(entity, id): (&'static Entity, Uuid)| {
            let entry = tables.get(entity, id);
            RowChange {
                entity: entity.name,
                id,
                row: entry.as_ref().map(|entry| entry.row()),
                expires_at_ms: entry.as_ref().and_then(|entry| entry.expires_at_ms),
            }
        };
        let changes = touched.into_iter().map(change).collect();
        (tables, changes)
    }
}
