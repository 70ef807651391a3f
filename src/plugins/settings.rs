//! The values of a configuration that its schema has accepted, by their types.
//! Never: judges a value; one of another type counts as unset.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::entity::validate::is_vault_reference;
use crate::plugins::ConfigError;

/// A switch; unset is false.
pub(super) fn flag(config: &Map<String, Value>, name: &str) -> bool {
    config.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A text.
pub(super) fn text<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    config.get(name).and_then(Value::as_str)
}

/// A text that may be kept elsewhere; unset is empty.
///
/// # Errors
/// It is kept in a vault: those are not asked yet.
pub(super) fn secret<'a>(config: &'a Map<String, Value>, name: &str) -> Result<&'a str, ConfigError> {
    let text = text(config, name).unwrap_or_default();
    if is_vault_reference(text) {
        let message = "vault references are not resolved yet; write the value itself".to_owned();
        return Err(ConfigError { field: name.to_owned(), message });
    }
    Ok(text)
}

/// A list or set of texts; unset is empty.
pub(super) fn texts<'a>(config: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    config.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A number.
pub(super) fn number(config: &Map<String, Value>, name: &str) -> Option<f64> {
    config.get(name).and_then(Value::as_f64)
}

/// A time in milliseconds; unset or negative is `absent_ms`.
pub(super) fn millis(config: &Map<String, Value>, name: &str, absent_ms: u64) -> Duration {
    let given = number(config, name).filter(|ms| *ms >= 0.0);
    Duration::from_millis(given.map_or(absent_ms, |ms| ms as u64))
}

/// A port; unset is 0.
pub(super) fn port(config: &Map<String, Value>, name: &str) -> u16 {
    number(config, name).map_or(0, |port| port as u16)
}

/// A map of texts, in order; unset is empty. A value that is a list gives each of its texts.
pub(super) fn pairs(config: &Map<String, Value>, name: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in config.get(name).and_then(Value::as_object).into_iter().flatten() {
        let texts = std::slice::from_ref(value).iter().chain(value.as_array().into_iter().flatten());
        pairs.extend(texts.filter_map(Value::as_str).map(|text| (key.clone(), text.to_owned())));
    }
    pairs
}
