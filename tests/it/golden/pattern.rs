//! Recorded texts with placeholders, matched against real ones.
//! Always: a numbered placeholder stands for the same value wherever it occurs.

use std::collections::HashMap;

use serde_json::Value;

/// What the placeholders stand for.
pub struct Pattern {
    /// Known before: ports and product. Pairs of placeholder and text.
    known: Vec<(String, String)>,
    /// Learned at their first occurrence.
    bound: HashMap<String, String>,
}

impl Pattern {
    /// With the texts that are known.
    pub fn new(known: Vec<(String, String)>) -> Self {
        Self { known, bound: HashMap::new() }
    }

    /// Forgets what belongs to one exchange.
    pub fn begin_exchange(&mut self) {
        self.bound.remove("<request_id>");
    }

    /// Puts in what is known.
    pub fn put_in(&self, text: &str) -> String {
        let put = |text: String, (name, real): &(String, String)| match text.contains(name.as_str()) {
            true => text.replace(name.as_str(), real),
            false => text,
        };
        self.known.iter().fold(text.to_owned(), put)
    }

    /// Whether `got` is what `want` describes.
    pub fn matches(&mut self, want: &str, got: &str) -> bool {
        let want = self.put_in(want);
        let (mut want, mut got) = (want.as_str(), got);
        loop {
            let Some((start, end)) = next_placeholder(want) else { return want == got };
            let Some(rest) = got.strip_prefix(&want[..start]) else { return false };
            let name = &want[start..end];
            let Some(len) = length_of(name, rest) else { return false };
            let value = &rest[..len];
            let is_bound = name == "<request_id>" || name.starts_with("<uuid:") || name.starts_with("<key:");
            if is_bound && self.bound.entry(name.to_owned()).or_insert_with(|| value.to_owned()) != value {
                return false;
            }
            (want, got) = (&want[end..], &rest[len..]);
        }
    }

    /// Adds every place where two JSON values differ. Order of members does not count.
    pub fn differences(&mut self, at: &str, want: &Value, got: &Value, found: &mut Vec<String>) {
        match (want, got) {
            (Value::Object(w), Value::Object(g)) => {
                for (name, want) in w {
                    match g.get(name) {
                        Some(got) => self.differences(&format!("{at}.{name}"), want, got, found),
                        None => found.push(format!("{at}: no {name}")),
                    }
                }
                let surplus = g.iter().filter(|(name, _)| !w.contains_key(*name));
                found.extend(surplus.map(|(name, value)| format!("{at}: {name} = {value} too many")));
            }
            (Value::Array(w), Value::Array(g)) if w.len() == g.len() => {
                w.iter().zip(g).for_each(|(want, got)| self.differences(at, want, got, found));
            }
            (Value::String(w), Value::String(g)) if self.matches(w, g) => {}
            (Value::String(w), Value::Number(g)) if w.starts_with('<') && self.matches(w, &g.to_string()) => {}
            _ if want == got => {}
            _ => found.push(format!("{at}: {got} instead of {want}")),
        }
    }
}

/// Where the first placeholder of a known kind stands.
fn next_placeholder(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find('<')?;
        let end = start + text[start..].find('>')? + 1;
        if kind_of(&text[start..end]).is_some() {
            return Some((start, end));
        }
        from = start + 1;
    }
}

/// What may stand for a placeholder.
struct Kind {
    allowed: fn(char) -> bool,
    length: Option<usize>,
}

fn kind_of(name: &str) -> Option<Kind> {
    let inner = name.strip_prefix('<')?.strip_suffix('>')?;
    let digits: fn(char) -> bool = |c| c.is_ascii_digit();
    let (allowed, length): (fn(char) -> bool, _) = match inner.split(':').next()? {
        "request_id" => (|c| c.is_ascii_digit() || ('a'..='f').contains(&c), Some(32)),
        "cache_key" => (|c| c.is_ascii_digit() || ('a'..='f').contains(&c), Some(64)),
        "uuid" => (|c| c.is_ascii_hexdigit() || c == '-', Some(36)),
        "key" => (|c| c.is_ascii_alphanumeric(), Some(32)),
        "ms" | "ms_epoch" | "n" | "len" | "pid" | "conn" | "sec" => (digits, None),
        "time" => (|c| c.is_ascii_digit() || c == '.', None),
        "date" => (|c| c.is_ascii_alphanumeric() || " ,:".contains(c), Some("Thu, 01 Jan 1970 00:00:00 GMT".len())),
        "hostname" => (|c| c.is_ascii_alphanumeric() || "-._".contains(c), None),
        _ => return None,
    };
    Some(Kind { allowed, length })
}

/// How much of `text` the placeholder stands for.
fn length_of(name: &str, text: &str) -> Option<usize> {
    let kind = kind_of(name)?;
    // A time that did not come.
    if name == "<n>" && text == "-1" {
        return Some(text.len());
    }
    let run = text.find(|c| !(kind.allowed)(c)).unwrap_or(text.len());
    match kind.length {
        Some(length) => (run >= length).then_some(length),
        None => (run > 0).then_some(run),
    }
}
