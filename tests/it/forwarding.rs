//! What a request and its answer carry when they have passed through (spec/proxying.md sections 2 to 7).

use serde_json::json;

use crate::harness::Driver;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Arrived;
use crate::harness::peer::Peer;

on_both_drivers!(
    the_upstream_gets_the_headers_of_the_client_and_ours,
    a_message_goes_no_further_than_its_hop_by_hop_fields_say,
    what_we_add_cannot_be_stripped_by_naming_it,
    the_client_gets_the_headers_of_the_upstream_and_ours,
    pipelined_requests_are_answered_in_order_over_one_upstream_connection,
    a_connection_is_kept_or_closed_as_the_client_says,
    http_1_0_clients_get_no_chunks_and_no_kept_connection_unasked,
    answers_without_a_body_have_none_and_keep_the_connection,
    hosts_and_paths_are_those_of_route_and_service,
);

const TOKEN: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));

fn behind(driver: Driver, peer: &Peer, settings: &[(&str, &str)]) -> Gateway {
    let gateway = Gateway::with(driver, settings);
    gateway.proxy_to(peer.port);
    gateway
}

/// Names and values that are not ours, in order.
fn foreign(arrived: &Arrived) -> Vec<(&str, &str)> {
    let ours = ["host", "connection", "via", "x-real-ip", "x-kong-request-id"];
    let is_ours = |name: &str| {
        let name = name.to_ascii_lowercase();
        ours.contains(&name.as_str()) || name.starts_with("x-forwarded-")
    };
    let all = arrived.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    all.filter(|(name, _)| !is_ours(name)).collect()
}

fn the_upstream_gets_the_headers_of_the_client_and_ours(driver: Driver) {
    let peer = Peer::hello();
    let gateway = behind(driver, &peer, &[]);
    let request = "GET /a/./b?x=1&y=%20 HTTP/1.1\r\nHost: Example.test:8080\r\nX-One: 1\r\nX-Two: 2\r\nX-One: 3\r\n\
                   under_score: kept\r\nX-Kong-Request-Id: forged\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 9.9.9.9\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nVia: 1.1 before\r\n\r\n";
    let answer = gateway.connect().ask(request).must_be(200);
    let arrived = peer.arrived();
    assert_eq!(arrived.line(), "GET /a/b?x=1&y=%20 HTTP/1.1");
    let want = [("X-One", "1"), ("X-Two", "2"), ("X-One", "3"), ("under_score", "kept")];
    assert_eq!(foreign(&arrived), want);
    let port = gateway.proxy.to_string();
    for (name, want) in [
        ("host", Some(format!("127.0.0.1:{}", peer.port))),
        ("connection", Some("keep-alive".into())),
        ("via", Some(format!("1.1 before, 1.1 {TOKEN}"))),
        ("x-forwarded-for", Some("9.9.9.9, 127.0.0.1".into())),
        ("x-forwarded-proto", Some("http".into())),
        ("x-forwarded-host", Some("example.test".into())),
        ("x-forwarded-port", Some(port)),
        ("x-forwarded-path", Some("/a/./b".into())),
        ("x-forwarded-prefix", None),
        ("x-real-ip", Some("127.0.0.1".into())),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(arrived.header(name), want.as_deref(), "{name} in {}", arrived.head);
    }
    let id = arrived.header("x-kong-request-id").expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    assert_eq!(answer.header("x-kong-request-id"), Some(id));
    gateway.get("/");
    assert_ne!(peer.arrived().header("x-kong-request-id"), Some(id), "each request has its own");
}

#[test]
fn a_trusted_peer_is_believed_about_the_client() {
    let peer = Peer::hello();
    let trust = [("trusted_ips", "127.0.0.1,172.16.0.1,192.168.0.1"), ("real_ip_header", "X-Forwarded-For")];
    let list = "127.0.0.1, 10.0.0.1, 192.168.0.1, 127.0.0.1, 172.16.0.1";
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {list}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h.test\r\n\
         X-Forwarded-Port: 444\r\nX-Forwarded-Path: /p\r\nX-Forwarded-Prefix: /q\r\n\r\n"
    );
    for (recursive, want) in [("on", "10.0.0.1"), ("off", "172.16.0.1")] {
        let gateway = behind(Driver::any(), &peer, &[trust[0], trust[1], ("real_ip_recursive", recursive)]);
        gateway.connect().ask(&request).must_be(200);
        let arrived = peer.arrived();
        assert_eq!(arrived.header("x-real-ip"), Some(want), "real_ip_recursive = {recursive}");
        assert_eq!(arrived.header("x-forwarded-for"), Some(format!("{list}, 127.0.0.1").as_str()));
        for (name, want) in [("proto", "https"), ("host", "h.test"), ("port", "444"), ("path", "/p"), ("prefix", "/q")]
        {
            assert_eq!(arrived.header(&format!("x-forwarded-{name}")), Some(want), "{name}");
        }
    }
}

fn a_message_goes_no_further_than_its_hop_by_hop_fields_say(driver: Driver) {
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
                  X-Accel-Buffering: no\r\nTrailer: X-T\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n";
    let peer = Peer::answering(answer);
    let gateway = behind(driver, &peer, &[]);
    let mut client = gateway.connect();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 3\r\nProxy: x\r\n\
                   Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTE: gzip\r\nTrailer: X-T\r\nX-Kept: 1\r\n\
                   Proxy-Authorization: kept\r\n\r\n";
    let answer = client.ask(request).must_be(200);
    let arrived = peer.arrived();
    assert_eq!(foreign(&arrived), [("Trailer", "X-T"), ("X-Kept", "1"), ("Proxy-Authorization", "kept")]);
    for name in ["x-gone", "keep-alive", "upgrade", "x-accel-buffering", "trailer"] {
        assert_eq!(answer.header(name), None, "{name} in {}", answer.head);
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").must_be(200);
    assert_eq!(peer.arrived().header("te"), Some("trailers"));
    assert_eq!(answer.header("trailer"), Some("X-T"), "to a client that asks for trailers");
}

fn what_we_add_cannot_be_stripped_by_naming_it(driver: Driver) {
    let peer = Peer::hello();
    let gateway = behind(driver, &peer, &[]);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, X-Forwarded-For, X-Forwarded-Host, X-Real-IP, \
                   Via, X-Kong-Request-Id, X-Forwarded-Proto\r\nContent-Length: 2\r\n\r\nhi";
    gateway.connect().ask(request).must_be(200);
    let arrived = peer.arrived();
    assert_eq!(arrived.body, b"hi");
    for name in
        ["host", "content-length", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via", "x-kong-request-id"]
    {
        assert!(arrived.header(name).is_some(), "{name} is gone: {}", arrived.head);
    }
}

fn the_client_gets_the_headers_of_the_upstream_and_ours(driver: Driver) {
    let answer = "HTTP/1.1 201 Made Here\r\nServer: own\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nVia: 1.0 inner\r\n\
                  Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Kong-Request-Id: forged\r\nContent-Type: text/html\r\n\
                  Content-Length: 2\r\n\r\nok";
    let peer = Peer::answering(answer);
    let gateway = behind(driver, &peer, &[]);
    let answer = gateway.get("/").must_be(201);
    assert!(answer.head.starts_with("HTTP/1.1 201 Made Here\r\n"), "{}", answer.head);
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2"]);
    for (name, want) in [
        ("server", "own"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-type", "text/html; charset=UTF-8"),
        ("content-length", "2"),
        ("connection", "close"),
        ("via", &format!("1.0 inner, 1.1 {TOKEN}")),
    ] {
        assert_eq!(answer.header(name), Some(want), "{name} in {}", answer.head);
    }
    assert_ne!(answer.header("x-kong-request-id"), Some("forged"));
    assert_eq!(answer.header("x-kong-response-latency"), None);
    assert_eq!(answer.header("x-kong-upstream-status"), None);
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        assert!(answer.header(name).is_some_and(|ms| ms.parse::<u64>().is_ok()), "{name} in {}", answer.head);
    }
}

#[test]
fn the_headers_setting_says_what_is_added() {
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nVia: 1.0 inner\r\nContent-Length: 0\r\n\r\n");
    let gateway = behind(Driver::any(), &peer, &[("headers", "off"), ("headers_upstream", "off")]);
    let answer = gateway.get("/").must_be(200);
    let names: Vec<_> = answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("x-kong") || *name == "server").count(), 0, "{names:?}");
    assert_eq!(peer.arrived().header("x-kong-request-id"), None);
    let gateway = behind(Driver::any(), &peer, &[("headers", "X-Kong-Upstream-Status, Via")]);
    let answer = gateway.get("/").must_be(200);
    assert_eq!(answer.header("x-kong-upstream-status"), Some("200"));
    assert_eq!(answer.header("via"), Some(format!("1.0 inner, 1.1 {TOKEN}").as_str()));
    assert_eq!(answer.header("server"), None);
}

#[test]
fn an_answer_of_the_gateway_itself_is_marked_as_such() {
    let gateway = Gateway::start(Driver::any());
    let answer = gateway.get("/nowhere").must_be(404);
    assert_eq!(answer.header("server"), Some(TOKEN));
    assert_eq!(answer.header("via"), None);
    assert_eq!(answer.header("x-kong-proxy-latency"), None);
    assert!(answer.header("x-kong-response-latency").is_some(), "{}", answer.head);
    assert!(answer.header("date").is_some(), "{}", answer.head);
}

#[test]
fn error_pages_have_the_format_that_the_client_accepts() {
    let gateway = Gateway::start(Driver::any());
    let ask = |accept: &str| {
        let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        let answer = gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n")).must_be(404);
        let id = answer.header("x-kong-request-id").expect("an id").to_owned();
        let format = answer.header("content-type").expect("a type").to_owned();
        (format, answer.text().replace(&id, "<R>"))
    };
    let message = "no Route matched with those values";
    let json = format!("{{\n  \"message\":\"{message}\",\n  \"request_id\":\"<R>\"\n}}");
    let html = format!(
        "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    \
         <h1>Error</h1>\n    <p>{message}.</p>\n    <p>request_id: <R></p>\n  </body>\n</html>\n"
    );
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  <requestid><R></requestid>\n</error>\n"
    );
    let plain = format!("{message}\nrequest_id: <R>\n");
    for (accept, kind, body) in [
        ("", "application/json", &json),
        ("*/*", "application/json", &json),
        ("text/html", "text/html", &html),
        ("application/xml", "application/xml", &xml),
        ("text/plain;q=0.5, text/html;q=0.9", "text/html", &html),
        ("text/*", "text/plain", &plain),
        ("image/png", "application/json", &json),
    ] {
        let got = ask(accept);
        assert_eq!((got.0.as_str(), &got.1), (format!("{kind}; charset=utf-8").as_str(), body), "Accept: {accept}");
    }
}

fn pipelined_requests_are_answered_in_order_over_one_upstream_connection(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let path = arrived.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let body = format!("{path}{}", String::from_utf8_lossy(&arrived.body));
            accepted.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let gateway = behind(driver, &peer, &[]);
    let mut client = gateway.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for want in ["/1", "/2abc", "/3xyz", "/4"] {
        assert_eq!(client.response().must_be(200).text(), want);
    }
    for n in 0..20 {
        assert_eq!(client.ask(format!("GET /k{n} HTTP/1.1\r\nHost: a\r\n\r\n")).text(), format!("/k{n}"));
    }
    assert_eq!(peer.connections(), 1, "the upstream's connection is kept");
}

fn a_connection_is_kept_or_closed_as_the_client_says(driver: Driver) {
    let peer = Peer::hello();
    let gateway = behind(driver, &peer, &[]);
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: keep-alive, close\r\n", false),
    ] {
        let mut client = gateway.connect();
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        let answer = client.ask(&request).must_be(200);
        let want = if kept { "keep-alive" } else { "close" };
        assert_eq!(answer.header("connection"), Some(want), "{request}");
        match kept {
            true => assert_eq!(client.ask(&request).status, 200, "{request}"),
            false => client.must_end(),
        }
    }
}

fn http_1_0_clients_get_no_chunks_and_no_kept_connection_unasked(driver: Driver) {
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let gateway = behind(driver, &peer, &[]);
    let mut client = gateway.connect();
    let answer = client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").must_be(200);
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!((answer.text().as_str(), answer.truncated), ("hello", false));
    let arrived = peer.arrived();
    assert_eq!(arrived.line(), "GET / HTTP/1.1");
    assert_eq!(arrived.header("via"), Some(format!("1 {TOKEN}").as_str()));
    assert_eq!(arrived.header("x-forwarded-host"), Some("kong"), "there was no Host");
}

fn answers_without_a_body_have_none_and_keep_the_connection(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(match arrived.line().split(' ').nth(1).unwrap_or_default() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
                "/head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            });
        }
    });
    let gateway = behind(driver, &peer, &[]);
    let mut client = gateway.connect();
    for (method, path, length) in [
        ("GET", "/204", None),
        ("GET", "/304", Some("7")),
        ("HEAD", "/head", Some("1000000")),
        ("HEAD", "/head-chunked", None),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.header("content-length"), length, "{path}: {}", head.head);
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "hello", "after {path}");
    }
    client.send("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    gateway.admin("DELETE", "/routes/r", None).must_be(204);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().header("content-length").is_some_and(|length| length != "0"), "that of the error page");
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
}

fn hosts_and_paths_are_those_of_route_and_service(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::start(driver);
    gateway.service("plain", peer.port, json!({}));
    gateway.service("deep", peer.port, json!({"path": "/base"}));
    let route = |service: &str, path: &str, strip: bool, preserve: bool| {
        let entity = json!({"paths": [path], "strip_path": strip, "preserve_host": preserve});
        gateway.create(&format!("/services/{service}/routes"), entity);
    };
    route("plain", "/stripped", true, false);
    route("plain", "/whole", false, true);
    route("deep", "/deep", true, false);
    route("deep", "/both", false, false);
    route("plain", "~/regex/(?<n>\\d+)", true, false);
    let own = format!("127.0.0.1:{}", peer.port);
    for (path, line, host, prefix) in [
        ("/stripped/x?q=1", "/x?q=1", own.as_str(), Some("/stripped")),
        ("/stripped", "/", &own, Some("/stripped")),
        ("/whole/x", "/whole/x", "Client.test:99", None),
        ("/deep/x", "/base/x", &own, Some("/deep")),
        ("/deep", "/base", &own, Some("/deep")),
        ("/both/x", "/base/both/x", &own, None),
        ("/regex/42/y", "/y", &own, Some("/regex/42")),
    ] {
        gateway.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: Client.test:99\r\n\r\n")).must_be(200);
        let arrived = peer.arrived();
        assert_eq!(arrived.line(), format!("GET {line} HTTP/1.1"), "{path}");
        assert_eq!(arrived.header("host"), Some(host), "{path}");
        assert_eq!(arrived.header("x-forwarded-prefix"), prefix, "{path}");
        assert_eq!(arrived.header("x-forwarded-path"), Some(path.split('?').next().unwrap_or_default()), "{path}");
    }
}
