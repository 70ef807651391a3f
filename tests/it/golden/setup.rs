//! Recorded declarative configurations, brought into a running gateway through its Admin API.
//! Always: what one configuration left is deleted before the next comes.

use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::golden::pattern::Pattern;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::admin_request;

/// Top-level collections, referenced ones first, with the field that names an entity.
const COLLECTIONS: [(&str, &str); 4] =
    [("consumers", "username"), ("upstreams", "name"), ("services", "name"), ("routes", "name")];
/// Collections inside of entities: where they stand, their path in the Admin API, and how a row names its owner.
const NESTED: [(&str, &str, &str); 7] = [
    ("routes", "routes", "service"),
    ("plugins", "plugins", "route"),
    ("targets", "targets", "upstream"),
    ("keyauth_credentials", "key-auth", "consumer"),
    ("basicauth_credentials", "basic-auth", "consumer"),
    ("acls", "acls", "consumer"),
    ("jwt_secrets", "jwt", "consumer"),
];

/// The Admin API of a gateway, and what was created in it.
pub struct Setup {
    admin: Client,
    created: Vec<String>,
}

impl Setup {
    /// Nothing was created yet.
    pub fn new(gateway: &Gateway) -> Self {
        Self { admin: gateway.admin_client(), created: Vec::new() }
    }

    /// Replaces the configuration.
    #[track_caller]
    pub fn replace(&mut self, config: &Value, pattern: &Pattern) {
        while let Some(path) = self.created.pop() {
            self.admin.ask(admin_request("DELETE", &path, None)).must_be(204);
        }
        let text = pattern.put_in(&config.to_string());
        let mut config: Value = serde_json::from_str(&text).expect("it was JSON before");
        for (collection, named_by) in COLLECTIONS {
            for entity in rows(&mut config, collection) {
                self.create(collection, named_by, entity);
            }
        }
    }

    fn create(&mut self, collection: &str, named_by: &str, mut entity: Value) {
        let nested = NESTED.map(|(field, path, owner)| (path, owner, rows(&mut entity, field)));
        if let Some(port) = entity.get_mut("port")
            && let Some(number) = port.as_str().and_then(|text| text.parse::<u16>().ok())
        {
            *port = json!(number);
        }
        // Without a database Kong derives ids from names: the same entity has the same id in every configuration.
        let name = entity[named_by].as_str().expect("a recorded entity has a name");
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{collection}:{name}").as_bytes()).to_string();
        entity["id"] = json!(id);
        self.post(&format!("/{collection}"), &entity);
        for (path, owner, rows) in nested {
            for mut row in rows {
                match path {
                    "targets" | "key-auth" | "basic-auth" | "acls" | "jwt" => {
                        self.post(&format!("/{collection}/{id}/{path}"), &row)
                    }
                    "plugins" => {
                        row[owner] = json!({"id": id});
                        // Functions in Lua are refused.
                        if let Some(config) = row["config"].as_object_mut() {
                            config.remove("custom_fields_by_lua");
                        }
                        self.post("/plugins", &row);
                    }
                    _ => {
                        row[owner] = json!({"id": id});
                        self.create(path, "name", row);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn post(&mut self, path: &str, row: &Value) {
        let stored = self.admin.ask(admin_request("POST", path, Some(row))).must_be(201).json();
        let id = stored["id"].as_str().expect("an entity has an id");
        self.created.push(format!("{path}/{id}"));
    }
}

/// Takes a collection out of an entity.
fn rows(entity: &mut Value, field: &str) -> Vec<Value> {
    let taken = entity.as_object_mut().and_then(|fields| fields.remove(field));
    taken.as_ref().and_then(Value::as_array).cloned().unwrap_or_default()
}
