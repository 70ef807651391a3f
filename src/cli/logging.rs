//! The log of what the node has to say: one line each, to the error log and to standard error.
//! Owns: the format (time, level, message, fields, request id last as Kong has it), the file, the level.
//! Always: one event is one line, whatever bytes a message carries.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ringway::config::{LogLevel, Settings};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The log of this process: what may still be changed while it runs.
#[derive(Clone)]
pub struct Log {
    level: reload::Handle<Targets, tracing_subscriber::Registry>,
    sink: Sink,
}

impl Log {
    /// Opens the file anew, after it was moved away (log rotation, SIGUSR1).
    pub fn reopen(&self) -> io::Result<()> {
        self.sink.reopen()
    }

    /// Changes the least severe level that is logged.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only once the subscriber is gone, which lives as long as the process.
        let _ = self.level.reload(targets(level));
    }
}

/// Starts logging for the whole process. Called once.
pub fn init(settings: &Settings) -> Result<Log, String> {
    let sink = Sink::open(settings.proxy_error_log.as_deref()).map_err(|error| {
        let path = settings.proxy_error_log.as_deref().unwrap_or(Path::new(""));
        format!("cannot open the log {}: {error}; choose another with proxy_error_log", path.display())
    })?;
    let (filter, level) = reload::Layer::new(targets(settings.log_level));
    let layer = tracing_subscriber::fmt::layer().event_format(OneLine).with_writer(sink.clone());
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|error| format!("logging: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log { level, sink })
}

/// A panic costs one request; the log says where it was, in one line, for the report that should follow.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let what = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
    tracing::error!("internal error at {place} in {}: {what}", thread.name().unwrap_or("a thread"));
}

/// Libraries are heard from warnings on, or one step later than we are when debugging.
fn targets(level: LogLevel) -> Targets {
    let (ours, theirs) = match level {
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Info | LogLevel::Notice => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => {
            (LevelFilter::ERROR, LevelFilter::ERROR)
        }
    };
    Targets::new().with_target("ringway", ours).with_default(theirs)
}

/// The file, shared by all threads, and standard error beside it.
#[derive(Clone)]
struct Sink {
    path: Option<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
}

impl Sink {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(append).transpose()?;
        Ok(Self { path: path.map(Path::to_owned), file: Arc::new(Mutex::new(file)) })
    }

    fn reopen(&self) -> io::Result<()> {
        let file = self.path.as_deref().map(append).transpose()?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Sink {
    /// Called with one whole line. A log that cannot be written must not stop the node, so errors end here.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        if let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = file.write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// `2026-01-02T03:04:05.678901Z [warn] message key=value, request_id: "..."`.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        SystemTime.format_time(&mut out)?;
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writeln!(out, " [{level}] {}", parts.line())
    }
}

/// The fields of one event, with those that have a place of their own set apart.
#[derive(Default)]
struct Parts {
    message: String,
    others: String,
    request_id: Option<String>,
}

impl Parts {
    fn line(self) -> String {
        let mut line = self.message;
        line.push_str(&self.others);
        if let Some(id) = self.request_id {
            let _ = write!(line, ", request_id: \"{id}\"");
        }
        one_line(&line)
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "request_id" => self.request_id = Some(value.to_owned()),
            name => {
                let _ = write!(self.others, " {name}={value}");
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Control characters are escaped, so that a peer's bytes in a message cannot forge a line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the log after `events` at `level`.
    fn logged(level: LogLevel, events: impl FnOnce(&Log)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        let sink = Sink::open(Some(&path)).unwrap();
        let (filter, handle) = reload::Layer::new(targets(level));
        let layer = tracing_subscriber::fmt::layer().event_format(OneLine).with_writer(sink.clone());
        let log = Log { level: handle, sink };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), || events(&log));
        std::fs::read_to_string(&path).unwrap()
    }

    fn without_time(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.split_once(' ').expect(line).1).collect()
    }

    #[test]
    fn an_event_is_a_line_with_the_request_id_last() {
        let text = logged(LogLevel::Notice, |_| {
            tracing::warn!(request_id = "ab12", tries = 2, "no answer from {}", "10.0.0.1");
            tracing::error!("plain");
        });
        assert_eq!(
            without_time(&text),
            ["[warn] no answer from 10.0.0.1 tries=2, request_id: \"ab12\"", "[error] plain"]
        );
        let time = text.split(' ').next().unwrap();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }

    #[test]
    fn control_characters_cannot_start_a_line() {
        let text = logged(LogLevel::Notice, |_| tracing::warn!("a\r\n2026 [error] forged \u{1b}[2J"));
        assert_eq!(without_time(&text), ["[warn] a\\r\\n2026 [error] forged \\u{1b}[2J"]);
    }

    #[test]
    fn levels_are_those_configured_and_may_change() {
        let text = logged(LogLevel::Error, |log| {
            tracing::warn!("one");
            log.set_level(LogLevel::Debug);
            tracing::debug!("two");
            tracing::debug!(target: "sqlx", "three");
            log.set_level(LogLevel::Notice);
            tracing::debug!("four");
            tracing::info!("five");
        });
        assert_eq!(without_time(&text), ["[debug] two", "[info] five"]);
    }

    #[test]
    fn a_rotated_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("error.log"), directory.path().join("error.log.1"));
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.reopen().unwrap();
        sink.write_all(b"two\n").unwrap();
        let texts = [&old, &path].map(|file| std::fs::read_to_string(file).unwrap());
        assert_eq!(texts, ["one\n", "two\n"]);
    }
}
