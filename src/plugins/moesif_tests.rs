//! What is captured of a call, and what rules make of it.

use super::*;
use crate::plugins::moesif_rules::Governance;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::plugin;
use crate::plugins::testing::refusal;
use serde_json::json;

fn built(config: Value) -> Box<dyn Plugin> {
    let mut all = json!({"application_id": "key"});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    plugin(&KIND, all)
}

fn captured(exchange: &Exchange) -> (Option<String>, Option<String>, Option<String>) {
    let Captured { request, rule, response } = Captured::of(&exchange.notes.numbers, &exchange.notes.bytes);
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (text(request), text(rule), text(response))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn respond(exchange: &mut Exchange, plugin: &dyn Plugin, pieces: &[&str]) {
    exchange.response_head(plugin);
    if exchange.notes.body == BodyUse::Pieces {
        for (at, piece) in pieces.iter().enumerate() {
            exchange.response_piece(plugin, piece.as_bytes(), at + 1 == pieces.len());
        }
    }
}

#[test]
fn bodies_are_told_up_to_their_limits() {
    let limits = json!({"request_max_body_size_limit": 4, "response_max_body_size_limit": 6});
    let disabled = json!({"disable_capture_request_body": true, "disable_capture_response_body": true});
    for (config, request, pieces, want) in [
        (&limits, "1234", &["abc", "def"][..], (some("1234"), None, some("abcdef"))),
        (&limits, "12345", &["abc", "defg", "h"], (None, None, None)),
        (&limits, "", &[""], (None, None, some(""))),
        (&disabled, "1234", &["abc"], (None, None, None)),
    ] {
        let plugin = built(config.clone());
        assert_eq!(plugin.reads_body(), config == &limits);
        let mut exchange = Exchange::new(&["POST /p"]).with_body(request);
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        respond(&mut exchange, &*plugin, pieces);
        assert_eq!(captured(&exchange), want, "{request} {pieces:?}");
    }
    let plugin = built(limits);
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*plugin);
    exchange.response_field("Content-Length", "7");
    exchange.response_head(&*plugin);
    assert_eq!(exchange.notes.body, BodyUse::Pass, "a body that is known to be too long is not looked at");
}

#[test]
fn upstream_and_client_are_told_the_transaction() {
    let plugin = built(json!({}));
    let mut exchange = Exchange::new(&["GET /p", "X-Moesif-Transaction-Id: given"]);
    exchange.access(&*plugin);
    assert_eq!(exchange.reply_fields(), ["X-Moesif-Transaction-Id: given"]);
    let mut exchange = Exchange::new(&["GET /p", "X-Moesif-Transaction-Id:  "]);
    exchange.access(&*plugin);
    let id = "X-Moesif-Transaction-Id: 01234567-89ab-4def-8123-456789abcdef";
    assert_eq!((exchange.reply_fields(), exchange.fields()), (vec![id.to_owned()], vec![id.to_owned()]));
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*built(json!({"disable_transaction_id": true})));
    assert_eq!((exchange.reply_fields(), exchange.fields()), (vec![], vec![]));
}

#[test]
fn a_rule_stops_a_call_and_is_named() {
    let plugin = built(json!({"disable_transaction_id": true}));
    let Some(Shipping::Moesif(moesif)) = plugin.ships() else { panic!("it ships") };
    let conditions = json!([
        { "path": "request.body.query", "value": "drop" },
        { "path": "request.headers.x-a", "value": "^1$" },
        { "path": "request.ip_address", "value": "127" },
        { "path": "request.route", "value": "^/p$" },
    ]);
    let rules = json!([{ "_id": "rule", "type": "regex", "block": true, "regex_config": [{ "conditions": conditions }],
        "response": { "status": 451, "headers": { "X-B": "2", "Content-Type": "text/x" }, "body": { "no": 1 } } }]);
    moesif.governed.set(Governance::of(&json!({}), &rules));
    let lines = ["POST /p?q", "X-A: 1", "Content-Type: application/json"];
    let body = r#"{"query":"drop all"}"#;
    let mut exchange = Exchange::new(&lines).with_body(body);
    assert_eq!(exchange.access(&*plugin), Verdict::Reply);
    assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (451, r#"{"no":1}"#));
    assert_eq!(
        (exchange.reply.content_type.as_slice(), exchange.reply_fields()),
        (&b"text/x"[..], vec!["X-B: 2".to_owned()])
    );
    respond(&mut exchange, &*plugin, &[r#"{"no":1}"#]);
    assert_eq!(captured(&exchange), (some(body), some("rule"), some(r#"{"no":1}"#)));
    let mut other = Exchange::new(&lines).with_body(r#"{"query":"select"}"#);
    assert_eq!(other.access(&*plugin), Verdict::Continue);
}

#[test]
fn a_collector_that_is_no_server_is_refused() {
    let (field, message) = refusal(&KIND, json!({"application_id": "k", "api_endpoint": "ftp://h/"}));
    assert_eq!((field.as_str(), message.as_str()), ("api_endpoint", "only http and https are supported in url"));
}
