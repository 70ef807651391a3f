//! keys and key_sets: keys for signing and encrypting that plugins use (spec/entities.md sections 13 and 14).

use crate::entity::Entity;
use crate::entity::checks::Custom;
use crate::entity::checks::EntityCheck;
use crate::entity::pem;
use crate::entity::pem::PrivateKey;
use crate::entity::pem::PublicKey;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::validate::is_vault_reference;
use serde_json::Map;
use serde_json::Value;

pub static KEYS: Entity = Entity::new("keys", "name", &KEY).unique_together(&[&["kid", "set"]]);
pub static KEY_SETS: Entity = Entity::new("key_sets", "name", &KEY_SET).paths("key-sets", "key-sets");

static KEY: Record = Record::of(&[
    Field::id(),
    Field::owned_by("set", "key_sets").optional(),
    Field::string("name").optional().unique(),
    Field::string("kid").required(),
    Field::string("jwk").referenceable().encrypted(),
    Field::record("pem", &PEM).optional(),
    Field::tags(),
    Field::created_at(),
    Field::updated_at(),
])
.checks(&[
    EntityCheck::MutuallyExclusive(&["pem", "jwk"]),
    EntityCheck::AtLeastOneOf(&["pem", "jwk"]),
    EntityCheck::Custom(Custom { sources: &["jwk", "pem", "kid"], run: jwk_loads }),
]);

static PEM: Record = Record::of(&[
    Field::string("private_key").optional().referenceable().encrypted(),
    Field::string("public_key").optional().referenceable(),
])
.checks(&[EntityCheck::AtLeastOneOf(&["private_key", "public_key"])])
.custom(pem_loads);

static KEY_SET: Record = Record::of(&[
    Field::id(),
    Field::string("name").optional().unique(),
    Field::tags(),
    Field::created_at(),
    Field::updated_at(),
]);

fn text<'a>(row: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    row.get(field)?.as_str().filter(|text| !is_vault_reference(text))
}

fn jwk_loads(row: &Map<String, Value>) -> Result<(), String> {
    let Some(jwk) = text(row, "jwk") else {
        return Ok(());
    };
    let Ok(jwk) = serde_json::from_str::<Value>(jwk) else {
        return Err("could not json decode jwk string".to_string());
    };
    if jwk.get("kid") != row.get("kid") {
        return Err("kid in jwk.kid must be equal to keys.kid".to_string());
    }
    if pem::is_jwk(&jwk) { Ok(()) } else { Err("could not load JWK, likely not a valid key".to_string()) }
}

fn pem_loads(row: &Map<String, Value>) -> Result<(), String> {
    let public = text(row, "public_key").map(PublicKey::read).transpose();
    let public = public.map_err(|_| "could not load public key".to_string())?;
    let private = text(row, "private_key").map(PrivateKey::read).transpose();
    let private = private.map_err(|reason| format!("could not load private key{reason}"))?;
    match (private, public) {
        (Some(private), Some(public)) if !private.belongs_to(&public) => {
            Err("public key does not match private key".to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::json;

    macro_rules! pem {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/", $name, ".pem"))
        };
    }

    #[track_caller]
    fn check(sent: Value, want: Result<(), &str>) {
        let mut input = sent.as_object().cloned().unwrap();
        input.insert("kid".to_string(), "k".into());
        let got = KEYS.create(input, Moment { now_ms: 1_000 }, &|_| None).map(|_| ());
        let want = want.map_err(|text| format!("schema violation ({text})"));
        assert_eq!(got.map_err(|found| found.message()), want, "{sent}");
    }

    #[test]
    fn a_key_is_one_jwk_or_one_pem() {
        check(json!({}), Err("at least one of these fields must be non-empty: 'pem', 'jwk'"));
        let jwk = r#"{"kid":"k","kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        check(json!({ "jwk": jwk }), Ok(()));
        check(
            json!({ "jwk": jwk, "pem": { "public_key": pem!("key2-public") } }),
            Err("only one or none of these fields must be set: 'pem', 'jwk'"),
        );
        check(json!({ "jwk": "{" }), Err("could not json decode jwk string"));
        check(json!({ "jwk": r#"{"kid":"x"}"# }), Err("kid in jwk.kid must be equal to keys.kid"));
        check(json!({ "jwk": "{}" }), Err("kid in jwk.kid must be equal to keys.kid"));
        check(json!({ "jwk": r#"{"kid":"k"}"# }), Err("could not load JWK, likely not a valid key"));
        check(json!({ "jwk": "{vault://env/jwk}" }), Ok(()));
    }

    #[test]
    fn the_halves_of_a_pem_load_and_belong_together() {
        let (private, public) = (pem!("key2"), pem!("key2-public"));
        check(json!({ "pem": { "private_key": private, "public_key": public } }), Ok(()));
        check(json!({ "pem": { "public_key": public } }), Ok(()));
        check(json!({ "pem": { "public_key": "x" } }), Err("pem: could not load public key"));
        check(json!({ "pem": { "private_key": "x" } }), Err("pem: could not load private keyno PEM block found"));
        check(
            json!({ "pem": { "private_key": pem!("key1"), "public_key": public } }),
            Err("pem: public key does not match private key"),
        );
        check(json!({ "pem": { "private_key": "{vault://env/k}", "public_key": public } }), Ok(()));
    }
}
