//! The nouns of the Admin API as the operator typed them, and the schema engine that reads their declarations.
//! Owns: the `ENTITIES` table, field declarations, validation, defaults, form inference, schema documents.
//! Never: stores, looks up or imports another folder but `limits` and `stdx`; a plugin's schema comes in by lookup.
//! Always: what an entity may contain is said once, in its `Field` table, and everything else is derived from it.

pub mod acl;
pub mod address;
pub mod basicauth_credential;
pub mod certificate;
pub mod checks;
pub mod coerce;
pub mod complete;
pub mod consumer;
pub mod der;
pub mod document;
pub mod hmacauth_credential;
pub mod jwt_secret;
pub mod key;
pub mod keyauth_credential;
pub mod oauth2;
pub mod path;
pub mod pattern;
pub mod pem;
pub mod plugin;
pub mod route;
mod rules;
pub mod schema;
pub mod service;
pub mod session;
pub mod target;
pub mod transform;
pub mod upstream;
pub mod validate;
pub mod validators;
pub mod vault;
pub mod violation;
pub mod write;

use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::schema::OnDelete;
use crate::entity::schema::Record;
use crate::entity::schema::RecordRule;
use crate::entity::schema::Shorthand;
use crate::entity::transform::Transform;
use crate::entity::violation::Violations;
use crate::strs;
use serde_json::Map;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

/// Every entity, parents before children. Endpoints, storage and schema documents follow from a line here.
pub static ENTITIES: &[&Entity] = &[
    &certificate::CERTIFICATES,
    &certificate::CA_CERTIFICATES,
    &vault::VAULTS,
    &key::KEY_SETS,
    &certificate::SNIS,
    &key::KEYS,
    &service::SERVICES,
    &route::ROUTES,
    &consumer::CONSUMERS,
    &plugin::PLUGINS,
    &upstream::UPSTREAMS,
    &target::TARGETS,
    &keyauth_credential::KEYAUTH_CREDENTIALS,
    &basicauth_credential::BASICAUTH_CREDENTIALS,
    &hmacauth_credential::HMACAUTH_CREDENTIALS,
    &jwt_secret::JWT_SECRETS,
    &acl::ACLS,
    &oauth2::OAUTH2_CREDENTIALS,
    &oauth2::OAUTH2_TOKENS,
    &oauth2::OAUTH2_AUTHORIZATION_CODES,
    &session::SESSIONS,
    &session::SESSION_METADATAS,
];

/// The entity of a storage name.
pub fn find(name: &str) -> Option<&'static Entity> {
    ENTITIES.iter().copied().find(|entity| entity.name == name)
}

/// The entity itself, or for routes the one that the node's router flavour declares.
pub fn in_flavor(entity: &'static Entity, routes: &'static Entity) -> &'static Entity {
    if entity.name == routes.name { routes } else { entity }
}

/// One kind of row.
#[derive(Debug)]
pub struct Entity {
    /// Storage name (`keyauth_credentials`).
    pub name: &'static str,
    /// First path segment of the collection (`key-auths`); `None`: reachable below a parent only.
    pub collection: Option<&'static str>,
    /// Path segment below a parent (`key-auth`); empty: the entity has no paths at all.
    pub segment: &'static str,
    /// The field that can stand for the id in a path; empty: only the id can.
    pub path_key: &'static str,
    /// The field that can stand for the id below the first parent, where there is no path key.
    pub child_key: &'static str,
    /// The path key of another entity names the row that it refers to: that entity, and its field that refers.
    pub named_by: Option<(&'static str, &'static str)>,
    /// Fields of other entities, as dotted paths, that list ids of rows: while listed, a row cannot be deleted.
    pub listed_in: &'static [(&'static str, &'static str)],
    /// The rows that a row refers to are not shown below it.
    pub hides_parents: bool,
    pub record: &'static Record,
    /// Groups of fields whose values together no two rows share; null counts as a value.
    pub unique_together: &'static [&'static [&'static str]],
    /// Rewrites input before it is validated.
    pub normalise: Option<fn(&mut Map<String, Value>)>,
    /// What is stored in place of values that were sent.
    pub transform: Option<&'static Transform>,
    /// Fields and checks that depend on a value in the row.
    pub variant: Option<VariantOf>,
    /// What the id of a declared row without one follows from.
    pub declared_id: DeclaredId,
    /// Rows may expire; `ttl` is an option of writes and shown in output.
    pub ttl: bool,
    /// Rows are made while requests are served, not by whoever configures.
    pub made_by_requests: bool,
    /// Exists only when this plugin is loaded.
    pub needs_plugin: Option<&'static str>,
}

/// What generated ids follow from in declarative configuration (spec/admin-api.md section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredId {
    /// The value of the path key.
    Key,
    /// The value of the path key, behind the name of the entity.
    QualifiedKey,
    /// The values of the first group that is unique together.
    Together,
    /// Nothing.
    Random,
}

/// Decides the variant of a row, or says why there is none: then nothing else is reported.
pub type VariantOf = fn(&Map<String, Value>, PluginLookup<'_>) -> Result<Variant, Violations>;

/// What differs in one variant of an entity: fields that replace those of the same name, additional checks.
#[derive(Clone, Debug, Default)]
pub struct Variant {
    pub overrides: Vec<Field>,
    pub checks: &'static [EntityCheck],
}

impl Variant {
    pub fn of(overrides: &[Field], checks: &'static [EntityCheck]) -> Variant {
        Variant { overrides: overrides.to_vec(), checks }
    }
}

impl Entity {
    const fn new(name: &'static str, path_key: &'static str, record: &'static Record) -> Entity {
        Entity {
            name,
            collection: Some(name),
            segment: name,
            path_key,
            child_key: "",
            named_by: None,
            listed_in: &[],
            hides_parents: false,
            record,
            unique_together: &[],
            normalise: None,
            transform: None,
            variant: None,
            declared_id: DeclaredId::Key,
            ttl: false,
            made_by_requests: false,
            needs_plugin: None,
        }
    }
    const fn paths(mut self, collection: &'static str, segment: &'static str) -> Entity {
        self.collection = Some(collection);
        self.segment = segment;
        self
    }
    const fn named_by(mut self, entity: &'static str, field: &'static str) -> Entity {
        self.named_by = Some((entity, field));
        self
    }
    const fn listed_in(mut self, fields: &'static [(&'static str, &'static str)]) -> Entity {
        self.listed_in = fields;
        self
    }
    const fn hides_parents(mut self) -> Entity {
        self.hides_parents = true;
        self
    }
    const fn below_parent_only(mut self) -> Entity {
        self.collection = None;
        self
    }
    const fn without_paths(self) -> Entity {
        Entity { collection: None, segment: "", ..self }
    }
    const fn child_key(mut self, field: &'static str) -> Entity {
        self.child_key = field;
        self
    }
    const fn transform(mut self, transform: &'static Transform) -> Entity {
        self.transform = Some(transform);
        self
    }
    const fn unique_together(mut self, groups: &'static [&'static [&'static str]]) -> Entity {
        self.unique_together = groups;
        self.declared_id = DeclaredId::Together;
        self
    }
    const fn normalise(mut self, run: fn(&mut Map<String, Value>)) -> Entity {
        self.normalise = Some(run);
        self
    }
    const fn variant(mut self, run: VariantOf) -> Entity {
        self.variant = Some(run);
        self
    }
    const fn declared_id(mut self, from: DeclaredId) -> Entity {
        self.declared_id = from;
        self
    }
    const fn with_ttl(mut self) -> Entity {
        self.ttl = true;
        self
    }
    const fn made_by_requests(mut self) -> Entity {
        self.made_by_requests = true;
        self
    }
    const fn needs_plugin(mut self, name: &'static str) -> Entity {
        self.needs_plugin = Some(name);
        self
    }

    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.record.fields.iter().find(|field| field.name == name)
    }

    pub fn has_tags(&self) -> bool {
        self.field("tags").is_some()
    }

    /// Fields that refer to other entities, in declaration order.
    pub fn references(&self) -> impl Iterator<Item = Reference> + use<> {
        self.record.fields.iter().filter_map(|field| match field.kind {
            Kind::Foreign { entity, on_delete } => Some(Reference { field: field.name, entity, on_delete }),
            _ => None,
        })
    }
}

/// A field that refers to another entity.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    pub field: &'static str,
    pub entity: &'static str,
    pub on_delete: OnDelete,
}

/// One changed row, as the compiler of the data plane sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// Storage name (`routes`, `keyauth_credentials`).
    pub entity: &'static str,
    pub id: Uuid,
    /// The whole new row with every field present (null when unset); `None`: deleted, unless there is a `text`.
    pub row: Option<Map<String, Value>>,
    /// The row as the store keeps it, canonical JSON that whoever wants it may share.
    pub text: Option<Arc<str>>,
    /// Unix milliseconds from which the row is as good as deleted; `None`: never.
    pub expires_at_ms: Option<u64>,
}

impl RowChange {
    /// The change with its row as a value, also when only the text was at hand. Rows are many and their values large, so
    /// whoever goes through all of them asks for one at a time.
    pub fn parsed(&self) -> Cow<'_, RowChange> {
        match (&self.row, &self.text) {
            (None, Some(text)) => {
                let row =
                    serde_json::from_str(text).expect("texts are checked when loaded and serialised when written");
                Cow::Owned(RowChange { row: Some(row), ..self.clone() })
            }
            _ => Cow::Borrowed(self),
        }
    }
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
    /// Checks on the whole plugin; field names are full paths (`config.minute`).
    pub checks: &'static [EntityCheck],
    /// The `protocols` field of plugins of this kind: one of `PROTOCOLS_HTTP`, `PROTOCOLS_ANY` or the plugin's own.
    pub protocols: Field,
    pub consumer_scope: bool,
    pub service_scope: bool,
    pub route_scope: bool,
}

const HTTP_PROTOCOL: Field = Field::string("").one_of(strs!["grpc", "grpcs", "http", "https"]);
pub(crate) const ANY_PROTOCOL: Field =
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
    /// A rule on `config` as a whole; its error stands under `config`.
    pub const fn config_rule(mut self, run: RecordRule) -> PluginSchema {
        self.config.custom = Some(run);
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
pub type PluginLookup<'a> = &'a (dyn Fn(&str) -> Option<&'static PluginSchema> + Sync);
