//! basicauth_credentials: names and passwords of consumers (spec/entities.md section 16).
//! Never: keeps a password; what is stored and shown is its hash.

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::checks::at_path;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::transform::Transform;
use ring::digest;
use serde_json::Map;
use serde_json::Value;

pub static BASICAUTH_CREDENTIALS: Entity = Entity::new("basicauth_credentials", "username", &RECORD)
    .paths("basic-auths", "basic-auth")
    .needs_plugin("basic-auth")
    .declared_id(DeclaredId::QualifiedKey)
    .transform(&HASHED);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("username").required().unique(),
    Field::string("password").required().encrypted(),
    Field::tags(),
]);

static HASHED: Transform = Transform { sources: &["password", "consumer.id"], run: put_hash };

fn put_hash(row: &mut Map<String, Value>) {
    let consumer = at_path(row, "consumer.id").as_str().map(str::to_ascii_lowercase).unwrap_or_default();
    if let Some(Value::String(password)) = row.get_mut("password") {
        *password = password_hash(password.as_bytes(), &consumer);
    }
}

/// Lower-case hex SHA-1 of the password followed by the id of the consumer; what Kong stores.
pub fn password_hash(password: &[u8], consumer: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(password);
    hash.update(consumer.as_bytes());
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::json;

    const NOW: Moment = Moment { now_ms: 1_000_000 };
    const ALICE: &str = "00000000-0000-4000-8000-000000000001";
    const BOB: &str = "00000000-0000-4000-8000-000000000002";
    const TOGETHER: &str = "all or none of these fields must be set: 'password', 'consumer.id'";

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn create(sent: Value) -> Result<Map<String, Value>, String> {
        BASICAUTH_CREDENTIALS.create(map(sent), NOW, &|_| None).map_err(|found| found.message())
    }

    fn stored() -> Map<String, Value> {
        create(json!({ "username": "a", "password": "secret", "consumer": { "id": ALICE } })).unwrap()
    }

    #[test]
    fn the_hash_of_the_password_is_stored() {
        // printf 'secret00000000-0000-4000-8000-000000000001' | sha1sum
        assert_eq!(stored()["password"], "3b9edfd38c391cb30f37903ed9b4a5a164ccf9e0");
        let as_is = map(json!({ "username": "a", "password": "hash", "consumer": { "id": ALICE } }));
        let row = BASICAUTH_CREDENTIALS.create_as_is(as_is, NOW, &|_| None).unwrap();
        assert_eq!(row["password"], "hash");
    }

    #[test]
    fn the_owner_has_to_be_known_when_a_password_is_hashed() {
        let refused = create(json!({ "username": "a", "password": "secret" })).unwrap_err();
        assert!(refused.contains(TOGETHER) && refused.contains("consumer: required field missing"), "{refused}");
        assert_eq!(create(json!({})).unwrap_err().matches("required field missing").count(), 3);
    }

    #[test]
    fn a_patch_hashes_a_new_password_only() {
        let patch = |patch: Value| {
            let row = BASICAUTH_CREDENTIALS.update(&stored(), map(patch), NOW, &|_| None);
            row.map(|row| row["password"] != stored()["password"]).map_err(|found| found.message())
        };
        let together = Err(format!("schema violation ({TOGETHER})"));
        assert_eq!(patch(json!({ "username": "b" })), Ok(false));
        assert_eq!(patch(json!({ "username": "b", "consumer": { "id": ALICE } })), Ok(false));
        assert_eq!(patch(json!({ "password": "new", "consumer": { "id": ALICE } })), Ok(true));
        assert_eq!(patch(json!({ "password": "new", "consumer": { "id": BOB } })), Ok(true));
        assert_eq!(patch(json!({ "password": "new" })), together);
        assert_eq!(patch(json!({ "consumer": { "id": BOB } })), together);
    }
}
