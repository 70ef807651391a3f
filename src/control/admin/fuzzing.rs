//! Fuzz targets of what the Admin API reads: what must hold of any bytes as a form, or as a declarative document.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: a target panics if and only if something that must hold does not.

use crate::control::admin::declare::Errors;
use crate::control::admin::declare_report;
use crate::control::admin::document;
use crate::control::admin::form;
use crate::control::store::Opened;
use crate::control::store::replace::Declared;
use crate::control::store::tables::Tables;
use crate::entity::ENTITIES;
use crate::entity::PluginSchema;
use crate::entity::complete::Moment;
use crate::entity::route::ROUTES;
use crate::limits::ADMIN_ARGUMENTS_MAX;
use crate::limits::ADMIN_JSON_DEPTH_MAX;
use crate::plugins::PLUGINS;
use serde_json::Map;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The moment of every write here: late enough that no `ttl` is over.
const NOW_MS: u64 = 4_000_000_000_000;

fn plugin(name: &str) -> Option<&'static PluginSchema> {
    PLUGINS.iter().map(|kind| &kind.schema).find(|schema| schema.name == name)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(leaves).sum(),
        Value::Object(map) => map.values().map(leaves).sum(),
        _ => 1,
    }
}

/// Any bytes as a form: an object of bounded depth with no more values than were sent, which every entity judges.
pub fn form(text: &[u8]) {
    let Ok(pairs) = form::pairs(text, ADMIN_ARGUMENTS_MAX) else { return };
    assert!(pairs.len() <= ADMIN_ARGUMENTS_MAX);
    for brackets in [false, true] {
        let object = form::object(pairs.clone(), brackets);
        // A list of values under the last key is one level more.
        assert!(object.values().map(depth).max().unwrap_or_default() <= ADMIN_JSON_DEPTH_MAX, "{object:?}");
        assert!(object.values().map(leaves).sum::<usize>() <= pairs.len(), "{object:?} of {pairs:?}");
        assert_eq!(object.is_empty(), pairs.is_empty(), "{pairs:?}");
        for (name, given) in pairs.iter().filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let alone = pairs.iter().filter(|(other, _)| other.starts_with(name.as_str())).count() == 1;
            if alone && !name.is_empty() {
                assert_eq!(object.get(name), Some(&given.clone().map_or(Value::Bool(true), Value::String)), "{name}");
            }
        }
        if brackets {
            judge(&object);
        }
    }
}

/// As the row of every entity: taken, or refused with a reason.
fn judge(object: &Map<String, Value>) {
    for entity in ENTITIES {
        let mut fields = object.clone();
        entity.infer(&mut fields, None, &plugin);
        if let Err(found) = entity.create(fields, Moment { now_ms: NOW_MS }, &plugin) {
            assert!(!found.to_map().is_empty(), "{} is refused without a reason: {object:?}", entity.name);
        }
    }
}

type Rows = BTreeMap<(&'static str, Uuid), (Map<String, Value>, Option<u64>)>;

fn read(text: &str) -> Option<Result<Vec<Declared>, Box<Errors>>> {
    let document = document::parse(text).ok()?;
    let mut tables = Tables::new(0);
    tables.now_ms = NOW_MS;
    Some(document::rows(document, &plugin, &ROUTES, &tables))
}

fn by_id(rows: &[Declared]) -> Rows {
    let rows = rows.iter().map(|declared| {
        let mut row = declared.row.clone();
        row.remove("updated_at");
        ((declared.entity.name, declared.id), (row, declared.expires_at_ms))
    });
    rows.collect()
}

/// Any bytes as a declarative document: refused with reasons, or rows that are the same when they are written and read
/// again.
pub fn declared(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match read(text) {
        None => {}
        Some(Err(errors)) => {
            assert!(!declare_report::lines(&errors).is_empty(), "it is refused without a reason");
            assert!(!declare_report::fields(&errors).is_empty());
            let (fields, flattened) = declare_report::flattened(&errors);
            assert!(!fields.is_empty() || !flattened.is_empty());
        }
        Some(Ok(rows)) => {
            let first = by_id(&rows);
            let Ok(opened) = Opened::in_memory(rows) else { return };
            let written = document::write(opened.tables()).expect("rows can be written");
            match read(&written) {
                Some(Ok(again)) => assert_eq!(by_id(&again), first, "{written}"),
                Some(Err(errors)) => panic!("{:?} in {written}", declare_report::lines(&errors)),
                None => panic!("it cannot be read again: {written}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;
    use crate::stdx::fuzzing::seeds;

    #[test]
    fn the_examples_are_of_every_kind() {
        let texts: Vec<String> = seeds("declared").into_iter().map(|text| String::from_utf8(text).unwrap()).collect();
        let outcomes = texts.iter().map(|text| match read(text) {
            None => vec!["unreadable".to_string()],
            Some(Ok(rows)) => vec![format!("{} rows", rows.len())],
            Some(Err(errors)) => declare_report::lines(&errors),
        });
        let outcomes: Vec<Vec<String>> = outcomes.collect();
        let taken = outcomes.iter().filter(|lines| lines.iter().all(|line| line.ends_with(" rows"))).count();
        assert!(taken >= 3 && taken < texts.len(), "{outcomes:#?}");
    }

    #[test]
    fn any_form_is_an_object_that_every_entity_judges() {
        let words =
            ["[", "]", "[]", ".", "=", "&", "[1]", "[2].", "%5B", "%", "+", "name=", "config.", "a", "&a[b][c]=1"];
        check("form", &words, 3000, form);
    }

    #[test]
    fn any_document_is_refused_with_reasons_or_means_the_same_when_written_and_read_again() {
        let words =
            ["\n", "- ", ": ", "  ", "[", "{", "}", "]", "&a ", "*a", "<<: ", "null", "routes:\n", "name: s", "'", "#"];
        check("declared", &words, 10_000, declared);
    }
}
