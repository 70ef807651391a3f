//! Sources -> [`Settings`]: precedence, aliases, errors and warnings, and the checks that need several properties.
//! Always: flags over `RINGWAY_` over `KONG_` over the file over defaults; only the value that wins is judged.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file;
use super::foreign::{self, FIXED};
use super::kind::{Kind, Problem};
use super::listen::ListenAddr;
use super::nearest::nearest;
use super::properties::{PROPERTIES, Settings};
use super::words::Plugins;

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
        reader.check_together(&settings);
        if reader.errors.is_empty() { Ok(Loaded { settings, warnings: reader.warnings }) } else { Err(reader.errors) }
    }

    /// Relative paths of properties are meant under the prefix.
    fn put_under_prefix(&mut self) {
        let prefix = self.prefix.clone();
        self.database_path = prefix.join(&self.database_path);
        self.dns_hostsfile = prefix.join(&self.dns_hostsfile);
        for log in [&mut self.proxy_access_log, &mut self.admin_access_log, &mut self.proxy_error_log] {
            *log = log.take().map(|path| prefix.join(path));
        }
        for listen in [&mut self.proxy_listen, &mut self.admin_listen, &mut self.status_listen].into_iter().flatten() {
            if let ListenAddr::Unix(path) = &mut listen.addr {
                *path = prefix.join(&path);
            }
        }
    }
}

impl Reader<'_> {
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
        if let Plugins::Only(names) = &settings.plugins {
            for name in names.iter().filter(|name| !self.plugins.contains(&name.as_str())) {
                let known = self.plugins.join(", ");
                self.error(
                    self.origin("plugins"),
                    format!("plugins: there is no plugin \"{name}\"; there are: {known}"),
                );
            }
        }
        if settings.client_request_line_bytes_max >= settings.client_head_bytes_max {
            let message = "client_request_line_bytes_max must be below client_head_bytes_max, which includes it";
            self.error(self.origin("client_request_line_bytes_max"), message.to_owned());
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
