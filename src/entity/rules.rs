//! The rules of one field, applied to one value of the right type.
//! Owns: their order and texts (spec/admin-api.md section 5.5). Always: the first rule that fails is the one reported.

use crate::entity::pattern;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Literal;
use crate::entity::validate::is_uuid;
use serde_json::Value;

/// Applies every rule; the error is the text to show.
pub(super) fn check_rules(field: &Field, value: &Value) -> Result<(), String> {
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
    if field.regex
        && let Some(string) = value.as_str()
        && regex::Regex::new(string).is_err()
    {
        return Err(format!("not a valid regex: {string}"));
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
    if let Some((low, high)) = field.between_numbers
        && !(low..=high).contains(&number)
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

pub(super) fn check_one_of(choices: &[Literal], value: &Value) -> Result<(), String> {
    if choices.iter().any(|choice| choice.to_value() == *value) {
        return Ok(());
    }
    Err(format!("expected one of: {}", listed(choices)))
}

pub(super) fn check_not_one_of(choices: &[Literal], value: &Value) -> Result<(), String> {
    if !choices.iter().any(|choice| choice.to_value() == *value) {
        return Ok(());
    }
    Err(format!("must not be one of: {}", listed(choices)))
}

fn listed(choices: &[Literal]) -> String {
    let texts: Vec<String> = choices.iter().map(|choice| plain(&choice.to_value())).collect();
    texts.join(", ")
}

pub(super) fn plain(value: &Value) -> String {
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

pub(super) fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}
