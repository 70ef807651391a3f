//! Templates of error bodies: a file with two `%s`, for the message and for the id of the request (spec/proxying.md 7.1).
//! Never: reads the file; the caller of [`super::Settings::load`] brings what can.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::kind::{Kind, Problem};
use super::texts::OptionalFile;

/// A template, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorTemplate {
    pub path: PathBuf,
    /// What stands before the message, between message and id, and behind the id.
    pub parts: [String; 3],
}

/// A file with a template that may be left unset.
pub struct TemplateFile;
impl Kind for TemplateFile {
    type Value = Option<ErrorTemplate>;
    const ACCEPTS: &'static str = "a path (a relative one is under prefix) of a file with two %s";
    fn parse(text: &str) -> Result<Self::Value, Problem> {
        Ok(OptionalFile::parse(text)?.map(|path| ErrorTemplate { path, parts: Default::default() }))
    }
    fn describe(value: &Self::Value) -> Json {
        OptionalFile::describe(&value.as_ref().map(|template| template.path.clone()))
    }
}

/// The parts of a template; `%%` stands for a percent sign.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parts_of(text: &str) -> Result<[String; 3], String> {
    let (mut parts, mut at) = (<[String; 3]>::default(), 0);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        parts[at].push_str(before);
        let line = 1 + text[..text.len() - behind.len()].matches('\n').count();
        match behind.chars().next() {
            Some('%') => parts[at].push('%'),
            Some('s') if at == 2 => {
                return Err(format!("line {line}: a third %s; there are two, message and request id"));
            }
            Some('s') => at += 1,
            other => {
                let shown: String = ['%'].into_iter().chain(other.filter(|c| !c.is_control())).collect();
                return Err(format!("line {line}: \"{shown}\" means nothing; write %% for a percent sign"));
            }
        }
        rest = &behind[1..];
    }
    parts[at].push_str(rest);
    if at < 2 {
        return Err(format!("it has {at} %s instead of two: one for the message, then one for the request id"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holes_make_three_parts() {
        let parts = |text: &str| parts_of(text).unwrap().map(|part| part.replace('\n', "|"));
        assert_eq!(parts("a%sb%sc\n"), ["a", "b", "c|"]);
        assert_eq!(parts("%s%s"), ["", "", ""]);
        assert_eq!(parts("100%%: %s é%%%s%%s"), ["100%: ", " é%", "%s"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let wrong = |text: &str| parts_of(text).unwrap_err();
        assert_eq!(wrong(""), "it has 0 %s instead of two: one for the message, then one for the request id");
        assert_eq!(wrong("x %s"), "it has 1 %s instead of two: one for the message, then one for the request id");
        assert_eq!(wrong("%s\n%s\n\n%s"), "line 4: a third %s; there are two, message and request id");
        assert_eq!(wrong("%s\nwidth: 50%;"), "line 2: \"%;\" means nothing; write %% for a percent sign");
        assert_eq!(wrong("%s%s%"), "line 1: \"%\" means nothing; write %% for a percent sign");
    }
}
