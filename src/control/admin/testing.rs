//! A whole Admin API over a store in a temporary directory and a data plane that only remembers. For tests.

use crate::control::admin::Admin;
use crate::control::admin::AdminConfig;
use crate::control::admin::Counters;
use crate::control::admin::Live;
use crate::control::admin::Node;
use crate::control::admin::PluginInfo;
use crate::control::admin::Request;
use crate::control::admin::Surface;
use crate::control::admin::reply::Reply;
use crate::control::store::Applied;
use crate::control::store::Opened;
use crate::control::store::Publish;
use crate::control::store::Store;
use crate::entity::RowChange;
use crate::entity::route::ROUTES;
use crate::plugins::PLUGINS;
use crate::state::compile::Refusal;
use hyper::HeaderMap;
use hyper::Method;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use serde_json::Map;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use uuid::Uuid;

/// Remembers what was posted; refuses routes that have the path `/refused`.
#[derive(Default)]
pub struct Fake {
    pub posted: Mutex<Vec<(u64, Vec<RowChange>)>>,
}

impl Publish for Fake {
    type Prepared = (u64, Vec<RowChange>);
    type Acks = u64;

    fn prepare(&self, version: u64, changes: &[RowChange]) -> Result<Self::Prepared, Vec<Refusal>> {
        let refused = |row: &Map<String, Value>| row.get("paths") == Some(&serde_json::json!(["/refused"]));
        let refusals: Vec<Refusal> = changes
            .iter()
            .filter(|change| change.row.as_ref().is_some_and(refused))
            .map(|change| Refusal {
                entity: change.entity,
                id: change.id,
                field: "paths.1".to_string(),
                message: "does not compile".to_string(),
            })
            .collect();
        if refusals.is_empty() { Ok((version, changes.to_vec())) } else { Err(refusals) }
    }

    fn post(&self, prepared: Self::Prepared) -> u64 {
        let version = prepared.0;
        self.posted.lock().unwrap().push(prepared);
        version
    }

    async fn wait(version: u64) -> Applied {
        Applied { version, late: Vec::new() }
    }
}

pub struct FakeNode;

impl Node for FakeNode {
    fn id(&self) -> Uuid {
        Uuid::nil()
    }
    fn hostname(&self) -> String {
        "node".to_string()
    }
    fn cores(&self) -> Vec<Value> {
        vec![serde_json::json!({ "core": 0, "version": 0 })]
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn memory_bytes(&self) -> u64 {
        5 << 20
    }
    fn log_level(&self) -> String {
        "notice".to_string()
    }
    fn set_log_level(&self, level: &str, _seconds: u64) -> bool {
        level == "debug"
    }
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

pub fn plugins() -> Vec<PluginInfo> {
    PLUGINS.iter().map(|kind| PluginInfo { schema: &kind.schema, priority: i64::from(kind.priority) }).collect()
}

pub async fn store(directory: &Path) -> Arc<Store<Fake>> {
    Opened::open(&directory.join("store.db")).await.unwrap().into_store(Fake::default())
}

pub fn admin(store: Arc<Store<Fake>>) -> Admin<Fake> {
    let config = AdminConfig {
        configuration: Map::new(),
        plugins: plugins(),
        routes: &ROUTES,
        loaded: None,
        live: Live {
            gui_origins: Vec::new(),
            token: None,
            shows_server: true,
            shows_latency: true,
            body_bytes_max: 10 << 20,
        },
    };
    Admin::new(config, store, Arc::new(FakeNode))
}

/// Asks for a path (with its query) with headers and a body.
pub async fn ask(admin: &Admin<Fake>, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let request = Request {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path.to_string(),
        query: query.to_string(),
        headers: map,
        at_loopback: true,
    };
    let body = body.as_bytes().to_vec();
    admin.answer(request, async { Ok(body.into()) }, Surface::Admin).await
}

/// Sends JSON, gives status and body.
pub async fn json(admin: &Admin<Fake>, method: &str, target: &str, body: Value) -> (u16, Value) {
    let headers: &[(&str, &str)] = &[("content-type", "application/json")];
    let reply = ask(admin, method, target, headers, &body.to_string()).await;
    (reply.status.as_u16(), serde_json::from_str(&reply.body).unwrap_or_default())
}

/// Gets, gives status and body.
pub async fn get(admin: &Admin<Fake>, target: &str) -> (u16, Value) {
    let reply = ask(admin, "GET", target, &[], "").await;
    (reply.status.as_u16(), serde_json::from_str(&reply.body).unwrap_or_default())
}
