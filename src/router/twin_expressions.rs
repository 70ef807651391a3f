//! Tests only. Expressions as trees that print themselves and that are asked of requests in the obvious way, with owned
//! texts throughout: what `expressions` is held to.

use regex::Regex;

use crate::config::Cidr;
use crate::router::twin::Request;
use crate::router::twin::destination_port;
use crate::router::twin::fold;
use crate::router::twin::name_and_port;
use crate::stdx::fuzzing::Chance;

#[derive(Clone, Debug)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Predicate { field: String, functions: &'static [&'static str], operator: &'static str, literal: Literal },
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Text(&'static str),
    Int(i64),
    Ip(&'static str),
}

const FIELDS: &[&str] = &[
    "http.path",
    "http.path",
    "http.path",
    "http.host",
    "http.host",
    "http.method",
    "net.protocol",
    "tls.sni",
    "http.path.segments.0",
    "http.path.segments.1",
    "http.path.segments.0_1",
    "http.path.segments.1_2",
    "http.headers.x_v",
    "http.headers.x_w",
    "http.queries.a",
    "http.queries.b",
];
const INT_FIELDS: &[&str] = &["net.src.port", "net.dst.port", "net.port", "http.path.segments.len"];
const IP_FIELDS: &[&str] = &["net.src.ip", "net.dst.ip"];
const TEXTS: &[&str] = &[
    "", "/", "/a", "/a/b", "/ab", "/b", "a", "b", "a/b", "ab", "GET", "http", "https", "a.test", "x.a.test", ".a.test",
    "a.", ".test", "1", "2", "x y", "A",
];
const REGEXES: &[&str] = &["^/a", "/b$", "^/a/(b+)", "a|b", "^(/a|/b)", "(?i)A", "^a", ".", "[12]", "^/a.*b"];
const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "127.0.0.1/32"];
const IPS: &[&str] = &["10.1.2.3", "127.0.0.1", "fd00::1"];

impl Expression {
    pub fn random(rng: &mut Chance<'_>, depth: u8) -> Self {
        let many = |rng: &mut Chance<'_>| (0..rng.usize(2..4)).map(|_| Self::random(rng, depth - 1)).collect();
        match rng.usize(..10) {
            0..3 if depth > 0 => Self::All(many(rng)),
            3..6 if depth > 0 => Self::Any(many(rng)),
            6 if depth > 0 => Self::Not(Box::new(Self::random(rng, depth - 1))),
            _ => Self::random_predicate(rng),
        }
    }

    fn random_predicate(rng: &mut Chance<'_>) -> Self {
        let one = |rng: &mut Chance<'_>, of: &[&'static str]| of[rng.usize(..of.len())];
        match rng.usize(..12) {
            0 => Self::Predicate {
                field: one(rng, INT_FIELDS).to_owned(),
                functions: &[],
                operator: one(rng, &["==", "!=", ">", ">=", "<", "<="]),
                literal: Literal::Int([0, 1, 2, 80, 8000, 40_000, -1][rng.usize(..7)]),
            },
            1 => {
                let operator = one(rng, &["==", "!=", "in", "not in"]);
                let literals = if operator.ends_with("in") { BLOCKS } else { IPS };
                let literal = Literal::Ip(one(rng, literals));
                Self::Predicate { field: one(rng, IP_FIELDS).to_owned(), functions: &[], operator, literal }
            }
            _ => {
                let operator = one(rng, &["==", "==", "^=", "^=", "=^", "~", "!=", "contains"]);
                let literals = if operator == "~" { REGEXES } else { TEXTS };
                let functions: [&'static [&'static str]; 6] =
                    [&[], &[], &["any"], &["lower"], &["lower", "any"], &["any", "lower"]];
                let literal = Literal::Text(one(rng, literals));
                Self::Predicate {
                    field: one(rng, FIELDS).to_owned(),
                    functions: functions[rng.usize(..6)],
                    operator,
                    literal,
                }
            }
        }
    }

    /// As an operator writes it. `||` binds tighter, so a list of them needs no parentheses inside of `&&`.
    pub fn text(&self) -> String {
        let joined = |list: &[Self], with: &str, needs: fn(&Self) -> bool| {
            let texts = list.iter().map(|one| if needs(one) { format!("({})", one.text()) } else { one.text() });
            texts.collect::<Vec<_>>().join(with)
        };
        match self {
            Self::All(all) => joined(all, " && ", |one| matches!(one, Self::All(_))),
            Self::Any(any) => joined(any, "||", |one| matches!(one, Self::All(_) | Self::Any(_))),
            Self::Not(inner) => format!("!({})", inner.text()),
            Self::Predicate { field, functions, operator, literal } => {
                let called = functions.iter().fold(field.clone(), |inner, name| format!("{name}({inner})"));
                let literal = match literal {
                    Literal::Text(text) if *operator == "~" => format!("r#\"{text}\"#"),
                    Literal::Text(text) => format!("\"{text}\""),
                    Literal::Int(number) => number.to_string(),
                    Literal::Ip(text) => (*text).to_owned(),
                };
                format!("{called} {operator} {literal}")
            }
        }
    }

    pub fn holds(&self, request: &Request, matched_len: &mut Option<usize>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(request, matched_len)),
            Self::Any(any) => any.iter().any(|one| one.holds(request, matched_len)),
            Self::Not(inner) => !inner.holds(request, matched_len),
            Self::Predicate { field, functions, operator, literal } => {
                let mut results = Vec::new();
                for value in values(field, request) {
                    let value = if functions.contains(&"lower") { value.to_lowercase() } else { value };
                    let (passes, len) = compare(&value, operator, literal);
                    if passes && len.is_some() && field == "http.path" {
                        *matched_len = len;
                    }
                    results.push(passes);
                }
                let any = functions.contains(&"any");
                !results.is_empty() && if any { results.contains(&true) } else { !results.contains(&false) }
            }
        }
    }
}

/// All values that a request has of a field, as texts.
fn values(field: &str, request: &Request) -> Vec<String> {
    if let Some(name) = field.strip_prefix("http.headers.") {
        let named = request.headers.0.iter().filter(|(other, _)| fold(other) == name);
        return named.map(|(_, value)| (*value).to_owned()).collect();
    }
    if let Some(name) = field.strip_prefix("http.queries.") {
        let pairs = request.arguments.split('&').filter(|piece| !piece.is_empty());
        let pairs = pairs.map(|piece| piece.split_once('=').unwrap_or((piece, "")));
        return pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.replace("%20", " ").replace('+', " "))
            .collect();
    }
    let mut segments: Vec<&str> = request.path[1..].split('/').collect();
    while segments.last() == Some(&"") {
        segments.pop();
    }
    if let Some(place) = field.strip_prefix("http.path.segments.") {
        if place == "len" {
            return vec![segments.len().to_string()];
        }
        let (first, last) = place.split_once('_').unwrap_or((place, place));
        let range = first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1;
        return segments.get(range).map(|found| found.join("/")).into_iter().collect();
    }
    let only = match field {
        "http.path" => Some(request.path.clone()),
        "http.host" => (!request.host.is_empty()).then(|| name_and_port(&request.host).0.to_owned()),
        "http.method" => Some(request.method.to_owned()),
        "net.protocol" => Some(if request.https { "https" } else { "http" }.to_owned()),
        "tls.sni" => request.sni.map(str::to_owned),
        "net.src.ip" => Some(request.source.ip().to_string()),
        "net.src.port" => Some(request.source.port().to_string()),
        "net.dst.ip" => Some(request.destination.to_string()),
        "net.dst.port" | "net.port" => Some(destination_port(request).to_string()),
        other => panic!("{other}"),
    };
    only.into_iter().collect()
}

/// Whether a value passes, and how much of it was matched by an operator that matches.
fn compare(value: &str, operator: &str, literal: &Literal) -> (bool, Option<usize>) {
    match literal {
        Literal::Text(text) => match operator {
            "==" => (value == *text, Some(text.len())),
            "!=" => (value != *text, None),
            "^=" => (value.starts_with(text), Some(text.len())),
            "=^" => (value.ends_with(text), Some(text.len())),
            "contains" => (value.contains(text), None),
            _ => {
                let found = Regex::new(text).unwrap().find(value).map(|found| found.len());
                (found.is_some(), found)
            }
        },
        Literal::Int(wanted) => {
            let value: i64 = value.parse().unwrap();
            let passes = match operator {
                "==" => value == *wanted,
                "!=" => value != *wanted,
                ">" => value > *wanted,
                ">=" => value >= *wanted,
                "<" => value < *wanted,
                _ => value <= *wanted,
            };
            (passes, None)
        }
        Literal::Ip(wanted) => {
            let ip: std::net::IpAddr = value.parse().unwrap();
            let passes = match operator {
                "==" => value == *wanted,
                "!=" => value != *wanted,
                "in" => Cidr::parse(wanted).unwrap().contains(ip),
                _ => !Cidr::parse(wanted).unwrap().contains(ip),
            };
            (passes, None)
        }
    }
}
