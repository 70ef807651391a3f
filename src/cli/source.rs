//! The sources of one node's configuration: a file, the environment, the flags it was started with.
//! Always: a reload reads the same sources again.

use std::path::{Path, PathBuf};

use ringway::config::{ConfigError, Loaded, Settings, Sources};

use super::args::Common;

/// Looked for, in order, when no file is named.
const DEFAULT_FILES: [&str; 2] = ["/etc/ringway/ringway.conf", "/etc/ringway.conf"];

/// Where settings are read from, and read again.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    pub file: Option<PathBuf>,
    /// Property and value, in the order of the command line.
    pub flags: Vec<(String, String)>,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum SourceError {
    Unreadable(String),
    Invalid(Vec<ConfigError>),
}

impl ConfigSource {
    /// Paths are made absolute here: a reload may happen in another directory.
    pub fn of(common: &Common) -> Result<Self, String> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| format!("{} is no usable path: {error}", path.display()))
        };
        let mut flags = common.set.clone();
        if let Some(prefix) = &common.prefix {
            let prefix = absolute(prefix)?;
            flags.push(("prefix".to_owned(), prefix.to_string_lossy().into_owned()));
        }
        let file = match &common.conf {
            Some(file) => Some(absolute(file)?),
            None => DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists()),
        };
        let source = Self { file, flags };
        if common.verbose {
            eprintln!("reading {}", source.describe());
        }
        Ok(source)
    }

    /// The source as messages call it.
    pub fn describe(&self) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => "the default configuration".to_owned(),
        }
    }

    /// Reads all sources.
    pub fn load(&self) -> Result<Loaded, SourceError> {
        let text = match &self.file {
            None => None,
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                SourceError::Unreadable(format!("cannot read {}: {error}; name another file with -c", file.display()))
            })?),
        };
        // A variable that is not UTF-8 cannot be one of ours, whose names and values are text.
        let env: Vec<(String, String)> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let sources = Sources {
            file: self.file.as_deref().zip(text.as_deref()),
            env: &env,
            flags: &self.flags,
            plugins: &crate::start::plugin_names(),
            read: Some(|path| std::fs::read_to_string(path)),
        };
        Settings::load(sources).map_err(SourceError::Invalid)
    }
}
