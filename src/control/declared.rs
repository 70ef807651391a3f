//! The declarative document of a node without a store, and the judgement of any document without a node.
//! Owns: where the document comes from, the sentences about what is wrong with it. Never: keeps a row on disk.

use crate::config::Settings;
use crate::control::admin::PluginInfo;
use crate::control::admin::config::Loaded;
use crate::control::admin::declare_report;
use crate::control::admin::document;
use crate::control::admin::document::EMPTY_HASH;
use crate::control::admin::problem::Problem;
use crate::control::routes;
use crate::control::store::Opened;
use crate::control::store::replace::Declared;
use crate::control::store::tables::Tables;
use crate::control::store::unix_now_ms;
use crate::entity::PluginSchema;
use crate::plugins::PLUGINS;
use crate::state::compile::Compiler;
use std::collections::BTreeMap;

/// The plugins that the settings allow.
pub fn plugins(settings: &Settings) -> Vec<PluginInfo> {
    let enabled = PLUGINS.iter().filter(|kind| settings.plugins.enabled(kind.schema.name));
    enabled.map(|kind| PluginInfo { schema: &kind.schema, priority: i64::from(kind.priority) }).collect()
}

/// The document that the settings name, and what to call it; `None`: they name none.
///
/// # Errors
/// A file that cannot be read.
pub fn text(settings: &Settings) -> Result<Option<(String, String)>, String> {
    if let Some(text) = &settings.declarative_config_string {
        let text = String::from_utf8_lossy(text.expose()).into_owned();
        return Ok(Some(("declarative_config_string".to_string(), text)));
    }
    let Some(path) = &settings.declarative_config else {
        return Ok(None);
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((name, text))),
        Err(error) => Err(format!("cannot read the declarative configuration {name}: {error}")),
    }
}

/// A store in memory with what the document says; without a document it is empty.
///
/// # Errors
/// Everything that is wrong with the document.
pub fn open(settings: &Settings) -> Result<(Opened, Loaded), String> {
    let Some((name, text)) = text(settings)? else {
        let opened = Opened::in_memory(Vec::new()).map_err(|conflict| Problem::Conflict(conflict).message())?;
        return Ok((opened, Some((EMPTY_HASH.to_string(), 0))));
    };
    let rows = read(settings, &name, &text)?;
    let hash = if rows.is_empty() { EMPTY_HASH.to_string() } else { document::hash(&text) };
    Ok((store(&name, rows)?, Some((hash, 0))))
}

/// Judges a document as a start with it would; how many rows of each kind it declares.
///
/// # Errors
/// Everything that is wrong with it, one line each.
pub fn check(settings: &Settings, name: &str, text: &str) -> Result<BTreeMap<&'static str, usize>, String> {
    let rows: Vec<_> = store(name, read(settings, name, text)?)?.rows().collect();
    let trial_after_ms = Some(settings.passive_recovery_ms).filter(|after_ms| *after_ms > 0);
    if let Err(refusals) = Compiler::new(settings.router_flavor, trial_after_ms).compile(&rows) {
        let lines = refusals.iter().map(|r| format!("{} {} {}: {}", r.entity, r.id, r.field, r.message));
        return Err(invalid(name, &lines.collect::<Vec<String>>()));
    }
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.entity).or_insert(0) += 1;
    }
    Ok(counts)
}

fn read(settings: &Settings, name: &str, text: &str) -> Result<Vec<Declared>, String> {
    let fields = document::parse(text).map_err(|reason| format!("{name} cannot be read: {reason}"))?;
    let plugins = plugins(settings);
    let lookup = |wanted: &str| -> Option<&'static PluginSchema> {
        plugins.iter().map(|plugin| plugin.schema).find(|schema| schema.name == wanted)
    };
    let mut tables = Tables::new(0);
    tables.now_ms = unix_now_ms();
    let rows = document::rows(fields, &lookup, routes(settings.router_flavor), &tables);
    rows.map_err(|errors| invalid(name, &declare_report::lines(&errors)))
}

fn store(name: &str, rows: Vec<Declared>) -> Result<Opened, String> {
    Opened::in_memory(rows).map_err(|conflict| invalid(name, &[Problem::Conflict(conflict).message()]))
}

fn invalid(name: &str, lines: &[String]) -> String {
    let count = match lines.len() {
        1 => "1 error".to_string(),
        n => format!("{n} errors"),
    };
    let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    format!("{name} has {count}:{lines}")
}
