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
    check(value!({ "routes": refused }), value!({ "routes": { "r": { "paths.1": "does not compile" } } })).await;
}

#[tokio::test]
async fn remarks_of_people_are_ignored_wherever_they_stand() {
    let (_directory, admin) = admin().await;
    let remarks = value!({ "_comment": "why", "_ignore": [{ "anything": 1 }], "name": "s", "host": "h",
        "routes": [{ "_comment": null, "_ignore": [], "paths": ["/a"] }] });
    let document = value!({ "_format_version": "3.0", "_comment": "why", "_ignore": ["x", 1], "services": [remarks] });
    assert_eq!(json(&admin, "POST", "/config", document).await.0, 201);
    let service = value!([{ "name": "s", "host": "h", "_comment": 1, "_ignore": "x" }]);
    let document = value!({ "_format_version": "3.0", "_comment": 1, "_ignore": "x" });
    let both = value!({ "_comment": "expected a string", "_ignore": "expected an array" });
    assert_eq!(json(&admin, "POST", "/config", document).await.1["fields"], both);
    let document = value!({ "_format_version": "3.0", "services": service });
    assert_eq!(json(&admin, "POST", "/config", document).await.1["fields"]["services"], value!([both]));
}

#[tokio::test]
async fn a_list_of_no_filter_chains_is_no_mistake() {
    let (_directory, admin) = admin().await;
    for list in [value!(null), value!([])] {
        let service = value!({ "name": "s", "host": "h", "filter_chains": list });
        let document = value!({ "_format_version": "3.0", "filter_chains": list, "services": [service] });
        assert_eq!(json(&admin, "POST", "/config", document).await.0, 201, "{list}");
    }
    let document = value!({ "_format_version": "3.0", "filter_chains": [{ "filters": [] }] });
    let wrong = value!({ "filter_chains": "wasm support is not enabled" });
    assert_eq!(json(&admin, "POST", "/config", document).await.1["fields"], wrong);
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
async fn a_load_leaves_what_requests_have_made_as_long_as_it_belongs_to_something() {
    let (_directory, admin) = admin().await;
    let document = |apps: Value| {
        let consumers = value!([{ "username": "bob", "oauth2_credentials": apps }]);
        value!({ "_format_version": "3.0", "consumers": consumers })
    };
    let id = "11111111-1111-4111-8111-111111111111";
    let with_app = document(value!([{ "id": id, "name": "a", "redirect_uris": ["https://a.test"] }]));
    assert_eq!(json(&admin, "POST", "/config", with_app.clone()).await.0, 201);
    let token = value!({ "credential": { "id": id }, "expires_in": 1, "access_token": "t" });
    assert_eq!(json(&admin, "POST", "/oauth2_tokens", token).await.0, 201);
    assert_eq!(json(&admin, "POST", "/sessions", value!({ "session_id": "s" })).await.0, 201);
    assert_eq!(json(&admin, "POST", "/config", with_app).await.0, 201);
    assert_eq!(get(&admin, "/oauth2_tokens/t").await.0, 200);
    assert_eq!(get(&admin, "/sessions/s").await.0, 200);
    assert_eq!(json(&admin, "POST", "/config", document(value!([]))).await.0, 201);
    assert_eq!(get(&admin, "/oauth2_tokens/t").await.0, 404, "its application is gone");
    assert_eq!(get(&admin, "/sessions/s").await.0, 200);
    let other = value!({ "_format_version": "3.0", "sessions": [{ "session_id": "other" }] });
    assert_eq!(json(&admin, "POST", "/config", other).await.0, 201);
    assert_eq!(get(&admin, "/sessions/s").await.0, 404, "the document says which there are");
}

#[tokio::test]
async fn what_is_dumped_loads_to_the_same() {
    let (_directory, admin) = admin().await;
    let certificate = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert2.pem"));
    let key = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key2.pem"));
    let certificate = value!({ "cert": certificate, "key": key, "snis": [{ "name": "a.test" }] });
    let sets = value!([{ "name": "ks", "keys": [{ "kid": "k", "pem": { "private_key": key } }] }]);
    let consumers =
        value!([{ "username": "bob", "keyauth_credentials": [{ "key": "k", "ttl": 1000 }], "tags": ["t"] }]);
    let document =
        value!({ "_format_version": "3.0", "certificates": [certificate], "key_sets": sets, "consumers": consumers });
    assert_eq!(json(&admin, "POST", "/config", document).await.0, 201);
    let (_, dumped) = get(&admin, "/config").await;
    let text = dumped["config"].as_str().unwrap();
    assert!(text.contains("_format_version: '3.0'"), "{text}");
    let (status, preview) = yaml(&admin, "?dry_run=1", text).await;
    assert_eq!((status, preview), (200, value!({ "dry_run": true, "created": [], "changed": [], "deleted": [] })));
}

#[tokio::test]
async fn flat_errors_name_each_entry_once() {
    let (_directory, admin) = admin().await;
    let id = "11111111-1111-4111-8111-111111111111";
    let routes = value!([{ "name": "r", "paths": ["x"], "tags": ["t"] }]);
    let services = value!([{ "id": id, "name": "s", "host": "h", "routes": routes }]);
    let document = value!({ "_format_version": "3.0", "services": services, "nope": [] });
    let (status, refused) = json(&admin, "POST", "/config?flatten_errors=on", document).await;
    assert_eq!((status, &refused["fields"]), (400, &value!({ "nope": "unknown field" })));
    let message = "should start with: / (fixed path) or ~/ (regex path)";
    let want = value!([{
        "entity_type": "route", "entity_name": "r", "entity_tags": ["t"],
        "entity": { "name": "r", "paths": ["x"], "tags": ["t"], "service": { "id": id } },
        "errors": [{ "type": "field", "field": "paths.1", "message": message }],
    }]);
    assert_eq!(refused["flattened_errors"], want);

    let consumers = value!([{ "username": "a" }, { "username": "a" }]);
    let document = value!({ "_format_version": "3.0", "consumers": consumers });
    let (_, refused) = json(&admin, "POST", "/config?flatten_errors=yes", document).await;
    let text = "uniqueness violation: 'consumers' entity with username set to 'a' already declared";
    let want = value!([{
        "entity_type": "consumer", "entity": { "username": "a" }, "errors": [{ "type": "entity", "message": text }],
    }]);
    assert_eq!((&refused["fields"], &refused["flattened_errors"]), (&value!({}), &want));
}

#[tokio::test]
async fn random_documents_are_loaded_or_refused_in_the_documented_shape() {
    let (_directory, admin) = admin().await;
    let words = [
        "services",
        "routes",
        "snis",
        "certificates",
        "name",
        "host",
        "id",
        "service",
        "plugins",
        "paths",
        "tags",
        "_x",
    ];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut document = random_document(&mut random, &words, 5);
        if let Value::Object(fields) = &mut document {
            fields.insert("_format_version".to_string(), "3.0".into());
        }
        let target = ["/config", "/config?flatten_errors=1", "/config?dry_run=1"][random.usize(..3)];
        let reply = ask(&admin, "POST", target, &[("content-type", "application/json")], &document.to_string()).await;
        let status = reply.status.as_u16();
        assert!(matches!(status, 200 | 201 | 400 | 409), "seed {seed}: {status} {document} {}", reply.body);
        let yaml = ask(&admin, "POST", target, &[("content-type", "text/yaml")], &document.to_string()).await;
        assert!(matches!(yaml.status.as_u16(), 200 | 201 | 400 | 409), "seed {seed}: {document} {}", yaml.body);
    }
}

fn random_document(random: &mut fastrand::Rng, words: &[&str], depth: usize) -> Value {
    match random.u8(if depth == 0 { 0..4 } else { 2..12 }) {
        0 => Value::Null,
        1 => random.i32(..).into(),
        2 | 3 => words[random.usize(..words.len())].into(),
        4..=6 => (0..random.usize(..4)).map(|_| random_document(random, words, depth - 1)).collect(),
        _ => {
            let pairs = (0..random.usize(..5))
                .map(|_| (words[random.usize(..words.len())].to_string(), random_document(random, words, depth - 1)));
            Value::Object(pairs.collect())
        }
    }
}
