//! A real exchange beside a recorded one.
//! Always: says each difference in one line. Never: looks at the order of headers.

use serde_json::Value;

use crate::golden::pattern::Pattern;
use crate::golden::record::Record;
use crate::golden::record::pairs;
use crate::golden::record::whole;
use crate::golden::servers::echo_of;
use crate::harness::client::Response;
use crate::harness::peer::Arrived;

/// Of a text that differs, so much is shown.
const SHOWN_CHARS: usize = 160;

/// What happened.
pub struct Exchange {
    pub response: Response,
    /// What reached the echoes, with their ports.
    pub arrived: Vec<(u16, Arrived)>,
    pub elapsed_s: f64,
}

/// Every difference. Of an answer with another status only whether the request reached an upstream.
pub fn differences(pattern: &mut Pattern, record: &Record, real: &Exchange) -> Vec<String> {
    pattern.begin_exchange();
    let want = &record.response;
    if want["status"] != real.response.status {
        let mut found = vec![format!("status {} instead of {}", real.response.status, want["status"])];
        if !real.arrived.is_empty() {
            found.push("the request reached an echo".to_owned());
        }
        return found;
    }
    let mut found = Vec::new();
    compare_headers(pattern, "", want_headers(record), &real.response.headers, &mut found);
    if has_rewritten_echo(record) {
        compare_json(pattern, &record.upstream, real, &mut found);
    } else {
        compare_body(pattern, want, real, &mut found);
        compare_upstream(pattern, record, real, &mut found);
    }
    if let Some(about_s) = record.elapsed_s
        && !(about_s * 0.8..about_s + 2.0).contains(&real.elapsed_s)
    {
        let word = if real.elapsed_s < about_s { "quicker" } else { "slower" };
        found.push(format!("{word} than {about_s} s"));
    }
    found
}

/// Whether what the record has as the upstream's view is the body that the client got: the echo's account of the request,
/// as a plugin rewrote it.
fn has_rewritten_echo(record: &Record) -> bool {
    record.group() == "response-transformer"
        && record.response["body"] == "<echo>"
        && pairs(&record.response["headers"]).any(|(name, _)| name == "Transfer-Encoding")
}

fn compare_json(pattern: &mut Pattern, want: &Value, real: &Exchange, found: &mut Vec<String>) {
    let id = real.response.header("x-kong-request-id").unwrap_or("-");
    let text = real.response.text().replace(id, "<request_id>");
    match serde_json::from_str(&text) {
        Ok(got) => pattern.differences("body", want, &got, found),
        Err(_) => found.push(format!("body: {:?} instead of JSON", shown(&text))),
    }
}

/// The recorded headers. The length of a text with our own ports, versions or host name is our own.
fn want_headers(record: &Record) -> Vec<(String, String)> {
    let all: Vec<(&str, &str)> = pairs(&record.response["headers"]).collect();
    let is_echo = record.method() == "HEAD" && all.iter().any(|(name, _)| *name == "X-Upstream");
    let is_ours = is_echo || record.response["body"].to_string().contains("<hostname>");
    let value = |name: &str, value: &str| match name {
        "Content-Length" if is_ours => "<len>".to_owned(),
        _ => value.to_owned(),
    };
    joined(all.iter().map(|(name, text)| (name.to_string(), value(name, text))).collect())
}

/// Several Connection lines say the same as one with all their words (RFC 9110 section 5.3).
fn joined(headers: Vec<(String, String)>) -> Vec<(String, String)> {
    let (connection, mut others): (Vec<_>, Vec<_>) = headers.into_iter().partition(|(name, _)| name == "Connection");
    let words: Vec<String> = connection.into_iter().map(|(_, value)| value).collect();
    if !words.is_empty() {
        others.push(("Connection".to_owned(), words.join(", ")));
    }
    others
}

fn compare_headers(
    pattern: &mut Pattern,
    side: &str,
    want: Vec<(String, String)>,
    got: &[(String, String)],
    found: &mut Vec<String>,
) {
    let mut left: Vec<&(String, String)> = got.iter().collect();
    for (name, value) in want {
        let value = whole(&value, "");
        let same_name = |(real, _): &&(String, String)| real.eq_ignore_ascii_case(&name);
        match left.iter().position(same_name) {
            None => found.push(format!("{side}no {name}: {}", shown(&value))),
            Some(at) => {
                let (real_name, real) = left.remove(at);
                if !pattern.matches(&value, real) {
                    found.push(format!("{side}{name}: {} instead of {}", shown(real), shown(&value)));
                } else if *real_name != name {
                    found.push(format!("{side}{real_name} instead of {name}"));
                }
            }
        }
    }
    found.extend(left.iter().map(|(name, _)| format!("{side}{name} too many")));
}

fn compare_body(pattern: &mut Pattern, want: &Value, real: &Exchange, found: &mut Vec<String>) {
    let mut text = real.response.text();
    if let (false, Some(id)) = (want["body"] == "<echo>", real.response.header("x-kong-request-id")) {
        text = text.replace(id, "<request_id>");
    }
    if real.response.truncated {
        found.push("the body is truncated".to_owned());
    }
    let difference = match &want["body"] {
        Value::Null => (!text.is_empty()).then(|| "not empty".to_owned()),
        Value::String(word) if word == "<echo>" => match real.arrived.as_slice() {
            [(port, arrived)] if text == echo_of(*port, arrived) => None,
            _ => Some("not what the echo sent".to_owned()),
        },
        Value::String(word) => {
            let word = whole(word, "");
            let run = word.strip_prefix("<x * ").and_then(|rest| rest.strip_suffix('>')?.parse().ok());
            let is_same = match run {
                Some(length) => text == "x".repeat(length),
                None => text == pattern.put_in(&word),
            };
            (!is_same).then(|| format!("{:?} instead of {:?}", shown(&text), shown(&word)))
        }
        json => match serde_json::from_str(&text) {
            Ok(got) => return pattern.differences("body", json, &got, found),
            Err(_) => Some(format!("{:?} instead of JSON", shown(&text))),
        },
    };
    found.extend(difference.map(|text| format!("body: {text}")));
}

fn compare_upstream(pattern: &mut Pattern, record: &Record, real: &Exchange, found: &mut Vec<String>) {
    let want = &record.upstream;
    if want.is_null() {
        let is_local = pairs(&record.response["headers"]).any(|(name, _)| name == "X-Kong-Response-Latency");
        if is_local && !real.arrived.is_empty() {
            found.push("the request reached the upstream".to_owned());
        }
        return;
    }
    let [(port, arrived)] = real.arrived.as_slice() else {
        return found.push(format!("{} requests reached the upstream instead of 1", real.arrived.len()));
    };
    let text = |field: &str| want[field].as_str().unwrap_or_default().to_owned();
    let line = format!("{} {} {}", text("method"), text("target"), text("version"));
    if !pattern.matches(&line, arrived.line()) {
        found.push(format!("upstream: {} instead of {line}", arrived.line()));
    }
    if !pattern.matches(&text("port"), &port.to_string()) {
        found.push(format!("upstream: port {port} instead of {}", pattern.put_in(&text("port"))));
    }
    let headers = pairs(&want["headers"]).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if real.response.header("x-cache-status") == Some("Hit") {
        // What is in the cache was asked for by an earlier request, with an id of its own.
        pattern.begin_exchange();
    }
    compare_headers(pattern, "upstream: ", headers, &arrived.headers, found);
    let body = whole(&text("body"), "");
    if body.as_bytes() != arrived.body {
        let real = String::from_utf8_lossy(&arrived.body);
        found.push(format!("upstream: body {:?} instead of {:?}", shown(&real), shown(&body)));
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
