//! Pages of a collection: their arguments, their tokens, their bodies (spec/admin-api.md sections 4.2 and 4.3).

use crate::control::admin::form::Pair;
use crate::control::admin::problem::Problem;
use crate::control::store::tables::TagFilter;
use crate::limits::FILTER_TAGS_MAX;
use crate::limits::PAGE_ROWS_DEFAULT;
use crate::limits::PAGE_ROWS_MAX;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const TOKEN: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a client wants of a collection.
#[derive(Debug)]
pub struct Wanted {
    pub size: usize,
    /// The content of the offset token.
    pub after: Option<Vec<Value>>,
    pub tags: Option<TagFilter>,
    raw_size: Option<String>,
    raw_tags: Option<String>,
}

/// The first value of an argument; an argument without `=` has none.
pub fn argument<'a>(query: &'a [Pair], name: &str) -> Option<&'a Option<String>> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Reads `size`: not numeric and out of range are told apart.
///
/// # Errors
/// The size is none.
pub fn size(query: &[Pair]) -> Result<Option<f64>, Problem> {
    const NOT_A_NUMBER: Problem = Problem::BadSize("size must be a number");
    let Some(given) = argument(query, "size") else {
        return Ok(None);
    };
    let number = given.as_deref().and_then(crate::entity::coerce::number).and_then(|number| number.as_f64());
    let repeated = query.iter().filter(|(key, _)| key == "size").count() > 1;
    match number {
        Some(number) if !repeated => Ok(Some(number)),
        _ => Err(NOT_A_NUMBER),
    }
}

impl Wanted {
    /// # Errors
    /// The first argument that breaks its rule.
    pub fn read(query: &[Pair], taggable: bool) -> Result<Wanted, Problem> {
        let size = match size(query)? {
            None => PAGE_ROWS_DEFAULT,
            Some(number) if number.fract() == 0.0 && (1.0..=PAGE_ROWS_MAX as f64).contains(&number) => number as usize,
            Some(_) => {
                return Err(Problem::BadSize("size must be an integer between 1 and 1000"));
            }
        };
        let after = match argument(query, "offset") {
            None => None,
            Some(token) => Some(read_token(token.as_deref().unwrap_or_default())?),
        };
        let raw_tags = argument(query, "tags").filter(|_| taggable);
        let tags = raw_tags.map(|tags| tag_filter(tags.as_deref().unwrap_or_default())).transpose()?;
        Ok(Wanted {
            size,
            after,
            tags,
            raw_size: argument(query, "size").cloned().flatten(),
            raw_tags: raw_tags.cloned().flatten(),
        })
    }

    /// The id after which the page begins.
    ///
    /// # Errors
    /// The token is not one that this collection gave.
    pub fn after_id(&self, query: &[Pair]) -> Result<Option<uuid::Uuid>, Problem> {
        let Some(parts) = &self.after else {
            return Ok(None);
        };
        let id = parts.first().and_then(Value::as_str).and_then(|id| uuid::Uuid::try_parse(id).ok());
        id.map(Some).ok_or_else(|| foreign_token(query))
    }

    /// The path of the next page, with the arguments that go on applying.
    pub fn next(&self, path: &str, token: &str) -> String {
        let mut next = nested_next(path, token);
        for (name, value) in [("tags", &self.raw_tags), ("size", &self.raw_size)] {
            if let Some(value) = value {
                next.push_str(&format!("&{name}={}", utf8_percent_encode(value, ESCAPED)));
            }
        }
        next
    }
}

/// The path of the next page where no argument goes on applying.
pub fn nested_next(path: &str, token: &str) -> String {
    format!("{path}?offset={}", utf8_percent_encode(token, ESCAPED))
}

/// The problem of a token that is well-formed but means nothing here.
pub fn foreign_token(query: &[Pair]) -> Problem {
    let offset = argument(query, "offset").cloned().flatten().unwrap_or_default();
    Problem::BadOffset { offset, reason: "it does not belong to this collection" }
}

/// A token from the values that name the last row of a page.
pub fn token(parts: &Value) -> String {
    TOKEN.encode(parts.to_string())
}

fn read_token(token: &str) -> Result<Vec<Value>, Problem> {
    let bad = |reason| Problem::BadOffset { offset: token.to_string(), reason };
    let decoded = TOKEN.decode(token).map_err(|_| bad("bad base64 encoding"))?;
    match serde_json::from_slice(&decoded) {
        Ok(Value::Array(parts)) => Ok(parts),
        _ => Err(bad("bad json encoding")),
    }
}

fn tag_filter(text: &str) -> Result<TagFilter, Problem> {
    let bad = |text| Err(Problem::BadOption { option: "tags", text });
    if text.is_empty() {
        return bad("cannot be null");
    }
    let separator = if text.contains('/') { '/' } else { ',' };
    let tags: Vec<String> = text.split(separator).map(str::to_string).collect();
    if !tags.iter().all(|tag| crate::entity::validators::tag(tag).is_ok()) {
        return bad("invalid filter syntax");
    }
    if tags.len() > FILTER_TAGS_MAX {
        return bad("cannot query more than 5 tags");
    }
    Ok(if separator == '/' { TagFilter::Any(tags) } else { TagFilter::All(tags) })
}

/// The body of a page from rows that are JSON texts already.
pub fn body(rows: &[String], next: Option<(String, String)>) -> String {
    let (next, offset) = match next {
        None => ("null".to_string(), String::new()),
        Some((path, token)) => (Value::from(path).to_string(), format!(",\"offset\":{}", Value::from(token))),
    };
    format!("{{\"data\":[{}],\"next\":{next}{offset}}}", rows.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(query: &str) -> Result<Wanted, Value> {
        let pairs = crate::control::admin::decode::query(query).map_err(|_| json!("query"))?;
        Wanted::read(&pairs, true).map_err(|problem| serde_json::from_str(&problem.into_reply().body).unwrap())
    }

    #[test]
    fn sizes() {
        assert_eq!(read("").unwrap().size, 100);
        assert_eq!(read("size=1000").unwrap().size, 1000);
        for text in ["abc", "", "1&size=2"] {
            assert_eq!(read(&format!("size={text}")).unwrap_err()["message"], "size must be a number", "{text}");
        }
        for text in ["0", "1001", "-1", "2.5"] {
            let refused = read(&format!("size={text}")).unwrap_err();
            assert_eq!(refused["message"], "size must be an integer between 1 and 1000", "{text}");
        }
    }

    #[test]
    fn tokens_round_trip_and_strangers_are_refused() {
        let token = token(&json!(["00000001-0000-4000-8000-000000000000"]));
        assert_eq!(read(&format!("offset={token}")).unwrap().after.unwrap().len(), 1);
        assert_eq!(read("offset=zzz").unwrap_err()["message"], "'zzz' is not a valid offset: bad json encoding");
        assert_eq!(read("offset=%25").unwrap_err()["message"], "'%' is not a valid offset: bad base64 encoding");
        assert_eq!(read("offset=").unwrap_err()["message"], "'' is not a valid offset: bad json encoding");
    }

    #[test]
    fn tag_filters() {
        assert_eq!(read("tags=a,b").unwrap().tags, Some(TagFilter::All(vec!["a".into(), "b".into()])));
        assert_eq!(read("tags=a/b").unwrap().tags, Some(TagFilter::Any(vec!["a".into(), "b".into()])));
        let text = |query: &str| read(query).unwrap_err()["options"]["tags"].clone();
        assert_eq!(text("tags="), "cannot be null");
        assert_eq!(text("tags=a,b/c"), "invalid filter syntax");
        assert_eq!(text("tags=,a"), "invalid filter syntax");
        assert_eq!(text("tags=%00"), "invalid filter syntax");
        assert_eq!(text("tags=a,b,c,d,e,f"), "cannot query more than 5 tags");
    }

    #[test]
    fn the_next_page_keeps_tags_and_size() {
        let wanted = read("size=2&tags=a%20b&foo=1").unwrap();
        assert_eq!(wanted.next("/services", "tok+"), "/services?offset=tok%2B&tags=a%20b&size=2");
    }
}
