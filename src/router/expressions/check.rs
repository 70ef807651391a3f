//! Text -> program: the types of fields, operators and literals (spec/router.md sections 14.4 to 14.6).
//! Pure and total: any text gives a program or a reason.

use std::net::IpAddr;

use super::fields::Field;
use super::fields::NoField;
use super::fields::Type;
use super::grammar::parse;
use super::guards::guards;
use super::peg::Failure;
use super::program::Comparison;
use super::program::Node;
use super::program::Predicate;
use super::program::Program;
use super::program::Test;
use super::report;
use super::syntax;
use super::syntax::Literal;
use super::syntax::Operator;
use super::syntax::Syntax;
use crate::config::Cidr;
use crate::limits::EXPRESSION_BYTES_MAX;
use crate::limits::EXPRESSION_NESTING_MAX;
use crate::router::pattern::TextRegex;

/// What stands before the reason in Admin answers.
pub const REFUSED: &str = "Router Expression failed validation: ";

/// Whether `text` is a good expression; the error is the reason as the operator reads it.
///
/// # Errors
/// Syntax, unknown fields, types that do not fit, regexes that do not compile, bounds.
pub fn check(text: &str) -> Result<(), String> {
    compile(text).map(|_| ())
}

/// The program of an expression.
///
/// # Errors
/// As `check`.
pub(in crate::router) fn compile(text: &str) -> Result<Program, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("length must be at most {EXPRESSION_BYTES_MAX}"));
    }
    let syntax = parse(text).map_err(|failure| match failure {
        Failure::Expected(at, rules) => report::expected(text, at, &rules),
        Failure::TooDeep => format!("parentheses nest deeper than {EXPRESSION_NESTING_MAX}"),
    })?;
    // What is wrong with single literals is reported before any type is looked at.
    let mut regexes = Regexes::default();
    read_literals(text, &syntax, &mut regexes)?;
    let root = typed(&syntax, &mut regexes)?;
    let guards = guards(&root, &regexes.compiled);
    Ok(Program { root, regexes: regexes.compiled, guards })
}

/// Compiled in the order in which they stand in the text, and handed out in the same order.
#[derive(Default)]
struct Regexes {
    compiled: Vec<TextRegex>,
    used: usize,
}

fn predicates<'a>(syntax: &'a Syntax, found: &mut Vec<&'a syntax::Predicate>) {
    match syntax {
        Syntax::All(list) | Syntax::Any(list) => list.iter().for_each(|one| predicates(one, found)),
        Syntax::Not(inner) => predicates(inner, found),
        Syntax::Predicate(predicate) => found.push(predicate),
    }
}

fn read_literals(text: &str, syntax: &Syntax, regexes: &mut Regexes) -> Result<(), String> {
    let mut all = Vec::new();
    predicates(syntax, &mut all);
    for predicate in all {
        for (name, span) in &predicate.functions {
            if !matches!(name.as_str(), "lower" | "any") {
                return Err(report::about(text, span, &format!("unknown transformation function: {name}")));
            }
        }
        let wrong = |reason: String| report::about(text, &predicate.literal_at, &reason);
        match &predicate.literal {
            Literal::Text(pattern) if predicate.operator == Operator::Regex => {
                regexes.compiled.push(TextRegex::compile(pattern).map_err(wrong)?);
            }
            _ if predicate.operator == Operator::Regex => {
                return Err(wrong("regex operator can only be used with String operands".to_owned()));
            }
            Literal::Text(_) => {}
            Literal::Int { .. } => drop(int(&predicate.literal).map_err(wrong)?),
            Literal::Ip(ip) => drop(ip.parse::<IpAddr>().map_err(|error| wrong(error.to_string()))?),
            Literal::Block(block) => drop(cidr(block).map_err(wrong)?),
        }
    }
    Ok(())
}

fn int(literal: &Literal) -> Result<i64, String> {
    let Literal::Int { negative, digits, radix } = literal else {
        return Err(MISMATCH.to_owned());
    };
    let number = i64::from_str_radix(digits, *radix).map_err(|error| error.to_string())?;
    Ok(if *negative { -number } else { number })
}

/// A block names a network: bits beyond its length would say nothing.
fn cidr(text: &str) -> Result<Cidr, String> {
    let block = Cidr::parse(text).ok_or("not a block of addresses")?;
    let (ip, _) = text.split_once('/').unwrap_or((text, ""));
    let whole = ip.parse::<IpAddr>().map_err(|error| error.to_string())?;
    if block.first() == whole { Ok(block) } else { Err("host part of address was not zero".to_owned()) }
}

const MISMATCH: &str = "Type mismatch between the LHS and RHS values of predicate";

fn typed(syntax: &Syntax, regexes: &mut Regexes) -> Result<Node, String> {
    let list = |list: &[Syntax], regexes: &mut Regexes| -> Result<Box<[Node]>, String> {
        list.iter().map(|one| typed(one, regexes)).collect()
    };
    Ok(match syntax {
        Syntax::All(all) => Node::All(list(all, regexes)?),
        Syntax::Any(any) => Node::Any(list(any, regexes)?),
        Syntax::Not(inner) => Node::Not(Box::new(typed(inner, regexes)?)),
        Syntax::Predicate(predicate) => Node::Predicate(typed_predicate(predicate, regexes)?),
    })
}

fn typed_predicate(predicate: &syntax::Predicate, regexes: &mut Regexes) -> Result<Predicate, String> {
    let field = Field::of(&predicate.field).map_err(|none| match none {
        NoField::Unknown => "Unknown LHS field".to_owned(),
        NoField::Segments => "illformed http.path.segments.* field".to_owned(),
    })?;
    let has = |function: &str| predicate.functions.iter().any(|(name, _)| name == function);
    let (lower, any) = (has("lower"), has("any"));
    let literal_kind = match &predicate.literal {
        Literal::Text(_) => Some(Type::Text),
        Literal::Int { .. } => Some(Type::Int),
        Literal::Ip(_) => Some(Type::Ip),
        Literal::Block(_) => None,
    };
    let needs_same = !matches!(predicate.operator, Operator::Regex | Operator::In | Operator::NotIn);
    if needs_same && literal_kind != Some(field.kind()) {
        return Err(MISMATCH.to_owned());
    }
    if lower && field.kind() != Type::Text {
        return Err("lower-case transformation function only supported with String type fields".to_owned());
    }
    let test = test_of(&field, predicate, regexes)?;
    Ok(Predicate { field, lower, any, test })
}

fn test_of(field: &Field, predicate: &syntax::Predicate, regexes: &mut Regexes) -> Result<Test, String> {
    let refuse = |text: &str| Err(text.to_owned());
    let compared = |comparison| Ok(Test::Int(comparison, int(&predicate.literal)?));
    let ip = |text: &str| text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|error| error.to_string());
    match (predicate.operator, &predicate.literal) {
        (Operator::Equals, Literal::Text(text)) => Ok(Test::Equals(text.as_bytes().into())),
        (Operator::Equals, Literal::Ip(text)) => Ok(Test::IpEquals(ip(text)?)),
        (Operator::Equals, _) => compared(Comparison::Equals),
        (Operator::Differs, Literal::Text(text)) => Ok(Test::Differs(text.as_bytes().into())),
        (Operator::Differs, Literal::Ip(text)) => Ok(Test::IpDiffers(ip(text)?)),
        (Operator::Differs, _) => compared(Comparison::Differs),
        (Operator::Regex, _) => {
            regexes.used += 1;
            match field.kind() {
                Type::Text => Ok(Test::Regex(regexes.used - 1)),
                _ => refuse("Regex operators only supports string operands"),
            }
        }
        (Operator::Begins, Literal::Text(text)) => Ok(Test::Begins(text.as_bytes().into())),
        (Operator::Ends, Literal::Text(text)) => Ok(Test::Ends(text.as_bytes().into())),
        (Operator::Begins | Operator::Ends, _) => {
            refuse("Regex/Prefix/Postfix operators only supports string operands")
        }
        (Operator::Contains, Literal::Text(text)) => Ok(Test::Contains(text.as_bytes().into())),
        (Operator::Contains, _) => refuse("Contains operator only supports string operands"),
        (Operator::In | Operator::NotIn, Literal::Block(text)) if field.kind() == Type::Ip => {
            let block = cidr(text)?;
            Ok(if predicate.operator == Operator::In { Test::Within(block) } else { Test::Outside(block) })
        }
        (Operator::In | Operator::NotIn, _) => refuse("In/NotIn operators only supports IP in CIDR"),
        (ordering, Literal::Int { .. }) => compared(match ordering {
            Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
            Operator::Greater => Comparison::Greater,
            Operator::LessOrEqual => Comparison::LessOrEqual,
            _ => Comparison::Less,
        }),
        _ => refuse("Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands"),
    }
}
