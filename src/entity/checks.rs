//! Checks that look at several fields of one record, as data.
//! Owns: the kinds of check, their declaration and their texts. Never: a check on one field (that is `schema::Field`).
//! Always: a check is skipped when a field it reads is already in error.

use crate::entity::pattern;
use crate::entity::rules::check_not_one_of;
use crate::entity::rules::check_one_of;
use crate::entity::rules::plain;
use crate::entity::rules::quoted;
use crate::entity::schema::Literal;
use crate::entity::validate::REQUIRED;
use crate::entity::validate::Write;
use crate::entity::validators::Check;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;

/// Field names are top-level, or dotted paths into records (`config.redis.host`).
#[derive(Clone, Copy, Debug)]
pub enum EntityCheck {
    AtLeastOneOf(&'static [&'static str]),
    OnlyOneOf(&'static [&'static str]),
    MutuallyExclusive(&'static [&'static str]),
    MutuallyRequired(&'static [&'static str]),
    Distinct(&'static [&'static str]),
    Conditional(Conditional),
    Custom(Custom),
}

/// When `if_field` meets `if_match`, `then_field` must meet `then_match`.
#[derive(Clone, Copy, Debug)]
pub struct Conditional {
    pub if_field: &'static str,
    pub if_match: Match,
    pub then_field: &'static str,
    pub then_match: Match,
    /// The text under `@entity` instead of the usual one.
    pub then_err: Option<&'static str>,
}

/// A condition on one value. As everywhere in the schema, null meets every condition but `Eq` of something else
/// and `Required`.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    Eq(Literal),
    OneOf(&'static [Literal]),
    NotOneOf(&'static [Literal]),
    /// A Lua pattern.
    Matches(&'static str),
    /// One of several Lua patterns.
    MatchesAny(&'static [&'static str]),
    Required,
    LenEq(usize),
    Gt(i64),
    /// Of a list: this is an element.
    Contains(&'static str),
    /// Of a list: none of these is an element.
    ElementsNotOneOf(&'static [Literal]),
    /// A named validator of strings.
    Check(Check),
}

/// A check written as code. `run` gets the record; its error is the text for `@entity`.
#[derive(Clone, Copy, Debug)]
pub struct Custom {
    /// The fields it reads.
    pub sources: &'static [&'static str],
    pub run: fn(&Map<String, Value>) -> Result<(), String>,
}

impl EntityCheck {
    pub const fn conditional(
        if_field: &'static str,
        if_match: Match,
        then_field: &'static str,
        then_match: Match,
    ) -> EntityCheck {
        EntityCheck::Conditional(Conditional { if_field, if_match, then_field, then_match, then_err: None })
    }
}

/// Runs the checks of a record whose fields were looked at before; adds what they find.
pub(super) fn run_checks<'a>(
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
        (Match::Gt(bound), Value::Null) => Err(format!("value must be greater than {bound}")),
        (_, Value::Null) => Ok(()),
        (Match::OneOf(choices), value) => check_one_of(choices, value),
        (Match::NotOneOf(choices), value) => check_not_one_of(choices, value),
        (Match::Matches(lua), value) => match value.as_str() {
            Some(text) if pattern::matches(lua, text) => Ok(()),
            _ => Err(format!("invalid value: {}", plain(value))),
        },
        (Match::MatchesAny(any), value) => match value.as_str() {
            Some(text) if any.iter().any(|lua| pattern::matches(lua, text)) => Ok(()),
            _ => Err(format!("invalid value: {}", plain(value))),
        },
        (Match::LenEq(wanted), value) => match value.as_array() {
            Some(list) if list.len() == wanted => Ok(()),
            _ => Err(format!("length must be {wanted}")),
        },
        (Match::Gt(bound), value) if value.as_f64().is_some_and(|number| number > bound as f64) => Ok(()),
        (Match::Gt(bound), _) => Err(format!("value must be greater than {bound}")),
        (Match::Contains(wanted), value) => match value.as_array() {
            Some(list) if list.iter().any(|item| item == wanted) => Ok(()),
            _ => Err(format!("expected to contain: {wanted}")),
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
