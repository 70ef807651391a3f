//! The grammar (spec/router.md sections 14.2 and 14.3), one function for each rule.
//! Always: `||` binds tighter than `&&`, and both more loosely than anything else.

use super::peg::Failure;
use super::peg::Peg;
use super::peg::Rule;
use super::syntax::Literal;
use super::syntax::Operator;
use super::syntax::Predicate;
use super::syntax::Span;
use super::syntax::Syntax;

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Syntax, Failure> {
    let mut peg = Peg::new(text);
    let read = peg.rule(Rule::Matcher, |peg| {
        peg.skip_space();
        let read = expression(peg)?;
        peg.skip_space();
        peg.rule(Rule::End, |peg| peg.is_at_end().then_some(()))?;
        Some(read)
    });
    read.ok_or_else(|| peg.failure())
}

#[derive(Clone, Copy)]
enum Join {
    And,
    Or,
}

fn expression(peg: &mut Peg<'_>) -> Option<Syntax> {
    peg.rule(Rule::Expression, |peg| {
        let mut all = vec![vec![term(peg)?]];
        while let Some((join, next)) = peg.attempt(|peg| {
            peg.skip_space();
            let join = join(peg)?;
            peg.skip_space();
            Some((join, term(peg)?))
        }) {
            match (join, all.last_mut()) {
                (Join::Or, Some(any)) => any.push(next),
                _ => all.push(vec![next]),
            }
        }
        Some(one_or(all.into_iter().map(|any| one_or(any, Syntax::Any)).collect(), Syntax::All))
    })
}

fn one_or(mut list: Vec<Syntax>, many: fn(Vec<Syntax>) -> Syntax) -> Syntax {
    if list.len() == 1 { list.remove(0) } else { many(list) }
}

fn join(peg: &mut Peg<'_>) -> Option<Join> {
    if peg.rule(Rule::AndOp, |peg| peg.literal("&&")).is_some() {
        return Some(Join::And);
    }
    peg.rule(Rule::OrOp, |peg| peg.literal("||")).map(|()| Join::Or)
}

fn term(peg: &mut Peg<'_>) -> Option<Syntax> {
    peg.rule(Rule::Term, |peg| predicate(peg).map(Syntax::Predicate).or_else(|| parenthesised(peg)))
}

fn parenthesised(peg: &mut Peg<'_>) -> Option<Syntax> {
    peg.rule(Rule::ParenthesisedExpression, |peg| {
        let negated = peg.rule(Rule::NotOp, |peg| peg.literal("!")).is_some();
        peg.skip_space();
        peg.literal("(")?;
        peg.skip_space();
        let inner = peg.nested(expression)?;
        peg.skip_space();
        peg.literal(")")?;
        Some(if negated { Syntax::Not(Box::new(inner)) } else { inner })
    })
}

fn predicate(peg: &mut Peg<'_>) -> Option<Predicate> {
    peg.rule(Rule::Predicate, |peg| {
        let (field, functions) = lhs(peg)?;
        peg.skip_space();
        let operator = operator(peg)?;
        peg.skip_space();
        let start = peg.at();
        let literal = rhs(peg)?;
        Some(Predicate { field, functions, operator, literal, literal_at: start..peg.at() })
    })
}

type Lhs = (String, Vec<(String, Span)>);

fn lhs(peg: &mut Peg<'_>) -> Option<Lhs> {
    peg.rule(Rule::Lhs, |peg| transformed(peg).or_else(|| Some((ident(peg)?, Vec::new()))))
}

fn transformed(peg: &mut Peg<'_>) -> Option<Lhs> {
    peg.rule(Rule::TransformFunc, |peg| {
        let start = peg.at();
        let name = ident(peg)?;
        peg.skip_space();
        peg.literal("(")?;
        peg.skip_space();
        let (field, mut functions) = peg.nested(lhs)?;
        peg.skip_space();
        peg.literal(")")?;
        functions.push((name, start..peg.at()));
        Some((field, functions))
    })
}

fn ident(peg: &mut Peg<'_>) -> Option<String> {
    peg.atomic_rule(Rule::Ident, |peg| {
        let start = peg.at();
        peg.char(|c| c.is_ascii_alphabetic())?;
        peg.chars(0, usize::MAX, |c| c.is_ascii_alphanumeric() || c == '_' || c == '.')?;
        Some(peg.since(start).to_owned())
    })
}

/// Those that begin like another stand before it.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equals),
    ("!=", Operator::Differs),
    ("~", Operator::Regex),
    ("^=", Operator::Begins),
    ("=^", Operator::Ends),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    ("in", Operator::In),
];

fn operator(peg: &mut Peg<'_>) -> Option<Operator> {
    peg.rule(Rule::BinaryOperator, |peg| {
        let short = OPERATORS.iter().find(|(text, _)| peg.literal(text).is_some());
        if let Some((_, operator)) = short {
            return Some(*operator);
        }
        let not_in = peg.attempt(|peg| {
            peg.literal("not")?;
            peg.skip_space();
            peg.literal("in")
        });
        match not_in {
            Some(()) => Some(Operator::NotIn),
            None => peg.literal("contains").map(|()| Operator::Contains),
        }
    })
}

fn rhs(peg: &mut Peg<'_>) -> Option<Literal> {
    peg.rule(Rule::Rhs, |peg| {
        text(peg)
            .or_else(|| raw_text(peg))
            .or_else(|| address(peg, Rule::Ipv4CidrLiteral, |peg| block(peg, ipv4_digits, 2)).map(Literal::Block))
            .or_else(|| address(peg, Rule::Ipv6CidrLiteral, |peg| block(peg, ipv6_digits, 3)).map(Literal::Block))
            .or_else(|| address(peg, Rule::Ipv4Literal, ipv4_digits).map(Literal::Ip))
            .or_else(|| address(peg, Rule::Ipv6Literal, ipv6_digits).map(Literal::Ip))
            .or_else(|| int(peg))
    })
}

fn text(peg: &mut Peg<'_>) -> Option<Literal> {
    peg.rule(Rule::StrLiteral, |peg| {
        peg.literal("\"")?;
        let mut text = String::new();
        while let Some(c) = escape(peg).or_else(|| plain_char(peg)) {
            text.push(c);
        }
        peg.literal("\"")?;
        Some(Literal::Text(text))
    })
}

fn escape(peg: &mut Peg<'_>) -> Option<char> {
    peg.rule(Rule::StrEsc, |peg| {
        peg.literal("\\")?;
        Some(match peg.char(|c| matches!(c, '"' | '\\' | 'n' | 'r' | 't'))? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            same => same,
        })
    })
}

fn plain_char(peg: &mut Peg<'_>) -> Option<char> {
    peg.rule(Rule::StrChar, |peg| peg.char(|c| !matches!(c, '"' | '\\')))
}

fn raw_text(peg: &mut Peg<'_>) -> Option<Literal> {
    peg.rule(Rule::RawstrLiteral, |peg| {
        peg.literal("r#\"")?;
        let start = peg.at();
        while peg.attempt(|peg| peg.literal("\"#")).is_none() {
            peg.rule(Rule::RawstrChar, |peg| peg.char(|_| true))?;
        }
        let with_end = peg.since(start);
        Some(Literal::Text(with_end[..with_end.len() - 2].to_owned()))
    })
}

fn address(peg: &mut Peg<'_>, rule: Rule, read: impl FnOnce(&mut Peg<'_>) -> Option<()>) -> Option<String> {
    peg.atomic_rule(rule, |peg| {
        let start = peg.at();
        read(peg)?;
        Some(peg.since(start).to_owned())
    })
}

fn block(peg: &mut Peg<'_>, ip: fn(&mut Peg<'_>) -> Option<()>, bits_digits_max: usize) -> Option<()> {
    ip(peg)?;
    peg.literal("/")?;
    peg.chars(1, bits_digits_max, |c| c.is_ascii_digit())
}

fn ipv4_digits(peg: &mut Peg<'_>) -> Option<()> {
    peg.chars(1, 3, |c| c.is_ascii_digit())?;
    for _ in 0..3 {
        peg.literal(".")?;
        peg.chars(1, 3, |c| c.is_ascii_digit())?;
    }
    Some(())
}

fn ipv6_digits(peg: &mut Peg<'_>) -> Option<()> {
    let group = |peg: &mut Peg<'_>| peg.chars(1, 4, |c| c.is_ascii_hexdigit());
    peg.literal(":").or_else(|| group(peg))?;
    peg.literal(":")?;
    while group(peg).or_else(|| peg.literal(":")).is_some() {}
    Some(())
}

fn int(peg: &mut Peg<'_>) -> Option<Literal> {
    peg.rule(Rule::IntLiteral, |peg| {
        let negative = peg.literal("-").is_some();
        let hex = peg.attempt(|peg| {
            peg.literal("0x")?;
            digits(peg, Rule::HexDigits, 16)
        });
        let (digits, radix) = match hex {
            Some(digits) => (digits, 16),
            None => match peg.attempt(octal) {
                Some(digits) => (digits, 8),
                None => (digits(peg, Rule::DecDigits, 10)?, 10),
            },
        };
        Some(Literal::Int { negative, digits, radix })
    })
}

fn octal(peg: &mut Peg<'_>) -> Option<String> {
    peg.rule(Rule::OctDigits, |peg| {
        peg.literal("0")?;
        let start = peg.at();
        peg.chars(1, usize::MAX, |c| c.is_digit(8))?;
        Some(peg.since(start).to_owned())
    })
}

fn digits(peg: &mut Peg<'_>, rule: Rule, radix: u32) -> Option<String> {
    peg.rule(rule, |peg| {
        let start = peg.at();
        peg.chars(1, usize::MAX, |c| c.is_digit(radix))?;
        Some(peg.since(start).to_owned())
    })
}
