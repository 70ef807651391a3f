//! What is wrong with a declarative document, as Kong reports it: a tree of the document's shape, or a flat list of
//! entries (spec/admin-api.md sections 9.4 and 9.5).

use crate::control::admin::declare::EntryError;
use crate::control::admin::declare::Errors;
use crate::entity::validate::is_uuid;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use crate::entity::violation::lua_literal;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// The `fields` of the error: everything in its place, null for good entries.
pub fn fields(errors: &Errors) -> Map<String, Value> {
    let mut root = rest(errors);
    for EntryError { place, found, .. } in &errors.entries {
        put(&mut root, place, Value::Object(found.to_map()));
    }
    for EntryError { place, found, .. } in &errors.duplicates {
        put(&mut root, place, found.entity.concat().into());
    }
    root
}

/// The `fields` that stay, and the entries that are wrong, one by one.
pub fn flattened(errors: &Errors) -> (Map<String, Value>, Vec<Value>) {
    (rest(errors), errors.entries.iter().chain(&errors.duplicates).map(flat).collect())
}

/// One line for each mistake, for people: where it stands, what the entry is called, the field and the text.
pub fn lines(errors: &Errors) -> Vec<String> {
    let place_of = |place: &[(&'static str, usize)]| {
        let parts: Vec<String> = place.iter().map(|(name, index)| format!("{name}[{}]", index + 1)).collect();
        parts.join(".")
    };
    let text_of = |value: &Value| value.as_str().map_or_else(|| lua_literal(value), str::to_string);
    let mut lines: Vec<String> = errors.top.iter().map(|(name, text)| format!("{name}: {}", text_of(text))).collect();
    lines.extend(errors.misfits.iter().map(|(place, text)| format!("{}: {text}", place_of(place))));
    for EntryError { place, entity, submitted, found } in errors.entries.iter().chain(&errors.duplicates) {
        let name = submitted.get(entity.path_key).and_then(Value::as_str);
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        let mut texts = Vec::new();
        leaves(found, "", &mut texts);
        lines.extend(texts.iter().map(|leaf| {
            let field = leaf.get("field").and_then(Value::as_str).map(|field| format!(" {field}")).unwrap_or_default();
            format!("{}{name}{field}: {}", place_of(place), text_of(&leaf["message"]))
        }));
    }
    for (entity, name, found) in &errors.named {
        let texts = found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        lines.extend(texts.iter().map(|text| format!("{entity} ({name}): {}", text_of(text))));
    }
    lines
}

/// What does not stand at one place of the document.
fn rest(errors: &Errors) -> Map<String, Value> {
    let mut root = errors.top.clone();
    for (place, text) in &errors.misfits {
        put(&mut root, place, Value::from(*text));
    }
    for (entity, name, found) in &errors.named {
        let of_entity = root.entry(*entity).or_insert_with(|| json!({}));
        match (&mut of_entity[name], found) {
            (Value::Array(list), Value::Array(more)) => list.extend(more.iter().cloned()),
            (slot, found) => *slot = found.clone(),
        }
    }
    root
}

/// Puts an error at its place; what stands on the way is kept.
fn put(root: &mut Map<String, Value>, place: &[(&'static str, usize)], error: Value) {
    let Some(((name, index), deeper)) = place.split_first() else {
        return;
    };
    let list = root.entry(*name).or_insert_with(|| json!([]));
    let Value::Array(list) = list else {
        return;
    };
    if list.len() <= *index {
        list.resize(index + 1, Value::Null);
    }
    let slot = &mut list[*index];
    match (&mut *slot, error) {
        (Value::Object(own), error) if !deeper.is_empty() => put(own, deeper, error),
        (_, error) if !deeper.is_empty() => {
            let mut own = Map::new();
            put(&mut own, deeper, error);
            *slot = Value::Object(own);
        }
        (Value::Object(own), Value::Object(more)) => own.extend(more),
        (_, error) => *slot = error,
    }
}

fn flat(error: &EntryError) -> Value {
    let EntryError { entity, submitted, found, .. } = error;
    let mut out = Map::new();
    out.insert("entity_type".to_string(), entity.name.strip_suffix('s').unwrap_or(entity.name).into());
    let text = |name: &str| submitted.get(name).and_then(Value::as_str);
    if let Some(id) = text("id").filter(|id| is_uuid(id)) {
        out.insert("entity_id".to_string(), id.into());
    }
    if let Some(name) = text("name").filter(|name| !name.is_empty()) {
        out.insert("entity_name".to_string(), name.into());
    }
    if let Some(tags) = submitted.get("tags").and_then(Value::as_array)
        && tags.iter().all(Value::is_string)
    {
        out.insert("entity_tags".to_string(), tags.clone().into());
    }
    let mut list = Vec::new();
    leaves(found, "", &mut list);
    out.insert("entity".to_string(), Value::Object(submitted.clone()));
    out.insert("errors".to_string(), list.into());
    Value::Object(out)
}

/// Every single text, with the dotted path of its field; positions count from 1.
fn leaves(found: &Violations, above: &str, out: &mut Vec<Value>) {
    for text in &found.entity {
        let mut entry = json!({ "type": "entity", "message": text });
        if !above.is_empty() {
            entry["field"] = above.trim_end_matches('.').into();
        }
        out.push(entry);
    }
    for (name, violation) in &found.fields {
        leaf(violation, &format!("{above}{name}"), out);
    }
}

fn leaf(violation: &Violation, path: &str, out: &mut Vec<Value>) {
    match violation {
        Violation::Text(text) => out.push(json!({ "type": "field", "field": path, "message": text })),
        Violation::Record(nested) => leaves(nested, &format!("{path}."), out),
        Violation::List(list) => {
            for (index, item) in list.iter().enumerate() {
                if let Some(item) = item {
                    leaf(item, &format!("{path}.{}", index + 1), out);
                }
            }
        }
    }
}
