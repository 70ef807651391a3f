//! The import rule of `src/lib.rs`, held by reading the sources: folders import downwards only, and each big library is
//! named in one place. Lengths, paragraphs and names are a reader's judgement and not checked here.
//! Reading is by words, so imports keep to forms that words show: no braces right after `use crate::`, and no chain of
//! `super` that leaves its own folder.

use std::fs;
use std::path::{Path, PathBuf};

/// Every folder or file right under `src/`, with its layer. A folder may import itself and lower layers; folders of
/// one layer never import each other, except those of the first, and of the program itself.
const LAYERS: &[(&str, u8)] = &[
    ("limits", 0),
    ("stdx", 0),
    ("http", 1),
    ("entity", 1),
    ("metrics", 1),
    ("config", 1),
    ("router", 2),
    ("plugins", 2),
    ("balancer", 2),
    ("state", 3),
    ("proxy", 4),
    ("control", 4),
    ("start", 5),
    ("cli", 5),
    ("main", 5),
];

/// What the program's own files share with each other.
const PROGRAM_LAYER: u8 = 5;

/// Exported macros stand at the root whatever folder defines them.
const MACROS: &[(&str, &str)] = &[("strs", "entity")];

/// Who may name a library: paths under `src/`, as beginnings.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("monoio", &["proxy/"]),
    ("io_uring", &["proxy/"]),
    ("core_affinity", &["proxy/worker"]),
    ("tokio", &["control/", "main", "start", "cli/"]),
    ("sqlx", &["control/", "main", "start", "cli/"]),
    ("hyper", &["control/", "main", "start", "cli/"]),
    ("hyper_util", &["control/", "main", "start", "cli/"]),
    ("http_body_util", &["control/", "main", "start", "cli/"]),
    ("hickory_resolver", &["control/", "main", "start", "cli/"]),
    ("multer", &["control/"]),
    ("httparse", &["http/"]),
    ("serde_json", &["control/", "entity/", "config/", "plugins/", "state/compile", "cli/config", "cli/explain"]),
    ("clap", &["main", "cli/"]),
    ("tracing_subscriber", &["main", "cli/"]),
];

/// Layers up to this one take the time as a value.
const TIMELESS_LAYER_MAX: u8 = 3;

/// Who asks for the time nevertheless: the clock, and tests that measure.
const TIMED: &[&str] = &["stdx/clock.rs", "router/speed.rs"];

#[test]
fn the_sources_keep_the_import_rule() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > LAYERS.len() / 2, "no sources under {}", src.display());
    files.sort();
    let mut violations = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let path = file.strip_prefix(&src).expect("collect() stays under src").to_string_lossy().into_owned();
        violations.extend(check(&path, &text));
    }
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.expect("an entry of a directory just listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Everything in `text`, the file at `path` under `src/`, that breaks the rule.
fn check(path: &str, text: &str) -> Vec<String> {
    let top = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    if top == "lib" {
        return Vec::new();
    }
    let Some(own_layer) = layer(top) else {
        return vec![format!("src/{path}:1: \"{top}\" has no layer; give it one in tests/tidy.rs and src/lib.rs")];
    };
    let mut violations = Vec::new();
    let mut in_inner_module = false;
    for (number, line) in (1..).zip(code_of(text).lines()) {
        let mut violation = |what: String| violations.push(format!("src/{path}:{number}: {what}"));
        in_inner_module |= line.trim_end().ends_with('{') && line.split_whitespace().any(|word| word == "mod");
        for name in names_after(line, "crate::") {
            let name = MACROS.iter().find(|(exported, _)| *exported == name).map_or(name, |(_, folder)| folder);
            match layer(name) {
                _ if name == top => {}
                _ if name.is_empty() => {
                    violation("write one path per use: nothing but a name after crate::".to_owned())
                }
                Some(other) if other < own_layer || other == 0 => {}
                Some(PROGRAM_LAYER) if own_layer == PROGRAM_LAYER => {}
                Some(_) => violation(format!("\"{top}\" may not import \"{name}\"")),
                None => violation(format!("\"{name}\" has no layer")),
            }
        }
        if super_chain(line) >= depth(path) + usize::from(in_inner_module) {
            violation("a chain of super reaches the root; write crate:: so that it can be read".to_owned());
        }
        for (library, allowed) in LIBRARIES {
            if names_library(line, library) && !allowed.iter().any(|beginning| path.starts_with(beginning)) {
                violation(format!("only {} may name {library}", allowed.join(", ")));
            }
        }
        let asks_time = line.contains("Instant::now") || line.contains("SystemTime::now");
        if asks_time && own_layer <= TIMELESS_LAYER_MAX && !TIMED.contains(&path) {
            violation("only stdx/clock.rs reads the time; take it as a value".to_owned());
        }
    }
    violations
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(folder, _)| *folder == name).map(|(_, layer)| *layer)
}

/// How many modules deep a file is: `a/mod.rs` and `a.rs` are 1, `a/b.rs` is 2.
fn depth(path: &str) -> usize {
    path.split('/').filter(|part| *part != "mod.rs").count()
}

/// The identifiers right after each `marker` in `line`; empty where something else follows.
fn names_after<'a>(line: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(marker).filter(|(at, _)| !ends_in_word(&line[..*at])).map(|(at, _)| {
        let rest = &line[at + marker.len()..];
        &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
    })
}

/// The longest `super::super::...` in `line`.
fn super_chain(line: &str) -> usize {
    let chains = line.match_indices("super::").map(|(at, marker)| {
        let mut rest = &line[at..];
        let mut links = 0;
        while let Some(after) = rest.strip_prefix(marker) {
            (rest, links) = (after, links + 1);
        }
        links
    });
    chains.max().unwrap_or(0)
}

/// Whether `line` uses `library` as a path's beginning or imports it whole.
fn names_library(line: &str, library: &str) -> bool {
    line.match_indices(library).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + library.len()..]);
        let before = before.strip_suffix("::").filter(|outer| !ends_in_word(outer)).unwrap_or(before);
        let begins = !ends_in_word(before) && !before.ends_with("::");
        begins && (after.starts_with("::") || before.trim_end().ends_with("use") && !after.starts_with(is_word))
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_word)
}

/// `text` with comments, strings and characters blanked, so that what is left on each line is code.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !ends_in_word(&code) => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the comment, which may hold others, that `text` begins with.
fn block_comment(text: &str) -> usize {
    let (mut at, mut open) = (2, 1);
    while open > 0 {
        let Some(next) = text[at..].find(['/', '*']) else { return text.len() };
        at += next;
        match text.get(at..at + 2) {
            Some("/*") => (at, open) = (at + 2, open + 1),
            Some("*/") => (at, open) = (at + 2, open - 1),
            _ => at += 1,
        }
    }
    at
}

/// The length of the string that `text` begins with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string that `text` begins with; 0 when its `r` begins something else.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// The length of the character that `text` begins with; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escape))) => {
            text[at + escape.len_utf8()..].find('\'').map_or(0, |end| at + escape.len_utf8() + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[track_caller]
fn finds(path: &str, text: &str, want: &[&str]) {
    assert_eq!(check(path, text), want, "{path}\n{text}");
}

#[test]
fn downward_imports_are_fine() {
    finds("proxy/exchange.rs", "use crate::state::CoreState;\nuse crate::limits::X;\nuse monoio::net::TcpStream;", &[]);
    finds("http/mod.rs", "use crate::stdx::index::Idx;\nuse crate::http::head::Head;\nuse httparse;", &[]);
    finds("cli/mod.rs", "use ringway::proxy;\ncrate::start::start()", &[]);
    finds("stdx/clock.rs", "use crate::limits::TICK_MS;\nInstant::now()", &[]);
    finds("entity/route.rs", "use crate::strs;", &[]);
    finds("lib.rs", "pub mod proxy;", &[]);
}

#[test]
fn upward_and_sideways_imports_are_found_where_they_stand() {
    finds("router/mod.rs", "\nuse crate::state::X;", &["src/router/mod.rs:2: \"router\" may not import \"state\""]);
    finds("proxy/io.rs", "use crate::control::X;", &["src/proxy/io.rs:1: \"proxy\" may not import \"control\""]);
    finds("http/head.rs", "fn f(x: &crate::config::X) {}", &["src/http/head.rs:1: \"http\" may not import \"config\""]);
    finds("control/mod.rs", "pub use crate::cli::X;", &["src/control/mod.rs:1: \"control\" may not import \"cli\""]);
    finds("limits.rs", "use crate::http::X;", &["src/limits.rs:1: \"limits\" may not import \"http\""]);
    finds(
        "util/mod.rs",
        "",
        &["src/util/mod.rs:1: \"util\" has no layer; give it one in tests/tidy.rs and src/lib.rs"],
    );
    finds("http/a.rs", "use crate::util::X;", &["src/http/a.rs:1: \"util\" has no layer"]);
}

#[test]
fn forms_that_hide_an_import_are_refused() {
    finds(
        "http/a.rs",
        "use crate::{x};",
        &["src/http/a.rs:1: write one path per use: nothing but a name after crate::"],
    );
    let root = "a chain of super reaches the root; write crate:: so that it can be read";
    finds("http/a.rs", "use super::super::proxy::X;", &[&format!("src/http/a.rs:1: {root}")]);
    finds("http/mod.rs", "use super::proxy::X;", &[&format!("src/http/mod.rs:1: {root}")]);
    finds("http/a.rs", "use super::head::Head;\nmod tests {\n    use super::super::head::X;\n}", &[]);
    finds("http/a.rs", "mod tests {\n    use super::super::super::x::X;", &[&format!("src/http/a.rs:2: {root}")]);
}

#[test]
fn libraries_are_named_in_their_place_only() {
    finds("state/mod.rs", "use monoio::time;", &["src/state/mod.rs:1: only proxy/ may name monoio"]);
    finds("control/x.rs", "monoio::spawn(x)", &["src/control/x.rs:1: only proxy/ may name monoio"]);
    finds("proxy/io.rs", "use core_affinity;", &["src/proxy/io.rs:1: only proxy/worker may name core_affinity"]);
    finds("proxy/io.rs", "use ::tokio;", &["src/proxy/io.rs:1: only control/, main, start, cli/ may name tokio"]);
    finds("control/x.rs", "#[tokio::test]\nuse sqlx::Row;\nserde_json::json!(1)", &[]);
    finds("state/compile/route.rs", "use serde_json::Value;", &[]);
    finds("control/x.rs", "let my_httparse::x = crate::control::httparse::y; hyper_util::z", &[]);
}

#[test]
fn time_is_asked_for_in_one_place() {
    let text = "let now = Instant::now();";
    finds("balancer/x.rs", text, &["src/balancer/x.rs:1: only stdx/clock.rs reads the time; take it as a value"]);
    finds("control/x.rs", text, &[]);
}

#[test]
fn comments_and_texts_are_no_code() {
    finds("http/a.rs", "// use crate::proxy::X;\n/* a /* b */ monoio::x\n*/ //! [`crate::control`]", &[]);
    finds("http/a.rs", "let s = \"\\\" crate::proxy\"; let r = r#\"\" crate::proxy\"#; let c = '\"';", &[]);
    let text = "let a = '\\''; fn f<'a>(x: &'a str) {}\nuse crate::proxy::X; // no";
    finds("http/a.rs", text, &["src/http/a.rs:2: \"http\" may not import \"proxy\""]);
}
