//! Kinds with a closed set of words: levels, drivers, formats, record types, plugins.

use serde_json::{Value as Json, json};

use super::kind::{Kind, Problem, list, strings};

/// How many data-plane threads run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that the process may run on.
    Auto,
    Count(u16),
}

impl Workers {
    /// How many workers that makes on `cpus` usable CPUs; at least one.
    pub fn on(self, cpus: usize) -> usize {
        match self {
            Self::Auto => cpus.max(1),
            Self::Count(count) => usize::from(count),
        }
    }
}

pub struct WorkerCount;
impl Kind for WorkerCount {
    type Value = Workers;
    const ACCEPTS: &'static str = "auto, 1-1024";
    fn parse(text: &str) -> Result<Workers, Problem> {
        match text {
            "auto" => Ok(Workers::Auto),
            _ => match text.parse::<u16>() {
                Ok(count @ 1..=1024) => Ok(Workers::Count(count)),
                _ => Err(Problem::NotAccepted),
            },
        }
    }
    fn describe(value: &Workers) -> Json {
        match value {
            Workers::Auto => json!("auto"),
            Workers::Count(count) => json!(count),
        }
    }
}

/// Which plugins may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugins {
    /// All that the program has.
    Bundled,
    /// These only; empty for none.
    Only(Vec<String>),
}

impl Plugins {
    pub fn enabled(&self, name: &str) -> bool {
        match self {
            Self::Bundled => true,
            Self::Only(names) => names.iter().any(|n| n == name),
        }
    }
}

/// `bundled`, `off`, or names. Which names exist is checked by the loader, which is told them.
pub struct PluginNames;
impl Kind for PluginNames {
    type Value = Plugins;
    const ACCEPTS: &'static str = "bundled, off, a list of plugin names";
    fn parse(text: &str) -> Result<Plugins, Problem> {
        let names: Vec<String> = list(text).map(str::to_owned).collect();
        if names.iter().any(|name| name == "bundled") {
            // `bundled, custom` of Kong: the unknown one must still be refused, so it is kept.
            let others: Vec<String> = names.into_iter().filter(|name| name != "bundled").collect();
            return if others.is_empty() { Ok(Plugins::Bundled) } else { Err(Problem::Because(not_bundled(&others))) };
        }
        match names.as_slice() {
            [off] if off == "off" => Ok(Plugins::Only(Vec::new())),
            _ => Ok(Plugins::Only(names)),
        }
    }
    fn describe(value: &Plugins) -> Json {
        match value {
            Plugins::Bundled => json!(["bundled"]),
            Plugins::Only(names) if names.is_empty() => json!(["off"]),
            Plugins::Only(names) => json!(names),
        }
    }
}

fn not_bundled(names: &[String]) -> String {
    format!("plugins from outside are not supported, so nothing may stand beside \"bundled\": {}", names.join(", "))
}

/// A set of words, each standing for one value; the first spelling is the one shown.
macro_rules! word_kind {
    ($(#[$meta:meta])* $kind:ident => $value:ident, accepts $accepts:literal { $($word:literal => $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $value { $($variant,)+ }

        impl $value {
            /// The word in the configuration.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
            /// The value of a word.
            pub fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        pub struct $kind;
        impl Kind for $kind {
            type Value = $value;
            const ACCEPTS: &'static str = $accepts;
            fn parse(text: &str) -> Result<$value, Problem> {
                $value::of(text).ok_or(Problem::NotAccepted)
            }
            fn describe(value: &$value) -> Json {
                json!(value.word())
            }
        }
    };
}

word_kind! {
    /// How much is logged, from most to least. `notice` adds nothing to `info`, and `crit` and above leave only errors:
    /// the program itself speaks in five levels.
    LogLevels => LogLevel, accepts "debug, info, notice, warn, error, crit, alert, emerg" {
        "debug" => Debug,
        "info" => Info,
        "notice" => Notice,
        "warn" => Warn,
        "error" => Error,
        "crit" => Crit,
        "alert" => Alert,
        "emerg" => Emerg,
    }
}

word_kind! {
    /// How the data plane talks to the kernel.
    Drivers => Driver, accepts "auto, io_uring, epoll" {
        "auto" => Auto,
        "io_uring" => IoUring,
        "epoll" => Epoll,
    }
}

word_kind! {
    /// How routes are told apart (spec/router.md section 1).
    RouterFlavors => RouterFlavor, accepts "traditional_compatible, traditional, expressions" {
        "traditional_compatible" => TraditionalCompatible,
        "traditional" => Traditional,
        "expressions" => Expressions,
    }
}

word_kind! {
    /// The format of error pages for a client that names none (spec/proxying.md 7.2).
    ErrorTypes => ErrorType, accepts "text/plain, text/html, application/json, application/xml" {
        "text/plain" => Plain,
        "text/html" => Html,
        "application/json" => Json,
        "application/xml" => Xml,
    }
}

word_kind! {
    /// A type of DNS record to ask for, in order; `Last` is the one that answered last for the name.
    DnsRecords => DnsRecord, accepts "LAST, SRV, A, AAAA, CNAME" {
        "LAST" => Last,
        "SRV" => Srv,
        "A" => A,
        "AAAA" => Aaaa,
        "CNAME" => Cname,
    }
}

/// A list of [`DnsRecord`].
pub struct DnsOrder;
impl Kind for DnsOrder {
    type Value = Vec<DnsRecord>;
    const ACCEPTS: &'static str = "a list of LAST, SRV, A, AAAA, CNAME";
    fn parse(text: &str) -> Result<Vec<DnsRecord>, Problem> {
        list(text).map(|part| DnsRecords::parse(&part.to_ascii_uppercase())).collect()
    }
    fn describe(value: &Vec<DnsRecord>) -> Json {
        strings(value.iter().map(|record| record.word()))
    }
}

/// A list of the [`DnsRecord`]s that the other DNS client knows.
pub struct ResolverFamily;
impl Kind for ResolverFamily {
    type Value = Vec<DnsRecord>;
    const ACCEPTS: &'static str = "a list of A, AAAA, SRV";
    fn parse(text: &str) -> Result<Vec<DnsRecord>, Problem> {
        let records = DnsOrder::parse(text)?;
        let known = |record| matches!(record, DnsRecord::A | DnsRecord::Aaaa | DnsRecord::Srv);
        if records.iter().copied().all(known) { Ok(records) } else { Err(Problem::NotAccepted) }
    }
    fn describe(value: &Vec<DnsRecord>) -> Json {
        DnsOrder::describe(value)
    }
}

/// Kong's.
impl Default for RouterFlavor {
    fn default() -> Self {
        Self::TraditionalCompatible
    }
}

/// Where the configuration lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file of this node.
    Embedded,
    /// Memory only, filled from a declarative document.
    Off,
}

pub struct Databases;
impl Kind for Databases {
    type Value = Database;
    const ACCEPTS: &'static str = "embedded, off";
    fn parse(text: &str) -> Result<Database, Problem> {
        match text {
            "embedded" => Ok(Database::Embedded),
            "off" => Ok(Database::Off),
            "postgres" => Err(Problem::not_yet("a PostgreSQL store")),
            "cassandra" => Err(Problem::because("Kong dropped Cassandra, and it does not exist here")),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &Database) -> Json {
        json!(match value {
            Database::Embedded => "embedded",
            Database::Off => "off",
        })
    }
}
