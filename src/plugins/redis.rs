//! The Redis server that a configuration names, and the counting that is asked of it (spec/plugins.md A.8, C.1).
//! Never: talks to one.

use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Meaning;
use crate::entity::schema::Record;
use crate::entity::schema::Shorthand;
use crate::limits;
use crate::plugins::settings;

/// A server and how to talk to it. Equal ones share their connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    pub host: Box<str>,
    pub port: u16,
    pub timeout_ms: u64,
    pub username: Option<Box<str>>,
    pub password: Option<Box<str>>,
    pub database: i64,
    pub tls: bool,
    pub tls_verify: bool,
    pub server_name: Option<Box<str>>,
}

impl RedisServer {
    /// The server of a `redis` record; `None`: it names no host.
    pub fn of(config: &Map<String, Value>) -> Option<Self> {
        let redis = config.get("redis")?.as_object()?;
        let text = |name: &str| settings::text(redis, name).filter(|text| !text.is_empty()).map(Box::from);
        let number = |name: &str| redis.get(name).and_then(Value::as_i64);
        Some(Self {
            host: text("host")?,
            port: number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(6379),
            timeout_ms: number("timeout").map_or(2000, |ms| ms.max(1) as u64),
            username: text("username"),
            password: text("password"),
            database: number("database").unwrap_or(0),
            tls: settings::flag(redis, "ssl"),
            tls_verify: settings::flag(redis, "ssl_verify"),
            server_name: text("server_name"),
        })
    }
}

impl RedisServer {
    /// How long a request waits for an answer: for a connection and for the answer itself.
    pub fn patience_ms(&self) -> u64 {
        self.timeout_ms.saturating_mul(2).saturating_add(limits::REDIS_LATE_MS)
    }
}

/// Counting to be done by a Redis server, in one round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisCounting {
    pub server: Arc<RedisServer>,
    pub counters: Vec<RedisCounter>,
}

/// One counter: raised by `by` (0: only read), and gone after a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisCounter {
    pub key: String,
    pub by: u64,
    pub expires: Expires,
}

/// When a counter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// So many seconds after its first use.
    AfterFirstUse { seconds: u64 },
    /// At that second since 1970.
    At { unix_s: u64 },
}

/// What the policy `redis` needs, for [`crate::entity::PluginSchema::checks`].
pub const DEMANDS_HOST: EntityCheck = demands("config.redis.host");
pub const DEMANDS_PORT: EntityCheck = demands("config.redis.port");
pub const DEMANDS_TIMEOUT: EntityCheck = demands("config.redis.timeout");

const fn demands(field: &'static str) -> EntityCheck {
    EntityCheck::conditional("config.policy", Match::Eq(Literal::Str("redis")), field, Match::Required)
}

pub const REDIS: Field = Field::record("redis", &RECORD).required();

static RECORD: Record = Record::of(&[
    Field::string("host"),
    Field::integer("port").between(0, 65_535).default_int(6379),
    Field::integer("timeout").between(0, 2_147_483_646).default_int(2000),
    Field::string("username").referenceable(),
    Field::string("password").referenceable().encrypted().len_min(0),
    Field::integer("database").default_int(0),
    Field::boolean("ssl").optional().default_bool(false),
    Field::boolean("ssl_verify").optional().default_bool(false),
    Field::string("server_name").optional(),
]);

/// The deprecated flat names of a plugin's `redis` fields.
macro_rules! redis_aliases {
    ($plugin:literal) => {
        &[
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::string("redis_host"),
                &["redis", "host"],
                concat!($plugin, ": config.redis_host is deprecated, please use config.redis.host instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::integer("redis_port"),
                &["redis", "port"],
                concat!($plugin, ": config.redis_port is deprecated, please use config.redis.port instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::string("redis_password").len_min(0),
                &["redis", "password"],
                concat!($plugin, ": config.redis_password is deprecated, please use config.redis.password instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::string("redis_username"),
                &["redis", "username"],
                concat!($plugin, ": config.redis_username is deprecated, please use config.redis.username instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::boolean("redis_ssl"),
                &["redis", "ssl"],
                concat!($plugin, ": config.redis_ssl is deprecated, please use config.redis.ssl instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::boolean("redis_ssl_verify"),
                &["redis", "ssl_verify"],
                concat!($plugin, ": config.redis_ssl_verify is deprecated, please use config.redis.ssl_verify instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::string("redis_server_name"),
                &["redis", "server_name"],
                concat!(
                    $plugin,
                    ": config.redis_server_name is deprecated, please use config.redis.server_name instead"
                ),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::integer("redis_timeout"),
                &["redis", "timeout"],
                concat!($plugin, ": config.redis_timeout is deprecated, please use config.redis.timeout instead"),
            ),
            $crate::plugins::redis::alias(
                $crate::entity::schema::Field::integer("redis_database"),
                &["redis", "database"],
                concat!($plugin, ": config.redis_database is deprecated, please use config.redis.database instead"),
            ),
        ]
    };
}
pub(super) use redis_aliases;

/// A deprecated name.
pub const fn alias(field: Field, path: &'static [&'static str], message: &'static str) -> Shorthand {
    Shorthand { field, meaning: Meaning::Alias { path, message, removal_in_version: "4.0" } }
}
