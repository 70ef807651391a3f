//! certificates, snis and ca_certificates: what TLS shows and trusts (spec/entities.md sections 9 to 11).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::checks::Custom;
use crate::entity::checks::EntityCheck;
use crate::entity::pem::Certificate;
use crate::entity::pem::PrivateKey;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::validate::is_vault_reference;
use crate::entity::validators::Check;
use serde_json::Map;
use serde_json::Value;

pub static CERTIFICATES: Entity =
    Entity::new("certificates", "", &CERTIFICATE).named_by("snis", "certificate").declared_id(DeclaredId::Random);
pub static SNIS: Entity = Entity::new("snis", "name", &SNI).hides_parents();
pub static CA_CERTIFICATES: Entity = Entity::new("ca_certificates", "", &CA_CERTIFICATE)
    .normalise(put_digest)
    .declared_id(DeclaredId::Random)
    .listed_in(&[("services", "ca_certificates"), ("plugins", "config.ca_certificates")]);

const SERVER_NAME: Field = Field::string("").check(Check::WildcardHost);

static CERTIFICATE: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::updated_at(),
    Field::string("cert").required().referenceable().check(Check::Certificate),
    Field::string("key").required().referenceable().encrypted().check(Check::PrivateKey),
    Field::string("cert_alt").optional().referenceable().check(Check::Certificate),
    Field::string("key_alt").optional().referenceable().encrypted().check(Check::PrivateKey),
    Field::tags(),
    Field::array("snis", &SERVER_NAME).optional().transient(),
])
.checks(&[
    EntityCheck::MutuallyRequired(&["cert_alt", "key_alt"]),
    EntityCheck::Custom(Custom { sources: &["cert", "key"], run: own_key }),
    EntityCheck::Custom(Custom { sources: &["cert_alt", "key_alt"], run: own_key_alt }),
    EntityCheck::Custom(Custom { sources: &["cert", "cert_alt"], run: two_types }),
]);

static SNI: Record = Record::of(&[
    Field::id(),
    Field::string("name").required().unique().across_workspaces().check(Check::WildcardHost),
    Field::created_at(),
    Field::updated_at(),
    Field::tags(),
    Field::tacitly_owned_by("certificate", "certificates").required(),
]);

static CA_CERTIFICATE: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::updated_at(),
    Field::string("cert").required().check(Check::Certificate),
    Field::string("cert_digest").unique(),
    Field::tags(),
])
.checks(&[EntityCheck::Custom(Custom { sources: &["cert"], run: one_living_authority })]);

/// The text of a field, unless it stands in a vault.
fn text<'a>(row: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    row.get(field)?.as_str().filter(|text| !is_vault_reference(text))
}

fn own_key(row: &Map<String, Value>) -> Result<(), String> {
    pair(row, "cert", "key", "certificate does not match key")
}

fn own_key_alt(row: &Map<String, Value>) -> Result<(), String> {
    pair(row, "cert_alt", "key_alt", "alternative certificate does not match key")
}

fn pair(row: &Map<String, Value>, cert: &str, key: &str, wrong: &str) -> Result<(), String> {
    let (Some(cert), Some(key)) = (text(row, cert), text(row, key)) else {
        return Ok(());
    };
    let (cert, key) = (Certificate::read(cert)?, PrivateKey::read(key)?);
    if key.belongs_to(&cert.key) { Ok(()) } else { Err(wrong.to_string()) }
}

fn two_types(row: &Map<String, Value>) -> Result<(), String> {
    let (Some(first), Some(second)) = (text(row, "cert"), text(row, "cert_alt")) else {
        return Ok(());
    };
    let (first, second) = (Certificate::read(first)?, Certificate::read(second)?);
    if !first.key.same_type(&second.key) {
        return Ok(());
    }
    let text = "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), the \
                provided certificates were both of the same type";
    Err(text.to_string())
}

fn one_living_authority(row: &Map<String, Value>) -> Result<(), String> {
    let Some(cert) = text(row, "cert") else {
        return Ok(());
    };
    if Certificate::count(cert) > 1 {
        return Err("please submit only one certificate at a time".to_string());
    }
    let cert = Certificate::read(cert)?;
    // Every write stamps this field with the present time.
    let now_s = row.get("updated_at").and_then(Value::as_i64).unwrap_or_default();
    if cert.not_after_s < now_s {
        return Err("certificate expired, \"Not After\" time is in the past".to_string());
    }
    if !cert.is_ca {
        let text = "certificate does not appear to be a CA because it is missing the \"CA\" basic constraint";
        return Err(text.to_string());
    }
    Ok(())
}

fn put_digest(row: &mut Map<String, Value>) {
    if let Some(Ok(cert)) = text(row, "cert").map(Certificate::read) {
        row.insert("cert_digest".to_string(), cert.digest.into());
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

    fn create(entity: &Entity, sent: Value, now_ms: u64) -> Result<Map<String, Value>, String> {
        let sent = sent.as_object().cloned().unwrap();
        entity.create(sent, Moment { now_ms }, &|_| None).map_err(|found| found.message())
    }

    #[test]
    fn a_certificate_may_have_an_alternative_of_another_type() {
        let (rsa, rsa_key, ec, ec_key) = (pem!("cert1"), pem!("key1"), pem!("cert2"), pem!("key2"));
        let check = |sent: Value, want: Result<(), &str>| {
            let got = create(&CERTIFICATES, sent.clone(), 1_000).map(|_| ());
            assert_eq!(got, want.map_err(|text| format!("schema violation ({text})")), "{sent}");
        };
        check(json!({ "cert": rsa, "key": rsa_key, "cert_alt": ec, "key_alt": ec_key }), Ok(()));
        check(json!({ "cert": rsa, "key": ec_key }), Err("certificate does not match key"));
        let wrong = "alternative certificate does not match key";
        check(json!({ "cert": rsa, "key": rsa_key, "cert_alt": ec, "key_alt": rsa_key }), Err(wrong));
        let half = "all or none of these fields must be set: 'cert_alt', 'key_alt'";
        check(json!({ "cert": rsa, "key": rsa_key, "cert_alt": ec }), Err(half));
        let same = "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), the \
                    provided certificates were both of the same type";
        check(json!({ "cert": rsa, "key": rsa_key, "cert_alt": rsa, "key_alt": rsa_key }), Err(same));
        check(json!({ "cert": "{vault://env/c}", "key": "{vault://env/k}" }), Ok(()));
        check(json!({ "cert": rsa, "key": "{vault://env/k}" }), Ok(()));
    }

    #[test]
    fn server_names_are_not_part_of_the_stored_row() {
        let row = create(&CERTIFICATES, json!({ "cert": pem!("cert1"), "key": pem!("key1") }), 1_000).unwrap();
        assert!(!row.contains_key("snis") && row.contains_key("cert_alt"));
    }

    #[test]
    fn authorities_are_single_alive_and_say_that_they_are() {
        let check = |cert: String, now_ms: u64, want: &str| {
            assert_eq!(create(&CA_CERTIFICATES, json!({ "cert": cert }), now_ms).unwrap_err(), want);
        };
        let good = create(&CA_CERTIFICATES, json!({ "cert": pem!("ca"), "cert_digest": "x" }), 1_000).unwrap();
        assert_eq!(good["cert_digest"].as_str().map(str::len), Some(64), "the client's digest is not believed");
        check(pem!("ca").repeat(2), 1_000, "schema violation (please submit only one certificate at a time)");
        let far_ms = 10_000_000_000_000;
        let expired = "schema violation (certificate expired, \"Not After\" time is in the past)";
        check(pem!("ca").to_string(), far_ms, expired);
    }
}
