//! What the rows of a declarative document are called: generated ids, links, duplicates (spec/admin-api.md sections 9.2
//! to 9.4). Never: looks at a row that is not in the document.

use crate::control::admin::declare::Entry;
use crate::control::store::replace::Declared;
use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::Reference;
use crate::entity::path;
use crate::entity::validate::is_uuid;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashMap;
use std::collections::HashSet;
use uuid::Uuid;
use uuid::uuid;

/// Namespace of all generated ids.
const BASE: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id that follows from what the entry says.
pub(super) fn generated(entry: &Entry, parent: Option<(&str, Uuid)>) -> Option<Uuid> {
    let part = |name: &str| match parent {
        Some((field, id)) if field == name => id.to_string(),
        _ => entry.fields.get(name).map(link_text).unwrap_or_default(),
    };
    let name = entry.entity.name;
    let own_key = || Some(part(entry.entity.path_key)).filter(|key| !key.is_empty());
    let key = match entry.entity.declared_id {
        DeclaredId::Random => return None,
        DeclaredId::Key => own_key()?,
        DeclaredId::QualifiedKey => format!("{name}:*:{}", own_key()?),
        DeclaredId::Together => {
            let parts: Vec<String> = entry.entity.unique_together.first()?.iter().map(|name| part(name)).collect();
            format!("{name}:*:{}", parts.join(":"))
        }
    };
    let space = Uuid::new_v5(&BASE, name.as_bytes());
    Some(Uuid::new_v5(&space, key.as_bytes()))
}

/// A link or a value as it is written: text, or the id of an object.
pub(super) fn link_text(value: &Value) -> String {
    let text = value.get("id").unwrap_or(value);
    text.as_str().unwrap_or_default().to_string()
}

/// Which rows the document declares, by id and by path key.
pub(super) struct Names {
    by_name: HashMap<(&'static str, String), Uuid>,
    ids: HashSet<(&'static str, Uuid)>,
    /// Entries, by position, that declare what an earlier one declares, and the text that says so.
    pub(super) duplicates: Vec<(usize, String)>,
}

impl Names {
    pub(super) fn of(entries: &[Entry]) -> Names {
        let mut names = Names { by_name: HashMap::new(), ids: HashSet::new(), duplicates: Vec::new() };
        for (index, entry) in entries.iter().enumerate() {
            let entity = entry.entity;
            let Some(id) = entry.id else {
                continue;
            };
            let key = entity.field(entity.path_key).filter(|field| field.unique);
            let key = key.and_then(|field| entry.fields.get(field.name)).and_then(Value::as_str);
            let taken = key.is_some_and(|key| names.by_name.insert((entity.name, key.to_string()), id).is_some());
            let (what, value) = match key {
                Some(key) if taken => (entity.path_key, key.to_string()),
                _ if !names.ids.insert((entity.name, id)) => ("primary key", id.to_string()),
                _ => continue,
            };
            names.duplicates.push((index, declared_before(entity, what, &value)));
        }
        names
    }

    /// The row that a link names: by id or path key. Nil: there is none. `None`: the value is no link, as the schema
    /// will say, or null.
    pub(super) fn resolve(&self, reference: &Reference, value: Option<&Value>) -> Option<Uuid> {
        let text = match value? {
            Value::String(text) => text.as_str(),
            Value::Object(object) => object.get("id").and_then(Value::as_str).filter(|id| is_uuid(id))?,
            _ => return None,
        };
        let id = if is_uuid(text) { Uuid::try_parse(text).ok() } else { None };
        let found = match id {
            Some(id) => Some(id).filter(|id| self.ids.contains(&(reference.entity, *id))),
            None => self.by_name.get(&(reference.entity, text.to_string())).copied(),
        };
        Some(found.unwrap_or_default())
    }
}

fn declared_before(entity: &Entity, field: &str, value: &str) -> String {
    format!("uniqueness violation: '{}' entity with {field} set to '{value}' already declared", entity.name)
}

/// Values of unique fields other than the path key that stand twice.
pub(super) fn not_unique(rows: &[Declared]) -> Vec<(&'static str, String, Value)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for Declared { entity, id, row, .. } in rows {
        for field in entity.record.fields.iter().filter(|field| field.unique) {
            let Some(value) = row.get(field.name).and_then(Value::as_str) else {
                continue;
            };
            if !seen.insert((entity.name, field.name, value)) {
                let name = row.get(entity.path_key).and_then(Value::as_str);
                let name = name.map_or_else(|| id.to_string(), str::to_string);
                found.push((entity.name, name, declared_before(entity, field.name, value).into()));
            }
        }
    }
    found
}

/// Paths of routes as they were written before version 3.0: what is no plain path is a regular expression.
pub(super) fn migrate(route: &mut Map<String, Value>) {
    let Some(Value::Array(paths)) = route.get_mut("paths") else {
        return;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte);
    for value in paths {
        let Some(text) = value.as_str().filter(|text| text.starts_with('/')) else {
            continue;
        };
        let new = match text.bytes().all(plain) {
            true => path::normalise(text),
            false => format!("~{}", path::decode_unreserved(text)),
        };
        *value = new.into();
    }
}
