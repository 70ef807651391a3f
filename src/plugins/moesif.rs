//! HOT but for rules: bodies are copied as they pass; while a collector governs, a request is judged by its rules.
//! moesif: every call with its headers and bodies to a collector of API analytics, which may have calls stopped
//! (spec/plugins.md part J).
//! Never: waits for the collector; tells of a body above its limit.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::body::Format;
use crate::plugins::endpoint::Endpoint;
use crate::plugins::moesif_identity::IdentityRules;
use crate::plugins::moesif_rules::Call;
use crate::plugins::moesif_rules::Governed;
use crate::plugins::query::Found;
use crate::plugins::queue::QueueRules;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
use crate::plugins::view::BodyUse;
use crate::plugins::view::PieceView;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;

const NAME: Field = Field::string("").check(Check::HeaderName);
const NO_NAMES: &[&str] = &[];

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "moesif",
        &[
            Field::string("api_endpoint")
                .required()
                .default_str("https://api.moesif.net")
                .check(Check::Custom(Endpoint::check)),
            Field::number("timeout").default_int(1000),
            Field::number("connect_timeout").default_int(1000),
            Field::number("send_timeout").default_int(5000),
            Field::number("keepalive").default_int(5000),
            Field::number("event_queue_size").default_int(1_000_000).gt(0),
            Field::string("api_version").default_str("1.0"),
            Field::string("application_id").required().referenceable().encrypted(),
            Field::boolean("disable_capture_request_body").default_bool(false),
            Field::boolean("disable_capture_response_body").default_bool(false),
            Field::array("request_masks", &NAME).default_strs(NO_NAMES),
            Field::array("request_body_masks", &NAME).default_strs(NO_NAMES),
            Field::array("request_header_masks", &NAME).default_strs(NO_NAMES),
            Field::array("response_masks", &NAME).default_strs(NO_NAMES),
            Field::array("response_body_masks", &NAME).default_strs(NO_NAMES),
            Field::array("response_header_masks", &NAME).default_strs(NO_NAMES),
            Field::array("request_query_masks", &NAME).default_strs(NO_NAMES),
            Field::number("batch_size").default_int(50).gt(0),
            Field::boolean("disable_transaction_id").default_bool(false),
            Field::boolean("debug").default_bool(false),
            Field::boolean("disable_gzip_payload_decompression").default_bool(false),
            Field::string("user_id_header"),
            Field::string("authorization_header_name").default_str("authorization"),
            Field::string("authorization_user_id_field").default_str("sub"),
            Field::string("authorization_company_id_field"),
            Field::string("company_id_header"),
            Field::number("max_callback_time_spent").default_int(750),
            Field::number("request_max_body_size_limit").default_int(100_000),
            Field::number("response_max_body_size_limit").default_int(100_000),
            Field::boolean("enable_compression").default_bool(false),
        ],
    )
    .no_consumer(),
    priority: 5,
    build,
};

/// What a configuration says of the events.
#[derive(Debug, Clone)]
pub struct Moesif {
    pub endpoint: Endpoint,
    pub application_id: Box<str>,
    pub connect_timeout: Duration,
    pub send_timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// How long batches are sent in a row.
    pub round: Duration,
    pub queue: QueueRules,
    pub api_version: Box<str>,
    pub identity: IdentityRules,
    pub request_masks: Masks,
    pub response_masks: Masks,
    /// Whether compressed bodies are told in readable form.
    pub decompresses: bool,
    /// Whether batches are compressed.
    pub compresses: bool,
    /// Whether each batch is told of in the log.
    pub debug: bool,
    pub governed: Arc<Governed>,
}

/// Names of what is not told, lower-case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masks {
    pub headers: Box<[Box<str>]>,
    /// Members of JSON bodies, at any depth; by their exact names.
    pub body: Box<[Box<str>]>,
    /// Arguments, by their exact names: told with `*****` for a value.
    pub query: Box<[Box<str>]>,
}

impl PartialEq for Moesif {
    fn eq(&self, other: &Self) -> bool {
        // Each configuration has a governance of its own.
        Arc::ptr_eq(&self.governed, &other.governed)
    }
}

/// How long events wait for others, and the first wait after a failure.
const ROUND_EVERY: Duration = Duration::from_millis(1500);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Events are tried again for as long as there is room for them.
const RETRY_FOR: Duration = Duration::from_secs(365 * 86_400);

struct Capture {
    shipping: Shipping,
    identity: IdentityRules,
    governed: Arc<Governed>,
    /// Bytes of a body; `None`: bodies are not told.
    request_bytes_max: Option<usize>,
    response_bytes_max: Option<usize>,
    tells_transaction: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let url = settings::text(config, "api_endpoint").unwrap_or_default();
    let endpoint = Endpoint::parse(url).map_err(|message| ConfigError { field: "api_endpoint".to_owned(), message })?;
    let boxed = |name: &str| settings::text(config, name).filter(|text| !text.is_empty()).map(Box::from);
    let whole = |name: &str, absent: f64| settings::number(config, name).unwrap_or(absent).max(0.0) as usize;
    let exact = |names: [&str; 2]| -> Box<[Box<str>]> {
        names.into_iter().flat_map(|name| settings::texts(config, name)).map(Box::from).collect()
    };
    let lower = |name: &str| -> Box<[Box<str>]> {
        settings::texts(config, name).map(|name| name.to_ascii_lowercase().into()).collect()
    };
    let authorization = settings::text(config, "authorization_header_name").unwrap_or_default();
    let identity = IdentityRules {
        user_header: boxed("user_id_header"),
        company_header: boxed("company_id_header"),
        authorization_headers: authorization
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(Box::from)
            .collect(),
        user_claim: boxed("authorization_user_id_field"),
        company_claim: boxed("authorization_company_id_field"),
    };
    let governed = Arc::<Governed>::default();
    let timeout_ms = settings::number(config, "timeout").unwrap_or(1000.0).max(0.0) as u64;
    let moesif = Moesif {
        endpoint,
        application_id: settings::text(config, "application_id").unwrap_or_default().into(),
        connect_timeout: settings::millis(config, "connect_timeout", timeout_ms),
        send_timeout: settings::millis(config, "send_timeout", 5000),
        keepalive: settings::millis(config, "keepalive", 5000),
        round: settings::millis(config, "max_callback_time_spent", 750),
        queue: QueueRules {
            coalescing: ROUND_EVERY,
            entries_max: whole("event_queue_size", 1_000_000.0).max(1),
            retry_for: Some(RETRY_FOR),
            first_retry_after: ROUND_EVERY,
            retry_after_max: RETRY_AFTER_MAX,
            newest_gives_way: true,
            ..QueueRules::plain(whole("batch_size", 50.0).max(1))
        },
        api_version: settings::text(config, "api_version").unwrap_or_default().into(),
        identity: identity.clone(),
        request_masks: Masks {
            headers: lower("request_header_masks"),
            body: exact(["request_body_masks", "request_masks"]),
            query: exact(["request_query_masks", ""]),
        },
        response_masks: Masks {
            headers: lower("response_header_masks"),
            body: exact(["response_body_masks", "response_masks"]),
            query: Box::default(),
        },
        decompresses: !settings::flag(config, "disable_gzip_payload_decompression"),
        compresses: settings::flag(config, "enable_compression"),
        debug: settings::flag(config, "debug"),
        governed: governed.clone(),
    };
    let limit = |disabled: &str, name: &str| (!settings::flag(config, disabled)).then(|| whole(name, 100_000.0));
    Ok(Box::new(Capture {
        shipping: Shipping::Moesif(moesif),
        identity,
        governed,
        request_bytes_max: limit("disable_capture_request_body", "request_max_body_size_limit"),
        response_bytes_max: limit("disable_capture_response_body", "response_max_body_size_limit"),
        tells_transaction: !settings::flag(config, "disable_transaction_id"),
    }))
}

/// The plugin's numbers: what its bytes hold, in this order. Whether there is a body of the request and how long it is;
/// how long the id of the rule is that stopped the call; whether there is a body of the response.
const REQUEST: usize = 0;
const REQUEST_BYTES: usize = 1;
const RULE_BYTES: usize = 2;
const RESPONSE: usize = 3;

/// A body that is told; one that is too long.
const TOLD: u64 = 1;
const OMITTED: u64 = 2;

/// What was captured of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// `None`: there was none, or it is not told.
    pub request: Option<&'a [u8]>,
    /// The rule that stopped the call.
    pub rule: Option<&'a [u8]>,
    pub response: Option<&'a [u8]>,
}

impl<'a> Captured<'a> {
    /// Out of the plugin's notes.
    pub fn of(numbers: &[u64; 4], bytes: &'a [u8]) -> Self {
        let (request, rest) = bytes.split_at(bytes.len().min(numbers[REQUEST_BYTES] as usize));
        let (rule, response) = rest.split_at(rest.len().min(numbers[RULE_BYTES] as usize));
        let told = |number: usize, body: &'a [u8]| Some(body).filter(|_| numbers[number] == TOLD);
        Self {
            request: told(REQUEST, request),
            rule: Some(rule).filter(|rule| !rule.is_empty()),
            response: told(RESPONSE, response),
        }
    }
}

const TRANSACTION: &[u8] = b"X-Moesif-Transaction-Id";

impl Plugin for Capture {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if self.tells_transaction {
            tell_transaction(view);
        }
        view.notes.bytes.clear();
        if let (Some(max), Some(body)) = (self.request_bytes_max, &view.body) {
            let body = body.get();
            if !body.is_empty() {
                view.notes.numbers[REQUEST] = if body.len() <= max { TOLD } else { OMITTED };
            }
            if view.notes.numbers[REQUEST] == TOLD {
                view.notes.bytes.extend_from_slice(body);
                view.notes.numbers[REQUEST_BYTES] = body.len() as u64;
            }
        }
        if self.governed.is_active() { self.govern(view) } else { Verdict::Continue }
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        let Some(max) = self.response_bytes_max.filter(|_| view.method != Method::Head) else { return };
        let told = view.fields.get(view.source, Known::ContentLength);
        let told = told.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        if told.is_some_and(|bytes| bytes > max as u64) {
            view.notes.numbers[RESPONSE] = OMITTED;
        } else {
            view.notes.numbers[RESPONSE] = TOLD;
            view.notes.body = BodyUse::Pieces;
        }
    }

    fn response_piece(&self, view: &mut PieceView<'_>) {
        let notes = &mut *view.notes;
        if notes.numbers[RESPONSE] != TOLD {
            return;
        }
        let before = (notes.numbers[REQUEST_BYTES] + notes.numbers[RULE_BYTES]) as usize;
        let whole = notes.bytes.len() - before + view.piece.len();
        if self.response_bytes_max.is_some_and(|max| whole <= max) {
            notes.bytes.extend_from_slice(view.piece);
        } else {
            notes.bytes.truncate(before);
            notes.numbers[RESPONSE] = OMITTED;
        }
    }

    fn ships(&self) -> Option<&Shipping> {
        Some(&self.shipping)
    }

    fn reads_body(&self) -> bool {
        self.request_bytes_max.is_some()
    }
}

/// Gives the call an id, unless it has one, that upstream and client are told.
fn tell_transaction(view: &mut View<'_>) {
    let random = view.core.random;
    let mut room = [0; uuid::fmt::Hyphenated::LENGTH];
    let given = view.fields.get_by_name(view.source, TRANSACTION).map(<[u8]>::trim_ascii).filter(|id| !id.is_empty());
    let id = match given {
        Some(id) => {
            view.reply.fields.set_by_name(&[], TRANSACTION, id);
            return;
        }
        None => {
            let bits = u128::from(random()) << 64 | u128::from(random());
            uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().as_hyphenated().encode_lower(&mut room)
        }
    };
    view.reply.fields.set_by_name(&[], TRANSACTION, id.as_bytes());
    view.fields.set_by_name(view.source, TRANSACTION, id.as_bytes());
}

/// A request that waits for a ruling.
struct Waiting<'v, 'a>(&'v View<'a>);

impl Call for Waiting<'_, '_> {
    fn part(&self, path: &str) -> Option<String> {
        let view = self.0;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match path {
            "request.verb" => Some(text(view.method_text)),
            "request.route" => Some(text(view.path)),
            "request.ip_address" => Some(view.client_ip.to_canonical().to_string()),
            _ => {
                if let Some(name) = path.strip_prefix("request.headers.") {
                    return view.header(name.as_bytes()).map(text);
                }
                let name = path.strip_prefix("request.body.")?;
                let format = Format::of(view.fields.get(view.source, Known::ContentType)?)?;
                match format.find(view.body.as_ref()?.get(), name.as_bytes()) {
                    Found::Text(value) => Some(Cow::into_owned(value)).map(|bytes| text(&bytes)),
                    _ => None,
                }
            }
        }
    }
}

impl Capture {
    fn govern(&self, view: &mut View<'_>) -> Verdict {
        let caller = self.identity.of_request(|name| view.header(name.as_bytes()));
        let ruling = self.governed.now().judge(&caller, &Waiting(view));
        let mut content_type = None;
        for (name, value) in &ruling.headers {
            match name.eq_ignore_ascii_case("content-type") {
                true => content_type = Some(value.as_str()),
                false => drop(view.reply.fields.set_by_name(&[], name.as_bytes(), value.as_bytes())),
            }
        }
        let Some(block) = ruling.block else { return Verdict::Continue };
        view.notes.bytes.extend_from_slice(block.rule.as_bytes());
        view.notes.numbers[RULE_BYTES] = block.rule.len() as u64;
        let usual = if block.is_json { "application/json" } else { "text/plain" };
        view.reply.raw(block.status, content_type.unwrap_or(usual), &block.body);
        Verdict::Reply
    }
}

#[cfg(test)]
#[path = "moesif_tests.rs"]
mod tests;
