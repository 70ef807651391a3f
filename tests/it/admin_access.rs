//! Who may use the Admin API, and what input may cost, through the real binary.

use std::fmt::Write;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// Memory that a refused document may leave behind or need.
const REFUSED_BYTES_MAX: u64 = 96 << 20;

/// A request over TCP with these fields and a body.
#[track_caller]
fn send(gateway: &Gateway, line: &str, fields: &str, body: &str) -> Response {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    Client::connect(gateway.admin).ask(format!("{line} HTTP/1.1\r\n{fields}{length}\r\n{body}"))
}

fn post_yaml(gateway: &Gateway, text: &str) -> Response {
    send(gateway, "POST /config", "Host: localhost\r\nContent-Type: text/yaml\r\n", text)
}

fn memory_bytes(gateway: &Gateway) -> u64 {
    let status = gateway.admin("GET", "/status?unit=b", None).must_be(200).json();
    status["memory"]["workers_lua_vms"][0]["http_allocated_gc"].as_u64().expect("a number of bytes")
}

#[test]
fn a_page_from_elsewhere_changes_nothing_and_reads_nothing() {
    let gui = "http://manager.test:8002";
    let gateway = Gateway::with(Driver::any(), &[("admin_gui_url", gui)]);
    let body = "username=evil";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    // What a form, a script without preflight, a sandboxed frame and a look-alike can send.
    for origin in ["http://evil.test", "null", "http://manager.test", "http://manager.test:8002.evil.test", "file://"] {
        for (line, body) in [
            ("POST /consumers", body),
            ("PUT /consumers/evil", ""),
            ("PATCH /consumers/evil", body),
            ("DELETE /consumers/evil", ""),
            ("POST /config", "config=_format_version: '3.0'"),
        ] {
            let fields = format!("Host: localhost\r\nOrigin: {origin}\r\n{form}");
            let answer = send(&gateway, line, &fields, body);
            assert_eq!(answer.status, 403, "{line} from {origin}: {}", answer.text());
            assert!(answer.text().contains("admin_gui_url"), "{}", answer.text());
        }
        let read = send(&gateway, "GET /consumers", &format!("Host: localhost\r\nOrigin: {origin}\r\n"), "");
        assert_eq!(read.header("access-control-allow-origin"), Some(gui), "a browser keeps the answer from {origin}");
    }
    // A name that was made to resolve to this machine, however it is written.
    for fields in
        ["Host: evil.test\r\n", "Host: evil.test:80\r\n", "Host: 127.0.0.1.evil.test\r\n", "Host: localhost.\r\n"]
    {
        send(&gateway, "GET /consumers", fields, "").must_be(403);
        send(&gateway, "POST /consumers", &format!("{fields}{form}"), body).must_be(403);
    }
    send(&gateway, "GET /consumers", "Host: localhost\r\nHost: evil.test\r\n", "").must_be(403);
    assert_eq!(gateway.admin("GET", "/consumers", None).json()["data"], json!([]), "nothing came through");
    // The configured page may, and is told so.
    let fields = format!("Host: localhost\r\nOrigin: {gui}\r\n");
    let preflight =
        send(&gateway, "OPTIONS /consumers", &format!("{fields}Access-Control-Request-Method: POST\r\n"), "");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some(gui)));
    send(&gateway, "POST /consumers", &format!("{fields}{form}"), "username=friend").must_be(201);
}

#[test]
fn a_token_is_asked_for_on_every_path_and_method_but_preflights() {
    let gateway = Gateway::with(Driver::any(), &[("admin_token", "s3cret")]);
    for line in
        ["GET /", "GET /nope", "HEAD /services", "POST /services", "DELETE /services/x", "FROB /", "GET /status"]
    {
        let mut client = Client::connect(gateway.admin);
        client.send(format!("{line} HTTP/1.1\r\nHost: evil.test\r\n\r\n"));
        assert_eq!(client.head().status, 401, "{line}");
    }
    for fields in [
        "Kong-Admin-Token: s3cre\r\n",
        "Kong-Admin-Token: s3crett\r\n",
        "Kong-Admin-Token:\r\n",
        "Authorization: Basic s3cret\r\n",
        "Authorization: s3cret\r\n",
    ] {
        let answer = send(&gateway, "GET /services", &format!("Host: localhost\r\n{fields}"), "").must_be(401);
        assert!(!answer.text().contains("s3cre"), "{}", answer.text());
    }
    send(&gateway, "OPTIONS /services", "Host: localhost\r\n", "").must_be(204);
    // With a token the name does not matter: a page does not know the token.
    send(&gateway, "GET /services", "Host: gateway.test\r\nAuthorization: Bearer s3cret\r\n", "").must_be(200);
}

#[test]
fn a_start_with_an_admin_api_open_to_others_is_refused_unless_it_is_meant() {
    let open = ("admin_listen", "0.0.0.0:0");
    let mut gateway = Gateway::unstarted(Driver::any(), &[open]);
    gateway.spawn();
    assert_eq!(gateway.wait().code(), Some(1));
    let log = gateway.log();
    assert!(log.contains("admin_token") && log.contains("admin_allow_unauthenticated = on"), "{log}");
    for meant in [("admin_token", "s3cret"), ("admin_allow_unauthenticated", "on")] {
        let mut gateway = Gateway::unstarted(Driver::any(), &[("admin_listen", "0.0.0.0:0, unix:admin.sock"), meant]);
        gateway.spawn();
        gateway.wait_until_it_serves();
    }
}

#[test]
fn nesting_is_bounded_in_every_kind_of_body() {
    let gateway = Gateway::start(Driver::any());
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let post =
        |body: &str| send(&gateway, "POST /consumers", "Host: localhost\r\nContent-Type: application/json\r\n", body);
    assert_eq!(post(&nested(64)).must_be(400).json()["fields"]["a"], "unknown field");
    for levels in [65, 1000, 1_000_000] {
        let text = post(&nested(levels)).must_be(400).text();
        assert!(text.contains("nested deeper than 64 levels"), "{levels}: {text}");
    }
    let form = format!("a{}=1", "[b]".repeat(20_000));
    let fields = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    send(&gateway, "POST /consumers", fields, &form).must_be(400);
    for text in [
        nested(65),
        format!("a: {}", "[".repeat(1_000_000)),
        format!("a: {}", "{b: ".repeat(100_000)),
        (0..3000).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n"),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        let begun = Instant::now();
        let answer = post_yaml(&gateway, &text).must_be(400);
        assert_eq!(answer.json()["code"], 14, "{}", answer.text());
        assert!(begun.elapsed() < PATIENCE, "{} took {:?}", &text[..20], begun.elapsed());
    }
    gateway.create("/consumers", json!({"username": "next"}));
}

#[test]
fn bombs_of_aliases_are_refused_before_they_grow() {
    let gateway = Gateway::start(Driver::any());
    let before = memory_bytes(&gateway);
    // Each level names the one below ten times: lists, objects, and objects merged into others.
    let mut lists = "_format_version: '3.0'\n_ignore:\n- &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    let mut objects = "_format_version: '3.0'\n_ignore:\n- &a0 {a: x}\n".to_owned();
    for level in 1..30 {
        let below = level - 1;
        let _ = writeln!(lists, "- &a{level} [{}]", vec![format!("*a{below}"); 10].join(","));
        let named: Vec<String> = (0..10).map(|n| format!("k{n}: *a{below}")).collect();
        let _ = writeln!(objects, "- &a{level} {{{}}}", named.join(", "));
    }
    // One long text, named very often.
    let long =
        format!("_format_version: '3.0'\n_ignore: [&a {}, {}]\n", "x".repeat(1 << 20), vec!["*a"; 5000].join(","));
    // Many fields, merged very often.
    let fields: Vec<String> = (0..1000).map(|n| format!("k{n}: x")).collect();
    let merged = format!(
        "_format_version: '3.0'\n_ignore:\n- &a {{{}}}\n- {{<<: [{}]}}\n",
        fields.join(", "),
        vec!["*a"; 5000].join(",")
    );
    for bomb in [lists, objects, long, merged] {
        let begun = Instant::now();
        let answer = post_yaml(&gateway, &bomb);
        assert_eq!(answer.status, 400, "{}", &bomb[..80]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    let grown = memory_bytes(&gateway).saturating_sub(before);
    assert!(grown < REFUSED_BYTES_MAX, "{grown} bytes");
}

#[test]
fn a_node_that_was_told_to_end_takes_no_configuration() {
    let peer = Peer::scripted(|accepted| {
        // Holds the request, and with it the end of the node, until the test has seen enough.
        accepted.request();
        let _ = accepted.until_closed();
    });
    let gateway = Gateway::with(Driver::any(), &[("drain_timeout", "30s")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.arrived();
    gateway.signal(libc::SIGTERM);
    let config: Value = json!({"_format_version": "3.0"});
    let refused = eventually("the node to refuse", || {
        Some(gateway.admin("POST", "/config?dry_run=1", Some(&config))).filter(|answer| answer.status == 503)
    });
    assert_eq!(refused.json(), json!({"message": "Kong currently exiting"}));
    gateway.admin("GET", "/services", None).must_be(200);
}
