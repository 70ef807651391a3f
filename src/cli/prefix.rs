//! The directory of a node, made ready before anything else is.
//! Always: what is created here is closed to other accounts, since the store holds credentials.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringway::config::{ListenAddr, Settings};

use super::account::Account;

/// Creates the prefix and the directories of the store, the sockets and the logs. Those under the prefix, and it,
/// belong to the account that the node becomes; others are left to whoever made them.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    let directories = directories(settings);
    for directory in &directories {
        create(directory)?;
    }
    let Some(user) = &settings.user else { return Ok(()) };
    let account = Account::find(user)?;
    directories.iter().filter(|d| d.starts_with(&settings.prefix)).try_for_each(|d| account.take_over(d))
}

fn directories(settings: &Settings) -> Vec<PathBuf> {
    let logs = [&settings.proxy_access_log, &settings.admin_access_log, &settings.proxy_error_log];
    let listens = [&settings.proxy_listen, &settings.admin_listen, &settings.status_listen].into_iter().flatten();
    let sockets = listens.filter_map(|listen| match &listen.addr {
        ListenAddr::Unix(path) => Some(path),
        ListenAddr::Tcp(_) => None,
    });
    let files = logs.into_iter().flatten().chain([&settings.database_path]).chain(sockets);
    let mut directories = vec![settings.prefix.clone()];
    for parent in files.filter_map(|file| file.parent()) {
        if !directories.iter().any(|known| known == parent) {
            directories.push(parent.to_owned());
        }
    }
    directories
}

fn create(directory: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(|error| {
        let directory = directory.display();
        format!("cannot create the directory {directory}: {error}; choose one that you may write to with -p")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use ringway::config::Sources;

    use super::*;

    #[test]
    fn all_directories_exist_afterwards_and_are_closed_to_others() {
        let outer = tempfile::tempdir().unwrap();
        let prefix = outer.path().join("a/b");
        let flags = [("prefix", prefix.to_str().unwrap()), ("admin_listen", "unix:sockets/admin")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings;
        prepare(&settings).unwrap();
        prepare(&settings).expect("a second start finds them");
        for directory in [prefix.clone(), prefix.join("logs"), prefix.join("sockets")] {
            assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o007, 0, "{}", directory.display());
        }
    }

    #[test]
    fn a_prefix_that_cannot_be_made_is_named() {
        let outer = tempfile::NamedTempFile::new().unwrap();
        let error = create(&outer.path().join("x")).unwrap_err();
        assert!(error.contains("-p") && error.contains("/x:"), "{error}");
    }
}
