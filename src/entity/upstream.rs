//! upstreams: a name that stands for several targets, and how to choose among them (spec/entities.md section 7).

use crate::entity::Entity;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Record;
use crate::entity::service::path;
use crate::entity::validators::Check;
use crate::strs;
use serde_json::Map;
use serde_json::Value;

pub static UPSTREAMS: Entity = Entity::new("upstreams", "name", &RECORD).normalise(agree_on_algorithm);

const HASH_ON: &[Literal] = strs!["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"];
const NONE: &[Literal] = strs!["none"];
const PROBE_TYPES: &[Literal] = strs!["tcp", "http", "https", "grpc", "grpcs"];

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::string("name").required().unique().check(Check::UpstreamName),
    Field::updated_at(),
    Field::string("algorithm").default_str("round-robin").one_of(strs![
        "consistent-hashing",
        "least-connections",
        "round-robin",
        "latency"
    ]),
    Field::string("hash_on").default_str("none").one_of(HASH_ON),
    Field::string("hash_fallback").default_str("none").one_of(HASH_ON),
    Field::string("hash_on_header").check(Check::HeaderName),
    Field::string("hash_fallback_header").check(Check::HeaderName),
    Field::string("hash_on_cookie").check(Check::CookieName),
    path("hash_on_cookie_path").default_str("/"),
    Field::string("hash_on_query_arg").len_min(1),
    Field::string("hash_fallback_query_arg").len_min(1),
    Field::string("hash_on_uri_capture").len_min(1),
    Field::string("hash_fallback_uri_capture").len_min(1),
    Field::integer("slots").default_int(10000).between(10, 65536),
    Field::record("healthchecks", &HEALTHCHECKS).required().default(Literal::OfFields),
    Field::tags(),
    Field::string("host_header").check(Check::HostWithOptionalPort),
    Field::foreign("client_certificate", "certificates"),
    Field::boolean("use_srv_name").default_bool(false),
])
.checks(&[
    needs("hash_on", "^header$", "hash_on_header"),
    needs("hash_fallback", "^header$", "hash_fallback_header"),
    needs("hash_on", "^cookie$", "hash_on_cookie"),
    needs("hash_fallback", "^cookie$", "hash_on_cookie"),
    fallback("^none$", NONE),
    fallback("^cookie$", NONE),
    fallback("^consumer$", strs!["none", "ip", "header", "cookie", "path", "query_arg", "uri_capture"]),
    fallback("^ip$", strs!["none", "consumer", "header", "cookie", "path", "query_arg", "uri_capture"]),
    fallback("^path$", strs!["none", "consumer", "header", "cookie", "query_arg", "ip", "uri_capture"]),
    EntityCheck::Distinct(&["hash_on_header", "hash_fallback_header"]),
    needs("hash_on", "^query_arg$", "hash_on_query_arg"),
    needs("hash_fallback", "^query_arg$", "hash_fallback_query_arg"),
    EntityCheck::Distinct(&["hash_on_query_arg", "hash_fallback_query_arg"]),
    needs("hash_on", "^uri_capture$", "hash_on_uri_capture"),
    needs("hash_fallback", "^uri_capture$", "hash_fallback_uri_capture"),
    EntityCheck::Distinct(&["hash_on_uri_capture", "hash_fallback_uri_capture"]),
]);

const fn needs(if_field: &'static str, lua: &'static str, then_field: &'static str) -> EntityCheck {
    EntityCheck::conditional(if_field, Match::Matches(lua), then_field, Match::Required)
}

const fn fallback(hash_on: &'static str, choices: &'static [Literal]) -> EntityCheck {
    EntityCheck::conditional("hash_on", Match::Matches(hash_on), "hash_fallback", Match::OneOf(choices))
}

static HEALTHCHECKS: Record = Record::of(&[
    Field::record("active", &ACTIVE).required().default(Literal::OfFields),
    Field::record("passive", &PASSIVE).required().default(Literal::OfFields),
    Field::number("threshold").default_int(0).between(0, 100),
]);

const HEADER_NAME: Field = Field::string("").check(Check::HeaderName);
const HEADER_VALUE: Field = Field::string("");
const HEADER_VALUES: Field = Field::array("", &HEADER_VALUE);

static ACTIVE: Record = Record::of(&[
    Field::integer("concurrency").default_int(10).between(1, 2_147_483_648),
    path("http_path").default_str("/"),
    seconds("timeout").default_int(1),
    Field::boolean("https_verify_certificate").required().default_bool(true),
    Field::record("healthy", &ACTIVE_HEALTHY).required().default(Literal::OfFields),
    Field::record("unhealthy", &ACTIVE_UNHEALTHY).required().default(Literal::OfFields),
    Field::string("type").default_str("http").one_of(PROBE_TYPES),
    Field::string("https_sni").optional().check(Check::Sni),
    Field::map("headers", &HEADER_NAME, &HEADER_VALUES).optional(),
]);

static ACTIVE_HEALTHY: Record =
    Record::of(&[statuses().default_ints(&[200, 302]), count("successes"), seconds("interval").default_int(0)]);

static ACTIVE_UNHEALTHY: Record = Record::of(&[
    statuses().default_ints(&[429, 404, 500, 501, 502, 503, 504, 505]),
    seconds("interval").default_int(0),
    count("tcp_failures"),
    count("timeouts"),
    count("http_failures"),
]);

static PASSIVE: Record = Record::of(&[
    Field::record("unhealthy", &PASSIVE_UNHEALTHY).required().default(Literal::OfFields),
    Field::string("type").default_str("http").one_of(PROBE_TYPES),
    Field::record("healthy", &PASSIVE_HEALTHY).required().default(Literal::OfFields),
]);

static PASSIVE_HEALTHY: Record = Record::of(&[
    count("successes"),
    statuses()
        .default_ints(&[200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]),
]);

static PASSIVE_UNHEALTHY: Record = Record::of(&[
    statuses().default_ints(&[429, 500, 503]),
    count("tcp_failures"),
    count("timeouts"),
    count("http_failures"),
]);

const STATUS: Field = Field::integer("").between(100, 999);

const fn statuses() -> Field {
    Field::array("http_statuses", &STATUS)
}

/// How many outcomes change the state; 0 switches the rule off.
const fn count(name: &'static str) -> Field {
    Field::integer(name).default_int(0).between(0, 255)
}

const fn seconds(name: &'static str) -> Field {
    Field::number(name).between(0, 65535)
}

/// `algorithm` and `hash_on` rewrite each other (section 7.1).
fn agree_on_algorithm(row: &mut Map<String, Value>) {
    let counts = matches!(row.get("algorithm").and_then(Value::as_str), Some("least-connections" | "latency"));
    let algorithm = match row.get("hash_on") {
        _ if counts => {
            row.insert("hash_on".to_string(), "none".into());
            return;
        }
        None => return,
        Some(Value::Null) => {
            row.insert("hash_on".to_string(), "none".into());
            return;
        }
        Some(hash_on) if hash_on == "none" => "round-robin",
        Some(_) => "consistent-hashing",
    };
    row.insert("algorithm".to_string(), algorithm.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn algorithm_and_hash_on_follow_each_other() {
        let check = |sent: Value, algorithm: Value, hash_on: Value| {
            let mut row = sent.as_object().cloned().unwrap_or_default();
            agree_on_algorithm(&mut row);
            let got =
                (row.get("algorithm").cloned().unwrap_or_default(), row.get("hash_on").cloned().unwrap_or_default());
            assert_eq!(got, (algorithm, hash_on), "{sent}");
        };
        check(json!({"hash_on": "ip"}), json!("consistent-hashing"), json!("ip"));
        check(json!({"algorithm": "round-robin", "hash_on": "ip"}), json!("consistent-hashing"), json!("ip"));
        check(json!({"algorithm": "consistent-hashing", "hash_on": "none"}), json!("round-robin"), json!("none"));
        check(json!({"algorithm": "least-connections", "hash_on": "ip"}), json!("least-connections"), json!("none"));
        check(json!({"algorithm": "foo", "hash_on": "bar"}), json!("consistent-hashing"), json!("bar"));
        check(json!({"algorithm": "round-robin", "hash_on": null}), json!("round-robin"), json!("none"));
    }
}
