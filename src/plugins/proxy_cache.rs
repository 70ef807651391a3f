//! HOT: a hit costs a SHA-256 over the text of its key, a lookup in the core's own table, and a copy of the fields.
//! proxy-cache: responses are kept in memory and answer later requests (spec/plugins.md part E).
//! Never: keeps what did not arrive whole, what the gateway said itself, or more than the cache's bound.

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::checks::Custom;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::at_path;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::http::cache_control::Directives;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::cache::Begun;
use crate::plugins::cache::Collected;
use crate::plugins::cache::Key;
use crate::plugins::cache::Stored;
use crate::plugins::cache_key::KeyRules;
use crate::plugins::settings;
use crate::plugins::view::BodyUse;
use crate::plugins::view::PieceView;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::stdx::decimal::Decimal;
use crate::strs;

const CODE: Field = Field::integer("").between(100, 900);
const METHOD: Field = Field::string("").one_of(strs!["HEAD", "GET", "POST", "PATCH", "PUT"]);
const TEXT: Field = Field::string("");

/// The one dictionary that there is; its size is `mem_cache_size`.
const DICTIONARY: &str = "kong_db_cache";

const MEMORY: Record = Record::of(&[Field::string("dictionary_name").required().default_str(DICTIONARY)]);
const RESPONSE_HEADERS: Record = Record::of(&[
    Field::boolean("age").default_bool(true),
    Field::boolean("X-Cache-Status").default_bool(true),
    Field::boolean("X-Cache-Key").default_bool(true),
]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "proxy-cache",
        &[
            Field::array("response_code", &CODE).required().len_min(1).default_ints(&[200, 301, 404]),
            Field::array("request_method", &METHOD).required().default_strs(&["GET", "HEAD"]),
            Field::array("content_type", &TEXT).required().default_strs(&["text/plain", "application/json"]),
            Field::integer("cache_ttl").default_int(300).gt(0),
            Field::string("strategy").required().one_of(strs!["memory"]),
            Field::boolean("cache_control").required().default_bool(false),
            Field::boolean("ignore_uri_case").optional().default_bool(false),
            Field::integer("storage_ttl"),
            Field::record("memory", &MEMORY).required(),
            Field::array("vary_query_params", &TEXT),
            Field::array("vary_headers", &TEXT),
            Field::record("response_headers", &RESPONSE_HEADERS).required(),
        ],
    )
    .protocols(PROTOCOLS_ANY)
    .checks(&[EntityCheck::Custom(Custom { sources: &["config"], run: names_the_dictionary })]),
    priority: 100,
    build,
};

struct ProxyCache {
    key: KeyRules,
    codes: Box<[u16]>,
    methods: Box<[Method]>,
    types: Box<[MediaType]>,
    ttl_s: u64,
    /// Whether `Cache-Control` of requests and responses is obeyed.
    obeys: bool,
    storage_ttl_s: Option<u64>,
    shows_age: bool,
    shows_status: bool,
    shows_key: bool,
}

fn names_the_dictionary(plugin: &Map<String, Value>) -> Result<(), String> {
    match at_path(plugin, "config.memory.dictionary_name").as_str() {
        Some(name) if name != DICTIONARY => Err(format!("missing shared dict '{name}'")),
        _ => Ok(()),
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let boxed = |name: &str| settings::texts(config, name).map(Box::from).collect();
    let whole = |name: &str| config.get(name).and_then(Value::as_u64);
    let shows = |name: &str| {
        let shown = config.get("response_headers").and_then(|headers| headers.get(name));
        shown.and_then(Value::as_bool).unwrap_or(true)
    };
    let codes = config.get("response_code").and_then(Value::as_array).into_iter().flatten();
    Ok(Box::new(ProxyCache {
        key: KeyRules {
            ignores_case: settings::flag(config, "ignore_uri_case"),
            arguments: boxed("vary_query_params"),
            headers: boxed("vary_headers"),
        },
        codes: codes.filter_map(|code| u16::try_from(code.as_u64()?).ok()).collect(),
        methods: settings::texts(config, "request_method").map(|name| Method::of(name.as_bytes())).collect(),
        types: settings::texts(config, "content_type").filter_map(MediaType::parse).collect(),
        ttl_s: whole("cache_ttl").unwrap_or(300),
        obeys: settings::flag(config, "cache_control"),
        storage_ttl_s: whole("storage_ttl").filter(|seconds| *seconds > 0),
        shows_age: shows("age"),
        shows_status: shows("X-Cache-Status"),
        shows_key: shows("X-Cache-Key"),
    }))
}

/// The plugin's numbers: whether the response is to be kept, and the purges that were counted before.
const WANTED: usize = 0;
const PURGES: usize = 1;

const STATUS: &[u8] = b"X-Cache-Status";

impl Plugin for ProxyCache {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let asked = match self.obeys {
            true => Directives::of(view.fields.values(view.source, Known::CacheControl)),
            false => Directives::default(),
        };
        let is_debugged = view.fields.has(Known::KongDebug);
        let bypasses = asked.no_store || asked.no_cache || (self.obeys && view.fields.has(Known::Authorization));
        if bypasses || !self.methods.contains(&view.method) {
            self.tell_status(view, is_debugged, b"Bypass");
            return Verdict::Continue;
        }
        let cache = &view.core.cache;
        let key = self.key.key(view, &mut cache.scratch.borrow_mut());
        if self.shows_key || is_debugged {
            view.reply.fields.set_by_name(&[], b"X-Cache-Key", &hex(&key));
        }
        let now_s = view.now_unix_ms / 1000;
        // Before the search: a purge meanwhile counts as one that came later.
        let purges = cache.shared().purges();
        let found = cache.find(&key, now_s);
        let status: &[u8] = match &found {
            Some(stored) if self.is_fresh(stored, &asked, now_s) => b"Hit",
            Some(_) => b"Refresh",
            None if asked.only_if_cached => {
                view.reply.gateway(504, "The upstream server is timing out");
                return Verdict::Reply;
            }
            None => b"Miss",
        };
        if let (b"Hit", Some(stored)) = (status, found) {
            let age_s = now_s.saturating_sub(stored.at_s);
            view.reply.stored(stored);
            if self.shows_age || is_debugged {
                view.reply.fields.set_by_name(&[], b"age", Decimal::of(age_s).bytes());
            }
            self.tell_status(view, is_debugged, status);
            return Verdict::Reply;
        }
        self.tell_status(view, is_debugged, status);
        view.notes.numbers[WANTED] = 1;
        view.notes.numbers[PURGES] = purges;
        view.notes.bytes.clear();
        view.notes.bytes.extend_from_slice(&key);
        Verdict::Continue
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        if view.notes.numbers[WANTED] == 0 {
            return;
        }
        let collected = self.lifetime_s(view).and_then(|ttl_s| self.begin(view, ttl_s));
        match collected {
            Some(collected) => {
                view.notes.body = BodyUse::Pieces;
                view.notes.kept = Some(Box::new(collected));
            }
            None if self.shows_status || view.request_fields.has(Known::KongDebug) => {
                view.fields.set_by_name(view.source, STATUS, b"Bypass");
            }
            None => {}
        }
    }

    fn response_piece(&self, view: &mut PieceView<'_>) {
        let Some(kept) = view.notes.kept.as_mut() else { return };
        let fits = kept.downcast_mut::<Collected>().is_some_and(|collected| collected.piece(view.piece));
        if (!fits || view.last)
            && let Some(kept) = view.notes.kept.take()
            && let Ok(collected) = kept.downcast::<Collected>()
            && fits
        {
            collected.finish();
        }
    }
}

impl ProxyCache {
    fn tell_status(&self, view: &mut View<'_>, is_debugged: bool, status: &[u8]) {
        if self.shows_status || is_debugged {
            view.reply.fields.set_by_name(&[], STATUS, status);
        }
    }

    /// Whether the client takes a response of that age.
    fn is_fresh(&self, stored: &Stored, asked: &Directives, now_s: u64) -> bool {
        let age_s = now_s.saturating_sub(stored.at_s);
        if !self.obeys {
            return age_s <= self.ttl_s;
        }
        asked.max_age_s.is_none_or(|most_s| age_s <= most_s)
            && asked.max_stale_s.is_none_or(|most_s| age_s.saturating_sub(stored.ttl_s) <= most_s)
            && asked.min_fresh_s.is_none_or(|least_s| stored.ttl_s.saturating_sub(age_s) >= least_s)
    }

    /// How long the response is fresh; `None`: it is not to be kept.
    fn lifetime_s(&self, view: &ResponseView<'_>) -> Option<u64> {
        if !view.from_upstream || view.drop_body || !self.codes.contains(&view.status) {
            return None;
        }
        if view.fields.count(Known::ContentType) != 1 {
            return None;
        }
        let content_type = view.fields.get(view.source, Known::ContentType)?;
        let content_type = MediaType::parse(std::str::from_utf8(content_type).ok()?)?;
        if !self.types.iter().any(|wanted| wanted.takes(&content_type)) {
            return None;
        }
        if !self.obeys {
            return Some(self.ttl_s);
        }
        let told = Directives::of(view.fields.values(view.source, Known::CacheControl));
        if told.private || told.no_store || told.no_cache {
            return None;
        }
        let ttl_s = told.s_maxage_s.or(told.max_age_s).or_else(|| {
            // Of several the last counts.
            let expires = view.fields.values_by_name(view.source, b"expires").last()?;
            let at = httpdate::parse_http_date(std::str::from_utf8(expires).ok()?).ok()?;
            let at_s = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            at_s.checked_sub(view.now_unix_ms / 1000)
        });
        ttl_s.filter(|seconds| *seconds > 0)
    }

    /// Begins to keep a response; `None`: it is known to be too large.
    fn begin(&self, view: &ResponseView<'_>, ttl_s: u64) -> Option<Collected> {
        let cache = view.core.cache.shared();
        let is_head = view.method == Method::Head;
        let told = view.fields.get(view.source, Known::ContentLength);
        let told = told.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        if !is_head && told.is_some_and(|bytes| bytes > cache.entry_bytes_max() as u64) {
            return None;
        }
        let key: Key = view.notes.bytes.as_slice().try_into().ok()?;
        let begun = Begun {
            key,
            purges: view.notes.numbers[PURGES],
            status: view.status,
            body_bytes_told: told.filter(|_| is_head),
            at_s: view.now_unix_ms / 1000,
            ttl_s,
            kept_s: self.storage_ttl_s.unwrap_or(ttl_s),
        };
        let mut collected = Collected::new(cache.clone(), begun);
        for field in view.fields.iter(view.source).filter(|field| is_kept(field.known, field.name)) {
            collected.field(field.name, field.value);
        }
        Some(collected)
    }
}

/// Whether a field is for later clients, too. Those of one connection are not, nor what this client was told of itself.
fn is_kept(known: Known, name: &[u8]) -> bool {
    const OF_ONE: [&str; 4] = ["proxy-authenticate", "proxy-authorization", "keep-alive", "trailers"];
    let of_gateway = matches!(
        known,
        Known::Connection
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::ContentLength
            | Known::XKongRequestId
            | Known::XKongUpstreamLatency
            | Known::XKongProxyLatency
            | Known::XKongUpstreamStatus
    );
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    let of_cache = is("x-cache-status") || is("x-cache-key");
    let tells_remaining = name.windows(19).any(|part| part.eq_ignore_ascii_case(b"ratelimit-remaining"));
    !of_gateway && !of_cache && !tells_remaining && !OF_ONE.iter().any(|other| is(other))
}

fn hex(key: &Key) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(key) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    text
}

/// A media type with its parameters, lower-case but for the parameters' values.
#[derive(Debug, PartialEq, Eq)]
struct MediaType {
    kind: Box<str>,
    subtype: Box<str>,
    /// In the order of their names.
    parameters: Box<[(Box<str>, Box<str>)]>,
}

impl MediaType {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        let mut parameters = Vec::new();
        for part in parts.filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=')?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            parameters.push((name.trim().to_ascii_lowercase().into(), value.into()));
        }
        parameters.sort();
        let lower = |text: &str| text.trim().to_ascii_lowercase().into();
        Some(Self { kind: lower(kind), subtype: lower(subtype), parameters: parameters.into() })
    }

    /// Whether a response of that type is one of those wanted. `*` stands for any type or subtype, parameters are equal.
    fn takes(&self, other: &Self) -> bool {
        let fits = |wanted: &str, given: &str| wanted == "*" || wanted == given;
        fits(&self.kind, &other.kind) && fits(&self.subtype, &other.subtype) && self.parameters == other.parameters
    }
}

#[cfg(test)]
#[path = "proxy_cache_tests.rs"]
mod tests;
