//! Finished-request records -> the files of access logs (spec/proxying.md section 18).
//! Owns: one thread and one file; a data core never waits for it. Never: keeps more than the queue holds.
//! Always: a line is written whole.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::config;
use crate::config::log_format::LogFormat;
use crate::config::log_format::Source;
use crate::control::access_line::Lines;
use crate::metrics::record::Figures;
use crate::metrics::record::Record;
use crate::state::mailbox::Outbox;
use crate::state::mailbox::Records;

/// The running log writer.
pub struct AccessLog {
    reopen: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Opens the file (its folder is made if missing) and starts the writer; without a log records are dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(log: Option<&config::AccessLog>, records: Records, hostname: &str) -> io::Result<Self> {
        let mut log = match log {
            Some(log) => Some((Sink::open(&log.path)?, Lines::new(log.format.clone(), hostname))),
            None => None,
        };
        let reopen = Arc::new(AtomicBool::new(false));
        let asked = reopen.clone();
        let thread = std::thread::Builder::new().name("ringway-log".into()).spawn(move || {
            let mut text = Vec::new();
            while let Ok(batch) = records.recv() {
                if batch.is_empty() {
                    return;
                }
                let Some((sink, lines)) = &mut log else { continue };
                if asked.swap(false, Ordering::Relaxed) {
                    sink.reopen();
                }
                text.clear();
                let mut rest = &batch[..];
                while let Some(record) = Record::decode(&mut rest, lines.texts()) {
                    lines.push(&record, &mut text);
                }
                sink.write(&text);
            }
        })?;
        Ok(Self { reopen, thread })
    }

    /// The file was moved away: the next lines go to a new one.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until everything sent before was written.
    pub fn finish(self, outbox: &Outbox) {
        outbox.end_records();
        let _ = self.thread.join();
    }
}

struct Sink {
    file: File,
    path: PathBuf,
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, path: path.to_owned() })
    }

    fn write(&mut self, text: &[u8]) {
        if let Err(error) = self.file.write_all(text) {
            tracing::error!("{}: {error}; lines of this log are lost", self.path.display());
        }
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => tracing::error!("{}: {error}; logging goes on to the old file", self.path.display()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// The log of Admin requests; few enough to be written one by one.
pub struct AdminLog {
    format: Arc<LogFormat>,
    file: Mutex<(Sink, Lines)>,
}

impl AdminLog {
    /// Opens the file; its folder is made if missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(log: &config::AccessLog, hostname: &str) -> io::Result<Self> {
        let file = Mutex::new((Sink::open(&log.path)?, Lines::new(log.format.clone(), hostname)));
        Ok(Self { format: log.format.clone(), file })
    }

    /// Opens the file again, after it was moved away.
    pub fn reopen(&self) {
        self.locked().0.reopen();
    }

    /// The texts that [`AdminLog::write`] is to be given, in this order.
    pub fn sources(&self) -> &[Source] {
        &self.format.sources
    }

    /// Writes a line.
    pub fn write(&self, figures: Figures, texts: &[Vec<u8>]) {
        let record = Record { figures, texts: texts.iter().map(Vec::as_slice).collect(), tries: Vec::new() };
        let mut text = Vec::with_capacity(256);
        let (sink, lines) = &mut *self.locked();
        lines.push(&record, &mut text);
        sink.write(&text);
    }

    fn locked(&self) -> MutexGuard<'_, (Sink, Lines)> {
        self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
