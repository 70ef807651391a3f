//! Changes to the tables: rows in and out, with every index entry that finds them.
//! Owns: what makes a row admissible (keys free, references alive) and what goes with a deleted row.
//! Always: `put` and `remove` undo each other exactly.

use crate::control::store::tables::Conflict;
use crate::control::store::tables::Entry;
use crate::control::store::tables::KeyIdx;
use crate::control::store::tables::Tables;
use crate::control::store::tables::Tagged;
use crate::control::store::tables::kind_idx;
use crate::control::store::tables::reference_id;
use crate::entity::ENTITIES;
use crate::entity::Entity;
use crate::entity::checks::at_path;
use crate::entity::schema::OnDelete;
use serde_json::Map;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

impl Tables {
    /// Whether the row may stand under `id`: keys free, references alive.
    pub fn admit(&self, entity: &'static Entity, id: Uuid, row: &Map<String, Value>) -> Result<(), Conflict> {
        for (key, names, value) in unique_keys(entity, row) {
            if self.holder(entity, key, &value).is_some_and(|holder| holder != id) {
                let fields = names.iter().map(|name| (name.to_string(), row.get(*name).cloned().unwrap_or_default()));
                return Err(Conflict::Unique(fields.collect()));
            }
        }
        for reference in entity.references() {
            let Some(parent) = row.get(reference.field).filter(|value| !value.is_null()) else {
                continue;
            };
            let target = crate::entity::find(reference.entity).zip(reference_id(parent));
            if target.and_then(|(entity, id)| self.get(entity, id)).is_none() {
                let id = parent.get("id").cloned().unwrap_or_default();
                return Err(Conflict::Dangling { field: reference.field, entity: reference.entity, id });
            }
        }
        Ok(())
    }

    /// Writes a row and its index entries; what stood under the id is replaced. Admit it first.
    pub fn put(&mut self, entity: &'static Entity, id: Uuid, row: &Map<String, Value>, expires_at_ms: Option<u64>) {
        self.remove(entity, id);
        let kind = kind_idx(entity);
        let table = &mut self.kinds[usize::from(kind)];
        for (key, _, value) in unique_keys(entity, row) {
            table.unique.insert_mut((key, value.into_boxed_str()), id);
        }
        for (index, reference) in entity.references().enumerate() {
            if let Some(parent) = row.get(reference.field).and_then(reference_id) {
                table.links.insert_mut((index as u8, parent, id), ());
            }
        }
        for tag in tags_of(row) {
            table.tags.insert_mut((tag.clone(), id), ());
            self.tags.insert_mut(Tagged { id, entity: entity.name, tag }, ());
        }
        if let Some(at_ms) = expires_at_ms {
            self.expiries.insert_mut((at_ms, kind, id), ());
        }
        let body = serde_json::to_string(row).expect("a map of JSON values is JSON").into();
        table.rows.insert_mut(id, Arc::new(Entry { body, expires_at_ms }));
    }

    /// Removes a row and its index entries; whether there was one.
    pub fn remove(&mut self, entity: &'static Entity, id: Uuid) -> bool {
        let kind = kind_idx(entity);
        let table = &mut self.kinds[usize::from(kind)];
        let Some(entry) = table.rows.get(&id).cloned() else {
            return false;
        };
        let row = entry.row();
        for (key, _, value) in unique_keys(entity, &row) {
            table.unique.remove_mut(&(key, value.into_boxed_str()));
        }
        for (index, reference) in entity.references().enumerate() {
            if let Some(parent) = row.get(reference.field).and_then(reference_id) {
                table.links.remove_mut(&(index as u8, parent, id));
            }
        }
        for tag in tags_of(&row) {
            table.tags.remove_mut(&(tag.clone(), id));
            self.tags.remove_mut(&Tagged { id, entity: entity.name, tag });
        }
        if let Some(at_ms) = entry.expires_at_ms {
            self.expiries.remove_mut(&(at_ms, kind, id));
        }
        table.rows.remove_mut(&id)
    }

    /// The rows that go with a row, the deepest first; or who forbids it.
    pub fn cascade(&self, parent: &'static Entity, id: Uuid) -> Result<Vec<(&'static Entity, Uuid)>, Conflict> {
        self.unlisted(parent, id)?;
        let mut gone = Vec::new();
        for child in ENTITIES.iter().copied() {
            for reference in child.references().filter(|reference| reference.entity == parent.name) {
                for child_id in self.child_ids(child, reference.field, id, None) {
                    if reference.on_delete == OnDelete::Restrict {
                        return Err(Conflict::Referenced { child: child.name, parent: parent.name });
                    }
                    gone.extend(self.cascade(child, child_id)?);
                    gone.push((child, child_id));
                }
            }
        }
        Ok(gone)
    }

    /// Lists of ids have no index: they are few, and looked through only when such a row is deleted.
    fn unlisted(&self, entity: &'static Entity, id: Uuid) -> Result<(), Conflict> {
        let text = id.to_string();
        for (by, field) in entity.listed_in {
            let lists =
                crate::entity::find(by).map(|by| self.page(by, None, usize::MAX, None).rows).unwrap_or_default();
            for row in lists.iter().filter(|entry| entry.body.contains(&text)).map(|entry| entry.row()) {
                let listed = at_path(&row, field).as_array().is_some_and(|list| list.iter().any(|item| *item == text));
                let by_id = row.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok());
                if let (true, Some(by_id)) = (listed, by_id) {
                    return Err(Conflict::Listed { entity: entity.name, id, by, by_id });
                }
            }
        }
        Ok(())
    }
}

/// The unique keys of a row in the order in which conflicts are reported: groups, then single fields that are set.
fn unique_keys(entity: &'static Entity, row: &Map<String, Value>) -> Vec<(KeyIdx, Vec<&'static str>, String)> {
    let mut keys = Vec::new();
    for names in entity.unique_together {
        keys.push((keys.len() as KeyIdx, names.to_vec(), group_text(names, row)));
    }
    let unique = entity.record.fields.iter().filter(|field| field.unique);
    for (key, field) in (keys.len() as KeyIdx..).zip(unique) {
        match row.get(field.name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => keys.push((key, vec![field.name], text.clone())),
            Some(other) => keys.push((key, vec![field.name], other.to_string())),
        }
    }
    keys
}

pub(super) fn group_text(names: &[&str], row: &Map<String, Value>) -> String {
    names.iter().map(|name| row.get(*name).cloned().unwrap_or_default()).collect::<Value>().to_string()
}

fn tags_of(row: &Map<String, Value>) -> Vec<Arc<str>> {
    let tags = row.get("tags").and_then(Value::as_array).into_iter().flatten();
    tags.filter_map(Value::as_str).map(Arc::from).collect()
}
