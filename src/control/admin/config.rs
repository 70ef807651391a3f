//! The whole configuration as one document: read, previewed, replaced (spec/admin-api.md sections 8.1, 8.2 and 9).
//! Owns: `/config`: its input forms, its options, the answer and the preview of a load.
//! Always: a load is one write: all of it or nothing, one version.

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::declare::Errors;
use crate::control::admin::declare_report;
use crate::control::admin::decode::Input;
use crate::control::admin::document;
use crate::control::admin::document::EMPTY_HASH;
use crate::control::admin::form::Pair;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Applied;
use crate::control::store::Publish;
use crate::control::store::WriteError;
use crate::control::store::replace::Difference;
use crate::control::store::tables::Tables;
use crate::control::store::transaction::Transaction;
use crate::control::unstalled;
use crate::state::compile::Refusal;
use crate::stdx::heap;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// What a client may say beside the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    check_hash: bool,
    flatten_errors: bool,
    dry_run: bool,
}

/// The document that was loaded last: its hash, and the version that it made. Any later change makes it void.
pub type Loaded = Option<(String, u64)>;

/// What one load did, or would do.
struct Outcome {
    differences: Vec<Difference>,
    /// The rows as they stand afterwards.
    body: String,
    is_empty: bool,
    version: u64,
}

/// The one load in progress.
struct Loading<'a>(&'a AtomicBool);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<P: Publish> Admin<P> {
    pub(super) async fn config(&self, call: Call) -> Result<Reply, Problem> {
        if call.method != Method::POST {
            let text = unstalled(|| document::write(&self.store.view())).map_err(|reason| Problem::unsaved(&reason))?;
            return Ok(Reply::json(StatusCode::OK, &json!({ "config": text })));
        }
        // The cores finish what is under way and end: nobody would serve it.
        if self.node.stopping() {
            return Err(Problem::Plain(StatusCode::SERVICE_UNAVAILABLE, "Kong currently exiting".to_string()));
        }
        // Each load holds its document and two configurations: one at a time bounds that.
        if self.loading.swap(true, Ordering::Acquire) {
            let reply = Problem::Plain(StatusCode::TOO_MANY_REQUESTS, LOADING.to_string()).into_reply();
            return Ok(reply.with("Retry-After", RETRY_AFTER_SECONDS));
        }
        let _loading = Loading(&self.loading);
        let Call { query, input, .. } = call;
        let (Document { fields, text }, options) = unstalled(|| read(query, input))?;
        let hash = text.as_deref().map_or_else(|| document::hash_of(&fields), document::hash);
        if options.check_hash && text.is_some() && self.is_in_force(&hash) {
            return Ok(Reply { status: StatusCode::NOT_MODIFIED, ..Reply::empty() });
        }
        if options.dry_run {
            let mut names = HashMap::new();
            let work = |tx: &mut Transaction| unstalled(|| self.load(tx, fields, options, &mut names));
            let outcome = self.store.rehearse(work).await.map_err(|error| problem(error, &names))?;
            return Ok(Reply::json(StatusCode::OK, &unstalled(|| preview(&outcome))));
        }
        let (outcome, applied) = self.load_whole(fields, hash, options).await?;
        Ok(super::crud::with_version(Reply::rendered(StatusCode::CREATED, outcome.body), &applied))
    }

    /// Loads the document with which the node was started once more, after it may have changed.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it; then everything is as before.
    pub async fn reload(&self, text: &str) -> Result<(), String> {
        let fields = document::parse(text)?;
        let loaded = self.load_whole(fields, document::hash(text), Options::default()).await;
        loaded.map(|_| ()).map_err(Problem::message)
    }

    async fn load_whole(
        &self,
        fields: Map<String, Value>,
        hash: String,
        options: Options,
    ) -> Result<(Outcome, Applied), Problem> {
        let mut names = HashMap::new();
        let work = |tx: &mut Transaction| unstalled(|| self.load(tx, fields, options, &mut names));
        let written = self.store.write(work).await.map_err(|error| problem(error, &names))?;
        if written.value.differences.len() >= HEAP_ROWS {
            unstalled(heap::give_back);
        }
        let hash = if written.value.is_empty { EMPTY_HASH.to_string() } else { hash };
        *self.loaded() = Some((hash, written.value.version));
        Ok((written.value, written.applied))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.loaded_document.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the document of this hash is what the rows say now. Without a database nothing but a load changes them.
    fn is_in_force(&self, hash: &str) -> bool {
        let version = self.store.view().version;
        let current = |loaded: &(String, u64)| loaded.0 == hash && (self.store.is_in_memory() || loaded.1 == version);
        self.loaded().as_ref().is_some_and(current)
    }

    /// The hash of the document that was loaded last.
    pub(super) fn loaded_hash(&self) -> String {
        self.loaded().as_ref().map_or_else(|| EMPTY_HASH.to_string(), |(hash, _)| hash.clone())
    }

    fn load(
        &self,
        tx: &mut Transaction,
        document: Map<String, Value>,
        options: Options,
        names: &mut HashMap<Uuid, String>,
    ) -> Result<Outcome, Problem> {
        let plugins = |name: &str| self.plugin(name);
        let rows = document::rows(document, &plugins, self.routes, &tx.tables);
        let rows = rows.map_err(|errors| refused(&errors, options))?;
        names.extend(rows.iter().filter_map(|row| {
            let name = row.row.get(row.entity.path_key)?.as_str()?;
            Some((row.id, name.to_string()))
        }));
        let is_empty = rows.is_empty();
        let differences = tx.replace_all(rows).map_err(Problem::Conflict)?;
        let version = tx.tables.version + u64::from(!differences.is_empty());
        let body = if options.dry_run { String::new() } else { shown(&tx.tables) };
        Ok(Outcome { differences, body, is_empty, version })
    }
}

/// From so many changed rows on a load has needed memory that is worth giving back.
const HEAP_ROWS: usize = 10_000;
const LOADING: &str = "Currently loading previous configuration";
/// When a client that met another load should try again.
const RETRY_AFTER_SECONDS: u32 = 1;

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

fn parse(text: &str) -> Result<Map<String, Value>, Problem> {
    document::parse(text).map_err(|reason| {
        let text = format!("failed parsing declarative configuration: {reason}");
        Problem::Declared { fields: Map::from_iter([("error".to_string(), text.into())]), flattened: None }
    })
}

/// Every row, by entity and id.
fn shown(tables: &Tables) -> String {
    let mut out = String::from("{");
    let mut shown_last = "";
    for (entity, id, row) in tables.all() {
        match shown_last {
            last if last == entity.name => out.push(','),
            "" => out.push_str(&format!("\"{}\":{{", entity.name)),
            _ => out.push_str(&format!("}},\"{}\":{{", entity.name)),
        }
        shown_last = entity.name;
        out.push_str(&format!("\"{id}\":"));
        out.push_str(&row.body);
    }
    out.push_str(if shown_last.is_empty() { "}" } else { "}}" });
    out
}

/// What a load would do, without having done it.
fn preview(outcome: &Outcome) -> Value {
    let (mut created, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for Difference { entity, id, old, new } in &outcome.differences {
        let mut entry = json!({ "entity": entity.name, "id": id.to_string() });
        match (old.as_ref().map(|row| row.row()), new.as_ref().map(|row| row.row())) {
            (Some(old), Some(new)) => {
                let differs =
                    new.iter().filter(|(name, value)| *name != "updated_at" && old.get(*name) != Some(*value));
                let fields = differs.map(|(name, value)| (name.clone(), json!({ "old": old.get(name), "new": value })));
                entry["fields"] = Value::Object(fields.collect());
                changed.push(entry);
            }
            (None, Some(new)) => {
                entry["row"] = Value::Object(new);
                created.push(entry);
            }
            (Some(old), None) => {
                entry["row"] = Value::Object(old);
                deleted.push(entry);
            }
            (None, None) => {}
        }
    }
    json!({ "dry_run": true, "created": created, "changed": changed, "deleted": deleted })
}
