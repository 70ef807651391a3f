//! HOT: a phase is a plain function over a view; nothing is parsed, looked up by name or allocated per request.
//! What else happens to a request?
//! Owns: the plugin trait, the table of plugins, which configurations run for a request ([`chain`]), what a plugin may see
//! and change ([`view`]), consumers and credentials ([`directory`]). Never: does I/O, reads time, holds a lock.
//! Always: configurations are compiled when they are applied; one that does not compile is refused before it is stored.
//!
//! spec/plugins.md part A.

pub mod ask;
pub mod cache;
pub mod chain;
pub mod counts;
pub mod datadog;
pub mod directory;
pub mod endpoint;
pub mod file_log;
pub mod grants;
pub mod http_log;
pub mod ldap;
pub mod loggly;
pub mod moesif;
pub mod moesif_identity;
pub mod moesif_rules;
pub mod opentelemetry;
pub mod queue;
pub mod recent;
pub mod redis;
pub mod rows;
pub mod severities;
pub mod shipping;
pub mod stats;
pub mod statsd;
pub mod syncing;
pub mod syslog;
pub mod tcp_log;
pub mod trace;
pub mod view;
pub mod zipkin;

mod acl;
mod authenticate;
mod basic_auth;
mod body;
mod body_edit;
mod bot_detection;
mod cache_key;
mod cookie;
mod correlation_id;
mod cors;
mod counted_for;
mod edit;
mod hmac_auth;
mod identifier;
mod ip_restriction;
mod jwt;
mod key_auth;
mod ldap_auth;
mod name_and_password;
mod oauth2;
mod oauth2_grants;
mod oauth2_issued;
mod oauth2_said;
#[cfg(test)]
mod oauth2_tests;
mod periods;
mod prometheus;
mod proxy_cache;
pub mod query;
mod rate_limiting;
mod redirect;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_ratelimiting;
mod response_transformer;
mod seal;
mod session;
mod session_config;
mod session_state;
#[cfg(test)]
mod session_tests;
mod settings;
mod standard_webhooks;
mod template;
mod template_value;
#[cfg(test)]
pub mod testing;
pub mod token_key;
mod udp_log;

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::entity::PluginSchema;
use crate::plugins::ask::Answer;
use crate::plugins::shipping::Shipping;
use crate::plugins::view::BodyView;
use crate::plugins::view::LogView;
use crate::plugins::view::PieceView;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;

/// Every plugin that a configuration may name. A new one is a file and a row.
pub static PLUGINS: &[&Kind] = &[
    &acl::KIND,
    &basic_auth::KIND,
    &bot_detection::KIND,
    &correlation_id::KIND,
    &cors::KIND,
    &datadog::KIND,
    &file_log::KIND,
    &hmac_auth::KIND,
    &http_log::KIND,
    &ip_restriction::KIND,
    &jwt::KIND,
    &key_auth::KIND,
    &ldap_auth::KIND,
    &loggly::KIND,
    &moesif::KIND,
    &oauth2::KIND,
    &opentelemetry::KIND,
    &prometheus::KIND,
    &proxy_cache::KIND,
    &rate_limiting::KIND,
    &redirect::KIND,
    &request_size_limiting::KIND,
    &request_termination::KIND,
    &request_transformer::KIND,
    &response_ratelimiting::KIND,
    &response_transformer::KIND,
    &session_config::KIND,
    &standard_webhooks::KIND,
    &statsd::KIND,
    &syslog::KIND,
    &tcp_log::KIND,
    &udp_log::KIND,
    &zipkin::KIND,
];

/// One plugin: what the Admin API knows of it and how a configuration of it is compiled.
pub struct Kind {
    pub schema: PluginSchema,
    /// Plugins run in descending order of this (spec/plugins.md A.4).
    pub priority: i32,
    /// Compiles a configuration that its schema has accepted.
    #[expect(clippy::type_complexity, reason = "a name for it would say less than the type")]
    pub build: fn(&Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError>,
}

/// What is wrong with a configuration that no schema can express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Path below `config`, such as `allow.2`; empty: `config` as a whole.
    pub field: String,
    pub message: String,
}

/// The position of a plugin in [`PLUGINS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindIdx(pub u16);

/// The plugin of that name.
pub fn kind(name: &str) -> Option<(KindIdx, &'static Kind)> {
    let at = PLUGINS.iter().position(|kind| kind.schema.name == name)?;
    Some((KindIdx(at as u16), PLUGINS[at]))
}

/// A compiled configuration, shared by all cores.
pub struct Instance {
    pub id: Uuid,
    pub kind: KindIdx,
    pub plugin: Box<dyn Plugin>,
}

/// What a plugin does in the phases of a request. A phase that a plugin has no use for keeps its empty default.
pub trait Plugin: Send + Sync {
    /// Before routing; only configurations without a scope run.
    fn rewrite(&self, _view: &mut View<'_>) {}

    /// After routing, before the upstream is asked; may answer the request itself.
    fn access(&self, _view: &mut View<'_>) -> Verdict {
        Verdict::Continue
    }

    /// The answer to the question of an access phase that ended with [`Verdict::Ask`]; goes on where that one stopped.
    fn answered(&self, _view: &mut View<'_>, _answer: Answer) -> Verdict {
        Verdict::Continue
    }

    /// Before a response head leaves, whoever made it. A plugin that wants the body of this response says so in the view.
    fn response_head(&self, _view: &mut ResponseView<'_>) {}

    /// The whole body of a response for which `response_head` asked so; changes reach the client.
    fn response_body(&self, _view: &mut BodyView<'_>) {}

    /// A piece of the body of a response for which `response_head` asked so, on its way to the client.
    fn response_piece(&self, _view: &mut PieceView<'_>) {}

    /// After the last byte of the response, or after the client has gone.
    fn log(&self, _view: &mut LogView<'_>) {}

    /// Where the record of each request goes; `None`: nowhere.
    fn ships(&self) -> Option<&Shipping> {
        None
    }

    /// Whether `access` does nothing but look at the request and change it or answer it: then it may be asked about a
    /// request that never was.
    fn is_pure(&self) -> bool {
        false
    }

    /// Whether the times of the phases of a request are wanted.
    fn traces(&self) -> bool {
        false
    }

    /// Whether `access` looks at the request body, which is then read first (as far as it fits in memory).
    fn reads_body(&self) -> bool {
        false
    }
}

/// What follows an access phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next plugin, then the upstream.
    Continue,
    /// The answer in [`View::reply`]; no further access phase runs.
    Reply,
    /// The request waits for the answer to the question that was put with [`View::ask`].
    Ask,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn plugin_names_are_unique() {
        let mut seen = HashSet::new();
        assert!(PLUGINS.iter().all(|kind| seen.insert(kind.schema.name)));
    }

    #[test]
    fn the_defaults_of_every_plugin_compile() {
        // Those that demand something of the operator are given that.
        let limits = serde_json::json!({ "x": { "minute": 1 } });
        let demanded = serde_json::json!({
            "path": "/x", "http_endpoint": "http://h/", "secret_v1": "s",
            "ldap_host": "h", "base_dn": "dc=x", "attribute": "uid",
            "limits": limits, "strategy": "memory", "application_id": "x"
        });
        for kind in PLUGINS {
            let fields =
                kind.schema.config.fields.iter().filter(|field| field.is_required() && field.default.is_none());
            let given = fields.filter_map(|field| Some((field.name.to_owned(), demanded.get(field.name)?.clone())));
            testing::plugin(kind, given.collect());
        }
    }

    #[test]
    fn priorities_are_those_of_kong() {
        let known = [
            ("acl", 950),
            ("basic-auth", 1100),
            ("bot-detection", 2500),
            ("correlation-id", 100_001),
            ("cors", 2000),
            ("datadog", 10),
            ("file-log", 9),
            ("hmac-auth", 1030),
            ("http-log", 12),
            ("ip-restriction", 990),
            ("jwt", 1450),
            ("key-auth", 1250),
            ("ldap-auth", 1200),
            ("loggly", 6),
            ("oauth2", 1400),
            ("opentelemetry", 14),
            ("prometheus", 13),
            ("moesif", 5),
            ("proxy-cache", 100),
            ("rate-limiting", 910),
            ("redirect", 779),
            ("request-size-limiting", 951),
            ("request-termination", 2),
            ("request-transformer", 801),
            ("response-ratelimiting", 900),
            ("response-transformer", 800),
            ("session", 1900),
            ("standard-webhooks", 760),
            ("statsd", 11),
            ("syslog", 4),
            ("tcp-log", 7),
            ("udp-log", 8),
            ("zipkin", 100_000),
        ];
        for kind in PLUGINS {
            assert!(known.contains(&(kind.schema.name, kind.priority)), "{}", kind.schema.name);
        }
    }
}
