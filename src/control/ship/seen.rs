//! One finished request as sinks see it: the record of the core, and the entities that it names.
//! Owns: what entities are when they are told of: without fields that say nothing. Always: worked out once, when asked for.

use std::cell::OnceCell;
use std::sync::Arc;

use ahash::AHashMap;
use hyper::body::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::control::ship::log_record;
use crate::limits;
use crate::metrics::full_record::FullRecord;

/// What stays the same for all records.
pub struct NodeFacts {
    pub id: String,
    pub hostname: String,
}

/// A route, service or consumer.
#[derive(Debug, Default, PartialEq)]
pub struct Known {
    /// Without nulls.
    pub value: Value,
}

impl Known {
    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }
}

/// Entities by their JSON texts, so that each is read once.
#[derive(Default)]
pub struct Entities(AHashMap<Box<[u8]>, Arc<Known>>);

impl Entities {
    /// The entity of a text; `None` for an empty one.
    pub fn get(&mut self, text: &[u8]) -> Option<Arc<Known>> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.0.get(text) {
            return Some(known.clone());
        }
        if self.0.len() >= limits::SHIP_ENTITIES_MAX {
            self.0.clear();
        }
        let mut value: Value = serde_json::from_slice(text).ok()?;
        drop_nulls(&mut value);
        let known = Arc::new(Known { value });
        self.0.insert(text.into(), known.clone());
        Some(known)
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// One finished request.
pub struct Seen<'a> {
    pub record: &'a FullRecord<'a>,
    pub route: Option<Arc<Known>>,
    pub service: Option<Arc<Known>>,
    pub consumer: Option<Arc<Known>>,
    pub node: &'a NodeFacts,
    json: OnceCell<Bytes>,
}

impl<'a> Seen<'a> {
    /// `consumer` finds the JSON text of a consumer.
    pub fn new(
        record: &'a FullRecord<'a>,
        entities: &mut Entities,
        consumer: impl FnOnce(Uuid) -> Option<Arc<str>>,
        node: &'a NodeFacts,
    ) -> Self {
        let consumer = record.figures.consumer.and_then(consumer);
        Self {
            record,
            route: entities.get(record.route),
            service: entities.get(record.service),
            consumer: consumer.and_then(|text| entities.get(text.as_bytes())),
            node,
            json: OnceCell::new(),
        }
    }

    /// The log record (spec/plugins.md F.2) as compact JSON.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| log_record::json(self).into()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entities_are_told_without_what_says_nothing() {
        let mut entities = Entities::default();
        let known = entities.get(br#"{"id":"1","tags":null,"service":{"id":"2","x":null},"l":[{"a":null}]}"#);
        assert_eq!(known.expect("an entity").value, json!({"id": "1", "service": {"id": "2"}, "l": [{}]}));
        assert!(entities.get(b"").is_none() && entities.get(b"{").is_none());
    }
}
