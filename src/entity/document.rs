//! Declarations as the JSON documents of `GET /schemas/...` (spec/admin-api.md section 7.6).
//! Always: says only what applies; the validators that are code have no attribute, as in Kong.

use crate::entity::checks::Conditional;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::complete;
use crate::entity::schema::Deprecation;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Literal;
use crate::entity::schema::Meaning;
use crate::entity::schema::OnDelete;
use crate::entity::schema::Pattern;
use crate::entity::schema::Record;
use crate::entity::schema::Shorthand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// `{"fields": [...], "entity_checks": [...]}`.
pub fn document<'a>(fields: impl Iterator<Item = &'a Field>, checks: impl Iterator<Item = &'a EntityCheck>) -> Value {
    json!({ "fields": named(fields), "entity_checks": checks.filter_map(check).collect::<Vec<Value>>() })
}

/// The document of a record alone: `GET /plugins/schema/{name}`.
pub fn record_document(record: &Record, checks: &[EntityCheck]) -> Value {
    let mut out = Map::new();
    out.insert("fields".to_string(), named(record.fields.iter()));
    out.insert("entity_checks".to_string(), checks.iter().filter_map(check).collect());
    if !record.shorthands.is_empty() {
        out.insert("shorthand_fields".to_string(), record.shorthands.iter().map(shorthand).collect());
    }
    Value::Object(out)
}

fn named<'a>(fields: impl Iterator<Item = &'a Field>) -> Value {
    fields.map(|field| json!({ field.name: attributes(field) })).collect()
}

fn attributes(field: &Field) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_string(), value);
    };
    put("type", type_name(field.kind).into());
    match field.kind {
        Kind::Array(element) | Kind::Set(element) => put("elements", attributes(element)),
        Kind::Map { keys, values } => {
            put("keys", attributes(keys));
            put("values", attributes(values));
        }
        Kind::Record(record) => {
            put("fields", named(record.fields.iter()));
            if !record.checks.is_empty() {
                put("entity_checks", record.checks.iter().filter_map(check).collect());
            }
            if !record.shorthands.is_empty() {
                put("shorthand_fields", record.shorthands.iter().map(shorthand).collect());
            }
        }
        Kind::Foreign { entity, on_delete } => {
            put("reference", entity.into());
            if on_delete == OnDelete::Cascade {
                put("on_delete", "cascade".into());
            }
        }
        Kind::Abstract => put("abstract", true.into()),
        _ => {}
    }
    if let Some(required) = field.required {
        put("required", required.into());
    }
    match field.default {
        Some(Literal::OfFields) => put("default", without_nulls(complete::default_of(field))),
        Some(literal) => put("default", literal.to_value()),
        None => {}
    }
    let flags = [
        ("auto", field.auto.is_some()),
        ("unique", field.unique),
        ("unique_across_ws", field.across_workspaces),
        ("transient", field.transient),
        ("uuid", field.uuid),
        ("timestamp", field.timestamp),
        ("referenceable", field.referenceable),
        ("encrypted", field.encrypted),
        ("is_regex", field.regex),
    ];
    for (name, _) in flags.iter().filter(|(_, set)| *set) {
        put(name, true.into());
    }
    rules(field, &mut put);
    Value::Object(out)
}

fn rules(field: &Field, put: &mut impl FnMut(&str, Value)) {
    let literals = |values: &[Literal]| values.iter().map(|value| value.to_value()).collect::<Value>();
    if let Some(value) = field.eq {
        put("eq", value.to_value());
    }
    if let Some(value) = field.ne {
        put("ne", value.to_value());
    }
    if !field.one_of.is_empty() {
        put("one_of", literals(field.one_of));
    }
    if !field.not_one_of.is_empty() {
        put("not_one_of", literals(field.not_one_of));
    }
    if let Some(bound) = field.gt {
        put("gt", bound.into());
    }
    if let Some((low, high)) = field.between {
        put("between", json!([low, high]));
    }
    if let Some((low, high)) = field.between_numbers {
        put("between", json!([shortest(low), shortest(high)]));
    }
    for (name, len) in [("len_eq", field.len_eq), ("len_min", field.len_min), ("len_max", field.len_max)] {
        if let Some(len) = len {
            put(name, len.into());
        }
    }
    if let Some(prefix) = field.starts_with {
        put("starts_with", prefix.into());
    }
    if !field.match_none.is_empty() {
        put("match_none", field.match_none.iter().map(pattern).collect());
    }
    if let Some(lua) = field.matches {
        put("match", lua.into());
    }
    if !field.match_all.is_empty() {
        put("match_all", field.match_all.iter().map(pattern).collect());
    }
    if let Some(any) = field.match_any {
        put("match_any", json!({ "patterns": any.lua, "err": any.err }));
    }
    if let Some(value) = field.contains {
        put("contains", value.into());
    }
    if !field.exclusive_subsets.is_empty() {
        put("mutually_exclusive_subsets", json!(field.exclusive_subsets));
    }
    if let Some(text) = field.err {
        put("err", text.into());
    }
    if let Some(Deprecation { message, removal_in_version, old_default }) = field.deprecation {
        let deprecation =
            json!({ "message": message, "removal_in_version": removal_in_version, "old_default": old_default });
        put("deprecation", deprecation);
    }
}

/// A number that is whole is written without a fraction.
fn shortest(number: f64) -> Value {
    if number.fract() == 0.0 { (number as i64).into() } else { number.into() }
}

fn pattern(pattern: &Pattern) -> Value {
    json!({ "pattern": pattern.lua, "err": pattern.err })
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::Array(_) => "array",
        Kind::Set(_) => "set",
        Kind::Map { .. } => "map",
        Kind::Record(_) | Kind::Abstract => "record",
        Kind::Foreign { .. } => "foreign",
        Kind::Json => "json",
    }
}

fn shorthand(shorthand: &Shorthand) -> Value {
    let mut shown = attributes(&shorthand.field);
    if let (Meaning::Alias { path, message, removal_in_version }, Value::Object(out)) = (shorthand.meaning, &mut shown)
    {
        let deprecation = json!({
            "replaced_with": [{ "path": path }], "message": message, "removal_in_version": removal_in_version,
        });
        out.insert("deprecation".to_string(), deprecation);
    }
    json!({ shorthand.field.name: shown })
}

/// `None`: what the check demands is code alone.
fn check(check: &EntityCheck) -> Option<Value> {
    Some(match check {
        EntityCheck::AtLeastOneOf(names) => json!({ "at_least_one_of": names }),
        EntityCheck::OnlyOneOf(names) => json!({ "only_one_of": names }),
        EntityCheck::MutuallyExclusive(names) => json!({ "mutually_exclusive": names }),
        EntityCheck::MutuallyRequired(names) => json!({ "mutually_required": names }),
        EntityCheck::Distinct(names) => json!({ "distinct": names }),
        EntityCheck::Conditional(Conditional { then_match: Match::Check(_), .. }) => return None,
        EntityCheck::Conditional(rule) => json!({ "conditional": conditional(rule) }),
        EntityCheck::Custom(custom) => json!({ "custom_entity_check": { "field_sources": custom.sources } }),
    })
}

fn conditional(rule: &Conditional) -> Value {
    let mut out = json!({
        "if_field": rule.if_field, "if_match": condition(rule.if_match),
        "then_field": rule.then_field, "then_match": condition(rule.then_match),
    });
    if let (Some(text), Value::Object(map)) = (rule.then_err, &mut out) {
        map.insert("then_err".to_string(), text.into());
    }
    out
}

fn condition(condition: Match) -> Value {
    let literals = |values: &[Literal]| values.iter().map(|value| value.to_value()).collect::<Value>();
    match condition {
        Match::Eq(value) => json!({ "eq": value.to_value() }),
        Match::OneOf(values) => json!({ "one_of": literals(values) }),
        Match::NotOneOf(values) => json!({ "not_one_of": literals(values) }),
        Match::Matches(lua) => json!({ "match": lua }),
        Match::MatchesAny(any) => json!({ "match_any": { "patterns": any } }),
        Match::Required => json!({ "required": true }),
        Match::Gt(bound) => json!({ "gt": bound }),
        Match::Contains(value) => json!({ "contains": value }),
        Match::LenEq(len) => json!({ "len_eq": len }),
        Match::ElementsNotOneOf(values) => {
            json!({ "elements": { "type": "string", "not_one_of": literals(values) } })
        }
        Match::Check(_) => json!({}),
    }
}

/// Defaults of records are shown without the fields that have none.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let present = map.into_iter().filter(|(_, item)| !item.is_null());
            present.map(|(name, item)| (name, without_nulls(item))).collect()
        }
        other => other,
    }
}
