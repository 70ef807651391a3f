//! consumers: who sends requests (spec/entities.md section 4).

use crate::entity::Entity;
use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::schema::Record;

pub static CONSUMERS: Entity = Entity::new("consumers", "username", &RECORD);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::updated_at(),
    Field::string("username").unique(),
    Field::string("custom_id").unique(),
    Field::tags(),
])
.checks(&[EntityCheck::AtLeastOneOf(&["custom_id", "username"])]);
