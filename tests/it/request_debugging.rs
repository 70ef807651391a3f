//! What a request's time was spent in, told to who may ask (spec/proxying.md section 19).

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

const OUTPUT: &str = "x-kong-request-debug-output";

fn ask(gateway: &Gateway, path: &str, fields: &str) -> Response {
    gateway.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn output(response: &Response) -> Value {
    let text = response.header(OUTPUT).unwrap_or_else(|| panic!("no output: {}", response.head));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn phases_plugins_and_the_upstream_are_told_and_the_headers_go_no_further() {
    let peer = Peer::hello();
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    gateway.create("/plugins", json!({"name": "cors", "config": {}}));
    let fields = "X-Kong-Request-Debug: *\r\nX-Kong-Request-Debug-Log: true\r\nX-Kong-Request-Debug-Token: x\r\n";
    let response = ask(&gateway, "/", fields).must_be(200);
    let told = output(&response);
    let id = response.header("x-kong-request-id").expect("an id");
    assert_eq!(told["request_id"], id);
    let ms = |pointer: &str| {
        told.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {told}"))
    };
    let total = ms("/total_time");
    for part in [
        "/child/access/child/router/total_time",
        "/child/access/child/plugins/child/cors/total_time",
        "/child/balancer/total_time",
        "/child/upstream/child/time_to_first_byte/total_time",
        "/child/header_filter/child/plugins/child/cors/total_time",
        "/total_time_without_upstream",
    ] {
        assert!((0.0..=total).contains(&ms(part)), "{part} in {told}");
    }
    assert!(!peer.arrived().head.to_ascii_lowercase().contains("debug"));
    // The whole of it, with the end of the answer.
    eventually("the line of the log", || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains("request debugging: ") && line.contains(id))?;
        line.contains("\"streaming\"").then_some(())
    });
    // An answer of the gateway has no upstream to tell of.
    gateway.admin("DELETE", "/routes/r", None).must_be(204);
    let told = output(&ask(&gateway, "/", "X-Kong-Request-Debug: *\r\n").must_be(404));
    assert!(told["child"]["upstream"].is_null() && told["child"]["access"]["total_time"].is_f64(), "{told}");
}

#[test]
fn only_who_is_near_or_has_the_token_is_told() {
    let peer = Peer::hello();
    let settings = [("trusted_ips", "127.0.0.1"), ("request_debug_token", "t0ken")];
    let gateway = Gateway::with(Driver::any(), &settings);
    gateway.proxy_to(peer.port);
    let near = "X-Kong-Request-Debug: *\r\n";
    // A client behind a proxy on this machine.
    let far = "X-Real-IP: 10.1.1.1\r\nX-Kong-Request-Debug: *\r\n";
    for (fields, is_told) in [
        (near.to_owned(), true),
        ("X-Kong-Request-Debug: 1\r\n".to_owned(), false),
        (far.to_owned(), false),
        (format!("{far}X-Kong-Request-Debug-Token: t0ke\r\n"), false),
        (format!("{far}X-Kong-Request-Debug-Token: t0ken\r\n"), true),
    ] {
        let response = ask(&gateway, "/", &fields).must_be(200);
        assert_eq!(response.header(OUTPUT).is_some(), is_told, "{fields}");
    }
    let gateway = Gateway::with(Driver::any(), &[("request_debug", "off")]);
    assert!(ask(&gateway, "/", near).must_be(404).header(OUTPUT).is_none());
}

#[test]
fn a_token_that_is_not_set_is_made_and_logged() {
    let gateway = Gateway::with(Driver::any(), &[("trusted_ips", "127.0.0.1")]);
    let log = gateway.log();
    let token = log.lines().find_map(|line| line.split_once("token for request debugging: "));
    let (_, token) = token.unwrap_or_else(|| panic!("no token in {log}"));
    let far = format!("X-Real-IP: 10.1.1.1\r\nX-Kong-Request-Debug: *\r\nX-Kong-Request-Debug-Token: {token}\r\n");
    assert!(ask(&gateway, "/", &far).must_be(404).header(OUTPUT).is_some());
}
