//! routes: which requests go to which service (spec/entities.md section 3, flavour `traditional_compatible`).

use crate::entity::Entity;
use crate::entity::Variant;
use crate::entity::checks::Conditional;
use crate::entity::checks::Custom;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::schema::Pattern;
use crate::entity::schema::Record;
use crate::entity::service::NO_EMPTY_SEGMENTS;
use crate::entity::service::PROTOCOLS;
use crate::entity::validators::Check;
use crate::entity::violation::Violations;
use crate::strs;
use serde_json::Map;
use serde_json::Value;

pub static ROUTES: Entity = Entity::new("routes", "name", &RECORD).variant(by_protocol);

const PROTOCOL: Field = Field::string("").one_of(PROTOCOLS);
const METHOD: Field = Field::string("").matches("^%u+$");
const HOST: Field = Field::string("")
    .match_all(&[Pattern { lua: "^[^*]*%*?[^*]*$", err: "invalid wildcard: must have at most one wildcard" }])
    .match_any(&["^%*%.", "%.%*$", "^[^*]*$"], "invalid wildcard: must be placed at leftmost or rightmost label")
    .check(Check::RouteHost);
const PATH: Field = Field::string("")
    .match_none(NO_EMPTY_SEGMENTS)
    .match_any(&["^/", "^~/"], "should start with: / (fixed path) or ~/ (regex path)")
    .check(Check::RouterPath);
const SNI: Field = Field::string("").check(Check::WildcardHost);
const HEADER_NAME: Field = Field::string("")
    .match_none(&[Pattern {
        lua: "^[Hh][Oo][Ss][Tt]$",
        err: "cannot contain 'host' header, which must be specified in the 'hosts' attribute",
    }])
    .check(Check::HeaderName);
const HEADER_VALUE: Field = Field::string("");
const HEADER_VALUES: Field = Field::array("", &HEADER_VALUE);
static SOURCE: Record =
    Record::of(&[Field::string("ip").check(Check::IpOrCidr), Field::integer("port").between(0, 65535)])
        .checks(&[EntityCheck::AtLeastOneOf(&["ip", "port"])]);
const SOURCE_ELEMENT: Field = Field::record("", &SOURCE);
const REDIRECT_STATUSES: &[Literal] =
    &[Literal::Int(426), Literal::Int(301), Literal::Int(302), Literal::Int(307), Literal::Int(308)];

static RECORD: Record = Record::of(&[
    Field::id(),
    Field::created_at(),
    Field::updated_at(),
    Field::string("name").unique().check(Check::Utf8Name),
    Field::set("protocols", &PROTOCOL).required().len_min(1).default_strs(&["http", "https"]).exclusive_subsets(&[
        &["http", "https"],
        &["tcp", "tls", "udp"],
        &["tls_passthrough"],
        &["grpc", "grpcs"],
    ]),
    Field::integer("https_redirect_status_code").required().default_int(426).one_of(REDIRECT_STATUSES),
    Field::boolean("strip_path").required().default_bool(true),
    Field::boolean("preserve_host").required().default_bool(false),
    Field::boolean("request_buffering").required().default_bool(true),
    Field::boolean("response_buffering").required().default_bool(true),
    Field::tags(),
    Field::foreign("service", "services"),
    Field::set("snis", &SNI),
    Field::set("sources", &SOURCE_ELEMENT),
    Field::set("destinations", &SOURCE_ELEMENT),
    Field::set("methods", &METHOD),
    Field::array("hosts", &HOST),
    Field::array("paths", &PATH),
    Field::map("headers", &HEADER_NAME, &HEADER_VALUES),
    Field::integer("regex_priority").default_int(0),
    Field::string("path_handling").default_str("v0").one_of(strs!["v0", "v1"]),
])
.checks(&[EntityCheck::Conditional(Conditional {
    if_field: "protocols",
    if_match: Match::ElementsNotOneOf(strs!["grpcs", "https", "tls", "tls_passthrough"]),
    then_field: "snis",
    then_match: Match::LenEq(0),
    then_err: Some("'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"),
})]);

/// The rules of one family of protocols.
struct Family {
    protocols: &'static [&'static str],
    overrides: &'static [Field],
    checks: &'static [EntityCheck],
}

const HTTP_ONLY_ERR: &str = "cannot set 'sources' when 'protocols' is 'http' or 'https'";
const HTTP_DESTINATIONS_ERR: &str = "cannot set 'destinations' when 'protocols' is 'http' or 'https'";
const NULL: Literal = Literal::Null;

static FAMILIES: &[Family] = &[
    Family {
        protocols: &["http", "https"],
        overrides: &[
            Field::set("sources", &SOURCE_ELEMENT).eq(NULL).err(HTTP_ONLY_ERR),
            Field::set("destinations", &SOURCE_ELEMENT).eq(NULL).err(HTTP_DESTINATIONS_ERR),
        ],
        checks: &[must_set(&["protocols", "methods", "hosts", "headers", "paths"], http_must_set)],
    },
    Family {
        protocols: &["tcp", "tls", "udp", "tls_passthrough"],
        overrides: &[
            Field::set("methods", &METHOD)
                .eq(NULL)
                .err("cannot set 'methods' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"),
            Field::array("hosts", &HOST)
                .eq(NULL)
                .err("cannot set 'hosts' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"),
            Field::array("paths", &PATH)
                .eq(NULL)
                .err("cannot set 'paths' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"),
            Field::map("headers", &HEADER_NAME, &HEADER_VALUES)
                .eq(NULL)
                .err("cannot set 'headers' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'"),
        ],
        checks: &[must_set(&["protocols", "sources", "destinations"], stream_must_set)],
    },
    Family {
        protocols: &["grpc", "grpcs"],
        overrides: &[
            Field::boolean("strip_path")
                .required()
                .default_bool(false)
                .ne(Literal::Bool(true))
                .err("cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'"),
            Field::set("methods", &METHOD).eq(NULL).err("cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'"),
            Field::set("sources", &SOURCE_ELEMENT)
                .eq(NULL)
                .err("cannot set 'sources' when 'protocols' is 'grpc' or 'grpcs'"),
            Field::set("destinations", &SOURCE_ELEMENT)
                .eq(NULL)
                .err("cannot set 'destinations' when 'protocols' is 'grpc' or 'grpcs'"),
        ],
        checks: &[must_set(&["protocols", "hosts", "headers", "paths"], grpc_must_set)],
    },
];

const fn must_set(sources: &'static [&'static str], run: fn(&Map<String, Value>) -> Result<(), String>) -> EntityCheck {
    EntityCheck::Custom(Custom { sources, run })
}

/// The first recognised protocol chooses the family; none recognised is the only thing wrong.
fn by_protocol(row: &Map<String, Value>, _: crate::entity::PluginLookup<'_>) -> Result<Variant, Violations> {
    let listed = match row.get("protocols") {
        Some(Value::Array(list)) => list,
        Some(Value::Null) => return Err(Violations::of("protocols", "required field missing")),
        Some(_) => return Err(Violations::of("protocols", "expected a set")),
        None => return Ok(Variant::of(FAMILIES[0].overrides, FAMILIES[0].checks)),
    };
    let known = listed.iter().filter_map(Value::as_str).find_map(family_of);
    match (known, listed.first()) {
        (Some(family), _) => Ok(Variant::of(family.overrides, family.checks)),
        (None, Some(Value::String(first))) => Err(Violations::of("protocols", format!("unknown type: {first}"))),
        (None, Some(first)) => Err(Violations::of("protocols", format!("unknown type: {first}"))),
        (None, None) => Err(Violations::of("protocols", "unknown type: nil")),
    }
}

fn family_of(protocol: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.protocols.contains(&protocol))
}

fn speaks(row: &Map<String, Value>, protocol: &str) -> bool {
    row.get("protocols").and_then(Value::as_array).is_some_and(|list| list.iter().any(|item| item == protocol))
}

/// One of the fields must hold something.
fn require(row: &Map<String, Value>, fields: &[&str], protocol: &str) -> Result<(), String> {
    let set = |name: &&str| match row.get(*name) {
        Some(Value::Array(list)) => !list.is_empty(),
        // A header without values matches nothing: it is as good as none.
        Some(Value::Object(map)) => map.values().any(|values| values.as_array().is_none_or(|list| !list.is_empty())),
        _ => false,
    };
    if fields.iter().any(set) {
        return Ok(());
    }
    let names: Vec<String> = fields.iter().map(|name| format!("'{name}'")).collect();
    Err(format!("must set one of {} when 'protocols' is {protocol}", names.join(", ")))
}

fn http_must_set(row: &Map<String, Value>) -> Result<(), String> {
    if speaks(row, "https") {
        return require(row, &["methods", "hosts", "headers", "paths", "snis"], "'https'");
    }
    require(row, &["methods", "hosts", "headers", "paths"], "'http'")
}

fn grpc_must_set(row: &Map<String, Value>) -> Result<(), String> {
    if speaks(row, "grpcs") {
        return require(row, &["hosts", "headers", "paths", "snis"], "'grpcs'");
    }
    require(row, &["hosts", "headers", "paths"], "'grpc'")
}

fn stream_must_set(row: &Map<String, Value>) -> Result<(), String> {
    if speaks(row, "tls_passthrough") {
        return require(row, &["snis"], "")
            .map_err(|_| "must set snis when 'protocols' is 'tls_passthrough'".to_string());
    }
    require(row, &["sources", "destinations", "snis"], "'tcp', 'tls' or 'udp'")
}
