//! Every plugin as the Admin API shows it and takes it.

use serde_json::Value;
use serde_json::json;

use crate::control::admin::testing::admin;
use crate::control::admin::testing::json as ask;
use crate::control::admin::testing::store;
use crate::entity::schema::Kind;
use crate::entity::schema::Record;
use crate::plugins::PLUGINS;

/// What plugins demand of the operator.
fn demanded(name: &str) -> Value {
    match name {
        "rate-limiting" => json!({"minute": 1}),
        "response-ratelimiting" => json!({"limits": {"x": {"minute": 1}}}),
        "http-log" => json!({"http_endpoint": "http://h/"}),
        "file-log" => json!({"path": "/tmp/x"}),
        "tcp-log" | "udp-log" => json!({"host": "h", "port": 1}),
        "loggly" => json!({"key": "k"}),
        "redirect" => json!({"location": "http://h/"}),
        "proxy-cache" => json!({"strategy": "memory"}),
        "moesif" => json!({"application_id": "k"}),
        "acl" | "ip-restriction" => json!({"allow": ["127.0.0.1"]}),
        "ldap-auth" => json!({"ldap_host": "h", "ldap_port": 389, "base_dn": "dc=x", "attribute": "uid"}),
        "standard-webhooks" => json!({"secret_v1": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
        "opentelemetry" => json!({"traces_endpoint": "http://h/"}),
        "zipkin" => json!({"http_endpoint": "http://h/"}),
        "oauth2" => json!({"enable_client_credentials": true}),
        _ => json!({}),
    }
}

/// Names of fields in the shape of `/schemas`: a list of objects of one member.
fn shown(fields: &Value) -> Vec<String> {
    let listed = fields.as_array().into_iter().flatten().filter_map(Value::as_object);
    listed.filter_map(|field| field.keys().next().cloned()).collect()
}

/// Every field of a record is shown, and those of the records in it.
fn check_shown(place: &str, record: &Record, shown_as: &Value) {
    let names: Vec<String> = record.fields.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(shown(&shown_as["fields"]), names, "{place}");
    for (at, field) in record.fields.iter().enumerate() {
        let document = &shown_as["fields"][at][field.name];
        assert!(document["type"].is_string(), "{place}.{} says its type", field.name);
        if let Some(default) = field.default.filter(|_| !matches!(field.kind, Kind::Record(_))) {
            assert_eq!(document["default"], default.to_value(), "{place}.{}", field.name);
        }
        if let Kind::Record(inner) = field.kind {
            check_shown(&format!("{place}.{}", field.name), inner, document);
        }
    }
}

#[tokio::test]
async fn every_plugin_shows_its_whole_schema_and_takes_its_own_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let admin = admin(store(directory.path()).await);
    for kind in PLUGINS {
        let name = kind.schema.name;
        let (status, schema) = ask(&admin, "GET", &format!("/schemas/plugins/{name}"), Value::Null).await;
        assert_eq!(status, 200, "{name}");
        let fields = schema["fields"].as_array().unwrap();
        let config = fields.iter().find_map(|field| field.get("config")).unwrap();
        check_shown(name, &kind.schema.config, config);
        let given = json!({"name": name, "config": demanded(name)});
        let (status, made) = ask(&admin, "POST", "/plugins", given).await;
        assert_eq!(status, 201, "{name}: {made}");
        for field in kind.schema.config.fields {
            assert!(made["config"].get(field.name).is_some(), "{name}: a new row has {}", field.name);
        }
        // What was filled in is as good as what was given.
        let again = json!({"name": name, "config": made["config"]});
        let (status, verdict) = ask(&admin, "POST", "/schemas/plugins/validate", again).await;
        assert_eq!(status, 200, "{name}: {verdict}");
    }
}
