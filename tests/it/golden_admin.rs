//! Recorded answers of a real Kong's Admin API through the real gateway, in order (`tests/data/admin.jsonl`): a node with
//! a store, a node without one, and the requests to their proxies in between.
//! Owns: which differences are meant. Always: a difference that is not in the table fails.

use serde_json::Value;
use serde_json::json;

use crate::golden::bindings::Bindings;
use crate::golden::record::pairs;
use crate::golden::servers::Servers;
use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;

/// Differences that are meant: how the names of the records begin, and why.
const MEANT: &[(&str, &str)] = &[
    ("info/endpoints", "paths of plugins that are not built are not there; a test of its own compares the others"),
    ("info/plugins-enabled", "only what works is listed"),
    ("info/config-db-mode", "the whole configuration is read in every mode"),
    ("info/config-post-db-mode", "a whole configuration is loaded in every mode"),
    ("schema/routes", "the rules by protocol depend on the variant and are not listed"),
    ("schema/upstreams", "the default of healthchecks names its threshold too"),
    ("schema/keys", "an attribute that says what its absence says is left out"),
    ("options/cors-preflight", "a page of an origin that is not configured may not read answers"),
    ("cors/origin", "a page of an origin that is not configured may not read answers"),
    ("certs/bad", "the reasons are those of another library"),
    ("ca/bad", "the reason is that of another library"),
    ("tutorial/balanced", "which target is the first depends on the core that a connection came to"),
    ("dbless/key-auths", "a credential shows its ttl in every mode"),
    ("dbless/creds", "a credential shows its ttl in every mode"),
    ("dbless/config-check-hash-same", "a credential keeps its id from one load to the next"),
    ("dbless/config-yaml-garbage", "the place is that of the mistake, not of what was read before it"),
    ("page/nested-next", "which rows are on the second page depends on random ids"),
    ("routes/create-path-regex-bad", "the reason is that of another regex library"),
    ("routes/create-json-headers-empty-list", "refused by the rule it breaks, not by a compiler behind it"),
];

/// Answers that say much about the product: what of them is compared, as JSON pointers. Of plugins, those that are built.
const PARTS: &[(&str, &[&str])] = &[
    ("info/root", &["/edition", "/plugins", "/timers"]),
    ("dbless/root", &["/edition", "/plugins", "/timers"]),
    ("plugins/root-enabled-in-cluster", &["/edition", "/plugins", "/timers"]),
    ("info/status", &["/server", "/database"]),
    ("dbless/status", &["/server", "/database", "/configuration_hash"]),
];

/// Records that rest on others: when one of those asks for what is not built, these may differ too.
const RESTING: &[(&str, &str)] = &[
    ("tutorial/cache-", "tutorial/proxy-cache"),
    ("tutorial/plugins-3", "tutorial/proxy-cache"),
    ("tutorial/delete-proxy-cache", "tutorial/proxy-cache"),
    ("services/patch-null", "services/patch-url"),
    ("services/patch-nobody", "services/patch-url"),
    ("plugins/list", "plugins/defaults-"),
];

/// Plugins and the path segments that come with them.
const OF_PLUGINS: &[(&str, &[&str])] = &[
    ("hmac-auth", &["hmac-auths", "hmac-auth", "hmacauth_credentials"]),
    ("oauth2", &["oauth2", "oauth2_tokens", "oauth2_credentials"]),
    ("acme", &["acme", "acme_storage"]),
    ("session", &["sessions"]),
    ("proxy-cache", &["proxy-cache"]),
];

/// The digest of the certificate in the records, and that of the repository's.
const DIGESTS: (&str, &str) = (
    "81f78001c8c1871047f7ec1b14fcbd2920cceccda52349e5be57ccc61151a2af",
    "456c8d198718797574497f46c3bfb78234d9970c33a6f149a0cde022a7413bd6",
);

/// How an answer says that something of Kong is not built.
const NOT_BUILT: &[&str] = &["not supported yet", "not enabled; add it to the 'plugins'", "No plugin named"];

/// Certificates and keys that the requests name.
const PEMS: &[(&str, &str)] = &[
    ("<pem:cert1>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert1.pem"))),
    ("<pem:key1>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key1.pem"))),
    ("<pem:cert2>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert2.pem"))),
    ("<pem:key2>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key2.pem"))),
    ("<pem:ca-cert>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/ca.pem"))),
];

/// Headers of an answer that are compared, by their beginnings.
const COMPARED: &[&str] =
    &["access-control", "allow", "content-type", "deprecation", "ratelimit", "x-ratelimit", "x-cache"];

#[test]
fn kong_answers_the_same() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/admin.jsonl");
    let records = std::fs::read_to_string(file).expect("the records are in the repository");
    let records = records.replace(DIGESTS.0, DIGESTS.1);
    let servers = Servers::start();
    let stored = Gateway::with(Driver::any(), &[("log_level", "notice")]);
    let declared = Gateway::with(Driver::any(), &[("database", "off")]);
    let mut bindings = Bindings::new(known(&servers, &stored));
    let enabled = enabled_plugins(&stored);
    let (mut total, mut meant, mut unbuilt, mut differing) = (0, 0, Vec::new(), Vec::new());
    for line in records.lines() {
        let record: Value = serde_json::from_str(line).expect("a record is JSON");
        let (on, name) = (text(&record["on"]), text(&record["name"]));
        if name == "dbless/root" {
            bindings = Bindings::new(known(&servers, &declared));
        }
        if name == "page/make-1" {
            // The recording went on with an empty gateway here.
            empty(&stored);
        }
        let gateway = if on.ends_with("dbless") { &declared } else { &stored };
        total += 1;
        let replayed = replay(gateway, on.starts_with("proxy"), &record, &enabled, &mut bindings);
        let Err(Difference { wrong, answer }) = replayed else { continue };
        let rests = RESTING.iter().filter(|(beginning, _)| name.starts_with(beginning));
        let rests_on_unbuilt = rests
            .flat_map(|(_, on)| unbuilt.iter().filter(move |unbuilt: &&String| unbuilt.starts_with(on)))
            .next()
            .is_some();
        let asks_unbuilt = NOT_BUILT.iter().any(|text| answer.contains(text)) || lacks_plugin(&enabled, &record);
        if MEANT.iter().any(|(beginning, _)| name.starts_with(beginning)) {
            meant += 1;
        } else if asks_unbuilt || rests_on_unbuilt {
            unbuilt.push(name.to_owned());
        } else {
            differing.push(format!("{} {name}: {wrong}", record["seq"]));
        }
    }
    let same = total - meant - unbuilt.len() - differing.len();
    println!(
        "{same} of {total} records are answered as recorded, {meant} differ as meant, {} rest on what is not built",
        unbuilt.len()
    );
    println!("not built: {unbuilt:?}");
    assert!(differing.is_empty(), "{} others differ:\n{}", differing.len(), differing.join("\n"));
}

fn enabled_plugins(gateway: &Gateway) -> Vec<String> {
    let enabled = gateway.admin("GET", "/plugins/enabled", None).json()["enabled_plugins"].clone();
    enabled.as_array().into_iter().flatten().map(|name| text(name).to_owned()).collect()
}

/// Whether the path belongs to a plugin that the gateway does not have.
fn lacks_plugin(enabled: &[String], record: &Value) -> bool {
    lacks(enabled, text(&record["request"]["path"]).split('?').next().unwrap_or_default())
}

fn lacks(enabled: &[String], path: &str) -> bool {
    let has = |segments: &[&str]| path.split('/').any(|segment| segments.contains(&segment));
    OF_PLUGINS.iter().any(|(plugin, segments)| has(segments) && !enabled.iter().any(|name| name == plugin))
}

fn endpoints(gateway: &Gateway) -> Vec<String> {
    let list = gateway.admin("GET", "/endpoints", None).json()["data"].clone();
    list.as_array().into_iter().flatten().map(|path| text(path).to_owned()).collect()
}

#[test]
fn every_path_of_kong_is_there_but_those_of_plugins_that_are_not_built() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/admin.jsonl");
    let records = std::fs::read_to_string(file).expect("the records are in the repository");
    let recorded = records.lines().find(|line| line.contains(r#""name": "info/endpoints""#)).expect("it was recorded");
    let recorded: Value = serde_json::from_str(recorded).expect("a record is JSON");
    let gateway = Gateway::start(Driver::any());
    let (own, enabled) = (endpoints(&gateway), enabled_plugins(&gateway));
    for path in recorded["response"]["body"]["data"].as_array().into_iter().flatten().map(text) {
        assert!(own.iter().any(|known| known == path) || lacks(&enabled, path), "{path}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn known(servers: &Servers, gateway: &Gateway) -> Vec<(String, String)> {
    let mut known = servers.ports();
    known.push(("kong/<version>".to_owned(), concat!("ringway/", env!("CARGO_PKG_VERSION")).to_owned()));
    known.push(("<admin_port>".to_owned(), gateway.admin.to_string()));
    known.push(("<proxy_port>".to_owned(), gateway.proxy.to_string()));
    known.extend(PEMS.iter().map(|(name, pem)| ((*name).to_owned(), (*pem).to_owned())));
    known
}

/// Asks as recorded.
fn ask(port: u16, request: &Value, target: &str, body: &str) -> Response {
    let method = text(&request["method"]);
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in pairs(&request["headers"]) {
        let value = match name.eq_ignore_ascii_case("content-length") {
            true => body.len().to_string(),
            false => value.replace("<admin_port>", &port.to_string()).replace("<proxy_port>", &port.to_string()),
        };
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut client = Client::connect(port);
    client.send(format!("{head}\r\n{body}"));
    if method == "HEAD" { client.head() } else { client.response() }
}

/// How an answer differs from the recorded one, and its text.
struct Difference {
    wrong: String,
    answer: String,
}

fn replay(
    gateway: &Gateway,
    proxied: bool,
    record: &Value,
    enabled: &[String],
    bindings: &mut Bindings,
) -> Result<(), Difference> {
    let (request, want) = (&record["request"], &record["response"]);
    let content_type =
        pairs(&request["headers"]).find(|(name, _)| *name == "Content-Type").map_or("", |(_, value)| value);
    let mut body = text(&request["body"]).to_owned();
    for (name, pem) in PEMS {
        body = body.replace(name, &escaped(pem, content_type));
    }
    let (Some(target), Some(body)) = (bindings.fill(text(&request["path"])), bindings.fill(&body)) else {
        return Err(Difference { wrong: "a placeholder is unbound".to_owned(), answer: String::new() });
    };
    let port = if proxied { gateway.proxy } else { gateway.admin };
    let got = ask(port, request, &target, &body);
    let mut wrong = Vec::new();
    // Accidents of Kong are clean refusals here.
    let accident = want["status"] == 500 && got.status == 400;
    if !accident && want["status"] != got.status {
        wrong.push(format!("status {} not {}", got.status, want["status"]));
    }
    let parts = PARTS.iter().find(|(name, _)| *name == text(&record["name"]));
    if let Some((_, pointers)) = parts {
        let got: Value = serde_json::from_str(&got.text()).unwrap_or_default();
        for pointer in *pointers {
            let of = |body: &Value| built(body.pointer(pointer).cloned().unwrap_or_default(), enabled);
            let (want, got) = (of(&want["body"]), of(&got));
            if !bindings.matches(&want, &got) {
                wrong.push(format!("body at {pointer}\n   want {want}\n    got {got}"));
            }
        }
    } else if !accident && request["method"] != "HEAD" {
        compare_body(bindings, want, &got, &target, &mut wrong);
    }
    for (header, value) in pairs(&want["headers"]).filter(|_| !accident) {
        let name = header.to_ascii_lowercase();
        if COMPARED.iter().any(|compared| name.starts_with(compared)) {
            let sent = got.header(header).unwrap_or_default();
            if !bindings.matches(&json!(value), &json!(sent)) {
                wrong.push(format!("header {header}: {sent} not {value}"));
            }
        }
    }
    let line = format!("{} {target} {body}", text(&request["method"]));
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Difference { wrong: format!("{line}\n   {}", wrong.join("\n   ")), answer: got.text() }),
    }
}

/// Plugins that do not come with Kong.
const BESIDES: &[&str] = &["moesif"];

/// `plugins` of `GET /` without those that are not built or do not come with Kong; other values as they are.
fn built(mut part: Value, enabled: &[String]) -> Value {
    let is_built = |name: &str| enabled.iter().any(|known| known == name) && !BESIDES.contains(&name);
    if let Some(available) = part.get_mut("available_on_server").and_then(Value::as_object_mut) {
        available.retain(|name, _| is_built(name));
    }
    if let Some(used) = part.get_mut("enabled_in_cluster").and_then(Value::as_array_mut) {
        used.retain(|name| is_built(text(name)));
        used.sort_by_key(|name| text(name).to_owned());
    }
    part
}

fn compare_body(bindings: &mut Bindings, want: &Value, got: &Response, target: &str, wrong: &mut Vec<String>) {
    let body = got.text();
    if want["body"].is_null() && body.is_empty() {
        return;
    }
    let got: Value = serde_json::from_str(&body).unwrap_or(Value::from(body));
    if bindings.matches(&want["body"], &got) {
        return;
    }
    // Which rows are on a page that goes on depends on random ids.
    let is_chance = want["body"].get("offset").is_some() && !target.contains("0000-4000");
    if !is_chance {
        wrong.push(format!("body\n   want {}\n    got {got}", want["body"]));
    }
    // Bound even when something else differs, so that later records can be asked.
    for name in ["offset", "next", "id"] {
        bindings.matches(&want["body"][name], &got[name]);
    }
}

/// How a text stands in a body of this type.
fn escaped(text: &str, content_type: &str) -> String {
    if content_type.starts_with("application/json") {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    } else {
        text.to_owned()
    }
}

/// Deletes every row.
fn empty(gateway: &Gateway) {
    for collection in ["plugins", "routes", "services", "consumers", "upstreams"] {
        let page = gateway.admin("GET", &format!("/{collection}?size=1000"), None).must_be(200).json();
        for row in page["data"].as_array().into_iter().flatten() {
            gateway.admin("DELETE", &format!("/{collection}/{}", text(&row["id"])), None).must_be(204);
        }
    }
}
