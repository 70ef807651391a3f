//! One write in progress: sees its own changes, nobody else does.
//! Owns: which rows were touched, in which order. Always: what has expired is deleted before anything else.

use crate::control::store::tables::Conflict;
use crate::control::store::tables::Tables;
use crate::entity::Entity;
use crate::entity::RowChange;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

struct Touched {
    entity: &'static Entity,
    id: Uuid,
    /// `None`: deleted.
    row: Option<Map<String, Value>>,
}

/// A clone of the tables that is being changed.
pub struct Transaction {
    /// Rows as this write sees them.
    pub tables: Tables,
    /// Each row once, at its first change, as it stands after the last one.
    touched: Vec<Touched>,
    /// Positions in `touched`.
    seen: HashMap<(&'static str, Uuid), usize>,
}

impl Transaction {
    pub(super) fn begin(tables: Tables) -> Transaction {
        let mut transaction = Transaction { tables, touched: Vec::new(), seen: HashMap::new() };
        for (entity, id) in transaction.tables.expired() {
            let owned = transaction.tables.cascade(entity, id).unwrap_or_default();
            owned.into_iter().for_each(|(child, child_id)| transaction.remove(child, child_id));
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
        row: Map<String, Value>,
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
        row: Map<String, Value>,
        expires_at_ms: Option<u64>,
    ) -> Result<(), Conflict> {
        self.tables.admit(entity, id, &row)?;
        self.tables.put(entity, id, &row, expires_at_ms);
        self.touch(entity, id, Some(row));
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
            self.touch(entity, id, None);
        }
    }

    fn touch(&mut self, entity: &'static Entity, id: Uuid, row: Option<Map<String, Value>>) {
        let at = *self.seen.entry((entity.name, id)).or_insert(self.touched.len());
        match self.touched.get_mut(at) {
            Some(touched) => touched.row = row,
            None => self.touched.push(Touched { entity, id, row }),
        }
    }

    /// How many rows were touched so far.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    pub(super) fn finish(self) -> (Tables, Vec<RowChange>) {
        let Transaction { tables, touched, .. } = self;
        let change = |Touched { entity, id, row }: Touched| {
            // What was written with an expiry that has passed is as good as deleted.
            let entry = tables.get(entity, id);
            let expires_at_ms = entry.as_ref().and_then(|entry| entry.expires_at_ms);
            let row = row.filter(|_| entry.is_some());
            let text = entry.filter(|_| row.is_some()).map(|entry| entry.body.clone());
            RowChange { entity: entity.name, id, row, text, expires_at_ms }
        };
        let changes = touched.into_iter().map(change).collect();
        (tables, changes)
    }
}
