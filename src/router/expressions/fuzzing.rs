//! Fuzz target of the expressions language: what must hold of any text and any request.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: the target panics if and only if something that must hold does not.

use super::check::compile;
use super::grammar::parse;
use super::syntax::Literal;
use super::syntax::Operator;
use super::syntax::Predicate;
use super::syntax::Syntax;
use crate::config::RouterFlavor;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::examine::examine;
use crate::router::twin::Request;
use crate::router::worlds::random_request;
use crate::stdx::fuzzing::Chance;

/// Requests that each expression is asked of.
const REQUESTS: usize = 4;

/// Any text as an expression, and behind a NUL any bytes that make up requests: it is refused with a reason, or it means
/// the same when it is printed and read again, and the index finds its route exactly when it holds.
pub fn expression(text: &[u8]) {
    let (text, decisions) = text.split_at(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    let Ok(text) = std::str::from_utf8(text) else { return };
    match compile(text) {
        Err(reason) => return assert!(!reason.trim().is_empty(), "refused without a reason"),
        Ok(program) => assert!(!program.guards.iter().any(|guard| guard.path.len() > text.len())),
    }
    let Ok(syntax) = parse(text) else { panic!("it compiles and cannot be read") };
    let written = printed(&syntax);
    let Ok(again) = parse(&written) else { panic!("it cannot be read again: {written}") };
    assert_eq!(printed(&again), written);
    let mut chance = Chance::of(decisions.get(1..).unwrap_or_default());
    let requests: Vec<Request> = (0..REQUESTS).map(|_| random_request(&mut chance)).collect();
    assert_eq!(answers(text, &requests), answers(&written, &requests), "{written}");
}

/// For each request whether the route is found, and how much of the path it matched.
fn answers(text: &str, requests: &[Request]) -> Vec<Option<Option<usize>>> {
    let protocols = ["http", "https"].map(str::to_owned).to_vec();
    let rules = Rules { expression: Some(text.to_owned()), protocols, ..Rules::default() };
    let compiled = match crate::router::compile::compile(&rules, RouterFlavor::Expressions) {
        Ok(compiled) => std::sync::Arc::new(compiled),
        Err(errors) => panic!("{errors:?}"),
    };
    let mut router = Router::new();
    router.insert(RouteKey(0), compiled.clone());
    let answer = |request: &Request| {
        let hit = request.find_in(&router);
        let examined = examine(&compiled, &request.query());
        assert_eq!(hit.is_some(), examined.failed.is_empty(), "{request:?}: {examined:?}");
        hit.map(|hit| hit.matched_len)
    };
    requests.iter().map(answer).collect()
}

/// One text for each meaning.
fn printed(syntax: &Syntax) -> String {
    let inner = |one: &Syntax, is_safe: fn(&Syntax) -> bool| match is_safe(one) {
        true => printed(one),
        false => format!("({})", printed(one)),
    };
    match syntax {
        Syntax::All(all) => {
            let parts: Vec<String> = all.iter().map(|one| inner(one, |one| !matches!(one, Syntax::All(_)))).collect();
            parts.join(" && ")
        }
        Syntax::Any(any) => {
            let is_safe = |one: &Syntax| matches!(one, Syntax::Not(_) | Syntax::Predicate(_));
            let parts: Vec<String> = any.iter().map(|one| inner(one, is_safe)).collect();
            parts.join(" || ")
        }
        Syntax::Not(not) => format!("!({})", printed(not)),
        Syntax::Predicate(predicate) => printed_predicate(predicate),
    }
}

fn printed_predicate(predicate: &Predicate) -> String {
    let Predicate { field, functions, operator, literal, .. } = predicate;
    let left = functions.iter().fold(field.clone(), |inner, (name, _)| format!("{name}({inner})"));
    let operator = match operator {
        Operator::Equals => "==",
        Operator::Differs => "!=",
        Operator::Regex => "~",
        Operator::Begins => "^=",
        Operator::Ends => "=^",
        Operator::GreaterOrEqual => ">=",
        Operator::Greater => ">",
        Operator::LessOrEqual => "<=",
        Operator::Less => "<",
        Operator::In => "in",
        Operator::NotIn => "not in",
        Operator::Contains => "contains",
    };
    let right = match literal {
        Literal::Text(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        Literal::Int { negative, digits, radix } => {
            let sign = if *negative { "-" } else { "" };
            let prefix = if *radix == 16 { "0x" } else { ["", "0"][usize::from(*radix == 8)] };
            format!("{sign}{prefix}{digits}")
        }
        Literal::Ip(text) | Literal::Block(text) => text.clone(),
    };
    format!("{left} {operator} {right}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;
    use crate::stdx::fuzzing::seeds;

    #[test]
    fn the_examples_are_taken_and_refused() {
        let seeds = seeds("expression");
        let texts = seeds.iter().map(|text| std::str::from_utf8(text).unwrap().split('\0').next().unwrap());
        let taken = texts.filter(|text| compile(text).is_ok()).count();
        assert!(taken >= 5 && taken < seeds.len(), "{taken} of {}", seeds.len());
    }

    #[test]
    fn any_text_is_refused_with_a_reason_or_means_the_same_when_printed_and_read_again() {
        let words = [
            " && ",
            " || ",
            "!(",
            "(",
            ")",
            "http.path",
            "http.path.segments.0",
            "http.host",
            "http.headers.x_v",
            "net.src.ip",
            "lower(",
            "any(",
            " == ",
            " ^= ",
            " ~ ",
            " not in ",
            "\"/a\"",
            "r#\"",
            "\"#",
            "10.0.0.0/8",
            "::1",
            "0x1f",
            "\\",
        ];
        check("expression", &words, 4000, expression);
    }
}
