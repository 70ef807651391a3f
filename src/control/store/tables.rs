//! The truth in memory: every row as its canonical JSON text, and the indexes that find it.
//! Owns: lookups and pages. Never: waits, touches a disk, validates fields; changes are in `index`.
//! Always: cloning is cheap (the maps share their nodes), so a reader's view and a write in progress are clones.

use crate::control::store::index::group_text;
use crate::entity::ENTITIES;
use crate::entity::Entity;
use rpds::RedBlackTreeMapSync;
use serde_json::Map;
use serde_json::Value;
use std::collections::BTreeSet;
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
    /// A row lists the id of the one being deleted.
    Listed { entity: &'static str, id: Uuid, by: &'static str, by_id: Uuid },
}

/// Position of an entity in `ENTITIES`.
pub(super) type KindIdx = u8;
/// Position of a unique key of an entity: its groups first, then its unique fields, in declaration order.
pub(super) type KeyIdx = u8;

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) rows: RedBlackTreeMapSync<Uuid, Arc<Entry>>,
    pub(super) unique: RedBlackTreeMapSync<(KeyIdx, Box<str>), Uuid>,
    /// (reference, parent, child); the reference counts in declaration order.
    pub(super) links: RedBlackTreeMapSync<(u8, Uuid, Uuid), ()>,
    pub(super) tags: RedBlackTreeMapSync<(Arc<str>, Uuid), ()>,
}

impl Table {
    /// Rows that have a tag, in order of id.
    fn with_tag(&self, tag: &str, after: Option<Uuid>) -> impl Iterator<Item = Uuid> + '_ {
        let tag: Arc<str> = Arc::from(tag);
        let start = match after {
            Some(id) => Bound::Excluded((tag.clone(), id)),
            None => Bound::Included((tag.clone(), Uuid::nil())),
        };
        let rows = self.tags.range((start, Bound::Unbounded)).map(|(key, ())| key);
        rows.take_while(move |(found, _)| *found == tag).map(|(_, id)| *id)
    }
}

/// All rows, at one moment. Rows that have expired by then are invisible.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(super) kinds: Vec<Table>,
    pub(super) tags: RedBlackTreeMapSync<Tagged, ()>,
    pub(super) expiries: RedBlackTreeMapSync<(u64, KindIdx, Uuid), ()>,
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

    pub(super) fn holder(&self, entity: &Entity, key: KeyIdx, value: &str) -> Option<Uuid> {
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
        match tags {
            None => {
                let ids = table.rows.range((after_bound(after), Bound::Unbounded));
                self.take(entity, ids.map(|(id, _)| *id), size)
            }
            Some(TagFilter::All(wanted)) => {
                let Some((first, others)) = wanted.split_first() else {
                    return Page { rows: Vec::new(), more: false };
                };
                let has = |id: &Uuid| others.iter().all(|tag| table.tags.contains_key(&(Arc::from(&**tag), *id)));
                self.take(entity, table.with_tag(first, after).filter(has), size)
            }
            Some(TagFilter::Any(wanted)) => {
                // Of each tag no more rows than the page can need; one more tells whether there is another page.
                let alive = |id: &Uuid| self.get(entity, *id).is_some();
                let each = wanted.iter().map(|tag| table.with_tag(tag, after).filter(alive).take(size + 1));
                let ids: BTreeSet<Uuid> = each.flatten().collect();
                self.take(entity, ids.into_iter(), size)
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

    pub(super) fn child_ids(
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
}

fn after_bound(after: Option<Uuid>) -> Bound<Uuid> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

pub(super) fn kind_idx(entity: &Entity) -> KindIdx {
    let position = ENTITIES.iter().position(|known| known.name == entity.name);
    position.expect("every entity stands in ENTITIES") as KindIdx
}

/// The id in `{"id": "..."}`.
pub fn reference_id(reference: &Value) -> Option<Uuid> {
    reference.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok())
}
