//! HOT: headers are changed in place, texts are rendered into memory that the exchange keeps.
//! request-transformer: the upstream gets another request than the client sent (spec/plugins.md D.1).
//! Always: templates see the request as it came to this plugin; when one fails, nothing was changed.

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::http::encode::push_path_encoded;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::body::Format;
use crate::plugins::body_edit;
use crate::plugins::edit;
use crate::plugins::edit::Action;
use crate::plugins::query;
use crate::plugins::settings;
use crate::plugins::template::Template;
use crate::plugins::template_value::Env;
use crate::plugins::template_value::Failed;
use crate::plugins::view::View;

const TEXT: Field = Field::string("");
const NAME: Field = Field::string("").check(Check::Custom(edit::check_name));
const PAIR_OF_NAMES: Field = Field::string("").matches("^[^:]+:.*$").check(Check::Custom(edit::check_two_names));
const HEADER: Field = Field::string("").matches("^[^:]+:.*$").check(Check::Custom(edit::check_name));

const BODY: Field = Field::array("body", &TEXT).required().default_strs(&[]);
const QUERY: Field = Field::array("querystring", &TEXT).required().default_strs(&[]);
const HEADERS: Field = Field::array("headers", &HEADER).required().default_strs(&[]);

const REMOVED: Record = Record::of(&[BODY, Field::array("headers", &NAME).required().default_strs(&[]), QUERY]);
const RENAMED: Record =
    Record::of(&[BODY, Field::array("headers", &PAIR_OF_NAMES).required().default_strs(&[]), QUERY]);
const REPLACED: Record = Record::of(&[BODY, HEADERS, QUERY, Field::string("uri")]);
const ADDED: Record = Record::of(&[BODY, HEADERS, QUERY]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "request-transformer",
        &[
            Field::string("http_method").matches("^%u+$"),
            Field::record("remove", &REMOVED).required(),
            Field::record("rename", &RENAMED).required(),
            Field::record("replace", &REPLACED).required(),
            Field::record("add", &ADDED).required(),
            Field::record("append", &ADDED).required(),
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 801,
    build,
};

struct RequestTransformer {
    method: Option<Box<str>>,
    uri: Option<Template>,
    headers: Box<[Change]>,
    body: Box<[Change]>,
    query: Box<[Change]>,
}

/// One entry of the configuration.
struct Change {
    action: Action,
    name: Box<str>,
    value: Template,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let replace = config.get("replace").and_then(Value::as_object);
    let uri = replace.and_then(|record| settings::text(record, "uri"));
    Ok(Box::new(RequestTransformer {
        method: settings::text(config, "http_method").map(Box::from),
        uri: uri.map(|text| template(text, "replace.uri")).transpose()?,
        headers: changes(config, "headers")?,
        body: changes(config, "body")?,
        query: changes(config, "querystring")?,
    }))
}

fn template(text: &str, field: &str) -> Result<Template, ConfigError> {
    let refuse = |why| ConfigError {
        field: field.to_string(),
        message: format!("failed to compile the template '{text}': {why}"),
    };
    Template::parse(text).map_err(refuse)
}

/// The entries for one part of the request, in the order in which they are applied.
fn changes(config: &Map<String, Value>, part: &str) -> Result<Box<[Change]>, ConfigError> {
    let mut changes = Vec::new();
    for action in Action::ALL {
        let Some(record) = config.get(action.name()).and_then(Value::as_object) else { continue };
        for (at, text) in settings::texts(record, part).enumerate() {
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let action = match (action, value) {
                // A value of nothing is no value.
                (Action::Replace, "") => Action::Remove,
                (Action::Rename | Action::Add | Action::Append, "") => continue,
                _ => action,
            };
            let field = format!("{}.{part}.{}", action.name(), at + 1);
            let value = template(value.trim_start_matches(':'), &field)?;
            changes.push(Change { action, name: name.into(), value });
        }
    }
    Ok(changes.into())
}

impl Plugin for RequestTransformer {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        let mut rendered = std::mem::take(&mut view.notes.bytes);
        rendered.clear();
        let verdict = match self.render(view, &mut rendered) {
            Ok(()) => {
                self.apply(view, &rendered);
                Verdict::Continue
            }
            Err(_) => {
                view.reply.gateway(500, "An unexpected error occurred");
                Verdict::Reply
            }
        };
        view.notes.bytes = rendered;
        verdict
    }

    fn reads_body(&self) -> bool {
        !self.body.is_empty() || self.moves_form()
    }
}

impl RequestTransformer {
    /// Every text that depends on the request, each behind its length, in the order in which `apply` takes them.
    fn render(&self, view: &View<'_>, out: &mut Vec<u8>) -> Result<(), Failed> {
        let env = Env::of(view);
        let all = [&self.headers, &self.body, &self.query].into_iter().flatten().map(|change| &change.value);
        for template in self.uri.iter().chain(all).filter(|template| template.constant().is_none()) {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            template.render(&env, out)?;
            let len = (out.len() - start - 4) as u32;
            if let Some(place) = out.get_mut(start..start + 4) {
                place.copy_from_slice(&len.to_le_bytes());
            }
        }
        Ok(())
    }

    fn apply<'a>(&'a self, view: &mut View<'_>, rendered: &'a [u8]) {
        let mut texts = Texts { rendered };
        if let Some(uri) = &self.uri {
            let uri = texts.of(uri);
            if !uri.is_empty() {
                set_uri(view, uri);
            }
        }
        if let Some(method) = &self.method {
            view.rewrite.method.clear();
            view.rewrite.method.extend_from_slice(method.as_bytes());
            if self.moves_form() {
                move_form(view);
            }
        }
        for change in &self.headers {
            change_header(view, change, texts.of(&change.value));
        }
        self.change_body(view, &mut texts);
        self.change_query(view, &mut texts);
    }

    /// Whether a form goes to where such a request carries one.
    fn moves_form(&self) -> bool {
        self.method.as_deref().is_some_and(|method| matches!(method, "GET" | "HEAD" | "TRACE"))
    }

    fn change_body<'a>(&'a self, view: &mut View<'_>, texts: &mut Texts<'a>) {
        let resolved: Vec<_> =
            self.body.iter().map(|change| (change.action, &*change.name, texts.of(&change.value))).collect();
        let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
        if let Some(format) = format.filter(|_| !resolved.is_empty())
            && let Some(body) = &mut view.body
            && let Some(edited) = body_edit::edited(format, body.get(), &resolved)
        {
            body.set(edited);
        }
    }

    fn change_query<'a>(&'a self, view: &mut View<'_>, texts: &mut Texts<'a>) {
        if self.query.is_empty() {
            return;
        }
        let mut arguments = query::List::of(view.query.get());
        for change in &self.query {
            arguments.change(change.action, change.name.as_bytes(), texts.of(&change.value));
        }
        let edited = arguments.encoded();
        view.query.set(edited);
    }
}

/// Takes the texts in the order in which they were rendered.
struct Texts<'a> {
    rendered: &'a [u8],
}

impl<'a> Texts<'a> {
    fn of(&mut self, template: &'a Template) -> &'a [u8] {
        if let Some(text) = template.constant() {
            return text.as_bytes();
        }
        let Some((len, rest)) = self.rendered.split_first_chunk::<4>() else { return b"" };
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).unwrap_or((b"", b""));
        self.rendered = rest;
        text
    }
}

/// A query in the new target goes before that of the request.
fn set_uri(view: &mut View<'_>, uri: &[u8]) {
    let (path, query) = match uri.iter().position(|&byte| byte == b'?') {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => (uri, &b""[..]),
    };
    let target = &mut view.rewrite.path;
    target.clear();
    if !path.starts_with(b"/") {
        target.push(b'/');
    }
    for (nth, piece) in path.split(|&byte| byte == b'#').enumerate() {
        if nth > 0 {
            target.extend_from_slice(b"%23");
        }
        push_path_encoded(target, piece);
    }
    if !query.is_empty() {
        let mut joined = Vec::new();
        push_path_encoded(&mut joined, query);
        let joined = [&joined[..], view.query.get()];
        let joined = if joined[1].is_empty() { joined[0].to_vec() } else { joined.join(&b"&"[..]) };
        view.query.set(joined);
    }
}

/// A form goes into the query, as a request without a body has no other place for it.
fn move_form(view: &mut View<'_>) {
    let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
    let Some(body) = view.body.as_ref().filter(|_| format == Some(Format::Form)) else { return };
    let mut arguments = query::List::of(view.query.get());
    arguments.join(query::List::of(body.get()));
    let edited = arguments.encoded();
    view.query.set(edited);
}

fn change_header(view: &mut View<'_>, change: &Change, value: &[u8]) {
    let name = change.name.as_bytes();
    let is_host = name.eq_ignore_ascii_case(b"host");
    let (fields, source) = (&mut *view.fields, view.source);
    let is_there = fields.get_by_name(source, name).is_some();
    match change.action {
        Action::Remove | Action::Rename if is_host => {}
        Action::Remove => drop(fields.remove_by_name(source, name)),
        Action::Rename if is_there => {
            let old = fields.get_by_name(source, name).map_or_else(Vec::new, <[u8]>::to_vec);
            fields.remove_by_name(source, name);
            fields.remove_by_name(source, value);
            fields.append_by_name(value, &old);
        }
        Action::Replace if is_host => {
            let fit = value.iter().all(|&byte| byte.is_ascii_graphic());
            if fit && !value.is_empty() {
                view.rewrite.host.clear();
                view.rewrite.host.extend_from_slice(value);
            }
        }
        Action::Replace if is_there => drop(fields.set_by_name(source, name, value)),
        Action::Add if !is_there && !is_host => drop(fields.append_by_name(name, value)),
        Action::Append if !is_host => drop(fields.append_by_name(name, value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    #[track_caller]
    fn changed(config: Value, lines: &[&str], body: &str) -> Exchange {
        let mut exchange = Exchange::new(lines).with_body(body);
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Continue);
        exchange
    }

    #[test]
    fn headers_are_changed_in_the_order_of_the_actions() {
        let config = json!({
            "remove": { "headers": ["a", "host"] },
            "rename": { "headers": ["B:X-B", "c:C"] },
            "replace": { "headers": ["c:9", "none:9", "Host:other.test"] },
            "add": { "headers": ["c:8", "a:7", "host:z"] },
            "append": { "headers": ["c:10"] },
        });
        let exchange = changed(config, &["GET /p", "Host: h", "A: 1", "b: 2", "c: 3"], "");
        assert_eq!(exchange.fields(), ["Host: h", "X-B: 2", "C: 9", "a: 7", "c: 10"]);
        assert_eq!(exchange.rewrite.host, b"other.test");
    }

    #[test]
    fn templates_see_the_request_as_it_came() {
        let config = json!({
            "remove": { "headers": ["x-old"], "querystring": ["q"] },
            "add": {
                "headers": ["x-new:$(headers.x_old)", "x-q:<$(query_params.q or \"none\")>"],
                "querystring": ["u:$(headers['x-old'])"],
                "body": ["b:$(query_params.q)"],
            },
            "replace": { "uri": "/new/$(query_params.q)" },
        });
        let lines = ["POST /p?q=a%20b", "x-old: o", "Content-Type: application/json"];
        let exchange = changed(config, &lines, "{}");
        assert_eq!(exchange.fields()[1..], ["x-new: o", "x-q: <a b>"]);
        assert_eq!(exchange.edited_query(), Some("u=o"));
        assert_eq!(exchange.edited_body(), Some(r#"{"b":"a b"}"#));
        assert_eq!(exchange.rewrite.path, b"/new/a%20b");
    }

    #[test]
    fn a_template_that_fails_changes_nothing() {
        let config = json!({ "add": { "headers": ["a:1", "b:$('x' .. headers.none)"] } });
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Reply);
        assert_eq!((exchange.reply.status, &*exchange.reply_text()), (500, "An unexpected error occurred"));
        assert_eq!(exchange.fields(), [""; 0]);
    }

    #[test]
    fn a_template_that_cannot_be_read_is_refused() {
        let (field, message) = refusal(&KIND, json!({ "add": { "headers": ["a:1", "b:$(os.time())"] } }));
        assert_eq!(field, "add.headers.2");
        assert_eq!(
            message,
            "failed to compile the template '$(os.time())': in 'os.time()': there is nothing named 'os'"
        );
    }

    #[test]
    fn a_new_target_may_bring_a_query_and_never_ends_the_line() {
        for (uri, path, query) in [
            ("/a?x=1", "/a", Some("x=1&q=1")),
            ("a", "/a", None),
            ("/a b#c\r\n", "/a%20b%23c%0D%0A", None),
            ("/a?b c", "/a", Some("b%20c&q=1")),
        ] {
            let exchange = changed(json!({ "replace": { "uri": uri } }), &["GET /p?q=1"], "");
            assert_eq!(String::from_utf8_lossy(&exchange.rewrite.path), path);
            assert_eq!(exchange.edited_query(), query, "{uri}");
        }
        let config = json!({ "replace": { "headers": ["host:$(query_params.h)"] } });
        assert_eq!(changed(config, &["GET /p?h=a%0d%0ab"], "").rewrite.host, b"");
    }

    #[test]
    fn a_form_becomes_arguments_of_a_method_without_body() {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let exchange = changed(json!({ "http_method": "GET" }), &["POST /p?q=1", form], "a=1&b=x+y");
        assert_eq!(exchange.edited_query(), Some("q=1&a=1&b=x%20y"));
        assert_eq!(exchange.rewrite.method, b"GET");
        let exchange = changed(json!({ "http_method": "PUT" }), &["POST /p?q=1", form], "a=1");
        assert_eq!((exchange.edited_query(), &*exchange.rewrite.method), (None, &b"PUT"[..]));
    }

    #[test]
    fn the_body_is_read_only_where_it_is_changed() {
        let reads = |config: Value| plugin(&KIND, config).reads_body();
        assert!(!reads(json!({ "add": { "headers": ["a:1"] }, "http_method": "PUT" })));
        assert!(reads(json!({ "add": { "body": ["a:1"] } })) && reads(json!({ "http_method": "GET" })));
    }
}
