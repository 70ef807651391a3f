//! The one table of properties. Everything else follows from it: parsing, errors, `--help`, the commented default file,
//! `Settings::describe`, and what a reload applies.
//! Always: every line here is wired to behaviour; what is not built yet stands in `foreign`, where it is refused.

use serde_json::{Map, Value as Json};

use super::kind::Kind;
use super::listen::Listeners;
use super::load::Reader;
use super::logs::{AccessLogFile, LogFormats};
use super::numbers::{Bytes, Count, OnOff, OnOffWord, OptionalTime, Time, YEAR_MS};
use super::peers::{PortMaps, TrustedPeers};
use super::templates::TemplateFile;
use super::texts::{
    Directory, File, LogFile, Nameservers, OptionalFile, OptionalUser, OptionalWord, Origins, RealIpHeader, SecretText,
    Token, TrustedCertificates,
};
use super::tokens::{RequestTokens, ResponseTokens};
use super::tracing::{Instrumentations, Share};
use super::words::{
    Databases, DnsOrder, Drivers, ErrorTypes, LogLevels, PluginNames, ResolverFamily, RouterFlavors, WorkerCount,
};

/// One property, as its documentation and its messages need it.
#[derive(Debug)]
pub struct Property {
    /// The name in files; upper-cased behind `RINGWAY_` or `KONG_` in the environment.
    pub name: &'static str,
    /// Spellings of Kong with the same meaning.
    pub aliases: &'static [&'static str],
    pub section: &'static str,
    /// Read when the property is absent or blank.
    pub default: &'static str,
    pub docs: &'static [&'static str],
    pub accepts: &'static str,
    /// Whether SIGHUP applies a changed value; otherwise it takes a restart.
    pub reload: bool,
    /// Whether its value must never be shown.
    pub secret: bool,
}

macro_rules! reload {
    (reload) => {
        true
    };
    (restart) => {
        false
    };
}

macro_rules! keep {
    (reload, $new:expr, $old:expr, $name:literal, $pending:ident) => {};
    (restart, $new:expr, $old:expr, $name:literal, $pending:ident) => {
        if $new != $old {
            $pending.push($name);
            $new = $old.clone();
        }
    };
}

macro_rules! properties {
    ($($section:literal {
        $($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $name:literal $(| $alias:literal)*, $default:literal, $apply:ident;)*
    })*) => {
        /// The whole configuration of a node, checked and typed. Built by [`Settings::load`] only.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($($(#[doc = $doc])+ pub $field: <$kind as Kind>::Value,)*)*
        }

        /// Every property that means something here, in the order of the default file.
        pub static PROPERTIES: &[Property] = &[$($(Property {
            name: $name,
            aliases: &[$($alias),*],
            section: $section,
            default: $default,
            docs: &[$($doc),+],
            accepts: <$kind as Kind>::ACCEPTS,
            reload: reload!($apply),
            secret: <$kind as Kind>::SECRET,
        },)*)*];

        impl Settings {
            pub(super) fn read(reader: &mut Reader<'_>) -> Self {
                Self { $($($field: reader.value::<$kind>($name),)*)* }
            }

            /// Every property with its typed value, for `GET /` of the Admin API; secrets are `******`.
            pub fn describe(&self) -> Map<String, Json> {
                let mut map = Map::new();
                $($(map.insert($name.to_owned(), <$kind as Kind>::describe(&self.$field));)*)*
                super::foreign::describe_fixed(&mut map);
                map
            }

            /// What a reload makes of `self` when the files now say `new`: the changed properties that may be applied
            /// while running are; the names of those that wait for a restart are given back.
            pub fn reloaded(&self, mut new: Self) -> (Self, Vec<&'static str>) {
                let mut pending = Vec::new();
                $($(keep!($apply, new.$field, self.$field, $name, pending);)*)*
                (new, pending)
            }
        }
    };
}

// field: kind = "property" | "same meaning in Kong", "default", what a changed value takes;
properties! {
    "Node" {
        /// Directory of the store, the admin socket, the logs and the pid file. Created when missing.
        prefix: Directory = "prefix", "/usr/local/ringway", restart;
        /// Least severe messages that are logged.
        log_level: LogLevels = "log_level", "notice", reload;
        /// Where the configuration is kept: embedded is a SQLite file of this node; off is memory only, filled from
        /// declarative_config and by POST /config, and not writable in any other way.
        database: Databases = "database", "embedded", restart;
        /// File of the embedded store; a relative path is under prefix.
        database_path: File = "database_path", "ringway.db", restart;
        /// With database=off: the YAML or JSON document to start with; read again on SIGHUP.
        declarative_config: OptionalFile = "declarative_config", "", reload;
        /// The same document as a text, in place of a file.
        declarative_config_string: SecretText = "declarative_config_string", "", reload;
        /// Data-plane threads; auto is one for each CPU that the process may use.
        workers: WorkerCount = "workers" | "nginx_worker_processes" | "nginx_main_worker_processes", "auto", restart;
        /// How the data plane talks to the kernel; auto takes io_uring, and epoll (with a warning) where it is refused.
        driver: Drivers = "driver", "auto", restart;
        /// Account, and optionally group, to become after the sockets are bound. Blank keeps the one started with.
        user: OptionalUser = "user" | "nginx_user" | "nginx_main_user", "", restart;
        /// Plugins that may be used: bundled (all), off (none), or a list of names.
        plugins: PluginNames = "plugins", "bundled", restart;
        /// How routes are told apart: traditional_compatible, traditional (older routes win ties, path_handling v1), or
        /// expressions (routes may have an expression and a priority of their own).
        router_flavor: RouterFlavors = "router_flavor", "traditional_compatible", restart;
        /// How long a graceful stop waits for requests in flight.
        drain_timeout_ms: Time<0, YEAR_MS> = "drain_timeout", "10s", reload;
    }
    "Listeners" {
        /// Addresses that take requests to be proxied.
        proxy_listen: Listeners = "proxy_listen", "0.0.0.0:8000 reuseport backlog=16384", restart;
        /// Addresses of the Admin API; a unix socket gets mode 0600. One that other machines can reach needs
        /// admin_token or admin_allow_unauthenticated.
        admin_listen: Listeners = "admin_listen", "127.0.0.1:8001, unix:admin.sock", restart;
        /// Addresses that answer /status and /status/ready only.
        status_listen: Listeners = "status_listen", "127.0.0.1:8007", restart;
        /// Ports that clients see in place of the listener's, for a node behind port forwarding: external:listener.
        port_maps: PortMaps = "port_maps", "", reload;
        /// Congestion control of the proxy's sockets, such as cubic or bbr. Blank keeps the system's.
        tcp_congestion: OptionalWord = "tcp_congestion", "", restart;
    }
    "Admin API" {
        /// Asked of every Admin request over TCP, as Kong-Admin-Token or Authorization: Bearer.
        admin_token: Token = "admin_token", "", reload;
        /// Allows an admin_listen that other machines can reach without a token.
        admin_allow_unauthenticated: OnOff = "admin_allow_unauthenticated", "off", restart;
        /// Largest body of an Admin request. Above: 413.
        admin_client_max_body_size: Bytes<{ 1 << 10 }, { 1 << 30 }>
            = "admin_client_max_body_size" | "nginx_admin_client_max_body_size", "10m", reload;
        /// Web origins from which a browser may use the Admin API.
        admin_gui_url: Origins = "admin_gui_url", "", reload;
    }
    "Headers and client addresses" {
        /// Headers added to responses: server_tokens, latency_tokens, single header names, or off.
        headers: ResponseTokens = "headers", "server_tokens, latency_tokens, X-Kong-Request-Id", reload;
        /// Headers added to requests beyond the forwarding ones: X-Kong-Request-Id, or off.
        headers_upstream: RequestTokens = "headers_upstream", "X-Kong-Request-Id", reload;
        /// Peers whose forwarding headers are believed: addresses, CIDR blocks, unix:.
        trusted_ips: TrustedPeers = "trusted_ips", "", reload;
        /// Header in which a trusted peer names the client; proxy_protocol: the preface of the connection.
        real_ip_header: RealIpHeader = "real_ip_header" | "nginx_proxy_real_ip_header", "X-Real-IP", reload;
        /// Skip trusted addresses from the right in that header instead of taking the last one.
        real_ip_recursive: OnOffWord = "real_ip_recursive" | "nginx_proxy_real_ip_recursive", "off", reload;
        /// Format of error pages for clients that name none.
        error_default_type: ErrorTypes = "error_default_type", "text/plain", reload;
        /// File with the body of errors that are sent as HTML, with %s where the message goes, and the request id; %% for a
        /// percent sign. Messages are escaped for the format.
        error_template_html: TemplateFile = "error_template_html", "", reload;
        /// As error_template_html, for JSON.
        error_template_json: TemplateFile = "error_template_json", "", reload;
        /// As error_template_html, for XML.
        error_template_xml: TemplateFile = "error_template_xml", "", reload;
        /// As error_template_html, for plain text.
        error_template_plain: TemplateFile = "error_template_plain", "", reload;
        /// Whether a request with Kong-Debug: 1 is told its route and service in response headers.
        allow_debug_header: OnOff = "allow_debug_header", "off", reload;
    }
    "Request debugging" {
        /// Whether a request with X-Kong-Request-Debug: * is told in X-Kong-Request-Debug-Output what its time was spent in.
        /// It must come from this machine or bring the token in X-Kong-Request-Debug-Token; X-Kong-Request-Debug-Log: true
        /// tells the log too.
        request_debug: OnOff = "request_debug", "on", reload;
        /// That token; blank: one is made at each start and logged.
        request_debug_token: Token = "request_debug_token", "", reload;
    }
    "Clients" {
        /// Largest request body; 0 is no limit. Above: 413.
        client_max_body_size: Bytes<0, { 1 << 50 }>
            = "client_max_body_size" | "nginx_http_client_max_body_size" | "nginx_proxy_client_max_body_size", "0", reload;
        /// Largest request body that a buffering route holds in memory; what is beyond it goes to a file.
        client_body_buffer_size: Bytes<{ 1 << 10 }, { 16 << 20 }>
            = "client_body_buffer_size" | "nginx_http_client_body_buffer_size" | "nginx_proxy_client_body_buffer_size", "64k", reload;
        /// Directory of those files, which have no names in it; a relative path is under prefix. Created when missing.
        client_body_temp_path: File
            = "client_body_temp_path" | "nginx_http_client_body_temp_path" | "nginx_proxy_client_body_temp_path", "client_body_temp", reload;
        /// Most bytes that these files may hold together; 0 makes none. A body that finds no room is streamed.
        client_body_temp_bytes_max: Bytes<0, { 1 << 50 }> = "client_body_temp_bytes_max", "1g", reload;
        /// Longest wait for a whole request head, from its first byte or the accept. Then: 408.
        client_header_timeout_ms: Time<1, YEAR_MS>
            = "client_header_timeout" | "nginx_http_client_header_timeout" | "nginx_proxy_client_header_timeout", "10s", reload;
        /// Longest gap between two reads of a request body. Then: 408.
        client_body_timeout_ms: Time<1, YEAR_MS>
            = "client_body_timeout" | "nginx_http_client_body_timeout" | "nginx_proxy_client_body_timeout", "60s", reload;
        /// Longest idle time of a client connection between requests; 0 closes it after each response.
        client_keepalive_timeout_ms: Time<0, YEAR_MS>
            = "client_keepalive_timeout" | "nginx_http_keepalive_timeout" | "nginx_proxy_keepalive_timeout", "75s", reload;
        /// Requests that one client connection may carry.
        client_keepalive_requests: Count<1, { u32::MAX }>
            = "client_keepalive_requests" | "nginx_http_keepalive_requests" | "nginx_proxy_keepalive_requests", "10000", reload;
        /// Whether a request goes on when its client ends the connection, or its sending side, before the answer. Otherwise
        /// the upstream connection is closed, and the log says 499.
        proxy_ignore_client_abort: OnOff
            = "proxy_ignore_client_abort" | "nginx_http_proxy_ignore_client_abort" | "nginx_proxy_proxy_ignore_client_abort", "off", reload;
        /// Longest request line. Above: 414.
        client_request_line_bytes_max: Bytes<{ 1 << 10 }, { 64 << 10 }> = "client_request_line_bytes_max", "8k", reload;
        /// Largest request head, request line included. Above: 431.
        client_head_bytes_max: Bytes<{ 4 << 10 }, { 64 << 10 }> = "client_head_bytes_max", "32k", reload;
        /// Most header fields of a request. Above: 431.
        client_head_fields_max: Count<16, 1000> = "client_head_fields_max", "128", reload;
    }
    "Upstreams" {
        /// Idle connections kept for each upstream address by each worker; 0 keeps none.
        upstream_keepalive_pool_size: Count<0, 65535> = "upstream_keepalive_pool_size", "512", reload;
        /// Requests that one upstream connection may carry; 0 is no limit.
        upstream_keepalive_max_requests: Count<0, { u32::MAX }> = "upstream_keepalive_max_requests", "10000", reload;
        /// Longest idle time of an upstream connection; 0 is no limit.
        upstream_keepalive_idle_timeout_ms: Time<0, YEAR_MS> = "upstream_keepalive_idle_timeout", "60s", reload;
        /// Directory of files with what slow clients have not taken yet of buffered responses; they have no names in it. A
        /// relative path is under prefix. Created when missing.
        proxy_temp_path: File = "proxy_temp_path" | "nginx_http_proxy_temp_path" | "nginx_proxy_proxy_temp_path", "proxy_temp", reload;
        /// Most bytes that such a file may hold; 0 makes none. Beyond it the upstream waits for the client.
        proxy_temp_file_bytes_max: Bytes<0, { 1 << 50 }>
            = "proxy_temp_file_bytes_max" | "nginx_http_proxy_max_temp_file_size" | "nginx_proxy_proxy_max_temp_file_size", "1g", reload;
        /// Most bytes that they may hold together; 0 makes none.
        proxy_temp_bytes_max: Bytes<0, { 1 << 50 }> = "proxy_temp_bytes_max", "4g", reload;
        /// Largest response head of an upstream. Above: 502.
        upstream_head_bytes_max: Bytes<{ 4 << 10 }, { 64 << 10 }> = "upstream_head_bytes_max", "32k", reload;
    }
    "Caches" {
        /// Bytes of responses that the plugin proxy-cache keeps, all workers together.
        mem_cache_size: Bytes<{ 1 << 20 }, { 1 << 44 }> = "mem_cache_size", "128m", restart;
    }
    "Health checks" {
        /// Files of certificate authorities that probes over TLS trust; system stands for those of the system.
        lua_ssl_trusted_certificate: TrustedCertificates = "lua_ssl_trusted_certificate", "system", restart;
    }
    "Logs" {
        /// One line for each proxied request, or off. The format is kong_log_format, or the one named behind the path.
        proxy_access_log: AccessLogFile<0> = "proxy_access_log", "logs/access.log", restart;
        /// One line for each Admin request, or off. The format is combined, or the one named behind the path.
        admin_access_log: AccessLogFile<1> = "admin_access_log", "logs/admin_access.log", restart;
        /// Formats of lines for both, as nginx declares them: json_lines escape=json '{"id":"$kong_request_id"}'
        log_format: LogFormats = "log_format" | "nginx_http_log_format", "", restart;
        /// What the node has to say, also written to standard error; off for standard error only.
        proxy_error_log: LogFile = "proxy_error_log", "logs/error.log", restart;
        /// Datagram socket of the local syslog daemon, for the plugin syslog.
        syslog_socket: File = "syslog_socket", "/dev/log", restart;
        /// What the plugin opentelemetry makes spans of.
        tracing_instrumentations: Instrumentations = "tracing_instrumentations" | "opentelemetry_tracing", "off", restart;
        /// The share of traces that it sends, unless its sampling_rate says otherwise.
        tracing_sampling_rate: Share = "tracing_sampling_rate" | "opentelemetry_tracing_sampling_rate", "0.01", restart;
    }
    "Names" {
        /// DNS servers as ip[:port]; blank takes those of /etc/resolv.conf.
        dns_resolver: Nameservers = "dns_resolver", "", restart;
        /// Hosts file, read at start and by a reload.
        dns_hostsfile: File = "dns_hostsfile", "/etc/hosts", restart;
        /// Record types that are asked for, in this order until one has records. LAST is the type that had them the last time.
        dns_order: DnsOrder = "dns_order", "LAST,SRV,A,CNAME", restart;
        /// Overrides the TTL of every answer, in seconds. Blank keeps them.
        dns_valid_ttl_ms: OptionalTime = "dns_valid_ttl", "", restart;
        /// How long an expired answer is used while it is being refreshed, or cannot be.
        dns_stale_ttl_ms: Time<0, YEAR_MS> = "dns_stale_ttl", "3600", restart;
        /// How long "no such name" is remembered.
        dns_not_found_ttl_ms: Time<0, YEAR_MS> = "dns_not_found_ttl", "30", restart;
        /// How long a failed query is remembered.
        dns_error_ttl_ms: Time<0, YEAR_MS> = "dns_error_ttl", "1", restart;
        /// Resolves by the rules of Kong's other DNS client: the resolver_ properties take the place of the dns_ ones, and
        /// SRV records are asked for names like _http._tcp.example.com, and only for those.
        new_dns_client: OnOff = "new_dns_client", "off", restart;
        /// As dns_resolver, for the other client.
        resolver_address: Nameservers = "resolver_address", "", restart;
        /// As dns_hostsfile, for the other client.
        resolver_hosts_file: File = "resolver_hosts_file", "/etc/hosts", restart;
        /// Record types that the other client asks for.
        resolver_family: ResolverFamily = "resolver_family", "A,SRV", restart;
        /// As dns_valid_ttl, for the other client.
        resolver_valid_ttl_ms: OptionalTime = "resolver_valid_ttl", "", restart;
        /// As dns_stale_ttl, for the other client.
        resolver_stale_ttl_ms: Time<0, YEAR_MS> = "resolver_stale_ttl", "3600", restart;
        /// As dns_error_ttl and dns_not_found_ttl, for the other client.
        resolver_error_ttl_ms: Time<0, YEAR_MS> = "resolver_error_ttl", "1", restart;
    }
    "Health checks" {
        /// How long after its ejection by passive checks a target gets one request to show whether it answers again, where
        /// no probes can bring it back; 0: never, as in Kong.
        passive_recovery_ms: Time<0, YEAR_MS> = "passive_recovery", "30", restart;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::Sources;

    fn defaults() -> Settings {
        Settings::load(Sources::default()).expect("defaults").settings
    }

    #[test]
    fn names_are_unique_and_every_line_is_documented() {
        let mut seen = HashSet::new();
        for property in PROPERTIES {
            assert!(seen.insert(property.name), "{}", property.name);
            assert!(property.aliases.iter().all(|alias| seen.insert(alias)), "{}", property.name);
            assert!(property.docs.iter().all(|doc| !doc.trim().is_empty()), "{}", property.name);
        }
    }

    #[test]
    fn what_is_described_has_the_names_of_the_table_and_typed_values() {
        let described = defaults().describe();
        assert!(PROPERTIES.iter().all(|property| described.contains_key(property.name)));
        for (name, want) in [
            ("log_level", r#""notice""#),
            ("proxy_listen", r#"["0.0.0.0:8000 reuseport backlog=16384"]"#),
            ("headers", r#"["server_tokens","latency_tokens","x-kong-request-id"]"#),
            ("upstream_keepalive_idle_timeout", "60"),
            ("upstream_keepalive_pool_size", "512"),
            ("client_max_body_size", r#""0""#),
            ("client_head_bytes_max", r#""32k""#),
            ("allow_debug_header", "false"),
            ("real_ip_recursive", r#""off""#),
            ("plugins", r#"["bundled"]"#),
            ("admin_token", "null"),
            ("dns_valid_ttl", "null"),
            ("dns_order", r#"["LAST","SRV","A","CNAME"]"#),
            ("router_flavor", r#""traditional_compatible""#),
            ("stream_listen", r#"["off"]"#),
        ] {
            assert_eq!(described[name].to_string(), want, "{name}");
        }
    }

    /// `ringway.conf.default` as it should be: every property commented out, with its default.
    fn default_file() -> String {
        let mut text = String::from(
            "# Configuration of ringway, with every property at its default. Copy it to /etc/ringway/ringway.conf (or name\n\
             # your copy with -c), and uncomment what you change. The environment overrides this file: RINGWAY_PROXY_LISTEN\n\
             # (or KONG_PROXY_LISTEN) sets proxy_listen; --set proxy_listen=... overrides both. A blank value is the default.\n\
             # A # starts a comment; write \\# for one that belongs to a value. Times are in seconds, sizes in bytes, unless\n\
             # they carry a unit. \"ringway check FILE\" reports all errors of a file.\n",
        );
        let mut section = "";
        for property in PROPERTIES {
            if property.section != section {
                section = property.section;
                text += &format!("\n#### {section}\n");
            }
            text += "\n";
            for doc in property.docs {
                text += &format!("#{doc}\n");
            }
            text += &format!("# Accepted: {}.\n", property.accepts);
            if !property.aliases.is_empty() {
                text += &format!("# Also read as {}.\n", property.aliases.join(", "));
            }
            if property.reload {
                text += "# A reload applies it.\n";
            }
            text += format!("#{} = {}", property.name, property.default).trim_end();
            text += "\n";
        }
        text
    }

    /// With UPDATE_DEFAULTS=1 it is written instead.
    #[test]
    fn the_default_file_says_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ringway.conf.default");
        if std::env::var_os("UPDATE_DEFAULTS").is_some() {
            std::fs::write(path, default_file()).expect(path);
        }
        let text = std::fs::read_to_string(path).expect(path);
        let same = text == default_file();
        assert!(
            same,
            "ringway.conf.default differs from the table; UPDATE_DEFAULTS=1 cargo test default_file rewrites it"
        );
        let uncommented: String = text
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])))
            .map(|line| format!("{line}\n"))
            .collect();
        let loaded = Settings::load(Sources { file: Some((path.as_ref(), &uncommented)), ..Sources::default() });
        let loaded = loaded.expect("every default is accepted");
        assert!(loaded.warnings.is_empty() && loaded.settings == defaults());
    }

    #[test]
    fn a_reload_takes_what_it_may_and_names_the_rest() {
        let old = defaults();
        let mut new = old.clone();
        new.client_body_timeout_ms = 1;
        new.dns_error_ttl_ms = 100;
        let (merged, pending) = old.reloaded(new);
        assert_eq!((merged.client_body_timeout_ms, merged.dns_error_ttl_ms), (1, old.dns_error_ttl_ms));
        assert_eq!(pending, ["dns_error_ttl"]);
    }
}
