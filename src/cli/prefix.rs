//! The directory of a node, made ready before anything else is.

use std::path::{Path, PathBuf};

use ringway::config::Settings;

/// Creates the prefix and the directories of the store, the sockets and the logs.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    create(&settings.prefix)?;
    let logs = [&settings.proxy_access_log, &settings.admin_access_log, &settings.proxy_error_log];
    let files = logs.into_iter().flatten().chain([&settings.database_path]);
    files
        .filter_map(|file| file.parent())
        .map(Path::to_owned)
        .collect::<Vec<PathBuf>>()
        .iter()
        .try_for_each(|p| create(p))
}

fn create(directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| {
        let directory = directory.display();
        format!("cannot create the directory {directory}: {error}; choose one that you may write to with -p")
    })
}
