//! Lua patterns, in which Kong's schemas say what a string must look like, run by the `regex` crate.
//! Owns: the translation and a cache of what it gave. Never: sees a pattern that is not part of a declaration.
//! Always: matching takes time linear in the input, whatever the input.

use regex::bytes::Regex;
use std::collections::HashMap;
use std::sync::Mutex;

static CACHE: Mutex<Option<HashMap<&'static str, Regex>>> = Mutex::new(None);

/// Whether the Lua pattern matches somewhere in the text. A pattern that uses what has no regular counterpart
/// (`%b`, `%f`, back references) matches nothing; a test keeps such patterns out of the tables.
pub fn matches(lua: &'static str, text: &str) -> bool {
    let mut cache = CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let cache = cache.get_or_insert_default();
    if !cache.contains_key(lua) {
        let Some(regex) = translate(lua).and_then(|source| Regex::new(&source).ok()) else {
            return false;
        };
        cache.insert(lua, regex);
    }
    cache.get(lua).is_some_and(|regex| regex.is_match(text.as_bytes()))
}

/// The regular expression of a Lua pattern.
pub fn translate(lua: &str) -> Option<String> {
    let mut out = String::from("(?s-u)");
    let bytes = lua.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let single = match byte {
            b'^' if at == 1 => {
                out.push('^');
                continue;
            }
            b'$' if at == bytes.len() => {
                out.push('$');
                continue;
            }
            b'(' | b')' => {
                out.push(byte as char);
                continue;
            }
            b'.' => ".".to_string(),
            b'%' => {
                let class = *bytes.get(at)?;
                at += 1;
                escape(class)?
            }
            b'[' => set(bytes, &mut at)?,
            other => literal(other),
        };
        out.push_str(&single);
        match bytes.get(at) {
            Some(b'-') => {
                out.push_str("*?");
                at += 1;
            }
            Some(quantifier @ (b'*' | b'+' | b'?')) => {
                out.push(*quantifier as char);
                at += 1;
            }
            _ => {}
        }
    }
    Some(out)
}

fn set(bytes: &[u8], at: &mut usize) -> Option<String> {
    let mut out = String::from("[");
    if bytes.get(*at) == Some(&b'^') {
        out.push('^');
        *at += 1;
    }
    let start = *at;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        match byte {
            b']' if *at - 1 > start => return Some(out + "]"),
            b'%' => {
                let class = *bytes.get(*at)?;
                *at += 1;
                out.push_str(&escape(class)?);
            }
            b'-' if *at - 1 > start && bytes.get(*at).is_some_and(|next| *next != b']') => out.push('-'),
            other => out.push_str(&literal(other)),
        }
    }
}

fn escape(class: u8) -> Option<String> {
    let name = match class.to_ascii_lowercase() {
        b'a' => "alpha",
        b'c' => "cntrl",
        b'd' => "digit",
        b'l' => "lower",
        b'p' => "punct",
        b's' => "space",
        b'u' => "upper",
        b'w' => "alnum",
        b'x' => "xdigit",
        other if other.is_ascii_alphanumeric() => return None,
        other => return Some(literal(other)),
    };
    let not = if class.is_ascii_uppercase() { "^" } else { "" };
    Some(format!("[[:{not}{name}:]]"))
}

fn literal(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'/' {
        (byte as char).to_string()
    } else {
        format!("\\x{byte:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_schemas_match_as_lua_does() {
        let table: &[(&'static str, &[&str], &[&str])] = &[
            ("^%u+$", &["GET", "FOO"], &["get", "GeT", "", "A B"]),
            ("//", &["a//b", "//"], &["/", "/a/b"]),
            ("^[^*]*%*?[^*]*$", &["a", "*.b", "a.*", "*"], &["*.a.*", "**"]),
            ("^%*%.", &["*.a"], &["a.*", "x*.a"]),
            ("%.%*$", &["a.*"], &["*.a", "a.*b"]),
            ("^[Hh][Oo][Ss][Tt]$", &["host", "HOST"], &["hosts", "xhost"]),
            ("^[a-z][a-z%d-]-[a-z%d]+$", &["ab", "my-vault", "a1"], &["a", "A", "a-", "-a"]),
            ("^[%w-_]+$", &["a-b_c"], &["a b", ""]),
            ("^~/", &["~/a"], &["/a"]),
        ];
        for (lua, good, bad) in table {
            for text in *good {
                assert!(matches(lua, text), "{lua} must match {text:?}");
            }
            for text in *bad {
                assert!(!matches(lua, text), "{lua} must not match {text:?}");
            }
        }
    }

    #[test]
    fn what_is_not_regular_is_not_translated() {
        assert_eq!(translate("%b()"), None);
        assert_eq!(translate("[a"), None);
    }
}
