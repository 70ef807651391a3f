//! One row at a time, inside a transaction: find, create, replace, patch, show.
//! Owns: what a name in a path means, `ttl`, and the steps of a write that are the same for every entity.
//! Never: speaks HTTP.

use crate::control::admin::decode::Input;
use crate::control::admin::paths::Variable;
use crate::control::admin::problem::Problem;
use crate::control::admin::server_names;
use crate::control::admin::server_names::Wanted;
use crate::control::store::tables::Entry;
use crate::control::store::tables::Tables;
use crate::control::store::tables::reference_id;
use crate::control::store::transaction::Transaction;
use crate::control::validate;
use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::complete::Moment;
use crate::entity::validate::is_uuid;
use crate::limits::TTL_SECONDS_MAX;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// How a path names a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Name {
    Id(Uuid),
    /// A value of the path key.
    Key(String),
}

impl Name {
    /// # Errors
    /// The segment breaks the rules of the path key.
    pub fn read(entity: &Entity, segment: &Variable) -> Result<Name, Problem> {
        let named = namer(entity);
        let bad = |text| Problem::BadKey { field: named.path_key.to_string(), text };
        let text = segment
            .decoded
            .as_ref()
            .map_err(|position| bad(format!("invalid utf-8 character sequence detected at position {position}")))?;
        if is_uuid(text)
            && let Ok(id) = Uuid::try_parse(text)
        {
            return Ok(Name::Id(id));
        }
        if named.path_key.is_empty() {
            return Err(Problem::BadId);
        }
        named.check_path_key(text).map_err(bad)?;
        Ok(Name::Key(text.clone()))
    }

    pub fn find(&self, entity: &Entity, tables: &Tables) -> Option<Uuid> {
        match self {
            Name::Id(id) => tables.get(entity, *id).map(|_| *id),
            Name::Key(key) => {
                let named = namer(entity);
                let id = tables.find(named, named.path_key, key)?;
                match entity.named_by {
                    None => Some(id),
                    Some((_, field)) => tables.get(named, id)?.row().get(field).and_then(reference_id),
                }
            }
        }
    }

    /// The answer to a change of a row that is not there.
    pub fn absent(&self, entity: &Entity) -> Problem {
        match self {
            // Plugins are read before they are changed, and answer as reads do.
            _ if entity.name == "plugins" => Problem::not_found(),
            Name::Id(id) => Problem::Absent { key: "id", value: id.to_string() },
            Name::Key(_) if entity.named_by.is_some() => unnamed(entity),
            Name::Key(key) => Problem::Absent { key: entity.path_key, value: key.clone() },
        }
    }

    /// The answer to a read of a row that is not there.
    pub fn missing(&self, entity: &Entity) -> Problem {
        if entity.named_by.is_some() { self.absent(entity) } else { Problem::not_found() }
    }

    /// The answer to a path below a row that is not there.
    pub fn missing_parent(&self, entity: &Entity) -> Problem {
        match self {
            Name::Key(_) if entity.named_by.is_some() => unnamed(entity),
            _ => Problem::not_found(),
        }
    }
}

/// The entity whose path key names the rows of this one: itself, nearly always.
fn namer(entity: &Entity) -> &Entity {
    entity.named_by.and_then(|(namer, _)| crate::entity::find(namer)).unwrap_or(entity)
}

/// "SNI not found"
fn unnamed(entity: &Entity) -> Problem {
    let namer = namer(entity).name.trim_end_matches('s').to_ascii_uppercase();
    Problem::Plain(StatusCode::NOT_FOUND, format!("{namer} not found"))
}

/// What a write needs to know besides its input.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    pub entity: &'static Entity,
    pub plugins: PluginLookup<'a>,
}

impl Writer<'_> {
    fn fields(&self, input: Input, stored: Option<&Map<String, Value>>, fixed: &[(&str, Value)]) -> Map<String, Value> {
        let Input { mut fields, untyped, .. } = input;
        if untyped {
            self.entity.infer(&mut fields, stored, self.plugins);
        }
        fields.extend(fixed.iter().map(|(name, value)| (name.to_string(), value.clone())));
        fields
    }

    /// POST. `fixed` fields are those that the path decides.
    ///
    /// # Errors
    /// Whatever is wrong with the input, or with the rows around it.
    pub fn create(&self, tx: &mut Transaction, input: Input, fixed: &[(&str, Value)]) -> Result<Uuid, Problem> {
        let mut fields = self.fields(input, None, fixed);
        let names = Wanted::take(self.entity, &mut fields, false);
        names.check(&tx.tables, None)?;
        let (row, expires_at_ms) = self.whole_row(tx, fields)?;
        let id = own_id(&row)?;
        tx.insert(self.entity, id, row, expires_at_ms).map_err(Problem::Conflict)?;
        names.apply(tx, id)?;
        Ok(id)
    }

    /// PUT: whatever stands under the name is replaced whole, keeping id and key; nothing there: created.
    ///
    /// # Errors
    /// Whatever is wrong with the input, or with the rows around it.
    pub fn replace(
        &self,
        tx: &mut Transaction,
        name: &Name,
        input: Input,
        fixed: &[(&str, Value)],
    ) -> Result<Uuid, Problem> {
        let standing = name.find(self.entity, &tx.tables);
        let mut fixed = fixed.to_vec();
        match (name, standing) {
            (Name::Id(id), _) => fixed.push(("id", id.to_string().into())),
            (Name::Key(_), None) if self.entity.named_by.is_some() => {}
            (Name::Key(_), Some(id)) if self.entity.named_by.is_some() => fixed.push(("id", id.to_string().into())),
            (Name::Key(key), None) => fixed.push((self.entity.path_key, key.clone().into())),
            (Name::Key(key), Some(id)) => {
                fixed.push(("id", id.to_string().into()));
                fixed.push((self.entity.path_key, key.clone().into()));
            }
        }
        let mut fields = self.fields(input, None, &fixed);
        let mut names = Wanted::take(self.entity, &mut fields, true);
        match (name, standing) {
            (Name::Key(name), None) => names.add(name),
            _ => names.default_to_none(),
        }
        names.check(&tx.tables, standing)?;
        let (row, expires_at_ms) = self.whole_row(tx, fields)?;
        let id = own_id(&row)?;
        let written = match standing {
            None => tx.insert(self.entity, id, row, expires_at_ms),
            Some(_) => tx.put(self.entity, id, row, expires_at_ms),
        };
        written.map_err(Problem::Conflict)?;
        names.apply(tx, id)?;
        Ok(id)
    }

    fn whole_row(
        &self,
        tx: &Transaction,
        mut fields: Map<String, Value>,
    ) -> Result<(Map<String, Value>, Option<u64>), Problem> {
        let ttl_seconds = take_ttl(self.entity, &mut fields)?;
        let compares = self.entity.name == "plugins" && validate::compares_protocols(&fields, false);
        validate::resolve(self.entity, &mut fields, &tx.tables).map_err(Problem::Unresolved)?;
        let moment = Moment { now_ms: tx.tables.now_ms };
        let row = self.entity.create(fields, moment, self.plugins).map_err(Problem::Schema)?;
        if compares {
            validate::match_protocols(&row, &tx.tables).map_err(Problem::Schema)?;
        }
        let created_ms = row.get("created_at").and_then(Value::as_u64).unwrap_or_default().saturating_mul(1000);
        Ok((row, ttl_seconds.and_then(|seconds| expiry(created_ms, seconds))))
    }

    /// PATCH of the row under `id`, which exists.
    ///
    /// # Errors
    /// Whatever is wrong with the input, or with the rows around it.
    pub fn patch(&self, tx: &mut Transaction, name: &Name, id: Uuid, input: Input) -> Result<(), Problem> {
        let entry = tx.tables.get(self.entity, id).ok_or_else(|| name.absent(self.entity))?;
        let stored = entry.row();
        let mut fields = self.fields(input, Some(&stored), &[]);
        let names = Wanted::take(self.entity, &mut fields, true);
        names.check(&tx.tables, Some(id))?;
        let ttl_seconds = take_ttl(self.entity, &mut fields)?;
        let compares = self.entity.name == "plugins" && validate::compares_protocols(&fields, true);
        validate::resolve(self.entity, &mut fields, &tx.tables).map_err(Problem::Unresolved)?;
        let moment = Moment { now_ms: tx.tables.now_ms };
        let mut row = self.entity.update(&stored, fields, moment, self.plugins).map_err(Problem::Schema)?;
        if own_id(&row).ok() != Some(id) {
            if matches!(name, Name::Id(_)) {
                return Err(name.absent(self.entity));
            }
            row.insert("id".to_string(), id.to_string().into());
        }
        if compares {
            validate::match_protocols(&row, &tx.tables).map_err(Problem::Schema)?;
        }
        let expires_at_ms = match ttl_seconds {
            Some(seconds) => expiry(tx.tables.now_ms, seconds),
            None => entry.expires_at_ms,
        };
        tx.put(self.entity, id, row, expires_at_ms).map_err(Problem::Conflict)?;
        names.apply(tx, id)
    }
}

fn own_id(row: &Map<String, Value>) -> Result<Uuid, Problem> {
    let id = row.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok());
    id.ok_or(Problem::NullId)
}

/// `ttl` is an option of the write, not a field.
pub(super) fn take_ttl(entity: &Entity, fields: &mut Map<String, Value>) -> Result<Option<u64>, Problem> {
    if !entity.ttl {
        return Ok(None);
    }
    let given = match fields.remove("ttl") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => crate::entity::coerce::number(&text),
        Some(other) => Some(other),
    };
    match given.as_ref().and_then(Value::as_u64) {
        Some(seconds) if seconds <= TTL_SECONDS_MAX => Ok(Some(seconds)),
        _ => Err(Problem::BadOption { option: "ttl", text: "must be an integer between 0 and 100000000" }),
    }
}

/// 0 seconds: never.
pub(super) fn expiry(from_ms: u64, seconds: u64) -> Option<u64> {
    (seconds > 0).then(|| from_ms.saturating_add(seconds * 1000))
}

/// A row as it is shown: the stored text, with what is not part of it: the remaining `ttl`, the names of a certificate.
pub fn show(entity: &Entity, entry: &Entry, tables: &Tables) -> String {
    let (name, value) = if entity.ttl {
        ("ttl", json!(entry.expires_at_ms.map(|at_ms| at_ms.saturating_sub(tables.now_ms) / 1000)))
    } else if server_names::has_some(entity) {
        ("snis", json!(server_names::of(entry, tables)))
    } else {
        return entry.body.to_string();
    };
    let body = entry.body.strip_suffix('}').unwrap_or(&entry.body);
    format!("{body},\"{name}\":{value}}}")
}

/// The row under an id that was just written or found.
pub fn show_id(entity: &Entity, tables: &Tables, id: Uuid) -> Result<String, Problem> {
    let entry = tables.get(entity, id).ok_or_else(Problem::not_found)?;
    Ok(show(entity, &entry, tables))
}

/// Rows of a page.
pub fn show_all(entity: &Entity, tables: &Tables, entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| show(entity, entry, tables)).collect()
}

/// The id in the stored text.
pub fn id_of(entry: &Entry) -> Value {
    entry.row().remove("id").unwrap_or_default()
}
