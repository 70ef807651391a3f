//! The store as its users see it: what is written is there after a restart, and nothing else is.

use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::store::Opened;
use crate::control::store::Store;
use crate::control::store::WriteError;
use crate::control::store::tables::Conflict;
use crate::entity::Entity;
use crate::entity::consumer::CONSUMERS;
use crate::entity::keyauth_credential::KEYAUTH_CREDENTIALS;
use crate::entity::route::ROUTES;
use crate::entity::service::SERVICES;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn row(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn service(number: u128, name: &str) -> Map<String, Value> {
    row(json!({ "id": id(number).to_string(), "name": name, "tags": ["t"] }))
}

async fn insert(store: &Arc<Store<Fake>>, entity: &'static Entity, row: Map<String, Value>) -> Result<u64, Conflict> {
    let id = Uuid::try_parse(row["id"].as_str().unwrap()).unwrap();
    match store.write(|tx| tx.insert(entity, id, row, None)).await {
        Ok(written) => Ok(written.applied.version),
        Err(WriteError::Refused(conflict)) => Err(conflict),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_and_version_survive_a_restart_without_a_goodbye() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    assert_eq!(insert(&store, &SERVICES, service(1, "a")).await, Ok(1));
    assert_eq!(insert(&store, &SERVICES, service(2, "b")).await, Ok(2));
    store.write(|tx| tx.delete(&SERVICES, id(1))).await.unwrap();
    for file in ["store.db", "store.db-wal"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} holds credentials");
    }
    drop(store);
    let opened = Opened::open(&directory.path().join("store.db")).await.unwrap();
    assert_eq!(opened.version(), 3);
    let rows: Vec<_> = opened.rows().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].parsed().row, Some(service(2, "b")));
}

#[tokio::test]
async fn a_refused_write_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    insert(&store, &SERVICES, service(1, "a")).await.unwrap();
    let refused = store
        .write(|tx| {
            tx.insert(&SERVICES, id(2), service(2, "b"), None)?;
            assert!(tx.tables.find(&SERVICES, "name", "b").is_some(), "a write sees its own changes");
            tx.insert(&SERVICES, id(3), service(3, "a"), None)
        })
        .await;
    let Err(WriteError::Refused(Conflict::Unique(fields))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(Value::Object(fields), json!({ "name": "a" }));
    assert!(store.view().get(&SERVICES, id(2)).is_none());
    assert_eq!(store.view().version, 1);
    assert_eq!(store.publisher().posted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn references_restrict_and_cascade() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    insert(&store, &SERVICES, service(1, "a")).await.unwrap();
    let route = row(json!({ "id": id(2).to_string(), "name": "r", "service": { "id": id(1).to_string() } }));
    insert(&store, &ROUTES, route).await.unwrap();
    let refused = store.write(|tx| tx.delete(&SERVICES, id(1))).await;
    assert!(matches!(refused, Err(WriteError::Refused(Conflict::Referenced { child: "routes", parent: "services" }))));
    let dangling = row(json!({ "id": id(3).to_string(), "service": { "id": id(9).to_string() } }));
    let refused = insert(&store, &ROUTES, dangling).await;
    assert!(matches!(refused, Err(Conflict::Dangling { field: "service", entity: "services", .. })), "{refused:?}");
    insert(&store, &CONSUMERS, row(json!({ "id": id(4).to_string(), "username": "u" }))).await.unwrap();
    let key = row(json!({ "id": id(5).to_string(), "key": "k", "consumer": { "id": id(4).to_string() } }));
    insert(&store, &KEYAUTH_CREDENTIALS, key).await.unwrap();
    store.write(|tx| tx.delete(&CONSUMERS, id(4))).await.unwrap();
    assert!(store.view().get(&KEYAUTH_CREDENTIALS, id(5)).is_none());
    let posted = store.publisher().posted.lock().unwrap();
    let deleted: Vec<&str> = posted.last().unwrap().1.iter().map(|change| change.entity).collect();
    assert_eq!(deleted, ["keyauth_credentials", "consumers"], "children go before their parent");
}

#[tokio::test]
async fn expired_rows_are_invisible_at_once_and_deleted_soon() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    insert(&store, &CONSUMERS, row(json!({ "id": id(1).to_string(), "username": "u" }))).await.unwrap();
    let purge = tokio::spawn(store.clone().purge());
    let key = row(json!({ "id": id(2).to_string(), "key": "k", "consumer": { "id": id(1).to_string() } }));
    let expires_at_ms = store.view().now_ms + 100;
    store.write(|tx| tx.insert(&KEYAUTH_CREDENTIALS, id(2), key, Some(expires_at_ms))).await.unwrap();
    assert!(store.view().get(&KEYAUTH_CREDENTIALS, id(2)).is_some());
    let mut later = store.view();
    later.now_ms = expires_at_ms;
    assert!(later.get(&KEYAUTH_CREDENTIALS, id(2)).is_none());
    assert!(later.find(&KEYAUTH_CREDENTIALS, "key", "k").is_none());
    for _ in 0..100 {
        if store.view().version == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let posted = store.publisher().posted.lock().unwrap().last().cloned().unwrap();
    assert_eq!((posted.0, posted.1[0].entity, posted.1[0].row.is_none()), (3, "keyauth_credentials", true));
    purge.abort();
}

#[tokio::test]
async fn what_the_data_plane_refuses_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    let route = row(json!({ "id": id(1).to_string(), "paths": ["/refused"] }));
    let refused = store.write(|tx| tx.insert(&ROUTES, id(1), route, None)).await;
    assert!(matches!(refused, Err(WriteError::Uncompilable(_))));
    assert_eq!(store.view().version, 0);
}

#[tokio::test]
async fn what_the_disk_refuses_is_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    store.close().await;
    let refused = store.write(|tx| tx.insert(&SERVICES, id(1), service(1, "a"), None)).await;
    assert!(matches!(refused, Err(WriteError::Unsaved(_))));
    assert!(store.view().get(&SERVICES, id(1)).is_none());
    assert!(store.publisher().posted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_write_is_finished_though_nobody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    for number in 1..50 {
        let row = service(number, &format!("s{number}"));
        let write = store.write(|tx| tx.insert(&SERVICES, id(number), row, None));
        // Given up at any of its waits.
        let _ = tokio::time::timeout(Duration::from_micros(fastrand::u64(0..2000)), write).await;
    }
    // One more write waits for the last one in progress.
    insert(&store, &SERVICES, service(50, "last")).await.unwrap();
    let view = store.view();
    let posted: usize = store.publisher().posted.lock().unwrap().len();
    assert_eq!(posted as u64, view.version);
    drop(store);
    let opened = Opened::open(&directory.path().join("store.db")).await.unwrap();
    assert_eq!(opened.version(), view.version);
    assert_eq!(opened.rows().count(), view.page(&SERVICES, None, usize::MAX, None).rows.len());
}

#[tokio::test]
async fn files_that_cannot_be_used_say_why_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |path: std::path::PathBuf| async move { Opened::open(&path).await.err().unwrap().to_string() };

    let garbage = directory.path().join("garbage.db");
    std::fs::write(&garbage, "this is not a database, it is a text that is longer than a header".repeat(100)).unwrap();
    let text = refused(garbage).await;
    assert!(text.contains("garbage.db") && text.contains("restore the file from a backup"), "{text}");

    let text = refused(directory.path().join("missing/store.db")).await;
    assert!(text.contains("its directory exists"), "{text}");

    let store = testing::store(directory.path()).await;
    let text = refused(directory.path().join("store.db")).await;
    assert!(text.contains("another process has it open"), "{text}");
    store.close().await;
    drop(store);
    testing::store(directory.path()).await;
}

#[tokio::test]
async fn pages_are_in_order_of_id_and_filtered_by_tags() {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    for number in [3, 1, 2] {
        insert(&store, &SERVICES, service(number, &format!("s{number}"))).await.unwrap();
    }
    let view = store.view();
    let names = |after: Option<Uuid>, size: usize| {
        let page = view.page(&SERVICES, after, size, None);
        let names: Vec<Value> = page.rows.iter().map(|entry| entry.row()["name"].clone()).collect();
        (names, page.more)
    };
    assert_eq!(names(None, 2), (vec![json!("s1"), json!("s2")], true));
    assert_eq!(names(Some(id(2)), 2), (vec![json!("s3")], false));
    assert_eq!(names(Some(Uuid::max()), 2), (vec![], false));
    assert_eq!(view.tagged(None, Some("t"), 10).rows.len(), 3);
    assert_eq!(view.tagged(None, Some("x"), 10).rows.len(), 0);
}
