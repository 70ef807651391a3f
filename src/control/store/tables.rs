//! The truth in memory: every row as its canonical JSON text, and the indexes that find it.
//! Owns: lookups, pages, uniqueness and references. Never: waits, touches a disk, validates fields.
//! Always: cloning is cheap (the maps share their nodes), so a reader's view and a write in progress are clones.

use crate::entity::ENTITIES;
use crate::entity::Entity;
use crate::entity::schema::OnDelete;
use rpds::RedBlackTreeMapSync;
use serde_json::Map;
use serde_json::Value;
use std::ops::Bound;
use std::sync::Arc;
use uuid::Uuid;

/// One stored row.
#[derive(Debug)]
pub struct Entry {
    /// Canonical JSON object, fields in declaration order.
    pub body: Arc<str>,
    /// Unix milliseconds from which the row is as good as deleted.
    pub expires_at_ms: Option<u64>,
}

impl Entry {
    /// The row as a value.
    pub fn row(&self) -> Map<String, Value> {
        parse(&self.body)
    }
}

fn parse(body: &str) -> Map<String, Value> {
    serde_json::from_str(body).expect("bodies are checked when loaded and serialised when written")
}

/// Which rows of a collection are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    /// Rows that have all of these tags.
    All(Vec<String>),
    /// Rows that have any of these tags.
    Any(Vec<String>),
}

/// One page of a collection: rows in order of id, and whether there are more.
pub struct Page<T> {
    pub rows: Vec<T>,
    pub more: bool,
}

/// A tag on a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tagged {
    pub id: Uuid,
    pub entity: &'static str,
    pub tag: Arc<str>,
}

/// Why a row cannot be written or deleted.
#[derive(Clone, Debug, PartialEq)]
pub enum Conflict {
    /// The id is taken.
    PrimaryKey(Uuid),
    /// Another row has these values.
    Unique(Map<String, Value>),
    /// The row referred to does not exist.
    Dangling { field: &'static str, entity: &'static str, id: Value },
    /// A row still refers to the one being deleted.
    Referenced { child: &'static str, parent: &'static str },
}

/// Position of an entity in `ENTITIES`.
type KindIdx = u8;
/// Position of a unique key of an entity: its groups first, then its unique fields, in declaration order.
type KeyIdx = u8;

#[derive(Clone, Debug, Default)]
struct Table {
    rows: RedBlackTreeMapSync<Uuid, Arc<Entry>>,
    unique: RedBlackTreeMapSync<(KeyIdx, Box<str>), Uuid>,
    /// (reference, parent, child); the reference counts in declaration order.
    links: RedBlackTreeMapSync<(u8, Uuid, Uuid), ()>,
    tags: RedBlackTreeMapSync<(Arc<str>, Uuid), ()>,
}

/// All rows, at one moment. Rows that have expired by then are invisible.
#[derive(Clone, Debug)]
pub struct Tables {
    kinds: Vec<Table>,
    tags: RedBlackTreeMapSync<Tagged, ()>,
    expiries: RedBlackTreeMapSync<(u64, KindIdx, Uuid), ()>,
    pub version: u64,
    pub now_ms: u64,
}

impl Tables {
    pub fn new(version: u64) -> Tables {
        Tables {
            kinds: vec![Table::default(); ENTITIES.len()],
            tags: RedBlackTreeMapSync::default(),
            expiries: RedBlackTreeMapSync::default(),
            version,
            now_ms: 0,
        }
    }

    pub fn get(&self, entity: &Entity, id: Uuid) -> Option<Arc<Entry>> {
        self.table(entity)?.rows.get(&id).filter(|entry| self.alive(entry)).cloned()
    }

    /// The row whose unique field has this value.
    pub fn find(&self, entity: &Entity, field: &str, value: &str) -> Option<Uuid> {
        let unique = entity.record.fields.iter().filter(|field| field.unique).position(|found| found.name == field)?;
        let key = (entity.unique_together.len() + unique) as KeyIdx;
        self.holder(entity, key, value)
    }

    /// The row whose group of fields has the values that `row` has.
    pub fn find_together(&self, entity: &Entity, group: usize, row: &Map<String, Value>) -> Option<Uuid> {
        let names = entity.unique_together.get(group)?;
        self.holder(entity, group as KeyIdx, &group_text(names, row))
    }

    fn holder(&self, entity: &Entity, key: KeyIdx, value: &str) -> Option<Uuid> {
        let id = *self.table(entity)?.unique.get(&(key, Box::from(value)))?;
        self.get(entity, id).map(|_| id)
    }

    /// Rows in order of id, those after `after`.
    pub fn page(
        &self,
        entity: &Entity,
        after: Option<Uuid>,
        size: usize,
        tags: Option<&TagFilter>,
    ) -> Page<Arc<Entry>> {
        let Some(table) = self.table(entity) else {
            return Page { rows: Vec::new(), more: false };
        };
        let all = || table.rows.range((after_bound(after), Bound::Unbounded)).map(|(id, _)| *id);
        let tagged = |tag: &str, id: Uuid| table.tags.contains_key(&(Arc::from(tag), id));
        match tags {
            None => self.take(entity, all(), size),
            Some(TagFilter::All(wanted)) => {
                self.take(entity, all().filter(|id| wanted.iter().all(|tag| tagged(tag, *id))), size)
            }
            Some(TagFilter::Any(wanted)) => {
                self.take(entity, all().filter(|id| wanted.iter().any(|tag| tagged(tag, *id))), size)
            }
        }
    }

    /// Rows that refer to `parent`, in order of id.
    pub fn children(
        &self,
        entity: &Entity,
        field: &str,
        parent: Uuid,
        after: Option<Uuid>,
        size: usize,
    ) -> Page<Arc<Entry>> {
        self.take(entity, self.child_ids(entity, field, parent, after), size)
    }

    fn child_ids(
        &self,
        entity: &Entity,
        field: &str,
        parent: Uuid,
        after: Option<Uuid>,
    ) -> impl Iterator<Item = Uuid> + '_ {
        let reference = entity.references().position(|reference| reference.field == field).unwrap_or_default() as u8;
        let start = match after {
            Some(id) => Bound::Excluded((reference, parent, id)),
            None => Bound::Included((reference, parent, Uuid::nil())),
        };
        let end = Bound::Included((reference, parent, Uuid::max()));
        // The last possible id has no successor, and an empty range would be a panic.
        let table = self.table(entity).filter(|_| after != Some(Uuid::max()));
        table.into_iter().flat_map(move |table| table.links.range((start, end))).map(|((_, _, child), ())| *child)
    }

    fn take(&self, entity: &Entity, ids: impl Iterator<Item = Uuid>, size: usize) -> Page<Arc<Entry>> {
        let mut rows = Vec::new();
        for entry in ids.filter_map(|id| self.get(entity, id)) {
            if rows.len() == size {
                return Page { rows, more: true };
            }
            rows.push(entry);
        }
        Page { rows, more: false }
    }

    /// Tags in order of the id of their row; those after `after`; only `tag` if given.
    pub fn tagged(&self, after: Option<&Tagged>, tag: Option<&str>, size: usize) -> Page<Tagged> {
        let start = after.map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
        let mut rows = Vec::new();
        for (tagged, ()) in self.tags.range((start, Bound::Unbounded)) {
            let visible = crate::entity::find(tagged.entity).and_then(|entity| self.get(entity, tagged.id)).is_some();
            if !visible || tag.is_some_and(|wanted| *tagged.tag != *wanted) {
                continue;
            }
            if rows.len() == size {
                return Page { rows, more: true };
            }
            rows.push(tagged.clone());
        }
        Page { rows, more: false }
    }

    /// Every row of every entity, parents before children.
    pub fn all(&self) -> impl Iterator<Item = (&'static Entity, Uuid, &Arc<Entry>)> {
        let kinds = ENTITIES.iter().zip(&self.kinds);
        kinds.flat_map(|(entity, table)| table.rows.iter().map(move |(id, entry)| (*entity, *id, entry)))
    }

    /// Rows whose time has come.
    pub fn expired(&self) -> Vec<(&'static Entity, Uuid)> {
        let due = self.expiries.range(..=(self.now_ms, KindIdx::MAX, Uuid::max()));
        due.map(|((_, kind, id), ())| (ENTITIES[usize::from(*kind)], *id)).collect()
    }

    /// When the next row expires, in Unix milliseconds.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.keys().next().map(|(at_ms, ..)| *at_ms)
    }

    fn alive(&self, entry: &Entry) -> bool {
        entry.expires_at_ms.is_none_or(|at_ms| at_ms > self.now_ms)
    }

    fn table(&self, entity: &Entity) -> Option<&Table> {
        self.kinds.get(usize::from(kind_idx(entity)))
    }

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
        let body = Value::Object(row.clone()).to_string().into();
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
}

fn after_bound(after: Option<Uuid>) -> Bound<Uuid> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

fn kind_idx(entity: &Entity) -> KindIdx {
    let position = ENTITIES.iter().position(|known| known.name == entity.name);
    position.expect("every entity stands in ENTITIES") as KindIdx
}

/// The id in `{"id": "..."}`.
pub fn reference_id(reference: &Value) -> Option<Uuid> {
    reference.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok())
}

/// The unique keys of a row in the order in which conflicts are reported: groups, then single fields that are set.
fn unique_keys(entity: &'static Entity, row: &Map<String, Value>) -> Vec<(KeyIdx, Vec<&'static str>, String)> {
    let mut keys = Vec::new();
    for names in entity.unique_together {
        keys.push((keys.len() as KeyIdx, names.to_vec(), group_text(names, row)));
    }
    let mut next = keys.len() as KeyIdx;
    for field in entity.record.fields.iter().filter(|field| field.unique) {
        match row.get(field.name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => keys.push((next, vec![field.name], text.clone())),
            Some(other) => keys.push((next, vec![field.name], other.to_string())),
        }
        next += 1;
    }
    keys
}

fn group_text(names: &[&str], row: &Map<String, Value>) -> String {
    names.iter().map(|name| row.get(*name).cloned().unwrap_or_default()).collect::<Value>().to_string()
}

fn tags_of(row: &Map<String, Value>) -> Vec<Arc<str>> {
    let tags = row.get("tags").and_then(Value::as_array).into_iter().flatten();
    tags.filter_map(Value::as_str).map(Arc::from).collect()
}
