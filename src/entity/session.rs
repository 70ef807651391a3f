//! sessions and session_metadatas: sessions that are kept here and not in a cookie (spec/entities.md section 21).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::schema::Field;
use crate::entity::schema::Record;

pub static SESSIONS: Entity = Entity::new("sessions", "session_id", &SESSION)
    .needs_plugin("session")
    .declared_id(DeclaredId::Random)
    .made_by_requests()
    .with_ttl();
pub static SESSION_METADATAS: Entity = Entity::new("session_metadatas", "", &METADATA)
    .without_paths()
    .needs_plugin("session")
    .made_by_requests()
    .declared_id(DeclaredId::Random);

static SESSION: Record = Record::of(&[
    Field::id(),
    Field::string("session_id").required().unique(),
    Field::integer("expires"),
    Field::string("data"),
    Field::created_at(),
]);

static METADATA: Record = Record::of(&[
    Field::id(),
    Field::owned_by("session", "sessions").required(),
    Field::string("sid"),
    Field::string("audience"),
    Field::string("subject"),
    Field::created_at(),
]);
