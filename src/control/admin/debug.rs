//! What operators look at when something is wrong: timers, cached values, the level of the log
//! (spec/admin-api.md sections 7.4, 7.8 and 7.9).

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::page;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Value;
use serde_json::json;

/// How long another level lasts unless the client says so.
const LOG_LEVEL_SECONDS: u64 = 60;

impl<P: Publish> Admin<P> {
    /// Timers are Kong's means of background work; there are none here, in the shape that clients read.
    pub(super) fn timers(&self) -> Reply {
        let body = json!({
            "worker": { "id": 0, "count": self.node.cores().len() },
            "stats": {
                "flamegraph": { "running": "", "pending": "", "elapsed_time": "" },
                "sys": { "total": 0, "runs": 0, "running": 0, "pending": 0, "waiting": 0 },
                "timers": {},
            },
        });
        Reply::json(StatusCode::OK, &body)
    }

    pub(super) fn log_level(&self) -> Reply {
        Reply::json(StatusCode::OK, &json!({ "message": format!("log level: {}", self.node.log_level()) }))
    }

    /// One node is the whole cluster.
    pub(super) fn set_log_level(&self, call: &Call) -> Result<Reply, Problem> {
        if self.store.is_in_memory() {
            let text = "cannot change log level when not using a database";
            return Err(Problem::Plain(StatusCode::METHOD_NOT_ALLOWED, text.to_string()));
        }
        let name = crud::variable(call, 0)?;
        let wanted = name.decoded.as_deref().unwrap_or(&name.raw);
        let seconds = timeout_seconds(call)?;
        let message = |text: String| Ok(Reply::json(StatusCode::OK, &json!({ "message": text })));
        if self.node.log_level() == wanted {
            return message(format!("log level is already {wanted}"));
        }
        match self.node.set_log_level(wanted, seconds) {
            true => message("log level changed".to_string()),
            false => Err(Problem::bad_request(format!("unknown log level: {wanted}"))),
        }
    }
}

/// `timeout` in the query or the body; parts of a second count as one.
fn timeout_seconds(call: &Call) -> Result<u64, Problem> {
    let in_query = page::argument(&call.query, "timeout").cloned().flatten().map(Value::from);
    let given = match in_query.or_else(|| call.input.fields.get("timeout").cloned()) {
        None => return Ok(LOG_LEVEL_SECONDS),
        Some(Value::String(text)) => crate::entity::coerce::number(&text),
        Some(other) => Some(other),
    };
    match given.as_ref().and_then(Value::as_f64) {
        None => Err(Problem::bad_request("timeout must be a number")),
        Some(seconds) if seconds < 0.0 => Err(Problem::bad_request("timeout must be greater than or equal to 0")),
        Some(seconds) => Ok(seconds.ceil() as u64),
    }
}

/// Every row is in memory, so nothing is cached: a key is never found, and dropping one does nothing.
pub(super) fn cache(call: &Call) -> Result<Reply, Problem> {
    if call.method == Method::DELETE { Ok(Reply::empty()) } else { Err(Problem::not_found()) }
}
