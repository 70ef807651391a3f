//! Rows that are right as far as a schema tells, and rubbish. For tests.

use crate::entity::Entity;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use fastrand::Rng;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::HashMap;
use uuid::Uuid;

/// Ids of rows to refer to, by entity.
type Parents = HashMap<&'static str, String>;

const CERT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert1.pem"));
const KEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key1.pem"));
const CA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/ca.pem"));

/// What a row cannot do without, told from others by `name`.
pub fn minimal(entity: &Entity, name: &str, parents: &Parents) -> Map<String, Value> {
    let row = match entity.name {
        "services" => json!({ "host": "up.test" }),
        "routes" => json!({ "paths": ["/a"] }),
        "consumers" => json!({ "username": name }),
        "upstreams" => json!({ "name": format!("{name}.test") }),
        "targets" => json!({ "target": format!("{name}.test:80") }),
        "certificates" => json!({ "cert": CERT, "key": KEY }),
        "ca_certificates" => json!({ "cert": CA }),
        "snis" => json!({ "name": format!("{name}.test") }),
        "vaults" => json!({ "prefix": format!("a-{name}"), "name": "env", "config": {} }),
        "key_sets" => json!({ "name": name }),
        "keys" => {
            json!({ "kid": name, "jwk": json!({ "kid": name, "kty": "RSA", "n": "AQAB", "e": "AQAB" }).to_string() })
        }
        "acls" => json!({ "group": name }),
        "basicauth_credentials" => json!({ "username": name, "password": "p" }),
        "hmacauth_credentials" => json!({ "username": name }),
        "oauth2_credentials" => json!({ "name": name }),
        _ => json!({}),
    };
    let Value::Object(mut row) = row else { return Map::new() };
    for reference in entity.references() {
        let required = entity.field(reference.field).is_some_and(Field::is_required);
        let wanted = required || entity.name.ends_with("_credentials") || entity.name == "jwt_secrets";
        if let Some(id) = parents.get(reference.entity).filter(|_| wanted) {
            row.insert(reference.field.to_string(), json!({ "id": id }));
        }
    }
    let rng = &mut Rng::with_seed(0);
    let missing = entity.record.fields.iter().filter(|field| field.is_required() && needs_value(field));
    for field in missing.filter(|field| !matches!(field.kind, Kind::Abstract)) {
        row.entry(field.name).or_insert_with(|| plausible(field, parents, rng));
    }
    row
}

/// The row with some more of its fields.
pub fn filled(entity: &Entity, mut row: Map<String, Value>, parents: &Parents, rng: &mut Rng) -> Map<String, Value> {
    let own = ["id", "updated_at", "snis"];
    for field in entity.record.fields.iter().filter(|field| !own.contains(&field.name)) {
        if !row.contains_key(field.name) && rng.u8(..) < 80 && !matches!(field.kind, Kind::Abstract) {
            row.insert(field.name.to_string(), plausible(field, parents, rng));
        }
    }
    row
}

/// A plugin with what it needs, and one with more.
pub fn plugin(schema: &PluginSchema, parents: &Parents, rng: &mut Rng) -> (Map<String, Value>, Map<String, Value>) {
    let mut config = Map::new();
    for field in schema.config.fields.iter().filter(|field| field.is_required() && needs_value(field)) {
        config.insert(field.name.to_string(), plausible(field, parents, rng));
    }
    // Rules on several fields together are not told by the fields.
    let needed = match schema.name {
        "rate-limiting" | "response-ratelimiting" => json!({ "minute": 5, "limits": { "video": { "minute": 5 } } }),
        "acl" => json!({ "allow": ["a"] }),
        "ip-restriction" => json!({ "allow": ["10.0.0.0/8"] }),
        "proxy-cache" => json!({ "strategy": "memory" }),
        _ => json!({}),
    };
    for (name, given) in needed.as_object().into_iter().flatten() {
        if schema.config.fields.iter().any(|field| field.name == name) {
            config.insert(name.clone(), given.clone());
        }
    }
    let mut more = config.clone();
    for field in schema.config.fields {
        if !more.contains_key(field.name) && rng.u8(..) < 80 {
            more.insert(field.name.to_string(), plausible(field, parents, rng));
        }
    }
    let named = |config: Map<String, Value>| {
        Map::from_iter(
            [("name", schema.name.into()), ("config", config.into())].map(|(k, v): (&str, Value)| (k.to_string(), v)),
        )
    };
    let mut row = named(more);
    if rng.bool() && schema.route_scope {
        row.insert("route".to_string(), json!({ "id": parents["routes"] }));
    }
    if rng.bool() {
        row.insert("tags".to_string(), json!(["a", "b", "a"]));
    }
    (named(config), row)
}

fn needs_value(field: &Field) -> bool {
    field.default.is_none() && field.auto.is_none() && !matches!(field.kind, Kind::Record(_))
}

fn plausible(field: &Field, parents: &Parents, rng: &mut Rng) -> Value {
    if !field.is_required() && rng.u8(..) < 20 {
        return Value::Null;
    }
    if let Some(only) = field.eq {
        return only.to_value();
    }
    if let Some(one) = rng.choice(field.one_of.iter()) {
        return one.to_value();
    }
    let few = |rng: &mut Rng, element: &Field| -> Vec<Value> {
        let least = field.len_min.unwrap_or(usize::from(field.is_required()));
        (0..field.len_eq.unwrap_or_else(|| rng.usize(least..=least + 2)))
            .map(|_| plausible(element, parents, rng))
            .collect()
    };
    match field.kind {
        Kind::String => text(field, rng).into(),
        Kind::Integer | Kind::Number if field.timestamp => 1_700_000_000.into(),
        Kind::Integer => integer(field, rng).into(),
        Kind::Number => match field.between {
            None if field.gt.is_none() => json!(rng.f64()),
            _ => integer(field, rng).into(),
        },
        Kind::Boolean => rng.bool().into(),
        Kind::Array(element) | Kind::Set(element) => few(rng, element).into(),
        Kind::Map { keys, values } => {
            let pairs = (0..rng.usize(0..3)).map(|_| (text(keys, rng), plausible(values, parents, rng)));
            Value::Object(pairs.collect())
        }
        Kind::Record(record) => record_of(record, parents, rng),
        Kind::Foreign { entity, .. } => parents.get(entity).map_or(Value::Null, |id| json!({ "id": id })),
        Kind::Json | Kind::Abstract => any(rng, 2),
    }
}

fn record_of(record: &Record, parents: &Parents, rng: &mut Rng) -> Value {
    let chosen =
        record.fields.iter().filter(|field| field.is_required() && needs_value(field) || field.name.len() % 2 == 0);
    Value::Object(chosen.map(|field| (field.name.to_string(), plausible(field, parents, rng))).collect())
}

fn integer(field: &Field, rng: &mut Rng) -> i64 {
    let (low, high) = field.between.unwrap_or((1, 1000));
    rng.i64(low.max(field.gt.map_or(low, |bound| bound + 1))..=high)
}

fn text(field: &Field, rng: &mut Rng) -> String {
    if field.uuid {
        return Uuid::from_u128(rng.u128(..)).to_string();
    }
    if let Some(len) = field.len_eq {
        return "a".repeat(len);
    }
    if field.regex {
        return "^a+$".to_string();
    }
    let word: String = (0..rng.usize(1..9)).map(|_| rng.lowercase()).collect();
    match field.check {
        Some(Check::Certificate) => CERT.to_string(),
        Some(Check::PrivateKey) => KEY.to_string(),
        Some(Check::Ip) => "10.1.2.3".to_string(),
        Some(Check::IpOrCidr) => format!("10.{}.0.0/16", rng.u8(..)),
        Some(Check::Path | Check::RouterPath) => format!("/{word}"),
        Some(Check::RouteHost) if rng.bool() => format!("*.{word}.test"),
        Some(_) if field.name.contains("url") || field.name.contains("endpoint") || field.name.contains("location") => {
            format!("http://{word}.test/{word}")
        }
        _ => {
            let long = "x".repeat(field.len_min.unwrap_or(0).saturating_sub(word.len()));
            format!("{}{word}{long}{}", field.starts_with.unwrap_or(""), field.contains.unwrap_or(""))
        }
    }
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "/",
    "/a",
    "~/(",
    "*",
    "a b",
    "\u{0}",
    "\u{1f600}",
    "é",
    "::1",
    "10.0.0.1:80",
    "http://a/b?c#d",
    "true",
    "1",
    "{vault://env/x}",
    "{vault://",
    "name",
    "-----BEGIN CERTIFICATE-----",
    "../..",
    "%00",
    "\r\n",
];

/// Any JSON.
pub fn any(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.choice([0, -1, 1, 65536, i64::MAX, i64::MIN, 1 << 53]).unwrap().into(),
        3 => json!(rng.choice([0.5, -1e300, 1e-9, 80.0, 1e18]).unwrap()),
        4 => "x".repeat(rng.usize(..300)).into(),
        5 => (*rng.choice(TEXTS).unwrap()).into(),
        6 => (0..rng.usize(..4)).map(|_| any(rng, depth - 1)).collect(),
        _ => {
            let pairs = (0..rng.usize(..4)).map(|_| (key(rng), any(rng, depth - 1)));
            Value::Object(pairs.collect())
        }
    }
}

fn key(rng: &mut Rng) -> String {
    let known = ["id", "name", "config", "tags", "host", "paths", "snis", "ttl", "created_at", "protocols", "service"];
    let from = if rng.bool() { &known[..] } else { TEXTS };
    rng.choice(from).unwrap().to_string()
}

/// Known fields with any values.
pub fn with_any_values(entity: &Entity, rng: &mut Rng) -> Value {
    let chosen = entity.record.fields.iter().filter(|_| rng.bool()).map(|field| field.name).collect::<Vec<_>>();
    Value::Object(chosen.into_iter().map(|name| (name.to_string(), any(rng, 3))).collect())
}

/// One segment of a path.
pub fn segment(rng: &mut Rng) -> String {
    match rng.u8(..3) {
        0 => Uuid::from_u128(rng.u128(..)).to_string(),
        1 => "parent.test".to_string(),
        _ => rng.choice(["a", "%00", "a%20b", "%ff", "*", "env", "~"]).unwrap().to_string(),
    }
}

/// Changes one thing somewhere inside.
pub fn spoil(value: &mut Value, rng: &mut Rng) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.u8(..) < 220 => {
            let at = rng.usize(..fields.len());
            let name = fields.keys().nth(at).cloned().unwrap_or_default();
            match rng.u8(..8) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(key(rng), any(rng, 2))),
                _ => fields.get_mut(&name).into_iter().for_each(|field| spoil(field, rng)),
            }
        }
        Value::Array(list) if !list.is_empty() && rng.u8(..) < 200 => {
            let at = rng.usize(..list.len());
            match rng.u8(..4) {
                0 => drop(list.remove(at)),
                1 => list.push(any(rng, 2)),
                _ => spoil(&mut list[at], rng),
            }
        }
        other => *other = any(rng, 2),
    }
}
