//! HOT for templates: a plain lookup borrows; only computed texts are made.
//! What a template becomes for one request (spec/plugins.md D.1).
//! Always: a missing value is empty text; what Lua would stop at fails.

use std::borrow::Cow;

use regex::bytes::Regex;

use crate::entity::pattern::translate;
use crate::http::fields::Fields;
use crate::plugins::query;
use crate::plugins::template::Expr;
use crate::plugins::template::Function;
use crate::plugins::template::Operator;
use crate::plugins::template::Piece;
use crate::plugins::template::Source;
use crate::plugins::template::Template;
use crate::plugins::view::PathCaptures;
use crate::plugins::view::View;

/// What a request tells to templates.
pub(super) struct Env<'a> {
    fields: &'a Fields,
    source: &'a [u8],
    query: &'a [u8],
    captures: Option<&'a dyn PathCaptures>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, [u8]>),
}

/// What Lua would call a runtime error.
pub(super) type Failed = &'static str;

/// Longest text that `rep` and `..` may make.
const TEXT_BYTES_MAX: usize = 64 << 10;

impl<'a> Env<'a> {
    pub fn of(view: &'a View<'_>) -> Self {
        Self { fields: view.fields, source: view.source, query: view.query.get(), captures: view.captures }
    }

    fn lookup(&self, source: Source, key: &Value<'_>) -> Value<'a> {
        let key = match (source, key) {
            (Source::UriCaptures, Value::Number(number)) => return self.capture_at(*number),
            (_, Value::Text(text)) => text,
            _ => return Value::Nil,
        };
        match source {
            Source::Headers => self.header(key),
            Source::QueryParams => self.argument(key),
            Source::UriCaptures => self.capture_named(key),
            Source::Shared => Value::Nil,
        }
    }

    /// The first of that name; `_` stands for `-` too.
    fn header(&self, name: &[u8]) -> Value<'a> {
        if let Some(value) = self.fields.get_by_name(self.source, name) {
            return Value::Text(Cow::Borrowed(value));
        }
        if !name.contains(&b'_') {
            return Value::Nil;
        }
        let name: Vec<u8> = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
        self.fields.get_by_name(self.source, &name).map_or(Value::Nil, |value| Value::Text(Cow::Borrowed(value)))
    }

    /// The first of that name; one without `=` is `true`.
    fn argument(&self, name: &[u8]) -> Value<'a> {
        let found = query::arguments(self.query).find(|argument| query::decodes_to(argument.name, name));
        match found {
            None => Value::Nil,
            Some(argument) => argument.value.map_or(Value::Bool(true), |value| Value::Text(query::decoded(value))),
        }
    }

    fn capture_at(&self, number: f64) -> Value<'a> {
        let (mut at, mut found) = (0.0, Value::Nil);
        if let Some(captures) = self.captures {
            captures.each(&mut |capture| {
                at += 1.0;
                if at == number {
                    found = Value::Text(Cow::Owned(capture.text.to_vec()));
                }
            });
        }
        found
    }

    fn capture_named(&self, name: &[u8]) -> Value<'a> {
        let mut found = Value::Nil;
        if let Some(captures) = self.captures {
            captures.each(&mut |capture| {
                if capture.name.is_some_and(|own| own.as_bytes() == name) {
                    found = Value::Text(Cow::Owned(capture.text.to_vec()));
                }
            });
        }
        found
    }

    fn eval<'e>(&self, expr: &'e Expr) -> Result<Value<'e>, Failed>
    where
        'a: 'e,
    {
        Ok(match expr {
            Expr::Nil => Value::Nil,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Number(number) => Value::Number(*number),
            Expr::Text(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
            Expr::Lookup(source, key) => self.lookup(*source, &self.eval(key)?),
            Expr::Not(inner) => Value::Bool(!self.eval(inner)?.is_true()),
            Expr::Binary(operator, left, right) => {
                let left = self.eval(left)?;
                match operator {
                    Operator::Or if left.is_true() => left,
                    Operator::And if !left.is_true() => left,
                    Operator::Or | Operator::And => self.eval(right)?,
                    Operator::Equal => Value::Bool(left == self.eval(right)?),
                    Operator::Unequal => Value::Bool(left != self.eval(right)?),
                    Operator::Concat => {
                        let mut text = left.joinable()?.into_owned();
                        text.extend_from_slice(&self.eval(right)?.joinable()?);
                        bounded(text)?
                    }
                }
            }
            Expr::Call(function, arguments) => {
                let values = arguments.iter().map(|argument| self.eval(argument)).collect::<Result<Vec<_>, _>>()?;
                call(*function, &values)?
            }
        })
    }
}

impl Template {
    /// Appends what the template becomes.
    ///
    /// # Errors
    /// An expression fails, as it would in Lua.
    pub fn render(&self, env: &Env<'_>, out: &mut Vec<u8>) -> Result<(), Failed> {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Expr(expr) => match env.eval(expr)? {
                    Value::Nil => {}
                    Value::Text(text) => out.extend_from_slice(&text),
                    other => out.extend_from_slice(&other.text()),
                },
            }
        }
        Ok(())
    }
}

impl<'a> Value<'a> {
    fn is_true(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// As `tostring` shows it.
    fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Nil => Cow::Borrowed(b"nil"),
            Self::Bool(true) => Cow::Borrowed(b"true"),
            Self::Bool(false) => Cow::Borrowed(b"false"),
            Self::Number(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    fn joinable(&self) -> Result<Cow<'_, [u8]>, Failed> {
        match self {
            Self::Nil => Err("attempt to concatenate a nil value"),
            Self::Bool(_) => Err("attempt to concatenate a boolean value"),
            _ => Ok(self.text()),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        }
    }
}

fn bounded(text: Vec<u8>) -> Result<Value<'static>, Failed> {
    if text.len() > TEXT_BYTES_MAX { Err("text too long") } else { Ok(Value::Text(Cow::Owned(text))) }
}

fn call(function: Function, values: &[Value<'_>]) -> Result<Value<'static>, Failed> {
    const BAD_ARGUMENT: Failed = "bad argument of a string function";
    let value = |at: usize| values.get(at).unwrap_or(&Value::Nil);
    let text = |at: usize| value(at).joinable().map_err(|_| BAD_ARGUMENT);
    let owned = |bytes: Vec<u8>| Ok(Value::Text(Cow::Owned(bytes)));
    match function {
        Function::ToString => owned(value(0).text().into_owned()),
        Function::ToNumber => Ok(value(0).number().map_or(Value::Nil, Value::Number)),
        Function::Type => {
            let name: &'static [u8] = match value(0) {
                Value::Nil => b"nil",
                Value::Bool(_) => b"boolean",
                Value::Number(_) => b"number",
                Value::Text(_) => b"string",
            };
            Ok(Value::Text(Cow::Borrowed(name)))
        }
        Function::Upper => owned(text(0)?.to_ascii_uppercase()),
        Function::Lower => owned(text(0)?.to_ascii_lowercase()),
        Function::Len => Ok(Value::Number(text(0)?.len() as f64)),
        Function::Reverse => owned(text(0)?.iter().rev().copied().collect()),
        Function::Rep => {
            let (text, times) = (text(0)?, value(1).number().ok_or(BAD_ARGUMENT)?.max(0.0) as usize);
            match text.len().checked_mul(times) {
                Some(len) if len <= TEXT_BYTES_MAX => owned(text.repeat(times)),
                _ => Err("text too long"),
            }
        }
        Function::Sub => {
            let text = text(0)?;
            let first = value(1).number().ok_or(BAD_ARGUMENT)?;
            let last = if *value(2) == Value::Nil { -1.0 } else { value(2).number().ok_or(BAD_ARGUMENT)? };
            owned(sub(&text, first as i64, last as i64).to_vec())
        }
        Function::Match => {
            let (text, regex) = (text(0)?, pattern(&text(1)?)?);
            let found = regex.captures(&text).and_then(|found| found.get(1).or(found.get(0)));
            found.map_or(Ok(Value::Nil), |found| owned(found.as_bytes().to_vec()))
        }
        Function::Gsub => {
            let (text, regex, with) = (text(0)?, pattern(&text(1)?)?, replacement(&text(2)?));
            bounded(regex.replace_all(&text, with).into_owned())
        }
    }
}

/// From the first to the last byte, counted from 1, or from the end if negative.
fn sub(text: &[u8], first: i64, last: i64) -> &[u8] {
    let len = text.len() as i64;
    let place = |at: i64| if at < 0 { len.saturating_add(at).saturating_add(1) } else { at };
    let (first, last) = (place(first).max(1), place(last).min(len));
    if first > last { b"" } else { text.get(first as usize - 1..last as usize).unwrap_or_default() }
}

fn pattern(lua: &[u8]) -> Result<Regex, Failed> {
    let source = std::str::from_utf8(lua).ok().and_then(translate).ok_or("malformed pattern")?;
    Regex::new(&source).map_err(|_| "malformed pattern")
}

/// `%1` of Lua is `${1}` of the regex library.
fn replacement(lua: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lua.len());
    let mut bytes = lua.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match bytes.next() {
                Some(digit @ b'0'..=b'9') => out.extend_from_slice(&[b'$', b'{', digit, b'}']),
                Some(other) => out.push(other),
                None => {}
            },
            b'$' => out.extend_from_slice(b"$$"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::known::Known;

    struct Caught;

    impl PathCaptures for Caught {
        fn each(&self, tell: &mut dyn FnMut(crate::plugins::view::PathCapture<'_>)) {
            for (name, text) in [(Some("id"), &b"42"[..]), (None, b"z")] {
                tell(crate::plugins::view::PathCapture { name, text });
            }
        }
    }

    fn render(text: &str) -> Result<String, Failed> {
        let mut fields = Fields::default();
        fields.append_by_name(b"X-Id", b"a-1");
        fields.set(Known::UserAgent, b"ua");
        let env = Env { fields: &fields, source: &[], query: b"a=1&a=2&b&c=x%20y", captures: Some(&Caught) };
        let mut out = Vec::new();
        Template::parse(text).unwrap().render(&env, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn lookups() {
        for (text, want) in [
            ("$(headers[\"x-id\"])", "a-1"),
            ("<$(headers.x_id)>", "<a-1>"),
            ("$(headers.user_agent)-$(headers.none)-", "ua--"),
            ("$(query_params.a)$(query_params['c'])$(query_params.b)", "1x ytrue"),
            ("$(uri_captures.id)$(uri_captures[1])$(uri_captures[2])$(uri_captures[3])", "4242z"),
            ("$(shared.anything)", ""),
        ] {
            assert_eq!(render(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn expressions() {
        for (text, want) in [
            ("$(headers.none or \"none\")", "none"),
            ("$(headers.x_id and 'yes' or 'no')", "yes"),
            ("$(not headers.none)", "true"),
            ("$(headers.x_id == 'a-1' and 1 or 2)", "1"),
            ("$(headers.x_id ~= 'a-1' and 1 or 2)", "2"),
            ("$('a' .. 1 .. \"b\")", "a1b"),
            ("$((headers.none or 'x') .. 'y')", "xy"),
            ("$(headers.x_id:upper():sub(1, 1))", "A"),
            ("$(string.sub('hello', -3))", "llo"),
            ("$(string.sub('hello', 2, -2))", "ell"),
            ("$(('ab'):rep(2):reverse():len())", "4"),
            ("$(string.gsub('a.b.c', '%.', '/'))", "a/b/c"),
            ("$(string.gsub('k=v', '(%w)=(%w)', '%2=%1$'))", "v=k$"),
            ("$(string.match('id:77', '%d+'))", "77"),
            ("$(string.match('id:77', 'id:(%d)'))", "7"),
            ("$(tostring(nil))$(tonumber(' 7 '))$(type(nil))", "nil7nil"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_lua_stops_at_fails() {
        for text in ["$('a' .. nil)", "$(string.upper(nil))", "$(('a'):rep(100000))", "$(('a'):match('%b()'))"] {
            assert!(render(text).is_err(), "{text}");
        }
    }
}
