//! Replays recorded answers of a real Kong against the Admin API, in order, binding the ids it generated.
//!
//! `tests/data/admin.jsonl` holds the records; `<uuid:N>` and the like are placeholders, equal ones equal values.

use crate::control::admin::Admin;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use serde_json::Value;
use std::collections::HashMap;

/// Differences that are meant, by name of the record.
const MEANT: &[(&str, &str)] = &[
    ("schema/routes", "the rules by protocol depend on the variant and are not listed"),
    ("schema/upstreams", "the default of healthchecks names its threshold too"),
    ("options/cors-preflight", "a page of an origin that is not configured may not read answers"),
    ("cors/origin", "a page of an origin that is not configured may not read answers"),
    ("certs/bad", "the reasons are those of another library"),
    ("ca/bad", "the reason is that of another library"),
    ("schema/keys", "an attribute that says what its absence says is left out"),
    ("dbless/config-yaml-garbage", "the place of the error is told by another reader of YAML"),
    ("page/nested-next", "which rows are on the second page depends on random ids"),
    ("routes/create-path-regex-bad", "the reason is that of another regex library"),
    ("routes/create-json-headers-empty-list", "refused by the rule it breaks, not by a compiler behind it"),
];

/// Ports that the requests name, as in the record's environment.
const PORTS: &[(&str, &str)] =
    &[("<echo_port>", "9001"), ("<echo2_port>", "9002"), ("<admin_port>", "8001"), ("<refused_port>", "9009")];

/// Certificates and keys that the requests name.
const PEMS: &[(&str, &str)] = &[
    ("<pem:cert1>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert1.pem"))),
    ("<pem:key1>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key1.pem"))),
    ("<pem:cert2>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert2.pem"))),
    ("<pem:key2>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key2.pem"))),
    ("<pem:ca-cert>", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/ca.pem"))),
];

/// How a text stands in a body of this type.
fn escaped(text: &str, content_type: &str) -> String {
    if content_type.starts_with("application/json") {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_string()
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    } else {
        text.to_string()
    }
}

/// Lists whose order is not defined.
const UNORDERED: &[&str] = &["data", "flattened_errors", "errors"];

#[derive(Clone, Default)]
struct Bindings(HashMap<String, String>);

impl Bindings {
    /// Puts known values for placeholders; `None`: one is not known.
    fn fill(&self, text: &str) -> Option<String> {
        let mut out = text.to_string();
        for (name, value) in PORTS {
            out = out.replace(name, value);
        }
        for (name, value) in &self.0 {
            out = out.replace(name, value);
        }
        let unknown = ["<uuid:", "<key:", "<offset:"].iter().any(|start| out.contains(start));
        (!unknown).then_some(out)
    }

    fn matches(&mut self, want: &Value, got: &Value) -> bool {
        if want == "<volatile>" {
            return true;
        }
        match (want, got) {
            (Value::Object(want), Value::Object(got)) => {
                want.len() == got.len()
                    && want.iter().all(|(name, want)| {
                        let got = got.get(&self.key(name, got));
                        got.is_some_and(|got| {
                            if UNORDERED.contains(&name.as_str()) {
                                self.matches_unordered(want, got)
                            } else {
                                self.matches(want, got)
                            }
                        })
                    })
            }
            (Value::Array(want), Value::Array(got)) => {
                want.len() == got.len() && want.iter().zip(got).all(|(want, got)| self.matches(want, got))
            }
            (Value::String(want), Value::Number(got)) => {
                let port = PORTS.iter().any(|(name, value)| want == name && *value == got.to_string());
                port || (want.starts_with('<') && want.ends_with('>'))
            }
            (Value::String(want), Value::String(got)) => self.matches_text(want, got),
            (Value::Number(want), Value::Number(got)) => want.as_f64() == got.as_f64(),
            _ => want == got,
        }
    }

    /// The name under which a value stands; one that is a placeholder is bound if there is no other.
    fn key(&mut self, name: &str, got: &serde_json::Map<String, Value>) -> String {
        if !name.starts_with('<') {
            return name.to_string();
        }
        let only = got.keys().next().filter(|_| got.len() == 1).cloned().unwrap_or_default();
        self.0.entry(name.to_string()).or_insert(only).clone()
    }

    /// Ids are random, so the rows of a page come in any order.
    fn matches_unordered(&mut self, want: &Value, got: &Value) -> bool {
        let (Value::Array(want), Value::Array(got)) = (want, got) else {
            return self.matches(want, got);
        };
        let mut left: Vec<&Value> = got.iter().collect();
        let all = want.iter().all(|want| {
            let found = left.iter().position(|got| {
                let mut trial = self.clone();
                let fits = trial.matches(want, got);
                if fits {
                    *self = trial;
                }
                fits
            });
            found.map(|at| left.remove(at)).is_some()
        });
        all && left.is_empty()
    }

    fn matches_text(&mut self, want: &str, got: &str) -> bool {
        if want.starts_with("<html>") {
            return want == got;
        }
        let Some(start) = want.find('<').filter(|start| want[*start..].contains('>')) else {
            return want == got;
        };
        let end = start + want[start..].find('>').unwrap_or_default() + 1;
        let (before, name, after) = (&want[..start], &want[start..end], &want[end..]);
        let Some(rest) = got.strip_prefix(before) else {
            return false;
        };
        let known = PORTS.iter().find(|(port, _)| *port == name).map(|(_, value)| value.to_string());
        match known.or_else(|| self.0.get(name).cloned()) {
            Some(value) => rest.strip_prefix(&value).is_some_and(|rest| self.matches_text(after, rest)),
            None => {
                // The value reaches to where the text after it begins.
                let literal = after.split('<').next().unwrap_or_default();
                let length = if literal.is_empty() { Some(rest.len()) } else { rest.find(literal) };
                let Some(length) = length else {
                    return false;
                };
                if name.contains(':') {
                    self.0.insert(name.to_string(), rest[..length].to_string());
                }
                self.matches_text(after, &rest[length..])
            }
        }
    }
}

fn dechunk(body: &str) -> String {
    let mut lines = body.split("\r\n");
    let mut out = String::new();
    while let (Some(size), Some(data)) = (lines.next(), lines.next()) {
        if size == "0" {
            break;
        }
        out.push_str(data);
    }
    out
}

async fn replay(admin: &Admin<Fake>, records: &[&str]) -> (usize, Vec<String>) {
    let mut bindings = Bindings::default();
    bindings.0.extend(PEMS.iter().map(|(name, pem)| (name.to_string(), pem.to_string())));
    let (mut total, mut differing) = (0, Vec::new());
    for line in records {
        let record: Value = serde_json::from_str(line).unwrap();
        let name = record["name"].as_str().unwrap().to_string();
        total += 1;
        let (request, want) = (&record["request"], &record["response"]);
        if name == "page/make-1" {
            // The recording went on with an empty gateway here.
            empty(admin).await;
        }
        let target = bindings.fill(request["path"].as_str().unwrap());
        let content_type = request["headers"].as_array().into_iter().flatten().find(|pair| pair[0] == "Content-Type");
        let content_type = content_type.and_then(|pair| pair[1].as_str()).unwrap_or_default();
        let mut body = request["body"].as_str().unwrap_or_default().to_string();
        for (name, pem) in PEMS {
            body = body.replace(name, &escaped(pem, content_type));
        }
        let body = bindings.fill(&body);
        let (Some(target), Some(mut body)) = (target, body) else {
            differing.push(format!("{} {name}: a placeholder is unbound", record["seq"]));
            continue;
        };
        let headers: Vec<(String, String)> = request["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pair| (pair[0].as_str().unwrap().to_string(), pair[1].as_str().unwrap().to_string()))
            .collect();
        let borrowed: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        if borrowed.contains(&("Transfer-Encoding", "chunked")) {
            body = dechunk(&body);
        }
        let method = request["method"].as_str().unwrap();
        let reply = testing::ask(admin, method, &target, &borrowed, &body).await;
        let mut wrong = Vec::new();
        let status = want["status"].as_u64().unwrap();
        // Accidents of Kong are clean refusals here.
        let accident = status == 500 && reply.status == 400;
        if !accident && u64::from(reply.status.as_u16()) != status {
            wrong.push(format!("status {} not {status}", reply.status.as_u16()));
        }
        let got: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| Value::from(reply.body.clone()));
        if !accident && method != "HEAD" && !(want["body"].is_null() && reply.body.is_empty()) {
            // Bound even when something else differs, so that later records can be asked.
            let mut trial = bindings.clone();
            let whole = want["body"].get("offset").is_none() || target.contains("0000-4000");
            if trial.matches(&want["body"], &got) {
                bindings = trial;
            } else if whole {
                wrong.push(format!("body\n   want {}\n    got {got}", want["body"]));
            } else {
                for name in ["offset", "next"] {
                    bindings.matches(&want["body"][name], &got[name]);
                }
            }
        }
        for pair in want["headers"].as_array().into_iter().flatten() {
            let (header, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            let compared = header.starts_with("Access-Control") || header == "Allow" || header == "Content-Type";
            let content_type = reply.content_type.unwrap_or_default();
            let sent = reply.headers.iter().find(|(name, _)| *name == header).map(|(_, value)| value.as_str());
            let sent = if header == "Content-Type" { Some(content_type) } else { sent };
            if compared && !accident && sent.is_none_or(|sent| !sent.starts_with(value) && !value.starts_with(sent)) {
                wrong.push(format!("header {header}: want {value} got {sent:?}"));
            }
        }
        if !wrong.is_empty() && !MEANT.iter().any(|(meant, _)| *meant == name) {
            differing.push(format!("{} {name}: {method} {target} {body}\n   {}", record["seq"], wrong.join("\n   ")));
        }
    }
    (total, differing)
}

async fn empty(admin: &Admin<Fake>) {
    for collection in ["plugins", "routes", "services", "consumers", "upstreams"] {
        let (_, page) = testing::get(admin, &format!("/{collection}?size=1000")).await;
        for row in page["data"].as_array().into_iter().flatten() {
            let path = format!("/{collection}/{}", row["id"].as_str().unwrap());
            assert_eq!(testing::ask(admin, "DELETE", &path, &[], "").await.status, 204, "{path}");
        }
    }
}

#[tokio::test]
async fn kong_answers_the_same() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/admin.jsonl");
    let records = std::fs::read_to_string(file).unwrap();
    // Recorded from two nodes, one of them without a database.
    let (declared, stored) = records.lines().partition(|line| line.contains("\"name\": \"dbless/"));
    let (mut total, mut differing) = (0, Vec::new());
    for part in [stored, declared] {
        let part: Vec<&str> = part;
        let directory = tempfile::tempdir().unwrap();
        let admin = testing::admin(testing::store(directory.path()).await);
        let (asked, others) = replay(&admin, &part).await;
        total += asked;
        differing.extend(others);
    }
    assert!(
        differing.is_empty(),
        "{} of {total} records are answered as recorded; these are not:\n{}",
        total - differing.len(),
        differing.join("\n")
    );
}
