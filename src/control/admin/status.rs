//! What the node says about itself: `/`, `/status`, `/status/ready`, `/status/dns`, `/endpoints`, `/plugins/enabled`
//! (spec/admin-api.md sections 6 and 7.1 to 7.5).

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::KONG_VERSION;
use crate::control::admin::document::EMPTY_HASH;
use crate::control::admin::form::Pair;
use crate::control::admin::page;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

impl<P: Publish> Admin<P> {
    pub(super) fn root(&self) -> Reply {
        let available: Map<String, Value> = self
            .plugins
            .iter()
            .map(|plugin| {
                let shown = json!({ "version": KONG_VERSION, "priority": plugin.priority });
                (plugin.schema.name.to_string(), shown)
            })
            .collect();
        let tables = self.store.view();
        let plugins = tables.page(&crate::entity::plugin::PLUGINS, None, usize::MAX, None).rows;
        let enabled: BTreeSet<String> =
            plugins.iter().filter_map(|entry| entry.row().get("name")?.as_str().map(str::to_string)).collect();
        let pid = std::process::id();
        let mut configuration = self.configuration.clone();
        configuration.insert("log_level".to_string(), self.node.log_level().into());
        let body = json!({
            "version": KONG_VERSION,
            "ringway_version": env!("CARGO_PKG_VERSION"),
            "edition": "community",
            "tagline": "Welcome to ringway",
            "hostname": self.node.hostname(),
            "node_id": self.node.id().to_string(),
            "lua_version": "none",
            "timers": { "running": 0, "pending": 0 },
            "pids": { "master": pid, "workers": [pid] },
            "plugins": { "available_on_server": available, "enabled_in_cluster": enabled },
            "configuration": configuration,
        });
        Reply::json(StatusCode::OK, &body)
    }

    pub(super) fn status(&self, query: &[Pair]) -> Result<Reply, Problem> {
        let memory = shown_bytes(self.node.memory_bytes(), query)?;
        let counters = self.node.counters();
        let mut body = json!({
            "server": {
                "connections_accepted": counters.connections_accepted,
                "connections_active": counters.connections_active,
                "connections_handled": counters.connections_handled,
                "connections_reading": counters.connections_reading,
                "connections_writing": counters.connections_writing,
                "connections_waiting": counters.connections_waiting,
                "total_requests": counters.total_requests,
            },
            // One process without Lua: its resident memory stands where Kong has one machine per worker.
            "memory": {
                "lua_shared_dicts": {},
                "workers_lua_vms": [{ "http_allocated_gc": memory, "pid": std::process::id() }],
            },
            "configuration_version": self.store.view().version,
            "cores": self.node.cores(),
        });
        if self.store.is_in_memory() {
            body["configuration_hash"] = self.loaded_hash().into();
        } else {
            body["database"] = json!({ "reachable": true });
        }
        Ok(Reply::json(StatusCode::OK, &body))
    }

    pub(super) fn ready(&self, call: &Call) -> Result<Reply, Problem> {
        if call.method == Method::POST {
            let asked = call.input.fields.get("status").and_then(Value::as_str);
            let in_query = page::argument(&call.query, "status").cloned().flatten();
            if asked.or(in_query.as_deref()) != Some("draining") {
                return Err(Problem::bad_request("expected status=draining"));
            }
            self.draining.store(true, Ordering::Relaxed);
            return Ok(Reply::empty());
        }
        let ready = if self.draining.load(Ordering::Relaxed) {
            Err("draining".to_string())
        } else if self.store.is_in_memory() && self.loaded_hash() == EMPTY_HASH {
            Err("no configuration available (empty configuration present)".to_string())
        } else {
            self.node.ready()
        };
        match ready {
            Ok(()) => Ok(Reply::json(StatusCode::OK, &json!({ "message": "ready" }))),
            Err(reason) => Err(Problem::Plain(StatusCode::SERVICE_UNAVAILABLE, reason)),
        }
    }

    pub(super) fn status_dns(&self) -> Result<Reply, Problem> {
        let Some(statistics) = self.node.dns_statistics() else {
            let why = "not implemented with the legacy DNS client";
            return Err(Problem::Plain(StatusCode::NOT_IMPLEMENTED, why.to_string()));
        };
        // The cores share one resolver, so any of them may speak for all.
        let worker = json!({ "id": 0, "count": self.node.cores().len() });
        Ok(Reply::json(StatusCode::OK, &json!({ "worker": worker, "stats": statistics })))
    }

    pub(super) fn endpoints(&self) -> Reply {
        let patterns: Vec<&str> = self.admin_paths.patterns().filter(|pattern| *pattern != "/robots.txt").collect();
        Reply::json(StatusCode::OK, &json!({ "data": patterns }))
    }

    pub(super) fn enabled_plugins(&self) -> Reply {
        let names: Vec<&str> = self.plugins.iter().map(|plugin| plugin.schema.name).collect();
        Reply::json(StatusCode::OK, &json!({ "enabled_plugins": names }))
    }
}

/// An amount of memory as `?unit=` and `?scale=` want it.
fn shown_bytes(bytes: u64, query: &[Pair]) -> Result<Value, Problem> {
    let given = |name: &str| page::argument(query, name).cloned().flatten();
    let unit = given("unit").unwrap_or_else(|| "m".to_string());
    let scale = match given("scale") {
        None => 2,
        Some(text) => match crate::entity::coerce::number(&text).and_then(|number| number.as_i64()) {
            Some(scale @ 0..=SCALE_MAX) => scale as usize,
            Some(scale) if scale < 0 => {
                return Err(Problem::bad_request("scale must be equal or greater than 0"));
            }
            _ => {
                return Err(Problem::bad_request(format!("invalid scale '{text}' (expected 0 to {SCALE_MAX})")));
            }
        },
    };
    let (divisor, name) = match unit.as_str() {
        "b" | "B" => return Ok(bytes.into()),
        "k" | "K" => (1u64 << 10, "KiB"),
        "m" | "M" => (1 << 20, "MiB"),
        "g" | "G" => (1 << 30, "GiB"),
        other => {
            let text = format!("invalid unit '{other}' (expected 'k/K', 'm/M', or 'g/G')");
            return Err(Problem::bad_request(text));
        }
    };
    Ok(format!("{:.scale$} {name}", bytes as f64 / divisor as f64).into())
}

/// More decimals than a float has say nothing.
const SCALE_MAX: i64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_in_the_unit_asked_for() {
        let shown = |query: &str| {
            let pairs = crate::control::admin::decode::query(query).unwrap();
            shown_bytes(5 << 20, &pairs).map_err(|problem| problem.into_reply().body)
        };
        assert_eq!(shown(""), Ok("5.00 MiB".into()));
        assert_eq!(shown("unit=k&scale=0"), Ok("5120 KiB".into()));
        assert_eq!(shown("unit=b"), Ok(5242880.into()));
        assert!(shown("unit=x").unwrap_err().contains("invalid unit 'x'"));
        assert!(shown("scale=-1").unwrap_err().contains("scale must be equal or greater than 0"));
    }
}
