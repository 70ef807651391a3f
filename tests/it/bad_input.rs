//! Input that is malformed, of the wrong type, unknown or too large: the documented error each time, no crash, and the
//! next request is served.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(oversized_heads_are_refused_by_name, random_bytes_on_the_proxy_port_harm_nobody);

/// A request to the Admin API with any content type and body.
fn send(gateway: &Gateway, method: &str, path: &str, content_type: &str, body: &[u8]) -> Response {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = gateway.admin_client();
    client.send_what_is_taken(head.as_bytes());
    client.send_what_is_taken(body);
    client.response()
}

fn post(gateway: &Gateway, path: &str, body: &str) -> Response {
    send(gateway, "POST", path, "application/json", body.as_bytes())
}

#[test]
fn malformed_json_is_one_error_everywhere() {
    let gateway = Gateway::start(Driver::any());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        "",
        "{",
        "{\"name\":}",
        "nonsense",
        "{\"a\":1}x",
        "[1]",
        "1",
        "\"text\"",
        "null",
        "{\"a\":\"\\ud800\"}",
        "\u{feff}{}",
        &deep,
    ];
    for body in bodies {
        for path in ["/services", "/consumers", "/plugins"] {
            let answer = post(&gateway, path, body);
            let shown = &body[..body.len().min(40)];
            assert_eq!(answer.status, 400, "{path} {shown:?}: {}", answer.text());
            let answer = answer.json();
            let message = answer["message"].as_str().unwrap_or_default();
            // Of a limit it says which.
            let want = if body.len() > 64 {
                "Cannot parse JSON body: nested deeper than 64 levels"
            } else {
                "Cannot parse JSON body"
            };
            assert_eq!(message, want, "{path} {shown:?}");
        }
    }
    let bytes = send(&gateway, "POST", "/services", "application/json", b"{\"name\":\"\xff\xfe\"}");
    assert_eq!(bytes.status, 400, "{}", bytes.text());
    gateway.create("/consumers", json!({"username": "next"}));
}

#[test]
fn wrong_types_unknown_fields_and_missing_ones_are_told_together() {
    let gateway = Gateway::start(Driver::any());
    gateway.create("/services", json!({"name": "s", "host": "h.test"}));
    let violation = |fields: Value, message: &str| json!({"code": 2, "name": "schema violation", "message": message, "fields": fields});
    let table = [
        (
            "/services",
            json!({}),
            violation(json!({"host": "required field missing"}), "schema violation (host: required field missing)"),
        ),
        (
            "/services",
            json!({"host": "a.b", "port": "80"}),
            violation(json!({"port": "expected an integer"}), "schema violation (port: expected an integer)"),
        ),
        (
            "/services",
            json!({"host": 5, "retries": -1, "what": true}),
            violation(
                json!({"host": "expected a string", "retries": "value should be between 0 and 32767", "what": "unknown field"}),
                "3 schema violations (host: expected a string; retries: value should be between 0 and 32767; what: unknown field)",
            ),
        ),
        (
            "/routes",
            json!({"paths": ["/ok", "bad"]}),
            violation(
                json!({"paths": [null, "should start with: / (fixed path) or ~/ (regex path)"]}),
                "schema violation (paths.2: should start with: / (fixed path) or ~/ (regex path))",
            ),
        ),
        (
            "/plugins",
            json!({}),
            violation(json!({"name": "required field missing"}), "schema violation (name: required field missing)"),
        ),
        (
            "/plugins",
            json!({"name": "key-auth", "config": {"keys": "x"}}),
            violation(json!({"config": {"keys": "unknown field"}}), "schema violation (config.keys: unknown field)"),
        ),
        (
            "/consumers",
            json!({}),
            violation(
                json!({"@entity": ["at least one of these fields must be non-empty: 'custom_id', 'username'"]}),
                "schema violation (at least one of these fields must be non-empty: 'custom_id', 'username')",
            ),
        ),
    ];
    for (path, body, want) in table {
        let answer = gateway.admin("POST", path, Some(&body));
        assert_eq!((answer.status, answer.json()), (400, want), "{path} {body}");
    }
    let answer = gateway.admin("PATCH", "/services/s", Some(&json!({"host": null}))).must_be(400);
    assert_eq!(answer.json()["fields"], json!({"host": "required field missing"}));
    assert_eq!(gateway.admin("GET", "/services/s", None).json()["host"], "h.test", "a refused write changes nothing");
}

#[test]
fn unknown_ids_paths_methods_and_references_have_their_errors() {
    let gateway = Gateway::start(Driver::any());
    let nobody = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
    let table = [
        ("GET", "/services/none".to_owned(), None, 404, json!({"message": "Not found"})),
        ("GET", format!("/routes/{nobody}"), None, 404, json!({"message": "Not found"})),
        ("GET", "/no-such-thing".to_owned(), None, 404, json!({"message": "Not found"})),
        (
            "POST",
            "/services/none/routes".to_owned(),
            Some(json!({"paths": ["/"]})),
            404,
            json!({"message": "Not found"}),
        ),
        ("PUT", "/services".to_owned(), Some(json!({})), 405, json!({"message": "Method not allowed"})),
        (
            "PATCH",
            "/services/none".to_owned(),
            Some(json!({"port": 1})),
            404,
            json!({"code": 6, "name": "not found", "message": "could not find the entity with '{name=\"none\"}'", "fields": {"name": "none"}}),
        ),
        (
            "POST",
            "/routes".to_owned(),
            Some(json!({"paths": ["/"], "service": {"id": nobody}})),
            400,
            json!({"code": 4, "name": "foreign key violation", "fields": {"service": {"id": nobody}},
                "message": format!("the foreign key '{{id=\"{nobody}\"}}' does not reference an existing 'services' entity.")}),
        ),
        (
            "GET",
            "/services?size=0".to_owned(),
            None,
            400,
            json!({"code": 9, "name": "invalid size", "message": "size must be an integer between 1 and 1000"}),
        ),
    ];
    for (method, path, body, status, want) in table {
        let answer = gateway.admin(method, &path, body.as_ref());
        assert_eq!((answer.status, answer.json()), (status, want), "{method} {path}");
    }
    gateway.admin("DELETE", "/services/none", None).must_be(204);
    gateway.create("/consumers", json!({"username": "twice"}));
    let answer = gateway.admin("POST", "/consumers", Some(&json!({"username": "twice"}))).must_be(409).json();
    assert_eq!((&answer["code"], &answer["fields"]), (&json!(5), &json!({"username": "twice"})));
    send(&gateway, "POST", "/services", "text/plain", b"x").must_be(415);
}

#[test]
fn a_body_above_10_mib_is_413_on_the_admin_api() {
    let gateway = Gateway::start(Driver::any());
    let body = |bytes: usize| {
        let frame = "{\"username\":\"c\",\"nothing\":\"\"}".len();
        format!("{{\"username\":\"c\",\"nothing\":\"{}\"}}", "x".repeat(bytes - frame))
    };
    let answer = post(&gateway, "/consumers", &body((10 << 20) + 1));
    assert_eq!(answer.status, 413, "{}", answer.head);
    let answer = post(&gateway, "/consumers", &body(10 << 20)).must_be(400);
    assert_eq!(answer.json()["fields"], json!({"nothing": "unknown field"}), "10 MiB are read");
    // Without an announced length as well.
    let mut client = gateway.admin_client();
    client.send(
        "POST /consumers HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..11 {
        client.send_what_is_taken(format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).as_bytes());
    }
    client.send_what_is_taken(b"0\r\n\r\n");
    client.response().must_be(413);
    gateway.create("/consumers", json!({"username": "next"}));
}

#[test]
fn random_admin_input_is_never_a_5xx() {
    let gateway = Gateway::start(Driver::any());
    gateway.service("s", 1, json!({}));
    let mut rng = fastrand::Rng::with_seed(7);
    let names = [
        "name",
        "host",
        "port",
        "paths",
        "service",
        "id",
        "config",
        "tags",
        "username",
        "target",
        "weight",
        "protocols",
        "headers",
        "methods",
        "url",
        "created_at",
        "key",
        "ttl",
        "consumer",
        "healthchecks",
        "algorithm",
        "enabled",
    ];
    let paths = [
        "/services",
        "/routes",
        "/consumers",
        "/plugins",
        "/upstreams",
        "/services/s",
        "/services/s/plugins",
        "/key-auths",
        "/upstreams/x/targets",
        "/schemas/services/validate",
        "/consumers/%ff",
        "/services/%00",
        "/routes?size=%31&offset=%%%",
    ];
    let methods = ["POST", "PUT", "PATCH", "GET", "DELETE", "OPTIONS", "HEAD", "FROB"];
    for round in 0..600 {
        let mut object = serde_json::Map::new();
        for _ in 0..rng.usize(0..5) {
            object.insert(names[rng.usize(..names.len())].to_owned(), random_value(&mut rng, 0));
        }
        let body = Value::Object(object).to_string();
        let (method, path) = (methods[rng.usize(..methods.len())], paths[rng.usize(..paths.len())]);
        let form = round % 5 == 0;
        let answer = match (method, form) {
            ("HEAD", _) => continue,
            (_, true) => {
                let text: String = (0..rng.usize(1..6))
                    .map(|_| {
                        format!(
                            "{}{}={}&",
                            names[rng.usize(..names.len())],
                            ["", "[]", "[1].x", "[a", ".b.c"][rng.usize(..5)],
                            rng.alphanumeric()
                        )
                    })
                    .collect();
                send(&gateway, method, path, "application/x-www-form-urlencoded", text.as_bytes())
            }
            (_, false) => send(&gateway, method, path, "application/json", body.as_bytes()),
        };
        assert!(answer.status < 500, "round {round}: {method} {path} {body}: {}{}", answer.head, answer.text());
    }
    gateway.create("/consumers", json!({"username": "the-next-one"}));
}

fn random_value(rng: &mut fastrand::Rng, depth: usize) -> Value {
    match rng.u8(..if depth > 3 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i64(..)),
        3 => json!(f64::from(rng.i32(..)) / 7.0),
        4 => json!(["", "/", "http", "a b", "\u{0}", "é", "~/(", "*", "::1", "127.0.0.1:1"][rng.usize(..10)]),
        5 => json!("x".repeat(rng.usize(..300))),
        6 => (0..rng.usize(..4)).map(|_| random_value(rng, depth + 1)).collect(),
        _ => {
            let keys = ["id", "name", "x-a", "", "é", "active", "key_names"];
            Value::Object(
                (0..rng.usize(..3)).map(|_| (keys[rng.usize(..7)].to_owned(), random_value(rng, depth + 1))).collect(),
            )
        }
    }
}

fn oversized_heads_are_refused_by_name(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long_line = get(&format!("/{}", "u".repeat(9000)), "");
    let very_long_line = get(&format!("/{}", "u".repeat(100_000)), "");
    let long_field = get("/", &format!("X: {}\r\n", "y".repeat(9000)));
    let long_head = get("/", &format!("X: {}\r\n", "y".repeat(4000)).repeat(12));
    let many_fields = get("/", &"X: y\r\n".repeat(200));
    for (request, status, message) in [
        (long_line, 414, "URI too long\n"),
        (very_long_line, 414, "URI too long\n"),
        (long_field, 400, "Request header or cookie too large\n"),
        (long_head, 400, "Request header or cookie too large\n"),
        (many_fields, 431, ""),
    ] {
        let mut client = gateway.connect();
        client.send_what_is_taken(request.as_bytes());
        let answer = client.response();
        let shown = &request[..request.len().min(60)];
        assert_eq!(answer.status, status, "{shown}: {}", answer.head);
        assert!(answer.text().starts_with(message), "{shown}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        client.must_end();
    }
    let fits = get(&format!("/{}", "u".repeat(8000)), &format!("X: {}\r\n", "y".repeat(7000)).repeat(3));
    gateway.connect().ask(fits).must_be(200);
    gateway.connect().ask(get("/", &"X: y\r\n".repeat(100))).must_be(200);
    assert_eq!(peer.arrived_by_now().len(), 2);
}

fn random_bytes_on_the_proxy_port_harm_nobody(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.proxy_to(peer.port);
    let pid = gateway.pid();
    let good = b"POST /a/b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".as_slice();
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = good.to_vec();
        match seed % 3 {
            0 => bytes = (0..rng.usize(1..3000)).map(|_| rng.u8(..)).collect(),
            1 => (0..rng.usize(1..5)).for_each(|_| {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }),
            _ => bytes.truncate(rng.usize(..bytes.len())),
        }
        let mut client = gateway.connect();
        client.send_what_is_taken(&bytes);
        client.finish_sending();
        assert_ne!(client.read_to_end(), crate::harness::client::End::Open, "seed {seed}: nothing happens");
        let text = String::from_utf8_lossy(&client.rest);
        assert!(!text.starts_with("HTTP/1.1 5") || text.starts_with("HTTP/1.1 50"), "seed {seed}: {text}");
        assert!(!text.starts_with("HTTP/1.1 500"), "seed {seed}: {text}");
    }
    assert_eq!(gateway.get("/").must_be(200).text(), "hello");
    assert_eq!(gateway.pid(), pid);
}
