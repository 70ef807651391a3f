//! What is wrong with a text, drawn as Kong's compiler draws it: the line, a mark under the place, the reason.

use super::peg::Rule;
use super::syntax::Span;

/// "expected a, b, or c" at a place.
pub(super) fn expected(text: &str, at: usize, rules: &[Rule]) -> String {
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    let list = match names.as_slice() {
        [] => "unknown parsing error".to_owned(),
        [only] => format!("expected {only}"),
        [first, second] => format!("expected {first} or {second}"),
        [most @ .., last] => format!("expected {}, or {last}", most.join(", ")),
    };
    draw(text, at, "^---", &list)
}

/// `reason` about a piece of the text.
pub(super) fn about(text: &str, span: &Span, reason: &str) -> String {
    let width = text.get(span.clone()).map_or(1, |piece| piece.lines().next().unwrap_or_default().chars().count());
    let mark = if width < 2 { "^".to_owned() } else { format!("^{}^", "-".repeat(width - 2)) };
    draw(text, span.start, &mark, reason)
}

fn draw(text: &str, at: usize, mark: &str, reason: &str) -> String {
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default().replace('\r', "");
    let in_line = &before[line_start..];
    let column = in_line.chars().count() + 1;
    let indent: String = in_line.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let margin = " ".repeat(number.to_string().len());
    format!(
        "{margin}--> {number}:{column}\n{margin} |\n{number} | {line}\n{margin} | {indent}{mark}\n{margin} |\n{margin} = {reason}"
    )
}
