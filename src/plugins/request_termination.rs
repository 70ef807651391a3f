//! request-termination: answers instead of the upstream (spec/plugins.md C.4).
//! Always: what does not depend on the request is worked out when the configuration is compiled; only an echo allocates.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::body;
use crate::plugins::body::Format;
use crate::plugins::query;
use crate::plugins::query::Found;
use crate::plugins::settings;
use crate::plugins::view::EntityFacts;
use crate::plugins::view::View;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "request-termination",
        &[
            Field::integer("status_code").required().default_int(503).between(100, 599),
            Field::string("message"),
            Field::string("content_type"),
            Field::string("body"),
            Field::boolean("echo").required().default_bool(false),
            Field::string("trigger").check(Check::HeaderName),
        ],
    )
    .config_rule(options_go_together),
    priority: 2,
    build,
};

struct RequestTermination {
    status: u16,
    /// Name of a header or argument without which nothing happens.
    trigger: Option<Box<str>>,
    answer: Answer,
}

enum Answer {
    Empty,
    Message(Box<str>),
    /// `content_type` is empty if there is none.
    Body {
        text: Box<str>,
        content_type: Box<str>,
    },
    /// The request itself.
    Echo {
        message: Option<Box<str>>,
    },
}

/// What of the answer excludes what else.
fn options_go_together(config: &Map<String, Value>) -> Result<(), String> {
    let (message, body) = (settings::text(config, "message"), settings::text(config, "body"));
    let content_type = settings::text(config, "content_type");
    let refuse = |text: &str| Err(text.to_owned());
    if message.is_some() && (content_type.is_some() || body.is_some()) {
        return refuse("message cannot be used with content_type or body");
    }
    if content_type.is_some() && body.is_none() {
        return refuse("content_type requires a body");
    }
    if settings::flag(config, "echo") && body.is_some() {
        return refuse("echo cannot be used with content_type and body");
    }
    Ok(())
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let (message, body) = (settings::text(config, "message"), settings::text(config, "body"));
    let content_type = settings::text(config, "content_type");
    let echo = settings::flag(config, "echo");
    let status = config.get("status_code").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.unwrap_or(503);
    let message = message.or_else(|| usual_message(status)).map(Box::from);
    let answer = match (body, message) {
        (_, message) if echo => Answer::Echo { message },
        (Some(body), _) => Answer::Body { text: body.into(), content_type: content_type.unwrap_or_default().into() },
        (None, Some(message)) => Answer::Message(message),
        (None, None) => Answer::Empty,
    };
    Ok(Box::new(RequestTermination { status, trigger: settings::text(config, "trigger").map(Box::from), answer }))
}

fn usual_message(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

impl Plugin for RequestTermination {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        if let Some(trigger) = &self.trigger
            && view.header(trigger.as_bytes()).is_none()
            && query::find(view.query.get(), trigger.as_bytes()) == Found::Nothing
        {
            return Verdict::Continue;
        }
        match &self.answer {
            Answer::Empty => view.reply.empty(self.status),
            Answer::Message(message) => view.reply.exit(self.status, message),
            Answer::Body { text, content_type } => view.reply.raw(self.status, content_type, text.as_bytes()),
            Answer::Echo { message } => {
                let document = echo(view, message.as_deref()).to_string();
                view.reply.raw(self.status, "application/json; charset=utf-8", document.as_bytes());
            }
        }
        Verdict::Reply
    }

    fn reads_body(&self) -> bool {
        matches!(self.answer, Answer::Echo { .. })
    }
}

/// What is known of the request. As in Kong, what is unset is left out.
fn echo(view: &View<'_>, message: Option<&str>) -> Value {
    let mut document = json!({
        "kong": {
            "node_id": &*view.core.node_id,
            "worker_pid": view.core.pid,
            "hostname": &*view.core.hostname,
        },
        "request": {
            "scheme": view.scheme,
            "host": lossy(view.host).to_ascii_lowercase(),
            "port": view.port,
            "method": lossy(view.method_text),
            "path": lossy(view.path),
            "headers": headers(view),
            "query": arguments(view.query.get()),
            "uri_captures": captures(view),
        },
    });
    if let Some(body) = view.body.as_ref().map(|body| body.get()) {
        document["request"]["raw_body"] = lossy(body).into();
        let content_type = view.fields.get(view.source, Known::ContentType);
        if let Some(parsed) = content_type.and_then(Format::of).and_then(|format| parsed(format, body)) {
            document["request"]["body"] = parsed;
        }
    }
    if let Some(message) = message {
        document["message"] = message.into();
    }
    for (name, entity) in [("matched_route", view.route), ("matched_service", view.service)] {
        if let Some(entity) = entity.and_then(set_fields) {
            document[name] = entity;
        }
    }
    document
}

/// The entity without what is null.
fn set_fields(entity: EntityFacts<'_>) -> Option<Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(entity.document).ok()?;
    fields.retain(|_, value| !value.is_null());
    Some(fields.into())
}

fn headers(view: &View<'_>) -> Map<String, Value> {
    let mut headers = Map::new();
    for field in view.fields.iter(view.source) {
        add(&mut headers, lossy(field.name).to_ascii_lowercase(), lossy(field.value).into());
    }
    headers
}

fn arguments(text: &[u8]) -> Map<String, Value> {
    let mut arguments = Map::new();
    for argument in query::arguments(text).filter(|argument| !argument.name.is_empty()) {
        let value = argument.value.map_or(Value::Bool(true), |value| lossy(&query::decoded(value)).into());
        add(&mut arguments, lossy(&query::decoded(argument.name)), value);
    }
    arguments
}

fn captures(view: &View<'_>) -> Value {
    let (mut named, mut unnamed) = (Map::new(), Vec::new());
    if let Some(captures) = view.captures {
        captures.each(&mut |capture| {
            unnamed.push(Value::from(lossy(capture.text)));
            if let Some(name) = capture.name {
                named.insert(name.to_string(), lossy(capture.text).into());
            }
        });
    }
    json!({ "named": named, "unnamed": unnamed })
}

fn parsed(format: Format<'_>, text: &[u8]) -> Option<Value> {
    match format {
        Format::Form => Some(arguments(text).into()),
        Format::Json => serde_json::from_slice(text).ok(),
        Format::Multipart { boundary } => {
            let mut values = Map::new();
            for part in body::parts(text, boundary) {
                add(&mut values, lossy(part.name), lossy(part.content).into());
            }
            Some(values.into())
        }
    }
}

/// Values of one name become a list.
fn add(values: &mut Map<String, Value>, name: String, value: Value) {
    match values.get_mut(&name) {
        None => drop(values.insert(name, value)),
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::view::PathCapture;
    use crate::plugins::view::PathCaptures;
    use crate::plugins::view::ReplyKind;

    #[test]
    fn the_answer_is_the_configured_one_or_the_usual_one() {
        let cases = [
            (json!({}), 503, ReplyKind::Exit, "Service unavailable", ""),
            (json!({"status_code": 403, "message": "So long"}), 403, ReplyKind::Exit, "So long", ""),
            (
                json!({"status_code": 200, "body": "<h1>hi</h1>", "content_type": "text/html"}),
                200,
                ReplyKind::Raw,
                "<h1>hi</h1>",
                "text/html",
            ),
            (json!({"body": "plain"}), 503, ReplyKind::Raw, "plain", ""),
            (json!({"status_code": 204}), 204, ReplyKind::Empty, "", ""),
            (json!({"status_code": 401}), 401, ReplyKind::Exit, "Unauthorized", ""),
            (json!({"status_code": 404}), 404, ReplyKind::Exit, "Not found", ""),
            (json!({"status_code": 405}), 405, ReplyKind::Exit, "Method not allowed", ""),
            (json!({"status_code": 500}), 500, ReplyKind::Exit, "An unexpected error occurred", ""),
            (json!({"status_code": 502}), 502, ReplyKind::Exit, "Bad Gateway", ""),
        ];
        for (config, status, kind, text, content_type) in cases {
            let mut exchange = Exchange::new(&["GET /p/x?a=b"]);
            // What an earlier request left must not show.
            exchange.reply.raw(299, "old/type", b"old");
            exchange.reply.clear();
            assert_eq!(exchange.access(&*plugin(&KIND, config.clone())), Verdict::Reply);
            let reply = &exchange.reply;
            assert_eq!((reply.status, reply.kind, exchange.reply_text().as_str()), (status, kind, text), "{config}");
            assert_eq!(reply.content_type, content_type.as_bytes(), "{config}");
        }
    }

    #[test]
    fn a_trigger_is_a_header_or_an_argument() {
        let cases: [(&[&str], Verdict); 6] = [
            (&["GET /p/x?a=b"], Verdict::Continue),
            (&["GET /p", "stop: 1"], Verdict::Reply),
            (&["GET /p", "Stop:"], Verdict::Reply),
            (&["GET /p?stop=1"], Verdict::Reply),
            (&["GET /p?stop"], Verdict::Reply),
            (&["GET /p?Stop=1"], Verdict::Continue),
        ];
        for (lines, verdict) in cases {
            let mut exchange = Exchange::new(lines);
            assert_eq!(exchange.access(&*plugin(&KIND, json!({"trigger": "stop"}))), verdict, "{lines:?}");
        }
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        let cases = [
            (json!({"message": "a", "body": "b"}), "message cannot be used with content_type or body"),
            (json!({"message": "a", "content_type": "b"}), "message cannot be used with content_type or body"),
            (json!({"content_type": "b"}), "content_type requires a body"),
            (json!({"echo": true, "body": "b"}), "echo cannot be used with content_type and body"),
        ];
        for (config, message) in cases {
            let config = config.as_object().expect("an object");
            assert_eq!(options_go_together(config), Err(message.to_owned()));
        }
    }

    struct Groups;

    impl PathCaptures for Groups {
        fn each(&self, tell: &mut dyn FnMut(PathCapture<'_>)) {
            tell(PathCapture { name: None, text: b"one" });
            tell(PathCapture { name: Some("second"), text: b"two" });
        }
    }

    #[track_caller]
    fn echo_of(exchange: &mut Exchange) -> Value {
        let plugin = plugin(&KIND, json!({"echo": true, "status_code": 200}));
        assert!(plugin.reads_body());
        assert_eq!(exchange.access(&*plugin), Verdict::Reply);
        assert_eq!(exchange.reply.content_type, b"application/json; charset=utf-8");
        serde_json::from_slice(&exchange.reply.text).expect("an echo is JSON")
    }

    #[test]
    fn an_echo_shows_the_request_and_what_it_matched() {
        let lines = ["GET /p/x?a=b", "Host: 127.0.0.1:8000", "User-Agent: curl/7.88.1", "Accept: */*"];
        let mut exchange = Exchange::new(&lines).with_body("");
        exchange.route = Some(r#"{"name":"r62","paths":["/p"],"hosts":null}"#.to_string());
        let want = json!({
            "matched_route": {"name": "r62", "paths": ["/p"]},
            "request": {
                "query": {"a": "b"},
                "headers": {"accept": "*/*", "user-agent": "curl/7.88.1", "host": "127.0.0.1:8000"},
                "uri_captures": {"named": {}, "unnamed": []},
                "host": "example.test",
                "port": 8000,
                "scheme": "http",
                "path": "/p/x",
                "method": "GET",
                "raw_body": "",
            },
            "kong": {"node_id": "node", "hostname": "host", "worker_pid": 77},
        });
        assert_eq!(echo_of(&mut exchange), want);
    }

    #[test]
    fn an_echo_shows_repeated_values_captures_and_a_parsed_body() {
        let lines = ["POST /p?a=1&a=2&%62&c=%20+", "X: 1", "x: 2", "Content-Type: application/json"];
        let mut exchange = Exchange::new(&lines).with_body(r#"{"a":[1]}"#);
        exchange.captures = Some(Box::new(Groups));
        let echo = echo_of(&mut exchange);
        let request = &echo["request"];
        assert_eq!(request["query"], json!({"a": ["1", "2"], "b": true, "c": "  "}));
        assert_eq!(request["headers"], json!({"x": ["1", "2"], "content-type": "application/json"}));
        assert_eq!(request["uri_captures"], json!({"named": {"second": "two"}, "unnamed": ["one", "two"]}));
        assert_eq!((&request["body"], &request["raw_body"]), (&json!({"a": [1]}), &json!(r#"{"a":[1]}"#)));
        assert_eq!(echo.get("matched_route"), None);
    }

    #[test]
    fn an_echo_parses_forms() {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let multipart = "Content-Type: multipart/form-data; boundary=b";
        let parts = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n";
        for (content_type, body, want) in [
            (form, "a=1", json!({"a": "1"})),
            (multipart, parts, json!({"a": "1"})),
            ("Content-Type: text/plain", "a=1", Value::Null),
            ("Content-Type: application/json", "a=1", Value::Null),
        ] {
            let echo = echo_of(&mut Exchange::new(&["POST /p", content_type]).with_body(body));
            assert_eq!(echo["request"]["body"], want, "{content_type}");
        }
    }

    #[test]
    fn an_echo_carries_a_message_if_there_is_one() {
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.access(&*plugin(&KIND, json!({"echo": true, "message": "So long"})));
        let echo: Value = serde_json::from_slice(&exchange.reply.text).expect("an echo is JSON");
        assert_eq!(echo["message"], "So long");
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.access(&*plugin(&KIND, json!({"echo": true})));
        assert!(exchange.reply_text().contains(r#""message":"Service unavailable""#));
    }
}
