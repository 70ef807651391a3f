//! Process-level start of a node: both planes, signals, the end.

use ringway::config::Settings;

use crate::cli::logging::Log;
use crate::cli::source::ConfigSource;

/// The plugins that the program has.
pub const PLUGIN_NAMES: &[&str] = &["correlation-id", "key-auth", "request-termination"];

/// Runs the node until a signal ends it. `source` is what SIGHUP reads again.
pub fn start(_settings: Settings, _source: &ConfigSource, _log: &Log) -> Result<(), String> {
    Err("this build has no planes to start".to_owned())
}
