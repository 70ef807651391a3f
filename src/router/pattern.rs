//! Regexes of routes: paths (`~/users/(?<id>\d+)`) and header values (`~*v[12]`).
//! Always: linear time (no look-around, no back-reference), bounded size; a path regex is anchored at the start only.

use regex::bytes::Regex;
use regex::bytes::RegexBuilder;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;
use regex_syntax::hir::literal::ExtractKind;
use regex_syntax::hir::literal::Extractor;

use crate::limits::ROUTE_REGEX_CACHE_BYTES_MAX;
use crate::limits::ROUTE_REGEX_NESTING_MAX;
use crate::limits::ROUTE_REGEX_PROGRAM_BYTES_MAX;

/// One regex of `paths`, ready to run.
#[derive(Debug)]
pub(super) struct PathRegex {
    pub regex: Regex,
    /// Every path that matches begins with these bytes (possibly none): what the path trie files the regex under.
    pub literal: Box<[u8]>,
    /// Index into `Rules::paths`.
    pub position: u16,
}

impl PathRegex {
    /// `pattern` is the path without its `~`. The error is one line for the operator.
    pub fn compile(pattern: &str, position: u16) -> Result<Self, String> {
        // Parsed alone first: what is only valid inside our anchor, such as `a)(b`, must be refused.
        let hir = parse(pattern)?;
        let regex = build(&format!("^(?:{pattern})"), pattern)?;
        Ok(Self { regex, literal: literal_prefix(&hir), position })
    }
}

/// A header value regex: unanchored, and blind to case as header values are (spec/router.md section 3).
/// `pattern` is the value without its `~*`.
pub(super) fn compile_header(pattern: &str) -> Result<Regex, String> {
    parse(pattern)?;
    build(&format!("(?i:{pattern})"), pattern)
}

fn parse(pattern: &str) -> Result<Hir, String> {
    let parsed = ParserBuilder::new().utf8(false).nest_limit(ROUTE_REGEX_NESTING_MAX).build().parse(pattern);
    parsed.map_err(|error| match error {
        // The full text of these errors draws the pattern over several lines.
        regex_syntax::Error::Parse(error) => refusal(pattern, error.kind()),
        regex_syntax::Error::Translate(error) => refusal(pattern, error.kind()),
        other => refusal(pattern, &other),
    })
}

fn build(wrapped: &str, pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(wrapped)
        .nest_limit(ROUTE_REGEX_NESTING_MAX + 1)
        .size_limit(ROUTE_REGEX_PROGRAM_BYTES_MAX)
        .dfa_size_limit(ROUTE_REGEX_CACHE_BYTES_MAX)
        .build()
        .map_err(|error| refusal(pattern, &error))
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
            let got = PathRegex::compile(pattern, 0).unwrap().literal;
            assert_eq!(String::from_utf8_lossy(&got), want, "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_one_line() {
        for pattern in ["/a([", "/a)(b", r"/(?=x)", r"/(a)\1", "/a{2,1}", "(?<n>a)(?<n>b)", &"(".repeat(500)] {
            let message = PathRegex::compile(pattern, 0).unwrap_err();
            assert!(message.starts_with("invalid regex: '"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let huge = PathRegex::compile(r"/(\w{1000}){1000}", 0).unwrap_err();
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
            ("(?i)/A", "/a", Some(2)),
        ];
        for (pattern, path, want) in cases {
            let compiled = PathRegex::compile(pattern, 0).unwrap();
            let found = compiled.regex.find(path.as_bytes());
            assert_eq!(found.map(|m| m.end()), want, "{pattern} {path}");
        }
    }
}
