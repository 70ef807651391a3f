//! `ringway explain METHOD URL`: what a running node would do with a request, for a reader at a terminal.
//! Never: decides; the node's `POST /explain` does.

use std::fmt::Write as _;

use ringway::config::Settings;
use serde_json::{Map, Value, json};

use crate::cli::admin;
use crate::cli::admin::{PATIENCE, Question};
use crate::cli::args::ExplainArgs;

/// The text to print, or why there is none.
pub fn ask(settings: &Settings, args: &ExplainArgs) -> Result<String, String> {
    let request = request(args)?;
    let text = request.to_string();
    let body = Some(("application/json", text.as_str()));
    let question = Question { method: "POST", path: "/explain", body, patience: PATIENCE };
    let answer = admin::ask(settings, &question)?;
    let body: Value = serde_json::from_str(&answer.body)
        .map_err(|_| format!("the node answers on {} with \"{}\"; is it an older one?", answer.place, answer.line))?;
    match answer.status() {
        Some(200) if args.json => Ok(format!("{body:#}\n")),
        Some(200) => Ok(rendered(&body)),
        _ => Err(body["message"].as_str().unwrap_or(&answer.line).to_owned()),
    }
}

/// The body for the node.
fn request(args: &ExplainArgs) -> Result<Value, String> {
    let (scheme, rest) = match args.url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, args.url.as_str()),
    };
    let start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(start);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut headers = Map::new();
    for header in &args.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("-H {header}: write it as name: value, for example -H 'Accept: text/html'"))?;
        let values = headers.entry(name.trim().to_owned()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(value.trim().into());
        }
    }
    let mut request = json!({ "method": args.method, "path": path, "headers": headers });
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            request[name] = value.into();
        }
    };
    add("scheme", scheme);
    add("host", Some(host));
    add("client_ip", args.client_ip.as_deref());
    add("sni", args.sni.as_deref());
    add("consumer", args.consumer.as_deref());
    Ok(request)
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Its name if it has one, and its id.
fn named(entity: &Value) -> String {
    match entity["name"].as_str() {
        Some(name) => format!("{name} ({})", plain(&entity["id"])),
        None => plain(&entity["id"]),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn rendered(body: &Value) -> String {
    let mut out = String::new();
    let mut line = |indent: usize, what: &str, text: &str| {
        let _ = writeln!(out, "{:indent$}{what:<10}{text}", "");
    };
    match &body["route"] {
        Value::Null => line(0, "route", "none"),
        route => {
            line(0, "route", &named(route));
            for part in ["matched", "captures"] {
                for (name, value) in route[part].as_object().into_iter().flatten() {
                    line(
                        2,
                        part,
                        &format!("{name}: {}", if value.is_object() { value.to_string() } else { plain(value) }),
                    );
                }
            }
            let order = list(&route["order"]).iter().map(|one| format!("{} {}", plain(&one["by"]), one["value"]));
            line(2, "order", &order.collect::<Vec<_>>().join(", "));
        }
    }
    for candidate in list(&body["candidates"]) {
        let why = match (&candidate["failed"], candidate["outranked_by"].as_str()) {
            (Value::Null, Some(by)) => format!("matches too, but comes later by {by}"),
            (Value::Null, None) => format!("left out: {}", plain(&candidate["left_out"])),
            (failed, _) => format!(
                "{}: wants {}, given {}",
                plain(&failed["condition"]),
                plain(&failed["wanted"]),
                plain(&failed["given"])
            ),
        };
        line(0, "not", &format!("{}: {why}", named(candidate)));
    }
    for plugin in list(&body["plugins"]) {
        let scope = match &plugin["scope"] {
            Value::Null => "for some consumers only".to_owned(),
            Value::Object(scope) => {
                let parts = scope.iter().map(|(kind, entity)| format!("{kind} {}", named(entity)));
                format!("of {}", parts.collect::<Vec<_>>().join(" and "))
            }
            other => plain(other),
        };
        let open = if plugin["depends_on_consumer"] == true { "; consumers have their own" } else { "" };
        let access = match plugin["access"].as_str() {
            Some("ran") | None => String::new(),
            Some(other) => format!("; {other}"),
        };
        line(0, "plugin", &format!("{} {scope}{open}{access}", plain(&plugin["name"])));
    }
    if !body["service"].is_null() {
        let service = &body["service"];
        line(0, "service", &format!("{} at {}:{}", named(service), plain(&service["host"]), service["port"]));
    }
    let balancer = &body["balancer"];
    if !balancer.is_null() {
        let of = balancer["upstream"]["name"].as_str().map_or(String::new(), |name| format!(" of upstream {name}"));
        line(0, "balancer", &format!("{}{of}", plain(&balancer["algorithm"])));
        let address = |peer: &Value| {
            let health = if peer["available"] == false { ", unavailable" } else { "" };
            format!("{} ({}, weight {}{health})", plain(&peer["address"]), plain(&peer["host"]), peer["weight"])
        };
        if !balancer["choice"].is_null() {
            line(2, "choice", &address(&balancer["choice"]));
        }
        for peer in list(&balancer["after_failures"]) {
            line(2, "then", &address(peer));
        }
        for peer in list(&balancer["peers"]).iter().filter(|peer| peer["available"] == false || peer["weight"] == 0) {
            line(2, "not", &address(peer));
        }
    }
    let upstream = &body["upstream"];
    if !upstream.is_null() {
        line(0, "upstream", &format!("{} {}", plain(&upstream["method"]), plain(&upstream["url"])));
        for header in list(&upstream["headers"]) {
            line(2, "", &format!("{}: {}", plain(&header[0]), plain(&header[1])));
        }
    }
    match &body["answer"] {
        answer if answer["by"] == "upstream" => line(0, "answer", "by the upstream"),
        answer if answer["by"] == "plugin" => {
            let text = format!(
                "{} by the plugin {}: {}",
                answer["status"],
                plain(&answer["plugin"]),
                plain(&answer["message"])
            );
            line(0, "answer", text.trim_end_matches([' ', ':']));
        }
        answer => line(0, "answer", &format!("{} {}", answer["status"], plain(&answer["message"]))),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str, headers: &[&str]) -> ExplainArgs {
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        ExplainArgs { method: "GET".to_owned(), url: url.to_owned(), headers, ..ExplainArgs::default() }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let check = |url: &str, scheme: Value, host: Value, path: &str| {
            let request = request(&args(url, &[])).unwrap();
            assert_eq!(
                (&request["scheme"], &request["host"], &request["path"]),
                (&scheme, &host, &json!(path)),
                "{url}"
            );
        };
        check("http://a.test:80/x?y=1", json!("http"), json!("a.test:80"), "/x?y=1");
        check("https://a.test", json!("https"), json!("a.test"), "/");
        check("a.test/x", Value::Null, json!("a.test"), "/x");
        check("/x", Value::Null, Value::Null, "/x");
        check("http://a.test?y", json!("http"), json!("a.test"), "/?y");
    }

    #[test]
    fn headers_are_gathered_by_name() {
        let gathered = request(&args("/", &["X-A: 1", "x-b:2", "X-A:3"])).unwrap();
        assert_eq!(gathered["headers"], json!({ "X-A": ["1", "3"], "x-b": ["2"] }));
        assert!(request(&args("/", &["nothing"])).unwrap_err().contains("name: value"));
    }

    #[test]
    fn every_part_of_an_explanation_is_shown() {
        let body = json!({
            "route": { "id": "1", "name": "r", "matched": { "paths": "/a" }, "captures": { "id": "7" },
                       "order": [{ "by": "attributes", "value": 1 }] },
            "candidates": [
                { "id": "2", "name": null, "failed": { "condition": "methods", "wanted": ["POST"], "given": "GET" } },
                { "id": "3", "name": "late", "outranked_by": "path_bytes" },
                { "id": "4", "name": "off", "left_out": "its service is disabled" },
            ],
            "plugins": [{ "name": "acl", "scope": { "route": { "id": "1", "name": "r" } }, "depends_on_consumer": true },
                        { "name": "key-auth", "scope": "global" }],
            "service": { "id": "5", "name": "s", "host": "h", "port": 80 },
            "upstream": { "method": "GET", "uri": "/a", "url": "http://1.2.3.4:80/a", "headers": [["Host", "h"]] },
            "balancer": { "algorithm": "latency", "upstream": { "name": "u" },
                          "choice": { "address": "1.2.3.4:80", "host": "h", "weight": 100, "available": true },
                          "after_failures": [], "peers": [{ "address": "1.2.3.5:80", "host": "h", "weight": 100, "available": false }] },
            "answer": { "by": "upstream" },
        });
        let text = rendered(&body);
        for wanted in [
            "route     r (1)\n",
            "  matched   paths: /a\n",
            "  captures  id: 7\n",
            "  order     attributes 1\n",
            "not       2: methods: wants POST, given GET\n",
            "not       late (3): matches too, but comes later by path_bytes\n",
            "not       off (4): left out: its service is disabled\n",
            "plugin    acl of route r (1); consumers have their own\n",
            "plugin    key-auth global\n",
            "service   s (5) at h:80\n",
            "balancer  latency of upstream u\n",
            "  choice    1.2.3.4:80 (h, weight 100)\n",
            "  not       1.2.3.5:80 (h, weight 100, unavailable)\n",
            "upstream  GET http://1.2.3.4:80/a\n",
            "Host: h\n",
            "answer    by the upstream\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }
}
