//! hmacauth_credentials: names and signing secrets of consumers (spec/entities.md section 18).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Record;

pub static HMACAUTH_CREDENTIALS: Entity = Entity::new("hmacauth_credentials", "username", &RECORD)
    .paths("hmac-auths", "hmac-auth")
    .needs_plugin("hmac-auth")
    .declared_id(DeclaredId::QualifiedKey);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("username").required().unique(),
    Field::string("secret").auto(Auto::RandomText),
    Field::tags(),
]);
