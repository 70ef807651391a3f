//! Regexes of routes: paths (`~/users/(?<id>\d+)`), header values (`~*v[12]`), and those of expressions.
//! Always: linear time (no look-around, no back-reference), bounded size; a path regex is anchored at the start only, the
//! others not at all.
//!
//! The engine under the `regex` crate is used directly, since it takes what that crate hides: a search that is anchored
//! without rewriting the pattern, and no one-pass automaton, which a group around `\w+` would make 600 KiB large.

use regex_automata::Anchored;
use regex_automata::Input;
use regex_automata::meta::Config;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use regex_syntax::Parser;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::ExtractKind;
use regex_syntax::hir::literal::Extractor;

use crate::limits::ROUTE_REGEX_CACHE_BYTES_MAX;
use crate::limits::ROUTE_REGEX_NESTING_MAX;
use crate::limits::ROUTE_REGEX_PROGRAM_BYTES_MAX;

/// A regex at the start of a path. The program is shared by all clones; each clone has its own scratch memory, and a
/// clone that only one thread uses takes no lock.
#[derive(Clone, Debug)]
pub(super) struct PathRegex(Regex);

impl PathRegex {
    /// `pattern` is the path without its `~`. With the regex comes the literal text that every path it matches begins
    /// with, possibly empty. The error is one line for the operator.
    pub fn compile(pattern: &str) -> Result<(Self, Box<[u8]>), String> {
        let hir = parse(pattern, false)?;
        Ok((Self(build(&hir, pattern)?), literal_prefix(&hir)))
    }

    /// Bytes of the path that are matched from its start.
    pub fn matched_len(&self, path: &[u8]) -> Option<usize> {
        Some(self.0.search_half(&at_start(path))?.offset())
    }

    /// None when the pattern has no groups, or does not match.
    pub fn captures(&self, path: &[u8]) -> Option<Captures> {
        if self.0.captures_len() < 2 {
            return None;
        }
        let mut captures = self.0.create_captures();
        self.0.search_captures(&at_start(path), &mut captures);
        captures.is_match().then_some(captures)
    }
}

fn at_start(path: &[u8]) -> Input<'_> {
    Input::new(path).anchored(Anchored::Yes)
}

/// A regex for a header value: unanchored, and blind to case as header values are (spec/router.md section 3). Clones
/// as a `PathRegex` does.
#[derive(Clone, Debug)]
pub(super) struct ValueRegex(Regex);

impl ValueRegex {
    /// `pattern` is the value without its `~*`.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        Ok(Self(build(&parse(pattern, true)?, pattern)?))
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }
}

/// A regex of an expression: anywhere in a value. Clones as a `PathRegex` does.
#[derive(Clone, Debug)]
pub(super) struct TextRegex {
    regex: Regex,
    /// Every value that matches begins with these bytes.
    literal_start: Box<[u8]>,
}

impl TextRegex {
    /// The error draws the place in the pattern over several lines.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        let hir = parser(false).parse(pattern).map_err(|error| error.to_string())?;
        let is_anchored = hir.properties().look_set_prefix().contains(Look::Start);
        let literal_start = if is_anchored { literal_prefix(&hir) } else { Box::default() };
        Ok(Self { regex: build(&hir, pattern)?, literal_start })
    }

    /// Bytes of the first match.
    pub fn matched_len(&self, value: &[u8]) -> Option<usize> {
        Some(self.regex.find(value)?.len())
    }

    /// None when the pattern has no groups, or does not match.
    pub fn captures(&self, value: &[u8]) -> Option<Captures> {
        if self.regex.captures_len() < 2 {
            return None;
        }
        let mut captures = self.regex.create_captures();
        self.regex.captures(value, &mut captures);
        captures.is_match().then_some(captures)
    }

    pub fn literal_start(&self) -> Box<[u8]> {
        self.literal_start.clone()
    }
}

fn parser(any_case: bool) -> Parser {
    ParserBuilder::new().utf8(false).case_insensitive(any_case).nest_limit(ROUTE_REGEX_NESTING_MAX).build()
}

fn parse(pattern: &str, any_case: bool) -> Result<Hir, String> {
    parser(any_case).parse(pattern).map_err(|error| match error {
        // The full text of these errors draws the pattern over several lines.
        regex_syntax::Error::Parse(error) => refusal(pattern, error.kind()),
        regex_syntax::Error::Translate(error) => refusal(pattern, error.kind()),
        other => refusal(pattern, &other),
    })
}

fn build(hir: &Hir, pattern: &str) -> Result<Regex, String> {
    let config = Config::new()
        .utf8_empty(false)
        .onepass(false)
        .nfa_size_limit(Some(ROUTE_REGEX_PROGRAM_BYTES_MAX))
        .hybrid_cache_capacity(ROUTE_REGEX_CACHE_BYTES_MAX);
    let built = Regex::builder().configure(config).build_from_hir(hir);
    built.map_err(|error| match error.size_limit() {
        Some(limit) => refusal(pattern, &format_args!("compiled, it is larger than {limit} bytes")),
        None => refusal(pattern, &error),
    })
}

fn refusal(pattern: &str, reason: &dyn std::fmt::Display) -> String {
    format!("invalid regex: '{pattern}' ({reason})")
}

fn literal_prefix(hir: &Hir) -> Box<[u8]> {
    let prefixes = Extractor::new().kind(ExtractKind::Prefix).extract(hir);
    prefixes.longest_common_prefix().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_prefix_is_what_every_match_begins_with() {
        let cases = [
            (r"/users/(?<id>\d+)", "/users/"),
            (r"/a/b1", "/a/b1"),
            (r"/foo(/|$)", "/foo"),
            (r"/(foo|bar)/x", "/"),
            (r"/foo|/bar", "/"),
            (r"/foo|x", ""),
            (r"/foob?", "/foo"),
            (r"/v1\.0/", "/v1.0/"),
            (r"(?i)/foo", "/"),
            (r".*", ""),
            (r"/.*", "/"),
            (r"^/a", "/a"),
            (r"", ""),
        ];
        for (pattern, want) in cases {
            let (_, got) = PathRegex::compile(pattern).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), want, "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_one_line() {
        for pattern in ["/a([", "/a)(b", r"/(?=x)", r"/(a)\1", "/a{2,1}", "(?<n>a)(?<n>b)", &"(".repeat(500)] {
            let message = PathRegex::compile(pattern).unwrap_err();
            assert!(message.starts_with("invalid regex: '"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let huge = PathRegex::compile(r"/(\w{1000}){1000}").unwrap_err();
        assert!(!huge.contains('\n'), "{huge}");
    }

    #[test]
    fn a_path_regex_is_anchored_at_the_start_only() {
        let cases = [
            ("/a", "/a", Some(2)),
            ("/a", "/ab", Some(2)),
            ("/a", "/x/a", None),
            ("/a|/b", "/x/b", None),
            ("/a$", "/ab", None),
            ("/A", "/a", None),
            ("/a|/ab", "/ab", Some(2)),
            ("/a.*?", "/ab", Some(2)),
            ("/.", "/é", Some(3)),
            (r"/\w+$", "/naïve", Some(7)),
            ("(?x)/a # one", "/a", Some(2)),
            ("", "/a", Some(0)),
            ("(?i)/A", "/a", Some(2)),
        ];
        for (pattern, path, want) in cases {
            let (regex, _) = PathRegex::compile(pattern).unwrap();
            assert_eq!(regex.matched_len(path.as_bytes()), want, "{pattern} {path}");
        }
    }
}
