//! Recorded answers of a real Kong's Admin API through the real gateway, in order (`tests/data/admin.jsonl`): a node with
//! a store, a node without one, and the requests to their proxies in between.
//! Owns: which differences are meant. Always: a difference that is not in the table fails.

use std::collections::HashSet;

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
    ("info/root", "settings, product and the plugins of this version"),
    ("dbless/root", "settings, product and the plugins of this version"),
    ("info/endpoints", "paths of plugins that are not built are not there; a test of its own compares the others"),
    ("info/plugins-enabled", "only what works is listed"),
    ("info/status", "there are no shared dictionaries; versions and cores are shown besides"),
    ("dbless/status", "there are no shared dictionaries; versions and cores are shown besides"),
    ("info/config-db-mode", "the whole configuration is read in every mode"),
    ("info/config-post-db-mode", "a whole configuration is loaded in every mode"),
    ("schema/routes", "the rules by protocol depend on the variant and are not listed"),
    ("schema/jwt_secrets", "the rule by algorithm lists the names instead of a pattern for each"),
    ("schema/upstreams", "the default of healthchecks names its threshold too"),
    ("schema/keys", "an attribute that says what its absence says is left out"),
    ("options/cors-preflight", "a page of an origin that is not configured may not read answers"),
    ("cors/origin", "a page of an origin that is not configured may not read answers"),
    ("certs/bad", "the reasons are those of another library"),
    ("ca/bad", "the reason is that of another library"),
    ("ca/create", "the certificate of the records is another one than the repository's, and so is its digest"),
    ("ca/dup", "the certificate of the records is another one than the repository's, and so is its digest"),
    ("ca/list", "the certificate of the records is another one than the repository's, and so is its digest"),
    ("dbless/key-auths", "a credential shows its ttl in every mode"),
    ("dbless/creds", "a credential shows its ttl in every mode"),
    ("dbless/config-check-hash-same", "a credential keeps its id from one load to the next"),
    ("dbless/config-yaml-garbage", "the place of the error is told by another reader of YAML"),
    ("page/nested-next", "which rows are on the second page depends on random ids"),
    ("routes/create-path-regex-bad", "the reason is that of another regex library"),
    ("routes/create-json-headers-empty-list", "refused by the rule it breaks, not by a compiler behind it"),
];

/// Plugins and the path segments that come with them.
const OF_PLUGINS: &[(&str, &[&str])] = &[
    ("basic-auth", &["basic-auths", "basic-auth", "basicauth_credentials"]),
    ("jwt", &["jwts", "jwt", "jwt_secrets"]),
    ("acl", &["acls"]),
    ("hmac-auth", &["hmac-auths", "hmac-auth", "hmacauth_credentials"]),
    ("oauth2", &["oauth2", "oauth2_tokens", "oauth2_credentials"]),
    ("acme", &["acme", "acme_storage"]),
    ("session", &["sessions"]),
    ("prometheus", &["metrics"]),
    ("proxy-cache", &["proxy-cache"]),
];

/// Paths that come later: the segments that tell them.
const LATER: &[&str] = &["health", "healthy", "unhealthy", "dns"];

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
    let servers = Servers::start();
    let stored = Gateway::with(Driver::any(), &[("log_level", "notice")]);
    let declared = Gateway::with(Driver::any(), &[("database", "off")]);
    let mut bindings = Bindings::new(known(&servers, &stored));
    let (mut total, mut meant, mut differing) = (0, 0, Vec::new());
    // Records that ask for what is not built, and those of the same family that rest on them.
    let (mut unbuilt, mut without): (usize, HashSet<String>) = (0, HashSet::new());
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
        let Err(wrong) = replay(gateway, on.starts_with("proxy"), &record, &mut bindings) else { continue };
        let family = name.split('/').next().unwrap_or_default();
        let asks_unbuilt = NOT_BUILT.iter().any(|text| wrong.contains(text)) || lacks_plugin(gateway, &record);
        if MEANT.iter().any(|(beginning, _)| name.starts_with(beginning)) {
            meant += 1;
        } else if asks_unbuilt || without.contains(family) {
            unbuilt += 1;
            without.insert(family.to_owned());
        } else {
            differing.push(format!("{} {name}: {wrong}", record["seq"]));
        }
    }
    let same = total - meant - unbuilt - differing.len();
    println!(
        "{same} of {total} records are answered as recorded, {meant} differ as meant, {unbuilt} rest on what is not built"
    );
    println!("not built in: {without:?}");
    assert!(differing.is_empty(), "{} others differ:\n{}", differing.len(), differing.join("\n"));
}

/// Whether the path belongs to a plugin that the gateway does not have.
fn lacks_plugin(gateway: &Gateway, record: &Value) -> bool {
    let enabled = gateway.admin("GET", "/plugins/enabled", None).json()["enabled_plugins"].clone();
    let enabled: Vec<&str> = enabled.as_array().into_iter().flatten().map(text).collect();
    let path = text(&record["request"]["path"]).split('?').next().unwrap_or_default().to_owned();
    let has = |segments: &[&str]| path.split('/').any(|segment| segments.contains(&segment));
    let later = LATER.iter().any(|segment| has(&[segment]) && !has_endpoint(gateway, segment));
    later || OF_PLUGINS.iter().any(|(plugin, segments)| !enabled.contains(plugin) && has(segments))
}

/// Whether there is a path with this segment.
fn has_endpoint(gateway: &Gateway, segment: &str) -> bool {
    endpoints(gateway).iter().any(|path| path.split('/').any(|own| own == segment))
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
    let own = endpoints(&gateway);
    let enabled = gateway.admin("GET", "/plugins/enabled", None).json()["enabled_plugins"].clone();
    for path in recorded["response"]["body"]["data"].as_array().into_iter().flatten().map(text) {
        let has = |segments: &[&str]| path.split('/').any(|segment| segments.contains(&segment));
        let plugin = OF_PLUGINS.iter().find(|(_, segments)| has(segments));
        let absent = plugin.is_some_and(|(name, _)| !enabled.as_array().is_some_and(|all| all.contains(&json!(name))));
        assert!(own.iter().any(|known| known == path) || absent || has(LATER), "{path}");
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

fn replay(gateway: &Gateway, proxied: bool, record: &Value, bindings: &mut Bindings) -> Result<(), String> {
    let (request, want) = (&record["request"], &record["response"]);
    let content_type =
        pairs(&request["headers"]).find(|(name, _)| *name == "Content-Type").map_or("", |(_, value)| value);
    let mut body = text(&request["body"]).to_owned();
    for (name, pem) in PEMS {
        body = body.replace(name, &escaped(pem, content_type));
    }
    let (Some(target), Some(body)) = (bindings.fill(text(&request["path"])), bindings.fill(&body)) else {
        return Err("a placeholder is unbound".to_owned());
    };
    let port = if proxied { gateway.proxy } else { gateway.admin };
    let got = ask(port, request, &target, &body);
    let mut wrong = Vec::new();
    // Accidents of Kong are clean refusals here.
    let accident = want["status"] == 500 && got.status == 400;
    if !accident && want["status"] != got.status {
        wrong.push(format!("status {} not {}", got.status, want["status"]));
    }
    if !accident && request["method"] != "HEAD" {
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
    if wrong.is_empty() { Ok(()) } else { Err(format!("{line}\n   {}", wrong.join("\n   "))) }
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
