//! jwt_secrets: what the tokens of consumers are signed with (spec/entities.md section 17).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::pem::PublicKey;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::strs;

pub static JWT_SECRETS: Entity =
    Entity::new("jwt_secrets", "key", &RECORD).paths("jwts", "jwt").needs_plugin("jwt").declared_id(DeclaredId::Random);

const ALGORITHMS: &[Literal] = strs![
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"
];
/// Those that sign with one key and verify with another; of ES* the key is not asked for.
const KEY_PAIRS: Match =
    Match::MatchesAny(&["^RS256$", "^RS384$", "^RS512$", "^PS256$", "^PS384$", "^PS512$", "^EdDSA$"]);

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("key").optional().unique().auto(Auto::RandomText),
    Field::string("secret").auto(Auto::RandomText),
    Field::string("rsa_public_key"),
    Field::string("algorithm").default_str("HS256").one_of(ALGORITHMS),
    Field::tags(),
])
.checks(&[
    EntityCheck::conditional("algorithm", KEY_PAIRS, "rsa_public_key", Match::Required),
    EntityCheck::conditional("algorithm", KEY_PAIRS, "rsa_public_key", Match::Check(Check::Custom(public_key))),
]);

fn public_key(text: &str) -> Result<(), String> {
    PublicKey::read(text).map(drop).map_err(|_| "invalid key".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::Value;
    use serde_json::json;

    fn create(sent: Value) -> Result<serde_json::Map<String, Value>, String> {
        let mut sent = sent.as_object().cloned().unwrap();
        sent.insert("consumer".to_string(), json!({ "id": "00000000-0000-4000-8000-000000000001" }));
        JWT_SECRETS.create(sent, Moment { now_ms: 1_000 }, &|_| None).map_err(|found| found.message())
    }

    #[test]
    fn nothing_sent_makes_a_whole_credential() {
        let row = create(json!({})).unwrap();
        assert_eq!(row["algorithm"], "HS256");
        assert_eq!(["key", "secret"].map(|name| row[name].as_str().map(str::len)), [Some(32); 2]);
    }

    #[test]
    fn key_pairs_need_their_public_key() {
        let why = |text: &str| {
            format!(
                "2 schema violations (failed conditional validation given value of field 'algorithm'; rsa_public_key: {text})"
            )
        };
        assert_eq!(create(json!({ "algorithm": "RS256" })), Err(why("required field missing")));
        assert_eq!(create(json!({ "algorithm": "EdDSA", "rsa_public_key": "x" })), Err(why("invalid key")));
        let pem = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key2-public.pem"));
        assert!(create(json!({ "algorithm": "PS512", "rsa_public_key": pem })).is_ok());
        assert!(create(json!({ "algorithm": "ES256" })).is_ok());
    }
}
