//! oauth2_credentials, oauth2_tokens, oauth2_authorization_codes: applications of consumers, and what was granted to
//! them (spec/entities.md section 20).

use crate::entity::DeclaredId;
use crate::entity::Entity;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::transform::Transform;
use crate::entity::validators::Check;
use crate::strs;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::pbkdf2;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use serde_json::Map;
use serde_json::Value;
use std::num::NonZeroU32;

pub static OAUTH2_CREDENTIALS: Entity = Entity::new("oauth2_credentials", "client_id", &CREDENTIAL)
    .paths("oauth2", "oauth2")
    .needs_plugin("oauth2")
    .declared_id(DeclaredId::Random)
    .transform(&HASHED);
pub static OAUTH2_TOKENS: Entity = Entity::new("oauth2_tokens", "access_token", &TOKEN)
    .needs_plugin("oauth2")
    .declared_id(DeclaredId::Random)
    .made_by_requests()
    .with_ttl();
pub static OAUTH2_AUTHORIZATION_CODES: Entity = Entity::new("oauth2_authorization_codes", "", &CODE)
    .without_paths()
    .needs_plugin("oauth2")
    .declared_id(DeclaredId::Random)
    .made_by_requests()
    .with_ttl();

const REDIRECT_URI: Field = Field::string("").required().check(Check::Custom(redirect_uri));

static CREDENTIAL: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("consumer", "consumers").required(),
    Field::string("name").required(),
    Field::string("client_id").optional().unique().auto(Auto::RandomText),
    Field::string("client_secret").optional().auto(Auto::RandomText),
    Field::boolean("hash_secret").required().default_bool(false),
    Field::array("redirect_uris", &REDIRECT_URI).optional(),
    Field::tags(),
    Field::string("client_type").required().default_str("confidential").one_of(strs!["confidential", "public"]),
]);

static TOKEN: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("service", "services").default(Literal::Null),
    Field::owned_by("credential", "oauth2_credentials").required(),
    Field::string("token_type").required().default_str("bearer").one_of(strs!["bearer"]),
    Field::integer("expires_in").required(),
    Field::string("access_token").optional().unique().auto(Auto::RandomText),
    Field::string("refresh_token").optional().unique(),
    Field::string("authenticated_userid").optional(),
    Field::string("scope").optional(),
]);

static CODE: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::owned_by("service", "services").default(Literal::Null),
    Field::owned_by("credential", "oauth2_credentials").required(),
    Field::string("code").optional().unique().auto(Auto::RandomText),
    Field::string("authenticated_userid").optional(),
    Field::string("scope").optional(),
    Field::string("challenge").optional(),
    Field::string("challenge_method").optional().one_of(strs!["S256"]),
    Field::owned_by("plugin", "plugins").default(Literal::Null),
]);

static HASHED: Transform = Transform { sources: &["hash_secret", "client_secret"], run: put_hash };

const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not zero");
const HASH_BYTES: usize = 32;

fn put_hash(row: &mut Map<String, Value>) {
    if row.get("hash_secret") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(Value::String(secret)) = row.get_mut("client_secret") {
        *secret = secret_hash(secret.as_bytes());
    }
}

/// A PHC string of PBKDF2 with HMAC-SHA-512 and a random salt.
fn secret_hash(secret: &[u8]) -> String {
    let (mut salt, mut hash) = ([0; 16], [0; HASH_BYTES]);
    SystemRandom::new().fill(&mut salt).expect("the system has randomness");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt, secret, &mut hash);
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    format!("$pbkdf2-sha512$i={ITERATIONS},l={HASH_BYTES}${salt}${hash}")
}

/// Whether a secret is the one that was hashed. Costs milliseconds, by design.
pub fn is_secret_of(hash: &str, secret: &[u8]) -> bool {
    let verify = || {
        let mut parts = hash.strip_prefix("$pbkdf2-sha512$i=")?.split('$');
        let iterations = parts.next()?.split(',').next()?.parse().ok().and_then(NonZeroU32::new)?;
        let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        let hash = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &salt, secret, &hash).ok()
    };
    verify().is_some()
}

/// An absolute URI without a fragment.
fn redirect_uri(text: &str) -> Result<(), String> {
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let host = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if !is_scheme || host.is_none_or(str::is_empty) || text.bytes().any(|byte| byte <= b' ') {
        return Err(format!("cannot parse '{text}'"));
    }
    if text.contains('#') {
        return Err(format!("fragment not allowed in '{text}'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::json;

    fn create(sent: Value) -> Result<Map<String, Value>, String> {
        let mut sent = sent.as_object().cloned().unwrap();
        sent.insert("name".to_string(), "app".into());
        sent.insert("consumer".to_string(), json!({ "id": "00000000-0000-4000-8000-000000000001" }));
        OAUTH2_CREDENTIALS.create(sent, Moment { now_ms: 1_000 }, &|_| None).map_err(|found| found.message())
    }

    #[test]
    fn a_secret_is_hashed_if_asked_for() {
        let plain = create(json!({ "client_secret": "s" })).unwrap();
        assert_eq!(plain["client_secret"], "s");
        let hashed = create(json!({ "client_secret": "s", "hash_secret": true })).unwrap();
        let hash = hashed["client_secret"].as_str().unwrap();
        assert!(is_secret_of(hash, b"s") && !is_secret_of(hash, b"t") && !is_secret_of("s", b"s"), "{hash}");
    }

    #[test]
    fn redirect_uris_are_absolute_and_without_fragment() {
        for good in ["https://a.test/cb?x=1", "http://a.test", "com.app://cb"] {
            assert_eq!(redirect_uri(good), Ok(()), "{good}");
        }
        for bad in ["a.test/cb", "/cb", "http://", "http:///cb", "1a://b", "https://a b"] {
            assert_eq!(redirect_uri(bad), Err(format!("cannot parse '{bad}'")));
        }
        assert_eq!(redirect_uri("https://a/#f"), Err("fragment not allowed in 'https://a/#f'".to_string()));
    }
}
