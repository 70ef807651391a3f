//! Credentials and groups of consumers, through the Admin API and in declarative documents.

use crate::control::admin::Admin;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::admin::testing::ask;
use crate::control::admin::testing::get;
use crate::control::admin::testing::json;
use crate::entity::basicauth_credential::password_hash;
use serde_json::Value;
use serde_json::json as value;
use tempfile::TempDir;

/// With a consumer `alice`; answers her id.
async fn admin() -> (TempDir, Admin<Fake>, String) {
    let directory = tempfile::tempdir().unwrap();
    let admin = testing::admin(testing::store(directory.path()).await);
    let (status, alice) = json(&admin, "POST", "/consumers", value!({ "username": "alice" })).await;
    assert_eq!(status, 201);
    let id = alice["id"].as_str().unwrap().to_string();
    (directory, admin, id)
}

#[tokio::test]
async fn a_password_is_stored_and_shown_hashed_and_hashed_again_when_changed() {
    let (_directory, admin, alice) = admin().await;
    let sent = value!({ "username": "u", "password": "p" });
    let (status, made) = json(&admin, "POST", "/consumers/alice/basic-auth", sent.clone()).await;
    assert_eq!((status, &made["password"]), (201, &value!(password_hash(b"p", &alice))));
    let (status, refused) = json(&admin, "POST", "/basic-auths", sent).await;
    let text = "all or none of these fields must be set: 'password', 'consumer.id'";
    let fields = value!({ "@entity": [text], "consumer": "required field missing" });
    assert_eq!((status, &refused["fields"]), (400, &fields));

    let (status, patched) = json(&admin, "PATCH", "/consumers/alice/basic-auth/u", value!({ "password": "q" })).await;
    assert_eq!((status, &patched["password"]), (200, &value!(password_hash(b"q", &alice))));
    let (_, kept) = json(&admin, "PATCH", "/basic-auths/u", value!({ "tags": ["t"] })).await;
    assert_eq!(kept["password"], patched["password"]);
    let (status, refused) = json(&admin, "PATCH", "/basic-auths/u", value!({ "password": "r" })).await;
    assert_eq!((status, &refused["fields"]), (400, &value!({ "@entity": [text] })));

    // What is dumped loads to the same hash.
    let (_, dump) = get(&admin, "/config").await;
    let text = dump["config"].as_str().unwrap();
    assert!(text.contains("_transform: false"), "{text}");
    assert_eq!(load(&admin, text).await.0, 201);
    assert_eq!(get(&admin, "/basic-auths/u").await.1["password"], patched["password"]);
}

async fn load(admin: &Admin<Fake>, text: &str) -> (u16, Value) {
    let reply = ask(admin, "POST", "/config", &[("content-type", "text/yaml")], text).await;
    (reply.status.as_u16(), serde_json::from_str(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn a_group_is_named_below_its_consumer_only() {
    let (_directory, admin, alice) = admin().await;
    let (status, made) = json(&admin, "POST", "/consumers/alice/acls", value!({ "group": "g" })).await;
    assert_eq!((status, &made["consumer"]["id"]), (201, &value!(alice)));
    let (status, twice) = json(&admin, "POST", "/consumers/alice/acls", value!({ "group": "g" })).await;
    assert_eq!((status, &twice["fields"]), (409, &value!({ "consumer": { "id": alice }, "group": "g" })));

    let id = made["id"].as_str().unwrap();
    for path in [format!("/acls/{id}"), format!("/consumers/alice/acls/{id}"), "/consumers/alice/acls/g".to_string()] {
        assert_eq!(get(&admin, &path).await, (200, made.clone()), "{path}");
    }
    assert_eq!(get(&admin, "/acls/g").await.0, 400);
    let (status, put) = json(&admin, "PUT", "/consumers/alice/acls/h", value!({ "tags": ["t"] })).await;
    assert_eq!((status, &put["group"], &put["tags"]), (200, &value!("h"), &value!(["t"])));
    let (status, again) = json(&admin, "PUT", "/consumers/alice/acls/h", value!({})).await;
    assert_eq!((status, &again["id"], &again["tags"]), (200, &put["id"], &Value::Null));
    let (status, patched) = json(&admin, "PATCH", "/consumers/alice/acls/h", value!({ "group": "i" })).await;
    assert_eq!((status, &patched["id"], &patched["group"]), (200, &put["id"], &value!("i")));

    for method in ["GET", "PATCH", "DELETE"] {
        let (status, body) = json(&admin, method, "/consumers/alice/acls/h", value!({})).await;
        assert_eq!((status, &body["message"]), (404, &value!("Not found")), "{method}");
        assert_eq!(json(&admin, method, "/consumers/nobody/acls/i", value!({})).await.0, 404);
    }
    assert_eq!(json(&admin, "DELETE", "/consumers/alice/acls/i", Value::Null).await.0, 204);
    assert_eq!(get(&admin, "/consumers/alice/acls").await.1["data"].as_array().map(Vec::len), Some(1));
}

const NESTED: &str = "
_format_version: '3.0'
consumers:
- username: bob
  acls: [{ group: g }]
  basicauth_credentials: [{ username: u, password: p }]
  keyauth_credentials: [{ key: k }]
";

#[tokio::test]
async fn credentials_nest_in_declared_consumers() {
    let (_directory, admin, _) = admin().await;
    let (status, loaded) = load(&admin, NESTED).await;
    assert_eq!(status, 201, "{loaded}");
    let group = &loaded["acls"]["f363fae2-e46e-560c-8df0-6fb2e9cacfcb"];
    let bob = "def4f7d3-9863-5ad2-8fa9-c949bf26f55e";
    assert_eq!((&group["group"], &group["consumer"]["id"]), (&value!("g"), &value!(bob)));
    let (_, stored) = get(&admin, "/consumers/bob/basic-auth/u").await;
    assert_eq!(stored["password"], value!(password_hash(b"p", bob)));
    let (_, first) = load(&admin, NESTED).await;
    assert_eq!(first["basicauth_credentials"], loaded["basicauth_credentials"], "the id is the same on every load");
}
