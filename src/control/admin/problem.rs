//! Everything the Admin API can answer instead of success, and the body of each (spec/admin-api.md section 5).
//! Always: one problem, one status, one documented shape.

use crate::control::admin::reply::Reply;
use crate::control::store::tables::Conflict;
use crate::control::validate::Unresolved;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use crate::entity::violation::lua_literal;
use crate::state::compile::Refusal;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

/// Why a request fails.
#[derive(Debug)]
pub enum Problem {
    /// `{"message": "..."}` alone.
    Plain(StatusCode, String),
    /// An HTML page with the name of the status, as from the server in front of Kong's API.
    Page(StatusCode),
    /// A bare text.
    Text(StatusCode, &'static str),
    Schema(Violations),
    Conflict(Conflict),
    /// The path key is malformed: the field and the rule it breaks.
    BadKey {
        field: String,
        text: String,
    },
    /// The row to change does not exist: the key used.
    Absent {
        key: &'static str,
        value: String,
    },
    BadOffset {
        offset: String,
        reason: &'static str,
    },
    BadSize(&'static str),
    BadOption {
        option: &'static str,
        text: &'static str,
    },
    /// The entity has no path key, and what stands for the id is none.
    BadId,
    /// A declarative document is wrong: where and how; and the same entry by entry, if wanted.
    Declared {
        fields: Map<String, Value>,
        flattened: Option<Vec<Value>>,
    },
    Unresolved(Vec<Unresolved>),
    /// There is no such row, said with an id of the request.
    NoSuchKey,
    /// What a node without a database does not do.
    Unsupported(String),
    /// A new row whose id is null.
    NullId,
}

impl Problem {
    pub fn not_found() -> Problem {
        Problem::Plain(StatusCode::NOT_FOUND, "Not found".to_string())
    }

    pub fn bad_request(message: impl Into<String>) -> Problem {
        Problem::Plain(StatusCode::BAD_REQUEST, message.into())
    }

    /// Something that is no fault of the client's.
    pub fn unsaved(reason: &str) -> Problem {
        tracing::error!("a change could not be saved and was not made: {reason}");
        Problem::Plain(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred".to_string())
    }

    /// What the data plane refused, as if the schema had.
    pub fn uncompilable(refusals: Vec<Refusal>) -> Problem {
        let mut violations = Violations::default();
        for refusal in refusals {
            if refusal.field.is_empty() {
                violations.entity.push(refusal.message);
            } else {
                violations.set_path(&refusal.field, Violation::Text(refusal.message));
            }
        }
        Problem::Schema(violations)
    }

    /// The sentence of the answer.
    pub fn message(self) -> String {
        let body: Value = serde_json::from_str(&self.into_reply().body).unwrap_or_default();
        body["message"].as_str().unwrap_or_default().to_string()
    }

    pub fn into_reply(self) -> Reply {
        match self {
            Problem::Plain(status, message) => Reply::json(status, &json!({ "message": message })),
            Problem::Page(status) => Reply::page(status),
            Problem::Text(status, text) => Reply::text(status, text),
            Problem::Schema(found) => {
                error(2, "schema violation", &found.message(), Some(Value::Object(found.to_map())))
            }
            Problem::Conflict(conflict) => conflict_reply(conflict),
            Problem::BadKey { field, text } => error(10, &format!("invalid unique {field}"), &text, None),
            Problem::Declared { fields, flattened } => {
                let fields = Value::Object(fields);
                let message = format!("declarative config is invalid: {}", lua_literal(&fields));
                let mut body = shape(14, "invalid declarative configuration", &message);
                body.insert("fields".to_string(), fields);
                body.extend(flattened.map(|list| ("flattened_errors".to_string(), list.into())));
                Reply::json(StatusCode::BAD_REQUEST, &Value::Object(body))
            }
            Problem::BadId => {
                let fields = json!({ "id": "expected a valid UUID" });
                let message = format!("invalid primary key: '{}'", lua_literal(&fields));
                error(1, "invalid primary key", &message, Some(fields))
            }
            Problem::Absent { key, value } => {
                let fields = json!({ key: value });
                let by = if key == "id" { "primary key " } else { "" };
                let message = format!("could not find the entity with {by}'{}'", lua_literal(&fields));
                error(6, "not found", &message, Some(fields))
            }
            Problem::BadOffset { offset, reason } => {
                error(7, "invalid offset", &format!("'{offset}' is not a valid offset: {reason}"), None)
            }
            Problem::BadSize(text) => error(9, "invalid size", text, None),
            Problem::BadOption { option, text } => {
                let mut body = shape(11, "invalid options", &format!("invalid option ({option}: {text})"));
                body.insert("options".to_string(), json!({ option: text }));
                Reply::json(StatusCode::BAD_REQUEST, &Value::Object(body))
            }
            Problem::Unresolved(missing) => unresolved_reply(&missing),
            Problem::NoSuchKey => {
                let id = Uuid::new_v4().simple().to_string();
                Reply::json(StatusCode::NOT_FOUND, &json!({ "message": "Not found", "request_id": id }))
            }
            Problem::Unsupported(text) => error(12, "operation unsupported", &text, None),
            Problem::NullId => {
                let fields = json!({ "id": null });
                error(3, "primary key violation", "primary key violation on key '{id=null}'", Some(fields))
            }
        }
    }
}

fn shape(code: u32, name: &str, message: &str) -> Map<String, Value> {
    let body = json!({ "code": code, "name": name, "message": message });
    body.as_object().cloned().unwrap_or_default()
}

fn error(code: u32, name: &str, message: &str, fields: Option<Value>) -> Reply {
    let status = match code {
        5 => StatusCode::CONFLICT,
        6 => StatusCode::NOT_FOUND,
        12 => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut body = shape(code, name, message);
    if let Some(fields) = fields {
        body.insert("fields".to_string(), fields);
    }
    Reply::json(status, &Value::Object(body))
}

fn conflict_reply(conflict: Conflict) -> Reply {
    match conflict {
        Conflict::PrimaryKey(id) => {
            let fields = json!({ "id": id.to_string() });
            let message = format!("primary key violation on key '{}'", lua_literal(&fields));
            error(3, "primary key violation", &message, Some(fields))
        }
        Conflict::Unique(values) => {
            let fields = Value::Object(values);
            let message = format!("UNIQUE violation detected on '{}'", lua_literal(&fields));
            error(5, "unique constraint violation", &message, Some(fields))
        }
        Conflict::Dangling { field, entity, id } => {
            let key = json!({ "id": id });
            let message =
                format!("the foreign key '{}' does not reference an existing '{entity}' entity.", lua_literal(&key));
            error(4, "foreign key violation", &message, Some(json!({ field: key })))
        }
        Conflict::Referenced { child, parent } => {
            let message = format!("an existing '{child}' entity references this '{parent}' entity");
            error(4, "foreign key violation", &message, Some(json!({ "@referenced_by": child })))
        }
        Conflict::Listed { entity, id, by, by_id } => {
            let what = entity.trim_end_matches('s').replace('_', " ");
            let message = format!("{what} {id} is still referenced by {by} (id = {by_id})");
            error(19, "referenced by others", &message, None)
        }
    }
}

fn unresolved_reply(missing: &[Unresolved]) -> Reply {
    let mut fields = Map::new();
    let mut texts = Vec::new();
    for one in missing {
        let key = lua_literal(&json!({ one.key: one.value }));
        let text = format!("the foreign key cannot be resolved with '{key}' for an existing '{}' entity", one.entity);
        texts.push(format!("{}.{}: {text}", one.field, one.key));
        if let Value::Object(nested) = fields.entry(one.field).or_insert_with(|| json!({})) {
            nested.insert(one.key.to_string(), text.into());
        }
    }
    let message = match texts.as_slice() {
        [one] => format!("foreign key unresolved ({one})"),
        many => format!("{} foreign keys unresolved ({})", many.len(), many.join("; ")),
    };
    error(13, "foreign keys unresolved", &message, Some(Value::Object(fields)))
}
