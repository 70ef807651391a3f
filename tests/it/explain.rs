//! `POST /explain` and `ringway explain`: what is told is what happens.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

fn flavored(flavor: &str) -> Gateway {
    Gateway::with(Driver::any(), &[("router_flavor", flavor)])
}

fn explain(gateway: &Gateway, request: Value) -> Value {
    gateway.admin("POST", "/explain", Some(&request)).must_be(200).json()
}

fn candidate<'a>(explained: &'a Value, name: &str) -> &'a Value {
    let list = explained["candidates"].as_array().expect("a list");
    list.iter().find(|candidate| candidate["name"] == name).unwrap_or_else(|| panic!("{name} is not in {explained}"))
}

/// Sends the request that was explained; what the upstream received, without what differs from request to request.
fn received(gateway: &Gateway, upstream: &Peer, request: &str) -> Vec<String> {
    gateway.connect().ask(request).must_be(200);
    upstream
        .arrived()
        .head
        .split("\r\n")
        .filter(|line| !line.is_empty() && !line.starts_with("X-Kong-Request-Id"))
        .map(str::to_owned)
        .collect()
}

fn told(explained: &Value) -> Vec<String> {
    let upstream = &explained["upstream"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let first = format!("{} {} HTTP/1.1", text(&upstream["method"]), text(&upstream["uri"]));
    let headers = upstream["headers"].as_array().expect("a list").iter();
    let lines = headers.map(|header| format!("{}: {}", text(&header[0]), text(&header[1])));
    [first].into_iter().chain(lines).filter(|line| !line.starts_with("X-Kong-Request-Id")).collect()
}

#[test]
fn the_request_that_is_explained_is_the_one_that_is_sent() {
    for (flavor, route) in [
        (
            "traditional_compatible",
            json!({"hosts": ["*.shop.test"], "paths": ["~/cart/(?<id>[0-9]+)"], "methods": ["GET"]}),
        ),
        (
            "traditional",
            json!({"hosts": ["*.shop.test"], "paths": ["~/cart/(?<id>[0-9]+)"], "methods": ["GET"], "path_handling": "v1"}),
        ),
        (
            "expressions",
            json!({"expression": r##"http.path ~ r#"^/cart/(?<id>[0-9]+)"# && lower(http.host) =^ ".shop.test""##}),
        ),
    ] {
        let upstream = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let gateway = flavored(flavor);
        gateway.service("s", upstream.port, json!({"path": "/base"}));
        let mut route = route;
        route["name"] = json!("cart");
        gateway.create("/services/s/routes", route);
        gateway.create("/services/s/routes", json!({"name": "other", "paths": ["/other"]}));
        let explained = explain(
            &gateway,
            json!({"method": "GET", "host": "a.shop.test:77", "path": "/cart/12/./x?q=%20",
                   "headers": {"X-One": ["1", "2"], "Connection": "x-gone", "X-Gone": "1"}}),
        );
        assert_eq!(explained["route"]["name"], "cart", "{flavor} {explained}");
        assert_eq!(explained["answer"], json!({"by": "upstream"}), "{flavor}");
        let condition = &candidate(&explained, "other")["failed"];
        assert_eq!(condition, &json!({"condition": "paths", "wanted": ["/other"], "given": "/cart/12/x"}), "{flavor}");
        assert_eq!(explained["route"]["captures"], json!({"id": "12"}), "{flavor}");
        if flavor != "expressions" {
            assert_eq!(explained["route"]["matched"]["hosts"], "*.shop.test", "{flavor}");
        }
        let sent = received(
            &gateway,
            &upstream,
            "GET /cart/12/./x?q=%20 HTTP/1.1\r\nHost: a.shop.test:77\r\nConnection: x-gone\r\nX-Gone: 1\r\nX-One: 1\r\nX-One: 2\r\n\r\n",
        );
        assert_eq!(told(&explained), sent, "{flavor}");
    }
}

#[test]
fn each_candidate_says_the_first_condition_that_it_failed() {
    let gateway = flavored("traditional_compatible");
    gateway.service("s", 9, json!({}));
    gateway.service("off", 9, json!({"enabled": false}));
    let add = |service: &str, name: &str, mut fields: Value| {
        fields["name"] = json!(name);
        gateway.create(&format!("/services/{service}/routes"), fields);
    };
    add("s", "winner", json!({"hosts": ["a.test"], "paths": ["/a"]}));
    add("s", "shorter", json!({"hosts": ["a.test"], "paths": ["/"]}));
    add("s", "fewer", json!({"paths": ["/a"]}));
    add("s", "post", json!({"hosts": ["a.test"], "paths": ["/a"], "methods": ["POST"]}));
    add("s", "header", json!({"hosts": ["a.test"], "paths": ["/a"], "headers": {"X-V": ["2"]}}));
    add("s", "host", json!({"hosts": ["b.test"], "paths": ["/a"]}));
    add("off", "off", json!({"hosts": ["a.test"], "paths": ["/a/b"]}));
    let explained = explain(&gateway, json!({"host": "a.test", "path": "/a/b", "headers": {"x-v": "1"}}));
    assert_eq!(explained["route"]["name"], "winner");
    assert_eq!(explained["route"]["matched"], json!({"hosts": "a.test", "paths": "/a"}));
    let of = |name: &str| candidate(&explained, name);
    assert_eq!(of("shorter")["outranked_by"], "path_bytes");
    assert_eq!(of("fewer")["outranked_by"], "attributes");
    assert_eq!(of("post")["failed"], json!({"condition": "methods", "wanted": ["POST"], "given": "GET"}));
    assert_eq!(of("header")["failed"], json!({"condition": "headers.x-v", "wanted": ["2"], "given": ["1"]}));
    assert_eq!(of("host")["failed"], json!({"condition": "hosts", "wanted": ["b.test"], "given": "a.test"}));
    assert_eq!(of("off")["left_out"], "its service is disabled");
    let nothing = explain(&gateway, json!({"method": "PUT", "host": "c.test", "path": "/c"}));
    assert_eq!(nothing["route"], Value::Null);
    assert_eq!(
        nothing["answer"],
        json!({"by": "gateway", "status": 404, "message": "no Route matched with those values"})
    );
}

#[test]
fn the_age_of_a_route_decides_in_the_flavour_traditional() {
    let gateway = flavored("traditional");
    gateway.create("/routes", json!({"name": "older", "paths": ["/a"], "created_at": 1000}));
    gateway.create("/routes", json!({"name": "newer", "paths": ["/a"], "created_at": 2000}));
    let explained = explain(&gateway, json!({"path": "/a"}));
    assert_eq!(explained["route"]["name"], "older");
    assert_eq!(candidate(&explained, "newer")["outranked_by"], "created_at");
    assert_eq!(explained["answer"]["status"], 503);
}

#[test]
fn expressions_outrank_attributes_and_protocols_are_conditions() {
    let gateway = flavored("expressions");
    gateway.create("/routes", json!({"name": "said", "expression": r#"http.path ^= "/a""#, "priority": 3}));
    gateway.create("/routes", json!({"name": "set", "paths": ["/a"], "hosts": ["a.test"]}));
    gateway.create("/routes", json!({"name": "plain", "paths": ["/a"], "protocols": ["http"]}));
    let explained = explain(&gateway, json!({"host": "a.test", "path": "/a"}));
    assert_eq!(explained["route"]["name"], "said");
    assert_eq!(explained["route"]["order"], json!([{"by": "expression", "value": 1}, {"by": "priority", "value": 3}]));
    assert_eq!(candidate(&explained, "set")["outranked_by"], "expression");
    assert_eq!(candidate(&explained, "plain")["outranked_by"], "expression");
    let sealed = explain(&gateway, json!({"scheme": "https", "sni": "a.test", "host": "a.test", "path": "/a"}));
    assert_eq!(candidate(&sealed, "plain")["failed"]["condition"], "protocols");
}

#[test]
fn the_chain_tells_the_scope_of_each_plugin() {
    let gateway = flavored("traditional_compatible");
    gateway.proxy_to(9);
    gateway.create("/consumers", json!({"username": "ann"}));
    gateway.create("/plugins", json!({"name": "correlation-id"}));
    gateway.create("/services/s/plugins", json!({"name": "key-auth"}));
    gateway.create("/routes/r/plugins", json!({"name": "request-termination"}));
    gateway.create("/consumers/ann/plugins", json!({"name": "request-termination", "config": {"status_code": 418}}));
    let chain = |request: Value| -> Vec<(String, Value)> {
        let explained = explain(&gateway, request);
        let plugins = explained["plugins"].as_array().expect("a list").clone();
        let name = |scope: &Value| match scope.as_object() {
            None => scope.clone(),
            Some(parts) => parts.iter().map(|(kind, entity)| json!([kind, entity["name"]])).collect(),
        };
        plugins.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), name(&p["scope"]))).collect()
    };
    let step = |name: &str, scope: Value| (name.to_owned(), scope);
    let open = [
        step("correlation-id", json!("global")),
        step("key-auth", json!([["service", "s"]])),
        step("request-termination", json!([["route", "r"]])),
    ];
    assert_eq!(chain(json!({"path": "/x"})), open);
    let known = chain(json!({"path": "/x", "consumer": "ann"}));
    assert_eq!(known[2], step("request-termination", json!([["consumer", "ann"]])));
    let explained = explain(&gateway, json!({"path": "/x"}));
    assert_eq!(explained["plugins"][2]["depends_on_consumer"], true);
}

#[test]
fn what_pure_plugins_change_is_told_and_sent() {
    let upstream = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = flavored("traditional_compatible");
    gateway.proxy_with(upstream.port, json!({}), json!({"paths": ["~/users/(?<id>[0-9]+)"]}));
    let transformer = json!({
        "http_method": "POST",
        "replace": {"uri": "/people/$(uri_captures.id)"},
        "add": {"headers": ["x-new:1"], "querystring": ["a:b"]},
        "remove": {"headers": ["x-gone"]},
    });
    gateway.create("/plugins", json!({"name": "request-transformer", "config": transformer}));
    gateway.create("/plugins", json!({"name": "rate-limiting", "config": {"minute": 100, "policy": "local"}}));
    let explained = explain(&gateway, json!({"host": "a", "path": "/users/7?q=1", "headers": {"X-Gone": "1"}}));
    let access = |name: &str| {
        let plugins = explained["plugins"].as_array().expect("a list");
        plugins.iter().find(|plugin| plugin["name"] == name).expect("it is there")["access"].clone()
    };
    assert_eq!((access("request-transformer"), access("rate-limiting")), (json!("ran"), json!("not run")));
    assert!(explained["upstream"]["uri"].as_str().is_some_and(|uri| uri.starts_with("/people/7?")), "{explained}");
    let sent = received(&gateway, &upstream, "GET /users/7?q=1 HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n");
    assert_eq!(told(&explained), sent);
}

#[test]
fn a_pure_plugin_that_answers_is_named() {
    let gateway = flavored("traditional_compatible");
    gateway.proxy_to(9);
    gateway.create("/plugins", json!({"name": "ip-restriction", "config": {"deny": ["10.0.0.0/8"]}}));
    gateway.create("/plugins", json!({"name": "request-transformer", "config": {}}));
    let explained = explain(&gateway, json!({"path": "/", "client_ip": "10.1.1.1"}));
    assert_eq!(
        (&explained["answer"]["by"], &explained["answer"]["plugin"]),
        (&json!("plugin"), &json!("ip-restriction"))
    );
    assert_eq!((&explained["answer"]["status"], &explained["upstream"]), (&json!(403), &Value::Null));
    assert_eq!(explained["plugins"][1]["access"], "not reached");
    assert_eq!(explain(&gateway, json!({"path": "/"}))["answer"]["by"], "upstream");
}

#[test]
fn an_options_request_that_may_go_no_further_is_answered_here() {
    let gateway = flavored("traditional_compatible");
    gateway.proxy_to(9);
    let ask = |hops: &str| {
        explain(&gateway, json!({"method": "OPTIONS", "path": "/", "host": "a", "headers": {"Max-Forwards": hops}}))
    };
    assert_eq!((&ask("0")["answer"]["by"], &ask("0")["answer"]["status"]), (&json!("gateway"), &json!(200)));
    assert!(told(&ask("3")).contains(&"Max-Forwards: 2".to_owned()));
}

#[test]
fn gates_and_refusals_are_answers_of_the_gateway() {
    let gateway = flavored("traditional_compatible");
    gateway.service("s", 9, json!({}));
    gateway.create("/services/s/routes", json!({"paths": ["/tls"], "protocols": ["https"]}));
    let answer = |request: Value| explain(&gateway, request)["answer"].clone();
    assert_eq!(
        answer(json!({"path": "/tls"})),
        json!({"by": "gateway", "status": 426, "message": "Please use HTTPS protocol"})
    );
    assert_eq!(answer(json!({"path": "/tls", "scheme": "https"})), json!({"by": "upstream"}));
    assert_eq!(answer(json!({"path": "/../../x"}))["status"], 400);
    assert_eq!(answer(json!({"path": "/x", "host": "a b"}))["status"], 400);
    assert_eq!(answer(json!({"path": "/x", "method": "TRACE"}))["status"], 405);
}

#[test]
fn the_choice_is_the_next_one_and_asking_moves_no_turn() {
    let one = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    let two = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    let gateway = Gateway::with(Driver::any(), &[("workers", "1")]);
    gateway.create("/upstreams", json!({"name": "pool"}));
    for port in [one.port, two.port] {
        gateway.create("/upstreams/pool/targets", json!({"target": format!("127.0.0.1:{port}")}));
    }
    gateway.create("/services", json!({"name": "s", "host": "pool"}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    for _ in 0..6 {
        let balancer = || explain(&gateway, json!({"path": "/"}))["balancer"].clone();
        let told = balancer();
        assert_eq!(told, balancer(), "a question changes nothing");
        let choice = if told["choice"]["address"] == format!("127.0.0.1:{}", one.port) { "one" } else { "two" };
        assert_eq!(told["after_failures"].as_array().map(Vec::len), Some(1));
        assert_eq!((&told["upstream"]["name"], &told["algorithm"]), (&json!("pool"), &json!("round-robin")));
        assert_eq!(gateway.get("/").text(), choice);
    }
}

#[test]
fn a_question_that_makes_no_sense_names_what_is_wrong() {
    let gateway = flavored("traditional_compatible");
    for (request, field, text) in [
        (json!({"method": "G T"}), "method", "not a method"),
        (json!({"method": 7}), "method", "expected a string"),
        (json!({"scheme": "ftp"}), "scheme", "expected one of: http, https"),
        (json!({"path": "x"}), "path", "should begin with / and be percent-encoded, with its query if it has one"),
        (json!({"headers": ["a"]}), "headers", "expected a map"),
        (json!({"headers": {"a b": "c"}}), "headers", "'a b' is not a header name"),
        (
            json!({"headers": {"a": "b\r\nc: d"}}),
            "headers",
            "'a': expected a string, or a list of strings, of one line",
        ),
        (json!({"client_ip": "here"}), "client_ip", "expected an IP address"),
        (json!({"sni": "a.test"}), "sni", "only https has a server name"),
        (json!({"port": 0}), "port", "value should be between 1 and 65535"),
        (json!({"consumer": "nobody"}), "consumer", "there is no consumer 'nobody'"),
        (json!({"nonsense": 1}), "nonsense", "unknown field"),
    ] {
        let answer = gateway.admin("POST", "/explain", Some(&request)).must_be(400).json();
        assert_eq!(answer["fields"][field], text, "{request} {answer}");
        assert_eq!(answer["name"], "schema violation");
    }
}

#[test]
fn the_command_prints_what_a_reader_needs() {
    let upstream = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = flavored("traditional_compatible");
    gateway.proxy_with(upstream.port, json!({}), json!({"hosts": ["a.test"], "headers": {"x-v": ["1"]}}));
    let run = |arguments: &[&str]| {
        let output = gateway.cli(&[&["explain"], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = run(&["GET", "http://a.test/x?y=1", "-H", "X-V: 1"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("route     r ("), "{text}");
    for wanted in ["matched   hosts: a.test\n", "/x?y=1\n", "X-Forwarded-Host: a.test\n", "answer    by the upstream\n"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    let (code, text, _) = run(&["GET", "http://a.test/x"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("headers.x-v: wants 1, given \n") && text.contains("answer    404"), "{text}");
    let (code, _, error) = run(&["GET", "ftp://a.test/x"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected one of: http, https"), "{error}");
}
