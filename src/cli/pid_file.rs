//! `<prefix>/ringway.pid`: which process runs with a prefix.
//! Owns: the lock on that file, which says more than the number in it: a node holds it as long as it lives, so that a
//! file left behind by a crash is recognised whoever has got the number since.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Its name in the prefix.
pub const PID_FILE: &str = "ringway.pid";

/// How long a claim waits for the lock: whoever asks whether a node runs holds it for an instant.
const CLAIM_PATIENCE: Duration = Duration::from_millis(300);

const POLL: Duration = Duration::from_millis(20);

/// The claim of this process to a prefix; given up when dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Writes this process's number, unless another one holds the prefix.
    pub fn claim(prefix: &Path) -> Result<Self, String> {
        let path = prefix.join(PID_FILE);
        let cannot =
            |error: std::io::Error| format!("cannot write {}: {error}; choose another prefix with -p", path.display());
        let start = Instant::now();
        loop {
            let mut file =
                OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if start.elapsed() < CLAIM_PATIENCE => {
                    std::thread::sleep(POLL);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(taken(prefix, &mut file)),
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            if !is_still(&file, &path) {
                // Its owner removed it between our open and our lock.
                continue;
            }
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
            return Ok(Self { path, _locked: file });
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The lock ends with the file; a number that stays behind is recognised as stale.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn taken(prefix: &Path, file: &mut File) -> String {
    let who = read_pid(file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let prefix = prefix.display();
    format!(
        "ringway already runs with prefix {prefix} ({who}); stop it with: ringway stop -p {prefix}, or choose another with -p"
    )
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// The process that runs with `prefix`; `None` when there is none, a stale file included.
pub fn running(prefix: &Path) -> Result<Option<i32>, String> {
    let path = prefix.join(PID_FILE);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => match read_pid(&mut file) {
            Some(pid) => Ok(Some(pid)),
            None => Err(format!("{} is held by a process but names none; try again", path.display())),
        },
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

/// Waits until no process holds the prefix; `false` when one still does after `patience`.
pub fn wait_until_free(prefix: &Path, patience: Duration) -> bool {
    let start = Instant::now();
    loop {
        if matches!(running(prefix), Ok(None)) {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_claimed_once_and_free_again_afterwards() {
        let prefix = tempfile::tempdir().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(running(prefix.path()), Ok(None));
        let claim = PidFile::claim(prefix.path()).unwrap();
        assert_eq!(running(prefix.path()), Ok(Some(own)));
        let refused = PidFile::claim(prefix.path()).unwrap_err();
        assert!(refused.contains(&format!("process {own}")), "{refused}");
        assert!(!wait_until_free(prefix.path(), Duration::ZERO));
        drop(claim);
        assert!(wait_until_free(prefix.path(), Duration::ZERO));
    }

    #[test]
    fn a_file_left_behind_is_stale_even_if_its_number_is_alive() {
        let prefix = tempfile::tempdir().unwrap();
        std::fs::write(prefix.path().join(PID_FILE), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(running(prefix.path()), Ok(None));
        let claim = PidFile::claim(prefix.path()).unwrap();
        let text = std::fs::read_to_string(&claim.path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn asking_does_not_get_in_the_way_of_a_claim() {
        let prefix = tempfile::tempdir().unwrap();
        std::fs::write(prefix.path().join(PID_FILE), "1\n").unwrap();
        let asking = File::open(prefix.path().join(PID_FILE)).unwrap();
        asking.lock_shared().unwrap();
        let slow = std::thread::spawn(move || {
            std::thread::sleep(POLL * 3);
            drop(asking);
        });
        PidFile::claim(prefix.path()).unwrap();
        slow.join().unwrap();
    }

    #[test]
    fn a_longer_number_left_behind_does_not_show_through() {
        let prefix = tempfile::tempdir().unwrap();
        std::fs::write(prefix.path().join(PID_FILE), "999999999999\ngarbage").unwrap();
        let claim = PidFile::claim(prefix.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&claim.path).unwrap(), format!("{}\n", std::process::id()));
    }
}
