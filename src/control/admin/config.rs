//! The whole configuration as one document: read, previewed, replaced (spec/admin-api.md sections 8.1, 8.2 and 9).
//! Owns: `/config`: its input forms, its options, the answer and the preview of a load.
//! Always: a load is one write: all of it or nothing, one version.

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::declare::Errors;
use crate::control::admin::declare::Reader;
use crate::control::admin::declare_report;
use crate::control::admin::decode::Input;
use crate::control::admin::form::Pair;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use crate::control::store::WriteError;
use crate::control::store::replace::Difference;
use crate::control::store::tables::Tables;
use crate::control::store::transaction::Transaction;
use crate::entity::ENTITIES;
use crate::entity::complete::whole;
use crate::state::compile::Refusal;
use hyper::Method;
use hyper::StatusCode;
use md5::Digest;
use md5::Md5;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::HashMap;
use uuid::Uuid;

/// What a client may say beside the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    check_hash: bool,
    flatten_errors: bool,
    dry_run: bool,
}

/// The document that was loaded last: its hash, and the version that it made. Any later change makes it void.
pub(super) type Loaded = Option<(String, u64)>;

/// What one load did, or would do.
struct Outcome {
    differences: Vec<Difference>,
    /// The rows as they stand afterwards.
    body: String,
    version: u64,
}

impl<P: Publish> Admin<P> {
    pub(super) async fn config(&self, call: Call) -> Result<Reply, Problem> {
        if call.method != Method::POST {
            return dump(&self.store.view());
        }
        let Call { query, input, .. } = call;
        let (Document { fields, text }, options) = read(query, input)?;
        let is_text = text.is_some();
        let hash = hash(&text.unwrap_or_else(|| Value::Object(fields.clone()).to_string()));
        if options.check_hash && is_text && *self.loaded() == Some((hash.clone(), self.store.view().version)) {
            return Ok(Reply { status: StatusCode::NOT_MODIFIED, ..Reply::empty() });
        }
        let mut names = HashMap::new();
        let work = |tx: &mut Transaction| self.load(tx, fields, options, &mut names);
        if options.dry_run {
            let outcome = self.store.rehearse(work).await.map_err(|error| problem(error, &names))?;
            return Ok(Reply::json(StatusCode::OK, &preview(&outcome)));
        }
        let written = self.store.write(work).await.map_err(|error| problem(error, &names))?;
        *self.loaded() = Some((hash, written.value.version));
        Ok(super::crud::with_version(Reply::rendered(StatusCode::CREATED, written.value.body), &written.applied))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.loaded_document.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn load(
        &self,
        tx: &mut Transaction,
        document: Map<String, Value>,
        options: Options,
        names: &mut HashMap<Uuid, String>,
    ) -> Result<Outcome, Problem> {
        let plugins = |name: &str| self.plugin(name);
        let as_is = document.get("_transform") == Some(&Value::Bool(false));
        let reader = Reader { plugins: &plugins, routes: self.routes, tables: &tx.tables, as_is };
        let rows = reader.read(document).map_err(|errors| refused(&errors, options))?;
        names.extend(rows.iter().filter_map(|row| {
            let name = row.row.get(row.entity.path_key)?.as_str()?;
            Some((row.id, name.to_string()))
        }));
        let differences = tx.replace_all(rows).map_err(Problem::Conflict)?;
        let version = tx.tables.version + u64::from(!differences.is_empty());
        Ok(Outcome { differences, body: shown(&tx.tables), version })
    }
}

fn refused(errors: &Errors, options: Options) -> Problem {
    if options.flatten_errors {
        let (fields, flattened) = declare_report::flattened(errors);
        return Problem::Declared { fields, flattened: Some(flattened) };
    }
    Problem::Declared { fields: declare_report::fields(errors), flattened: None }
}

fn problem(error: WriteError<Problem>, names: &HashMap<Uuid, String>) -> Problem {
    match error {
        WriteError::Refused(problem) => problem,
        WriteError::Uncompilable(refusals) => {
            Problem::Declared { fields: uncompilable(refusals, names), flattened: None }
        }
        WriteError::Unsaved(reason) => Problem::unsaved(&reason),
    }
}

/// What the data plane cannot serve, by entity and name, or id.
fn uncompilable(refusals: Vec<Refusal>, names: &HashMap<Uuid, String>) -> Map<String, Value> {
    let mut fields = Map::new();
    for Refusal { entity, id, field, message } in refusals {
        let of_entity = fields.entry(entity).or_insert_with(|| json!({}));
        let field = if field.is_empty() { "@entity".to_string() } else { field };
        let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        of_entity[name][field] = message.into();
    }
    fields
}

/// A document to load, and the text that it came as, if any.
struct Document {
    fields: Map<String, Value>,
    text: Option<String>,
}

fn read(query: Vec<Pair>, input: Input) -> Result<(Document, Options), Problem> {
    let mut given = input.fields;
    let in_query = query.into_iter().map(|(name, value)| (name, value.map_or(Value::Bool(true), Value::String)));
    given.extend(in_query);
    let mut flag = |name: &str| given.remove(name).is_some_and(|value| is_on(&value));
    let options =
        Options { check_hash: flag("check_hash"), flatten_errors: flag("flatten_errors"), dry_run: flag("dry_run") };
    let text = input.text.or_else(|| given.get("config").and_then(Value::as_str).map(str::to_string));
    match text {
        Some(text) => Ok((Document { fields: parse(&text)?, text: Some(text) }, options)),
        None if input.untyped => Err(Problem::bad_request("expected a declarative configuration")),
        None => Ok((Document { fields: given, text: None }, options)),
    }
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::String(text) => ["1", "true", "on", "yes"].contains(&text.to_ascii_lowercase().as_str()),
        other => *other == 1,
    }
}

/// A JSON or YAML document. Anchors and merge keys are resolved.
fn parse(text: &str) -> Result<Map<String, Value>, Problem> {
    let failed = |reason: String| {
        let text = format!("failed parsing declarative configuration: {reason}");
        Problem::Declared { fields: Map::from_iter([("error".to_string(), text.into())]), flattened: None }
    };
    if let Ok(Value::Object(fields)) = serde_json::from_str(text).map(whole) {
        return Ok(fields);
    }
    let mut document: serde_norway::Value =
        serde_norway::from_str(text).map_err(|error| failed(yaml_reason(&error)))?;
    document.apply_merge().map_err(|error| failed(error.to_string()))?;
    match serde_norway::from_value(document).map(whole).map_err(|error| failed(error.to_string()))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(failed("expected an object".to_string())),
    }
}

/// `1:4: did not find expected node content`, as Kong puts the position first.
fn yaml_reason(error: &serde_norway::Error) -> String {
    let text = error.to_string();
    let Some(place) = error.location() else {
        return text;
    };
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{}:{}: {what}", place.line(), place.column())
}

fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every row, by entity and id.
fn shown(tables: &Tables) -> String {
    let mut out = String::from("{");
    for entity in ENTITIES {
        let rows = tables.page(entity, None, usize::MAX, None).rows;
        for (index, row) in rows.iter().enumerate() {
            let before = match (index, out.len()) {
                (0, 1) => format!("\"{}\":{{", entity.name),
                (0, _) => format!(",\"{}\":{{", entity.name),
                _ => ",".to_string(),
            };
            out.push_str(&format!("{before}{}:{}", super::rows::id_of(row), row.body));
        }
        if !rows.is_empty() {
            out.push('}');
        }
    }
    out.push('}');
    out
}

/// What a load would do, without having done it.
fn preview(outcome: &Outcome) -> Value {
    let (mut created, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for Difference { entity, id, old, new } in &outcome.differences {
        let mut entry = json!({ "entity": entity.name, "id": id.to_string() });
        match (old, new) {
            (Some(old), Some(new)) => {
                let differs = new.iter().filter(|(name, value)| *name != "updated_at" && old.get(*name) != Some(value));
                let fields = differs.map(|(name, value)| (name.clone(), json!({ "old": old.get(name), "new": value })));
                entry["fields"] = Value::Object(fields.collect());
                changed.push(entry);
            }
            (None, Some(new)) => {
                entry["row"] = Value::Object(new.clone());
                created.push(entry);
            }
            (Some(old), None) => {
                entry["row"] = Value::Object(old.clone());
                deleted.push(entry);
            }
            (None, None) => {}
        }
    }
    json!({ "dry_run": true, "created": created, "changed": changed, "deleted": deleted })
}

/// The configuration as a document that loads to the same.
fn dump(tables: &Tables) -> Result<Reply, Problem> {
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
    let text = serde_norway::to_string(&document).map_err(|error| Problem::unsaved(&error.to_string()))?;
    Ok(Reply::json(StatusCode::OK, &json!({ "config": text })))
}
