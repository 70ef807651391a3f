//! The access log: one line for each request, in the documented form (spec/proxying.md section 18).

use regex::Regex;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

#[test]
fn the_access_log_has_one_line_for_each_request() {
    let peer = Peer::hello();
    // One worker, so that the lines come in the order of the requests.
    let gateway = Gateway::with(Driver::any(), &[("workers", "1")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    let fields =
        "Host: a\r\nReferer: http://r/\"x\"\r\nUser-Agent: curl/8\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\n";
    let id = client.ask(format!("GET /a?b=c HTTP/1.1\r\n{fields}\r\n")).must_be(200);
    let id = id.header("x-kong-request-id").expect("an id").to_owned();
    client.send("HEAD /second HTTP/1.0\r\n\r\nnot a request");
    client.head();
    gateway.connect().ask("nonsense\r\n\r\n").must_be(400);
    let path = gateway.prefix().join("logs/access.log");
    let lines = eventually("three lines", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text.lines().count() >= 3).then(|| text.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    let time = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]";
    for (line, want) in lines.iter().zip([
        format!(r#"^127\.0\.0\.1 - user {time} "GET /a\?b=c HTTP/1\.1" 200 5 "http://r/\\x22x\\x22" "curl/8" kong_request_id: "{id}"$"#),
        format!(r#"^127\.0\.0\.1 - - {time} "HEAD /second HTTP/1\.0" 200 0 "-" "-" kong_request_id: "[0-9a-f]{{32}}"$"#),
        format!(r#"^127\.0\.0\.1 - - {time} ".*" 400 \d+ "-" "-" kong_request_id: "[0-9a-f]{{32}}"$"#),
    ]) {
        assert!(Regex::new(&want).expect("a pattern").is_match(line), "{line}\nis not {want}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(!lines.join("").contains("secret"));
}

#[test]
fn no_line_is_lost_at_the_end_of_the_node() {
    let peer = Peer::hello();
    let mut gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    for _ in 0..20 {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10));
        (0..10).for_each(|_| drop(client.response().must_be(200)));
    }
    gateway.signal(libc::SIGTERM);
    assert!(gateway.wait().success());
    let text = std::fs::read_to_string(gateway.prefix().join("logs/access.log")).expect("a log");
    assert_eq!(text.lines().filter(|line| line.contains("\"GET / HTTP/1.1\" 200 5 ")).count(), 200);
}

#[test]
fn logs_that_were_moved_away_are_begun_anew_on_usr1() {
    let peer = Peer::hello();
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    let log = |name: &str| gateway.prefix().join("logs").join(name);
    let lines = |name: &str| std::fs::read_to_string(log(name)).unwrap_or_default().lines().count();
    gateway.get("/");
    eventually("the first line", || (lines("access.log") == 1).then_some(()));
    for name in ["access.log", "error.log"] {
        std::fs::rename(log(name), log(&format!("{name}.1"))).expect("a log can be moved");
    }
    gateway.signal(libc::SIGUSR1);
    eventually("a new error log", || log("error.log").exists().then_some(()));
    gateway.get("/");
    eventually("the second line", || (lines("access.log") == 1).then_some(()));
    assert_eq!(lines("access.log.1"), 1);
}

#[test]
fn a_log_has_the_format_that_the_operator_declared() {
    let peer = Peer::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\nhello");
    let format = r#"lines escape=json '{"m":"$request_method","u":"$uri","q":"$arg_x","s":$status,"t":$request_time,'
        '"up":"$upstream_addr","us":"$upstream_status","ut":"$upstream_response_time","ct":"$upstream_connect_time",'
        '"h":"$http_x_one","e":"$sent_http_etag","n":"$connection_requests","b":$bytes_sent,"l":$request_length,'
        '"id":"$kong_request_id","c":"$request_completion"}'; short '$remote_addr $request $status'"#;
    let format = format.replace('\n', " ");
    let gateway = Gateway::with(
        Driver::any(),
        &[
            ("workers", "1"),
            ("log_format", &format),
            ("proxy_access_log", "logs/access.log lines"),
            ("admin_access_log", "logs/admin.log short"),
        ],
    );
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.ask("GET /none HTTP/1.0\r\n\r\n").must_be(200);
    let mut client = gateway.connect();
    let response = client.ask("GET /a%20b?x=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx_one: \"2\"\r\n\r\n").must_be(200);
    let sent = response.head.len() + 5;
    let path = gateway.prefix().join("logs/access.log");
    let line = eventually("two lines", || std::fs::read_to_string(&path).ok()?.lines().nth(1).map(str::to_owned));
    let shown: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for (name, want) in [
        ("m", serde_json::json!("GET")),
        ("u", "/a b".into()),
        ("q", "1".into()),
        ("s", 200.into()),
        ("up", format!("127.0.0.1:{}", peer.port).into()),
        ("us", "200".into()),
        ("h", "1, \"2\"".into()),
        ("e", "\"e\"".into()),
        ("n", "1".into()),
        ("b", sent.into()),
        ("l", "GET /a%20b?x=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx_one: \"2\"\r\n\r\n".len().into()),
        ("id", response.header("x-kong-request-id").expect("an id").into()),
        ("c", "OK".into()),
    ] {
        assert_eq!(shown[name], want, "{name} in {line}");
    }
    assert!(shown["t"].is_number() && shown["ut"].as_str().is_some_and(|text| text.starts_with("0.0")), "{line}");
    // Over the unix socket of the tests.
    let log = std::fs::read_to_string(gateway.prefix().join("logs/admin.log")).expect("a log");
    assert!(log.contains("unix: POST /services HTTP/1.1 201\n"), "{log}");
}

#[test]
fn a_log_format_that_cannot_be_written_keeps_the_node_from_starting() {
    for (format, log, want) in [
        ("f '$nobody'", "a.log f", "there is no variable $nobody"),
        ("f '$status'", "a.log g", "there is no log format \"g\"; there are: f, kong_log_format, combined"),
    ] {
        let mut gateway = Gateway::unstarted(Driver::any(), &[("log_format", format), ("proxy_access_log", log)]);
        gateway.spawn();
        assert!(!gateway.wait().success());
        assert!(gateway.log().contains(want), "{}", gateway.log());
    }
}
