//! The Admin API asked directly and over its sockets: the ways of a request that no recording holds.

use crate::control::admin::Admin;
use crate::control::admin::Surface;
use crate::control::admin::server::Bound;
use crate::control::admin::server::Listen;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::admin::testing::ask;
use crate::control::admin::testing::get;
use crate::control::admin::testing::json;
use serde_json::Map;
use serde_json::Value;
use serde_json::json as value;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

async fn admin() -> (TempDir, Admin<Fake>) {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    (directory, testing::admin(store))
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const POST: &str = "POST /services/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
    Content-Length: 38\r\nConnection: close\r\n\r\nname=moesif-service&url=http://h:9001/";
const GET: &str = "GET /services/moesif-service HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn tcp_and_unix_sockets_answer_and_end_in_order() {
    let (directory, admin) = admin().await;
    let path = directory.path().join("admin.sock");
    let listen = [
        (Listen::Tcp("127.0.0.1:0".parse().unwrap()), Surface::Admin),
        (Listen::Unix(path.clone()), Surface::AdminSocket),
        (Listen::Tcp("127.0.0.1:0".parse().unwrap()), Surface::Status),
    ];
    let admin = Arc::new(admin);
    let bound = Bound::bind(&listen).unwrap();
    let addrs = bound.local_addrs().unwrap();
    let [(Listen::Tcp(tcp), _), (Listen::Unix(_), _), (Listen::Tcp(status), _)] = &addrs[..] else {
        panic!("{addrs:?}");
    };
    let server = bound.serve(admin.clone(), None);
    let created = exchange(tokio::net::TcpStream::connect(tcp).await.unwrap(), POST).await;
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
    assert!(created.contains("x-ringway-config-version: 1\r\n"), "{created}");
    assert!(created.contains(concat!("server: ringway/", env!("CARGO_PKG_VERSION"))), "{created}");

    let both = "HEAD /services/moesif-service HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string() + GET;
    let answers = exchange(tokio::net::TcpStream::connect(tcp).await.unwrap(), &both).await;
    let (head, whole) = answers.split_once("\r\n\r\n").unwrap();
    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "HEAD has no body and keeps the connection: {answers}");
    let body = whole.split_once("\r\n\r\n").unwrap().1;
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answers}");

    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shown = exchange(tokio::net::UnixStream::connect(&path).await.unwrap(), GET).await;
    assert!(shown.contains("\"host\":\"h\",\"port\":9001"), "{shown}");

    let ready = "GET /status/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(tokio::net::TcpStream::connect(status).await.unwrap(), ready).await;
    assert!(answer.contains("{\"message\":\"ready\"}"), "{answer}");
    let answer = exchange(tokio::net::TcpStream::connect(status).await.unwrap(), GET).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "the status listener shows no configuration: {answer}");

    let taken = Bound::bind(&[(Listen::Tcp(*tcp), Surface::Admin)]).err().unwrap();
    assert!(taken.to_string().contains(&format!("cannot listen on {tcp}")), "{taken}");
    let taken = Bound::bind(&[(Listen::Unix(path.clone()), Surface::AdminSocket)]).err().unwrap();
    assert!(taken.to_string().contains("another process is listening"), "{taken}");
    server.stop(Duration::from_secs(1)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn bodies_larger_than_the_limit_are_refused() {
    let (_directory, admin) = admin().await;
    let listen = [(Listen::Tcp("127.0.0.1:0".parse().unwrap()), Surface::Admin)];
    let bound = Bound::bind(&listen).unwrap();
    let addrs = bound.local_addrs().unwrap();
    let [(Listen::Tcp(address), _)] = &addrs[..] else {
        panic!();
    };
    let _server = bound.serve(Arc::new(admin), None);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10485761\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn what_does_not_compile_is_a_violation_of_its_field() {
    let (_directory, admin) = admin().await;
    let (status, body) = json(&admin, "POST", "/routes", value!({ "paths": ["/refused"] })).await;
    assert_eq!(status, 400);
    assert_eq!(body["fields"], value!({ "paths": ["does not compile"] }));
    assert_eq!(body["message"], "schema violation (paths.1: does not compile)");
    assert_eq!(get(&admin, "/routes").await.1["data"], value!([]));
}

#[tokio::test]
async fn tutorials_work_by_name_as_by_id() {
    let (_directory, admin) = admin().await;
    let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    let post = async |path: &str, body: &str| {
        let reply = ask(&admin, "POST", path, form, body).await;
        assert_eq!(reply.status, 201, "{path} {body}: {}", reply.body);
        serde_json::from_str::<Value>(&reply.body).unwrap()
    };
    let service = post("/services/", "name=moesif-service&url=http://localhost:9001").await;
    let route = post("/routes", &format!("paths[]=/profile&service.id={}", service["id"].as_str().unwrap())).await;
    let id = route["id"].as_str().unwrap();
    let patched = ask(&admin, "PATCH", &format!("/routes/{id}"), form, "strip_path=false").await;
    assert!(patched.body.contains("\"strip_path\":false"));
    post(&format!("/routes/{id}/plugins"), "name=key-auth").await;
    post("/consumers", "username=moesif").await;
    let key = post("/consumers/moesif/key-auth", "").await;
    assert_eq!(key["key"].as_str().unwrap().len(), 32);
    let upstream = post("/upstreams", "name=localhost").await;
    post(&format!("/upstreams/{}/targets", upstream["id"].as_str().unwrap()), "target=localhost:9001").await;
    post("/upstreams/localhost/targets", "target=localhost:9002").await;
    let (_, listed) = get(&admin, "/upstreams/localhost/targets").await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let (status, body) = get(&admin, "/upstreams/localhost/targets/localhost:9002").await;
    assert_eq!((status, &body["target"]), (200, &value!("localhost:9002")));
}

#[tokio::test]
async fn a_plugin_must_share_a_protocol_with_its_route() {
    let (_directory, admin) = admin().await;
    let route = value!({ "name": "t", "protocols": ["tcp"], "sources": [{ "ip": "1.2.3.4" }] });
    assert_eq!(json(&admin, "POST", "/routes", route).await.0, 201);
    let plugin = value!({ "name": "correlation-id", "protocols": ["http"] });
    let (status, body) = json(&admin, "POST", "/routes/t/plugins", plugin).await;
    assert_eq!((status, &body["fields"]["protocols"]), (400, &value!("must match the associated route's protocols")));
    let silent = value!({ "name": "correlation-id" });
    assert_eq!(json(&admin, "POST", "/routes/t/plugins", silent).await.0, 201);
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_cannot_change_anything() {
    let (_directory, admin) = admin().await;
    let headers: &[(&str, &str)] = &[("origin", "http://evil.test"), ("content-type", "application/json")];
    let reply = ask(&admin, "POST", "/consumers", headers, "{\"username\":\"x\"}").await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("http://evil.test"), "{}", reply.body);
}

#[tokio::test]
async fn a_body_is_not_read_for_a_request_that_is_refused_by_its_head() {
    let (_directory, admin) = admin().await;
    for (path, content_type) in
        [("/nope", "application/json"), ("/services", "text/plain"), ("/status", "application/json")]
    {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        let (method, query) = (hyper::Method::POST, String::new());
        let request =
            crate::control::admin::Request { method, path: path.to_string(), query, headers, at_loopback: true };
        let unread = async { panic!("{path} needs no body") };
        let reply = admin.answer(request, unread, Surface::Admin).await;
        assert!(matches!(reply.status.as_u16(), 404 | 405 | 415), "{path}: {}", reply.status);
    }
}

#[tokio::test]
async fn draining_is_shown_to_the_load_balancer_in_front() {
    let (_directory, admin) = admin().await;
    let ask = async |method: &str, body: &str| {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let request = crate::control::admin::Request {
            method: hyper::Method::from_bytes(method.as_bytes()).unwrap(),
            path: "/status/ready".to_string(),
            query: String::new(),
            headers,
            at_loopback: true,
        };
        let body = body.as_bytes().to_vec();
        admin.answer(request, async { Ok(body.into()) }, Surface::Status).await.status.as_u16()
    };
    assert_eq!(ask("GET", "").await, 200);
    assert_eq!(ask("POST", "status=other").await, 400);
    assert_eq!(ask("POST", "status=draining").await, 204);
    assert_eq!(ask("GET", "").await, 503);
}

/// Every default is valid against its own declaration, and every table is well-formed.
#[test]
fn declarations_agree_with_themselves() {
    use crate::entity::complete::default_of;
    use crate::entity::schema::Field;
    use crate::entity::schema::Kind;
    use crate::entity::validate::Write;
    use crate::entity::validate::check_field;
    fn walk(field: &Field) {
        let default = default_of(field);
        if !default.is_null() || field.default.is_some() {
            let verdict = if default.is_null() { Ok(()) } else { check_field(field, &default, Write::Whole) };
            assert_eq!(verdict, Ok(()), "{}", field.name);
        }
        for pattern in field.match_none.iter().chain(field.match_all).map(|pattern| pattern.lua).chain(field.matches) {
            assert!(crate::entity::pattern::translate(pattern).is_some(), "{pattern}");
        }
        match field.kind {
            Kind::Record(record) => record.fields.iter().for_each(walk),
            Kind::Array(element) | Kind::Set(element) => walk(element),
            _ => {}
        }
    }
    let mut seen = std::collections::HashSet::new();
    for entity in crate::entity::ENTITIES {
        assert!(seen.insert(entity.name), "{} stands twice", entity.name);
        assert!(entity.path_key.is_empty() || entity.field(entity.path_key).is_some(), "{}", entity.name);
        entity.record.fields.iter().for_each(walk);
    }
}

fn random_value(random: &mut fastrand::Rng, depth: usize) -> Value {
    const TEXTS: &[&str] = &[
        "",
        "a",
        "/a",
        "//",
        "http",
        "https",
        "tcp",
        "GET",
        "~/a(",
        "a b",
        "*.x",
        "é",
        "\u{0}",
        "1.2.3.4",
        "::1",
        "11111111-1111-4111-8111-111111111111",
        "key-auth",
        "nope",
        "http://h/",
        "99999999999999999999",
        "/%zz",
    ];
    match random.u8(0..if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => random.bool().into(),
        2 => random.i64(-10..100_000).into(),
        3 => (random.f64() * 1e6 - 10.0).into(),
        4 | 5 => TEXTS[random.usize(..TEXTS.len())].into(),
        6 => (0..random.usize(..4)).map(|_| random_value(random, depth - 1)).collect(),
        _ => random_object(random, depth - 1),
    }
}

fn random_object(random: &mut fastrand::Rng, depth: usize) -> Value {
    const NAMES: &[&str] = &["id", "name", "@entity", "ip", "port", "x", "active", "healthy", "username", "1", "a.b"];
    let known: Vec<&str> = crate::entity::ENTITIES
        .iter()
        .flat_map(|entity| entity.record.fields.iter().map(|field| field.name))
        .chain(NAMES.iter().copied())
        .chain(["url", "ttl", "key_names"])
        .collect();
    let entries = (0..random.usize(..6)).map(|_| {
        let name = known[random.usize(..known.len())].to_string();
        (name, random_value(random, depth))
    });
    Value::Object(entries.collect::<Map<String, Value>>())
}

#[tokio::test]
async fn random_input_is_refused_cleanly() {
    let (_directory, admin) = admin().await;
    const PATHS: &[&str] = &[
        "/services",
        "/routes",
        "/consumers",
        "/plugins",
        "/upstreams",
        "/key-auths",
        "/services/a",
        "/routes/a",
        "/consumers/a",
        "/plugins/a",
        "/upstreams/a",
        "/key-auths/a",
        "/services/a/routes",
        "/services/a/routes/b",
        "/consumers/a/key-auth",
        "/consumers/a/key-auth/b",
        "/upstreams/a/targets",
        "/upstreams/a/targets/1.2.3.4:8000",
        "/routes/a/service",
        "/routes/a/plugins",
        "/schemas/routes/validate",
        "/schemas/plugins/validate",
        "/schemas/upstreams/validate",
        "/services/%ff",
        "/services/11111111-1111-4111-8111-111111111111",
    ];
    for seed in 0..3000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let body = match random.u8(0..10) {
            0 => random_value(&mut random, 3),
            _ => random_object(&mut random, 4),
        };
        let method = ["POST", "PUT", "PATCH"][random.usize(..3)];
        let path = PATHS[random.usize(..PATHS.len())];
        let reply = ask(&admin, method, path, &[("content-type", "application/json")], &body.to_string()).await;
        check_shape(&reply, &format!("seed {seed}: {method} {path} {body}"));
    }
}

#[tokio::test]
async fn random_forms_and_queries_are_refused_cleanly() {
    let (_directory, admin) = admin().await;
    const PIECES: &[&str] = &[
        "name",
        "=",
        "&",
        "a",
        "[",
        "]",
        "[]",
        "[1]",
        "[b]",
        ".",
        "%",
        "%5B",
        "%ff",
        "+",
        "paths",
        "tags",
        "service",
        "id",
        "config",
        "healthchecks",
        "0x",
        "true",
        "size",
        "offset",
        "WyJhIl0",
        ",",
        "/",
        "é",
    ];
    for seed in 0..3000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let text: String = (0..random.usize(..20)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
        let reply = ask(&admin, "POST", "/upstreams", form, &text).await;
        check_shape(&reply, &format!("seed {seed}: form {text}"));
        let target = format!("/{}?{text}", ["services", "tags", "consumers", "status"][random.usize(..4)]);
        let reply = ask(&admin, "GET", &target, &[], "").await;
        check_shape(&reply, &format!("seed {seed}: {target}"));
    }
}

#[track_caller]
fn check_shape(reply: &crate::control::admin::reply::Reply, what: &str) {
    let status = reply.status.as_u16();
    assert!(status < 500, "{what}: {status} {}", reply.body);
    if status < 400 {
        return;
    }
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(body["message"].is_string(), "{what}: {body}");
    if !body["code"].is_null() {
        assert!(body["code"].is_u64() && body["name"].is_string(), "{what}: {body}");
        let listed = body["fields"].is_object() || body["options"].is_object();
        assert!(listed || matches!(body["code"].as_u64(), Some(7 | 9 | 10)), "{what}: {body}");
    }
}

#[tokio::test]
async fn debugging_endpoints_answer_in_the_shape_that_clients_read() {
    let (_directory, admin) = admin().await;
    assert_eq!(get(&admin, "/timers").await.1["stats"]["sys"]["running"], 0);
    assert_eq!(get(&admin, "/cache/services:x").await, (404, value!({ "message": "Not found" })));
    assert_eq!(ask(&admin, "DELETE", "/cache", &[], "").await.status, 204);
    assert_eq!(ask(&admin, "DELETE", "/cache/services:x", &[], "").await.status, 204);
    let check = async |target: &str, status: u16, text: &str| {
        let reply = ask(&admin, "PUT", target, &[], "").await;
        assert_eq!(reply.status.as_u16(), status, "{target}");
        assert!(reply.body.contains(text), "{target}: {}", reply.body);
    };
    assert_eq!(get(&admin, "/debug/node/log-level").await.1["message"], "log level: notice");
    check("/debug/node/log-level/notice", 200, "log level is already notice").await;
    check("/debug/node/log-level/loud", 400, "unknown log level: loud").await;
    check("/debug/node/log-level/debug?timeout=-1", 400, "timeout must be greater than or equal to 0").await;
    check("/debug/cluster/log-level/debug", 200, "log level changed").await;
}
