//! The values of a configuration that its schema has accepted, by their types.
//! Never: judges a value; one of another type counts as unset.

use serde_json::Map;
use serde_json::Value;

/// A switch; unset is false.
pub(super) fn flag(config: &Map<String, Value>, name: &str) -> bool {
    config.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A text.
pub(super) fn text<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    config.get(name).and_then(Value::as_str)
}

/// A list or set of texts; unset is empty.
pub(super) fn texts<'a>(config: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    config.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
