//! `ringway config check|load|diff|dump`: documents on the command line, with and without a node.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::gateway::Gateway;

const DOCUMENT: &str = "\
_format_version: '3.0'
services:
- name: s
  host: up.test
  tags: [a]
  routes:
  - { name: r, paths: [/a], plugins: [{ name: key-auth, config: { key_names: [k] } }] }
consumers:
- username: bob
  keyauth_credentials: [{ key: bob-key }]
  basicauth_credentials: [{ username: bob, password: secret }]
upstreams:
- { name: up.test, targets: [{ target: '10.0.0.1:80', weight: 5 }] }
";

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

fn config(gateway: &Gateway, arguments: &[&str]) -> Said {
    let mut command = vec!["config"];
    command.extend(arguments);
    let Output { status, stdout, stderr } = gateway.cli(&command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: status.code(), out: text(stdout), error: text(stderr) }
}

fn write(gateway: &Gateway, name: &str, text: &str) -> String {
    let path = path(gateway, name);
    std::fs::write(&path, text).expect("the prefix can be written to");
    path.display().to_string()
}

fn path(gateway: &Gateway, name: &str) -> PathBuf {
    gateway.prefix().join(name)
}

fn undated(dump: &str) -> Vec<&str> {
    dump.lines().filter(|line| !line.trim_start().starts_with("updated_at: ")).collect()
}

#[track_caller]
fn done(said: Said) -> String {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.error);
    said.out
}

#[track_caller]
fn refused(said: Said) -> String {
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.error);
    said.error
}

#[test]
fn a_dump_loads_to_the_same_configuration() {
    let gateway = Gateway::start(Driver::any());
    let first = write(&gateway, "first.yml", DOCUMENT);
    let said = done(config(&gateway, &["load", &first]));
    assert!(said.contains("first.yml is loaded: ") && said.contains("routes 1"), "{said}");
    assert_eq!(gateway.admin("GET", "/routes/r", None).must_be(200).json()["paths"], json!(["/a"]));

    let (one, two) = (path(&gateway, "one.yml"), path(&gateway, "two.yml"));
    done(config(&gateway, &["dump", &one.display().to_string()]));
    assert_eq!(std::fs::metadata(&one).expect("it was written").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&one).expect("it was written");
    assert!(text.contains("bob-key"), "{text}");
    assert_eq!(
        done(config(&gateway, &["diff", &one.display().to_string(), "--exit-code"])),
        "0 created, 0 changed, 0 deleted\n"
    );
    done(config(&gateway, &["load", &one.display().to_string()]));
    done(config(&gateway, &["dump", &two.display().to_string()]));
    assert_eq!(text, std::fs::read_to_string(&two).expect("it was written"));

    // A node that has never seen it becomes the same, but for the time at which it did.
    let other = Gateway::start(Driver::any());
    done(config(&other, &["load", &one.display().to_string()]));
    assert_eq!(undated(&done(config(&other, &["dump", "-"]))), undated(&text));
    gateway.admin("GET", "/consumers/bob/key-auth/bob-key", None).must_be(200);
}

#[test]
fn a_difference_is_shown_and_not_applied() {
    let gateway = Gateway::start(Driver::any());
    gateway.create("/consumers", json!({"username": "alice"}));
    let file = write(&gateway, "kong.yml", DOCUMENT);
    let said = config(&gateway, &["diff", &file, "--exit-code"]);
    assert_eq!(said.code, Some(3), "{}", said.error);
    for line in ["+ services s (", "+ targets 10.0.0.1:80 (", "- consumers alice ("] {
        assert!(said.out.contains(line), "{line:?} is not in {}", said.out);
    }
    gateway.admin("GET", "/services/s", None).must_be(404);
    gateway.admin("GET", "/consumers/alice", None).must_be(200);

    done(config(&gateway, &["load", &file]));
    let file = write(&gateway, "other.yml", &DOCUMENT.replace("/a]", "/b]"));
    let said = done(config(&gateway, &["diff", &file]));
    assert!(said.contains("~ routes ") && said.contains("    paths: [\"/a\"] -> [\"/b\"]\n"), "{said}");
    let said = done(config(&gateway, &["diff", &file, "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["dry_run"], true);
}

#[test]
fn a_document_is_judged_without_a_node() {
    let gateway = Gateway::unstarted(Driver::any(), &[]);
    let good = write(&gateway, "good.yml", DOCUMENT);
    let said = done(config(&gateway, &["check", &good]));
    assert!(said.contains("good.yml is valid: ") && said.contains("consumers 1"), "{said}");
    let bad = DOCUMENT.replace("[/a]", "[a]").replace("username: bob,", "nonsense: bob,");
    let said = refused(config(&gateway, &["check", &write(&gateway, "bad.yml", &bad)]));
    assert!(said.contains("bad.yml has 3 errors:") && said.contains("services[1].routes[1] (r) paths"), "{said}");
    let said = refused(config(&gateway, &["check", "/nowhere/kong.yml"]));
    assert!(said.contains("cannot read /nowhere/kong.yml"), "{said}");
    let unserved = "_format_version: '3.0'\nroutes: [{ name: t, protocols: [tcp], sources: [{ port: 1 }] }]";
    let said = refused(config(&gateway, &["check", &write(&gateway, "tcp.yml", unserved)]));
    assert!(said.contains("not supported yet"), "{said}");
}

#[test]
fn what_a_node_does_not_take_is_said_line_by_line() {
    let mut gateway = Gateway::unstarted(Driver::any(), &[("admin_client_max_body_size", "4k")]);
    let file = write(&gateway, "kong.yml", DOCUMENT);
    for action in ["load", "diff", "dump"] {
        let said = refused(config(&gateway, &[action, &file]));
        assert!(said.contains("no ringway runs with prefix"), "{said}");
    }
    gateway.restart();
    done(config(&gateway, &["load", &file]));
    let bad = DOCUMENT.replace("[/a]", "[a]").replace("weight: 5", "weight: -5");
    for action in ["load", "diff"] {
        let said = refused(config(&gateway, &[action, &write(&gateway, "bad.yml", &bad)]));
        for line in ["nothing has changed", "\n  route r paths.1: ", "\n  target ", " weight: value should be between"]
        {
            assert!(said.contains(line), "{line:?} is not in {said}");
        }
    }
    let dangling = format!("{DOCUMENT}routes: [{{ name: r2, paths: [/], service: nope }}]\n");
    let said = refused(config(&gateway, &["load", &write(&gateway, "dangling.yml", &dangling)]));
    assert!(said.contains("\n  routes r2: invalid reference 'service: nope'"), "{said}");
    let said = refused(config(&gateway, &["load", &write(&gateway, "text.yml", "a: [")]));
    assert!(said.contains("failed parsing declarative configuration"), "{said}");
    let large = format!("{DOCUMENT}# {}\n", "x".repeat(1 << 20));
    let said = refused(config(&gateway, &["load", &write(&gateway, "large.yml", &large)]));
    assert!(said.contains("admin_client_max_body_size"), "{said}");
    assert_eq!(gateway.admin("GET", "/routes/r", None).must_be(200).json()["paths"], json!(["/a"]));
    let said = refused(config(&gateway, &["dump", "/nowhere/kong.yml"]));
    assert!(said.contains("cannot write /nowhere/kong.yml"), "{said}");
}

#[test]
fn a_mistake_in_the_last_of_ten_thousand_entities_is_named_and_nothing_is_applied() {
    let gateway = Gateway::start(Driver::any());
    let file = write(&gateway, "kong.yml", DOCUMENT);
    done(config(&gateway, &["load", &file]));
    let before = (status(&gateway), done(config(&gateway, &["dump", "-"])));
    let many: String = (1..10_000).map(|n| format!("- {{ name: s{n}, host: up.test }}\n")).collect();
    let many = format!("_format_version: '3.0'\nservices:\n{many}");
    for (last, named) in [
        ("- { name: last, host: up.test, port: 65536 }\n", "service last port: value should be"),
        ("- { name: s1, host: up.test }\n", "service s1: uniqueness violation"),
        ("routes: [{ name: last, paths: [/], service: nope }]\n", "routes last: invalid reference"),
        ("routes: [{ name: last, protocols: [tls], snis: [a] }]\n", "routes last protocols: "),
    ] {
        let file = write(&gateway, "many.yml", &format!("{many}{last}"));
        let said = refused(config(&gateway, &["load", &file]));
        assert!(said.contains(&format!("\n  {named}")), "{named:?} is not in {said}");
        assert_eq!((status(&gateway), done(config(&gateway, &["dump", "-"]))), before);
    }
    done(config(&gateway, &["load", &write(&gateway, "many.yml", &many)]));
    gateway.admin("GET", "/services/s9999", None).must_be(200);
    gateway.admin("GET", "/routes/r", None).must_be(404);
}

/// The version of the configuration that each core serves.
fn status(gateway: &Gateway) -> serde_json::Value {
    let status = gateway.admin("GET", "/status", None).must_be(200).json();
    let cores = status["cores"].as_array().cloned().unwrap_or_default();
    assert!(!cores.is_empty(), "{status}");
    cores.iter().map(|core| core["version"].clone()).collect()
}
