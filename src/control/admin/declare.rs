//! A declarative document into rows: relations nested or by name, ids that are the same on every load
//! (spec/admin-api.md sections 9.1 to 9.4).
//! Owns: what stands where in a document, generated ids, the phases in which errors are found.
//! Never: stores anything. Always: an error says where in the document it is, as a tree of the document's shape.

use crate::control::admin::declare_names::Names;
use crate::control::admin::declare_names::generated;
use crate::control::admin::declare_names::link_text;
use crate::control::admin::declare_names::migrate;
use crate::control::admin::declare_names::not_unique;
use crate::control::admin::problem::Problem;
use crate::control::admin::rows;
use crate::control::store::replace::Declared;
use crate::control::store::tables::Tables;
use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::complete::Moment;
use crate::entity::in_flavor;
use crate::entity::validate::is_uuid;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

const VERSIONS: &[&str] = &["1.1", "2.1", "3.0"];
type IsRemark = fn(&Value) -> bool;

/// What people write for people, at the top and in every entry: what it may be, and what is said otherwise.
const REMARKS: &[(&str, IsRemark, &str)] = &[
    ("_comment", |given| given.is_null() || given.is_string(), "expected a string"),
    ("_ignore", |given| given.is_null() || given.is_array() || *given == json!({}), "expected an array"),
];
/// Kong's entity of a technique that is not here: a list of none is no mistake.
const FILTER_CHAINS: &str = "filter_chains";
const NO_FILTERS: &str = "wasm support is not enabled";

/// What is wrong with one entry of a document.
#[derive(Debug)]
pub struct EntryError {
    /// `("services", 0), ("routes", 1)`; positions count from 0.
    pub place: Vec<(&'static str, usize)>,
    pub entity: &'static Entity,
    /// The entry without its nested lists.
    pub submitted: Map<String, Value>,
    pub found: Violations,
}

/// What is wrong with a document.
#[derive(Debug, Default)]
pub struct Errors {
    /// Unknown and malformed keys at the top.
    pub top: Map<String, Value>,
    pub entries: Vec<EntryError>,
    /// Entries that declare what an earlier one declares.
    pub duplicates: Vec<EntryError>,
    /// Entries that are no records: where, and the text.
    pub misfits: Vec<(Vec<(&'static str, usize)>, &'static str)>,
    /// By entity and name of the row: dangling links, values that are not unique.
    pub named: Vec<(&'static str, String, Value)>,
}

impl Errors {
    fn is_empty(&self) -> bool {
        self.top.is_empty()
            && self.misfits.is_empty()
            && self.entries.is_empty()
            && self.duplicates.is_empty()
            && self.named.is_empty()
    }
}

/// What a document is read with.
pub struct Reader<'a> {
    pub plugins: PluginLookup<'a>,
    /// As the router flavour declares them.
    pub routes: &'static Entity,
    /// The rows that stand now: a row without a generated id keeps the id under which it stands.
    pub tables: &'a Tables,
    /// Values that are stored in another form, such as passwords, are in that form already (`_transform: false`).
    pub as_is: bool,
}

/// An entry on its way to a row.
pub(super) struct Entry {
    pub(super) entity: &'static Entity,
    pub(super) place: Vec<(&'static str, usize)>,
    /// Position of the parent among the entries, and the field that refers to it.
    parent: Option<(usize, &'static str)>,
    pub(super) fields: Map<String, Value>,
    pub(super) id: Option<Uuid>,
    /// The document says the id.
    says_id: bool,
}

impl Reader<'_> {
    /// Reads a whole document.
    ///
    /// # Errors
    /// Everything that is wrong with it, of the first phase that finds anything: schemas, then duplicates and links,
    /// then other unique values.
    pub fn read(&self, document: Map<String, Value>) -> Result<Vec<Declared>, Box<Errors>> {
        let mut errors = Errors { top: check_top(&document), ..Errors::default() };
        let old_paths = document.get("_format_version").and_then(Value::as_str).is_some_and(|given| given != "3.0");
        let mut entries = Vec::new();
        for (name, value) in document {
            if name.starts_with('_') {
                continue;
            }
            let Some(entity) = self.entity(&name) else {
                errors.top.extend(unserved(&name, &value).map(|text| (name, text.into())));
                continue;
            };
            if let Err(text) = self.collect(entity, value, &[], None, &mut entries, &mut errors) {
                errors.top.insert(name, text.into());
            }
        }
        if old_paths {
            entries
                .iter_mut()
                .filter(|entry| entry.entity.name == "routes")
                .for_each(|entry| migrate(&mut entry.fields));
        }
        self.put_ids(&mut entries);
        let names = Names::of(&entries);
        let mut rows = Vec::with_capacity(entries.len());
        let mut dangling = Vec::new();
        for entry in &entries {
            match self.row(entry, &entries, &names, &mut dangling) {
                Ok(row) => rows.push(row),
                Err(found) => errors.entries.push(error(entry, &entries, found)),
            }
        }
        if errors.is_empty() {
            let twice = names.duplicates.into_iter().filter_map(|(index, text)| {
                let entry = entries.get(index)?;
                Some(error(entry, &entries, Violations { entity: vec![text], ..Violations::default() }))
            });
            errors.duplicates = twice.collect();
            errors.named = dangling;
        }
        if errors.is_empty() {
            errors.named = not_unique(&rows);
        }
        if errors.is_empty() { Ok(rows) } else { Err(Box::new(errors)) }
    }

    fn entity(&self, name: &str) -> Option<&'static Entity> {
        let loaded = |entity: &&Entity| entity.needs_plugin.is_none_or(|plugin| (self.plugins)(plugin).is_some());
        crate::entity::find(name).map(|entity| in_flavor(entity, self.routes)).filter(loaded)
    }

    /// Collects a list of entries and, right behind each, the entries nested in it.
    fn collect(
        &self,
        entity: &'static Entity,
        list: Value,
        above: &[(&'static str, usize)],
        parent: Option<(usize, &'static str)>,
        entries: &mut Vec<Entry>,
        errors: &mut Errors,
    ) -> Result<(), &'static str> {
        let list = match list {
            Value::Null => return Ok(()),
            Value::Array(list) => list,
            Value::Object(empty) if empty.is_empty() => return Ok(()),
            _ => return Err("expected an array"),
        };
        for (index, item) in list.into_iter().enumerate() {
            let mut place = above.to_vec();
            place.push((entity.name, index));
            let Value::Object(mut fields) = item else {
                errors.misfits.push((place, "expected a record"));
                continue;
            };
            let own = entries.len();
            let nested = self.nested(entity, &mut fields);
            entries.push(Entry { entity, place: place.clone(), parent, fields, id: None, says_id: false });
            for (link, value) in nested {
                let child = link.0;
                if let Err(text) = self.collect(child, value, &place, Some((own, link.1)), entries, errors) {
                    let found = Violations::of(child.name, text);
                    errors.entries.push(EntryError { place: place.clone(), entity, submitted: Map::new(), found });
                }
            }
        }
        Ok(())
    }

    /// Takes the lists of children out of an entry: each with its entity and the field that refers to the entry.
    fn nested(
        &self,
        entity: &'static Entity,
        fields: &mut Map<String, Value>,
    ) -> Vec<((&'static Entity, &'static str), Value)> {
        let mut taken = Vec::new();
        if fields.get(FILTER_CHAINS).is_some_and(|list| unserved(FILTER_CHAINS, list).is_none()) {
            fields.remove(FILTER_CHAINS);
        }
        for name in fields.keys().cloned().collect::<Vec<String>>() {
            let own_field = entity.field(&name).is_some_and(|field| !field.transient);
            let Some(child) = self.entity(&name).filter(|_| !own_field) else {
                continue;
            };
            let link = child.references().find(|reference| reference.entity == entity.name);
            if let (Some(link), Some(value)) = (link, link.and_then(|_| fields.remove(&name))) {
                taken.push(((child, link.field), value));
            }
        }
        taken
    }

    /// Parents stand before their children, so their ids are known.
    fn put_ids(&self, entries: &mut [Entry]) {
        for index in 0..entries.len() {
            let (before, rest) = entries.split_at_mut(index);
            let Some(entry) = rest.first_mut() else {
                return;
            };
            if let Some(given) = entry.fields.get("id").filter(|given| !given.is_null()) {
                // An id, or a violation to be reported.
                entry.id = given.as_str().filter(|text| is_uuid(text)).and_then(|text| Uuid::try_parse(text).ok());
                entry.says_id = true;
                continue;
            }
            let parent = entry.parent.and_then(|(parent, field)| Some((field, before.get(parent)?.id?)));
            let id = generated(entry, parent).or_else(|| self.standing(entry));
            let id = id.unwrap_or_else(Uuid::new_v4);
            entry.id = Some(id);
            entry.fields.insert("id".to_string(), id.to_string().into());
        }
    }

    /// The id of the row that has one of the entry's unique values now.
    fn standing(&self, entry: &Entry) -> Option<Uuid> {
        let unique = entry.entity.record.fields.iter().filter(|field| field.unique);
        let given = unique.filter_map(|field| Some((field.name, entry.fields.get(field.name)?.as_str()?)));
        given.into_iter().find_map(|(name, value)| self.tables.find(entry.entity, name, value))
    }

    fn row(
        &self,
        entry: &Entry,
        entries: &[Entry],
        names: &Names,
        dangling: &mut Vec<(&'static str, String, Value)>,
    ) -> Result<Declared, Violations> {
        let mut fields = entry.fields.clone();
        let dated = fields.get("created_at").is_some_and(|given| !given.is_null());
        let mut unwanted = Violations::default();
        for (name, is_remark, text) in REMARKS {
            if fields.remove(*name).is_some_and(|given| !is_remark(&given)) {
                unwanted.fields.extend(Violations::of(name, *text).fields);
            }
        }
        if let Some((parent, field)) = entry.parent {
            let given = fields.get(field).is_some_and(|given| !given.is_null());
            if given {
                unwanted.fields.extend(Violations::of(field, "value must be null").fields);
            }
            let id = entries.get(parent).and_then(|parent| parent.id).unwrap_or_default();
            fields.insert(field.to_string(), json!({ "id": id.to_string() }));
        }
        for reference in entry.entity.references() {
            let own = entry.parent.is_some_and(|(_, field)| field == reference.field);
            if let Some(id) = names.resolve(&reference, fields.get(reference.field)).filter(|_| !own) {
                if id.is_nil() {
                    let name = fields.get(reference.field).map(link_text).unwrap_or_default();
                    let text = format!(
                        "invalid reference '{}: {name}' (no such entry in '{}')",
                        reference.field, reference.entity
                    );
                    dangling.push((entry.entity.name, name_of(entry), json!([text])));
                }
                fields.insert(reference.field.to_string(), json!({ "id": id.to_string() }));
            }
        }
        let ttl_seconds = rows::take_ttl(entry.entity, &mut fields).map_err(|problem| match problem {
            Problem::BadOption { option, text } => Violations::of(option, text),
            _ => Violations::of("ttl", "expected an integer"),
        })?;
        let moment = Moment { now_ms: self.tables.now_ms };
        let made = match self.as_is {
            true => entry.entity.create_as_is(fields, moment, self.plugins),
            false => entry.entity.create(fields, moment, self.plugins),
        };
        let row = match (made, unwanted.is_empty()) {
            (Ok(row), true) => row,
            (Ok(_), false) => return Err(unwanted),
            (Err(mut found), _) => {
                found.fields.extend(unwanted.fields);
                return Err(found);
            }
        };
        let id = entry.id.ok_or_else(|| Violations::of("id", "expected a valid UUID"))?;
        let created_ms = row.get("created_at").and_then(Value::as_u64).unwrap_or_default().saturating_mul(1000);
        let expires_at_ms = ttl_seconds.and_then(|seconds| rows::expiry(created_ms, seconds));
        Ok(Declared { entity: entry.entity, id, row, expires_at_ms, dated })
    }
}

/// What is said of a list of what is no entity here.
fn unserved(name: &str, list: &Value) -> Option<&'static str> {
    match (name, list) {
        (FILTER_CHAINS, Value::Null) => None,
        (FILTER_CHAINS, Value::Array(list)) if list.is_empty() => None,
        (FILTER_CHAINS, _) => Some(NO_FILTERS),
        _ => Some("unknown field"),
    }
}

/// The keys at the top that are no lists of entities.
fn check_top(document: &Map<String, Value>) -> Map<String, Value> {
    let mut wrong = Map::new();
    let version = match document.get("_format_version") {
        None | Some(Value::Null) => Some("required field missing"),
        Some(Value::String(text)) if VERSIONS.contains(&text.as_str()) => None,
        Some(Value::String(_)) => Some("expected one of: 1.1, 2.1, 3.0"),
        Some(_) => Some("expected a string"),
    };
    let transform = match document.get("_transform") {
        None | Some(Value::Null | Value::Bool(_)) => None,
        Some(_) => Some("expected a boolean"),
    };
    for (name, text) in [("_format_version", version), ("_transform", transform)] {
        wrong.extend(text.map(|text| (name.to_string(), text.into())));
    }
    for (name, is_remark, text) in REMARKS {
        if document.get(*name).is_some_and(|given| !is_remark(given)) {
            wrong.insert((*name).to_string(), (*text).into());
        }
    }
    let remarks = REMARKS.iter().map(|(name, ..)| *name);
    let known: Vec<&str> = remarks.chain(["_format_version", "_transform"]).collect();
    for name in document.keys().filter(|name| name.starts_with('_') && !known.contains(&name.as_str())) {
        wrong.insert(name.clone(), "unknown field".into());
    }
    wrong
}

fn name_of(entry: &Entry) -> String {
    let named = entry.fields.get(entry.entity.path_key).and_then(Value::as_str);
    named.map(str::to_string).or_else(|| entry.id.map(|id| id.to_string())).unwrap_or_default()
}

fn error(entry: &Entry, entries: &[Entry], found: Violations) -> EntryError {
    EntryError { place: entry.place.clone(), entity: entry.entity, submitted: submitted(entry, entries), found }
}

/// The entry as it was sent, for reports; with the id of its parent where the document says that.
fn submitted(entry: &Entry, entries: &[Entry]) -> Map<String, Value> {
    let mut sent = entry.fields.clone();
    if !entry.says_id {
        sent.remove("id");
    }
    let parent = entry.parent.and_then(|(parent, field)| Some((field, entries.get(parent)?)));
    if let Some((field, Entry { id: Some(id), says_id: true, .. })) = parent {
        sent.insert(field.to_string(), json!({ "id": id.to_string() }));
    }
    sent
}
