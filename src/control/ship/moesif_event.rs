//! A finished request as an event of API analytics (spec/plugins.md J.2).
//! Never: tells what is masked, or a key: the session is named by the id of the credential.
//! Always: a body that inflates beyond [`crate::limits::SHIP_INFLATED_BYTES_MAX`] is left out.

use std::io::Read;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use hyper::body::Bytes;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::control::ship::outlet::Format;
use crate::control::ship::seen::Seen;
use crate::http::media::is_json;
use crate::limits;
use crate::metrics::full_record::FullRecord;
use crate::metrics::full_record::Shipment;
use crate::plugins::moesif::Captured;
use crate::plugins::moesif::Masks;
use crate::plugins::moesif::Moesif;
use crate::plugins::moesif_rules::Call;
use crate::plugins::query;
use crate::stdx::clock::Civil;

/// Events as that configuration wants them.
pub fn format(config: &Moesif) -> Format {
    let config = config.clone();
    Box::new(move |seen, shipment| event(&config, seen, shipment, fastrand::u8(..100)))
}

/// The event; `None`: calls like it are told of too often already. `chance` is less than 100.
fn event(config: &Moesif, seen: &Seen<'_>, shipment: &Shipment<'_>, chance: u8) -> Option<Bytes> {
    let record = seen.record;
    let mut caller = config.identity.of_request(|name| record.request_field(name));
    let response_fields: Vec<(&[u8], &[u8])> = record.response_fields().collect();
    config.identity.add_of_response(&mut caller, |name| field(&response_fields, name));
    let ip = client_ip(record);
    let call = Told { record, ip: &ip };
    let rate = config.governed.now().sample_rate(&caller, &call);
    if rate <= chance {
        return None;
    }
    let captured = Captured::of(&shipment.numbers, shipment.bytes);
    let figures = &record.figures;
    let inflates = config.decompresses;
    let request_body = captured.request.and_then(|body| {
        let (kind, coding) = (record.request_field("content-type"), record.request_field("content-encoding"));
        told_body(body, kind, coding, &config.request_masks, inflates)
    });
    let response_body = captured.response.and_then(|body| {
        let (kind, coding) = (field(&response_fields, "content-type"), field(&response_fields, "content-encoding"));
        told_body(body, kind, coding, &config.response_masks, inflates)
    });
    let mut request = json!({
        "uri": uri(record, &config.request_masks),
        "headers": headers(record.request_fields.iter().copied(), &config.request_masks),
        "verb": lossy(record.method),
        "ip_address": ip,
        "api_version": config.api_version,
        "time": time(figures.started_unix_us / 1000),
    });
    let mut response = json!({
        "time": time((figures.started_unix_us + figures.total_us) / 1000),
        "status": figures.status,
        "headers": headers(response_fields.iter().copied(), &config.response_masks),
    });
    for (message, body) in [(&mut request, request_body), (&mut response, response_body)] {
        if let Some((body, encoding)) = body {
            message["body"] = body;
            message["transfer_encoding"] = encoding.into();
        }
    }
    let hosts = seen.route.as_deref().and_then(|route| route.value.get("hosts")).cloned();
    let service = seen.service.as_deref().and_then(|service| service.text("name")).map(str::to_owned);
    let mut event = json!({
        "request": request,
        "response": response,
        "direction": "Incoming",
        "weight": 100 / u64::from(rate),
        "metadata": { "kong": { "route_hosts": hosts, "service_name": service } },
    });
    let also = [
        ("session_token", figures.credential.map(|id| id.to_string())),
        ("user_id", caller.user),
        ("company_id", caller.company),
        ("blocked_by", captured.rule.map(lossy)),
    ];
    for (name, value) in also {
        if let Some(value) = value {
            event[name] = value.into();
        }
    }
    Some(event.to_string().into())
}

/// A call, for the rules on how much is told.
struct Told<'a> {
    record: &'a FullRecord<'a>,
    ip: &'a str,
}

impl Call for Told<'_> {
    fn part(&self, path: &str) -> Option<String> {
        let target = self.record.target;
        match path {
            "request.verb" => Some(lossy(self.record.method)),
            "request.route" => target.split(|&byte| byte == b'?').next().map(lossy),
            "request.ip_address" => Some(self.ip.to_owned()),
            "response.status" => Some(self.record.figures.status.to_string()),
            _ => self.record.request_field(path.strip_prefix("request.headers.")?).map(lossy),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn field<'a>(fields: &[(&'a [u8], &'a [u8])], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
}

fn uri(record: &FullRecord<'_>, masks: &Masks) -> String {
    let mut uri = format!("{}://{}:{}", lossy(record.scheme), lossy(record.host), record.figures.port);
    let at = record.target.iter().position(|&byte| byte == b'?');
    let Some(at) = at.filter(|_| !masks.query.is_empty()) else {
        uri.push_str(&String::from_utf8_lossy(record.target));
        return uri;
    };
    uri.push_str(&String::from_utf8_lossy(&record.target[..at]));
    for (index, argument) in query::arguments(&record.target[at + 1..]).enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        let is_masked = masks.query.iter().any(|name| query::decodes_to(argument.name, name.as_bytes()));
        match is_masked {
            true => {
                uri.push_str(&String::from_utf8_lossy(argument.name));
                uri.push_str("=*****");
            }
            false => uri.push_str(&String::from_utf8_lossy(argument.whole)),
        }
    }
    uri
}

/// By name; several of one name are a list.
fn headers<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, masks: &Masks) -> Value {
    let mut named = Map::<String, Value>::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if masks.headers.iter().any(|masked| **masked == *name) {
            continue;
        }
        let value = Value::from(lossy(value));
        match named.get_mut(&name) {
            None => drop(named.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    named.into()
}

/// A body and how it is written; `None`: there is none that can be told.
fn told_body(
    body: &[u8],
    content_type: Option<&[u8]>,
    coding: Option<&[u8]>,
    masks: &Masks,
    inflates: bool,
) -> Option<(Value, &'static str)> {
    if body.is_empty() {
        return None;
    }
    let is_gzip = coding.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"gzip"));
    let inflated = if is_gzip && inflates { inflated(body) } else { Inflated::Unreadable };
    let plain = match (&inflated, is_gzip) {
        (Inflated::TooLong, _) => return None,
        (Inflated::Plain(plain), _) => Some(plain.as_slice()),
        (Inflated::Unreadable, false) => Some(body),
        (Inflated::Unreadable, true) => None,
    };
    if let Some(plain) = plain.filter(|_| content_type.is_some_and(is_json))
        && let Ok(mut value) = serde_json::from_slice::<Value>(plain)
    {
        mask(&mut value, &masks.body);
        return Some((value, "json"));
    }
    Some((STANDARD.encode(plain.unwrap_or(body)).into(), "base64"))
}

enum Inflated {
    Plain(Vec<u8>),
    TooLong,
    Unreadable,
}

fn inflated(body: &[u8]) -> Inflated {
    let mut plain = Vec::new();
    let bound = limits::SHIP_INFLATED_BYTES_MAX;
    match MultiGzDecoder::new(body).take(bound as u64 + 1).read_to_end(&mut plain) {
        Ok(_) if plain.len() > bound => Inflated::TooLong,
        Ok(_) => Inflated::Plain(plain),
        Err(_) => Inflated::Unreadable,
    }
}

/// Takes members out, at any depth.
fn mask(value: &mut Value, names: &[Box<str>]) {
    if names.is_empty() {
        return;
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.iter().any(|masked| **masked == **name));
            fields.values_mut().for_each(|value| mask(value, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| mask(value, names)),
        _ => {}
    }
}

/// The first address that one of these fields tells, else that of the client.
fn client_ip(record: &FullRecord<'_>) -> String {
    const TELLING: [&str; 10] = [
        "x-client-ip",
        "x-forwarded-for",
        "cf-connecting-ip",
        "fastly-client-ip",
        "true-client-ip",
        "x-real-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "forwarded-for",
        "forwarded",
    ];
    let told = TELLING.iter().filter_map(|name| record.request_field(name)).find_map(first_address);
    told.unwrap_or(record.figures.client_ip).to_canonical().to_string()
}

fn first_address(value: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(value).ok()?.split([',', ';']).find_map(|part| {
        let part = part.trim();
        let part = part.strip_prefix("for=").or_else(|| part.strip_prefix("For=")).unwrap_or(part).trim_matches('"');
        let bare = part.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(part);
        let without_port = bare.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(bare, |(host, _)| host);
        without_port.parse().ok()
    })
}

fn time(unix_ms: u64) -> String {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::from_unix(unix_ms / 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}", unix_ms % 1000)
}

#[cfg(test)]
#[path = "moesif_event_tests.rs"]
mod tests;
