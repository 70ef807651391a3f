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

/// Plugins of Kong that are not built, and why.
const ABSENT: &[(&[&str], &str)] = &[
    (&["pre-function", "post-function"], "it runs Lua, and there is no scripting engine"),
    (
        &[
            "ai-prompt-decorator",
            "ai-prompt-guard",
            "ai-prompt-template",
            "ai-proxy",
            "ai-request-transformer",
            "ai-response-transformer",
        ],
        "language models are not spoken to",
    ),
    (&["aws-lambda", "azure-functions"], "functions of clouds are not called"),
    (&["acme"], "TLS listeners come first"),
    (&["grpc-gateway", "grpc-web"], "HTTP/2 comes first"),
];

/// What to say of a plugin that cannot be configured.
pub fn not_usable(name: &str) -> String {
    match ABSENT.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, reason)) => format!("plugin '{name}' is not supported yet: {reason}"),
        None => format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property"),
    }
}

fn by_name(row: &Map<String, Value>, plugins: PluginLookup<'_>) -> Result<Variant, Violations> {
    let name = match row.get("name") {
        Some(Value::String(name)) => name,
        None | Some(Value::Null) => return Err(Violations::of("name", "required field missing")),
        Some(_) => return Err(Violations::of("name", "expected a string")),
    };
    let Some(schema) = plugins(name) else {
        return Err(Violations::of("name", not_usable(name)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_refused_by_name_and_reason() {
        let want = "plugin 'pre-function' is not supported yet: it runs Lua, and there is no scripting engine";
        assert_eq!(not_usable("pre-function"), want);
        for (name, reason) in ABSENT.iter().flat_map(|(names, reason)| names.iter().map(move |name| (name, reason))) {
            assert!(not_usable(name).contains(name) && not_usable(name).ends_with(reason), "{name}");
        }
        let want = "plugin 'nope' not enabled; add it to the 'plugins' configuration property";
        assert_eq!(not_usable("nope"), want);
    }
}
