//! Recorded bodies of the Admin API, matched against real ones: ids that the server makes are bound at their first
//! occurrence, and rows come in the order of such ids.

use std::collections::HashMap;

use serde_json::Map;
use serde_json::Value;

/// Lists whose order is not defined.
const UNORDERED: &[&str] = &["data", "flattened_errors", "errors", "enabled_plugins"];

/// What the placeholders stand for.
#[derive(Clone, Default)]
pub struct Bindings {
    /// Texts that are put in before a request is sent: ports, certificates.
    known: Vec<(String, String)>,
    bound: HashMap<String, String>,
}

/// What is left of a time to live depends on how long the requests before took.
fn fits_ttl(want: &Value, got: &Value) -> bool {
    match (want.as_u64(), got.as_u64()) {
        (Some(want), Some(got)) => (want.saturating_sub(TTL_SLACK_SECONDS)..=want).contains(&got),
        _ => want == got,
    }
}

const TTL_SLACK_SECONDS: u64 = 60;

impl Bindings {
    /// With the texts that are known.
    pub fn new(known: Vec<(String, String)>) -> Self {
        Self { known, bound: HashMap::new() }
    }

    /// Puts what is known into a text; `None`: a placeholder in it is not bound yet.
    pub fn fill(&self, text: &str) -> Option<String> {
        let mut out = text.to_owned();
        let known = self.known.iter().map(|(name, value)| (name, value));
        for (name, value) in known.chain(&self.bound) {
            out = out.replace(name.as_str(), value);
        }
        let unknown = ["<uuid:", "<key:", "<offset:"].iter().any(|start| out.contains(start));
        (!unknown).then_some(out)
    }

    /// Whether `got` is what `want` describes; only then new placeholders are bound.
    pub fn matches(&mut self, want: &Value, got: &Value) -> bool {
        let mut trial = self.clone();
        let fits = trial.fits(want, got);
        if fits {
            *self = trial;
        }
        fits
    }

    fn fits(&mut self, want: &Value, got: &Value) -> bool {
        if want == "<volatile>" {
            return true;
        }
        match (want, got) {
            (Value::Object(want), Value::Object(got)) => {
                want.len() == got.len()
                    && want.iter().all(|(name, want)| {
                        let got = got.get(&self.key(name, got));
                        got.is_some_and(|got| match UNORDERED.contains(&name.as_str()) {
                            true => self.fits_unordered(want, got),
                            false if name == "config" && got.is_string() => self.fits_yaml(want, got),
                            false if name == "ttl" => fits_ttl(want, got),
                            false => self.fits(want, got),
                        })
                    })
            }
            (Value::Array(want), Value::Array(got)) => {
                want.len() == got.len() && want.iter().zip(got).all(|(want, got)| self.fits(want, got))
            }
            (Value::String(want), Value::Number(got)) if want.starts_with('<') && want.ends_with('>') => {
                let known = self.known.iter().find(|(name, _)| name == want);
                known.is_none_or(|(_, value)| *value == got.to_string())
            }
            (Value::String(want), Value::String(got)) => self.fits_text(want, got),
            (Value::Number(want), Value::Number(got)) => want.as_f64() == got.as_f64(),
            // An empty table of Lua is both.
            (Value::Object(want), Value::Array(got)) => want.is_empty() && got.is_empty(),
            _ => want == got,
        }
    }

    /// Two YAML texts that say the same.
    fn fits_yaml(&mut self, want: &Value, got: &Value) -> bool {
        let read = |text: &Value| serde_norway::from_str::<Value>(text.as_str().unwrap_or_default()).ok();
        match (read(want), read(got)) {
            (Some(want), Some(got)) => self.fits(&want, &got),
            _ => false,
        }
    }

    /// The name under which a value stands; one that is a placeholder is bound if there is no other.
    fn key(&mut self, name: &str, got: &Map<String, Value>) -> String {
        if !name.starts_with('<') {
            return name.to_owned();
        }
        if let Some(bound) = self.bound.get(name) {
            return bound.clone();
        }
        let free = got.keys().find(|key| !self.bound.values().any(|bound| bound == *key));
        let free = free.cloned().unwrap_or_default();
        self.bound.entry(name.to_owned()).or_insert(free).clone()
    }

    /// Ids are random, so the rows of a page come in any order.
    fn fits_unordered(&mut self, want: &Value, got: &Value) -> bool {
        let (Value::Array(want), Value::Array(got)) = (want, got) else {
            return self.fits(want, got);
        };
        let mut left: Vec<&Value> = got.iter().collect();
        let all = want.iter().all(|want| {
            let found = left.iter().position(|got| self.matches(want, got));
            found.map(|at| left.remove(at)).is_some()
        });
        all && left.is_empty()
    }

    fn fits_text(&mut self, want: &str, got: &str) -> bool {
        let product = self.known.iter().find(|(name, _)| !name.starts_with('<') && want.contains(name.as_str()));
        if let Some((name, value)) = product {
            let want = want.replace(name.as_str(), value);
            return self.fits_text(&want, got);
        }
        if want.starts_with("<html>") {
            return want == got;
        }
        let Some(start) = want.find('<').filter(|start| want[*start..].contains('>')) else {
            return want == got;
        };
        let end = start + want[start..].find('>').unwrap_or_default() + 1;
        let (before, name, after) = (&want[..start], &want[start..end], &want[end..]);
        let Some(rest) = got.strip_prefix(before) else {
            return false;
        };
        let known = self.known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match known.or_else(|| self.bound.get(name).cloned()) {
            Some(value) => rest.strip_prefix(&value).is_some_and(|rest| self.fits_text(after, rest)),
            None => {
                // The value reaches to where the text after it begins.
                let literal = after.split('<').next().unwrap_or_default();
                let length = if literal.is_empty() { Some(rest.len()) } else { rest.find(literal) };
                let Some(length) = length else {
                    return false;
                };
                if name.contains(':') {
                    self.bound.insert(name.to_owned(), rest[..length].to_owned());
                }
                self.fits_text(after, &rest[length..])
            }
        }
    }
}
