//! Rows of consumers, credentials and groups -> the directory that plugins look them up in.
//! Never: refuses a row; a credential that can prove nothing is kept in the store and found by nobody.

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::entity::RowChange;
use crate::plugins::directory::Consumer;
use crate::plugins::directory::Credential;
use crate::plugins::directory::Credentials;
use crate::plugins::directory::Directory;
use crate::plugins::grants::App;
use crate::plugins::grants::Code;
use crate::plugins::grants::Grant;
use crate::plugins::grants::Token;
use crate::plugins::token_key::TokenKey;
use crate::state::compile::reference;
use crate::state::compile::text;

type Row = Map<String, Value>;

/// Applies one changed row. Answers whether the directory has rows of that kind at all.
pub(super) fn follow(directory: &mut Directory, change: &RowChange) -> bool {
    let (id, row) = (change.id, change.row.as_ref());
    match change.entity {
        "consumers" => match row {
            Some(row) => directory.put_consumer(Consumer {
                id,
                id_text: id.to_string().into(),
                username: text(row, "username").map(Into::into),
                custom_id: text(row, "custom_id").map(Into::into),
            }),
            None => directory.remove_consumer(id),
        },
        "keyauth_credentials" => replace(&mut directory.keys, change, "key", |_| Some(())),
        "basicauth_credentials" => {
            replace(&mut directory.passwords, change, "username", |row| text(row, "password").map(Box::from));
        }
        "hmacauth_credentials" => {
            replace(&mut directory.signers, change, "username", |row| text(row, "secret").map(Box::from));
        }
        "jwt_secrets" => replace(&mut directory.tokens, change, "key", |row| {
            let algorithm = text(row, "algorithm").unwrap_or("HS256");
            Some(TokenKey::new(algorithm, text(row, "secret"), text(row, "rsa_public_key")))
        }),
        "oauth2_credentials" => replace(&mut directory.apps, change, "client_id", |row| Some(app(row))),
        "oauth2_tokens" => match row.and_then(|row| Some((text(row, "access_token"), token(row)?))) {
            Some((access, token)) => directory.oauth2_tokens.put(id, access, token, change.expires_at_ms),
            None => directory.oauth2_tokens.remove(id),
        },
        "oauth2_authorization_codes" => put_nobodys(&mut directory.codes, change, "code", |row| {
            Some(Code { grant: grant(row)?, challenge: text(row, "challenge").map(Into::into) })
        }),
        "sessions" => {
            put_nobodys(&mut directory.sessions, change, "session_id", |row| text(row, "data").map(Box::from))
        }
        "acls" => match row.and_then(|row| reference(row, "consumer").zip(text(row, "group"))) {
            Some((consumer, group)) => directory.put_membership(id, consumer, group),
            None => directory.remove_membership(id),
        },
        _ => return false,
    }
    true
}

/// Puts a credential that has a key and a secret; removes any other.
fn replace<S>(credentials: &mut Credentials<S>, change: &RowChange, key: &str, secret: impl FnOnce(&Row) -> Option<S>) {
    match change.row.as_ref().and_then(|row| credential(change, row, key, secret)) {
        Some(credential) => credentials.put(credential),
        None => credentials.remove(change.id),
    }
}

/// As `replace`, for rows that name no consumer.
fn put_nobodys<S>(
    credentials: &mut Credentials<S>,
    change: &RowChange,
    key: &str,
    secret: impl FnOnce(&Row) -> Option<S>,
) {
    let found = change.row.as_ref().and_then(|row| Some((text(row, key)?.into(), secret(row)?)));
    match found {
        Some((key, secret)) => {
            let (id, expires_at_ms) = (change.id, change.expires_at_ms);
            credentials.put(Credential { id, consumer: Uuid::nil(), key, secret, expires_at_ms });
        }
        None => credentials.remove(change.id),
    }
}

fn app(row: &Row) -> App {
    let uris = row.get("redirect_uris").and_then(Value::as_array).into_iter().flatten();
    App {
        secret: text(row, "client_secret").unwrap_or_default().into(),
        is_hashed: row.get("hash_secret") == Some(&Value::Bool(true)),
        is_public: text(row, "client_type") == Some("public"),
        redirect_uris: uris.filter_map(Value::as_str).map(Box::from).collect(),
    }
}

fn grant(row: &Row) -> Option<Grant> {
    Some(Grant {
        app: reference(row, "credential")?,
        service: reference(row, "service"),
        user: text(row, "authenticated_userid").map(Into::into),
        scope: text(row, "scope").map(Into::into),
    })
}

fn token(row: &Row) -> Option<Token> {
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    Some(Token {
        grant: grant(row)?,
        created_s: number("created_at"),
        expires_in_s: number("expires_in"),
        refresh_token: text(row, "refresh_token").map(Into::into),
    })
}

fn credential<S>(
    change: &RowChange,
    row: &Row,
    key: &str,
    secret: impl FnOnce(&Row) -> Option<S>,
) -> Option<Credential<S>> {
    let consumer: Uuid = reference(row, "consumer")?;
    let (key, secret) = (text(row, key)?.into(), secret(row)?);
    Some(Credential { id: change.id, consumer, key, secret, expires_at_ms: change.expires_at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(entity: &'static str, n: u128, row: Option<Value>) -> RowChange {
        let row = row.map(|row| row.as_object().cloned().unwrap());
        RowChange { entity, id: Uuid::from_u128(n), row, text: None, expires_at_ms: None }
    }

    #[test]
    fn a_credential_without_a_key_or_a_secret_is_found_by_nobody() {
        let owner = json!({ "id": Uuid::from_u128(1).to_string() });
        let mut directory = Directory::default();
        let mut put = |row: Option<Value>| {
            assert!(follow(&mut directory, &change("basicauth_credentials", 2, row)));
            directory.passwords.find(b"u", 0).map(|found| found.secret.clone())
        };
        assert_eq!(put(Some(json!({ "consumer": owner, "username": "u", "password": "h" }))).as_deref(), Some("h"));
        assert_eq!(put(Some(json!({ "consumer": owner, "username": "u", "password": null }))), None);
        assert!(put(Some(json!({ "consumer": owner, "username": "u", "password": "h" }))).is_some());
        assert_eq!(put(None), None);
    }

    #[test]
    fn groups_follow_their_rows() {
        let owner = Uuid::from_u128(1);
        let mut directory = Directory::default();
        let row = json!({ "consumer": { "id": owner.to_string() }, "group": "g" });
        assert!(follow(&mut directory, &change("acls", 2, Some(row))));
        assert_eq!(directory.groups(owner).map(|groups| &*groups.text), Some("g"));
        assert!(follow(&mut directory, &change("acls", 2, None)));
        assert!(directory.groups(owner).is_none());
        assert!(!follow(&mut directory, &change("routes", 2, None)));
    }
}
