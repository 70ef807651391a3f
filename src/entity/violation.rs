//! What is wrong with an input, as a tree shaped like the input, and its two renderings: the `fields` object and the
//! one-line `message` (spec/admin-api.md sections 5.2 to 5.4).
//! Never: decides what is wrong. Always: renders the same tree the same way, keys in bytewise order.

use serde_json::Map;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    Text(String),
    /// By position; `None` for a good element.
    List(Vec<Option<Violation>>),
    Record(Violations),
}

/// What is wrong with one record: with the record as a whole, and field by field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Violations {
    /// Texts under `@entity`.
    pub entity: Vec<String>,
    pub fields: BTreeMap<String, Violation>,
}

impl Violations {
    /// One wrong field.
    pub fn of(field: &str, text: impl Into<String>) -> Violations {
        let mut violations = Violations::default();
        violations.set(field, Violation::Text(text.into()));
        violations
    }

    pub fn is_empty(&self) -> bool {
        self.entity.is_empty() && self.fields.is_empty()
    }

    pub fn set(&mut self, field: &str, violation: Violation) {
        self.fields.insert(field.to_string(), violation);
    }

    /// Sets the violation of a dotted path; positions in lists count from 1 (`paths.1`, `config.redis.port`).
    /// A text that already stands on the way is replaced.
    pub fn set_path(&mut self, path: &str, violation: Violation) {
        let Some((head, rest)) = path.split_once('.') else {
            return self.set(path, violation);
        };
        let position = rest.split('.').next().and_then(|part| part.parse::<usize>().ok());
        match position {
            Some(position @ 1..=POSITION_MAX) => {
                let inner = match rest.split_once('.') {
                    None => violation,
                    Some((_, deeper)) => {
                        let mut nested = Violations::default();
                        nested.set_path(deeper, violation);
                        Violation::Record(nested)
                    }
                };
                let mut list = match self.fields.remove(head) {
                    Some(Violation::List(list)) => list,
                    _ => Vec::new(),
                };
                if list.len() < position {
                    list.resize(position, None);
                }
                list[position - 1] = Some(inner);
                self.set(head, Violation::List(list));
            }
            _ => {
                let mut nested = match self.fields.remove(head) {
                    Some(Violation::Record(nested)) => nested,
                    _ => Violations::default(),
                };
                nested.set_path(rest, violation);
                self.set(head, Violation::Record(nested));
            }
        }
    }

    /// Whether the field at a dotted path, or a part of it, is in error.
    pub fn touches(&self, path: &str) -> bool {
        match path.split_once('.') {
            None => self.fields.contains_key(path),
            Some((head, rest)) => match self.fields.get(head) {
                Some(Violation::Record(nested)) => nested.touches(rest),
                Some(_) => true,
                None => false,
            },
        }
    }

    /// The `fields` object.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if !self.entity.is_empty() {
            map.insert("@entity".to_string(), self.entity.clone().into());
        }
        for (name, violation) in &self.fields {
            map.insert(name.clone(), violation.to_value());
        }
        map
    }

    /// `schema violation (host: required field missing)`.
    pub fn message(&self) -> String {
        let mut entries = self.entity.clone();
        for (name, violation) in &self.fields {
            match violation.to_value() {
                Value::String(text) => entries.push(format!("{name}: {text}")),
                Value::Array(list) => {
                    for (position, item) in list.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                        entries.push(format!("{name}.{}: {}", position + 1, nested_text(item)));
                    }
                }
                Value::Object(nested) => {
                    let sorted: BTreeMap<&String, &Value> = nested.iter().collect();
                    for (sub, item) in sorted {
                        entries.push(format!("{name}.{sub}: {}", nested_text(item)));
                    }
                }
                _ => {}
            }
        }
        match entries.as_slice() {
            [one] => format!("schema violation ({one})"),
            many => format!("{} schema violations ({})", many.len(), many.join("; ")),
        }
    }
}

/// Longer lists than any input can hold are not built from a path.
const POSITION_MAX: usize = 1 << 20;

impl Violation {
    fn to_value(&self) -> Value {
        match self {
            Violation::Text(text) => Value::String(text.clone()),
            Violation::List(list) => {
                list.iter().map(|item| item.as_ref().map_or(Value::Null, Violation::to_value)).collect()
            }
            Violation::Record(nested) => Value::Object(nested.to_map()),
        }
    }
}

fn nested_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            write_indented(other, 0, &mut out);
            out
        }
    }
}

/// A value as a Lua table literal over several lines, two spaces per level.
fn write_indented(value: &Value, level: usize, out: &mut String) {
    let entries: Vec<(Option<String>, &Value)> = match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            sorted.into_iter().map(|(key, item)| (Some(lua_key(key)), item)).collect()
        }
        Value::Array(list) => list_entries(list),
        scalar => return write_scalar(scalar, out),
    };
    if entries.is_empty() {
        return out.push_str("{}");
    }
    out.push_str("{\n");
    let last = entries.len() - 1;
    for (index, (key, item)) in entries.into_iter().enumerate() {
        out.extend(std::iter::repeat_n("  ", level + 1));
        if let Some(key) = key {
            out.push_str(&key);
            out.push_str(" = ");
        }
        write_indented(item, level + 1, out);
        out.push_str(if index == last { "\n" } else { ",\n" });
    }
    out.extend(std::iter::repeat_n("  ", level));
    out.push('}');
}

/// A value as a compact Lua table literal: `{name="s1",service={id="4e13"}}`, keys in bytewise order, null as `null`.
pub fn lua_literal(value: &Value) -> String {
    let mut out = String::new();
    write_compact(value, &mut out);
    out
}

fn write_compact(value: &Value, out: &mut String) {
    let entries: Vec<(Option<String>, &Value)> = match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            sorted.into_iter().map(|(key, item)| (Some(lua_key(key)), item)).collect()
        }
        Value::Array(list) => list_entries(list),
        scalar => return write_scalar(scalar, out),
    };
    out.push('{');
    for (index, (key, item)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(key) = key {
            out.push_str(&key);
            out.push('=');
        }
        write_compact(item, out);
    }
    out.push('}');
}

/// Elements of a list; behind a hole the position is written out.
fn list_entries(list: &[Value]) -> Vec<(Option<String>, &Value)> {
    let holes = list.iter().any(Value::is_null);
    let present = list.iter().enumerate().filter(|(_, item)| !item.is_null());
    present.map(|(index, item)| (holes.then(|| format!("[{}]", index + 1)), item)).collect()
}

fn write_scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push('"');
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    out.push('\\');
                }
                out.push(character);
            }
            out.push('"');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn lua_key(key: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil",
        "not", "or", "repeat", "return", "then", "true", "until", "while",
    ];
    let bytes = key.as_bytes();
    let identifier = bytes.first().is_some_and(|first| !first.is_ascii_digit())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && !KEYWORDS.contains(&key);
    if identifier { key.to_string() } else { format!("[{}]", Value::from(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_violation_is_singular_and_several_are_counted_in_bytewise_order() {
        let mut violations = Violations::of("path", "should start with: /");
        assert_eq!(violations.message(), "schema violation (path: should start with: /)");
        violations.set("host", Violation::Text("required field missing".into()));
        violations.entity.push("first".into());
        assert_eq!(
            violations.message(),
            "3 schema violations (first; host: required field missing; path: should start with: /)"
        );
    }

    #[test]
    fn positions_count_from_one_and_good_elements_are_null() {
        let mut violations = Violations::default();
        violations.set_path("paths.2", Violation::Text("bad".into()));
        assert_eq!(Value::Object(violations.to_map()), json!({"paths": [null, "bad"]}));
        assert_eq!(violations.message(), "schema violation (paths.2: bad)");
    }

    #[test]
    fn third_level_is_an_indented_literal() {
        let mut violations = Violations::default();
        violations.set_path("config.redis.port", Violation::Text("value should be between 0 and 65535".into()));
        assert_eq!(
            violations.message(),
            "schema violation (config.redis: {\n  port = \"value should be between 0 and 65535\"\n})"
        );
        let mut inner = Violations::default();
        inner.entity.push("at least one".into());
        let mut violations = Violations::default();
        violations.set("sources", Violation::List(vec![Some(Violation::Record(inner))]));
        assert_eq!(
            violations.message(),
            "schema violation (sources.1: {\n  [\"@entity\"] = {\n    \"at least one\"\n  }\n})"
        );
    }

    #[test]
    fn literals_are_compact_sorted_and_quoted() {
        let check = |value: Value, want: &str| assert_eq!(lua_literal(&value), want);
        check(json!({"name": "s1"}), r#"{name="s1"}"#);
        check(
            json!({"name": "k", "consumer": null, "service": {"id": "4e"}}),
            r#"{consumer=null,name="k",service={id="4e"}}"#,
        );
        check(json!({"x-y": "a\"b\\c", "end": 1}), r#"{["end"]=1,["x-y"]="a\"b\\c"}"#);
        check(json!({"services": [null, "bad"]}), r#"{services={[2]="bad"}}"#);
    }

    #[test]
    fn a_path_knows_whether_it_is_touched() {
        let mut violations = Violations::default();
        violations.set_path("config.redis.port", Violation::Text("x".into()));
        assert!(violations.touches("config.redis.port"));
        assert!(violations.touches("config.redis"));
        assert!(!violations.touches("config.redis.host"));
        assert!(!violations.touches("name"));
    }
}
