//! What the schema alone cannot check: references by name, and plugins against the routes and services they are for.
//! Owns: the lookups of a write before it reaches the store. Never: writes, or checks a field by itself.

use crate::control::store::tables::Tables;
use crate::control::store::tables::reference_id;
use crate::entity::Entity;
use crate::entity::validate::is_uuid;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;

/// A reference by name that found nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Unresolved {
    pub field: &'static str,
    /// The unique field of the referenced entity, and the value looked for.
    pub key: &'static str,
    pub value: String,
    pub entity: &'static str,
}

/// Replaces references by a unique field (`{"name": "s1"}`) with references by id (spec/admin-api.md section 2.9).
///
/// # Errors
/// The references that name rows which do not exist.
pub fn resolve(entity: &Entity, input: &mut Map<String, Value>, tables: &Tables) -> Result<(), Vec<Unresolved>> {
    let mut missing = Vec::new();
    for reference in entity.references() {
        let Some(Value::Object(given)) = input.get(reference.field) else {
            continue;
        };
        if given.get("id").and_then(Value::as_str).is_some_and(is_uuid) {
            continue;
        }
        let Some(referenced) = crate::entity::find(reference.entity) else {
            continue;
        };
        let unique = referenced.record.fields.iter().filter(|field| field.unique);
        let named = unique.filter_map(|field| given.get(field.name)?.as_str().map(|value| (field.name, value)));
        let named: Vec<(&'static str, &str)> = named.filter(|(_, value)| !value.is_empty()).collect();
        let found = named.iter().find_map(|(key, value)| tables.find(referenced, key, value));
        match found {
            Some(id) => {
                let resolved = Map::from_iter([("id".to_string(), Value::from(id.to_string()))]);
                input.insert(reference.field.to_string(), Value::Object(resolved));
            }
            None => missing.extend(named.into_iter().map(|(key, value)| Unresolved {
                field: reference.field,
                key,
                value: value.to_string(),
                entity: reference.entity,
            })),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// Whether a plugin's protocols have to be compared with those of its route or service: decided on the input before
/// names are resolved, since Kong leaves out scopes that are given by name (spec/entities.md section 6).
pub fn compares_protocols(input: &Map<String, Value>, partial: bool) -> bool {
    if partial {
        return ["protocols", "route", "service"].iter().any(|name| input.contains_key(*name));
    }
    let by_id = |name: &str| input.get(name).is_some_and(|scope| reference_id(scope).is_some());
    input.contains_key("protocols") && (by_id("route") || by_id("service"))
}

/// A plugin must share a protocol with its route, or else with some route of its service.
///
/// # Errors
/// The violation of `protocols`.
pub fn match_protocols(plugin: &Map<String, Value>, tables: &Tables) -> Result<(), Violations> {
    let spoken = |row: &Map<String, Value>| row.get("protocols").and_then(Value::as_array).cloned().unwrap_or_default();
    let own = spoken(plugin);
    let shares = |row: &Map<String, Value>| spoken(row).iter().any(|protocol| own.contains(protocol));
    let scope = |name: &str| plugin.get(name).and_then(reference_id);
    let routes = &crate::entity::route::ROUTES;
    if let Some(route) = scope("route") {
        return match tables.get(routes, route) {
            Some(entry) if !shares(&entry.row()) => {
                Err(Violations::of("protocols", "must match the associated route's protocols"))
            }
            _ => Ok(()),
        };
    }
    let Some(service) = scope("service") else {
        return Ok(());
    };
    let of_service = tables.children(routes, "service", service, None, usize::MAX).rows;
    if of_service.is_empty() || of_service.iter().any(|entry| shares(&entry.row())) {
        return Ok(());
    }
    let text = "must match the protocols of at least one route pointing to this Plugin's service";
    Err(Violations::of("protocols", text))
}
