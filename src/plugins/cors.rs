//! HOT: an origin is compared in place; what is written comes from the configuration.
//! cors: which pages of other origins may read the answers (spec/plugins.md C.7).
//! Always: an answer that depends on the origin says so in `Vary`.

use regex::bytes::Regex;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::fields::Fields;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::strs;

const TEXT: Field = Field::string("");
const METHODS: &[&str] = &["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
const METHOD: Field =
    Field::string("").one_of(strs!["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "cors",
        &[
            Field::array("origins", &TEXT),
            Field::array("headers", &TEXT),
            Field::array("exposed_headers", &TEXT),
            Field::array("methods", &METHOD).default_strs(METHODS),
            Field::number("max_age"),
            Field::boolean("credentials").required().default_bool(false),
            Field::boolean("private_network").required().default_bool(false),
            Field::boolean("preflight_continue").required().default_bool(false),
            Field::boolean("allow_origin_absent").required().default_bool(true),
        ],
    )
    .no_consumer(),
    priority: 2000,
    build,
};

const ALLOW_ORIGIN: &[u8] = b"Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &[u8] = b"Access-Control-Allow-Credentials";
const ALLOW_HEADERS: &[u8] = b"Access-Control-Allow-Headers";
const ALLOW_METHODS: &[u8] = b"Access-Control-Allow-Methods";
const ALLOW_PRIVATE_NETWORK: &[u8] = b"Access-Control-Allow-Private-Network";
const EXPOSE_HEADERS: &[u8] = b"Access-Control-Expose-Headers";
const MAX_AGE: &[u8] = b"Access-Control-Max-Age";
const REQUEST_HEADERS: &[u8] = b"Access-Control-Request-Headers";
const REQUEST_METHOD: &[u8] = b"Access-Control-Request-Method";
const REQUEST_PRIVATE_NETWORK: &[u8] = b"Access-Control-Request-Private-Network";

/// In the notes of a request: the answer says nothing, or has said all.
const IS_PREFLIGHT: u64 = 1;

struct Cors {
    origins: Origins,
    /// Lists as header texts.
    headers: Option<Box<str>>,
    exposed_headers: Option<Box<str>>,
    methods: Box<str>,
    max_age: Option<Box<str>>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

enum Origins {
    Any,
    /// Told to whoever asks.
    One(Box<str>),
    Listed(Box<[Entry]>),
}

/// One of several allowed origins, or of few that are patterns.
enum Entry {
    Any,
    Plain(Box<[u8]>),
    /// Of a whole origin, or of its host alone.
    Pattern {
        regex: Regex,
        of_host: bool,
    },
}

/// What `Access-Control-Allow-Origin` is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed<'a> {
    Any,
    Only(&'a [u8]),
    Nobody,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let joined = |field: &str| {
        let texts: Vec<&str> = settings::texts(config, field).collect();
        (!texts.is_empty()).then(|| Box::from(texts.join(",")))
    };
    Ok(Box::new(Cors {
        origins: origins(config)?,
        headers: joined("headers"),
        exposed_headers: joined("exposed_headers"),
        methods: joined("methods").unwrap_or_default(),
        max_age: config.get("max_age").and_then(Value::as_f64).map(|seconds| seconds.to_string().into()),
        credentials: settings::flag(config, "credentials"),
        private_network: settings::flag(config, "private_network"),
        preflight_continue: settings::flag(config, "preflight_continue"),
        allow_origin_absent: settings::flag(config, "allow_origin_absent"),
    }))
}

fn origins(config: &Map<String, Value>) -> Result<Origins, ConfigError> {
    let texts: Vec<&str> = settings::texts(config, "origins").collect();
    match *texts {
        [] | ["*"] => return Ok(Origins::Any),
        [one] if is_plain(one) => return Ok(Origins::One(one.into())),
        _ => {}
    }
    let entries = texts
        .iter()
        .enumerate()
        .map(|(at, text)| entry(text).map_err(|message| ConfigError { field: format!("origins.{}", at + 1), message }));
    Ok(Origins::Listed(entries.collect::<Result<_, _>>()?))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte))
}

fn entry(text: &str) -> Result<Entry, String> {
    if text == "*" {
        return Ok(Entry::Any);
    }
    if is_plain(text) {
        return Ok(Entry::Plain(Origin::of(text.as_bytes()).whole.into()));
    }
    let inner = text.strip_prefix('^').unwrap_or(text);
    let inner = inner.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(inner);
    let regex = Regex::new(&format!("^(?:{inner})$")).map_err(|_| format!("'{text}' is not a valid regex"))?;
    Ok(Entry::Pattern { regex, of_host: !text.contains(':') })
}

/// An origin without what does not count: a default port, anything behind the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin<'a> {
    whole: &'a [u8],
    host: &'a [u8],
}

impl<'a> Origin<'a> {
    fn of(text: &'a [u8]) -> Self {
        let split = || {
            let scheme_len = text.windows(3).position(|three| three == b"://")?;
            let (scheme, authority) = (text.get(..scheme_len)?, text.get(scheme_len + 3..)?);
            let end = authority.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(authority.len());
            let authority = authority.get(..end)?;
            let colon = authority.iter().rposition(|&byte| byte == b':');
            // A colon of an IPv6 address stands within brackets.
            let colon = colon.filter(|&at| !authority.get(at..).is_some_and(|rest| rest.contains(&b']')));
            let host = authority.get(..colon.unwrap_or(authority.len()))?;
            let port = colon.and_then(|at| authority.get(at + 1..));
            let is_default = matches!((scheme, port), (b"http", Some(b"80")) | (b"https", Some(b"443")));
            let told = if is_default { host } else { authority };
            (!host.is_empty()).then_some(Self { whole: text.get(..scheme_len + 3 + told.len())?, host })
        };
        split().unwrap_or(Self { whole: text, host: text })
    }
}

impl Entry {
    fn matches(&self, origin: Origin<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Plain(text) => **text == *origin.whole,
            Self::Pattern { regex, of_host: true } => regex.is_match(origin.host),
            Self::Pattern { regex, of_host: false } => regex.is_match(origin.whole),
        }
    }
}

impl Plugin for Cors {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        let origin = view.fields.get(view.source, Known::Origin);
        let is_preflight = view.method == Method::Options && origin.is_some() && view.header(REQUEST_METHOD).is_some();
        if !is_preflight {
            return Verdict::Continue;
        }
        view.notes.numbers[0] = IS_PREFLIGHT;
        if self.preflight_continue {
            return Verdict::Continue;
        }
        let reply = &mut view.reply.fields;
        self.write_origin(reply, &[], origin, Vary::Set);
        let headers = match &self.headers {
            Some(headers) => Some(headers.as_bytes()),
            None => view.fields.get_by_name(view.source, REQUEST_HEADERS),
        };
        if let Some(headers) = headers {
            reply.set_by_name(&[], ALLOW_HEADERS, headers);
        }
        reply.set_by_name(&[], ALLOW_METHODS, self.methods.as_bytes());
        if let Some(max_age) = &self.max_age {
            reply.set_by_name(&[], MAX_AGE, max_age.as_bytes());
        }
        let asks_private = || view.fields.get_by_name(view.source, REQUEST_PRIVATE_NETWORK) == Some(b"true");
        if self.private_network && asks_private() {
            reply.set_by_name(&[], ALLOW_PRIVATE_NETWORK, b"true");
        }
        view.reply.empty(200);
        Verdict::Reply
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        let origin = view.request_fields.get(view.request_source, Known::Origin);
        if view.notes.numbers[0] == IS_PREFLIGHT || (origin.is_none() && !self.allow_origin_absent) {
            return;
        }
        self.write_origin(view.fields, view.source, origin, Vary::Append);
        if let Some(exposed) = &self.exposed_headers {
            view.fields.set_by_name(view.source, EXPOSE_HEADERS, exposed.as_bytes());
        }
    }
}

/// What becomes of a `Vary` that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vary {
    Set,
    Append,
}

impl Cors {
    fn allowed<'a>(&'a self, origin: Option<&'a [u8]>) -> Allowed<'a> {
        match (&self.origins, origin) {
            (Origins::Any, _) => Allowed::Any,
            (Origins::One(one), _) => Allowed::Only(one.as_bytes()),
            (Origins::Listed(_), None) => Allowed::Nobody,
            (Origins::Listed(entries), Some(text)) => {
                let origin = Origin::of(text);
                match entries.iter().find(|entry| entry.matches(origin)) {
                    Some(Entry::Any) => Allowed::Any,
                    Some(_) => Allowed::Only(origin.whole),
                    None => Allowed::Nobody,
                }
            }
        }
    }

    /// Who may read the answer, and whether with credentials.
    fn write_origin(&self, fields: &mut Fields, source: &[u8], origin: Option<&[u8]>, vary: Vary) {
        let write_vary = |fields: &mut Fields| match vary {
            Vary::Set => drop(fields.set_by_name(source, b"vary", b"Origin")),
            Vary::Append => drop(fields.append_by_name(b"vary", b"Origin")),
        };
        if !matches!(self.origins, Origins::Any) {
            write_vary(fields);
        }
        match (self.allowed(origin), origin) {
            (Allowed::Any, Some(origin)) if self.credentials => {
                fields.set_by_name(source, ALLOW_ORIGIN, origin);
                write_vary(fields);
                fields.set_by_name(source, ALLOW_CREDENTIALS, b"true");
                return;
            }
            (Allowed::Any, _) => {
                fields.set_by_name(source, ALLOW_ORIGIN, b"*");
                return;
            }
            (Allowed::Only(text), _) => drop(fields.set_by_name(source, ALLOW_ORIGIN, text)),
            (Allowed::Nobody, _) => drop(fields.remove_by_name(source, ALLOW_ORIGIN)),
        }
        if self.credentials {
            fields.set_by_name(source, ALLOW_CREDENTIALS, b"true");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    /// What the answer to a plain request from that origin says.
    #[track_caller]
    fn told(config: Value, origin: &str) -> Vec<String> {
        let lines = if origin.is_empty() { vec!["GET /p"] } else { vec!["GET /p", origin] };
        let mut exchange = Exchange::new(&lines);
        let plugin = plugin(&KIND, config);
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        exchange.response_head(&*plugin);
        exchange.response_fields()
    }

    #[test]
    fn patterns_are_of_the_whole_origin_or_of_the_host() {
        let allowed = |pattern: &str, origin: &str| {
            let config = json!({ "origins": [pattern, "http://never.test"] });
            let told = told(config, &format!("Origin: {origin}"));
            assert_eq!(told[0], "vary: Origin");
            told.get(1).cloned().unwrap_or_default().replace("Access-Control-Allow-Origin: ", "")
        };
        assert_eq!(allowed("http://.*\\.test", "http://o.test"), "http://o.test");
        assert_eq!(allowed("http://.*\\.test", "http://o.test.evil"), "");
        assert_eq!(allowed("http://.*\\.test", "evil http://o.test"), "");
        assert_eq!(allowed("^(.*\\.)?o\\.test$", "https://a.o.test:8443"), "https://a.o.test:8443");
        assert_eq!(allowed("(.*\\.)?o\\.test", "http://xo.test"), "");
        assert_eq!(allowed("http://o.test:80", "http://o.test"), "http://o.test");
        assert_eq!(allowed("https://o.test", "https://o.test:443/"), "https://o.test");
        assert_eq!(allowed("http://o.test", "http://o.test:81"), "");
        assert_eq!(allowed("*", "null"), "*");
    }

    #[test]
    fn a_single_plain_origin_is_told_to_everybody() {
        let want = ["vary: Origin", "Access-Control-Allow-Origin: http://o.test"];
        assert_eq!(told(json!({ "origins": ["http://o.test"] }), "Origin: http://z.test"), want);
        assert_eq!(told(json!({ "origins": ["http://o.test"] }), ""), want);
    }

    #[test]
    fn credentials_need_an_origin_by_name() {
        let config = json!({ "credentials": true });
        assert_eq!(told(config.clone(), ""), ["Access-Control-Allow-Origin: *"]);
        let want =
            ["Access-Control-Allow-Origin: http://o.test", "vary: Origin", "Access-Control-Allow-Credentials: true"];
        assert_eq!(told(config, "Origin: http://o.test"), want);
    }

    #[test]
    fn a_request_without_origin_may_be_left_alone() {
        assert_eq!(told(json!({ "allow_origin_absent": false }), ""), [""; 0]);
    }

    #[test]
    fn a_preflight_is_answered_or_passed_on_untouched() {
        let lines = [
            "OPTIONS /p",
            "Origin: http://o.test",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Private-Network: true",
        ];
        let mut exchange = Exchange::new(&lines);
        let answering = plugin(&KIND, json!({ "private_network": true, "max_age": 60, "methods": ["GET"] }));
        assert_eq!((exchange.access(&*answering), exchange.reply.status), (Verdict::Reply, 200));
        let want = [
            "Access-Control-Allow-Origin: *",
            "Access-Control-Allow-Methods: GET",
            "Access-Control-Max-Age: 60",
            "Access-Control-Allow-Private-Network: true",
        ];
        assert_eq!(exchange.reply_fields(), want);
        let mut exchange = Exchange::new(&lines);
        let passing = plugin(&KIND, json!({ "preflight_continue": true }));
        assert_eq!(exchange.access(&*passing), Verdict::Continue);
        exchange.response_head(&*passing);
        assert_eq!(exchange.response_fields(), [""; 0]);
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        let (field, message) = refusal(&KIND, json!({ "origins": ["(a"] }));
        assert_eq!((&*field, &*message), ("origins.1", "'(a' is not a valid regex"));
    }
}
