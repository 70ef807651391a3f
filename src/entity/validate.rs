//! Values against declarations: every violation of one record, with Kong's texts.
//! Owns: the order of rules within a field and of checks within a record (spec/admin-api.md section 5.5).
//! Never: changes the value, looks anything up. Always: reports one violation per field, and all fields together.

use crate::entity::checks::Conditional;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::pattern;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

const REQUIRED: &str = "required field missing";

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
fn is_vault_reference(text: &str) -> bool {
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

fn check_rules(field: &Field, value: &Value) -> Result<(), String> {
    if let Some(wanted) = field.eq
        && wanted.to_value() != *value
    {
        return Err(format!("value must be {}", plain(&wanted.to_value())));
    }
    if let Some(refused) = field.ne
        && refused.to_value() == *value
    {
        return Err(format!("value must not be {}", plain(value)));
    }
    if !field.not_one_of.is_empty() {
        check_not_one_of(field.not_one_of, value)?;
    }
    if !field.one_of.is_empty() {
        check_one_of(field.one_of, value)?;
    }
    if let Some(number) = value.as_f64() {
        check_number(field, number)?;
    }
    check_length(field, value)?;
    if let Some(string) = value.as_str() {
        check_string(field, string)?;
    }
    if let Some(wanted) = field.contains
        && value.as_array().is_some_and(|list| !list.iter().any(|item| item == wanted))
    {
        return Err(format!("expected to contain: {wanted}"));
    }
    if let (Some(check), Some(string)) = (field.check, value.as_str()) {
        check.test(string)?;
    }
    check_exclusive(field.exclusive_subsets, value)
}

fn check_number(field: &Field, number: f64) -> Result<(), String> {
    if let Some(bound) = field.gt
        && number <= bound as f64
    {
        return Err(format!("value must be greater than {bound}"));
    }
    if field.timestamp && number <= 0.0 {
        return Err("expected a valid timestamp".to_string());
    }
    if let Some((low, high)) = field.between
        && !(low as f64..=high as f64).contains(&number)
    {
        return Err(format!("value should be between {low} and {high}"));
    }
    Ok(())
}

fn check_length(field: &Field, value: &Value) -> Result<(), String> {
    let len = match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Object(map) if matches!(field.kind, Kind::Map { .. }) => map.len(),
        _ => return Ok(()),
    };
    match (field.len_eq, field.len_min, field.len_max) {
        (Some(wanted), ..) if len != wanted => Err(format!("length must be {wanted}")),
        (_, Some(least), _) if len < least => Err(format!("length must be at least {least}")),
        (.., Some(most)) if len > most => Err(format!("length must be at most {most}")),
        _ => Ok(()),
    }
}

fn check_string(field: &Field, string: &str) -> Result<(), String> {
    if field.uuid && !is_uuid(string) {
        return Err("expected a valid UUID".to_string());
    }
    if let Some(prefix) = field.starts_with
        && !string.starts_with(prefix)
    {
        return Err(format!("should start with: {prefix}"));
    }
    for refused in field.match_none {
        if pattern::matches(refused.lua, string) {
            return Err(refused.err.to_string());
        }
    }
    if let Some(lua) = field.matches
        && !pattern::matches(lua, string)
    {
        return Err(format!("invalid value: {string}"));
    }
    for wanted in field.match_all {
        if !pattern::matches(wanted.lua, string) {
            return Err(wanted.err.to_string());
        }
    }
    if let Some(any) = field.match_any
        && !any.lua.iter().any(|lua| pattern::matches(lua, string))
    {
        return Err(any.err.to_string());
    }
    Ok(())
}

fn check_one_of(choices: &[Literal], value: &Value) -> Result<(), String> {
    if choices.iter().any(|choice| choice.to_value() == *value) {
        return Ok(());
    }
    Err(format!("expected one of: {}", listed(choices)))
}

fn check_not_one_of(choices: &[Literal], value: &Value) -> Result<(), String> {
    if !choices.iter().any(|choice| choice.to_value() == *value) {
        return Ok(());
    }
    Err(format!("must not be one of: {}", listed(choices)))
}

fn listed(choices: &[Literal]) -> String {
    let texts: Vec<String> = choices.iter().map(|choice| plain(&choice.to_value())).collect();
    texts.join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// At most one of the subsets may have a member in the set.
fn check_exclusive(subsets: &[&[&str]], value: &Value) -> Result<(), String> {
    let Some(list) = value.as_array() else {
        return Ok(());
    };
    let has = |subset: &&&[&str]| subset.iter().any(|member| list.iter().any(|item| item == member));
    let met: Vec<String> = subsets.iter().filter(has).map(|subset| format!("({})", quoted(subset))).collect();
    if met.len() > 1 { Err(format!("these sets are mutually exclusive: {}", met.join(", "))) } else { Ok(()) }
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

fn run_checks<'a>(
    checks: impl Iterator<Item = &'a EntityCheck>,
    row: &Map<String, Value>,
    write: Write,
    found: &mut Violations,
) {
    // What a check itself reports does not keep later checks from running.
    let wrong = found.clone();
    let good = |names: &[&str]| !names.iter().any(|name| wrong.touches(name));
    let non_empty = |names: &[&str]| names.iter().filter(|name| !is_empty(at_path(row, name))).count();
    for check in checks {
        let violated = match check {
            EntityCheck::AtLeastOneOf(names) if good(names) && non_empty(names) == 0 => {
                let when = if write == Write::Partial { "when updating, " } else { "" };
                format!("{when}at least one of these fields must be non-empty: {}", quoted(names))
            }
            EntityCheck::OnlyOneOf(names) if good(names) && non_empty(names) != 1 => {
                format!("exactly one of these fields must be non-empty: {}", quoted(names))
            }
            EntityCheck::MutuallyExclusive(names) if good(names) && non_empty(names) > 1 => {
                format!("only one or none of these fields must be set: {}", quoted(names))
            }
            EntityCheck::MutuallyRequired(names)
                if good(names) && non_empty(names) != 0 && non_empty(names) != names.len() =>
            {
                format!("all or none of these fields must be set: {}", quoted(names))
            }
            EntityCheck::Distinct(names) if good(names) && !distinct(row, names) => {
                format!("values of these fields must be distinct: {}", quoted(names))
            }
            EntityCheck::Conditional(rule) if good(&[rule.if_field, rule.then_field]) => {
                let Some((entity, field)) = conditional(rule, row) else {
                    continue;
                };
                found.set_path(rule.then_field, Violation::Text(field));
                entity
            }
            EntityCheck::Custom(custom) if good(custom.sources) => match (custom.run)(row) {
                Ok(()) => continue,
                Err(text) => text,
            },
            _ => continue,
        };
        found.entity.push(violated);
    }
}

/// The texts for `@entity` and for the field when the rule is broken.
fn conditional(rule: &Conditional, row: &Map<String, Value>) -> Option<(String, String)> {
    meets(rule.if_match, at_path(row, rule.if_field)).ok()?;
    let wrong = meets(rule.then_match, at_path(row, rule.then_field)).err()?;
    let entity = match rule.then_err {
        Some(text) => text.to_string(),
        None => format!("failed conditional validation given value of field '{}'", rule.if_field),
    };
    Some((entity, wrong))
}

/// Null meets everything but being required and being equal to something else, as in a field's own rules.
fn meets(condition: Match, value: &Value) -> Result<(), String> {
    match (condition, value) {
        (Match::Required, Value::Null) => Err(REQUIRED.to_string()),
        (Match::Required, _) => Ok(()),
        (Match::Eq(wanted), value) if wanted.to_value() == *value => Ok(()),
        (Match::Eq(wanted), _) => Err(format!("value must be {}", plain(&wanted.to_value()))),
        (_, Value::Null) => Ok(()),
        (Match::OneOf(choices), value) => check_one_of(choices, value),
        (Match::NotOneOf(choices), value) => check_not_one_of(choices, value),
        (Match::Matches(lua), value) => match value.as_str() {
            Some(text) if pattern::matches(lua, text) => Ok(()),
            _ => Err(format!("invalid value: {}", plain(value))),
        },
        (Match::LenEq(wanted), value) => match value.as_array() {
            Some(list) if list.len() == wanted => Ok(()),
            _ => Err(format!("length must be {wanted}")),
        },
        (Match::ElementsNotOneOf(choices), value) => {
            value.as_array().into_iter().flatten().try_for_each(|item| check_not_one_of(choices, item))
        }
        (Match::Check(check), value) => value.as_str().map_or(Ok(()), |text| check.test(text)),
    }
}

/// The value at a dotted path; null when something on the way is missing.
pub fn at_path<'a>(row: &'a Map<String, Value>, path: &str) -> &'a Value {
    let mut parts = path.split('.');
    let mut value = parts.next().and_then(|name| row.get(name)).unwrap_or(&Value::Null);
    for part in parts {
        value = value.get(part).unwrap_or(&Value::Null);
    }
    value
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn distinct(row: &Map<String, Value>, names: &[&str]) -> bool {
    let values: Vec<&Value> = names.iter().map(|name| at_path(row, name)).filter(|value| !value.is_null()).collect();
    (1..values.len()).all(|index| !values[..index].contains(&values[index]))
}
