//! vaults: where `{vault://prefix/...}` values come from (spec/entities.md section 12).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::Variant;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::violation::Violations;
use crate::strs;
use serde_json::Map;
use serde_json::Value;

pub static VAULTS: Entity =
    Entity::new("vaults", "prefix", &RECORD).variant(by_name).declared_id(DeclaredId::QualifiedKey);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::string("prefix")
        .required()
        .unique()
        .across_workspaces()
        .matches("^[a-z][a-z%d-]-[a-z%d]+$")
        .not_one_of(strs!["env"]),
    Field::string("name").required(),
    Field::string("description"),
    Field::chosen_by_variant("config"),
    Field::created_at(),
    Field::updated_at(),
    Field::tags(),
]);

/// A type of vault: its name, and the fields of `config`.
#[derive(Clone, Copy, Debug)]
pub struct VaultType {
    pub name: &'static str,
    pub config: Record,
}

/// The types that can be set up.
pub static TYPES: &[VaultType] =
    &[VaultType { name: "env", config: Record::of(&[Field::string("prefix").matches("^[%a_-][%a%d_-]*$")]) }];

/// The type of a name.
pub fn find(name: &str) -> Option<&'static VaultType> {
    TYPES.iter().find(|kind| kind.name == name)
}

/// The fields that a type of vault has differently from the others.
pub fn overrides(kind: &'static VaultType) -> Vec<Field> {
    vec![Field::record("config", &kind.config).required()]
}

fn by_name(row: &Map<String, Value>, _: PluginLookup<'_>) -> Result<Variant, Violations> {
    let name = match row.get("name") {
        Some(Value::String(name)) => name,
        None | Some(Value::Null) => return Err(Violations::of("name", "required field missing")),
        Some(_) => return Err(Violations::of("name", "expected a string")),
    };
    match find(name) {
        Some(kind) => Ok(Variant { overrides: overrides(kind), checks: &[] }),
        None => Err(Violations::of("name", format!("vault '{name}' is not installed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::json;

    #[test]
    fn vaults_have_a_known_type_and_the_config_of_that_type() {
        let check = |sent: Value, want: Result<Value, &str>| {
            let input = sent.as_object().cloned().unwrap();
            let got = VAULTS.create(input, Moment { now_ms: 1_000 }, &|_| None);
            let got = got.map(|row| row["config"].clone()).map_err(|found| found.message());
            assert_eq!(got, want.map_err(|text| format!("schema violation ({text})")), "{sent}");
        };
        check(json!({ "name": "env", "prefix": "my-env" }), Ok(json!({ "prefix": null })));
        check(json!({ "name": "env", "prefix": "m1", "config": { "prefix": "K_" } }), Ok(json!({ "prefix": "K_" })));
        check(json!({ "name": "env", "prefix": "m" }), Err("prefix: invalid value: m"));
        check(json!({ "name": "env", "prefix": "M1" }), Err("prefix: invalid value: M1"));
        check(json!({ "name": "env", "prefix": "env" }), Err("prefix: must not be one of: env"));
        check(json!({ "name": "hcv", "prefix": "m1" }), Err("name: vault 'hcv' is not installed"));
        check(json!({ "name": "env", "prefix": "m1", "config": { "x": 1 } }), Err("config.x: unknown field"));
        let bad = json!({ "name": "env", "prefix": "m1", "config": { "prefix": "1" } });
        check(bad, Err("config.prefix: invalid value: 1"));
    }
}
