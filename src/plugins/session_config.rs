//! How sessions are configured (spec/plugins.md B.8).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::http::fields::is_token;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::cookie::CookieRules;
use crate::plugins::session;
use crate::plugins::session_state::Timeouts;
use crate::plugins::settings;
use crate::stdx::secret::Hidden;
use crate::strs;

const METHOD: Field = Field::string("").one_of(strs!["GET", "POST", "DELETE"]);
const SHOWN: Field = Field::string("").one_of(strs![
    "id",
    "audience",
    "subject",
    "timeout",
    "idling-timeout",
    "rolling-timeout",
    "absolute-timeout"
]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "session",
        &[
            Field::string("secret").optional().auto(Auto::RandomText).encrypted().referenceable(),
            Field::string("storage").optional().default_str("cookie").one_of(strs!["cookie", "kong"]),
            Field::string("audience").optional().default_str("default"),
            Field::number("idling_timeout").optional().default_int(900),
            Field::number("rolling_timeout").optional().default_int(3600),
            Field::number("absolute_timeout").optional().default_int(86_400),
            Field::number("stale_ttl").optional().default_int(10),
            Field::string("cookie_name").optional().default_str("session"),
            Field::string("cookie_path").optional().default_str("/"),
            Field::string("cookie_domain").optional(),
            Field::string("cookie_same_site")
                .optional()
                .default_str("Strict")
                .one_of(strs!["Strict", "Lax", "None", "Default"]),
            Field::boolean("cookie_http_only").default_bool(true),
            Field::boolean("cookie_secure").default_bool(true),
            Field::boolean("remember").required().default_bool(false),
            Field::string("remember_cookie_name").optional().default_str("remember"),
            Field::number("remember_rolling_timeout").optional().default_int(604_800),
            Field::number("remember_absolute_timeout").optional().default_int(2_592_000),
            Field::set("response_headers", &SHOWN),
            Field::set("request_headers", &SHOWN),
            Field::boolean("read_body_for_logout").required().default_bool(false),
            Field::set("logout_methods", &METHOD).default_strs(&["POST", "DELETE"]),
            Field::string("logout_query_arg").optional().default_str("session_logout"),
            Field::string("logout_post_arg").optional().default_str("session_logout"),
            Field::boolean("hash_subject").required().default_bool(false),
            Field::boolean("store_metadata").required().default_bool(false),
        ],
    )
    .no_consumer(),
    priority: 1900,
    build: session::build,
};

/// A cookie and how long what it says counts.
pub(super) struct Kept {
    pub cookie: CookieRules,
    pub timeouts: Timeouts,
    /// What it is sealed for: its name and the audience, so that no cookie passes for another.
    pub purpose: Box<[u8]>,
    /// Whether the client keeps it when it ends.
    pub outlives_client: bool,
}

/// What header fields may tell of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Id,
    Audience,
    Subject,
    Timeout,
    IdlingTimeout,
    RollingTimeout,
    AbsoluteTimeout,
}

impl Shown {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "audience" => Self::Audience,
            "subject" => Self::Subject,
            "timeout" => Self::Timeout,
            "idling-timeout" => Self::IdlingTimeout,
            "rolling-timeout" => Self::RollingTimeout,
            "absolute-timeout" => Self::AbsoluteTimeout,
            _ => return None,
        })
    }

    /// The field that tells it.
    pub fn header(self) -> &'static str {
        match self {
            Self::Id => "Session-Id",
            Self::Audience => "Session-Audience",
            Self::Subject => "Session-Subject",
            Self::Timeout => "Session-Timeout",
            Self::IdlingTimeout => "Session-Idling-Timeout",
            Self::RollingTimeout => "Session-Rolling-Timeout",
            Self::AbsoluteTimeout => "Session-Absolute-Timeout",
        }
    }
}

/// What a configuration comes to.
pub(super) struct Config {
    /// Whether sessions are kept in the store, and cookies only name them.
    pub keeps_rows: bool,
    pub own: Kept,
    pub remembered: Option<Kept>,
    pub audience: Box<str>,
    /// How long a session lives on under an id that it no longer has.
    pub stale_ttl_s: u64,
    pub request_headers: Box<[Shown]>,
    pub response_headers: Box<[Shown]>,
    pub logout_methods: Box<[Box<str>]>,
    pub logout_query_arg: Option<Box<str>>,
    /// With it bodies are read.
    pub logout_post_arg: Option<Box<str>>,
    pub hashes_subject: bool,
    pub stores_metadata: bool,
}

impl Config {
    /// The secret, and the rest.
    ///
    /// # Errors
    /// A secret that is not there, or something that cannot stand in a cookie.
    pub fn of(config: &Map<String, Value>) -> Result<(Hidden, Self), ConfigError> {
        let secret = settings::secret(config, "secret")?;
        if secret.is_empty() {
            return Err(wrong("secret", "sessions need a secret; leave it out to get a random one"));
        }
        let seconds = |name: &str| settings::number(config, name).map_or(0, |seconds| seconds.max(0.0) as u64);
        let text = |name: &str| settings::text(config, name).filter(|text| !text.is_empty()).map(Box::<str>::from);
        let shown = |name: &str| settings::texts(config, name).filter_map(Shown::of).collect();
        let audience = text("audience").unwrap_or_default();
        let attributes = attributes(config)?;
        let kept = |name: &str, timeouts, outlives_client| {
            let cookie = settings::text(config, name).unwrap_or_default();
            if !is_token(cookie.as_bytes()) {
                return Err(wrong(name, "a cookie has a name of letters, digits and some punctuation"));
            }
            let purpose = [cookie.as_bytes(), b"\0", audience.as_bytes()].concat().into();
            let cookie = CookieRules { name: cookie.into(), attributes: attributes.as_str().into() };
            Ok(Kept { cookie, timeouts, purpose, outlives_client })
        };
        let timeouts = Timeouts {
            idling_s: seconds("idling_timeout"),
            rolling_s: seconds("rolling_timeout"),
            absolute_s: seconds("absolute_timeout"),
        };
        let remember = Timeouts {
            idling_s: 0,
            rolling_s: seconds("remember_rolling_timeout"),
            absolute_s: seconds("remember_absolute_timeout"),
        };
        let remembers = settings::flag(config, "remember");
        let own = kept("cookie_name", timeouts, false)?;
        let remembered = remembers.then(|| kept("remember_cookie_name", remember, true)).transpose()?;
        if remembered.as_ref().is_some_and(|kept| kept.cookie.name == own.cookie.name) {
            return Err(wrong("remember_cookie_name", "two cookies cannot share a name"));
        }
        let config = Self {
            keeps_rows: settings::text(config, "storage") == Some("kong"),
            own,
            remembered,
            audience,
            stale_ttl_s: seconds("stale_ttl"),
            request_headers: shown("request_headers"),
            response_headers: shown("response_headers"),
            logout_methods: settings::texts(config, "logout_methods").map(Box::from).collect(),
            logout_query_arg: text("logout_query_arg"),
            logout_post_arg: text("logout_post_arg").filter(|_| settings::flag(config, "read_body_for_logout")),
            hashes_subject: settings::flag(config, "hash_subject"),
            stores_metadata: settings::flag(config, "store_metadata"),
        };
        Ok((Hidden::new(secret.as_bytes()), config))
    }
}

/// What stands behind every cookie.
fn attributes(config: &Map<String, Value>) -> Result<String, ConfigError> {
    let mut attributes = String::new();
    for (field, attribute) in [("cookie_path", "Path"), ("cookie_domain", "Domain"), ("cookie_same_site", "SameSite")] {
        let Some(text) = settings::text(config, field).filter(|text| !text.is_empty()) else { continue };
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
            return Err(wrong(field, "it cannot stand in a cookie"));
        }
        if (field, text) != ("cookie_same_site", "Default") {
            attributes += &format!("; {attribute}={text}");
        }
    }
    for (field, attribute) in [("cookie_secure", "; Secure"), ("cookie_http_only", "; HttpOnly")] {
        if settings::flag(config, field) {
            attributes += attribute;
        }
    }
    Ok(attributes)
}

fn wrong(field: &str, message: &str) -> ConfigError {
    ConfigError { field: field.to_owned(), message: message.to_owned() }
}
