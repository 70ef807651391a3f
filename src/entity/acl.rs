//! acls: the groups that consumers are in (spec/entities.md section 19).

use crate::entity::Entity;
use crate::entity::schema::Field;
use crate::entity::schema::Record;

pub static ACLS: Entity =
    Entity::new("acls", "", &RECORD).child_key("group").unique_together(&[&["consumer", "group"]]).needs_plugin("acl");

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("group").required(),
    Field::tags(),
]);
