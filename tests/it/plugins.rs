//! The three plugins in front of real traffic, and which of several configurations a request meets.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// A gateway with service `s` and route `r` for `/`.
fn behind(peer: &Peer) -> Gateway {
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    gateway
}

fn ask(gateway: &Gateway, path: &str, fields: &str) -> Response {
    gateway.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn a_key_tells_the_upstream_who_asks() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    let consumer = gateway.create("/consumers", json!({"username": "moesif", "custom_id": "m-1"}));
    let credential = gateway.create("/consumers/moesif/key-auth", json!({"key": "secret"}));
    let forged = "X-Consumer-ID: forged\r\nX-Consumer-Username: forged\r\nX-Consumer-Custom-ID: forged\r\n\
                  X-Credential-Identifier: forged\r\nX-Anonymous-Consumer: true\r\n";
    for (path, fields) in [("/", format!("apikey: secret\r\n{forged}")), ("/?a=b&apikey=secret", forged.to_owned())] {
        ask(&gateway, path, &fields).must_be(200);
        let arrived = peer.arrived();
        assert_eq!(arrived.header("x-consumer-id"), consumer["id"].as_str());
        assert_eq!(arrived.header("x-consumer-username"), Some("moesif"));
        assert_eq!(arrived.header("x-consumer-custom-id"), Some("m-1"));
        assert_eq!(arrived.header("x-credential-identifier"), credential["id"].as_str());
        assert_eq!(arrived.header("x-anonymous-consumer"), None);
        assert_eq!(arrived.line(), format!("GET {path} HTTP/1.1"), "the key goes on, unless it is to be hidden");
    }
    for (path, fields, message) in [
        ("/", "", "No API key found in request"),
        ("/", "apikey:\r\n", "No API key found in request"),
        ("/", "apikey: wrong\r\n", "Unauthorized"),
        ("/", "apikey: secret\r\napikey: secret\r\n", "Duplicate API key found"),
        ("/?apikey=secret&apikey=secret", "", "Duplicate API key found"),
    ] {
        let answer = ask(&gateway, path, fields).must_be(401);
        assert_eq!(answer.json()["message"], message, "{path} {fields}");
        assert_eq!(answer.header("www-authenticate"), Some("Key"));
    }
    assert!(peer.arrived_by_now().is_empty());
}

#[test]
fn key_auth_does_what_its_configuration_says() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    let plugin = gateway.create("/services/s/plugins", json!({"name": "key-auth"}));
    let plugin = format!("/plugins/{}", plugin["id"].as_str().expect("an id"));
    gateway.create("/consumers", json!({"username": "c"}));
    gateway.create("/consumers", json!({"username": "nobody"}));
    gateway.create("/consumers/c/key-auth", json!({"key": "secret"}));
    let configure = |config: Value| drop(gateway.patch(&plugin, json!({"config": config})));

    configure(json!({"hide_credentials": true, "key_names": ["x-key", "k"]}));
    ask(&gateway, "/?a=b&k=secret&c=d", "X-Kept: 1\r\n").must_be(200);
    assert_eq!(peer.arrived().line(), "GET /?a=b&c=d HTTP/1.1");
    ask(&gateway, "/", "X-Key: secret\r\nX-Kept: 1\r\n").must_be(200);
    let arrived = peer.arrived();
    assert_eq!((arrived.header("x-key"), arrived.header("x-kept")), (None, Some("1")));

    configure(
        json!({"key_in_header": false, "key_in_query": false, "key_in_body": true, "hide_credentials": false, "realm": "here"}),
    );
    let refused = ask(&gateway, "/?k=secret", "X-Key: secret\r\n").must_be(401);
    assert_eq!(refused.header("www-authenticate"), Some("Key realm=\"here\""));
    for (kind, body) in
        [("application/x-www-form-urlencoded", "a=b&k=secret"), ("application/json", "{\"k\":\"secret\"}")]
    {
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        gateway.connect().ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")).must_be(200);
        assert_eq!(peer.arrived().body, body.as_bytes());
    }

    configure(json!({"key_in_header": true, "anonymous": "nobody", "run_on_preflight": false}));
    ask(&gateway, "/", "").must_be(200);
    let arrived = peer.arrived();
    assert_eq!(
        (arrived.header("x-consumer-username"), arrived.header("x-anonymous-consumer")),
        (Some("nobody"), Some("true"))
    );
    configure(json!({"anonymous": null}));
    ask(&gateway, "/", "").must_be(401);
    gateway.connect().ask("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
    gateway.patch(&plugin, json!({"enabled": false}));
    ask(&gateway, "/", "").must_be(200);
}

#[test]
fn a_credential_ends_at_its_time_and_with_its_consumer() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    gateway.create("/routes/r/plugins", json!({"name": "key-auth"}));
    gateway.create("/consumers", json!({"username": "c"}));
    gateway.create("/consumers/c/key-auth", json!({"key": "short", "ttl": 3}));
    gateway.create("/consumers/c/key-auth", json!({"key": "long"}));
    ask(&gateway, "/", "apikey: short\r\n").must_be(200);
    crate::harness::eventually("the key to expire", || {
        (ask(&gateway, "/", "apikey: short\r\n").status == 401).then_some(())
    });
    gateway.admin("GET", "/key-auths/short", None).must_be(404);
    ask(&gateway, "/", "apikey: long\r\n").must_be(200);
    gateway.admin("DELETE", "/consumers/c", None).must_be(204);
    ask(&gateway, "/", "apikey: long\r\n").must_be(401);
}

#[test]
fn request_termination_answers_in_place_of_the_upstream() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    let plugin = gateway.create("/routes/r/plugins", json!({"name": "request-termination"}));
    let plugin = format!("/plugins/{}", plugin["id"].as_str().expect("an id"));
    let json_type = Some("application/json; charset=utf-8");
    for (config, status, kind, body) in [
        (json!({}), 503, json_type, "{\"message\":\"Service unavailable\"}"),
        (json!({"status_code": 403, "message": "So \"long\""}), 403, json_type, "{\"message\":\"So \\\"long\\\"\"}"),
        (
            json!({"status_code": 200, "message": null, "body": "<h1>hi</h1>", "content_type": "text/html"}),
            200,
            Some("text/html; charset=UTF-8"),
            "<h1>hi</h1>",
        ),
    ] {
        gateway.patch(&plugin, json!({"config": config}));
        let answer = ask(&gateway, "/x", "").must_be(status);
        assert_eq!((answer.header("content-type"), answer.text().as_str()), (kind, body));
        assert!(answer.header("x-kong-response-latency").is_some(), "{}", answer.head);
    }
    gateway
        .patch(&plugin, json!({"config": {"trigger": "stop", "body": null, "content_type": null, "status_code": 503}}));
    ask(&gateway, "/", "").must_be(200);
    ask(&gateway, "/", "Stop: 1\r\n").must_be(503);
    ask(&gateway, "/?stop=1", "").must_be(503);
    gateway.patch(&plugin, json!({"config": {"trigger": null, "echo": true, "status_code": 200}}));
    let echo = ask(&gateway, "/x?a=b", "").must_be(200).json();
    assert_eq!((&echo["request"]["path"], &echo["request"]["query"]), (&json!("/x"), &json!({"a": "b"})), "{echo}");
    assert_eq!(
        (&echo["matched_route"]["name"], &echo["matched_service"]["name"]),
        (&json!("r"), &json!("s")),
        "{echo}"
    );
    let refused = gateway.admin("PATCH", &plugin, Some(&json!({"config": {"message": "m", "body": "b"}}))).must_be(400);
    assert_eq!(refused.json()["name"], "schema violation");
}

#[test]
fn a_configured_text_cannot_add_a_header() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    let evil = "x\r\nEvil: 1";
    for (path, plugin) in [
        (
            "/routes/r/plugins",
            json!({"name": "request-termination", "config": {"status_code": 200, "body": "b", "content_type": evil}}),
        ),
        ("/routes/r/plugins", json!({"name": "key-auth", "config": {"realm": evil}})),
        (
            "/routes/r/plugins",
            json!({"name": "correlation-id", "config": {"header_name": evil, "echo_downstream": true}}),
        ),
    ] {
        let made = gateway.admin("POST", path, Some(&plugin));
        let answer = ask(&gateway, "/", "");
        assert_eq!(answer.header("evil"), None, "{plugin} was answered {}: {}", made.status, answer.head);
        if made.status == 201 {
            let id = made.json()["id"].as_str().expect("an id").to_owned();
            gateway.admin("DELETE", &format!("/plugins/{id}"), None).must_be(204);
        }
    }
    let change = json!({"path": "/x HTTP/1.1\r\nEvil: 1\r\nX: "});
    gateway.admin("PATCH", "/services/s", Some(&change)).must_be(400);
    let upstream = json!({"name": "u", "host_header": "a\r\nEvil: 1"});
    gateway.admin("POST", "/upstreams", Some(&upstream)).must_be(400);
    peer.arrived_by_now().iter().for_each(|arrived| assert_eq!(arrived.header("evil"), None));
}

#[test]
fn correlation_id_marks_a_request_and_echoes_the_mark() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    let plugin = gateway.create("/plugins", json!({"name": "correlation-id"}));
    let plugin = format!("/plugins/{}", plugin["id"].as_str().expect("an id"));
    let mut client = gateway.connect();
    let mut id = || {
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        assert_eq!(answer.header("kong-request-id"), None);
        peer.arrived().header("kong-request-id").expect("an id").to_owned()
    };
    let (first, second) = (id(), id());
    let (worker, n) = first.split_once('#').expect("uuid#counter");
    assert_eq!((worker.len(), second), (36, format!("{worker}#{}", n.parse::<u64>().expect("a number") + 1)));
    gateway.patch(&plugin, json!({"config": {"generator": "uuid", "header_name": "X-Mark", "echo_downstream": true}}));
    let answer = ask(&gateway, "/", "");
    let arrived = peer.arrived();
    assert_eq!(answer.header("x-mark"), arrived.header("x-mark"));
    assert_eq!(answer.header("x-mark").map(str::len), Some(36));
    let answer = ask(&gateway, "/", "X-Mark: mine\r\n");
    assert_eq!((answer.header("x-mark"), peer.arrived().header("x-mark")), (Some("mine"), Some("mine")));
    gateway.create("/routes/r/plugins", json!({"name": "request-termination"}));
    assert_eq!(
        ask(&gateway, "/", "X-Mark: mine\r\n").must_be(503).header("x-mark"),
        Some("mine"),
        "answers of plugins too"
    );
    gateway.patch(&plugin, json!({"config": {"generator": "tracker"}}));
    let answer = ask(&gateway, "/", "").must_be(503);
    let mark = answer.header("x-mark").expect("a mark");
    let want = format!("127.0.0.1-{}-{}-", gateway.proxy, gateway.pid());
    assert!(mark.starts_with(&want) && mark.split('-').count() == 6, "{mark}");
}

#[test]
fn the_most_specific_configuration_is_the_only_one_that_runs() {
    let peer = Peer::hello();
    let gateway = behind(&peer);
    gateway.create("/services/s/routes", json!({"name": "other", "paths": ["/other"]}));
    gateway.create("/routes", json!({"name": "bare", "paths": ["/bare"]}));
    gateway.create("/services/s/plugins", json!({"name": "key-auth", "config": {"anonymous": "nobody"}}));
    for name in ["c", "d", "nobody"] {
        gateway.create("/consumers", json!({"username": name}));
    }
    gateway.create("/consumers/c/key-auth", json!({"key": "of-c"}));
    gateway.create("/consumers/d/key-auth", json!({"key": "of-d"}));
    let id = |path: &str| gateway.admin("GET", path, None).must_be(200).json()["id"].clone();
    let (service, route, consumer) =
        (json!({"id": id("/services/s")}), json!({"id": id("/routes/r")}), json!({"id": id("/consumers/c")}));
    let all = json!({"service": service, "route": route, "consumer": consumer});
    let message = |path: &str, key: &str| {
        let answer = ask(&gateway, path, &format!("apikey: {key}\r\n"));
        if answer.status == 200 {
            "none".to_owned()
        } else {
            answer.json()["message"].as_str().unwrap_or_default().to_owned()
        }
    };
    assert_eq!(message("/", "of-c"), "none");
    // From the least to the most specific; each new one takes over.
    let scopes: [&[&str]; 8] = [
        &[],
        &["service"],
        &["route"],
        &["consumer"],
        &["service", "route"],
        &["service", "consumer"],
        &["route", "consumer"],
        &["service", "route", "consumer"],
    ];
    let mut plugins = Vec::new();
    for scope in scopes {
        let name = if scope.is_empty() { "global".to_owned() } else { scope.join("+") };
        let mut plugin = json!({"name": "request-termination", "config": {"message": name}});
        for field in scope {
            plugin[*field] = all[*field].clone();
        }
        let plugin = gateway.create("/plugins", plugin);
        plugins.push((name.clone(), format!("/plugins/{}", plugin["id"].as_str().expect("an id"))));
        assert_eq!(message("/", "of-c"), name);
    }
    assert_eq!(message("/", "of-d"), "service+route", "another consumer");
    assert_eq!(message("/other", "of-c"), "service+consumer", "another route");
    assert_eq!(message("/other", "of-d"), "service");
    assert_eq!(message("/bare", "of-c"), "global", "a route without a service and a key");
    assert_eq!(
        ask(&gateway, "/", "").must_be(503).json()["message"],
        "service+route",
        "the anonymous consumer has none of its own"
    );
    // One that is disabled takes no part; one that is deleted neither.
    let (name, last) = plugins.pop().expect("eight of them");
    assert_eq!(message("/", "of-c"), name);
    gateway.patch(&last, json!({"enabled": false}));
    assert_eq!(message("/", "of-c"), plugins.last().expect("seven left").0);
    while let Some((_, path)) = plugins.pop() {
        gateway.admin("DELETE", &path, None).must_be(204);
        let left = plugins.last().map_or("none", |(name, _)| name.as_str());
        assert_eq!(message("/", "of-c"), left);
    }
}
