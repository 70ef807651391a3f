//! Active checks and what is told of health: real nginx that dies and comes back, TLS with an authority of one's own, an
//! address that accepts and never answers, an operator's word.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::certificates;
use crate::harness::dns::Dns;
use crate::harness::dns::Says;
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
    // Every core has a turn of its own, which may be half done.
    assert!((9..=11).contains(&(0..20).filter(|_| served_by().as_deref() == Some("one")).count()));
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

#[test]
fn probes_over_tls_verify_by_name_and_authority() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let of = directory.path();
    certificates::write(of, "up.test");
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

/// A key and a certificate of its own for a name: `NAME.key`, `NAME.pem`.
fn self_signed(of: &Path, name: &str) {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    certificates::openssl(of, &format!("req -x509 {new} -keyout {name}.key -out {name}.pem -subj /CN={name}"));
}

#[test]
fn probes_over_tls_show_the_certificate_of_the_upstream() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let of = directory.path();
    ["server", "right", "wrong"].iter().for_each(|name| self_signed(of, name));
    let port = Port::reserve();
    let mut command = Command::new("openssl");
    // Only who shows a certificate of this authority is answered.
    command.current_dir(of).args(["s_server", "-www", "-quiet", "-cert", "server.pem", "-key", "server.key"]);
    command.args(["-Verify", "1", "-verify_return_error", "-CAfile", "right.pem", "-tls1_2", "-accept"]);
    command.arg(port.number.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process::start(&mut command);
    let gateway = Gateway::start(Driver::any());
    let mut active = probes("https");
    active["https_verify_certificate"] = json!(false);
    upstream(&gateway, active, &[port.number]);
    becomes(&gateway, port.number, "UNHEALTHY");
    let text = |file: &str| std::fs::read_to_string(of.join(file)).expect("it was made");
    let body = |name: &str| json!({"cert": text(&format!("{name}.pem")), "key": text(&format!("{name}.key"))});
    let shown = gateway.create("/certificates", body("right"));
    gateway.patch("/upstreams/pool", json!({"client_certificate": {"id": shown["id"]}}));
    becomes(&gateway, port.number, "HEALTHY");
    // The next probe shows what the certificate is now.
    gateway.patch(&format!("/certificates/{}", shown["id"].as_str().expect("an id")), body("wrong"));
    becomes(&gateway, port.number, "UNHEALTHY");
}

#[test]
fn an_authority_that_cannot_be_read_is_an_error_at_start() {
    let directory = tempfile::tempdir().expect("temporary files can be made");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").expect("it can be written to");
    for (file, why) in [("/nonexistent.pem", "No such file"), (empty.to_str().expect("text"), "no certificate")] {
        let mut gateway = Gateway::unstarted(Driver::any(), &[("lua_ssl_trusted_certificate", file)]);
        gateway.spawn();
        assert_eq!(gateway.wait().code(), Some(1), "{file}");
        let log = gateway.log();
        assert!(log.contains("lua_ssl_trusted_certificate") && log.contains(why), "{log}");
    }
}

#[test]
fn health_is_told_page_by_page() {
    let gateway = Gateway::start(Driver::any());
    upstream(&gateway, json!({}), &[1, 2, 3]);
    let (mut path, mut seen) = ("/upstreams/pool/health?size=2".to_owned(), Vec::new());
    for (rows, more) in [(2, true), (1, false)] {
        let page = gateway.admin("GET", &path, None).must_be(200).json();
        let data = page["data"].as_array().expect("a list");
        seen.extend(data.iter().map(|target| target["target"].as_str().expect("a target").to_owned()));
        assert_eq!((data.len(), page["next"].is_string(), page["offset"].is_string()), (rows, more, more), "{page}");
        path = page["next"].as_str().unwrap_or_default().to_owned();
    }
    seen.sort();
    assert_eq!(seen, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
}

#[test]
fn health_tells_how_a_name_was_resolved_and_why_not() {
    let dns = Dns::start();
    dns.set("two.test", &[2, 3], 60);
    dns.say("empty.test", Says::Empty);
    let gateway = Gateway::with(Driver::any(), &[("dns_resolver", &dns.address())]);
    gateway.create("/upstreams", json!({"name": "pool"}));
    let told = |target: &str| {
        let page = gateway.admin("GET", "/upstreams/pool/health", None).must_be(200).json();
        page["data"].as_array().expect("a list").iter().find(|row| row["target"] == target).cloned()
    };
    for (target, health, dns, addresses) in [
        ("two.test:80", "HEALTHCHECKS_OFF", "A", json!(["127.0.0.2", "127.0.0.3"])),
        ("[::1]:80", "HEALTHCHECKS_OFF", "AAAA", json!(["[0000:0000:0000:0000:0000:0000:0000:0001]"])),
        ("empty.test:80", "DNS_ERROR", "dns client error: 101 empty record received", json!({})),
        ("nobody.test:80", "DNS_ERROR", "dns server error: 3 name error", json!({})),
    ] {
        let created = gateway.create("/upstreams/pool/targets", json!({"target": target}));
        let target = created["target"].as_str().expect("a target");
        eventually(target, || {
            let row = told(target).expect("it is listed");
            let data = &row["data"];
            let ips = match data["addresses"].as_array() {
                Some(list) => list.iter().map(|address| address["ip"].clone()).collect(),
                None => data["addresses"].clone(),
            };
            ((&row["health"], &data["dns"], &ips) == (&json!(health), &json!(dns), &addresses)).then_some(())
        });
    }
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
