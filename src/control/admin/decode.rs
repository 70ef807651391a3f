//! A request's body into one JSON object (spec/admin-api.md section 2).
//! Owns: the content type gate, JSON with its limits, forms, multipart. Never: knows the entity the body is for.

use crate::control::admin::form;
use crate::control::admin::form::BadForm;
use crate::control::admin::form::Pair;
use crate::control::admin::problem::Problem;
use crate::entity::complete::whole;
use crate::limits::ADMIN_ARGUMENTS_MAX;
use crate::limits::ADMIN_JSON_DEPTH_MAX;
use http_body_util::BodyDataStream;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::CONTENT_LENGTH;
use hyper::header::CONTENT_TYPE;
use hyper::header::TRANSFER_ENCODING;
use serde_json::Map;
use serde_json::Value;

/// How a body is written, by its content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Absent,
    Json,
    Form,
    Multipart {
        boundary: Option<String>,
    },
    /// For declarative configuration only.
    Yaml,
}

/// A decoded body.
#[derive(Debug, Default)]
pub struct Input {
    pub fields: Map<String, Value>,
    /// Values are strings that still have to be typed by a schema.
    pub untyped: bool,
    /// There was no body at all.
    pub absent: bool,
    /// The body as it is: a document that is no object of fields.
    pub text: Option<String>,
}

/// Looks at the head alone, before anything else about a POST, PUT or PATCH.
///
/// # Errors
/// 415 for what cannot be read, 400 for two content types.
pub fn gate(headers: &HeaderMap) -> Result<Format, Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    if second.is_some() {
        return Err(Problem::Text(StatusCode::BAD_REQUEST, "Multiple Content-Type headers not allowed"));
    }
    let Some(content_type) = first else {
        let length = headers.get(CONTENT_LENGTH).map(|length| length.as_bytes());
        let empty = matches!(length, None | Some(b"0")) && !headers.contains_key(TRANSFER_ENCODING);
        return if empty { Ok(Format::Absent) } else { Err(Problem::Page(StatusCode::UNSUPPORTED_MEDIA_TYPE)) };
    };
    // Compared by prefix and case, as Kong does.
    let content_type = content_type.to_str().unwrap_or_default();
    if content_type.starts_with("application/json") {
        Ok(Format::Json)
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        Ok(Format::Form)
    } else if content_type.starts_with("multipart/form-data") {
        Ok(Format::Multipart { boundary: multer::parse_boundary(content_type).ok() })
    } else if content_type.starts_with("application/yaml") || content_type.starts_with("text/yaml") {
        Ok(Format::Yaml)
    } else {
        Err(Problem::Page(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    }
}

/// Decodes the body.
///
/// # Errors
/// 400 for bad syntax, too many arguments, or nesting deeper than `ADMIN_JSON_DEPTH_MAX`.
pub async fn decode(format: Format, body: Bytes) -> Result<Input, Problem> {
    let fields = match format {
        Format::Absent => {
            return Ok(Input { untyped: true, absent: true, ..Input::default() });
        }
        Format::Json => {
            return Ok(Input { fields: json(&body)?, ..Input::default() });
        }
        Format::Yaml => {
            let text = String::from_utf8(body.to_vec()).map_err(|_| bad_form(BadForm::NotUtf8))?;
            return Ok(Input { text: Some(text), ..Input::default() });
        }
        Format::Form => form::object(form::pairs(&body, ADMIN_ARGUMENTS_MAX).map_err(bad_form)?, true),
        Format::Multipart { boundary: None } => Map::new(),
        Format::Multipart { boundary: Some(boundary) } => form::object(multipart(boundary, body).await?, true),
    };
    let absent = fields.is_empty();
    Ok(Input { fields, untyped: true, absent, text: None })
}

/// The arguments of a query, flat.
///
/// # Errors
/// 400 for too many, or for text that is not UTF-8.
pub fn query(query: &str) -> Result<Vec<Pair>, Problem> {
    form::pairs(query.as_bytes(), ADMIN_ARGUMENTS_MAX).map_err(bad_form)
}

fn bad_form(bad: BadForm) -> Problem {
    Problem::bad_request(match bad {
        BadForm::TooMany => "Too many arguments",
        BadForm::NotUtf8 => "Cannot parse arguments: they are not UTF-8",
    })
}

fn json(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if depth(body) > ADMIN_JSON_DEPTH_MAX {
        return Err(Problem::bad_request(format!(
            "Cannot parse JSON body: nested deeper than {ADMIN_JSON_DEPTH_MAX} levels"
        )));
    }
    match serde_json::from_slice(body).map(whole) {
        Ok(Value::Object(fields)) => Ok(fields),
        // The empty table of Lua is both.
        Ok(Value::Array(list)) if list.is_empty() => Ok(Map::new()),
        _ => Err(Problem::bad_request("Cannot parse JSON body")),
    }
}

/// How deep brackets nest outside of strings; exact for well-formed JSON.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The fields of a multipart body; of a repeated one the last counts. What is malformed ends the reading.
async fn multipart(boundary: String, body: Bytes) -> Result<Vec<Pair>, Problem> {
    let mut parts = multer::Multipart::new(BodyDataStream::new(Full::new(body)), boundary);
    let mut pairs: Vec<Pair> = Vec::new();
    while let Ok(Some(part)) = parts.next_field().await {
        let Some(name) = part.name().map(str::to_string) else {
            continue;
        };
        let Ok(value) = part.bytes().await else {
            break;
        };
        let Ok(value) = String::from_utf8(value.to_vec()) else {
            return Err(bad_form(BadForm::NotUtf8));
        };
        pairs.retain(|(known, _)| *known != name);
        if pairs.len() == ADMIN_ARGUMENTS_MAX {
            return Err(bad_form(BadForm::TooMany));
        }
        pairs.push((name, Some(value)));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use serde_json::json;

    fn head(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn content_types_are_compared_by_prefix_and_case() {
        let status = |headers: &[(&'static str, &'static str)]| gate(&head(headers)).map_err(|p| p.into_reply().status);
        assert_eq!(status(&[("content-type", "application/json; charset=utf-8")]), Ok(Format::Json));
        assert_eq!(status(&[("content-type", "Application/JSON")]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(status(&[("content-length", "0")]), Ok(Format::Absent));
        assert_eq!(status(&[("content-length", "1")]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(status(&[("transfer-encoding", "chunked")]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        let twice = [("content-type", "application/json"), ("content-type", "application/json")];
        assert_eq!(status(&twice), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn json_bodies_are_objects_of_bounded_depth() {
        assert_eq!(json(b"{\"port\":80.0}").unwrap(), *json!({"port": 80}).as_object().unwrap());
        assert_eq!(json(b"[]").unwrap(), Map::new());
        for bad in [&b""[..], b"null", b"1", b"[1]", b"{", b"{\"a\":1,}", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}"] {
            assert!(json(bad).is_err(), "{bad:?}");
        }
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(json(nested(ADMIN_JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(json(nested(ADMIN_JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        assert_eq!(depth(br#"{"a":"[[[\"["}"#), 1);
    }

    #[test]
    fn exact_integers_survive() {
        assert_eq!(json(b"{\"a\":9007199254740992}").unwrap()["a"].to_string(), "9007199254740992");
    }
}
