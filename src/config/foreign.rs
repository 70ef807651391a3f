//! Properties of Kong that are not in our table: those without a meaning here, which are warned about, and those for
//! things not built yet, which are refused unless they ask for what happens anyway.
//! Always: an operator who moves a kong.conf over is told about every line that does nothing.

use serde_json::{Map, Value as Json, json};

/// A property of Kong of which this version does one setting only.
#[derive(Debug)]
pub struct Fixed {
    pub name: &'static str,
    /// The values that ask for what happens anyway.
    pub accepted: &'static [&'static str],
    /// What any other value asks for, as the subject of "... is not supported yet".
    pub asks_for: &'static str,
}

const fn fixed(name: &'static str, accepted: &'static [&'static str], asks_for: &'static str) -> Fixed {
    Fixed { name, accepted, asks_for }
}

const OFF: &[&str] = &["off", "false"];
const NONE: &[&str] = &[];

pub static FIXED: &[Fixed] = &[
    fixed("stream_listen", &["off"], "proxying of TCP, TLS and UDP streams"),
    fixed("role", &["traditional"], "a hybrid control plane or data plane"),
    fixed("dns_no_sync", OFF, "a query for each caller of the same name"),
    fixed("vaults", &["off", "bundled"], "a list of vaults"),
    fixed("node_id", NONE, "a node id of one's own"),
    fixed("fips", OFF, "FIPS mode"),
    fixed("enforce_rbac", OFF, "role-based access control of the Admin API"),
    fixed("audit_log", OFF, "an audit log of the Admin API"),
    fixed("keyring_enabled", OFF, "encryption of stored fields"),
    fixed("client_ssl", OFF, "a client certificate towards upstreams"),
    fixed("client_ssl_cert", NONE, "a client certificate towards upstreams"),
    fixed("client_ssl_cert_key", NONE, "a client certificate towards upstreams"),
    fixed("ssl_cert", NONE, "a TLS certificate"),
    fixed("ssl_cert_key", NONE, "a TLS certificate"),
    fixed("admin_ssl_cert", NONE, "a TLS certificate"),
    fixed("admin_ssl_cert_key", NONE, "a TLS certificate"),
    fixed("status_ssl_cert", NONE, "a TLS certificate"),
    fixed("status_ssl_cert_key", NONE, "a TLS certificate"),
    fixed("nginx_proxy_proxy_ssl_verify", OFF, "verification of upstream certificates"),
];

/// Names, or beginnings of names that end in `*`, and why they have no effect.
static MEANINGLESS: &[(&str, &str)] = &[
    ("nginx_daemon", "ringway stays in the foreground; a service manager keeps it running"),
    ("nginx_*", "there is no nginx underneath that would read the directive"),
    (
        "lua_max_*",
        "the router and plugins see every header and argument; client_head_fields_max bounds what is accepted",
    ),
    ("lua_*", "there is no Lua underneath"),
    ("untrusted_lua*", "there is no Lua underneath"),
    ("openresty_path", "there is no OpenResty underneath"),
    ("pluginserver*", "there are no plugin servers; plugins are part of the program"),
    ("wasm*", "there are no WebAssembly filters"),
    ("proxy_wasm*", "there are no WebAssembly filters"),
    ("pg_*", "the configuration is kept in the embedded store, not in PostgreSQL"),
    ("cassandra_*", "the configuration is kept in the embedded store, not in Cassandra"),
    ("lmdb_*", "the configuration is kept in the embedded store, not in LMDB"),
    ("dns_cache_size", "the names that the configuration uses are known, all of them and no others"),
    ("db_*", "every worker holds the whole configuration; nothing is polled or cached"),
    ("worker_consistency", "a write is answered once every worker has applied it, always"),
    ("worker_state_update_frequency", "a write is answered once every worker has applied it, always"),
    ("legacy_worker_events", "workers have no event bus"),
    ("cluster_*", "only nodes of a hybrid cluster use it, and this node is a traditional one"),
    ("allow_inconsistent_data_plane_plugins", "only nodes of a hybrid cluster use it"),
    ("dedicated_config_processing", "configuration is compiled outside of the workers, always"),
    ("resolver_lru_cache_size", "the names that the configuration uses are known, all of them and no others"),
    ("resolver_mem_cache_size", "the names that the configuration uses are known, all of them and no others"),
    ("ssl_*", "no listener speaks TLS yet"),
    ("admin_error_log", "the node has one log of what it has to say: proxy_error_log"),
    ("status_error_log", "the node has one log of what it has to say: proxy_error_log"),
    ("status_access_log", "requests to the status listener are not logged"),
    ("proxy_stream_*", "streams are not proxied yet"),
    ("stream_*", "streams are not proxied yet"),
    ("admin_gui_*", "there is no graphical manager; admin_gui_url alone is used, as the list of allowed origins"),
    ("admin_api_uri", "there is no graphical manager"),
    ("portal*", "there is no developer portal"),
    ("vitals*", "there are no vitals"),
    ("analytics_*", "there is no telemetry"),
    ("anonymous_reports", "there is no telemetry"),
    ("konnect_mode", "there is no telemetry"),
    ("proxy_server*", "there is no telemetry that would need a proxy"),
    ("smtp_*", "no mail is sent"),
    ("rbac_auth_header", "admin_token is the one way to guard the Admin API"),
    ("audit_log_*", "there is no audit log"),
    ("keyring_*", "stored fields are not encrypted"),
    ("vault_*", "vault references are not resolved yet"),
    ("host_ports", "nothing reads it; port_maps is what the proxy uses"),
    ("kic", "the node behaves the same under an ingress controller"),
    ("debug_*", "there is no debug listener"),
    ("event_hooks_enabled", "there are no event hooks"),
    ("feature_conf_path", "there are no feature files"),
    ("route_validation_strategy", "it belongs to workspaces, which do not exist"),
    ("enforce_route_path_pattern", "it belongs to workspaces, which do not exist"),
];

/// Why Kong's property `name` has no effect here, if it is one of those.
pub fn meaningless(name: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    MEANINGLESS.iter().find(|(pattern, _)| matches(pattern)).map(|(_, why)| *why)
}

/// What clients of Kong's `GET /` look at beyond our own properties.
pub fn describe_fixed(map: &mut Map<String, Json>) {
    map.insert("role".to_owned(), json!("traditional"));
    map.insert("stream_listen".to_owned(), json!(["off"]));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::PROPERTIES;

    #[test]
    fn no_name_is_in_two_tables() {
        let mut seen = HashSet::new();
        let ours = PROPERTIES.iter().flat_map(|p| p.aliases.iter().chain([&p.name]));
        for name in ours.chain(FIXED.iter().map(|f| &f.name)).chain(MEANINGLESS.iter().map(|(name, _)| name)) {
            assert!(seen.insert(*name), "{name}");
        }
    }

    #[test]
    fn an_exact_reason_stands_before_the_general_one() {
        assert!(meaningless("nginx_daemon").is_some_and(|why| why.contains("foreground")));
        assert!(meaningless("nginx_http_gzip").is_some_and(|why| why.contains("nginx")));
        assert_eq!(meaningless("nginx"), None);
    }
}
