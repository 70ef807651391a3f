//! oauth2 in front of real traffic: tokens are durable, known to every core, and gone when they are to be.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;

/// A gateway behind a proxy that ends TLS; the application `app` of consumer `c`.
fn behind(peer: &Peer, config: Value) -> Gateway {
    let gateway = Gateway::with(Driver::any(), &[("trusted_ips", "127.0.0.1"), ("workers", "2")]);
    gateway.proxy_to(peer.port);
    let mut all = json!({"accept_http_if_already_terminated": true, "provision_key": "pk"});
    all.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    gateway.create("/services/s/plugins", json!({"name": "oauth2", "config": all}));
    gateway.create("/consumers", json!({"username": "c"}));
    let app = json!({"name": "a", "client_id": "app", "client_secret": "s1", "redirect_uris": ["https://app.test/cb"]});
    gateway.create("/consumers/c/oauth2", app);
    gateway
}

fn post(gateway: &Gateway, path: &str, body: &str) -> Response {
    gateway.connect().ask(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn call(gateway: &Gateway, token: &str) -> Response {
    gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"))
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
}

#[test]
fn a_code_becomes_a_token_that_is_refreshed_and_revoked() {
    let peer = Peer::hello();
    let mut gateway = behind(&peer, json!({"enable_authorization_code": true, "scopes": ["email"]}));
    let vouched = "client_id=app&response_type=code&scope=email&provision_key=pk&authenticated_userid=u7&state=x";
    let told = post(&gateway, "/oauth2/authorize", vouched).must_be(200).json();
    let uri = text(&told, "redirect_uri");
    let code = uri.strip_prefix("https://app.test/cb?code=").and_then(|rest| rest.strip_suffix("&state=x"));
    let code = code.unwrap_or_else(|| panic!("{uri}"));
    let client = "client_id=app&client_secret=s1";
    let exchange = format!("{client}&grant_type=authorization_code&code={code}");
    let first = post(&gateway, "/oauth2/token", &exchange).must_be(200);
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let first = first.json();
    for _ in 0..8 {
        call(&gateway, &text(&first, "access_token")).must_be(200);
        let arrived = peer.arrived();
        assert_eq!(arrived.header("x-authenticated-userid"), Some("u7"));
        assert_eq!(arrived.header("x-authenticated-scope"), Some("email"));
        assert_eq!(arrived.header("x-consumer-username"), Some("c"));
        assert_eq!(arrived.header("x-credential-identifier"), Some("app"));
    }
    let again = post(&gateway, "/oauth2/token", &exchange).must_be(400).json();
    assert_eq!(again, json!({"error": "invalid_request", "error_description": "Invalid code"}));

    let refresh = format!("{client}&grant_type=refresh_token&refresh_token={}", text(&first, "refresh_token"));
    let second = post(&gateway, "/oauth2/token", &refresh).must_be(200).json();
    call(&gateway, &text(&first, "access_token")).must_be(401);
    gateway.restart();
    call(&gateway, &text(&second, "access_token")).must_be(200);
    post(&gateway, "/oauth2/token", &refresh).must_be(400);
    let row = gateway.admin("GET", &format!("/oauth2_tokens/{}", text(&second, "access_token")), None).must_be(200);
    assert_eq!(row.json()["expires_in"], 7200);
    gateway.admin("DELETE", &format!("/oauth2_tokens/{}", text(&second, "access_token")), None).must_be(204);
    let answer = call(&gateway, &text(&second, "access_token")).must_be(401);
    assert_eq!(answer.json()["error"], "invalid_token");
}

#[test]
fn tokens_expire_and_go_with_their_application() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"enable_client_credentials": true, "token_expiration": 1}));
    let own = "client_id=app&client_secret=s1&grant_type=client_credentials";
    let token = text(&post(&gateway, "/oauth2/token", own).must_be(200).json(), "access_token");
    call(&gateway, &token).must_be(200);
    crate::harness::eventually("the token to expire", || (call(&gateway, &token).status == 401).then_some(()));
    let token = text(&post(&gateway, "/oauth2/token", own).must_be(200).json(), "access_token");
    gateway.admin("DELETE", "/consumers/c", None).must_be(204);
    call(&gateway, &token).must_be(401);
    assert_eq!(gateway.admin("GET", "/oauth2_tokens", None).must_be(200).json()["data"], json!([]));
    post(&gateway, "/oauth2/token", own).must_be(400);
}

#[test]
fn a_hashed_secret_is_proved_and_not_shown() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"enable_client_credentials": true}));
    let app = json!({"name": "h", "client_id": "h", "client_secret": "s2", "hash_secret": true,
                     "redirect_uris": ["https://h.test"]});
    let shown = gateway.create("/consumers/c/oauth2", app);
    assert!(text(&shown, "client_secret").starts_with("$pbkdf2-sha512$"), "{shown}");
    for (secret, status) in [("s2", 200), ("s3", 400), (&*text(&shown, "client_secret"), 400)] {
        let body = format!("client_id=h&client_secret={secret}&grant_type=client_credentials");
        post(&gateway, "/oauth2/token", &body).must_be(status);
    }
}

#[test]
fn endpoints_are_not_read_over_plain_http_and_one_flow_is_on() {
    let peer = Peer::hello();
    let gateway = behind(&peer, json!({"enable_password_grant": true}));
    let plain = "POST /oauth2/token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let answer = gateway.connect().ask(plain).must_be(400).json();
    assert_eq!(answer, json!({"error": "access_denied", "error_description": "You must use HTTPS"}));
    let got = gateway.connect().ask("GET /oauth2/token HTTP/1.1\r\nHost: a\r\n\r\n").must_be(405).json();
    assert_eq!(got["error"], "invalid_method");
    let none = json!({"name": "oauth2", "route": {"name": "r"}});
    let answer = gateway.admin("POST", "/plugins", Some(&none)).must_be(400);
    assert!(answer.text().contains("at least one of these fields must be true"), "{}", answer.text());
    assert!(peer.arrived_by_now().is_empty());
}
