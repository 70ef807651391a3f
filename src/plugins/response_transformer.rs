//! HOT for headers: they are changed in place. Bodies of JSON are held whole and written anew.
//! response-transformer: the client gets another response than the upstream sent (spec/plugins.md D.2).
//! Never: touches a body that is not a JSON object.

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::http::known::Known;
use crate::http::media::is_json;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::edit;
use crate::plugins::edit::Action;
use crate::plugins::settings;
use crate::plugins::view::BodyUse;
use crate::plugins::view::BodyView;
use crate::plugins::view::ResponseView;
use crate::strs;

const TEXT: Field = Field::string("");
const PAIR: Field = Field::string("").matches("^[^:]+:.*$");
const NAME: Field = Field::string("").check(Check::Custom(edit::check_name));
const PAIR_OF_NAMES: Field = Field::string("").matches("^[^:]+:.*$").check(Check::Custom(edit::check_two_names));
const HEADER: Field = Field::string("").matches("^[^:]+:.*$").check(Check::Custom(edit::check_name));
const TYPE: Field = Field::string("").one_of(strs!["boolean", "number", "string"]);

const JSON: Field = Field::array("json", &PAIR).required().default_strs(&[]);
const TYPES: Field = Field::array("json_types", &TYPE).required().default_strs(&[]);
const HEADERS: Field = Field::array("headers", &HEADER).required().default_strs(&[]);

const REMOVED: Record = Record::of(&[
    Field::array("json", &TEXT).required().default_strs(&[]),
    Field::array("headers", &NAME).required().default_strs(&[]),
]);
const RENAMED: Record = Record::of(&[JSON, Field::array("headers", &PAIR_OF_NAMES).required().default_strs(&[])]);
const WRITTEN: Record = Record::of(&[JSON, TYPES, HEADERS]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "response-transformer",
        &[
            Field::record("remove", &REMOVED).required(),
            Field::record("rename", &RENAMED).required(),
            Field::record("replace", &WRITTEN).required(),
            Field::record("add", &WRITTEN).required(),
            Field::record("append", &WRITTEN).required(),
        ],
    ),
    priority: 800,
    build,
};

struct ResponseTransformer {
    headers: Box<[Change<Box<str>>]>,
    members: Box<[Change<Value>]>,
}

/// One entry of the configuration.
struct Change<V> {
    action: Action,
    name: Box<str>,
    value: V,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let (mut headers, mut members) = (Vec::new(), Vec::new());
    for action in Action::ALL {
        let Some(record) = config.get(action.name()).and_then(Value::as_object) else { continue };
        for text in settings::texts(record, "headers") {
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            // A value of nothing is no value.
            if action == Action::Remove || !value.is_empty() {
                headers.push(Change { action, name: name.into(), value: value.into() });
            }
        }
        let types: Vec<&str> = settings::texts(record, "json_types").collect();
        for (at, text) in settings::texts(record, "json").enumerate() {
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let value = match action {
                Action::Remove => Some(Value::Null),
                _ if value.is_empty() => None,
                _ => typed(value, types.get(at).copied()),
            };
            members.extend(value.map(|value| Change { action, name: name.into(), value }));
        }
    }
    Ok(Box::new(ResponseTransformer { headers: headers.into(), members: members.into() }))
}

/// The value as that type; `None`: it is not one.
fn typed(text: &str, kind: Option<&str>) -> Option<Value> {
    Some(match kind {
        Some("boolean") => Value::Bool(text == "true"),
        Some("number") => match text.parse::<i64>() {
            Ok(whole) => whole.into(),
            Err(_) => serde_json::Number::from_f64(text.parse().ok()?)?.into(),
        },
        _ => text.into(),
    })
}

impl Plugin for ResponseTransformer {
    fn response_head(&self, view: &mut ResponseView<'_>) {
        for Change { action, name, value } in &self.headers {
            change_header(view, *action, name.as_bytes(), value.as_bytes());
        }
        if !self.members.is_empty() && view.fields.get(view.source, Known::ContentType).is_some_and(is_json) {
            view.notes.body = BodyUse::Whole;
            view.fields.remove(Known::ContentLength);
        }
    }

    fn response_body(&self, view: &mut BodyView<'_>) {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(view.body) else { return };
        for Change { action, name, value } in &self.members {
            action.apply_to(&mut object, name, value.clone());
        }
        view.body.clear();
        // Writing into memory cannot fail.
        let _ = serde_json::to_writer(&mut *view.body, &object);
    }
}

fn change_header(view: &mut ResponseView<'_>, action: Action, name: &[u8], value: &[u8]) {
    let (fields, source) = (&mut *view.fields, view.source);
    let is_there = fields.get_by_name(source, name).is_some();
    match action {
        Action::Remove => drop(fields.remove_by_name(source, name)),
        Action::Rename if is_there => {
            let old = fields.get_by_name(source, name).map_or_else(Vec::new, <[u8]>::to_vec);
            fields.remove_by_name(source, name);
            fields.set_by_name(source, value, &old);
        }
        Action::Replace if is_there => drop(fields.set_by_name(source, name, value)),
        Action::Add if !is_there => drop(fields.append_by_name(name, value)),
        Action::Append => drop(fields.append_by_name(name, value)),
        Action::Rename | Action::Replace | Action::Add => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    fn changed(config: Value, headers: &[(&str, &str)], body: &str) -> (Vec<String>, String) {
        let mut exchange = Exchange::new(&["GET /p"]);
        for (name, value) in headers {
            exchange.response_field(name, value);
        }
        let plugin = plugin(&KIND, config);
        exchange.response_head(&*plugin);
        let mut body = body.as_bytes().to_vec();
        if exchange.notes.body == BodyUse::Whole {
            plugin.response_body(&mut BodyView { status: 200, body: &mut body, notes: &mut exchange.notes });
        }
        (exchange.response_fields(), String::from_utf8(body).unwrap())
    }

    #[test]
    fn headers_are_changed_in_the_order_of_the_actions() {
        let headers = [("A", "1"), ("B", "2"), ("C", "3")];
        let config = json!({
            "remove": { "headers": ["a"] },
            "rename": { "headers": ["b:x-b", "none:y"] },
            "replace": { "headers": ["c:9", "none:9"] },
            "add": { "headers": ["c:8", "a:7"] },
            "append": { "headers": ["c:10"] },
        });
        assert_eq!(changed(config, &headers, "").0, ["C: 9", "x-b: 2", "a: 7", "c: 10"]);
    }

    #[test]
    fn members_of_a_json_object_are_changed() {
        let config = json!({
            "remove": { "json": ["a"] },
            "rename": { "json": ["b:x"] },
            "replace": { "json": ["c:9", "none:9"], "json_types": ["number", "number"] },
            "add": { "json": ["t:true", "n:1.5", "s:v", "bad:x"], "json_types": ["boolean", "number", "string", "number"] },
            "append": { "json": ["l:2"] },
        });
        let body = r#"{"a":1,"b":{"k":[]},"c":3,"l":"1"}"#;
        let json_type = ("Content-Type", "application/problem+json; charset=utf-8");
        let (headers, got) = changed(config.clone(), &[json_type, ("Content-Length", "35")], body);
        let want = r#"{"c":9,"l":["1","2"],"x":{"k":[]},"t":true,"n":1.5,"s":"v"}"#;
        assert_eq!(got, want);
        assert_eq!(headers.len(), 1);
        assert_eq!(changed(config.clone(), &[("Content-Type", "text/plain")], body).1, body);
        for other in ["[1]", "{", "", "1"] {
            assert_eq!(changed(config.clone(), &[json_type], other).1, other);
        }
    }
}
