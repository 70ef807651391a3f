//! plugins: what else happens to a request, and where (spec/entities.md sections 5 and 6).
//! Owns: the fields common to all plugins. Never: knows a plugin; its schema is looked up by name.

use crate::entity::ANY_PROTOCOL;
use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::PluginSchema;
use crate::entity::Variant;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;

pub static PLUGINS: Entity = Entity::new("plugins", "instance_name", &RECORD)
    .unique_together(&[&["name", "route", "service", "consumer"]])
    .variant(by_name);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::string("name").required(),
    Field::string("instance_name").unique().check(Check::Utf8Name),
    Field::created_at(),
    Field::updated_at(),
    Field::owned_by("route", "routes").default(Literal::Null),
    Field::owned_by("service", "services").default(Literal::Null),
    Field::owned_by("consumer", "consumers").default(Literal::Null),
    Field::chosen_by_variant("config"),
    Field::set("protocols", &ANY_PROTOCOL).required().default_strs(&["grpc", "grpcs", "http", "https"]),
    Field::boolean("enabled").required().default_bool(true),
    Field::tags(),
]);

fn by_name(row: &Map<String, Value>, plugins: PluginLookup<'_>) -> Result<Variant, Violations> {
    let name = match row.get("name") {
        Some(Value::String(name)) => name,
        None | Some(Value::Null) => return Err(Violations::of("name", "required field missing")),
        Some(_) => return Err(Violations::of("name", "expected a string")),
    };
    let Some(schema) = plugins(name) else {
        let text = format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property");
        return Err(Violations::of("name", text));
    };
    Ok(Variant { overrides: overrides(schema), checks: schema.checks })
}

/// The fields that a kind of plugin has differently from the others.
pub fn overrides(schema: &'static PluginSchema) -> Vec<Field> {
    let scopes = [
        (schema.consumer_scope, Field::foreign("consumer", "consumers")),
        (schema.route_scope, Field::foreign("route", "routes")),
        (schema.service_scope, Field::foreign("service", "services")),
    ];
    let mut fields: Vec<Field> =
        scopes.into_iter().filter(|(allowed, _)| !allowed).map(|(_, field)| field.eq(Literal::Null)).collect();
    fields.push(schema.protocols);
    fields.push(Field::record("config", &schema.config).required());
    fields
}
