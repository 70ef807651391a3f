//! The virtual `snis` of certificates: a list of names that stands for rows of another entity
//! (spec/admin-api.md section 7.11).
//! Owns: reading, checking and applying the list. Always: names are checked before anything is written.

use crate::control::admin::problem::Problem;
use crate::control::store::tables::Entry;
use crate::control::store::tables::Tables;
use crate::control::store::tables::reference_id;
use crate::control::store::transaction::Transaction;
use crate::entity::Entity;
use crate::entity::certificate::CERTIFICATES;
use crate::entity::certificate::SNIS;
use crate::entity::complete::Moment;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::HashSet;
use uuid::Uuid;

const FIELD: &str = "snis";
const LINK: &str = "certificate";

/// Which names a certificate is to have.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// The entity has no names, or nothing was said about them.
    Unsaid,
    Names(Vec<String>),
}

/// Whether rows of this entity have names.
pub fn has_some(entity: &Entity) -> bool {
    entity.name == CERTIFICATES.name
}

/// The names of a stored certificate, sorted.
pub fn of(entry: &Entry, tables: &Tables) -> Vec<String> {
    let row = Value::Object(entry.row());
    reference_id(&row).map(|id| rows_of(tables, id).into_keys().collect()).unwrap_or_default()
}

fn rows_of(tables: &Tables, certificate: Uuid) -> BTreeMap<String, Uuid> {
    let rows = tables.children(&SNIS, LINK, certificate, None, usize::MAX).rows;
    let named = rows.iter().filter_map(|entry| {
        let row = entry.row();
        let name = row.get(SNIS.path_key)?.as_str()?.to_string();
        Some((name, reference_id(&Value::Object(row))?))
    });
    named.collect()
}

impl Wanted {
    /// Takes the list out of the fields of a write; what is no list of strings stays there, for the schema to refuse.
    /// `lenient`: one string is a list of one, and null is an empty list.
    pub fn take(entity: &Entity, fields: &mut Map<String, Value>, lenient: bool) -> Wanted {
        if !has_some(entity) {
            return Wanted::Unsaid;
        }
        let names = match fields.get(FIELD) {
            Some(Value::Array(list)) => list.iter().map(|name| name.as_str().map(str::to_string)).collect(),
            Some(Value::String(name)) if lenient => Some(vec![name.clone()]),
            Some(Value::Null) => Some(Vec::new()),
            _ => None,
        };
        match names {
            Some(names) => {
                fields.remove(FIELD);
                Wanted::Names(names)
            }
            None => Wanted::Unsaid,
        }
    }

    /// A name in the path joins the names that are given; alone it is not taken.
    pub fn add(&mut self, name: &str) {
        if let Wanted::Names(names) = self
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_string());
        }
    }

    /// Where nothing was said, all names go.
    pub fn default_to_none(&mut self) {
        if *self == Wanted::Unsaid {
            *self = Wanted::Names(Vec::new());
        }
    }

    /// # Errors
    /// A malformed name, one given twice, or one of another certificate than `own`.
    pub fn check(&self, tables: &Tables, own: Option<Uuid>) -> Result<(), Problem> {
        let Wanted::Names(names) = self else {
            return Ok(());
        };
        let refuse = |text: String| Err(Problem::Schema(Violations::of(FIELD, text)));
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return refuse(format!("{twice} is duplicated"));
        }
        for name in names {
            let bad = |text| Problem::BadKey { field: SNIS.path_key.to_string(), text };
            SNIS.check_path_key(name).map_err(bad)?;
            let holder = tables.find(&SNIS, SNIS.path_key, name).and_then(|id| tables.get(&SNIS, id));
            let holder = holder.and_then(|entry| entry.row().get(LINK).and_then(reference_id));
            if let Some(holder) = holder.filter(|holder| own != Some(*holder)) {
                return refuse(format!("{name} already associated with existing certificate '{holder}'"));
            }
        }
        Ok(())
    }

    /// Makes the names those of a certificate that was just written: missing ones are created, others deleted.
    ///
    /// # Errors
    /// A conflict with another row.
    pub fn apply(self, tx: &mut Transaction, certificate: Uuid) -> Result<(), Problem> {
        let Wanted::Names(names) = self else {
            return Ok(());
        };
        let standing = rows_of(&tx.tables, certificate);
        for id in standing.iter().filter(|(name, _)| !names.contains(name)).map(|(_, id)| *id) {
            tx.delete(&SNIS, id).map_err(Problem::Conflict)?;
        }
        for name in names.iter().filter(|name| !standing.contains_key(*name)) {
            let fields = json!({ SNIS.path_key: name, LINK: { "id": certificate.to_string() } });
            let fields = fields.as_object().cloned().unwrap_or_default();
            let moment = Moment { now_ms: tx.tables.now_ms };
            let row = SNIS.create(fields, moment, &|_| None).map_err(Problem::Schema)?;
            if let Some(id) = row.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok()) {
                tx.insert(&SNIS, id, row, None).map_err(Problem::Conflict)?;
            }
        }
        Ok(())
    }
}
