//! Declarative documents loaded, previewed and refused.

use crate::control::admin::Admin;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::admin::testing::ask;
use crate::control::admin::testing::get;
use crate::control::admin::testing::json;
use serde_json::Value;
use serde_json::json as value;
use tempfile::TempDir;

async fn admin() -> (TempDir, Admin<Fake>) {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    (directory, testing::admin(store))
}

async fn yaml(admin: &Admin<Fake>, query: &str, text: &str) -> (u16, Value) {
    let reply = ask(admin, "POST", &format!("/config{query}"), &[("content-type", "text/yaml")], text).await;
    (reply.status.as_u16(), serde_json::from_str(&reply.body).unwrap_or_default())
}

const SMALL: &str = "
_format_version: '3.0'
services:
- name: s
  host: h
  plugins: [{ name: key-auth }]
  routes: [{ name: r, paths: [/a] }]
consumers:
- username: bob
upstreams:
- name: u
  targets: [{ target: 'a.com:80' }]
plugins:
- name: key-auth
- { name: correlation-id, service: s }
";

#[tokio::test]
async fn generated_ids_are_those_of_kong() {
    let (_directory, admin) = admin().await;
    let (status, loaded) = yaml(&admin, "", SMALL).await;
    assert_eq!(status, 201, "{loaded}");
    let check = |entity: &str, id: &str| assert!(!loaded[entity][id].is_null(), "{entity} {id}: {}", loaded[entity]);
    check("services", "b268827a-8f7f-551f-8769-e6bceb2f3ec6");
    check("routes", "da7ba03a-f1be-52d4-8a7e-c8f32640689a");
    check("consumers", "def4f7d3-9863-5ad2-8fa9-c949bf26f55e");
    check("upstreams", "597a2b96-28b9-56b9-8745-bb55e59539cc");
    check("plugins", "6b4f38d1-e026-540b-a5ea-8634739dd2a7");
    check("plugins", "a9d11628-ce50-5f63-9767-909c411edf06");
    check("targets", "78e8d7d8-636c-5855-8e3d-67ed3093b370");
}

#[tokio::test]
async fn a_load_replaces_everything_and_touches_only_what_changes() {
    let (_directory, admin) = admin().await;
    assert_eq!(json(&admin, "POST", "/services", value!({ "name": "old", "host": "h" })).await.0, 201);
    let (status, preview) = yaml(&admin, "?dry_run=1", SMALL).await;
    assert_eq!((status, preview["created"].as_array().map(Vec::len)), (200, Some(8)));
    assert_eq!(preview["deleted"][0]["row"]["name"], "old");
    assert_eq!(get(&admin, "/routes").await.1["data"], value!([]), "a preview changes nothing");

    assert_eq!(yaml(&admin, "", SMALL).await.0, 201);
    assert_eq!(get(&admin, "/services/old").await.0, 404);
    let posted = admin.store.publisher().posted.lock().unwrap().len();
    let (_, nothing) = yaml(&admin, "?dry_run=true", SMALL).await;
    assert_eq!(nothing, value!({ "dry_run": true, "created": [], "changed": [], "deleted": [] }));
    assert_eq!(yaml(&admin, "", SMALL).await.0, 201);
    assert_eq!(admin.store.publisher().posted.lock().unwrap().len(), posted, "the same again is no change");

    let other = SMALL.replace("host: h", "host: other");
    let (_, preview) = yaml(&admin, "?dry_run=1", &other).await;
    assert_eq!(preview["changed"][0]["fields"], value!({ "host": { "old": "h", "new": "other" } }));
    assert_eq!(yaml(&admin, "", &other).await.0, 201);
    let posted = admin.store.publisher().posted.lock().unwrap().last().cloned().unwrap();
    assert_eq!(posted.1.len(), 1, "one changed row is one change");
}

#[tokio::test]
async fn a_document_in_force_is_recognised_until_something_changes() {
    let (_directory, admin) = admin().await;
    assert_eq!(yaml(&admin, "?check_hash=1", SMALL).await.0, 201);
    assert_eq!(yaml(&admin, "?check_hash=1", SMALL).await.0, 304);
    assert_eq!(yaml(&admin, "", SMALL).await.0, 201);
    assert_eq!(json(&admin, "PATCH", "/services/s", value!({ "host": "other" })).await.0, 200);
    assert_eq!(yaml(&admin, "?check_hash=1", SMALL).await.0, 201);
    assert_eq!(get(&admin, "/services/s").await.1["host"], "h");
}

#[tokio::test]
async fn one_wrong_entry_among_many_is_named_and_nothing_is_changed() {
    let (_directory, admin) = admin().await;
    let mut services: Vec<Value> = (0..10_000).map(|n| value!({ "name": format!("s{n}"), "host": "h" })).collect();
    services[9_999]["port"] = value!(-1);
    let document = value!({ "_format_version": "3.0", "services": services });
    let (status, refused) = json(&admin, "POST", "/config", document).await;
    assert_eq!(status, 400);
    assert_eq!(refused["fields"]["services"][9_999]["port"], "value should be between 0 and 65535");
    let message = "declarative config is invalid: {services={[10000]={port=\"value should be between 0 and 65535\"}}}";
    assert_eq!(refused["message"], message);
    assert_eq!(get(&admin, "/services").await.1["data"], value!([]));
}

#[tokio::test]
async fn each_mistake_is_reported_where_it_stands() {
    let (_directory, admin) = admin().await;
    let check = async |document: Value, want: Value| {
        let mut sent = document.clone();
        sent["_format_version"] = "3.0".into();
        let (status, refused) = json(&admin, "POST", "/config", sent).await;
        assert_eq!((status, &refused["code"], &refused["fields"]), (400, &value!(14), &want), "{document}");
    };
    check(value!({ "services": 1 }), value!({ "services": "expected an array" })).await;
    check(value!({ "services": [1] }), value!({ "services": ["expected a record"] })).await;
    check(value!({ "_x": 1 }), value!({ "_x": "unknown field" })).await;
    let nested = value!({ "name": "s", "host": "h", "routes": [{ "paths": ["/a"] }, { "paths": ["b"] }] });
    let wrong = "should start with: / (fixed path) or ~/ (regex path)";
    check(value!({ "services": [nested] }), value!({ "services": [{ "routes": [null, { "paths": [wrong] }] }] })).await;
    let linked = value!({ "name": "s", "host": "h", "routes": [{ "paths": ["/a"], "service": "s" }] });
    let wrong = value!({ "services": [{ "routes": [{ "service": "value must be null" }] }] });
    check(value!({ "services": [linked] }), wrong).await;
    let named = value!({ "name": "r", "paths": ["/"], "service": { "name": "s" } });
    let service = value!([{ "name": "s", "host": "h" }]);
    let wrong = value!({ "routes": [{ "service": { "id": "missing primary key" } }] });
    check(value!({ "services": service, "routes": [named] }), wrong).await;
    let twice = "uniqueness violation: 'consumers' entity with custom_id set to 'x' already declared";
    let consumers = value!([{ "username": "a", "custom_id": "x" }, { "username": "b", "custom_id": "x" }]);
    check(value!({ "consumers": consumers }), value!({ "consumers": { "b": twice } })).await;
    let refused = value!([{ "name": "r", "paths": ["/refused"] }]);
    let id = "da7ba03a-f1be-52d4-8a7e-c8f32640689a";
    check(value!({ "routes": refused }), value!({ "routes": { id: { "paths.1": "does not compile" } } })).await;
}

#[tokio::test]
async fn anchors_and_merge_keys_are_resolved_and_a_bomb_of_aliases_is_refused() {
    let (_directory, admin) = admin().await;
    let text = "
_format_version: '3.0'
_ignore: [&base { host: h, retries: 1 }]
services:
- { <<: *base, name: a }
- { <<: *base, name: b, retries: 2 }
";
    assert_eq!(yaml(&admin, "", text).await.0, 201);
    assert_eq!(get(&admin, "/services/a").await.1["retries"], 1);
    assert_eq!(get(&admin, "/services/b").await.1["retries"], 2);
    let mut bomb = "_format_version: '3.0'\n_ignore:\n- &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_string();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("- &a{level} [{inner}]\n"));
    }
    assert_eq!(yaml(&admin, "", &bomb).await.0, 400);
    assert_eq!(yaml(&admin, "", &"[".repeat(100_000)).await.0, 400);
    assert_eq!(
        yaml(&admin, "", "just text").await.1["fields"]["error"],
        "failed parsing declarative configuration: expected an object"
    );
    let elsewhere = ask(&admin, "POST", "/services", &[("content-type", "text/yaml")], "host: h").await;
    assert_eq!(elsewhere.status, 415);
}

#[tokio::test]
async fn what_is_dumped_loads_to_the_same() {
    let (_directory, admin) = admin().await;
    let certificate = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert2.pem"));
    let key = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key2.pem"));
    let certificate = value!({ "cert": certificate, "key": key, "snis": [{ "name": "a.test" }] });
    let sets = value!([{ "name": "ks", "keys": [{ "kid": "k", "pem": { "private_key": key } }] }]);
    let consumers = value!([{ "username": "bob", "keyauth_credentials": [{ "key": "k" }], "tags": ["t"] }]);
    let document =
        value!({ "_format_version": "3.0", "certificates": [certificate], "key_sets": sets, "consumers": consumers });
    assert_eq!(json(&admin, "POST", "/config", document).await.0, 201);
    let (_, dumped) = get(&admin, "/config").await;
    let text = dumped["config"].as_str().unwrap();
    assert!(text.contains("_format_version: '3.0'"), "{text}");
    let (status, preview) = yaml(&admin, "?dry_run=1", text).await;
    assert_eq!((status, preview), (200, value!({ "dry_run": true, "created": [], "changed": [], "deleted": [] })));
}
