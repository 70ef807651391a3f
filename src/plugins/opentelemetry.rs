//! HOT: some headers are read and written on the stack.
//! opentelemetry: traces and logs of requests to a collector (spec/plugins.md H.2).
//! Never: makes a span; that is the control plane's, out of the record of the request.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::schema::Meaning;
use crate::entity::schema::Shorthand;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::endpoint::Endpoint;
use crate::plugins::queue;
use crate::plugins::queue::QueueRules;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
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

const URL: Field = Field::string("").check(Check::Custom(Endpoint::check)).referenceable();
const HEADER: Field = Field::string("").check(Check::HeaderName);
const HEADER_VALUE: Field = Field::string("").referenceable();
const ATTRIBUTE: Field = Field::string("").required();
const ATTRIBUTE_VALUE: Field = Field::string("").required();

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "opentelemetry",
        &[
            Field { name: "traces_endpoint", ..URL },
            Field { name: "logs_endpoint", ..URL },
            Field::map("headers", &HEADER, &HEADER_VALUE),
            Field::map("resource_attributes", &ATTRIBUTE, &ATTRIBUTE_VALUE),
            queue::QUEUE_OF_200,
            Field::integer("batch_span_count"),
            Field::integer("batch_flush_delay"),
            Field::integer("connect_timeout").default_int(1000).between(0, 2_147_483_646),
            Field::integer("send_timeout").default_int(5000).between(0, 2_147_483_646),
            Field::integer("read_timeout").default_int(5000).between(0, 2_147_483_646),
            Field::string("http_response_header_for_traceid"),
            Field::string("header_type").optional().default_str("preserve").one_of(propagation::HEADER_TYPES),
            Field::number("sampling_rate").optional().between(0, 1),
            propagation::W3C,
        ],
    )
    .checks(&[EntityCheck::AtLeastOneOf(&["config.traces_endpoint", "config.logs_endpoint"])])
    .aliases(&[Shorthand {
        field: Field { name: "endpoint", ..URL },
        meaning: Meaning::Alias {
            path: &["traces_endpoint"],
            message: "OpenTelemetry: config.endpoint is deprecated, please use config.traces_endpoint instead",
            removal_in_version: "4.0",
        },
    }]),
    priority: 14,
    build,
};

/// Where traces and logs go.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    pub traces: Option<Endpoint>,
    pub logs: Option<Endpoint>,
    pub headers: Vec<(String, String)>,
    /// Of the resource, beside the usual ones or in their place.
    pub attributes: Vec<(String, String)>,
    pub connect: Duration,
    pub send: Duration,
    pub read: Duration,
    pub queue: QueueRules,
}

struct OpenTelemetry {
    propagation: Propagation,
    /// `None`: that of the node.
    sampling_rate: Option<f64>,
    response_header: Option<Box<str>>,
    shipping: Shipping,
    ships_logs: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let endpoint = |name: &str| {
        let Some(url) = settings::text(config, name) else { return Ok(None) };
        Endpoint::parse(url).map(Some).map_err(|message| ConfigError { field: name.to_owned(), message })
    };
    let attributes = settings::pairs(config, "resource_attributes");
    if let Some((name, _)) = attributes.iter().find(|(_, value)| value.contains("$(")) {
        let message = "templates are not supported: there is no scripting engine".to_owned();
        return Err(ConfigError { field: format!("resource_attributes.{name}"), message });
    }
    let collector = Collector {
        traces: endpoint("traces_endpoint")?,
        logs: endpoint("logs_endpoint")?,
        headers: settings::pairs(config, "headers"),
        attributes,
        connect: settings::millis(config, "connect_timeout", 1000),
        send: settings::millis(config, "send_timeout", 5000),
        read: settings::millis(config, "read_timeout", 5000),
        queue: QueueRules::of_spans(config),
    };
    Ok(Box::new(OpenTelemetry {
        propagation: Propagation::of(config, Format::W3c),
        sampling_rate: settings::number(config, "sampling_rate"),
        response_header: response_header(config)?,
        ships_logs: collector.logs.is_some(),
        shipping: Shipping::OpenTelemetry(collector),
    }))
}

/// The header by which clients are told the id of their trace.
pub(super) fn response_header(config: &Map<String, Value>) -> Result<Option<Box<str>>, ConfigError> {
    let field = "http_response_header_for_traceid";
    match settings::text(config, field).filter(|name| !name.is_empty()) {
        Some(name) if !crate::http::fields::is_token(name.as_bytes()) => {
            Err(ConfigError { field: field.to_owned(), message: format!("bad header name '{name}'") })
        }
        name => Ok(name.map(Box::from)),
    }
}

/// Tells the client the id of its trace.
pub(super) fn tell_client(header: Option<&str>, view: &mut ResponseView<'_>) {
    if let (Some(header), Some(traced)) = (header, Traced::noted(view.notes.numbers, &view.notes.bytes)) {
        view.fields.set_by_name(view.source, header.as_bytes(), traced.trace.text().bytes());
    }
}

impl OpenTelemetry {
    fn is_sampled(&self, traced: &Traced, told: Option<bool>, node_rate: f64) -> bool {
        told != Some(false) && traced.is_within(self.sampling_rate.unwrap_or(node_rate))
    }

    fn note(&self, traced: &Traced, notes: &mut Notes) {
        traced.note(notes);
        notes.unshipped = !traced.sampled && !self.ships_logs;
    }
}

impl Plugin for OpenTelemetry {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let found = self.propagation.extract(view);
        let context = found.map(|found| found.0);
        let mut traced = Traced::begin(view.core, false);
        if let Some(Context { trace: Some(trace), span, .. }) = context {
            traced.trace = trace;
            traced.parent = span;
        }
        let debug = context.is_some_and(|context| context.debug);
        let instrumented = view.core.instrumented;
        let mut outgoing = Outgoing {
            trace: traced.trace,
            span: traced.call,
            parent: Some(traced.span),
            sampled: false,
            debug: false,
        };
        if instrumented.any() {
            traced.sampled =
                self.is_sampled(&traced, context.and_then(|context| context.sampled), view.core.sampling_rate);
            outgoing.sampled = traced.sampled;
            outgoing.debug = debug && traced.sampled;
            if !instrumented.balancer() {
                // The call has no span of its own.
                (outgoing.span, outgoing.parent) = (traced.span, traced.parent);
            }
        } else if let Some(Context { trace: Some(_), span: Some(span), parent, .. }) = context {
            // No span is made here, so the upstream's parent is the client.
            (outgoing.span, outgoing.parent) = (span, parent);
        } else {
            outgoing.parent = None;
        }
        self.propagation.inject(found.map(|found| found.1), &outgoing, view);
        self.note(&traced, view.notes);
        Verdict::Continue
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        tell_client(self.response_header.as_deref(), view);
    }

    fn log(&self, view: &mut LogView<'_>) {
        if Traced::noted(view.notes.numbers, &view.notes.bytes).is_none() {
            // Answered before the turn of this plugin came, or without a route.
            let mut traced = Traced::begin(view.core, false);
            traced.sampled = view.core.instrumented.any() && self.is_sampled(&traced, None, view.core.sampling_rate);
            self.note(&traced, view.notes);
        }
    }

    fn ships(&self) -> Option<&Shipping> {
        Some(&self.shipping)
    }

    fn traces(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Instrumented;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    const PARENT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn access(config: Value, on: Instrumented, lines: &[&str]) -> (Exchange, Traced) {
        let mut config = config;
        config["traces_endpoint"] = json!("http://h/v1/traces");
        let plugin = plugin(&KIND, config);
        let mut exchange = Exchange::new(&[&["GET /"][..], lines].concat());
        exchange.core.instrumented = on;
        exchange.core.sampling_rate = 1.0;
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        exchange.response_head(&*plugin);
        let traced = Traced::noted(exchange.notes.numbers, &exchange.notes.bytes).expect("it was noted");
        (exchange, traced)
    }

    #[test]
    fn without_instrumentation_ids_pass_and_nothing_is_sampled() {
        let (exchange, traced) = access(json!({}), Instrumented::default(), &[PARENT]);
        assert_eq!(exchange.fields(), [PARENT.replace("-01", "-00")]);
        assert!(!traced.sampled && exchange.notes.unshipped);
        assert_eq!(exchange.told.trace_ids, b"w3c=0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_trace_goes_on_with_the_span_of_the_upstream_call() {
        let (exchange, traced) = access(json!({}), Instrumented::all(), &[PARENT]);
        let want = format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-{:016x}-01", traced.call);
        assert_eq!(exchange.fields(), [want]);
        assert_eq!(traced.parent, Some(0xb7ad_6b71_6920_3331));
        assert!(traced.sampled && !exchange.notes.unshipped);
    }

    #[test]
    fn a_parent_that_is_not_sampled_decides_and_the_rate_does_otherwise() {
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!access(json!({}), Instrumented::all(), &[&unsampled]).1.sampled);
        assert!(access(json!({}), Instrumented::all(), &[]).1.sampled);
        assert!(!access(json!({"sampling_rate": 0}), Instrumented::all(), &[PARENT]).1.sampled);
    }

    #[test]
    fn headers_are_cleared_and_set_as_configured_and_the_client_is_told() {
        let propagation = json!({"extract": ["w3c"], "clear": ["traceparent", "x-other"], "inject": ["b3-single"]});
        let config = json!({"propagation": propagation, "http_response_header_for_traceid": "X-Trace"});
        let (exchange, traced) = access(config, Instrumented::all(), &[PARENT, "x-other: 1"]);
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(exchange.fields(), [format!("b3: {id}-{:016x}-1-{:016x}", traced.call, traced.span)]);
        assert_eq!(exchange.response_fields(), [format!("X-Trace: {id}")]);
    }
}
