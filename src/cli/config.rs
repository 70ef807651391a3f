//! `ringway config ...`: the whole configuration as one declarative document.
//! Owns: reading and writing the files, the sentences about what came of them. Never: judges a document itself; the
//! loader of the Admin API does, here or in the node.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ringway::config::Settings;
use ringway::control::declared;
use serde_json::Value;

use crate::cli::admin;
use crate::cli::admin::{Answer, Question};

/// For a node that reads, compiles and stores a configuration of any size.
const PATIENCE: Duration = Duration::from_secs(300);

/// Stands for standard input or output.
const STANDARD: &str = "-";

/// What a load would do.
pub struct Difference(Value);

/// Judges a document without a node.
pub fn check(settings: &Settings, file: &Path) -> Result<String, String> {
    let counts = declared::check(settings, &name_of(file), &read(file)?)?;
    Ok(format!("{} is valid: {}\n", name_of(file), counted(counts.into_iter())))
}

/// Replaces the configuration of a node.
pub fn load(settings: &Settings, file: &Path) -> Result<String, String> {
    let rows = post(settings, file, "/config?flatten_errors=1")?;
    let counts = rows.as_object().into_iter().flatten();
    let counts = counts.map(|(kind, rows)| (kind.as_str(), rows.as_object().map_or(0, |rows| rows.len())));
    Ok(format!("{} is loaded: {}\n", name_of(file), counted(counts)))
}

/// Asks a node what a load would do.
pub fn diff(settings: &Settings, file: &Path) -> Result<Difference, String> {
    post(settings, file, "/config?flatten_errors=1&dry_run=1").map(Difference)
}

/// Writes the configuration of a node; what to say about it.
pub fn dump(settings: &Settings, file: &Path) -> Result<String, String> {
    let question = Question { method: "GET", path: "/config", body: None, patience: PATIENCE };
    let answer = admin::ask(settings, &question)?;
    let text = match (answer.status(), json(&answer)?["config"].take()) {
        (Some(200), Value::String(text)) => text,
        _ => return Err(format!("the node answers on {} with \"{}\"; is it an older one?", answer.place, answer.line)),
    };
    if file == Path::new(STANDARD) {
        return Ok(text);
    }
    write_private(file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(format!("the configuration is in {}, keys and passwords with it\n", file.display()))
}

/// Puts the text in place of the file in one step; nobody but the owner may read it.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fresh = directory.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create_new(&fresh).and_then(|mut out| {
        out.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        out.write_all(text.as_bytes())?;
        out.sync_all()
    });
    let moved = written.and_then(|()| std::fs::rename(&fresh, file));
    if moved.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    moved
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let outcome = if file == Path::new(STANDARD) {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    outcome.map(|_| text).map_err(|error| format!("cannot read {}: {error}", name_of(file)))
}

fn name_of(file: &Path) -> String {
    if file == Path::new(STANDARD) { "standard input".to_owned() } else { file.display().to_string() }
}

/// The node's answer to a document, if it takes it.
fn post(settings: &Settings, file: &Path, path: &str) -> Result<Value, String> {
    let text = read(file)?;
    let name = name_of(file);
    let body = Some(("application/yaml", text.as_str()));
    let answer = admin::ask(settings, &Question { method: "POST", path, body, patience: PATIENCE })?;
    match answer.status() {
        Some(200 | 201) => json(&answer),
        Some(413) => Err(format!(
            "{name} has {} bytes, more than admin_client_max_body_size of the node allows; raise it there, tell the node \
             with 'ringway reload', and try again",
            text.len()
        )),
        Some(400) => Err(refusal(&name, &json(&answer)?)),
        _ => {
            let said = json(&answer).ok().and_then(|body| body["message"].as_str().map(str::to_owned));
            let said = said.unwrap_or_else(|| answer.line.clone());
            Err(format!(
                "{name} was not taken, nothing has changed: the node answers on {} with \"{said}\"",
                answer.place
            ))
        }
    }
}

fn json(answer: &Answer) -> Result<Value, String> {
    serde_json::from_str(&answer.body)
        .map_err(|_| format!("the node answers on {} with \"{}\", and not as expected", answer.place, answer.line))
}

/// Every mistake on a line of its own.
fn refusal(name: &str, body: &Value) -> String {
    let mut lines = Vec::new();
    for entry in body["flattened_errors"].as_array().into_iter().flatten() {
        let called = ["entity_name", "entity_id"].iter().find_map(|name| entry[*name].as_str());
        let called = called.map_or_else(|| entry["entity"].to_string(), str::to_owned);
        for error in entry["errors"].as_array().into_iter().flatten() {
            let field = error["field"].as_str().map(|field| format!(" {field}")).unwrap_or_default();
            lines.push(format!("\n  {} {called}{field}: {}", plain(&entry["entity_type"]), plain(&error["message"])));
        }
    }
    for (place, error) in body["fields"].as_object().into_iter().flatten() {
        leaves(place, error, &mut lines);
    }
    if lines.is_empty() {
        lines.push(format!("\n  {}", plain(&body["message"])));
    }
    format!(
        "{name} was not taken, nothing has changed:{}\ncorrect that and try again; 'ringway config check' needs no node",
        lines.concat()
    )
}

/// The texts of a nested error, each behind the way to it.
fn leaves(way: &str, error: &Value, lines: &mut Vec<String>) {
    match error {
        Value::Object(fields) => fields.iter().for_each(|(name, error)| leaves(&format!("{way} {name}"), error, lines)),
        Value::Array(list) => list.iter().for_each(|error| leaves(way, error, lines)),
        Value::Null => {}
        text => lines.push(format!("\n  {way}: {}", plain(text))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn counted<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> String {
    let parts: Vec<String> = counts.map(|(kind, count)| format!("{kind} {count}")).collect();
    if parts.is_empty() { "an empty configuration".to_owned() } else { parts.join(", ") }
}

impl Difference {
    /// Whether a load would change nothing.
    pub fn is_empty(&self) -> bool {
        KINDS_OF_CHANGE.iter().all(|(kind, _)| self.entries(kind).is_empty())
    }

    pub fn as_json(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// One line for each row, and one for each field that changes.
    pub fn as_text(&self) -> String {
        let mut out = String::new();
        for (kind, sign) in KINDS_OF_CHANGE {
            for entry in self.entries(kind) {
                let _ = writeln!(out, "{sign} {} {}", plain(&entry["entity"]), called(entry));
                for (field, change) in entry["fields"].as_object().into_iter().flatten() {
                    let _ = writeln!(out, "    {field}: {} -> {}", change["old"], change["new"]);
                }
            }
        }
        let counts = KINDS_OF_CHANGE.map(|(kind, _)| format!("{} {kind}", self.entries(kind).len()));
        let _ = writeln!(out, "{}", counts.join(", "));
        out
    }

    fn entries(&self, kind: &str) -> &[Value] {
        self.0[kind].as_array().map_or(&[], Vec::as_slice)
    }
}

/// As the node calls them, in the order shown.
const KINDS_OF_CHANGE: [(&str, char); 3] = [("created", '+'), ("changed", '~'), ("deleted", '-')];

/// What people call a row, and its id.
fn called(entry: &Value) -> String {
    let names = ["name", "username", "target", "key", "group", "prefix"];
    let name = names.iter().find_map(|name| entry["row"][*name].as_str());
    match name {
        Some(name) => format!("{name} ({})", plain(&entry["id"])),
        None => plain(&entry["id"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_shown_by_line() {
        let difference = Difference(json!({
            "created": [{ "entity": "services", "id": "1", "row": { "name": "s" } }],
            "changed": [{ "entity": "routes", "id": "2", "fields": { "paths": { "old": null, "new": ["/a"] } } }],
            "deleted": [],
        }));
        let wanted = "+ services s (1)\n~ routes 2\n    paths: null -> [\"/a\"]\n1 created, 1 changed, 0 deleted\n";
        assert_eq!(difference.as_text(), wanted);
        assert!(!difference.is_empty());
        assert!(Difference(json!({ "created": [], "changed": [], "deleted": [] })).is_empty());
    }

    #[test]
    fn every_mistake_has_a_line() {
        let body = json!({
            "message": "declarative config is invalid",
            "fields": { "routes": { "r": ["invalid reference"] }, "nonsense": "unknown field" },
            "flattened_errors": [{ "entity_type": "service", "entity_name": "s", "errors": [
                { "type": "field", "field": "paths.1", "message": "no" }, { "type": "entity", "message": "whole" }] }],
        });
        let text = refusal("kong.yml", &body);
        for line in
            ["service s paths.1: no", "service s: whole", "routes r: invalid reference", "nonsense: unknown field"]
        {
            assert!(text.contains(&format!("\n  {line}\n")), "{line:?} is not in {text}");
        }
        assert!(refusal("x", &json!({ "message": "said" })).contains("\n  said\n"));
    }

    #[test]
    fn a_dump_is_for_its_owner_and_replaces_in_one_step() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kong.yml");
        std::fs::write(&file, "old").unwrap();
        write_private(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write_private(&directory.path().join("absent/kong.yml"), "x").is_err());
    }
}
