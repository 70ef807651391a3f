//! The directory of a node, made ready before anything else is.
//! Always: what is created here is closed to other accounts, since the store holds credentials.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringway::config::{ListenAddr, Settings};

use super::pid_file::PID_FILE;

/// Creates the prefix and the directories of the store, the sockets and the logs.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    directories(settings).iter().try_for_each(|directory| create(directory))
}

/// The directories and files of the node that are under its prefix, existing or not. What lies elsewhere is left to
/// whoever made it.
pub fn belongings(settings: &Settings) -> Vec<PathBuf> {
    let beside = |ending: &str| {
        let mut path = settings.database_path.clone().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    };
    let mut paths = directories(settings);
    paths.extend(files(settings).map(Path::to_owned));
    paths.extend([beside("-wal"), beside("-shm"), settings.prefix.join(PID_FILE)]);
    paths.retain(|path| path.starts_with(&settings.prefix));
    paths
}

/// Logs, store, sockets.
fn files(settings: &Settings) -> impl Iterator<Item = &Path> {
    let access_logs = [&settings.proxy_access_log, &settings.admin_access_log].into_iter().flatten();
    let logs = access_logs.map(|log| &log.path).chain(&settings.proxy_error_log);
    let listens = [&settings.proxy_listen, &settings.admin_listen, &settings.status_listen].into_iter().flatten();
    let sockets = listens.filter_map(|listen| match &listen.addr {
        ListenAddr::Unix(path) => Some(path),
        ListenAddr::Tcp(_) => None,
    });
    logs.chain([&settings.database_path]).chain(sockets).map(PathBuf::as_path)
}

fn directories(settings: &Settings) -> Vec<PathBuf> {
    let mut directories = vec![settings.prefix.clone()];
    for parent in files(settings).filter_map(Path::parent) {
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
    fn what_belongs_to_a_node_is_under_its_prefix() {
        let flags = [("prefix", "/p"), ("proxy_access_log", "/dev/stdout"), ("database_path", "db/x")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings;
        let belongings = belongings(&settings);
        for path in ["/p", "/p/db", "/p/db/x", "/p/db/x-wal", "/p/logs/error.log", "/p/admin.sock", "/p/ringway.pid"] {
            assert!(belongings.iter().any(|b| b == Path::new(path)), "{path}");
        }
        assert!(belongings.iter().all(|path| path.starts_with("/p")));
    }

    #[test]
    fn a_prefix_that_cannot_be_made_is_named() {
        let outer = tempfile::NamedTempFile::new().unwrap();
        let error = create(&outer.path().join("x")).unwrap_err();
        assert!(error.contains("-p") && error.contains("/x:"), "{error}");
    }
}
