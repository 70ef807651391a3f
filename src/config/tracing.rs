//! Kinds of the settings of tracing: what is traced, and which share.

use serde_json::Value as Json;
use serde_json::json;

use super::kind::{Kind, Problem, list};

/// What spans are made of (spec/plugins.md H.2), one bit for each word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Instrumented(u16);

/// In the order of the bits. Those of databases, name servers and HTTP clients give no span: no request waits for any here.
const WORDS: [&str; 9] = [
    "request",
    "router",
    "balancer",
    "plugin_access",
    "plugin_header_filter",
    "plugin_rewrite",
    "db_query",
    "dns_query",
    "http_client",
];

impl Instrumented {
    /// Everything.
    pub fn all() -> Self {
        Self((1 << WORDS.len()) - 1)
    }

    /// Whether there are spans at all.
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// Whole requests.
    pub fn request(self) -> bool {
        self.has(0)
    }

    /// The search for a route.
    pub fn router(self) -> bool {
        self.has(1)
    }

    /// Each try on an upstream.
    pub fn balancer(self) -> bool {
        self.has(2)
    }

    /// The access phase of each plugin.
    pub fn plugin_access(self) -> bool {
        self.has(3)
    }

    /// What each plugin does to the head of a response.
    pub fn plugin_header_filter(self) -> bool {
        self.has(4)
    }

    /// The rewrite phase of each plugin.
    pub fn plugin_rewrite(self) -> bool {
        self.has(5)
    }

    fn has(self, bit: usize) -> bool {
        self.0 & 1 << bit != 0
    }
}

/// `off`, `all` or a list of words.
pub struct Instrumentations;
impl Kind for Instrumentations {
    type Value = Instrumented;
    const ACCEPTS: &'static str = "off, all, a list of request, router, balancer, plugin_rewrite, plugin_access, \
                                   plugin_header_filter, db_query, dns_query, http_client";
    fn parse(text: &str) -> Result<Instrumented, Problem> {
        let mut bits = 0;
        for word in list(text) {
            match word {
                "off" if list(text).count() == 1 => {}
                "all" => bits = Instrumented::all().0,
                word => match WORDS.iter().position(|known| *known == word) {
                    Some(bit) => bits |= 1 << bit,
                    None => return Err(Problem::NotAccepted),
                },
            }
        }
        Ok(Instrumented(bits))
    }
    fn describe(value: &Instrumented) -> Json {
        match *value {
            Instrumented(0) => json!(["off"]),
            all if all == Instrumented::all() => json!(["all"]),
            some => WORDS.iter().enumerate().filter(|(bit, _)| some.has(*bit)).map(|(_, word)| *word).collect(),
        }
    }
}

/// A share, from 0 to 1.
pub struct Share;
impl Kind for Share {
    type Value = f64;
    const ACCEPTS: &'static str = "a number from 0 to 1";
    fn parse(text: &str) -> Result<f64, Problem> {
        text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or(Problem::NotAccepted)
    }
    fn describe(value: &f64) -> Json {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instrumentations_are_words_or_all_or_none() {
        let told = |text: &str| Instrumentations::parse(text).ok().map(|value| Instrumentations::describe(&value));
        assert_eq!(told("off"), Some(json!(["off"])));
        assert_eq!(told("all"), Some(json!(["all"])));
        assert_eq!(told("balancer, request"), Some(json!(["request", "balancer"])));
        assert_eq!(told("off, request"), None);
        assert_eq!(told("everything"), None);
        assert!(Share::parse("1.5").is_err() && Share::parse("NaN").is_err() && Share::parse("0.5").is_ok());
    }
}
