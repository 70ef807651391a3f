//! routes: which requests go to which service (spec/entities.md section 3), as each router flavour declares them.
//! Always: one table of fields; a flavour adds to it, or replaces one.

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

/// Of the flavour `traditional_compatible`.
pub static ROUTES: Entity = Entity::new("routes", "name", &RECORD).variant(by_protocol);
/// Of the flavour `traditional`: server names without wildcards.
pub static ROUTES_TRADITIONAL: Entity = Entity::new("routes", "name", &RECORD_TRADITIONAL).variant(by_protocol);
/// Of the flavour `expressions`: an expression and a priority, addresses also for HTTP.
pub static ROUTES_EXPRESSIONS: Entity =
    Entity::new("routes", "name", &RECORD_EXPRESSIONS).variant(by_protocol_with_expressions);

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
const EXACT_SNI: Field = Field::string("").check(Check::Sni);
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

const FIELDS: [Field; 21] = [
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
];
static FIELDS_TRADITIONAL: [Field; 21] = {
    let mut fields = FIELDS;
    let mut at = 0;
    while !is_snis(&fields[at]) {
        at += 1;
    }
    fields[at] = Field::set("snis", &EXACT_SNI);
    fields
};
/// The largest `priority`, 2^46 - 1.
const PRIORITY_MAX: i64 = (1 << 46) - 1;
static FIELDS_EXPRESSIONS: [Field; 23] = {
    let mut fields = [Field::string("expression"); 23];
    let mut at = 0;
    while at < FIELDS.len() {
        fields[at] = FIELDS[at];
        at += 1;
    }
    fields[FIELDS.len() + 1] = Field::integer("priority").required().default_int(0).between(0, PRIORITY_MAX);
    fields
};

const fn is_snis(field: &Field) -> bool {
    matches!(field.name.as_bytes(), b"snis")
}

static RECORD: Record = Record::of(&FIELDS).checks(CHECKS);
static RECORD_TRADITIONAL: Record = Record::of(&FIELDS_TRADITIONAL).checks(CHECKS);
static RECORD_EXPRESSIONS: Record = Record::of(&FIELDS_EXPRESSIONS).checks(CHECKS);
const CHECKS: &[EntityCheck] = &[EntityCheck::Conditional(Conditional {
    if_field: "protocols",
    if_match: Match::ElementsNotOneOf(strs!["grpcs", "https", "tls", "tls_passthrough"]),
    then_field: "snis",
    then_match: Match::LenEq(0),
    then_err: Some("'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"),
})];

/// The rules of one family of protocols.
struct Family {
    protocols: &'static [&'static str],
    overrides: &'static [Field],
    checks: &'static [EntityCheck],
}

const HTTP_ONLY_ERR: &str = "cannot set 'sources' when 'protocols' is 'http' or 'https'";
const HTTP_DESTINATIONS_ERR: &str = "cannot set 'destinations' when 'protocols' is 'http' or 'https'";
const NULL: Literal = Literal::Null;

const HTTP: &[&str] = &["http", "https"];
const STREAM: &[&str] = &["tcp", "tls", "udp", "tls_passthrough"];
const GRPC: &[&str] = &["grpc", "grpcs"];

static FAMILIES: &[Family] = &[
    Family {
        protocols: HTTP,
        overrides: &[
            Field::set("sources", &SOURCE_ELEMENT).eq(NULL).err(HTTP_ONLY_ERR),
            Field::set("destinations", &SOURCE_ELEMENT).eq(NULL).err(HTTP_DESTINATIONS_ERR),
        ],
        checks: &[must_set(&["protocols", "methods", "hosts", "headers", "paths"], http_must_set)],
    },
    Family {
        protocols: STREAM,
        overrides: STREAM_OVERRIDES,
        checks: &[must_set(&["protocols", "sources", "destinations"], stream_must_set)],
    },
    Family {
        protocols: GRPC,
        overrides: &[
            GRPC_STRIP_PATH,
            GRPC_METHODS,
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

static FAMILIES_EXPRESSIONS: &[Family] = &[
    Family {
        protocols: HTTP,
        overrides: &[],
        checks: &[
            must_set(&["protocols", "methods", "hosts", "headers", "paths", "expression"], http_must_set_or_expression),
            EXPRESSION_ALONE,
        ],
    },
    Family {
        protocols: STREAM,
        overrides: STREAM_OVERRIDES,
        checks: &[
            must_set(&["protocols", "sources", "destinations", "expression"], stream_must_set_or_expression),
            EXPRESSION_ALONE,
        ],
    },
    Family {
        protocols: GRPC,
        overrides: &[GRPC_STRIP_PATH, GRPC_METHODS],
        checks: &[
            must_set(&["protocols", "hosts", "headers", "paths", "expression"], grpc_must_set_or_expression),
            EXPRESSION_ALONE,
        ],
    },
];

const STREAM_OVERRIDES: &[Field] = &[
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
];
const GRPC_STRIP_PATH: Field = Field::boolean("strip_path")
    .required()
    .default_bool(false)
    .ne(Literal::Bool(true))
    .err("cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'");
const GRPC_METHODS: Field =
    Field::set("methods", &METHOD).eq(NULL).err("cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'");

/// An expression says all that the attributes could say.
const EXPRESSION_ALONE: EntityCheck = EntityCheck::Custom(Custom {
    sources: &[
        "expression",
        "priority",
        "regex_priority",
        "methods",
        "hosts",
        "paths",
        "headers",
        "snis",
        "sources",
        "destinations",
    ],
    run: expression_alone,
});

const fn must_set(sources: &'static [&'static str], run: fn(&Map<String, Value>) -> Result<(), String>) -> EntityCheck {
    EntityCheck::Custom(Custom { sources, run })
}

fn by_protocol(row: &Map<String, Value>, _: crate::entity::PluginLookup<'_>) -> Result<Variant, Violations> {
    variant_among(FAMILIES, row)
}

fn by_protocol_with_expressions(
    row: &Map<String, Value>,
    _: crate::entity::PluginLookup<'_>,
) -> Result<Variant, Violations> {
    variant_among(FAMILIES_EXPRESSIONS, row)
}

/// The first recognised protocol chooses the family; none recognised is the only thing wrong.
fn variant_among(families: &'static [Family], row: &Map<String, Value>) -> Result<Variant, Violations> {
    let family_of = |protocol: &str| families.iter().find(|family| family.protocols.contains(&protocol));
    let listed = match row.get("protocols") {
        Some(Value::Array(list)) => list,
        Some(Value::Null) => return Err(Violations::of("protocols", "required field missing")),
        Some(_) => return Err(Violations::of("protocols", "expected a set")),
        None => return Ok(Variant::of(families[0].overrides, families[0].checks)),
    };
    let known = listed.iter().filter_map(Value::as_str).find_map(family_of);
    match (known, listed.first()) {
        (Some(family), _) => Ok(Variant::of(family.overrides, family.checks)),
        (None, Some(Value::String(first))) => Err(Violations::of("protocols", format!("unknown type: {first}"))),
        (None, Some(first)) => Err(Violations::of("protocols", format!("unknown type: {first}"))),
        (None, None) => Err(Violations::of("protocols", "unknown type: nil")),
    }
}

fn speaks(row: &Map<String, Value>, protocol: &str) -> bool {
    row.get("protocols").and_then(Value::as_array).is_some_and(|list| list.iter().any(|item| item == protocol))
}

fn is_set(row: &Map<String, Value>, name: &str) -> bool {
    match row.get(name) {
        Some(Value::Array(list)) => !list.is_empty(),
        // A header without values matches nothing: it is as good as none.
        Some(Value::Object(map)) => map.values().any(|values| values.as_array().is_none_or(|list| !list.is_empty())),
        Some(Value::String(_)) => true,
        _ => false,
    }
}

/// Whether an expression is as good as an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expressions {
    Unknown,
    Count,
}

/// One of the fields must hold something.
fn require(row: &Map<String, Value>, fields: &[&str], expressions: Expressions, protocol: &str) -> Result<(), String> {
    let mut fields = fields.to_vec();
    if expressions == Expressions::Count {
        fields.push("expression");
    }
    if fields.iter().any(|name| is_set(row, name)) {
        return Ok(());
    }
    let names: Vec<String> = fields.iter().map(|name| format!("'{name}'")).collect();
    Err(format!("must set one of {} when 'protocols' is {protocol}", names.join(", ")))
}

fn http_must_set(row: &Map<String, Value>) -> Result<(), String> {
    require_http(row, Expressions::Unknown)
}

fn http_must_set_or_expression(row: &Map<String, Value>) -> Result<(), String> {
    require_http(row, Expressions::Count)
}

fn require_http(row: &Map<String, Value>, expressions: Expressions) -> Result<(), String> {
    if speaks(row, "https") {
        return require(row, &["methods", "hosts", "headers", "paths", "snis"], expressions, "'https'");
    }
    require(row, &["methods", "hosts", "headers", "paths"], expressions, "'http'")
}

fn grpc_must_set(row: &Map<String, Value>) -> Result<(), String> {
    require_grpc(row, Expressions::Unknown)
}

fn grpc_must_set_or_expression(row: &Map<String, Value>) -> Result<(), String> {
    require_grpc(row, Expressions::Count)
}

fn require_grpc(row: &Map<String, Value>, expressions: Expressions) -> Result<(), String> {
    if speaks(row, "grpcs") {
        return require(row, &["hosts", "headers", "paths", "snis"], expressions, "'grpcs'");
    }
    require(row, &["hosts", "headers", "paths"], expressions, "'grpc'")
}

fn stream_must_set(row: &Map<String, Value>) -> Result<(), String> {
    if speaks(row, "tls_passthrough") {
        return require(row, &["snis"], Expressions::Unknown, "")
            .map_err(|_| "must set snis when 'protocols' is 'tls_passthrough'".to_string());
    }
    require(row, &["sources", "destinations", "snis"], Expressions::Unknown, "'tcp', 'tls' or 'udp'")
}

fn stream_must_set_or_expression(row: &Map<String, Value>) -> Result<(), String> {
    if speaks(row, "tls_passthrough") {
        return require(row, &["snis"], Expressions::Count, "'tls_passthrough'");
    }
    require(row, &["sources", "destinations", "snis"], Expressions::Count, "'tcp', 'tls' or 'udp'")
}

fn expression_alone(row: &Map<String, Value>) -> Result<(), String> {
    const PREFIX: &str = "Router Expression failed validation: cannot set";
    const ATTRIBUTES: &str =
        "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously";
    let has_expression = is_set(row, "expression");
    let attributes = ["methods", "hosts", "paths", "headers", "snis", "sources", "destinations"];
    let has_attribute = attributes.iter().any(|name| is_set(row, name));
    let is_not_zero = |name: &str| row.get(name).and_then(Value::as_i64).is_some_and(|number| number != 0);
    if has_expression && has_attribute {
        return Err(format!("{PREFIX} 'expression' with {ATTRIBUTES}"));
    }
    if has_expression && is_not_zero("regex_priority") {
        return Err(format!("{PREFIX} 'regex_priority' with 'expression' simultaneously"));
    }
    if has_attribute && is_not_zero("priority") {
        return Err(format!("{PREFIX} 'priority' with {ATTRIBUTES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::complete::Moment;
    use serde_json::json;

    const NOW: Moment = Moment { now_ms: 1_735_689_600_000 };

    #[track_caller]
    fn check(entity: &Entity, row: Value, want: Result<(), &str>) {
        let fields = row.as_object().cloned().expect("a row is an object");
        let got = entity.create(fields, NOW, &|_| None);
        assert_eq!(got.map(|_| ()).map_err(|found| found.message()), want.map_err(str::to_string), "{row}");
    }

    #[test]
    fn a_flavour_without_expressions_does_not_know_their_fields() {
        for entity in [&ROUTES, &ROUTES_TRADITIONAL] {
            let unknown = "2 schema violations (expression: unknown field; priority: unknown field)";
            check(entity, json!({ "paths": ["/"], "expression": "x", "priority": 1 }), Err(unknown));
        }
        let row =
            ROUTES_EXPRESSIONS.create(Map::from_iter([("paths".to_string(), json!(["/"]))]), NOW, &|_| None).unwrap();
        assert_eq!((&row["expression"], &row["priority"]), (&Value::Null, &json!(0)));
    }

    #[test]
    fn an_expression_is_as_good_as_an_attribute_and_excludes_them() {
        let check = |row: Value, want: Result<(), &str>| check(&ROUTES_EXPRESSIONS, row, want);
        let prefix = "schema violation (Router Expression failed validation: cannot set";
        let attributes = "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations' simultaneously)";
        check(json!({ "expression": "a", "priority": 70_368_744_177_663_i64 }), Ok(()));
        check(json!({ "expression": "a", "paths": [], "regex_priority": 0 }), Ok(()));
        check(
            json!({ "sources": [{ "ip": "10.0.0.0/8" }] }),
            Err(
                "schema violation (must set one of 'methods', 'hosts', 'headers', 'paths', 'snis', 'expression' when 'protocols' is 'https')",
            ),
        );
        check(json!({ "paths": ["/"], "sources": [{ "ip": "10.0.0.0/8" }] }), Ok(()));
        check(
            json!({ "protocols": ["tls_passthrough"] }),
            Err("schema violation (must set one of 'snis', 'expression' when 'protocols' is 'tls_passthrough')"),
        );
        check(json!({ "expression": "a", "hosts": ["h"] }), Err(&format!("{prefix} 'expression' with {attributes}")));
        check(
            json!({ "expression": "a", "regex_priority": 1 }),
            Err(&format!("{prefix} 'regex_priority' with 'expression' simultaneously)")),
        );
        check(json!({ "paths": ["/"], "priority": 1 }), Err(&format!("{prefix} 'priority' with {attributes}")));
        check(
            json!({ "expression": "a", "priority": 70_368_744_177_664_i64 }),
            Err("schema violation (priority: value should be between 0 and 70368744177663)"),
        );
    }

    #[test]
    fn server_names_have_wildcards_but_in_the_flavour_traditional() {
        let row = || json!({ "snis": ["*.example.com"] });
        check(&ROUTES, row(), Ok(()));
        check(&ROUTES_EXPRESSIONS, row(), Ok(()));
        let row = ROUTES_TRADITIONAL.create(row().as_object().cloned().unwrap(), NOW, &|_| None);
        assert!(row.unwrap_err().touches("snis"));
    }
}
