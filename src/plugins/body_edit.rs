//! Request bodies with named values, changed as request-transformer wants (spec/plugins.md D.1).
//! Never: touches a body that is not what its type says.

use serde_json::Map;
use serde_json::Value;

use crate::plugins::body::Format;
use crate::plugins::body::parts;
use crate::plugins::edit::Action;
use crate::plugins::query::List;

/// The changed body; `None`: it stays as it is. A body of nothing is only added to.
pub(super) fn edited(format: Format<'_>, body: &[u8], changes: &[(Action, &str, &[u8])]) -> Option<Vec<u8>> {
    let is_empty = body.is_empty();
    let changes = changes.iter().filter(|(action, ..)| !is_empty || matches!(action, Action::Add | Action::Append));
    let mut changes = changes.peekable();
    changes.peek()?;
    match format {
        Format::Json => {
            let mut object = match serde_json::from_slice(body) {
                Ok(Value::Object(object)) => object,
                _ if is_empty => Map::new(),
                _ => return None,
            };
            for (action, name, value) in changes {
                action.apply_to(&mut object, name, String::from_utf8_lossy(value).into_owned().into());
            }
            serde_json::to_vec(&object).ok()
        }
        Format::Form => {
            let mut list = List::of(body);
            changes.for_each(|(action, name, value)| list.change(*action, name.as_bytes(), value));
            Some(list.encoded())
        }
        Format::Multipart { boundary } => {
            let mut form = body.to_vec();
            changes.for_each(|(action, name, value)| change_part(&mut form, boundary, *action, name, value));
            Some(form)
        }
    }
}

fn change_part(form: &mut Vec<u8>, boundary: &[u8], action: Action, name: &str, value: &[u8]) {
    let found = parts(form, boundary).into_iter().find(|part| part.name == name.as_bytes());
    let content = found.map(|part| part.content.to_vec());
    let remove = |form: &mut Vec<u8>| {
        if let Some(rest) = (Format::Multipart { boundary }).without(form, name.as_bytes()) {
            *form = rest;
        }
    };
    match (action, content) {
        (Action::Remove, _) => remove(form),
        (Action::Rename, Some(content)) => {
            remove(form);
            push_part(form, boundary, value, &content);
        }
        (Action::Replace, Some(_)) => {
            remove(form);
            push_part(form, boundary, name.as_bytes(), value);
        }
        (Action::Add, None) => push_part(form, boundary, name.as_bytes(), value),
        // A part has one value.
        (Action::Rename | Action::Replace, None) | (Action::Add, Some(_)) | (Action::Append, _) => {}
    }
}

/// Puts a part before the end of the form.
fn push_part(form: &mut Vec<u8>, boundary: &[u8], name: &[u8], content: &[u8]) {
    let end = [b"--", boundary, b"--"].concat();
    let at = form.windows(end.len()).rposition(|window| window == end).unwrap_or(form.len());
    form.truncate(at);
    if !(form.is_empty() || form.ends_with(b"\r\n")) {
        form.extend_from_slice(b"\r\n");
    }
    // A quote or a line end would end the name.
    let name: Vec<u8> = name.iter().copied().filter(|byte| !b"\"\r\n".contains(byte)).collect();
    for text in
        [b"--", boundary, b"\r\nContent-Disposition: form-data; name=\"", &name, b"\"\r\n\r\n", content, b"\r\n"]
    {
        form.extend_from_slice(text);
    }
    form.extend_from_slice(&end);
    form.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";

    fn check(format: Format<'_>, body: &str, change: (Action, &str, &str), want: Option<&str>) {
        let (action, name, value) = change;
        let edited = edited(format, body.as_bytes(), &[(action, name, value.as_bytes())]);
        assert_eq!(edited.as_deref().map(|body| std::str::from_utf8(body).unwrap()), want, "{change:?} {body}");
    }

    #[test]
    fn json_bodies() {
        let json = |change, body, want| check(Format::Json, body, change, want);
        json((Action::Add, "b", "1"), r#"{"c":"v"}"#, Some(r#"{"c":"v","b":"1"}"#));
        json((Action::Add, "b", "1"), "", Some(r#"{"b":"1"}"#));
        json((Action::Replace, "b", "1"), "", None);
        json((Action::Remove, "c", ""), r#"{"c":"v"}"#, Some("{}"));
        json((Action::Add, "b", "1"), "{", None);
        json((Action::Add, "b", "1"), "[1]", None);
    }

    #[test]
    fn forms() {
        let form = |change, body, want| check(Format::Form, body, change, want);
        form((Action::Append, "c", "2 3"), "c=v", Some("c=v&c=2%203"));
        form((Action::Remove, "c", ""), "c=v", Some(""));
        form((Action::Add, "c", "1"), "", Some("c=1"));
    }

    #[test]
    fn multipart_forms() {
        let form = |change, want: &str| check(Format::Multipart { boundary: b"x" }, FORM, change, Some(want));
        form((Action::Remove, "a", ""), "--x--\r\n");
        form((Action::Rename, "a", "b"), &FORM.replace("\"a\"", "\"b\""));
        form((Action::Replace, "a", "2"), &FORM.replace("\r\n1\r\n", "\r\n2\r\n"));
        form((Action::Replace, "z", "2"), FORM);
        form((Action::Add, "a", "2"), FORM);
        let added = FORM.replace("--x--", "--x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n2\r\n--x--");
        form((Action::Add, "b", "2"), &added);
    }
}
