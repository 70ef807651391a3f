//! Sources -> [`Settings`]: precedence, aliases, errors and warnings, and the checks that need several properties.
//! Always: flags over `RINGWAY_` over `KONG_` over the file over defaults; only the value that wins is judged.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::file;
use super::foreign::{self, FIXED};
use super::kind::{Kind, Problem};
use super::listen::ListenAddr;
use super::nearest::nearest;
use super::properties::{PROPERTIES, Settings};
use super::templates::{ErrorTemplate, parts_of};
use super::words::{Database, Plugins};

/// Longest path that fits the kernel's address of a unix socket, without its final NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// All that settings come from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The configuration file: its name, for messages, and its text.
    pub file: Option<(&'a Path, &'a str)>,
    /// The whole environment; variables of others are passed over.
    pub env: &'a [(String, String)],
    /// `--set name=value` and what other flags stand for, in order.
    pub flags: &'a [(String, String)],
    /// The names of the plugins that the program has.
    pub plugins: &'a [&'a str],
    /// Reads a file that a property names. `None`: what such files say is not asked.
    pub read: Option<fn(&Path) -> io::Result<String>>,
}

/// What came of the sources.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<Warning>,
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: u32 },
    Env(String),
    Flag,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("command line"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Something that keeps the node from starting: where, what, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// A line that has no effect, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

struct Given {
    /// As the operator spelled it.
    name: String,
    text: String,
    origin: Origin,
}

/// What was given for each property, and what is wrong so far.
pub struct Reader<'a> {
    /// By canonical name; a later source has replaced an earlier one.
    given: HashMap<&'static str, Given>,
    plugins: &'a [&'a str],
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl Settings {
    /// The settings that the sources make together, or every reason why they make none.
    pub fn load(sources: Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
        let mut reader =
            Reader { given: HashMap::new(), plugins: sources.plugins, errors: Vec::new(), warnings: Vec::new() };
        reader.take_file(sources.file);
        reader.take_env(sources.env, "KONG_");
        reader.take_env(sources.env, "RINGWAY_");
        for (name, text) in sources.flags {
            reader.take(name, text.trim(), Origin::Flag);
        }
        reader.check_fixed();
        let mut settings = Self::read(&mut reader);
        settings.put_under_prefix();
        reader.read_templates(&mut settings, sources.read);
        reader.find_log_formats(&mut settings);
        reader.check_together(&settings);
        if reader.errors.is_empty() {
            return Ok(Loaded { settings, warnings: reader.warnings });
        }
        reader.errors.sort_by_key(|error| match error.origin {
            Origin::File { line, .. } => line,
            _ => u32::MAX,
        });
        Err(reader.errors)
    }

    /// Relative paths of properties are meant under the prefix.
    fn put_under_prefix(&mut self) {
        let prefix = self.prefix.clone();
        self.database_path = prefix.join(&self.database_path);
        self.dns_hostsfile = prefix.join(&self.dns_hostsfile);
        self.resolver_hosts_file = prefix.join(&self.resolver_hosts_file);
        self.client_body_temp_path = prefix.join(&self.client_body_temp_path);
        self.proxy_temp_path = prefix.join(&self.proxy_temp_path);
        self.declarative_config = self.declarative_config.take().map(|path| prefix.join(path));
        for log in [&mut self.proxy_access_log, &mut self.admin_access_log].into_iter().flatten() {
            log.path = prefix.join(&log.path);
        }
        self.proxy_error_log = self.proxy_error_log.take().map(|path| prefix.join(path));
        for (_, template) in self.templates() {
            template.path = prefix.join(&template.path);
        }
        for listen in [&mut self.proxy_listen, &mut self.admin_listen, &mut self.status_listen].into_iter().flatten() {
            if let ListenAddr::Unix(path) = &mut listen.addr {
                *path = prefix.join(&path);
            }
        }
    }
}

impl Settings {
    /// The templates that are set, by the property.
    fn templates(&mut self) -> impl Iterator<Item = (&'static str, &mut ErrorTemplate)> {
        let all = [
            ("error_template_html", &mut self.error_template_html),
            ("error_template_json", &mut self.error_template_json),
            ("error_template_xml", &mut self.error_template_xml),
            ("error_template_plain", &mut self.error_template_plain),
        ];
        all.into_iter().filter_map(|(name, template)| Some((name, template.as_mut()?)))
    }
}

impl Reader<'_> {
    fn read_templates(&mut self, settings: &mut Settings, read: Option<fn(&Path) -> io::Result<String>>) {
        let Some(read) = read else { return };
        for (name, template) in settings.templates() {
            let parts = read(&template.path).map_err(|error| error.to_string()).and_then(|text| parts_of(&text));
            match parts {
                Ok(parts) => template.parts = parts,
                Err(why) => self.error(self.origin(name), format!("{name} = {}: {why}", template.path.display())),
            }
        }
    }

    fn find_log_formats(&mut self, settings: &mut Settings) {
        let logs = [
            ("proxy_access_log", &mut settings.proxy_access_log),
            ("admin_access_log", &mut settings.admin_access_log),
        ];
        for (name, log) in logs {
            let Some(log) = log else { continue };
            let Some(wanted) = &log.wanted else { continue };
            match settings.log_format.find(wanted) {
                Ok(format) => match format.unknown_to_admin().filter(|_| name == "admin_access_log") {
                    None => log.format = format,
                    Some(variable) => {
                        let message = format!("{name}: the log format \"{wanted}\" shows {variable}, which it has not");
                        self.error(self.origin(name), message);
                    }
                },
                Err(known) => {
                    let message = format!(
                        "{name}: there is no log format \"{wanted}\"; there are: {known}; log_format declares others"
                    );
                    self.error(self.origin(name), message);
                }
            }
        }
    }

    fn take_file(&mut self, file: Option<(&Path, &str)>) {
        let Some((path, text)) = file else { return };
        for line in file::lines(text) {
            let origin = Origin::File { path: path.to_owned(), line: line.number };
            match line.content {
                Ok((name, text)) => self.take(name, &text, origin),
                Err(line) => self.error(origin, format!("\"{line}\" is not of the form: name = value")),
            }
        }
    }

    /// An empty variable is as good as none: that is how container files leave one out.
    fn take_env(&mut self, env: &[(String, String)], prefix: &str) {
        for (variable, text) in env {
            let Some(name) = variable.strip_prefix(prefix) else { continue };
            if !text.trim().is_empty() {
                self.take(&name.to_ascii_lowercase(), text.trim(), Origin::Env(variable.clone()));
            }
        }
    }

    fn take(&mut self, name: &str, text: &str, origin: Origin) {
        if let Some(canonical) = canonical(name) {
            let given = Given { name: name.to_owned(), text: text.to_owned(), origin };
            let Some(earlier) = self.given.insert(canonical, given) else { return };
            let later = &self.given[canonical];
            if let (Origin::File { .. }, Origin::File { line, .. }) = (&earlier.origin, &later.origin) {
                let message = format!("{} is given again in line {line}, which is the one that counts", earlier.name);
                self.warnings.push(Warning { origin: earlier.origin, message });
            }
        } else if let Some(why) = foreign::meaningless(name) {
            self.warnings.push(Warning { origin, message: format!("{name} has no effect: {why}") });
        } else {
            self.unknown(name, origin);
        }
    }

    /// A stray variable stops the start only when it looks like a slip: container platforms inject variables of their
    /// own (`RINGWAY_PORT_8000_TCP`, `KONG_ADMIN_SERVICE_HOST`) that nobody wrote for us.
    fn unknown(&mut self, name: &str, origin: Origin) {
        let guess = nearest(name, known_names());
        let hint = guess.map_or_else(String::new, |guess| format!("; did you mean \"{guess}\"?"));
        let message = format!("unknown property \"{name}\"{hint}");
        match &origin {
            Origin::Env(variable) if variable.starts_with("KONG_") => {}
            Origin::Env(_) if guess.is_none() => self.warnings.push(Warning { origin, message }),
            _ => self.error(origin, message),
        }
    }

    fn check_fixed(&mut self) {
        for fixed in FIXED {
            let Some(given) = self.given.get(fixed.name) else { continue };
            let asks = given.text.to_ascii_lowercase();
            if asks.is_empty() || fixed.accepted.contains(&asks.as_str()) {
                continue;
            }
            let problem = Problem::not_yet(fixed.asks_for);
            let error = describe_error(given, &problem, &fixed.accepted.join(", "), false);
            self.errors.push(error);
        }
    }

    /// The value of the property `name`; of its default when what was given is wrong, which is noted.
    pub fn value<K: Kind>(&mut self, name: &'static str) -> K::Value {
        if let Some(given) = self.given.get(name).filter(|given| !given.text.is_empty()) {
            let parsed = if given.text.starts_with("{vault://") {
                Err(Problem::not_yet("a reference to a vault"))
            } else {
                K::parse(&given.text)
            };
            match parsed {
                Ok(value) => return value,
                Err(problem) => self.errors.push(describe_error(given, &problem, K::ACCEPTS, K::SECRET)),
            }
        }
        let default = PROPERTIES.iter().find(|p| p.name == name).map_or("", |p| p.default);
        K::parse(default).expect("the table test reads every default")
    }

    /// What can only be judged with all values at hand.
    fn check_together(&mut self, settings: &Settings) {
        self.check_listeners(settings);
        self.check_dns_clients(settings);
        if let Plugins::Only(names) = &settings.plugins {
            for name in names.iter().filter(|name| !self.plugins.contains(&name.as_str())) {
                let known = self.plugins.join(", ");
                self.error(
                    self.origin("plugins"),
                    format!("plugins: there is no plugin \"{name}\"; there are: {known}"),
                );
            }
        }
        self.check_declared(settings);
        if settings.client_request_line_bytes_max >= settings.client_head_bytes_max {
            let message = "client_request_line_bytes_max must be below client_head_bytes_max, which includes it";
            self.error(self.origin("client_request_line_bytes_max"), message.to_owned());
        }
    }

    /// Properties of the DNS client that is not in use do nothing.
    fn check_dns_clients(&mut self, settings: &Settings) {
        let (idle, client) = if settings.new_dns_client { ("dns_", "off") } else { ("resolver_", "on") };
        let default = |name: &str| PROPERTIES.iter().find(|p| p.name == name).map_or("", |p| p.default);
        let is_idle = |(name, given): &(&&str, &Given)| name.starts_with(idle) && given.text != default(name);
        let mut given: Vec<_> = self.given.iter().filter(is_idle).collect();
        given.sort_by_key(|(name, _)| **name);
        let warning = |(name, given): (&&str, &Given)| Warning {
            origin: given.origin.clone(),
            message: format!("{name} has no effect: only the DNS client of new_dns_client = {client} uses it"),
        };
        self.warnings.extend(given.into_iter().map(|(name, given)| warning((name, given))));
    }

    /// A document to start with is read from one place, and only where nothing else keeps rows.
    fn check_declared(&mut self, settings: &Settings) {
        let given = [
            ("declarative_config", settings.declarative_config.is_some()),
            ("declarative_config_string", settings.declarative_config_string.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        let Some(name) = given.first() else { return };
        if settings.database != Database::Off {
            let message = format!(
                "{name} is read with database = off only; 'ringway config load FILE' (POST /config on the Admin API) \
                 brings a document into the embedded store of a running node"
            );
            self.error(self.origin(name), message);
        }
        if given.len() > 1 {
            let message = "declarative_config and declarative_config_string say the same thing; keep one of them";
            self.error(self.origin("declarative_config_string"), message.to_owned());
        }
    }

    fn check_listeners(&mut self, settings: &Settings) {
        let mut seen: Vec<&ListenAddr> = Vec::new();
        let groups = [
            ("proxy_listen", &settings.proxy_listen),
            ("admin_listen", &settings.admin_listen),
            ("status_listen", &settings.status_listen),
        ];
        for (name, listens) in groups {
            for addr in listens.iter().map(|listen| &listen.addr) {
                let any_port = matches!(addr, ListenAddr::Tcp(tcp) if tcp.port() == 0);
                if seen.contains(&addr) && !any_port {
                    self.error(self.origin(name), format!("{name}: {addr} is listened on twice"));
                }
                seen.push(addr);
                if let ListenAddr::Unix(path) = addr
                    && path.as_os_str().len() > UNIX_PATH_BYTES_MAX
                {
                    let message = format!(
                        "{name}: {addr} is longer than {UNIX_PATH_BYTES_MAX} bytes; choose a shorter path or prefix"
                    );
                    self.error(self.origin(name), message);
                }
            }
        }
        for (name, listens) in &groups[1..] {
            if let Some(listen) = listens.iter().find(|listen| listen.proxy_protocol) {
                let message = format!("{name}: {}: proxy_protocol is for proxy_listen only", listen.addr);
                self.error(self.origin(name), message);
            }
        }
        let guarded = settings.admin_token.is_some() || settings.admin_allow_unauthenticated;
        if let Some(open) = settings.admin_listen.iter().find(|listen| listen.addr.is_remote() && !guarded) {
            let message = format!(
                "admin_listen: {} can be reached by other machines, so anybody could change the configuration: \
                 set admin_token, or listen on 127.0.0.1, or say admin_allow_unauthenticated = on",
                open.addr
            );
            self.error(self.origin("admin_listen"), message);
        }
    }

    fn origin(&self, name: &str) -> Origin {
        self.given.get(name).map_or(Origin::Default, |given| given.origin.clone())
    }

    fn error(&mut self, origin: Origin, message: String) {
        self.errors.push(ConfigError { origin, message });
    }
}

fn describe_error(given: &Given, problem: &Problem, accepts: &str, secret: bool) -> ConfigError {
    let text = if secret { "******" } else { &given.text };
    let accepted = if accepts.is_empty() { String::new() } else { format!("; accepted: {accepts}") };
    let why = match problem {
        Problem::NotAccepted => format!("accepted: {accepts}"),
        Problem::Because(why) => format!("{why}{accepted}"),
        Problem::NotYet(what) => format!("{what} is not supported yet{accepted}"),
    };
    ConfigError { origin: given.origin.clone(), message: format!("{} = {text}: {why}", given.name) }
}

/// The name in our tables of what is written `name`.
fn canonical(name: &str) -> Option<&'static str> {
    let ours = PROPERTIES.iter().find(|p| p.name == name || p.aliases.contains(&name)).map(|p| p.name);
    ours.or_else(|| FIXED.iter().find(|fixed| fixed.name == name).map(|fixed| fixed.name))
}

fn known_names() -> impl Iterator<Item = &'static str> {
    let ours = PROPERTIES.iter().flat_map(|p| p.aliases.iter().copied().chain([p.name]));
    ours.chain(FIXED.iter().map(|fixed| fixed.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Driver, LogLevel, Plugins, Secret, Workers};

    const KNOWN_PLUGINS: &[&str] = &["correlation-id", "key-auth"];

    fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Vec<ConfigError>> {
        let (env, flags) = (pairs(env), pairs(flags));
        let file = Some((Path::new("r.conf"), file));
        Settings::load(Sources { file, env: &env, flags: &flags, plugins: KNOWN_PLUGINS, read: Some(read) })
    }

    /// What stands in files, by the end of their name.
    fn read(path: &Path) -> io::Result<String> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("tmpl") => Ok("<p>%s</p>\n<i>%s</i>".to_owned()),
            Some("bad") => Ok("<p>%s</p>".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[track_caller]
    fn ok(file: &str) -> Settings {
        load(file, &[], &[]).expect(file).settings
    }

    #[track_caller]
    fn errors(file: &str, want: &[&str]) {
        let errors = load(file, &[], &[]).expect_err(file);
        assert_eq!(errors.iter().map(ConfigError::to_string).collect::<Vec<_>>(), want);
    }

    #[track_caller]
    fn warnings(loaded: Loaded, want: &[&str]) {
        assert_eq!(loaded.warnings.iter().map(Warning::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn flags_win_over_our_environment_over_kongs_over_the_file_over_the_default() {
        let (ours, kongs) = (("RINGWAY_WORKERS", "4"), ("KONG_WORKERS", "3"));
        let flags = [("workers", "5"), ("workers", "6")];
        for (file, env, flags, want) in [
            ("", &[][..], &[][..], Workers::Auto),
            ("workers = 2", &[], &[], Workers::Count(2)),
            ("workers = 2", &[kongs], &[], Workers::Count(3)),
            ("workers = 2", &[ours, kongs], &[], Workers::Count(4)),
            ("workers = 2", &[kongs, ours], &flags[..1], Workers::Count(5)),
            ("workers = 2", &[kongs, ours], &flags, Workers::Count(6)),
            ("workers = 2", &[], &[("workers", "")], Workers::Auto),
        ] {
            assert_eq!(load(file, env, flags).expect(file).settings.workers, want, "{file} {env:?} {flags:?}");
        }
    }

    #[test]
    fn kongs_spellings_are_one_property_with_ours() {
        assert_eq!(ok("nginx_worker_processes = 3").workers, Workers::Count(3));
        assert_eq!(ok("nginx_http_keepalive_requests = 7").client_keepalive_requests, 7);
        assert_eq!(ok("nginx_proxy_keepalive_timeout = 5m").client_keepalive_timeout_ms, 300_000);
        assert_eq!(ok("nginx_http_client_max_body_size = 8m").client_max_body_size, 8 << 20);
        let loaded = load("nginx_worker_processes = 3", &[("RINGWAY_WORKERS", "2")], &[]).unwrap();
        assert_eq!(loaded.settings.workers, Workers::Count(2));
        assert_eq!(load("", &[("RINGWAY_DRIVER", "epoll")], &[]).unwrap().settings.driver, Driver::Epoll);
    }

    #[test]
    fn blank_is_the_default_and_an_empty_variable_is_none() {
        assert_eq!(ok("log_level =").log_level, LogLevel::Notice);
        let loaded = load("log_level = debug", &[("RINGWAY_LOG_LEVEL", ""), ("KONG_LOG_LEVEL", " ")], &[]).unwrap();
        assert_eq!(loaded.settings.log_level, LogLevel::Debug);
    }

    #[test]
    fn all_errors_are_reported_together_with_line_value_and_what_is_accepted() {
        let file = "workers = many\nwhat is this\n\nprox_listen = off\nclient_head_fields_max = 5 # few\nlog_level = loud\nzebra = 1";
        errors(
            file,
            &[
                "r.conf:1: workers = many: accepted: auto, 1-1024",
                "r.conf:2: \"what is this\" is not of the form: name = value",
                "r.conf:4: unknown property \"prox_listen\"; did you mean \"proxy_listen\"?",
                "r.conf:5: client_head_fields_max = 5: not in 16-1000; accepted: a whole number",
                "r.conf:6: log_level = loud: accepted: debug, info, notice, warn, error, crit, alert, emerg",
                "r.conf:7: unknown property \"zebra\"",
            ],
        );
    }

    #[test]
    fn what_is_not_built_is_refused_and_what_happens_anyway_is_not() {
        for (line, want) in [
            ("database = postgres", "a PostgreSQL store is not supported yet; accepted: embedded, off"),
            (
                "stream_listen = 0.0.0.0:9000",
                "proxying of TCP, TLS and UDP streams is not supported yet; accepted: off",
            ),
            ("dns_no_sync = on", "a query for each caller of the same name is not supported yet; accepted: off, false"),
            ("ssl_cert = /x", "a TLS certificate is not supported yet"),
            (
                "admin_token = {vault://env/token}",
                "a reference to a vault is not supported yet; accepted: visible ASCII characters without blanks",
            ),
        ] {
            let shown = if line.starts_with("admin_token") { "admin_token = ******" } else { line };
            errors(line, &[&format!("r.conf:1: {shown}: {want}")]);
        }
        errors(
            "proxy_listen = 0.0.0.0:8443 http2 ssl",
            &[&format!(
                "r.conf:1: proxy_listen = 0.0.0.0:8443 http2 ssl: a listener with \"http2\" is not supported yet; accepted: {}",
                PROPERTIES.iter().find(|p| p.name == "proxy_listen").unwrap().accepts
            )],
        );
        ok("stream_listen = off\nrouter_flavor = expressions\ndns_no_sync = OFF\nssl_cert =");
    }

    #[test]
    fn properties_of_kong_without_a_meaning_are_warned_about() {
        let loaded = load("pg_host = db\nnginx_http_gzip = on", &[("KONG_DNS_CACHE_SIZE", "9")], &[]).unwrap();
        warnings(
            loaded,
            &[
                "r.conf:1: pg_host has no effect: the configuration is kept in the embedded store, not in PostgreSQL",
                "r.conf:2: nginx_http_gzip has no effect: there is no nginx underneath that would read the directive",
                "environment variable KONG_DNS_CACHE_SIZE: dns_cache_size has no effect: \
                 the names that the configuration uses are known, all of them and no others",
            ],
        );
    }

    #[test]
    fn properties_of_the_dns_client_that_is_not_in_use_are_warned_about() {
        let file = "resolver_family = A,AAAA\ndns_order = A\ndns_stale_ttl = 3600\nresolver_mem_cache_size = 5m";
        let idle = "has no effect: only the DNS client of new_dns_client";
        let cache = "r.conf:4: resolver_mem_cache_size has no effect: the names that the configuration uses are known, all of \
                     them and no others";
        warnings(load(file, &[], &[]).unwrap(), &[cache, &format!("r.conf:1: resolver_family {idle} = on uses it")]);
        let on = load(file, &[], &[("new_dns_client", "on")]).unwrap();
        warnings(on, &[cache, &format!("r.conf:2: dns_order {idle} = off uses it")]);
        let want = "r.conf:1: resolver_family = A,CNAME: accepted: a list of A, AAAA, SRV";
        errors("resolver_family = A,CNAME", &[want]);
    }

    #[test]
    fn a_line_given_twice_is_warned_about_and_the_later_one_counts() {
        let loaded =
            load("workers = 1\nnginx_worker_processes = 2", &[], &[("workers", "3"), ("workers", "4")]).unwrap();
        assert_eq!(loaded.settings.workers, Workers::Count(4));
        warnings(loaded, &["r.conf:1: workers is given again in line 2, which is the one that counts"]);
    }

    #[test]
    fn a_stray_variable_is_an_error_only_when_it_looks_like_a_slip() {
        let env =
            [("RINGWAY_PORT_8000_TCP", "tcp://10.0.0.1:8000"), ("KONG_PROXY_SERVICE_HOST", "10.0.0.1"), ("HOME", "/")];
        warnings(
            load("", &env, &[]).unwrap(),
            &["environment variable RINGWAY_PORT_8000_TCP: unknown property \"port_8000_tcp\""],
        );
        let errors = load("", &[("RINGWAY_WORKRES", "2")], &[]).unwrap_err();
        let want = "environment variable RINGWAY_WORKRES: unknown property \"workres\"; did you mean \"workers\"?";
        assert_eq!(errors.iter().map(ConfigError::to_string).collect::<Vec<_>>(), [want]);
    }

    #[test]
    fn only_the_value_that_wins_is_judged() {
        let loaded =
            load("database = postgres\nworkers = many", &[("RINGWAY_WORKERS", "2")], &[("database", "embedded")]);
        assert_eq!(loaded.unwrap().settings.workers, Workers::Count(2));
    }

    #[test]
    fn an_admin_api_open_to_others_needs_a_token_or_leave() {
        let open = "admin_listen = 127.0.0.1:1, 0.0.0.0:8001";
        let error = load(open, &[], &[]).unwrap_err().remove(0).to_string();
        assert!(error.starts_with("r.conf:1: admin_listen: 0.0.0.0:8001 can be reached"), "{error}");
        assert!(error.contains("admin_token") && error.contains("admin_allow_unauthenticated = on"), "{error}");
        let guarded = ok(&format!("{open}\nadmin_token = s3cret"));
        assert_eq!(guarded.admin_token.as_ref().map(Secret::expose), Some(&b"s3cret"[..]));
        assert!(!format!("{guarded:?}").contains("s3cret"));
        assert_eq!(guarded.describe()["admin_token"], "******");
        ok(&format!("{open}\nadmin_allow_unauthenticated = on"));
        ok("admin_listen = [::1]:8001, unix:/run/x.sock");
        ok("admin_listen = off");
    }

    #[test]
    fn listeners_must_differ_unless_the_kernel_chooses() {
        errors("status_listen = 127.0.0.1:8001", &["r.conf:1: status_listen: 127.0.0.1:8001 is listened on twice"]);
        ok("proxy_listen = 127.0.0.1:0, 127.0.0.1:0\nstatus_listen = 127.0.0.1:0\nadmin_listen = 127.0.0.1:0");
    }

    #[test]
    fn the_proxy_protocol_is_spoken_by_the_proxy_alone() {
        ok("proxy_listen = 127.0.0.1:1 proxy_protocol");
        errors(
            "admin_listen = 127.0.0.1:1 proxy_protocol",
            &["r.conf:1: admin_listen: 127.0.0.1:1: proxy_protocol is for proxy_listen only"],
        );
    }

    #[test]
    fn relative_paths_are_under_the_prefix() {
        let settings =
            load("database_path = x/y.db\nproxy_error_log = /dev/null", &[], &[("prefix", "/p")]).unwrap().settings;
        assert_eq!(settings.database_path, Path::new("/p/x/y.db"));
        assert_eq!(settings.proxy_access_log.map(|log| log.path), Some("/p/logs/access.log".into()));
        assert_eq!(settings.proxy_error_log.as_deref(), Some(Path::new("/dev/null")));
        assert_eq!(settings.admin_listen[1].addr, ListenAddr::Unix("/p/admin.sock".into()));
        let long = format!("prefix = /{}", "x".repeat(100));
        assert!(load(&long, &[], &[]).unwrap_err()[0].message.contains("longer than 107 bytes"));
        errors("prefix = here", &["r.conf:1: prefix = here: accepted: an absolute path"]);
    }

    #[test]
    fn templates_are_read_and_what_is_wrong_with_them_is_said() {
        let settings = ok("prefix = /p\nerror_template_html = x.tmpl");
        let template = settings.error_template_html.expect("it is set");
        assert_eq!((template.path, &template.parts[1][..]), ("/p/x.tmpl".into(), "</p>\n<i>"));
        assert_eq!(settings.error_template_json, None);
        errors(
            "prefix = /p\nerror_template_xml = x.bad\nerror_template_plain = /none",
            &[
                "r.conf:2: error_template_xml = /p/x.bad: it has 1 %s instead of two: one for the message, then one for \
                 the request id",
                "r.conf:3: error_template_plain = /none: entity not found",
            ],
        );
    }

    #[test]
    fn a_log_has_the_format_that_it_names() {
        let settings = ok("proxy_access_log = a.log mine\nnginx_http_log_format = mine '$status'");
        assert_eq!(settings.proxy_access_log.expect("it is on").format.name, "mine");
        assert_eq!(settings.admin_access_log.expect("it is on").format.name, "combined");
        errors(
            "proxy_access_log = a.log mine",
            &["r.conf:1: proxy_access_log: there is no log format \"mine\"; there are: kong_log_format, combined; \
               log_format declares others"],
        );
        errors(
            "admin_access_log = a.log kong_log_format",
            &[
                "r.conf:1: admin_access_log: the log format \"kong_log_format\" shows $kong_request_id, which it has not",
            ],
        );
        errors(
            "log_format = mine '$bytes'",
            &["r.conf:1: log_format = mine '$bytes': \"mine\": there is no variable $bytes; accepted: name \
               [escape=default|json|none] 'text with $variables', and more of them behind ;"],
        );
    }

    #[test]
    fn plugins_are_those_that_exist() {
        assert_eq!(ok("plugins = bundled").plugins, Plugins::Bundled);
        let some = ok("plugins = key-auth").plugins;
        assert!(some.enabled("key-auth") && !some.enabled("correlation-id"));
        assert!(!ok("plugins = off").plugins.enabled("key-auth"));
        errors(
            "plugins = key-auth, jwt",
            &["r.conf:1: plugins: there is no plugin \"jwt\"; there are: correlation-id, key-auth"],
        );
        assert!(load("plugins = bundled, mine", &[], &[]).unwrap_err()[0].message.contains("mine"));
    }

    #[test]
    fn limits_of_a_head_fit_together() {
        let file = "client_head_bytes_max = 8k";
        assert!(load(file, &[], &[]).unwrap_err()[0].message.contains("client_request_line_bytes_max"));
        ok("client_head_bytes_max = 8k\nclient_request_line_bytes_max = 4k");
    }

    #[test]
    fn a_declarative_document_is_read_without_a_database_only_and_from_one_place() {
        let settings = ok("database = off\ndeclarative_config = kong.yml\nprefix = /p");
        assert_eq!(settings.declarative_config.as_deref(), Some(Path::new("/p/kong.yml")));
        errors(
            "declarative_config = kong.yml",
            &["r.conf:1: declarative_config is read with database = off only; 'ringway config load FILE' \
               (POST /config on the Admin API) brings a document into the embedded store of a running node"],
        );
        errors(
            "database = off\ndeclarative_config = a\ndeclarative_config_string = b",
            &["r.conf:3: declarative_config and declarative_config_string say the same thing; keep one of them"],
        );
    }
}
