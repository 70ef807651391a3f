//! HOT: one comparison.
//! request-size-limiting: requests with too long a body are refused (spec/plugins.md C.3).
//! Always: what a request says of its length decides before a byte of its body is read; where it says nothing, the body
//! ends the request when it has become too long.

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;
use crate::strs;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "request-size-limiting",
        &[
            Field::integer("allowed_payload_size").default_int(128),
            Field::string("size_unit").required().default_str("megabytes").one_of(strs![
                "megabytes",
                "kilobytes",
                "bytes"
            ]),
            Field::boolean("require_content_length").required().default_bool(false),
        ],
    ),
    priority: 951,
    build,
};

struct RequestSizeLimiting {
    bytes_max: u64,
    require_content_length: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let unit_bytes = match settings::text(config, "size_unit") {
        Some("bytes") => 1,
        Some("kilobytes") => 1 << 10,
        _ => 1 << 20,
    };
    let size = config.get("allowed_payload_size").and_then(Value::as_i64).unwrap_or(128);
    Ok(Box::new(RequestSizeLimiting {
        bytes_max: u64::try_from(size).unwrap_or(0).saturating_mul(unit_bytes),
        require_content_length: settings::flag(config, "require_content_length"),
    }))
}

impl Plugin for RequestSizeLimiting {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        let declared = view.fields.get(view.source, Known::ContentLength);
        let bytes: Option<u64> = declared.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        match bytes {
            Some(bytes) if bytes > self.bytes_max => {
                let expect = view.fields.get(view.source, Known::Expect);
                let status =
                    if expect.is_some_and(|text| text.eq_ignore_ascii_case(b"100-continue")) { 417 } else { 413 };
                view.reply.gateway(status, "Request size limit exceeded");
                Verdict::Reply
            }
            Some(_) => Verdict::Continue,
            None if self.require_content_length && !view.fields.has(Known::TransferEncoding) => {
                view.reply.gateway(411, "A valid Content-Length header is required");
                Verdict::Reply
            }
            None => {
                *view.body_bytes_max = Some(self.bytes_max);
                Verdict::Continue
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    #[track_caller]
    fn check(config: Value, lines: &[&str], want: Option<(u16, &str)>) {
        let mut exchange = Exchange::new(lines);
        let verdict = exchange.access(&*plugin(&KIND, config));
        match want {
            None => assert_eq!(verdict, Verdict::Continue, "{lines:?}"),
            Some((status, message)) => {
                assert_eq!(
                    (verdict, exchange.reply.status, &*exchange.reply_text()),
                    (Verdict::Reply, status, message)
                );
            }
        }
    }

    #[test]
    fn the_length_that_is_told_decides() {
        let limit = |size: i64, unit: &str| json!({ "allowed_payload_size": size, "size_unit": unit });
        let over = Some((413, "Request size limit exceeded"));
        check(limit(10, "bytes"), &["POST /p", "Content-Length: 10"], None);
        check(limit(10, "bytes"), &["POST /p", "Content-Length: 11"], over);
        check(limit(1, "kilobytes"), &["POST /p", "Content-Length: 1024"], None);
        check(limit(1, "kilobytes"), &["POST /p", "Content-Length: 1025"], over);
        check(json!({}), &["POST /p", "Content-Length: 134217728"], None);
        check(json!({}), &["POST /p", "Content-Length: 134217729"], over);
        check(limit(-1, "bytes"), &["POST /p", "Content-Length: 1"], over);
        let expecting = ["POST /p", "Content-Length: 11", "Expect: 100-Continue"];
        check(limit(10, "bytes"), &expecting, Some((417, "Request size limit exceeded")));
    }

    #[test]
    fn a_length_may_be_demanded() {
        let config = json!({ "require_content_length": true });
        let missing = Some((411, "A valid Content-Length header is required"));
        check(config.clone(), &["GET /p"], missing);
        check(config.clone(), &["POST /p", "Content-Length: 0"], None);
        check(config, &["POST /p", "Transfer-Encoding: chunked"], None);
    }

    #[test]
    fn a_body_of_unknown_length_is_measured_as_it_comes() {
        let config = json!({ "allowed_payload_size": 10, "size_unit": "bytes" });
        let mut exchange = Exchange::new(&["POST /p", "Transfer-Encoding: chunked"]);
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Continue);
        assert_eq!(exchange.body_bytes_max, Some(10));
    }
}
