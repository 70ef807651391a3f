//! Bodies beyond memory, each in a file of its own that has no name: requests that are gathered before they are sent on,
//! and responses that come faster than the client takes them.
//! Owns: the file, and the node's account of what all of them hold. Never: keeps a byte once the request has ended, however
//! it ended: the kernel frees a file without a name with its last descriptor.
//! Always: data goes through the core's ring like all else; only the making of the file is a plain system call, as it
//! touches no data and the runtime can open no file without a name.

use std::cell::Cell;
use std::fs::File as StdFile;
use std::fs::OpenOptions;
use std::io;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use monoio::fs::File;

use crate::proxy::buffers::Buf;

/// The accounts of a node.
#[derive(Debug, Default, Clone)]
pub struct Spooled {
    pub requests: Arc<SpoolAccount>,
    pub responses: Arc<SpoolAccount>,
}

/// How many bytes all spooled bodies of one direction hold.
#[derive(Debug, Default)]
pub struct SpoolAccount(AtomicU64);

impl SpoolAccount {
    /// Adds bytes, unless more than `bytes_max` would be held then.
    fn reserve(&self, bytes: u64, bytes_max: u64) -> bool {
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The part of one body that is not in memory.
pub struct Spool {
    file: File,
    len: Cell<u64>,
    account: Arc<SpoolAccount>,
    reserved: Cell<u64>,
}

impl Spool {
    /// An empty file in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &Path, account: Arc<SpoolAccount>) -> io::Result<Self> {
        let file = match nameless(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)?;
                nameless(folder)?
            }
            other => other?,
        };
        Ok(Self { file: File::from_std(file)?, len: Cell::new(0), account, reserved: Cell::new(0) })
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len.get()
    }

    /// Whether the file holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes sure that `bytes` more may be held; asked before they are read from the peer.
    pub fn reserve(&self, bytes: u64, bytes_max: u64) -> bool {
        let missing = (self.len() + bytes).saturating_sub(self.reserved.get());
        let granted = self.account.reserve(missing, bytes_max);
        self.reserved.set(self.reserved.get() + if granted { missing } else { 0 });
        granted
    }

    /// Begins anew at the front of the file; what it holds is not needed any more.
    pub fn rewind(&self) {
        self.len.set(0);
    }

    /// Appends all bytes of `buf` and gives it back, empty.
    ///
    /// # Errors
    /// What the system says; the disk may be full.
    pub async fn append(&self, mut buf: Buf) -> (io::Result<()>, Buf) {
        while !buf.is_empty() {
            let (result, back) = self.file.write_at(buf, self.len()).await;
            buf = back;
            match result {
                Ok(0) => return (Err(ErrorKind::WriteZero.into()), buf),
                Ok(count) => {
                    buf.consume(count);
                    self.len.set(self.len() + count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Reads from `at` on into the room of `buf`.
    ///
    /// # Errors
    /// What the system says, or that the file is shorter than what was written to it.
    pub async fn read(&self, at: u64, buf: Buf) -> (io::Result<()>, Buf) {
        let (result, mut buf) = self.file.read_at(buf, at).await;
        let result = match result {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            // Nothing was written behind the end, but a buffer must not be trusted with more than the body.
            Ok(count) => {
                buf.truncate((count as u64).min(self.len() - at) as usize);
                Ok(())
            }
            Err(error) => Err(error),
        };
        (result, buf)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.account.release(self.reserved.get());
    }
}

/// A file without a name, or one whose name is taken away at once where the file system knows no other.
fn nameless(folder: &Path) -> io::Result<StdFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let path = folder.join(uuid::Uuid::new_v4().to_string());
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_each_driver(test: impl AsyncFn()) {
        let legacy = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build();
        legacy.expect("epoll is always there").block_on(test());
        if let Ok(mut ring) = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build() {
            ring.block_on(test());
        }
    }

    #[test]
    fn what_was_appended_is_read_again_and_leaves_nothing_behind() {
        on_each_driver(async || {
            let folder = tempfile::tempdir().unwrap();
            let (inside, account) = (folder.path().join("bodies"), Arc::new(SpoolAccount::default()));
            let spool = Spool::open(&inside, account.clone()).unwrap();
            let mut want = Vec::new();
            for n in 0..20u8 {
                let mut piece = Buf::with_capacity(1000);
                piece.clear_with_headroom(32);
                piece.extend(&[n; 900]);
                want.extend([n; 900]);
                assert!(spool.reserve(900, 18_000));
                let (result, piece) = spool.append(piece).await;
                result.unwrap();
                assert!(piece.is_empty());
            }
            assert!(!spool.reserve(1, 18_000), "no more than the node may hold");
            assert_eq!((spool.len(), account.held()), (18_000, 18_000));
            let mut got = Vec::new();
            while (got.len() as u64) < spool.len() {
                let mut piece = Buf::with_capacity(4096);
                piece.clear_with_headroom(32);
                let (result, piece) = spool.read(got.len() as u64, piece).await;
                result.unwrap();
                got.extend_from_slice(piece.bytes());
            }
            assert!(got == want);
            assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0, "the file has no name");
            drop(spool);
            assert_eq!(account.held(), 0);
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        on_each_driver(async || {
            let file = tempfile::NamedTempFile::new().unwrap();
            assert!(Spool::open(&file.path().join("x"), Arc::default()).is_err());
        });
    }
}
