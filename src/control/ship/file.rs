//! file-log: lines of JSON at the end of a file. Never: writes on a thread that others wait for.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::Mutex;

use hyper::body::Bytes;

use crate::control::ship::outlet::Way;
use crate::control::ship::outlet::as_json;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::plugins::file_log::FileLog;
use crate::plugins::queue::QueueRules;

/// Lines that may share one write.
const LINES_MAX: usize = 1000;

pub fn way(config: &FileLog) -> Way {
    let deliver = Arc::new(Appender { config: config.clone(), file: Arc::default() });
    Way { rules: QueueRules::plain(LINES_MAX), deliver, format: as_json() }
}

struct Appender {
    config: FileLog,
    file: Arc<Mutex<Option<File>>>,
}

impl Deliver for Appender {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        let mut text = Vec::with_capacity(batch.iter().map(|line| line.len() + 1).sum());
        for line in batch {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        let (file, config) = (self.file.clone(), self.config.clone());
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || append(&file, &config, &text)).await;
            written.unwrap_or_else(|error| Err(error.to_string()))
        })
    }
}

fn append(file: &Mutex<Option<File>>, config: &FileLog, text: &[u8]) -> Result<(), String> {
    let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if config.reopen {
        *file = None;
    }
    let named = |error: std::io::Error| format!("{}: {error}", config.path.display());
    let open = match file.take() {
        Some(open) => open,
        None => OpenOptions::new().append(true).create(true).mode(0o644).open(&config.path).map_err(named)?,
    };
    // One write, so that lines of several writers do not mix; a file that failed is opened anew.
    file.insert(open).write_all(text).map_err(|error| {
        *file = None;
        named(error)
    })
}
