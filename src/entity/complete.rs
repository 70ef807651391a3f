//! From what a client sent to a whole row: shorthands, defaults, generated values, PATCH merge, canonical order.
//! Owns: what absent and null mean (spec/admin-api.md section 4.11). Never: refuses anything.
//! Always: leaves a value of the wrong type as it is, for `validate` to report.

use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Literal;
use crate::entity::schema::Meaning;
use crate::entity::schema::Record;
use crate::entity::schema::Shorthand;
use serde_json::Map;
use serde_json::Number;
use serde_json::Value;
use uuid::Uuid;

/// What the server adds to a row, decided by the caller so that this folder reads no clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Unix time in milliseconds.
    pub now_ms: u64,
}

impl Moment {
    fn stamp(self, kind: Kind) -> Value {
        match kind {
            Kind::Number => {
                let seconds = self.now_ms as f64 / 1000.0;
                Number::from_f64(seconds).map_or(Value::Null, |number| whole(Value::Number(number)))
            }
            _ => (self.now_ms / 1000).into(),
        }
    }
}

/// Sets what only the server may set: `updated_at` always; on creation also what is `auto` and absent.
pub fn stamp<'a>(fields: impl Iterator<Item = &'a Field>, row: &mut Map<String, Value>, created: bool, moment: Moment) {
    for field in fields {
        let absent = !row.contains_key(field.name);
        match field.auto {
            Some(Auto::UpdatedAt) => {
                row.insert(field.name.to_string(), moment.stamp(field.kind));
            }
            Some(Auto::CreatedAt) if created && row.get(field.name).is_none_or(Value::is_null) => {
                row.insert(field.name.to_string(), moment.stamp(field.kind));
            }
            Some(Auto::Uuid) if created && absent => {
                row.insert(field.name.to_string(), Uuid::new_v4().to_string().into());
            }
            Some(Auto::RandomText) if created && absent => {
                row.insert(field.name.to_string(), random_text(32).into());
            }
            _ => {}
        }
    }
}

/// Alphanumeric characters from the system's secure source.
pub fn random_text(len: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(len);
    while out.len() < len {
        let bytes = Uuid::new_v4().into_bytes();
        // Bytes 6 and 8 carry fixed bits. A byte of 248 or more would favour the first letters.
        let random = bytes.iter().enumerate().filter(|(index, byte)| !matches!(index, 6 | 8) && **byte < 248);
        for (_, byte) in random.take(len - out.len()) {
            out.push(ALPHABET[usize::from(*byte % 62)] as char);
        }
    }
    out
}

/// Replaces shorthands by what they stand for. A shorthand that is not well-typed stays, for `validate` to report.
pub fn expand(shorthands: &[Shorthand], row: &mut Map<String, Value>) {
    for shorthand in shorthands {
        let Some(value) = row.get(shorthand.field.name) else {
            continue;
        };
        match shorthand.meaning {
            Meaning::Expands(run) => {
                if matches!(value, Value::Null) || value.as_str().is_some_and(|text| !text.is_empty()) {
                    let fields = run(value);
                    row.remove(shorthand.field.name);
                    row.extend(fields);
                }
            }
            Meaning::Alias { path, .. } => {
                let value = value.clone();
                row.remove(shorthand.field.name);
                if !value.is_null() {
                    set_path(row, path, value);
                }
            }
        }
    }
}

fn set_path(row: &mut Map<String, Value>, path: &[&str], value: Value) {
    let [head, rest @ ..] = path else {
        return;
    };
    if rest.is_empty() {
        row.insert(head.to_string(), value);
        return;
    }
    let slot = row.entry(head.to_string()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(nested) = slot {
        set_path(nested, rest, value);
    }
}

/// Fills what is absent: defaults, required records from the defaults of their fields, null for the rest.
pub fn fill<'a>(fields: impl Iterator<Item = &'a Field>, row: &mut Map<String, Value>) {
    for field in fields {
        match row.get_mut(field.name) {
            Some(value) => fill_value(field, value),
            None => {
                row.insert(field.name.to_string(), default_of(field));
            }
        }
    }
}

fn fill_value(field: &Field, value: &mut Value) {
    match (field.kind, value) {
        (Kind::Record(record), Value::Object(row)) => {
            expand(record.shorthands, row);
            fill(record.fields.iter(), row);
        }
        (Kind::Array(element) | Kind::Set(element), Value::Array(list)) => {
            list.iter_mut().for_each(|item| fill_value(element, item));
        }
        (Kind::Map { values, .. }, Value::Object(map)) => {
            map.values_mut().for_each(|item| fill_value(values, item));
        }
        _ => {}
    }
}

/// What an absent field becomes.
pub fn default_of(field: &Field) -> Value {
    match (field.default, field.kind) {
        (Some(Literal::OfFields), Kind::Record(record)) => record_of_defaults(record),
        (Some(literal), _) => {
            let mut value = literal.to_value();
            fill_value(field, &mut value);
            value
        }
        (None, Kind::Record(record)) if field.is_required() => record_of_defaults(record),
        // As at the top of a row, where `stamp` sees to it.
        _ if field.auto == Some(Auto::RandomText) => random_text(32).into(),
        _ => Value::Null,
    }
}

fn record_of_defaults(record: &Record) -> Value {
    let mut row = Map::new();
    fill(record.fields.iter(), &mut row);
    Value::Object(row)
}

/// PATCH: records merge, everything else is replaced whole.
pub fn merge<'a>(fields: impl Iterator<Item = &'a Field>, row: &mut Map<String, Value>, patch: Map<String, Value>) {
    let fields: Vec<&Field> = fields.collect();
    for (name, mut value) in patch {
        let field = fields.iter().find(|field| field.name == name);
        match (field.map(|field| field.kind), row.get_mut(&name), &mut value) {
            (Some(Kind::Record(record)), Some(Value::Object(stored)), Value::Object(patch)) => {
                for shorthand in record.shorthands {
                    stored.remove(shorthand.field.name);
                }
                expand(record.shorthands, patch);
                merge(record.fields.iter(), stored, std::mem::take(patch));
            }
            _ => {
                row.insert(name, value);
            }
        }
    }
}

/// The stored form: declared order, no duplicates in sets, lower-case ids, references by id alone, aliases shown
/// beside the fields they stand for.
pub fn canonical<'a>(fields: impl Iterator<Item = &'a Field>, mut row: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for field in fields.filter(|field| !field.transient) {
        let value = row.remove(field.name).unwrap_or(Value::Null);
        out.insert(field.name.to_string(), canonical_value(field, value));
    }
    out
}

fn canonical_value(field: &Field, value: Value) -> Value {
    match (field.kind, value) {
        (Kind::Record(record), Value::Object(row)) => {
            let mut row = canonical(record.fields.iter(), row);
            for shorthand in record.shorthands {
                if let Meaning::Alias { path, .. } = shorthand.meaning {
                    let shown = crate::entity::checks::at_path(&row, &path.join(".")).clone();
                    row.insert(shorthand.field.name.to_string(), shown);
                }
            }
            Value::Object(row)
        }
        (Kind::Array(element), Value::Array(list)) => {
            list.into_iter().map(|item| canonical_value(element, item)).collect()
        }
        (Kind::Set(element), Value::Array(list)) => {
            let mut kept: Vec<Value> = Vec::with_capacity(list.len());
            for item in list {
                let item = canonical_value(element, item);
                if !kept.contains(&item) {
                    kept.push(item);
                }
            }
            Value::Array(kept)
        }
        (Kind::Map { values, .. }, Value::Object(map)) => {
            map.into_iter().map(|(key, item)| (key, canonical_value(values, item))).collect()
        }
        (Kind::Foreign { .. }, Value::Object(mut reference)) => {
            let id = reference.remove("id").map(lower_case).unwrap_or(Value::Null);
            Value::Object(Map::from_iter([("id".to_string(), id)]))
        }
        (Kind::String, value) if field.uuid => lower_case(value),
        (_, value) => value,
    }
}

fn lower_case(value: Value) -> Value {
    match value {
        Value::String(text) => text.to_ascii_lowercase().into(),
        other => other,
    }
}

/// Numbers without a fraction become integers, wherever they stand: 80.0 is 80.
pub fn whole(value: Value) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX => (float as i64).into(),
            _ => Value::Number(number),
        },
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key, whole(item))).collect(),
        other => other,
    }
}
