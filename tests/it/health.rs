//! Active checks and what is told of health: real nginx that dies and comes back, TLS with an authority of one's own, an
//! address that accepts and never answers, an operator's word.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::nginx::Nginx;
use crate::harness::port::Port;
use crate::harness::process::Process;

/// Probes ten times a second; one outcome of each kind decides.
fn probes(kind: &str) -> Value {
    json!({"type": kind, "timeout": 0.3, "healthy": {"interval": 0.1, "successes": 1},
           "unhealthy": {"interval": 0.1, "tcp_failures": 1, "timeouts": 1, "http_failures": 1}})
}

fn upstream(gateway: &Gateway, active: Value, ports: &[u16]) {
    gateway.create("/upstreams", json!({"name": "pool", "healthchecks": {"active": active}}));
    for port in ports {
        gateway.create("/upstreams/pool/targets", json!({"target": format!("127.0.0.1:{port}")}));
    }
}

/// The health of the address at a port.
fn health(gateway: &Gateway, port: u16) -> String {
    let page = gateway.admin("GET", "/upstreams/pool/health", None).must_be(200).json();
    let targets = page["data"].as_array().expect("a list");
    let target = targets.iter().find(|target| target["target"] == format!("127.0.0.1:{port}")).expect("the target");
    target["health"].as_str().expect("a word").to_owned()
}

fn becomes(gateway: &Gateway, port: u16, word: &str) {
    eventually(&format!("port {port} to be {word}"), || (health(gateway, port) == word).then_some(()));
}

/// The last change of the address at a port.
fn last_change(gateway: &Gateway, port: u16) -> Value {
    let page = gateway.admin("GET", "/upstreams/pool/health?history=1", None).must_be(200).json();
    let targets = page["data"].as_array().expect("a list");
    let target = targets.iter().find(|target| target["target"] == format!("127.0.0.1:{port}")).expect("the target");
    target["data"]["addresses"][0]["history"][0].clone()
}

#[test]
fn a_server_that_dies_is_left_out_and_used_again_when_probes_pass() {
    let (mut one, two) = (Nginx::start("one"), Nginx::start("two"));
    let gateway = Gateway::start(Driver::any());
    upstream(&gateway, probes("http"), &[one.port(), two.port()]);
    gateway.create("/services", json!({"name": "s", "host": "pool", "retries": 0}));
    gateway.create("/services/s/routes", json!({"paths": ["/"]}));
    let served_by = || gateway.get("/").must_be(200).header("x-served-by").map(str::to_owned);
    one.stop();
    becomes(&gateway, one.port(), "UNHEALTHY");
    assert!((0..20).all(|_| served_by().as_deref() == Some("two")), "without a retry, nobody meets the dead server");
    let change = last_change(&gateway, one.port());
    assert_eq!((&change["check"], &change["outcome"]), (&json!("active"), &json!("TcpFailure")), "{change}");
    assert!(change["comes_back_by"].as_str().is_some_and(|text| text.contains("probes")), "{change}");
    assert!(gateway.log().contains("is unavailable: active check"), "{}", gateway.log());
    one.start_again();
    becomes(&gateway, one.port(), "HEALTHY");
    assert_eq!((0..20).filter(|_| served_by().as_deref() == Some("one")).count(), 10);
}

#[test]
fn an_address_that_accepts_and_never_answers_times_out_and_tcp_probes_do_not_mind() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = silent.local_addr().expect("bound").port();
    let refused = Port::reserve();
    let gateway = Gateway::start(Driver::any());
    upstream(&gateway, probes("http"), &[port, refused.number]);
    becomes(&gateway, port, "UNHEALTHY");
    becomes(&gateway, refused.number, "UNHEALTHY");
    assert_eq!(last_change(&gateway, port)["outcome"], "Timeout");
    assert_eq!(last_change(&gateway, refused.number)["outcome"], "TcpFailure");
    // An edit of the upstream changes the probes and keeps what is known.
    gateway.patch("/upstreams/pool", json!({"healthchecks": {"active": {"type": "tcp"}}}));
    assert_eq!(health(&gateway, refused.number), "UNHEALTHY");
    becomes(&gateway, port, "HEALTHY");
    assert_eq!(health(&gateway, refused.number), "UNHEALTHY");
}

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().is_ok_and(|status| status.success()), "openssl {arguments}");
}

#[test]
fn probes_over_tls_verify_by_name_and_authority() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let of = directory.path();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(of, &format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl(of, &format!("req {new} -keyout leaf.key -out leaf.csr -subj /CN=up.test"));
    std::fs::write(of.join("names"), "subjectAltName=DNS:up.test\n").expect("it can be written to");
    openssl(of, "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out leaf.pem");
    let port = Port::reserve();
    let mut command = Command::new("openssl");
    command.current_dir(of).args(["s_server", "-www", "-quiet", "-cert", "leaf.pem", "-key", "leaf.key", "-accept"]);
    command.arg(port.number.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process::start(&mut command);
    let authority = of.join("ca.pem").display().to_string();
    let gateway = Gateway::with(Driver::any(), &[("lua_ssl_trusted_certificate", &authority)]);
    upstream(&gateway, probes("https"), &[port.number]);
    // The certificate does not name the address.
    becomes(&gateway, port.number, "UNHEALTHY");
    gateway.patch("/upstreams/pool", json!({"healthchecks": {"active": {"https_sni": "up.test"}}}));
    becomes(&gateway, port.number, "HEALTHY");
    gateway.patch("/upstreams/pool", json!({"healthchecks": {"active": {"https_sni": "other.test"}}}));
    becomes(&gateway, port.number, "UNHEALTHY");
    gateway.patch("/upstreams/pool", json!({"healthchecks": {"active": {"https_verify_certificate": false}}}));
    becomes(&gateway, port.number, "HEALTHY");
}

#[test]
fn what_is_told_has_the_recorded_form_and_an_operators_word_counts() {
    let gateway = Gateway::start(Driver::any());
    gateway.create("/upstreams", json!({"name": "pool"}));
    let target = gateway.create("/upstreams/pool/targets", json!({"target": "127.0.0.1:9"}));
    let put = |path: &str| gateway.admin("PUT", &format!("/upstreams/pool/targets/{path}"), None);
    let why = put("127.0.0.1:9/unhealthy").must_be(400).json();
    assert_eq!(why["message"], "no healthchecker found for pool");
    assert_eq!(health(&gateway, 9), "HEALTHCHECKS_OFF");
    gateway.patch("/upstreams/pool", json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 2}}}}));
    put("127.0.0.1:9/unhealthy").must_be(204);
    let page = gateway.admin("GET", "/upstreams/pool/health", None).must_be(200).json();
    let data = json!({"host": "127.0.0.1", "port": 9, "nodeWeight": 100, "dns": "A",
                      "weight": {"total": 100, "unavailable": 100, "available": 0},
                      "addresses": [{"ip": "127.0.0.1", "port": 9, "weight": 100, "health": "UNHEALTHY"}]});
    assert_eq!((&page["data"][0]["data"], &page["data"][0]["id"]), (&data, &target["id"]));
    assert!(page["next"].is_null() && page["node_id"].is_string());
    let whole = gateway.admin("GET", "/upstreams/pool/health?balancer_health=1", None).must_be(200).json();
    assert_eq!(
        (&whole["data"]["health"], &whole["data"]["balancer_health"]),
        (&json!("UNHEALTHY"), &json!("UNHEALTHY"))
    );
    let details = json!({"healthy": false, "weight": {"total": 100, "unavailable": 100, "available": 0}, "hosts": [
        {"host": "127.0.0.1", "port": 9, "nodeWeight": 100, "dns": "A",
         "weight": {"total": 100, "unavailable": 100, "available": 0},
         "addresses": [{"ip": "127.0.0.1", "port": 9, "weight": 100, "healthy": false}]}]});
    assert_eq!(whole["data"]["details"], details);
    put("127.0.0.1:9/1.2.3.4:1/healthy").must_be(204);
    assert_eq!(health(&gateway, 9), "UNHEALTHY", "another address was meant");
    put("127.0.0.1:9/127.0.0.1:9/healthy").must_be(204);
    assert_eq!(health(&gateway, 9), "HEALTHY");
    assert_eq!(last_change(&gateway, 9)["check"], "manual");
    put("127.0.0.1:1/healthy").must_be(404);
    gateway.admin("POST", "/upstreams/pool/targets/127.0.0.1:9/healthy", None).must_be(405);
    gateway.admin("GET", "/upstreams/nope/health", None).must_be(404);
}
