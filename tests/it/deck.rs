//! decK, as it comes with Debian, against the real gateway: every entity that both know is created, dumped, compared,
//! changed and deleted.
//! Always: the program is the one that `tools/test` installs.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::Driver;
use crate::harness::gateway::Gateway;

const NO_CHANGE: [&str; 3] = ["Created: 0", "Updated: 0", "Deleted: 0"];

/// Certificates that the state needs.
const CERT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert1.pem"));
const KEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key1.pem"));
const CA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/ca.pem"));

/// decK with its files.
struct Deck<'a> {
    gateway: &'a Gateway,
    directory: TempDir,
}

impl Deck<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What decK printed; it must succeed.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let (text, succeeded) = self.try_run(arguments);
        assert!(succeeded, "deck {arguments:?}: {text}");
        text
    }

    /// What decK printed, and whether it succeeded.
    fn try_run(&self, arguments: &[&str]) -> (String, bool) {
        let address = format!("http://127.0.0.1:{}", self.gateway.admin);
        let mut command = Command::new("deck");
        command.args(["--kong-addr", &address, "--no-color"]).args(arguments).current_dir(self.directory.path());
        let output = command
            .env("HOME", self.directory.path())
            .env_remove("DECK_HEADERS")
            .output()
            .expect("there is decK (Debian: apt-get install deck)");
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    }

    #[track_caller]
    fn write(&self, name: &str, state: &Value) {
        std::fs::write(self.path(name), state.to_string()).expect("temporary files can be written");
    }

    /// What the gateway has, as decK says it.
    #[track_caller]
    fn dump(&self, name: &str) -> String {
        let path = self.path(name);
        let _ = std::fs::remove_file(&path);
        self.run(&["dump", "-o", name, "--with-id"]);
        read(&path)
    }

    #[track_caller]
    fn must_agree(&self, file: &str) {
        for command in ["diff", "sync"] {
            let said = self.run(&[command, "-s", file]);
            assert!(NO_CHANGE.iter().all(|line| said.contains(line)), "deck {command}: {said}");
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A dump without the passwords of basic-auth: those that are sent are hashed, as in Kong, also when they are hashes.
fn lines(dump: &str) -> impl Iterator<Item = &str> {
    dump.lines().filter(|line| !line.contains(" password: "))
}

/// One of everything that decK 1.4 knows and the gateway has.
fn state(enabled: &[String]) -> Value {
    let has = |plugin: &str| enabled.iter().any(|name| name == plugin);
    let mut bob = json!({"username": "bob", "custom_id": "b-1", "tags": ["people"], "plugins": [
        {"name": "correlation-id", "config": {"header_name": "X-Bob"}}]});
    let credentials = [
        ("key-auth", "keyauth_credentials", json!({"key": "bob-key"})),
        ("basic-auth", "basicauth_credentials", json!({"username": "bob", "password": "secret"})),
        ("hmac-auth", "hmacauth_credentials", json!({"username": "bob", "secret": "secret"})),
        ("jwt", "jwt_secrets", json!({"key": "issuer", "secret": "secret", "algorithm": "HS256"})),
        ("acl", "acls", json!({"group": "admins"})),
        (
            "oauth2",
            "oauth2_credentials",
            json!({"name": "app", "client_id": "id", "client_secret": "secret",
            "redirect_uris": ["https://app.test/cb"]}),
        ),
    ];
    for (plugin, list, credential) in credentials {
        if has(plugin) {
            bob[list] = json!([credential]);
        }
    }
    json!({
        "_format_version": "1.1",
        "services": [
            {"name": "s1", "host": "up.test", "port": 8080, "path": "/v1", "retries": 3, "tags": ["a", "b"],
             "connect_timeout": 1000, "plugins": [{"name": "correlation-id"}], "routes": [
                {"name": "r1", "paths": ["/a", "~/b[0-9]+"], "methods": ["GET", "POST"], "hosts": ["a.test", "*.b.test"],
                 "headers": {"x-version": ["1", "2"]}, "strip_path": false, "tags": ["a"],
                 "plugins": [{"name": "key-auth", "config": {"key_names": ["k"], "hide_credentials": true}}]},
                {"name": "r2", "paths": ["/c"], "regex_priority": 7, "preserve_host": true}]},
            {"name": "s2", "host": "backend"},
        ],
        "routes": [{"name": "alone", "paths": ["/alone"], "plugins": [
            {"name": "request-termination", "config": {"status_code": 403, "message": "no"}, "enabled": false}]}],
        "upstreams": [{"name": "backend", "slots": 100, "tags": ["a"], "targets": [
            {"target": "10.0.0.1:80", "weight": 10}, {"target": "up.test:81", "weight": 7}]}],
        "consumers": [bob, {"username": "alice"}],
        "certificates": [{"id": "7f4a1b2c-0d3e-4f5a-8b6c-9d0e1f2a3b4c", "cert": CERT, "key": KEY,
            "snis": [{"name": "a.test"}, {"name": "b.test"}]}],
        "ca_certificates": [{"id": "8a4a1b2c-0d3e-4f5a-8b6c-9d0e1f2a3b4c", "cert": CA}],
        "plugins": [{"name": "request-termination", "enabled": false, "tags": ["global"]}],
    })
}

/// Changes the weight of a target. This decK deletes and creates a target to change it, lets the gateway choose the new id,
/// and then looks for that id in its own notes from before: it complains, whatever gateway it speaks to.
#[track_caller]
fn weigh(deck: &Deck<'_>, file: &str) {
    let heavier = file.replace("weight: 10\n", "weight: 20\n");
    std::fs::write(deck.path("heavier.yaml"), heavier).expect("temporary files can be written");
    let (said, _) = deck.try_run(&["sync", "-s", "heavier.yaml"]);
    let complaint = "while post processing event: entity not found";
    let errors = said.split_once("Error: ").map_or("", |(_, errors)| errors);
    let lines = errors.lines().filter(|line| !line.trim().is_empty() && !line.contains("occurred"));
    assert!(lines.clone().all(|line| line.contains(complaint)), "{said}");
    let target = deck.gateway.admin("GET", "/upstreams/backend/targets/10.0.0.1:80", None).must_be(200).json();
    assert_eq!(target["weight"], 20);
}

#[test]
fn deck_pings_dumps_compares_syncs_and_resets() {
    let gateway = Gateway::start(Driver::any());
    let enabled = gateway.admin("GET", "/plugins/enabled", None).must_be(200).json()["enabled_plugins"].clone();
    let enabled: Vec<String> = serde_json::from_value(enabled).expect("a list of names");
    let deck = Deck { gateway: &gateway, directory: tempfile::tempdir().expect("temporary files can be made") };
    assert!(deck.run(&["ping"]).contains("Successfully connected"));

    deck.write("first.json", &state(&enabled));
    let said = deck.run(&["diff", "-s", "first.json"]);
    assert!(said.contains("creating service s1") && said.contains("Updated: 0"), "{said}");
    assert_eq!(gateway.admin("GET", "/services", None).json()["data"], json!([]), "a diff changes nothing");
    let said = deck.run(&["sync", "-s", "first.json"]);
    assert!(said.contains("Updated: 0") && said.contains("Deleted: 0"), "{said}");

    // From here on files say every field, as a dump does: this decK knows the defaults of older gateways only.
    let whole = deck.dump("whole.yaml");
    for name in ["s1", "r2", "alone", "backend", "bob", "alice", "a.test", "10.0.0.1:80", "BEGIN CERTIFICATE"] {
        assert!(whole.contains(name), "{name} is missing in {whole}");
    }
    deck.must_agree("whole.yaml");

    let changed = whole.replace("retries: 3", "retries: 4").replace("name: b.test", "name: c.test");
    let changed = changed.replace("status_code: 403", "status_code: 410");
    std::fs::write(deck.path("changed.yaml"), &changed).expect("temporary files can be written");
    let said = deck.run(&["sync", "-s", "changed.yaml"]);
    assert!(said.contains("updating service s1") && !said.contains("Updated: 0"), "{said}");
    assert_eq!(gateway.admin("GET", "/services/s1", None).json()["retries"], 4);
    assert_eq!(gateway.admin("GET", "/routes/alone/plugins", None).json()["data"][0]["config"]["status_code"], 410);
    assert_eq!(gateway.admin("GET", "/snis/c.test", None).status, 200);
    assert_eq!(gateway.admin("GET", "/snis/b.test", None).status, 404);
    deck.must_agree("changed.yaml");
    weigh(&deck, &changed);

    let mut fewer = state(&enabled);
    fewer["services"].as_array_mut().expect("a list").pop();
    fewer["upstreams"] = json!([]);
    fewer["consumers"] = json!([]);
    fewer["certificates"][0]["snis"] = json!([{"name": "a.test"}]);
    deck.write("fewer.json", &fewer);
    let said = deck.run(&["sync", "-s", "fewer.json"]);
    assert!(said.contains("deleting consumer bob") && said.contains("deleting service s2"), "{said}");
    assert_eq!(gateway.admin("GET", "/consumers", None).json()["data"], json!([]));

    let said = deck.run(&["sync", "-s", "whole.yaml"]);
    assert!(!said.contains("Created: 0"), "{said}");
    let again = deck.dump("again.yaml");
    for (again, whole) in lines(&again).zip(lines(&whole)) {
        assert_eq!(again, whole, "dumped again it is the file");
    }
    assert_eq!(lines(&again).count(), lines(&whole).count());

    deck.run(&["reset", "--force"]);
    let empty = deck.dump("empty.yaml");
    assert_eq!(empty.trim(), "_format_version: \"1.1\"");
}
