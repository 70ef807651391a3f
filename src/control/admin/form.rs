//! Form keys are little paths (`a[1].b`, `tags[]`); here a list of pairs becomes one JSON object of strings.
//! Owns: the key grammar of spec/admin-api.md section 2.4. Never: types a value (that is `entity::coerce`).
//! Always: a key that does not follow the grammar is one literal key.

use crate::limits::ADMIN_JSON_DEPTH_MAX;
use percent_encoding::percent_decode;
use serde_json::Map;
use serde_json::Value;
use std::borrow::Cow;

/// One argument; `None`: it had no `=`.
pub type Pair = (String, Option<String>);

/// Splits `a=1&b=2`, decodes both sides.
///
/// # Errors
/// More than `most` arguments, or text that is not UTF-8.
pub fn pairs(text: &[u8], most: usize) -> Result<Vec<Pair>, BadForm> {
    let mut out = Vec::new();
    for part in text.split(|byte| *byte == b'&').filter(|part| !part.is_empty()) {
        if out.len() == most {
            return Err(BadForm::TooMany);
        }
        let (key, value) = match part.iter().position(|byte| *byte == b'=') {
            Some(at) => (&part[..at], Some(&part[at + 1..])),
            None => (part, None),
        };
        out.push((decode(key)?, value.map(decode).transpose()?));
    }
    Ok(out)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadForm {
    TooMany,
    NotUtf8,
}

fn decode(text: &[u8]) -> Result<String, BadForm> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded: Cow<'_, [u8]> = percent_decode(&spaced).into();
    String::from_utf8(decoded.into_owned()).map_err(|_| BadForm::NotUtf8)
}

/// What one part of a key selects.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    /// Counts from 1.
    Index(usize),
    /// `[]`
    Append,
}

/// A value that is still growing.
#[derive(Default)]
struct Node {
    /// Values given to this very key.
    leaves: Vec<Value>,
    appended: Vec<Node>,
    indexed: Vec<(usize, Node)>,
    named: Vec<(String, Node)>,
}

/// Builds the object; `brackets`: `a[b]` is a path (it is in bodies, not in queries).
pub fn object(pairs: Vec<Pair>, brackets: bool) -> Map<String, Value> {
    let mut root = Node::default();
    for (key, value) in pairs {
        let value = value.map_or(Value::Bool(true), Value::String);
        let steps = steps(&key, brackets).unwrap_or_else(|| vec![Step::Name(key.clone())]);
        root.descend(&steps).leaves.push(value);
    }
    match root.into_value() {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The parts of a key; `None` when it does not follow the grammar.
fn steps(key: &str, brackets: bool) -> Option<Vec<Step>> {
    // Shells and libraries escape brackets once more often than needed.
    let unescaped = key.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]").replace("%5d", "]");
    let mut rest = unescaped.as_str();
    let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
    let mut steps = vec![Step::Name(rest[..end].to_string()).named()?];
    rest = &rest[end..];
    while let Some(first) = rest.chars().next() {
        if steps.len() >= ADMIN_JSON_DEPTH_MAX {
            return None;
        }
        match first {
            '.' => {
                let end = rest[1..].find(['.', '[', ']']).map_or(rest.len(), |at| at + 1);
                steps.push(Step::Name(rest[1..end].to_string()).named()?);
                rest = &rest[end..];
            }
            '[' => {
                let end = rest.find(']')?;
                let inner = &rest[1..end];
                rest = &rest[end + 1..];
                // `a[].b` is not a list (a quirk kept for compatibility), `a[][b]` is.
                if inner.is_empty() && rest.starts_with('.') {
                    continue;
                }
                let index = inner.parse::<usize>().ok().filter(|_| inner.bytes().all(|byte| byte.is_ascii_digit()));
                steps.push(match index {
                    _ if inner.is_empty() => Step::Append,
                    Some(index) if index > 0 => Step::Index(index),
                    _ if brackets => Step::Name(inner.to_string()),
                    _ => return None,
                });
            }
            _ => return None,
        }
    }
    Some(steps)
}

impl Step {
    fn named(self) -> Option<Step> {
        if matches!(&self, Step::Name(name) if name.is_empty()) { None } else { Some(self) }
    }
}

impl Node {
    fn descend(&mut self, steps: &[Step]) -> &mut Node {
        let Some((step, rest)) = steps.split_first() else {
            return self;
        };
        let child = match step {
            Step::Append => {
                self.appended.push(Node::default());
                self.appended.last_mut().expect("just pushed")
            }
            Step::Index(index) => slot(&mut self.indexed, index),
            Step::Name(name) => slot(&mut self.named, name),
        };
        child.descend(rest)
    }

    fn into_value(mut self) -> Value {
        self.indexed.sort_by_key(|(index, _)| *index);
        let gapless = self.indexed.iter().enumerate().all(|(at, (index, _))| at + 1 == *index);
        if self.named.is_empty() && gapless && !(self.indexed.is_empty() && self.appended.is_empty()) {
            let children = self.indexed.into_iter().map(|(_, node)| node).chain(self.appended);
            return self.leaves.into_iter().chain(children.map(Node::into_value)).collect();
        }
        if self.named.is_empty() && self.indexed.is_empty() {
            return match self.leaves.len() {
                1 => self.leaves.swap_remove(0),
                0 => Value::Object(Map::new()),
                _ => Value::Array(self.leaves),
            };
        }
        // Mixed keys: an object, as a Lua table would be.
        let indexed = self.indexed.into_iter().map(|(index, node)| (index.to_string(), node));
        let children = indexed.chain(self.named);
        Value::Object(children.map(|(name, node)| (name, node.into_value())).collect())
    }
}

fn slot<'a, K: PartialEq + Clone>(children: &'a mut Vec<(K, Node)>, key: &K) -> &'a mut Node {
    let at = children.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        children.push((key.clone(), Node::default()));
        children.len() - 1
    });
    &mut children[at].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(form: &str, want: Value) {
        let pairs = pairs(form.as_bytes(), 1000).unwrap();
        assert_eq!(Value::Object(object(pairs, true)), want, "{form}");
    }

    #[test]
    fn the_table_of_the_specification() {
        check("a=1", json!({"a": "1"}));
        check("a=1&a=2", json!({"a": ["1", "2"]}));
        check("a[]=1&a[]=2", json!({"a": ["1", "2"]}));
        check("a[2]=2&a[1]=1", json!({"a": ["1", "2"]}));
        check("a.b=1", json!({"a": {"b": "1"}}));
        check("a[b]=1", json!({"a": {"b": "1"}}));
        check("a.b.c=1&a.b.d=2", json!({"a": {"b": {"c": "1", "d": "2"}}}));
        check("a[b][c]=1&a[b].d=2", json!({"a": {"b": {"c": "1", "d": "2"}}}));
        check("a.b=1&a.b=2", json!({"a": {"b": ["1", "2"]}}));
        check("a.b[]=1&a.b[]=2", json!({"a": {"b": ["1", "2"]}}));
        check("a.b[1]=1&a.b[2]=2", json!({"a": {"b": ["1", "2"]}}));
        check("a[1].b=1&a[1].c=2&a[2].b=3", json!({"a": [{"b": "1", "c": "2"}, {"b": "3"}]}));
        check("a[][b]=1", json!({"a": [{"b": "1"}]}));
        check("a[].b=1", json!({"a": {"b": "1"}}));
        check("a[x.y]=1", json!({"a": {"x.y": "1"}}));
        check("a.b[x.y]=1", json!({"a": {"b": {"x.y": "1"}}}));
        check("a.1=x", json!({"a": {"1": "x"}}));
        check("a[0]=x", json!({"a": {"0": "x"}}));
        check("a[1]=x&a[3]=y", json!({"a": {"1": "x", "3": "y"}}));
        check("a[1][1]=x&a[1][2]=y", json!({"a": [["x", "y"]]}));
        check("a=", json!({"a": ""}));
        check("a", json!({"a": true}));
        check("a[b=1", json!({"a[b": "1"}));
        check("a]b=1", json!({"a]b": "1"}));
        check(".a=1", json!({".a": "1"}));
        check("a.=1", json!({"a.": "1"}));
        check("paths%5B%5D=/a", json!({"paths": ["/a"]}));
        check("paths%255B%255D=/a", json!({"paths": ["/a"]}));
        check("a=b+c%2Bd", json!({"a": "b c+d"}));
    }

    #[test]
    fn queries_have_no_bracket_maps() {
        let pairs = pairs(b"a[b]=1", 1000).unwrap();
        assert_eq!(Value::Object(object(pairs, false)), json!({"a[b]": "1"}));
    }

    #[test]
    fn arguments_are_bounded() {
        assert_eq!(pairs(b"a&b&c", 2), Err(BadForm::TooMany));
        assert_eq!(pairs(b"a=%ff", 2), Err(BadForm::NotUtf8));
    }
}
