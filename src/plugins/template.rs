//! Texts with expressions in them: `x-$(headers["x-id"] or "none")` (spec/plugins.md D.1).
//! Owns: the language, a part of Lua that has no loops, no assignments and no functions of its own, so that rendering
//! always ends. Never: renders; that is `template_value`. Always: a text that is no template is known before a request comes.

/// A text that may have expressions in it.
#[derive(Debug, PartialEq)]
pub(super) struct Template {
    pub pieces: Box<[Piece]>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Text(Box<str>),
    Expr(Expr),
}

#[derive(Debug, PartialEq)]
pub(super) enum Expr {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
    /// A member of what the request tells.
    Lookup(Source, Box<Expr>),
    Not(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Call(Function, Box<[Expr]>),
}

/// Where a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Headers,
    QueryParams,
    UriCaptures,
    /// Nothing writes there: every name is nil.
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Concat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Upper,
    Lower,
    Len,
    Reverse,
    Rep,
    Sub,
    Match,
    Gsub,
    ToString,
    ToNumber,
    Type,
}

impl Function {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "len" => Self::Len,
            "reverse" => Self::Reverse,
            "rep" => Self::Rep,
            "sub" => Self::Sub,
            "match" => Self::Match,
            "gsub" => Self::Gsub,
            _ => return None,
        })
    }
}

/// How deep expressions may nest.
const DEPTH_MAX: u32 = 32;

impl Template {
    /// # Errors
    /// What cannot be read, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            let Some(len) = balanced(&rest[at + 1..]) else { break };
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
            }
            let inner = &rest[at + 2..at + len];
            let mut parser = Parser { rest: inner, depth: 0 };
            let expr = parser.expr().and_then(|expr| match parser.rest.trim_start() {
                "" => Ok(expr),
                left => Err(format!("unexpected '{left}'")),
            });
            pieces.push(Piece::Expr(expr.map_err(|why| format!("in '{inner}': {why}"))?));
            rest = &rest[at + 1 + len..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// The text, if it is the same for every request.
    pub fn constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// The length of what an opening bracket begins, with its closing one.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 0u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

type Parsed = Result<Expr, String>;

impl<'a> Parser<'a> {
    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deep".to_string());
        }
        let mut left = self.conjunction()?;
        while self.word("or") {
            left = Expr::Binary(Operator::Or, Box::new(left), Box::new(self.conjunction()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        while self.word("and") {
            left = Expr::Binary(Operator::And, Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Parsed {
        let mut left = self.concatenation()?;
        loop {
            let operator = match () {
                () if self.sign("==") => Operator::Equal,
                () if self.sign("~=") => Operator::Unequal,
                () => return Ok(left),
            };
            left = Expr::Binary(operator, Box::new(left), Box::new(self.concatenation()?));
        }
    }

    fn concatenation(&mut self) -> Parsed {
        let mut parts = vec![self.unary()?];
        while self.sign("..") {
            parts.push(self.unary()?);
        }
        // To the right, as Lua does.
        let joined = parts
            .into_iter()
            .rev()
            .reduce(|right, left| Expr::Binary(Operator::Concat, Box::new(left), Box::new(right)));
        joined.ok_or_else(|| "expression expected".to_string())
    }

    fn unary(&mut self) -> Parsed {
        let mut negations = 0;
        while self.word("not") {
            negations += 1;
        }
        let mut value = self.postfix()?;
        for _ in 0..negations {
            value = Expr::Not(Box::new(value));
        }
        Ok(value)
    }

    /// A value, and methods called on it.
    fn postfix(&mut self) -> Parsed {
        let mut value = self.primary()?;
        while self.sign(":") {
            let name = self.name().ok_or("a method's name is missing")?;
            let function = Function::of(name).ok_or_else(|| format!("there is no method '{name}'"))?;
            let mut arguments = vec![value];
            self.arguments(&mut arguments)?;
            value = Expr::Call(function, arguments.into());
        }
        Ok(value)
    }

    fn primary(&mut self) -> Parsed {
        self.rest = self.rest.trim_start();
        match self.rest.bytes().next() {
            None => Err("expression expected".to_string()),
            Some(b'(') => {
                self.sign("(");
                let inner = self.expr()?;
                if self.sign(")") { Ok(inner) } else { Err("')' expected".to_string()) }
            }
            Some(b'"' | b'\'') => self.quoted().map(|text| Expr::Text(text.into())),
            Some(b'-') if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.sign("-");
                match self.primary()? {
                    Expr::Number(number) => Ok(Expr::Number(-number)),
                    other => Ok(other),
                }
            }
            Some(b'0'..=b'9') => {
                let len = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
                // Two points are an operator.
                let len = self.rest[..len].find("..").unwrap_or(len);
                let (digits, rest) = self.rest.split_at(len);
                self.rest = rest;
                digits.parse().map(Expr::Number).map_err(|_| format!("malformed number '{digits}'"))
            }
            Some(_) => self.named(),
        }
    }

    fn named(&mut self) -> Parsed {
        let Some(name) = self.name() else { return Err(format!("unexpected '{}'", self.rest)) };
        let source = match name {
            "nil" => return Ok(Expr::Nil),
            "true" | "false" => return Ok(Expr::Bool(name == "true")),
            "headers" => Source::Headers,
            "query_params" => Source::QueryParams,
            "uri_captures" => Source::UriCaptures,
            "shared" => Source::Shared,
            "tostring" => return self.call(Function::ToString),
            "tonumber" => return self.call(Function::ToNumber),
            "type" => return self.call(Function::Type),
            "string" => {
                let method = if self.sign(".") { self.name() } else { None };
                let function = method.and_then(Function::of).ok_or("there is no such function of 'string'")?;
                return self.call(function);
            }
            other => return Err(format!("there is nothing named '{other}'")),
        };
        let key = if self.sign("[") {
            let key = self.expr()?;
            if !self.sign("]") {
                return Err("']' expected".to_string());
            }
            key
        } else if !self.rest.trim_start().starts_with("..") && self.sign(".") {
            Expr::Text(self.name().ok_or("a name is missing behind '.'")?.into())
        } else {
            return Err(format!("'{name}' needs the name of a member"));
        };
        Ok(Expr::Lookup(source, Box::new(key)))
    }

    fn call(&mut self, function: Function) -> Parsed {
        let mut arguments = Vec::new();
        self.arguments(&mut arguments)?;
        Ok(Expr::Call(function, arguments.into()))
    }

    fn arguments(&mut self, arguments: &mut Vec<Expr>) -> Result<(), String> {
        if !self.sign("(") {
            return Err("'(' expected".to_string());
        }
        if self.sign(")") {
            return Ok(());
        }
        loop {
            arguments.push(self.expr()?);
            match () {
                () if self.sign(",") => {}
                () if self.sign(")") => return Ok(()),
                () => return Err("')' expected".to_string()),
            }
        }
    }

    /// Takes that sign if it comes next.
    fn sign(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes that word if it comes next.
    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(word).filter(|rest| !rest.starts_with(is_name_char));
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let len = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(len);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        self.rest = after;
        Some(name)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Ok(text);
            }
            text.push(match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, escaped @ ('\\' | '"' | '\''))) => escaped,
                    _ => return Err("unknown escape sequence".to_string()),
                },
                c => c,
            });
        }
        Err("unfinished string".to_string())
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dollar_is_special_before_a_bracket_only() {
        for text in ["", "a", "$a", "a$", "$", "1$(", "cost: 5$ (net)"] {
            assert_eq!(Template::parse(text).unwrap().constant(), Some(text), "{text}");
        }
        let template = Template::parse("a$(headers.x)b$(nil)").unwrap();
        assert_eq!(template.pieces.len(), 4);
        assert_eq!(template.constant(), None);
    }

    #[test]
    fn what_is_no_expression_is_named() {
        for (text, want) in [
            ("$()", "in '': expression expected"),
            ("$(headers)", "in 'headers': 'headers' needs the name of a member"),
            ("$(headers.)", "in 'headers.': a name is missing behind '.'"),
            ("$(headers[\"a\")", "in 'headers[\"a\"': ']' expected"),
            ("$(os.exit())", "in 'os.exit()': there is nothing named 'os'"),
            ("$(\"a)", "in '\"a': unfinished string"),
            ("$(\"a\" \"b\")", "in '\"a\" \"b\"': unexpected '\"b\"'"),
            ("$(string.dump(1))", "in 'string.dump(1)': there is no such function of 'string'"),
            ("$(function() end)", "in 'function() end': there is nothing named 'function'"),
            ("$(headers.a:find(1))", "in 'headers.a:find(1)': there is no method 'find'"),
        ] {
            assert_eq!(Template::parse(text).unwrap_err(), want, "{text}");
        }
        let deep = format!("$({}nil{})", "(".repeat(40), ")".repeat(40));
        assert!(Template::parse(&deep).unwrap_err().ends_with("nested too deep"));
    }

    #[test]
    fn any_cut_of_a_template_is_harmless() {
        let text = "x-$(string.sub(headers[\"x-id\"] or \"n\\\"o\", 1, 2.5) .. query_params.a:gsub('a', 'b') == nil)";
        for (at, _) in text.char_indices() {
            let _ = Template::parse(&text[..at]);
            let _ = Template::parse(&format!("$({}", &text[at..]));
        }
    }
}
