//! HOT: some headers are read and written on the stack.
//! zipkin: spans of requests to a Zipkin server (spec/plugins.md H.3).
//! Never: makes a span; that is the control plane's, out of the record of the request.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::endpoint::Endpoint;
use crate::plugins::opentelemetry::response_header;
use crate::plugins::opentelemetry::tell_client;
use crate::plugins::queue;
use crate::plugins::queue::QueueRules;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
use crate::plugins::stats::records;
use crate::plugins::trace::Context;
use crate::plugins::trace::Format;
use crate::plugins::trace::Outgoing;
use crate::plugins::trace::propagation;
use crate::plugins::trace::propagation::Propagation;
use crate::plugins::trace::propagation::Traced;
use crate::plugins::view::LogView;
use crate::plugins::view::Notes;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::strs;

/// Tags that the plugin sets itself.
const OWN_TAGS: &[Literal] = strs![
    "error",
    "http.method",
    "http.path",
    "http.status_code",
    "kong.balancer.state",
    "kong.balancer.try",
    "kong.consumer",
    "kong.credential",
    "kong.node.id",
    "kong.route",
    "kong.service",
    "lc",
    "peer.hostname",
];

static TAG: Record =
    Record::of(&[Field::string("name").required().not_one_of(OWN_TAGS), Field::string("value").required()]);
const STATIC_TAG: Field = Field::record("", &TAG);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "zipkin",
        &[
            Field::string("local_service_name").required().default_str("kong"),
            Field::string("http_endpoint").check(Check::Custom(Endpoint::check)),
            Field::number("sample_ratio").default(Literal::Number(0.001)).between(0, 1),
            Field::string("default_service_name"),
            Field::boolean("include_credential").required().default_bool(true),
            Field::integer("traceid_byte_count")
                .required()
                .default_int(16)
                .one_of(&[Literal::Int(8), Literal::Int(16)]),
            Field::string("header_type").required().default_str("preserve").one_of(propagation::HEADER_TYPES),
            Field::string("default_header_type").required().default_str("b3").one_of(propagation::FORMATS),
            Field::string("tags_header").required().default_str("Zipkin-Tags"),
            Field::array("static_tags", &STATIC_TAG),
            Field::string("http_span_name").required().default_str("method").one_of(strs!["method", "method_path"]),
            Field::integer("connect_timeout").default_int(2000).between(0, 2_147_483_646),
            Field::integer("send_timeout").default_int(5000).between(0, 2_147_483_646),
            Field::integer("read_timeout").default_int(5000).between(0, 2_147_483_646),
            Field::string("http_response_header_for_traceid"),
            Field::string("phase_duration_flavor")
                .required()
                .default_str("annotations")
                .one_of(strs!["annotations", "tags"]),
            queue::QUEUE,
            propagation::B3,
        ],
    )
    .config_rule(tags_once),
    priority: 100_000,
    build,
};

/// Where spans go and what they tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Zipkin {
    pub endpoint: Endpoint,
    pub local_service_name: Box<str>,
    /// Of the remote side, for requests without a service that has a name.
    pub default_service_name: Option<Box<str>>,
    pub include_credential: bool,
    /// The request header that brings tags.
    pub tags_header: Box<str>,
    pub static_tags: Vec<(String, String)>,
    /// Whether the name of a request's span tells its path.
    pub names_path: bool,
    /// Whether the times of phases are tags instead of annotations.
    pub phases_as_tags: bool,
    pub connect: Duration,
    pub send: Duration,
    pub read: Duration,
    pub queue: QueueRules,
}

struct Tracer {
    propagation: Propagation,
    sample_ratio: f64,
    makes_short_ids: bool,
    response_header: Option<Box<str>>,
    /// `None`: headers are passed on, and that is all.
    shipping: Option<Shipping>,
}

fn tags(config: &Map<String, Value>) -> Vec<(String, String)> {
    let texts = records(config, "static_tags")
        .filter_map(|tag| Some((settings::text(tag, "name")?.to_owned(), settings::text(tag, "value")?.to_owned())));
    texts.collect()
}

fn tags_once(config: &Map<String, Value>) -> Result<(), String> {
    let mut seen = HashSet::new();
    let repeated = tags(config).into_iter().find(|(name, _)| !seen.insert(name.clone()));
    repeated.map_or(Ok(()), |(name, _)| Err(format!("repeated tags are not allowed: {name}")))
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let text = |name: &str| settings::text(config, name);
    let endpoint = text("http_endpoint").map(Endpoint::parse).transpose();
    let endpoint = endpoint.map_err(|message| ConfigError { field: "http_endpoint".to_owned(), message })?;
    let shipping = endpoint.map(|endpoint| {
        Shipping::Zipkin(Zipkin {
            endpoint,
            local_service_name: text("local_service_name").unwrap_or("kong").into(),
            default_service_name: text("default_service_name").map(Box::from),
            include_credential: settings::flag(config, "include_credential"),
            tags_header: text("tags_header").unwrap_or("Zipkin-Tags").into(),
            static_tags: tags(config),
            names_path: text("http_span_name") == Some("method_path"),
            phases_as_tags: text("phase_duration_flavor") == Some("tags"),
            connect: settings::millis(config, "connect_timeout", 2000),
            send: settings::millis(config, "send_timeout", 5000),
            read: settings::millis(config, "read_timeout", 5000),
            queue: QueueRules::of(config),
        })
    });
    Ok(Box::new(Tracer {
        propagation: Propagation::of(config, Format::B3),
        sample_ratio: settings::number(config, "sample_ratio").unwrap_or(0.001),
        makes_short_ids: settings::number(config, "traceid_byte_count") == Some(8.0),
        response_header: response_header(config)?,
        shipping,
    }))
}

impl Tracer {
    fn note(&self, traced: &Traced, notes: &mut Notes) {
        traced.note(notes);
        notes.unshipped = !traced.sampled;
    }
}

impl Plugin for Tracer {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let found = self.propagation.extract(view);
        let context = found.map(|found| found.0);
        let mut traced = Traced::begin(view.core, self.makes_short_ids);
        if let Some(Context { trace: Some(trace), span, parent, .. }) = context {
            traced.trace = trace;
            match (found, span) {
                // In B3 both sides of a call share one span.
                (Some((_, Format::B3 | Format::B3Single)), Some(span)) => (traced.span, traced.parent) = (span, parent),
                _ => traced.parent = span,
            }
        }
        let told = context.and_then(|context| context.sampled);
        traced.sampled = told.unwrap_or_else(|| traced.is_within(self.sample_ratio));
        let outgoing = Outgoing {
            trace: traced.trace,
            span: traced.call,
            parent: Some(traced.span),
            sampled: traced.sampled,
            debug: context.is_some_and(|context| context.debug),
        };
        self.propagation.inject(found.map(|found| found.1), &outgoing, view);
        self.note(&traced, view.notes);
        Verdict::Continue
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        tell_client(self.response_header.as_deref(), view);
    }

    fn log(&self, view: &mut LogView<'_>) {
        if Traced::noted(view.notes.numbers, &view.notes.bytes).is_none() {
            // Without a route: what the client's headers said was not asked for.
            let mut traced = Traced::begin(view.core, self.makes_short_ids);
            traced.sampled = traced.is_within(self.sample_ratio);
            self.note(&traced, view.notes);
        }
    }

    fn ships(&self) -> Option<&Shipping> {
        self.shipping.as_ref()
    }

    fn traces(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    fn access(config: Value, lines: &[&str]) -> (Exchange, Traced) {
        let mut config = config;
        config["http_endpoint"] = json!("http://h/api/v2/spans");
        let plugin = plugin(&KIND, config);
        let mut exchange = Exchange::new(&[&["GET /"][..], lines].concat());
        exchange.access(&*plugin);
        let traced = Traced::noted(exchange.notes.numbers, &exchange.notes.bytes).expect("it was noted");
        (exchange, traced)
    }

    #[test]
    fn a_span_of_b3_is_shared_and_the_call_is_its_child() {
        let lines = ["x-b3-traceid: 00000000000000ab", "x-b3-spanid: 00000000000000cd", "x-b3-sampled: 1"];
        let (exchange, traced) = access(json!({}), &lines);
        assert_eq!((traced.span, traced.parent, traced.sampled), (0xcd, None, true));
        let call = format!("x-b3-spanid: {:016x}", traced.call);
        assert!(exchange.fields().contains(&call), "{:?}", exchange.fields());
        assert!(exchange.fields().contains(&"x-b3-parentspanid: 00000000000000cd".to_owned()));
        assert!(exchange.fields().contains(&"x-b3-traceid: 00000000000000ab".to_owned()));
    }

    #[test]
    fn a_parent_of_another_format_stays_a_parent_and_its_format_is_kept() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let (exchange, traced) = access(json!({}), &[&format!("traceparent: 00-{id}-00000000000000cd-00")]);
        assert_eq!((traced.parent, traced.sampled), (Some(0xcd), false));
        assert!(exchange.notes.unshipped, "the parent is not sampled");
        assert_eq!(exchange.fields(), [format!("traceparent: 00-{id}-{:016x}-00", traced.call)]);
    }

    #[test]
    fn without_a_parent_a_trace_begins_in_the_default_format() {
        let (exchange, traced) = access(json!({"sample_ratio": 1, "traceid_byte_count": 8}), &[]);
        assert!(traced.trace.is_short && traced.sampled);
        assert_eq!(exchange.fields()[0], format!("x-b3-traceid: {:016x}", traced.trace.id));
        assert!(!access(json!({"sample_ratio": 0}), &[]).1.sampled);
    }

    #[test]
    fn tags_stand_once() {
        let twice = json!({"static_tags": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]});
        let why = tags_once(twice.as_object().expect("an object"));
        assert_eq!(why, Err("repeated tags are not allowed: a".to_owned()));
        assert_eq!(
            refusal(&KIND, json!({"http_response_header_for_traceid": "a b"})).0,
            "http_response_header_for_traceid"
        );
    }
}
