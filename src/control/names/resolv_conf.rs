//! resolv.conf: which name servers there are, how a short name is completed, how long to wait.
//! Always: LOCALDOMAIN and RES_OPTIONS of the environment win, as with the system's own resolver.
//!
//! spec/balancer.md section 3.

use std::time::Duration;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::system_conf;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a name server may take, and how often the servers are asked, where nobody says it. Together less than
/// [`crate::limits::FIRST_RESOLUTION_MS`], so that a request that waits is told the reason.
pub const PATIENCE: Duration = Duration::from_secs(2);
pub const ATTEMPTS: usize = 2;
/// So many name servers, and domains of a search list, are used.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

/// The system's resolver configuration.
pub struct System {
    pub config: ResolverConfig,
    pub options: ResolverOpts,
    pub search: Search,
}

/// What stands behind names that are written short.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Search {
    /// Without dots at their ends.
    domains: Vec<String>,
    /// A name with fewer dots is tried with the domains first.
    ndots: usize,
}

impl System {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// No name server is named there.
    pub fn read() -> Result<Self, String> {
        let text = std::fs::read(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        let variable = |name| std::env::var(name).unwrap_or_default();
        let text =
            with_environment(&String::from_utf8_lossy(&text), &variable("LOCALDOMAIN"), &variable("RES_OPTIONS"));
        Self::parse(&text).map_err(|error| format!("{RESOLV_CONF}: {error}"))
    }

    /// What holds where there is no such file: no name server, no search list.
    pub fn absent() -> Self {
        let options = patient(ResolverOpts::default(), "");
        let search = Search { domains: Vec::new(), ndots: options.ndots };
        Self { config: ResolverConfig::default(), options, search }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = usable_lines(text);
        let (config, options) = system_conf::parse_resolv_conf(&text).map_err(|error| error.to_string())?;
        let domains = config.search().iter().map(|domain| domain.to_utf8().trim_matches('.').to_owned());
        let domains = domains.filter(|domain| !domain.is_empty()).take(MOST_DOMAINS).collect();
        let options = patient(options, &text);
        let search = Search { domains, ndots: options.ndots };
        Ok(Self { config, options, search })
    }
}

impl Search {
    /// The names to ask for, with dots at their ends, in this order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        let name = name.to_ascii_lowercase();
        if name.ends_with('.') {
            return vec![name];
        }
        let mut names: Vec<String> = self.domains.iter().map(|domain| format!("{name}.{domain}.")).collect();
        let is_short = name.matches('.').count() < self.ndots;
        names.insert(if is_short { names.len() } else { 0 }, format!("{name}."));
        names
    }
}

/// Later lines win over earlier ones.
fn with_environment(text: &str, domains: &str, options: &str) -> String {
    let mut text = text.to_owned();
    for (keyword, words) in [("search", domains), ("options", options)] {
        if !words.trim().is_empty() {
            text += &format!("\n{keyword} {}", words.trim());
        }
    }
    text + "\n"
}

/// Leaves out name servers behind an interface scope, and those that are too many.
fn usable_lines(text: &str) -> String {
    let mut servers = 0;
    let usable = |line: &&str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return true;
        }
        let usable = words.next().is_some_and(|ip| !ip.contains('%')) && servers < MOST_SERVERS;
        servers += usize::from(usable);
        usable
    };
    text.lines().filter(usable).flat_map(|line| [line, "\n"]).collect()
}

fn patient(mut options: ResolverOpts, text: &str) -> ResolverOpts {
    let lines = text.lines().map(str::split_whitespace);
    let of_options = lines.filter_map(|mut words| (words.next() == Some("options")).then_some(words));
    let said: Vec<&str> = of_options.flatten().filter_map(|word| Some(word.split_once(':')?.0)).collect();
    if !said.contains(&"timeout") {
        options.timeout = PATIENCE;
    }
    if !said.contains(&"attempts") {
        options.attempts = ATTEMPTS;
    }
    // The resolver counts repetitions.
    options.attempts = options.attempts.saturating_sub(1);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> System {
        System::parse(text).unwrap()
    }

    #[test]
    fn short_names_are_tried_with_the_search_list_first() {
        let System { search, options, .. } = parse("nameserver 127.0.0.1\nsearch a.test b.\noptions ndots:2\n");
        assert_eq!((options.ndots, options.timeout, options.attempts), (2, PATIENCE, ATTEMPTS - 1));
        for (name, candidates) in [
            ("X", ["x.a.test.", "x.b.", "x."].as_slice()),
            ("x.y", &["x.y.a.test.", "x.y.b.", "x.y."]),
            ("x.y.z", &["x.y.z.", "x.y.z.a.test.", "x.y.z.b."]),
            ("x.", &["x."]),
        ] {
            assert_eq!(search.candidates(name), candidates);
        }
        assert_eq!(System::absent().search.candidates("x"), ["x."]);
    }

    #[test]
    fn the_patience_of_the_file_counts() {
        let System { options, .. } =
            parse("nameserver 127.0.0.1\noptions rotate timeout:7\noptions attempts:3 edns0\n");
        assert_eq!((options.timeout, options.attempts), (Duration::from_secs(7), 2));
        assert!(System::parse("# nothing\n").is_err(), "no name server");
    }

    #[test]
    fn the_environment_wins() {
        let text = "nameserver 127.0.0.1\nsearch a b\noptions ndots:2 timeout:9";
        let System { search, options, .. } = parse(&with_environment(text, "c", "timeout:1"));
        assert_eq!((search.domains, search.ndots), (vec!["c".to_owned()], 2));
        assert_eq!(options.timeout, Duration::from_secs(1));
        assert_eq!(parse(&with_environment(text, " ", "")).search.domains, ["a", "b"]);
    }

    #[test]
    fn three_name_servers_count_and_none_behind_a_scope() {
        let text =
            "nameserver fe80::1%eth0\nnameserver 1.1.1.1\nnameserver ::2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n";
        let servers: Vec<String> = parse(text).config.name_servers().iter().map(|s| s.ip.to_string()).collect();
        assert_eq!(servers, ["1.1.1.1", "::2", "3.3.3.3"]);
    }

    #[test]
    fn six_domains_count() {
        let text = "nameserver 127.0.0.1\nsearch a b c d e f g\n";
        assert_eq!(parse(text).search.domains, ["a", "b", "c", "d", "e", "f"]);
    }
}
