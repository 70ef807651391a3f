//! Values against declarations: every violation of one record, with Kong's texts.
//! Owns: the order of null, type and rules within a field, of fields and checks within a record.
//! Never: changes the value, looks anything up. Always: reports one violation per field, and all fields together.

use crate::entity::checks::EntityCheck;
use crate::entity::checks::run_checks;
use crate::entity::rules::check_rules;
use crate::entity::rules::plain;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

pub(super) const REQUIRED: &str = "required field missing";

/// Whether the record is being written for the first time or changed; some texts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Whole,
    Partial,
}

/// Checks a whole record: its fields, then its checks. Foreign fields that refer by nothing usable are checked by
/// `referenced`, which gives the fields of an entity.
pub fn check_record<'a>(
    fields: impl Iterator<Item = &'a Field> + Clone,
    checks: impl Iterator<Item = &'a EntityCheck>,
    row: &Map<String, Value>,
    write: Write,
) -> Violations {
    let mut found = Violations::default();
    for field in fields.clone() {
        let value = row.get(field.name).unwrap_or(&Value::Null);
        if let Err(violation) = check_field(field, value, write) {
            found.set(field.name, violation);
        }
    }
    for name in row.keys() {
        if !fields.clone().any(|field| field.name == name) {
            found.set(name, Violation::Text("unknown field".to_string()));
        }
    }
    run_checks(checks, row, write, &mut found);
    found
}

/// Checks one value against its field.
pub fn check_field(field: &Field, value: &Value, write: Write) -> Result<(), Violation> {
    let verdict = check_value(field, value, write);
    match (verdict, field.err) {
        (Err(Violation::Text(verdict)), Some(_)) if verdict == REQUIRED => Err(text(REQUIRED)),
        (Err(_), Some(text)) => Err(Violation::Text(text.to_string())),
        (verdict, _) => verdict,
    }
}

fn check_value(field: &Field, value: &Value, write: Write) -> Result<(), Violation> {
    if value.is_null() {
        return check_null(field);
    }
    if field.referenceable && value.as_str().is_some_and(is_vault_reference) {
        return Ok(());
    }
    // "value must be null" says more than a complaint about the type of what had to be absent.
    if let Some(Literal::Null) = field.eq {
        return Err(text("value must be null"));
    }
    check_type(field, value, write)?;
    check_rules(field, value).map_err(Violation::Text)
}

fn check_null(field: &Field) -> Result<(), Violation> {
    if field.is_required() {
        return Err(text(REQUIRED));
    }
    match (field.eq, field.ne) {
        (Some(wanted), _) if !matches!(wanted, Literal::Null) => Err(must_be(wanted)),
        (_, Some(Literal::Null)) => Err(text("value must not be null")),
        _ => Ok(()),
    }
}

fn must_be(wanted: Literal) -> Violation {
    Violation::Text(format!("value must be {}", plain(&wanted.to_value())))
}

fn text(text: &str) -> Violation {
    Violation::Text(text.to_string())
}

/// `{vault://prefix/path}`
pub fn is_vault_reference(text: &str) -> bool {
    text.strip_prefix("{vault://").and_then(|rest| rest.strip_suffix('}')).is_some_and(|path| !path.is_empty())
}

fn check_type(field: &Field, value: &Value, write: Write) -> Result<(), Violation> {
    match field.kind {
        Kind::String => match value.as_str() {
            None => Err(text("expected a string")),
            Some("") if field.len_min.is_none() => Err(text("length must be at least 1")),
            Some(_) => Ok(()),
        },
        Kind::Integer if value.is_i64() || value.is_u64() => Ok(()),
        Kind::Integer => Err(text("expected an integer")),
        Kind::Number if value.is_number() => Ok(()),
        Kind::Number => Err(text("expected a number")),
        Kind::Boolean if value.is_boolean() => Ok(()),
        Kind::Boolean => Err(text("expected a boolean")),
        Kind::Array(element) => check_elements(element, value, "expected an array", write),
        Kind::Set(element) => check_elements(element, value, "expected a set", write),
        Kind::Map { keys, values } => check_map(keys, values, value, write),
        Kind::Record(record) => match value.as_object() {
            None => Err(text("expected a record")),
            Some(row) => check_nested(record, row, write),
        },
        Kind::Foreign { entity, .. } => check_reference(entity, value, write),
        Kind::Json => Ok(()),
        Kind::Abstract if value.is_object() => Ok(()),
        Kind::Abstract => Err(text("expected a record")),
    }
}

fn check_nested(record: &Record, row: &Map<String, Value>, write: Write) -> Result<(), Violation> {
    let aliases = record.shorthands.iter().map(|shorthand| &shorthand.field);
    let found = check_record(record.fields.iter().chain(aliases), record.checks.iter(), row, write);
    if !found.is_empty() {
        return Err(Violation::Record(found));
    }
    record.custom.map_or(Ok(()), |run| run(row).map_err(Violation::Text))
}

fn check_elements(element: &Field, value: &Value, not_a_list: &str, write: Write) -> Result<(), Violation> {
    let Some(list) = value.as_array() else {
        return Err(text(not_a_list));
    };
    let mut found: Vec<Option<Violation>> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let verdict = if item.is_null() { Err(text(REQUIRED)) } else { check_field(element, item, write) };
        if let Err(violation) = verdict {
            found.resize(index, None);
            found.push(Some(violation));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Violation::List(found)) }
}

/// The first bad key or value stands for the whole map.
fn check_map(keys: &Field, values: &Field, value: &Value, write: Write) -> Result<(), Violation> {
    let Some(map) = value.as_object() else {
        return Err(text("expected a map"));
    };
    for (key, item) in map {
        check_field(keys, &Value::String(key.clone()), write)?;
        check_field(values, item, write)?;
    }
    Ok(())
}

/// References by name were resolved before; what is left is an id, or nothing usable. Other keys are looked at only
/// when there is no id: then they may say better what is wrong.
fn check_reference(entity: &str, value: &Value, write: Write) -> Result<(), Violation> {
    let missing = match value.get("id") {
        Some(Value::String(id)) if is_uuid(id) => return Ok(()),
        None | Some(Value::Null) => "missing primary key",
        Some(_) => "expected a valid UUID",
    };
    let mut found = Violations::default();
    let referenced = crate::entity::find(entity);
    let others = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "id");
    for (name, item) in others {
        let verdict = match referenced.and_then(|entity| entity.field(name)) {
            Some(field) if item.is_null() && field.is_required() => Ok(()),
            Some(field) => check_field(field, item, write),
            None if referenced.is_some() => Err(text("unknown field")),
            None => Ok(()),
        };
        if let Err(violation) = verdict {
            found.set(name, violation);
        }
    }
    if found.is_empty() {
        found = Violations::of("id", missing);
    }
    Err(Violation::Record(found))
}

/// 36 characters, hex digits and dashes in 8-4-4-4-12 form.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}
