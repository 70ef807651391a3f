//! targets: the addresses behind an upstream (spec/entities.md section 8). Written only below their upstream.

use crate::entity::Entity;
use crate::entity::address::Address;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use serde_json::Map;
use serde_json::Value;

pub static TARGETS: Entity = Entity::new("targets", "target", &RECORD)
    .below_parent_only()
    .unique_together(&[&["upstream", "target"]])
    .normalise(normalise_target);

/// The port of a target that names none.
pub const DEFAULT_PORT: u16 = 8000;

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::number("created_at").stamped(Auto::CreatedAt),
    Field::number("updated_at").stamped(Auto::UpdatedAt),
    Field::owned_by("upstream", "upstreams").required(),
    Field::string("target").required().check(Check::Target),
    Field::integer("weight").default_int(100).between(0, 65535),
    Field::tags(),
]);

/// The form in which targets are stored and compared; `None` when it is no address.
pub fn normal_form(target: &str) -> Option<String> {
    Address::parse(target).ok().map(|address| address.normalised(DEFAULT_PORT))
}

fn normalise_target(row: &mut Map<String, Value>) {
    let normal = row.get("target").and_then(Value::as_str).and_then(normal_form);
    if let Some(normal) = normal {
        row.insert("target".to_string(), normal.into());
    }
}
