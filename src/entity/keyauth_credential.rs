//! keyauth_credentials: the keys of consumers (spec/entities.md section 15).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Record;

pub static KEYAUTH_CREDENTIALS: Entity = Entity::new("keyauth_credentials", "key", &RECORD)
    .paths("key-auths", "key-auth")
    .needs_plugin("key-auth")
    .declared_id(DeclaredId::Random)
    .with_ttl();

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("key").optional().unique().auto(Auto::RandomText),
    Field::tags(),
]);
