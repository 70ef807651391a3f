//! The text of a declarative document: read, named by its hash, and written from rows (spec/admin-api.md sections 8.1
//! and 9). Never: knows what an entry means (that is `declare`).

use crate::control::admin::declare::Errors;
use crate::control::admin::declare::Reader;
use crate::control::admin::expansion;
use crate::control::store::replace::Declared;
use crate::control::store::tables::Tables;
use crate::entity::ENTITIES;
use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::complete::whole;
use crate::limits::ADMIN_JSON_DEPTH_MAX;
use crate::limits::YAML_FLOW_DEPTH_MAX;
use md5::Digest;
use md5::Md5;
use serde_json::Map;
use serde_json::Value;
use std::collections::BTreeMap;

/// The hash of a configuration without any row.
pub const EMPTY_HASH: &str = "00000000000000000000000000000000";

/// A JSON or YAML document. Anchors and merge keys are resolved.
///
/// # Errors
/// The place and the reason of a mistake in the syntax; nesting deeper than `ADMIN_JSON_DEPTH_MAX`; aliases that make it
/// far larger than it is; no object.
pub fn parse(text: &str) -> Result<Map<String, Value>, String> {
    let document = match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        // The reader's work grows with the square of this.
        _ if flow_depth(text) > YAML_FLOW_DEPTH_MAX => return Err(too_deep()),
        _ => {
            expansion::check(text).map_err(|error| match error {
                Some(error) => reason(&error),
                None => "its aliases make it too large".to_string(),
            })?;
            let mut document: serde_norway::Value = serde_norway::from_str(text).map_err(|error| reason(&error))?;
            document.apply_merge().map_err(|error| error.to_string())?;
            serde_norway::from_value(document).map_err(|error| error.to_string())?
        }
    };
    if depth(&document) > ADMIN_JSON_DEPTH_MAX {
        return Err(too_deep());
    }
    match whole(document) {
        Value::Object(fields) => Ok(fields),
        _ => Err("expected an object".to_string()),
    }
}

/// A document into rows. `routes` as the router flavour declares them; `tables` are the rows that stand now.
///
/// # Errors
/// Everything that is wrong with it, of the first phase that finds anything.
pub fn rows(
    document: Map<String, Value>,
    plugins: PluginLookup<'_>,
    routes: &'static Entity,
    tables: &Tables,
) -> Result<Vec<Declared>, Box<Errors>> {
    let as_is = document.get("_transform") == Some(&Value::Bool(false));
    Reader { plugins, routes, tables, as_is }.read(document)
}

/// `1:4: did not find expected node content`, as Kong puts the position first.
fn reason(error: &serde_norway::Error) -> String {
    let text = error.to_string();
    let Some(place) = error.location() else {
        return text;
    };
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{}:{}: {what}", place.line(), place.column())
}

/// Levels of lists and objects; the readers bound them, so this does not recurse without bounds.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn too_deep() -> String {
    format!("nested deeper than {ADMIN_JSON_DEPTH_MAX} levels")
}

/// How deep brackets nest in a YAML text, about: those where a node may begin, outside of quotes and comments.
fn flow_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut before, mut quote) = (b'\n', None);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let begins_node = before.is_ascii_whitespace() || b"[{,:?-".contains(&before);
        match (quote, byte) {
            (Some(b'"'), b'\\') => drop(bytes.next()),
            (Some(open), _) => quote = Some(open).filter(|open| *open != byte),
            (None, b'"' | b'\'') if begins_node => quote = Some(byte),
            (None, b'#') if before.is_ascii_whitespace() => drop(bytes.by_ref().find(|byte| *byte == b'\n')),
            (None, b'[' | b'{') if begins_node => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (None, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = byte;
    }
    deepest
}

/// MD5 in hexadecimal, as `/status` shows it.
pub fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a document that came as an object: of its content, in whatever order it was sent.
pub fn hash_of(document: &Map<String, Value>) -> String {
    let mut digest = Md5::new();
    digest_object(document, &mut digest);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_object(object: &Map<String, Value>, digest: &mut Md5) {
    let sorted: BTreeMap<&String, &Value> = object.iter().collect();
    digest.update(b"{");
    for (name, item) in sorted {
        // Behind its length, as the text of a name may hold anything.
        digest.update(format!("{}:{name}", name.len()));
        digest_value(item, digest);
    }
    digest.update(b"}");
}

fn digest_value(value: &Value, digest: &mut Md5) {
    match value {
        Value::Object(object) => digest_object(object, digest),
        Value::Array(list) => {
            digest.update(b"[");
            list.iter().for_each(|item| digest_value(item, digest));
            digest.update(b"]");
        }
        Value::String(text) => digest.update(format!("\"{}:{text}", text.len())),
        // The end of a number is not told by the next value.
        scalar => digest.update(format!("{scalar},")),
    }
}

/// The configuration as a document that loads to the same.
///
/// # Errors
/// The reason why it cannot be written as YAML.
pub fn write(tables: &Tables) -> Result<String, String> {
    let mut document = Map::new();
    document.insert("_format_version".to_string(), "3.0".into());
    document.insert("_transform".to_string(), false.into());
    for entity in ENTITIES {
        let rows = tables.page(entity, None, usize::MAX, None).rows;
        let flat = rows.iter().map(|entry| {
            let mut row = entry.row();
            for reference in entity.references() {
                if let Some(id) = row.get(reference.field).and_then(|reference| reference.get("id")).cloned() {
                    row.insert(reference.field.to_string(), id);
                }
            }
            if let Some(at_ms) = entry.expires_at_ms {
                // Counted from the creation, which the document says.
                let created_ms = row.get("created_at").and_then(Value::as_u64).unwrap_or_default().saturating_mul(1000);
                row.insert("ttl".to_string(), at_ms.saturating_sub(created_ms).div_ceil(1000).max(1).into());
            }
            Value::Object(row)
        });
        let flat: Vec<Value> = flat.collect();
        if !flat.is_empty() {
            document.insert(entity.name.to_string(), flat.into());
        }
    }
    serde_norway::to_string(&document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let text = "base: &b { host: h, port: 1 }\nservices:\n- { <<: *b, port: 80.0 }\n";
        assert_eq!(parse(text).unwrap()["services"], json!([{ "host": "h", "port": 80 }]));
    }

    #[test]
    fn brackets_count_where_a_node_may_begin() {
        let check = |text: &str, want: usize| assert_eq!(flow_depth(text), want, "{text}");
        check("a: [{b: [c]}, [d]]", 3);
        check("paths: ['~/[[[', \"[[\\\"[\", /a[b, it's[]\n# [[[\n- &a [ &b [x]]", 2);
        check("[\"]\", [\"]\", ['x']]]", 3);
    }

    #[test]
    fn what_is_no_object_says_why() {
        assert_eq!(parse("a: [").unwrap_err(), "2:1: did not find expected node content");
        assert_eq!(parse("just a text").unwrap_err(), "expected an object");
        assert_eq!(parse("[1]").unwrap_err(), "expected an object");
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(parse(&nested(ADMIN_JSON_DEPTH_MAX)).is_ok());
        for levels in [ADMIN_JSON_DEPTH_MAX + 1, 100, 100_000] {
            assert!(parse(&nested(levels)).is_err(), "{levels}");
        }
        // Each level names the one below nine times.
        let bomb: String =
            (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
        assert!(parse(&format!("a0: &a0 [x]\n{bomb}")).is_err());
    }
}
