//! What the plugin proxy-cache keeps, seen and purged (spec/plugins.md part E).
//! Always: a purge is answered when no core answers with what was purged any more. All cores read one table, in which an
//! entry is marked as gone, so there is nobody to wait for.

use hyper::Method;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use crate::control::store::unix_now_ms;
use crate::entity::plugin::PLUGINS;
use crate::plugins::cache::Key;
use crate::plugins::cache::Stored;

impl<P: Publish> Admin<P> {
    /// `DELETE /proxy-cache`.
    pub(super) fn flush_cached(&self) -> Reply {
        if let Some(cache) = self.node.cached_responses() {
            cache.flush();
        }
        Reply::empty()
    }

    /// `/proxy-cache/{cache_key}`.
    pub(super) fn cached(&self, call: &Call) -> Result<Reply, Problem> {
        self.cached_under(call, 0)
    }

    /// `/proxy-cache/{plugin_id}/caches/{cache_key}`.
    pub(super) fn cached_by_plugin(&self, call: &Call) -> Result<Reply, Problem> {
        let id = crud::variable(call, 0)?.decoded.as_deref().ok().and_then(|text| Uuid::try_parse(text).ok());
        let plugin = id.and_then(|id| self.store.view().get(&PLUGINS, id)).ok_or_else(Problem::not_found)?;
        match plugin.row().get("name").and_then(Value::as_str) {
            Some("proxy-cache") => self.cached_under(call, 1),
            _ => Err(Problem::not_found()),
        }
    }

    fn cached_under(&self, call: &Call, variable: usize) -> Result<Reply, Problem> {
        let key = crud::variable(call, variable)?.decoded.as_deref().ok().and_then(parse_key);
        let (Some(key), Some(cache)) = (key, self.node.cached_responses()) else { return Err(Problem::not_found()) };
        let now_s = unix_now_ms() / 1000;
        if call.method == Method::DELETE {
            return if cache.purge(&key, now_s) { Ok(Reply::empty()) } else { Err(Problem::not_found()) };
        }
        let stored = cache.find(&key, now_s).ok_or_else(Problem::not_found)?;
        Ok(Reply::json(StatusCode::OK, &document(&stored)))
    }
}

/// 64 hexadecimal digits.
fn parse_key(text: &str) -> Option<Key> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Key::default();
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}

/// As Kong shows one; bytes that are no UTF-8 are replaced.
fn document(stored: &Stored) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut headers = Map::<String, Value>::new();
    for (name, value) in stored.fields() {
        let value = Value::from(text(value));
        match headers.get_mut(&text(name)) {
            None => drop(headers.insert(text(name), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    json!({
        "status": stored.status,
        "headers": headers,
        "body": text(&stored.body),
        "body_len": stored.body.len(),
        "timestamp": stored.at_s,
        "ttl": stored.ttl_s,
        "version": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_64_hexadecimal_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(parse_key(&text).unwrap()[..4], [0, 255, 0, 255]);
        assert_eq!(parse_key(&text.to_uppercase()).unwrap()[..2], [0, 255]);
        for bad in ["", "00", &"zz".repeat(32), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }
}
