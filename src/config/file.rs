//! The syntax of kong.conf: `name = value` lines, `#` comments, `\#` for a literal one, quotes around a value.
//! Never: knows property names.

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u32,
    /// Name and value, or the line when it is neither blank, comment nor assignment.
    pub content: Result<(&'a str, String), &'a str>,
}

pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some(Line { number, content: assignment(line).ok_or(line) })
    })
}

fn assignment(line: &str) -> Option<(&str, String)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (!name.is_empty() && name.bytes().all(plain)).then_some(())?;
    Some((name, value_of(value.trim())?))
}

/// The value without comment, quotes and escapes; `None` when a quote does not end.
fn value_of(text: &str) -> Option<String> {
    if let Some(quote @ ('"' | '\'')) = text.chars().next() {
        let (quoted, rest) = text[1..].split_once(quote)?;
        let rest = rest.trim_start();
        return (rest.is_empty() || rest.starts_with('#')).then(|| quoted.to_owned());
    }
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' => break,
            '\\' if chars.peek() == Some(&'#') => {}
            _ => {
                value.push(c);
                continue;
            }
        }
        value.extend(chars.next());
    }
    value.truncate(value.trim_end().len());
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Option<(&str, &str)>) {
        let got = lines(line).next().expect(line).content;
        assert_eq!(got, want.map(|(name, value)| (name, value.to_owned())).ok_or(line.trim()));
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        check("a = b", Some(("a", "b")));
        check("  a=b c  ", Some(("a", "b c")));
        check("a = b = c", Some(("a", "b = c")));
        check("a =", Some(("a", "")));
        check("a = é", Some(("a", "é")));
    }

    #[test]
    fn an_unescaped_hash_starts_a_comment() {
        check("a = b # c", Some(("a", "b")));
        check("a = b#c", Some(("a", "b")));
        check(r"a = b\#c # d", Some(("a", "b#c")));
        check(r"a = \#\##", Some(("a", "##")));
        check(r"a = b\c\", Some(("a", r"b\c\")));
        check("a = # only a comment", Some(("a", "")));
    }

    #[test]
    fn quotes_keep_blanks_and_hashes() {
        check("a = \" b # c \" # d", Some(("a", " b # c ")));
        check("a = 'it is \"so\"'", Some(("a", "it is \"so\"")));
        check("a = \"\"", Some(("a", "")));
        check("a = \"b", None);
        check("a = \"b\" c", None);
    }

    #[test]
    fn what_is_no_assignment_is_given_back() {
        check("proxy_listen", None);
        check("= x", None);
        check("a b = c", None);
        check("[section]", None);
    }

    #[test]
    fn blank_lines_and_comments_count_but_say_nothing() {
        let text = "\u{feff}# first\r\n\r\n a = 1\r\n  # x = 2\n\nb = 2\n";
        let numbers: Vec<_> = lines(text).map(|line| (line.number, line.content.unwrap().0)).collect();
        assert_eq!(numbers, [(3, "a"), (6, "b")]);
    }
}
