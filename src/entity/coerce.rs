//! Form values are strings; here they become what the schema says they are (spec/admin-api.md section 2.5).
//! Never: refuses anything. Always: a string that does not read as its type stays a string, for `validate` to report.

use crate::entity::complete::whole;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use serde_json::Map;
use serde_json::Number;
use serde_json::Value;

/// Types every known field of a form; unknown ones stay raw.
pub fn infer<'a>(fields: impl Iterator<Item = &'a Field>, row: &mut Map<String, Value>) {
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            *value = infer_value(field, value.take());
        }
    }
}

/// Types one value.
pub fn infer_value(field: &Field, value: Value) -> Value {
    if value == "" {
        return Value::Null;
    }
    match (field.kind, value) {
        (Kind::Integer | Kind::Number, Value::String(text)) => number(&text).unwrap_or(Value::String(text)),
        (Kind::Boolean, Value::String(text)) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::String(text),
        },
        (Kind::Array(element) | Kind::Set(element), Value::Array(list)) => {
            list.into_iter().map(|item| infer_value(element, item)).collect()
        }
        (Kind::Array(element) | Kind::Set(element), scalar @ (Value::String(_) | Value::Bool(_))) => {
            Value::Array(vec![infer_value(element, scalar)])
        }
        (Kind::Map { values, .. }, Value::Object(map)) => {
            map.into_iter().map(|(key, item)| (key, infer_value(values, item))).collect()
        }
        (Kind::Record(record), Value::Object(mut row)) => {
            let aliases = record.shorthands.iter().map(|shorthand| &shorthand.field);
            infer(record.fields.iter().chain(aliases), &mut row);
            Value::Object(row)
        }
        (Kind::Foreign { .. }, Value::Object(mut reference)) => {
            for value in reference.values_mut().filter(|value| **value == "") {
                *value = Value::Null;
            }
            Value::Object(reference)
        }
        (_, value) => value,
    }
}

/// Without a schema at hand only what is unmistakable is typed: booleans and empty values.
pub fn infer_blindly(value: Value) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "" => Value::Null,
            _ => Value::String(text),
        },
        Value::Array(list) => list.into_iter().map(infer_blindly).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key, infer_blindly(item))).collect(),
        other => other,
    }
}

/// Decimal, with exponent, or hexadecimal with `0x`, as Lua reads numbers.
pub fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let magnitude = i64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-']))?;
        return Some(if unsigned.len() < text.len() { -magnitude } else { magnitude }.into());
    }
    // `inf` and `nan` are numbers to Rust only.
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
    Number::from_f64(float).map(|number| whole(Value::Number(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_read_as_lua_reads_them() {
        let check = |text: &str, want: Option<Value>| assert_eq!(number(text), want, "{text:?}");
        check("80", Some(json!(80)));
        check("-1", Some(json!(-1)));
        check("80.5", Some(json!(80.5)));
        check("1e3", Some(json!(1000)));
        check("0x10", Some(json!(16)));
        check("abc", None);
        check("inf", None);
        check("nan", None);
        check("1e999", None);
    }

    #[test]
    fn a_scalar_becomes_a_list_of_one_and_empty_becomes_null() {
        const ELEMENT: Field = Field::integer("");
        const LIST: Field = Field::array("statuses", &ELEMENT);
        assert_eq!(infer_value(&LIST, json!("5")), json!([5]));
        assert_eq!(infer_value(&LIST, json!(["5", "x"])), json!([5, "x"]));
        assert_eq!(infer_value(&LIST, json!("")), json!(null));
    }
}
