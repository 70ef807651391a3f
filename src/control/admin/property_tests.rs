//! What must hold of every entity and every plugin, whatever their schemas say: rows made from the schemas, and rubbish.
//! Always: seeded, so that a failure replays.

use crate::control::admin::Admin;
use crate::control::admin::property_rows as rows;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::admin::testing::ask;
use crate::control::admin::testing::get;
use crate::control::admin::testing::json;
use crate::entity::ENTITIES;
use crate::entity::Entity;
use crate::plugins::PLUGINS;
use fastrand::Rng;
use serde_json::Map;
use serde_json::Value;
use serde_json::json as value;
use std::collections::HashMap;
use tempfile::TempDir;

/// How often a row is tried with fewer fields before it is given up.
const ATTEMPTS: usize = 5;

/// Rows that are tried of each entity and each plugin.
const ROUNDS: u64 = 40;

struct World {
    admin: Admin<Fake>,
    /// One row of each entity that others refer to.
    parents: HashMap<&'static str, String>,
    _directory: TempDir,
}

impl World {
    async fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World {
            admin: testing::admin(testing::store(directory.path()).await),
            parents: HashMap::new(),
            _directory: directory,
        };
        for name in ["services", "routes", "consumers", "upstreams", "certificates", "key_sets", "oauth2_credentials"] {
            let Some(entity) = crate::entity::find(name).filter(|entity| is_served(entity)) else { continue };
            let mut row = rows::minimal(entity, "parent", &world.parents);
            row.insert("name".to_string(), "parent.test".into());
            row.retain(|field, _| entity.field(field).is_some());
            let (status, made) = json(&world.admin, "POST", &path_of(entity), Value::Object(row)).await;
            assert_eq!(status, 201, "{name}: {made}");
            world.parents.insert(name, made["id"].as_str().unwrap().to_string());
        }
        world
    }

    /// Creates the row, if need be with fewer of its optional fields. `minimal` are those that it cannot do without.
    async fn create(
        &self,
        entity: &Entity,
        minimal: &Map<String, Value>,
        mut row: Map<String, Value>,
        rng: &mut Rng,
    ) -> Option<Value> {
        for attempt in 0..=ATTEMPTS {
            let (status, made) = json(&self.admin, "POST", &path_of(entity), Value::Object(row.clone())).await;
            if status == 201 {
                return Some(made);
            }
            must_be_documented(status, &made, &format!("POST {} {row:?}", path_of(entity)));
            if attempt + 1 == ATTEMPTS {
                row = minimal.clone();
            } else {
                row.retain(|name, _| minimal.contains_key(name) || rng.bool());
            }
        }
        None
    }
}

fn is_served(entity: &Entity) -> bool {
    let loaded = |name: &str| PLUGINS.iter().any(|kind| kind.schema.name == name);
    entity.needs_plugin.is_none_or(loaded) && (entity.collection.is_some() || entity.name == "targets")
}

fn served() -> impl Iterator<Item = &'static Entity> {
    ENTITIES.iter().copied().filter(|entity| is_served(entity))
}

fn path_of(entity: &Entity) -> String {
    match entity.name {
        "targets" => "/upstreams/parent.test/targets".to_string(),
        _ => format!("/{}", entity.collection.unwrap_or_default()),
    }
}

/// A refusal as spec/admin-api.md section 5 says it.
#[track_caller]
fn must_be_documented(status: u16, body: &Value, context: &str) {
    assert!((400..500).contains(&status), "{status} {body} to {context}");
    let message = body["message"].as_str().unwrap_or_else(|| panic!("no message in {body} to {context}"));
    assert!(!message.is_empty(), "{body} to {context}");
    let fields = body["fields"].as_object();
    match body["code"].as_u64() {
        None => assert_eq!(body.as_object().map(Map::len), Some(1), "{body} to {context}"),
        Some(2) => {
            let one = message.starts_with("schema violation (");
            let counted = message.split_once(" schema violations (").and_then(|(count, _)| count.parse::<usize>().ok());
            assert!(one || counted.is_some_and(|count| count > 1), "{body} to {context}");
            assert!(fields.is_some_and(|fields| !fields.is_empty()), "{body} to {context}");
        }
        Some(11) => assert!(body["options"].is_object(), "{body} to {context}"),
        Some(7 | 9 | 10 | 12 | 19) => assert!(fields.is_none(), "{body} to {context}"),
        Some(1 | 3 | 4 | 5 | 6 | 13) => assert!(fields.is_some(), "{body} to {context}"),
        Some(code) => panic!("code {code} in {body} to {context}"),
    }
    assert!(body["code"].is_null() || body["name"].is_string(), "{body} to {context}");
}

/// Without what the server stamps on a write, and what is stored otherwise than sent.
fn comparable(entity: &Entity, row: &Value) -> Value {
    let mut row = row.clone();
    let fields = row.as_object_mut().expect("a row");
    fields.remove("updated_at");
    fields.remove("ttl");
    if entity.transform.is_some() {
        fields.retain(|name, _| !["password", "client_secret"].contains(&name.as_str()));
    }
    row
}

/// Reads the row, puts what was read, and reads again: all the same.
async fn must_come_back(world: &World, entity: &Entity, made: &Value) {
    let path = format!("{}/{}", path_of(entity), made["id"].as_str().unwrap());
    let (status, read) = get(&world.admin, &path).await;
    assert_eq!((status, comparable(entity, &read)), (200, comparable(entity, made)), "GET {path}");
    let (status, put) = json(&world.admin, "PUT", &path, read.clone()).await;
    assert_eq!((status, comparable(entity, &put)), (200, comparable(entity, made)), "PUT {path} {read}");
    let (status, patched) = json(&world.admin, "PATCH", &path, value!({})).await;
    assert_eq!((status, comparable(entity, &patched)), (200, comparable(entity, made)), "PATCH {path}");
    assert_eq!(comparable(entity, &get(&world.admin, &path).await.1), comparable(entity, made), "GET {path}");
}

/// Puts and patches spoiled forms of a row; what is taken comes back.
async fn must_survive_spoiling(world: &World, entity: &Entity, made: &Value, rng: &mut Rng) {
    let path = format!("{}/{}", path_of(entity), made["id"].as_str().unwrap());
    for _ in 0..6 {
        let mut spoiled = made.clone();
        for _ in 0..rng.usize(1..4) {
            rows::spoil(&mut spoiled, rng);
        }
        let method = rng.choice(["PUT", "PATCH"]).unwrap();
        let (status, answer) = json(&world.admin, method, &path, spoiled.clone()).await;
        if status == 200 {
            let stands = get(&world.admin, &path).await;
            assert_eq!(
                (stands.0, comparable(entity, &stands.1)),
                (200, comparable(entity, &answer)),
                "{path} {spoiled}"
            );
        } else {
            must_be_documented(status, &answer, &format!("{method} {path} {spoiled}"));
        }
    }
}

async fn must_go(world: &World, entity: &Entity, made: &Value) {
    let path = format!("{}/{}", path_of(entity), made["id"].as_str().unwrap());
    let reply = ask(&world.admin, "DELETE", &path, &[], "").await;
    assert_eq!(reply.status.as_u16(), 204, "DELETE {path}: {}", reply.body);
}

#[tokio::test]
async fn rows_of_every_entity_come_back_as_they_were_taken() {
    let world = World::new().await;
    for entity in served().filter(|entity| entity.name != "plugins") {
        let mut taken = 0u64;
        for round in 0..ROUNDS {
            let mut rng = Rng::with_seed(round);
            let minimal = rows::minimal(entity, &format!("n{round}"), &world.parents);
            let row = rows::filled(entity, minimal.clone(), &world.parents, &mut rng);
            let Some(made) = world.create(entity, &minimal, row, &mut rng).await else { continue };
            taken += 1;
            must_come_back(&world, entity, &made).await;
            must_survive_spoiling(&world, entity, &made, &mut rng).await;
            must_go(&world, entity, &made).await;
        }
        assert!(taken > ROUNDS - 5, "{}: only {taken} rows were taken", entity.name);
    }
}

#[tokio::test]
async fn every_plugin_comes_back_as_it_was_taken() {
    let world = World::new().await;
    let entity = crate::entity::find("plugins").unwrap();
    for kind in PLUGINS {
        let mut taken = 0u64;
        for round in 0..ROUNDS {
            let mut rng = Rng::with_seed(round);
            let (minimal, row) = rows::plugin(&kind.schema, &world.parents, &mut rng);
            let Some(made) = world.create(entity, &minimal, row, &mut rng).await else { continue };
            taken += 1;
            must_come_back(&world, entity, &made).await;
            must_survive_spoiling(&world, entity, &made, &mut rng).await;
            must_go(&world, entity, &made).await;
        }
        assert!(taken > 0, "{}: no row was taken", kind.schema.name);
    }
}

#[tokio::test]
async fn rubbish_is_refused_as_documented() {
    let world = World::new().await;
    for entity in served() {
        let path = path_of(entity);
        for round in 0..4 * ROUNDS {
            let mut rng = Rng::with_seed(round);
            let body = if rng.bool() { rows::any(&mut rng, 3) } else { rows::with_any_values(entity, &mut rng) };
            let method = rng.choice(["POST", "PUT", "PATCH"]).unwrap();
            let path = if method == "POST" { path.clone() } else { format!("{path}/{}", rows::segment(&mut rng)) };
            let reply =
                ask(&world.admin, method, &path, &[("content-type", "application/json")], &body.to_string()).await;
            let status = reply.status.as_u16();
            if !matches!(status, 200 | 201) {
                let answer = serde_json::from_str(&reply.body).unwrap_or_default();
                must_be_documented(status, &answer, &format!("{method} {path} {body}"));
            }
        }
    }
}
