//! All rows at once for other rows: what a declarative document does (spec/admin-api.md section 8.2).
//! Always: a row that says the same as before is not touched, so that the data plane sees real changes only.

use crate::control::store::tables::Conflict;
use crate::control::store::tables::Entry;
use crate::control::store::tables::reference_id;
use crate::control::store::transaction::Transaction;
use crate::entity::ENTITIES;
use crate::entity::Entity;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// One row that is to stand.
#[derive(Clone, Debug)]
pub struct Declared {
    pub entity: &'static Entity,
    pub id: Uuid,
    pub row: Map<String, Value>,
    /// Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Whoever declared the row said when it was created.
    pub dated: bool,
}

/// One row that differs from before.
#[derive(Clone, Debug)]
pub struct Difference {
    pub entity: &'static Entity,
    pub id: Uuid,
    /// `None`: the row is new.
    pub old: Option<Arc<Entry>>,
    /// `None`: the row is gone.
    pub new: Option<Arc<Entry>>,
}

impl Transaction {
    /// Makes the declared rows all there are, but for those that requests have made: they stay, unless rows of their kind
    /// are declared or what they belong to goes. Rows that stand keep the time of their creation.
    ///
    /// # Errors
    /// Two rows share an id or a unique value, or a reference dangles.
    pub fn replace_all(&mut self, rows: Vec<Declared>) -> Result<Vec<Difference>, Conflict> {
        let mut declared = HashSet::with_capacity(rows.len());
        for row in &rows {
            if !declared.insert((row.entity.name, row.id)) {
                return Err(Conflict::PrimaryKey(row.id));
            }
        }
        let mut differences = Vec::new();
        // Children go before their parents.
        let standing: Vec<_> = self.tables.all().map(|(entity, id, entry)| (entity, id, entry.clone())).collect();
        let kinds: HashSet<&str> = rows.iter().map(|row| row.entity.name).collect();
        for (entity, id, old) in standing.into_iter().rev() {
            let stays =
                entity.made_by_requests && !kinds.contains(entity.name) && belongs(entity, &old, &declared, &kinds);
            if !stays && !declared.contains(&(entity.name, id)) {
                self.remove(entity, id);
                differences.push(Difference { entity, id, old: Some(old), new: None });
            }
        }
        let mut changed: Vec<(Declared, Option<Arc<Entry>>)> = Vec::new();
        for mut row in rows {
            let old = self.tables.get(row.entity, row.id);
            let stands =
                old.as_ref().is_some_and(|old| keeps(&old.row(), &mut row) && old.expires_at_ms == row.expires_at_ms);
            if !stands {
                changed.push((row, old));
            }
        }
        // What changes gives up its unique values first: two rows may have swapped them.
        for (row, _) in &changed {
            self.remove(row.entity, row.id);
        }
        changed.sort_by_cached_key(|(row, _)| ENTITIES.iter().position(|entity| entity.name == row.entity.name));
        for (Declared { entity, id, row, expires_at_ms, .. }, old) in changed {
            self.put(entity, id, row, expires_at_ms)?;
            differences.push(Difference { entity, id, old, new: self.tables.get(entity, id) });
        }
        Ok(differences)
    }
}

/// Whether all that a row refers to is declared, or is itself a row that stays.
fn belongs(entity: &Entity, entry: &Entry, declared: &HashSet<(&str, Uuid)>, kinds: &HashSet<&str>) -> bool {
    let row = entry.row();
    entity.references().all(|reference| {
        let stays = crate::entity::find(reference.entity).is_some_and(|entity| entity.made_by_requests)
            && !kinds.contains(reference.entity);
        let id = row.get(reference.field).and_then(reference_id);
        stays || id.is_none_or(|id| declared.contains(&(reference.entity, id)))
    })
}

/// Takes over what the server stamped on the stored row; whether the two are the same then.
fn keeps(stored: &Map<String, Value>, declared: &mut Declared) -> bool {
    let stamp = |name: &str| stored.get(name).cloned();
    if !declared.dated
        && let Some(created) = stamp("created_at")
    {
        declared.row.insert("created_at".to_string(), created);
    }
    let now = declared.row.get("updated_at").cloned();
    if let Some(updated) = stamp("updated_at") {
        declared.row.insert("updated_at".to_string(), updated);
    }
    let same = *stored == declared.row;
    if let Some(now) = now.filter(|_| !same) {
        declared.row.insert("updated_at".to_string(), now);
    }
    same
}
