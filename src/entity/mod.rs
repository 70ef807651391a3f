//! The nouns of the Admin API as the operator typed them, and the schema engine that reads their declarations.
//! Owns: the `ENTITIES` table, field declarations, validation, defaults, form inference, schema documents.
//! Never: stores, looks up or imports another folder but `limits` and `stdx`; a plugin's schema comes in by lookup.
//! Always: what an entity may contain is said once, in its `Field` table, and everything else is derived from it.

pub mod checks;
pub mod schema;
pub mod validators;

use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::schema::Shorthand;
use crate::strs;
use uuid::Uuid;

/// One changed row, as the compiler of the data plane sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Storage name (`routes`, `keyauth_credentials`).
    pub entity: &'static str,
    pub id: Uuid,
    /// The whole new row with every field present (null when unset); `None`: deleted.
    pub row: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a plugin declares to the Admin API; embedded in the plugin's table entry.
///
/// ```ignore
/// PluginSchema::new("key-auth", &[Field::array("key_names", &NAME).required().default_strs(&["apikey"])]).no_consumer()
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PluginSchema {
    pub name: &'static str,
    /// Fields of `config`, with the deprecated names of some as shorthands.
    pub config: Record,
    /// Field names are full paths (`config.minute`).
    pub checks: &'static [EntityCheck],
    /// The `protocols` field of plugins of this kind: one of `PROTOCOLS_HTTP`, `PROTOCOLS_ANY` or the plugin's own.
    pub protocols: Field,
    pub consumer_scope: bool,
    pub service_scope: bool,
    pub route_scope: bool,
}

const HTTP_PROTOCOL: Field = Field::string("").one_of(strs!["grpc", "grpcs", "http", "https"]);
const ANY_PROTOCOL: Field =
    Field::string("").one_of(strs!["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]);
/// Plugins that understand HTTP only.
pub const PROTOCOLS_HTTP: Field =
    Field::set("protocols", &HTTP_PROTOCOL).required().default_strs(&["grpc", "grpcs", "http", "https"]);
/// Plugins that also work on byte streams.
pub const PROTOCOLS_ANY: Field =
    Field::set("protocols", &ANY_PROTOCOL).required().default_strs(&["grpc", "grpcs", "http", "https"]);

impl PluginSchema {
    /// A plugin for HTTP protocols that may be set on any scope.
    pub const fn new(name: &'static str, config: &'static [Field]) -> PluginSchema {
        PluginSchema {
            name,
            config: Record::of(config),
            checks: &[],
            protocols: PROTOCOLS_HTTP,
            consumer_scope: true,
            service_scope: true,
            route_scope: true,
        }
    }
    /// Deprecated names inside `config`.
    pub const fn aliases(mut self, aliases: &'static [Shorthand]) -> PluginSchema {
        self.config.shorthands = aliases;
        self
    }
    pub const fn checks(mut self, checks: &'static [EntityCheck]) -> PluginSchema {
        self.checks = checks;
        self
    }
    pub const fn protocols(mut self, field: Field) -> PluginSchema {
        self.protocols = field;
        self
    }
    /// May not be set on a consumer.
    pub const fn no_consumer(mut self) -> PluginSchema {
        self.consumer_scope = false;
        self
    }
    /// May be set on nothing: global only.
    pub const fn global_only(mut self) -> PluginSchema {
        self.consumer_scope = false;
        self.service_scope = false;
        self.route_scope = false;
        self
    }
}

/// Finds the schema of a loaded plugin by name.
pub type PluginLookup<'a> = &'a dyn Fn(&str) -> Option<&'static PluginSchema>;
