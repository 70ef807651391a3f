//! Finished-request records -> lines of the access log (spec/proxying.md section 18).
//! Owns: one thread and one file; a data core never waits for it. Never: keeps more than the queue holds.
//! Always: a line is written whole, and no byte of a peer can begin a line of its own.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use base64::Engine;

use crate::http::encode::push_ip;
use crate::http::encode::push_u64;
use crate::metrics::record::Record;
use crate::state::mailbox::Outbox;
use crate::state::mailbox::Records;
use crate::stdx::clock::Civil;
use crate::stdx::clock::month_name;
use crate::stdx::clock::unix_ms;

/// The running log writer.
pub struct AccessLog {
    reopen: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Opens the file (its folder is made if missing) and starts the writer; without a path records are dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(path: Option<PathBuf>, records: Records) -> io::Result<Self> {
        let mut sink = match path {
            Some(path) => Some(Sink { file: open(&path)?, path }),
            None => None,
        };
        let reopen = Arc::new(AtomicBool::new(false));
        let asked = reopen.clone();
        let thread = std::thread::Builder::new().name("ringway-log".into()).spawn(move || {
            let mut text = Vec::new();
            let mut time = LocalTime::default();
            while let Ok(batch) = records.recv() {
                if batch.is_empty() {
                    return;
                }
                let Some(sink) = &mut sink else { continue };
                if asked.swap(false, Ordering::Relaxed) {
                    sink.reopen();
                }
                text.clear();
                let mut rest = &batch[..];
                while let Some(record) = Record::decode(&mut rest) {
                    push_line(&record, &mut time, &mut text);
                }
                if let Err(error) = sink.file.write_all(&text) {
                    tracing::error!("{}: {error}; access log lines are lost", sink.path.display());
                }
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

/// Local time as text, worked out once a second; its distance from UTC is asked for once a minute.
#[derive(Default)]
struct LocalTime {
    minute: u64,
    east_seconds: i64,
    second: u64,
    text: Vec<u8>,
}

impl LocalTime {
    /// `23/Nov/2025:05:37:00 +0000`
    fn text(&mut self, second: u64) -> &[u8] {
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.ask_zone(second);
            let c = Civil::from_unix(second.saturating_add_signed(self.east_seconds));
            let (sign, offset) = (if self.east_seconds < 0 { '-' } else { '+' }, self.east_seconds.unsigned_abs() / 60);
            let (month, hours, minutes) = (month_name(c.month), offset / 60, offset % 60);
            self.text.clear();
            let _ = write!(self.text, "{:02}/{month}/{}:{:02}:{:02}:{:02} ", c.day, c.year, c.hour, c.minute, c.second);
            let _ = write!(self.text, "{sign}{hours:02}{minutes:02}");
        }
        &self.text
    }

    fn ask_zone(&mut self, second: u64) {
        let minute = second / 60 + 1;
        if minute != self.minute {
            self.minute = minute;
            let time = second as libc::time_t;
            // Safety: localtime_r writes into the zeroed structure that it is given and nowhere else.
            self.east_seconds = unsafe {
                let mut parts: libc::tm = std::mem::zeroed();
                libc::localtime_r(&raw const time, &raw mut parts);
                parts.tm_gmtoff
            };
        }
    }
}

fn push_line(record: &Record<'_>, time: &mut LocalTime, out: &mut Vec<u8>) {
    push_ip(out, record.client_ip);
    out.extend_from_slice(b" - ");
    match basic_user(record.authorization) {
        Some(user) => push_escaped(&user, out),
        None => out.push(b'-'),
    }
    push_time(record.unix_ms / 1000, time, out);
    push_rest(record.request_line, record.status, record.bytes_sent, record.referer, record.user_agent, out);
    out.extend_from_slice(b" kong_request_id: \"");
    out.extend_from_slice(&record.request_id);
    out.extend_from_slice(b"\"\n");
}

fn push_time(second: u64, time: &mut LocalTime, out: &mut Vec<u8>) {
    out.extend_from_slice(b" [");
    out.extend_from_slice(time.text(second));
    out.extend_from_slice(b"] ");
}

fn push_rest(line: &[u8], status: u16, bytes_sent: u64, referer: &[u8], user_agent: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(line, out);
    out.extend_from_slice(b"\" ");
    push_u64(out, u64::from(status));
    out.push(b' ');
    push_u64(out, bytes_sent);
    out.extend_from_slice(b" \"");
    push_or_dash(referer, out);
    out.extend_from_slice(b"\" \"");
    push_or_dash(user_agent, out);
    out.push(b'"');
}

/// A finished request of the Admin API. Credentials are no part of it.
pub struct AdminRecord<'a> {
    /// `None`: it came over a unix socket.
    pub peer: Option<IpAddr>,
    pub request_line: &'a [u8],
    pub status: u16,
    pub bytes_sent: u64,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
}

/// The log of Admin requests; few enough to be written one by one.
pub struct AdminLog(Mutex<(Sink, LocalTime)>);

impl AdminLog {
    /// Opens the file; its folder is made if missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let sink = Sink { file: open(path)?, path: path.to_owned() };
        Ok(Self(Mutex::new((sink, LocalTime::default()))))
    }

    /// Opens the file again, after it was moved away.
    pub fn reopen(&self) {
        self.locked().0.reopen();
    }

    /// Writes a line.
    pub fn write(&self, record: &AdminRecord<'_>) {
        let mut text = Vec::with_capacity(256);
        let (sink, time) = &mut *self.locked();
        let _ = match record.peer {
            Some(ip) => write!(text, "{ip} - -"),
            None => write!(text, "unix: - -"),
        };
        push_time(unix_ms() / 1000, time, &mut text);
        let AdminRecord { request_line, status, bytes_sent, referer, user_agent, .. } = *record;
        push_rest(request_line, status, bytes_sent, referer, user_agent, &mut text);
        text.push(b'\n');
        if let Err(error) = sink.file.write_all(&text) {
            tracing::error!("{}: {error}; a line of the Admin log is lost", sink.path.display());
        }
    }

    fn locked(&self) -> MutexGuard<'_, (Sink, LocalTime)> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn push_or_dash(text: &[u8], out: &mut Vec<u8>) {
    match text {
        [] => out.push(b'-'),
        text => push_escaped(text, out),
    }
}

/// As nginx does: quotes, backslashes, controls and bytes above 0x7e as `\xHH`.
fn push_escaped(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f..);
    let mut rest = text;
    loop {
        let plain = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let Some(byte) = rest.get(plain) else { return };
        let _ = write!(out, "\\x{byte:02X}");
        rest = &rest[plain + 1..];
    }
}

fn basic_user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim_ascii()).ok()?;
    let user = decoded.split(|byte| *byte == b':').next()?;
    (!user.is_empty()).then(|| user.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn line(request_line: &[u8], authorization: &[u8], user_agent: &[u8]) -> String {
        let record = Record {
            unix_ms: 1_763_876_220_999,
            client_ip: Ipv4Addr::LOCALHOST.into(),
            request_id: [b'7'; 32],
            status: 200,
            bytes_sent: 12,
            total_ms: 3,
            request_line,
            authorization,
            referer: b"",
            user_agent,
        };
        // A zone that is not asked again within this minute.
        let minute = record.unix_ms / 60_000 + 1;
        let mut time = LocalTime { minute, east_seconds: -3 * 3600 - 30 * 60, ..LocalTime::default() };
        let mut out = Vec::new();
        push_line(&record, &mut time, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let id = "7".repeat(32);
        assert_eq!(
            line(b"GET /x HTTP/1.1", b"", b"curl/8"),
            format!(
                "127.0.0.1 - - [23/Nov/2025:02:07:00 -0330] \"GET /x HTTP/1.1\" 200 12 \"-\" \"curl/8\" kong_request_id: \"{id}\"\n"
            )
        );
    }

    #[test]
    fn the_user_of_basic_credentials_is_shown_and_nothing_else_of_them() {
        let text = line(b"GET / HTTP/1.1", b"Basic YWxpY2U6c2VjcmV0", b"");
        assert!(text.contains(" - alice [") && !text.contains("secret"), "{text}");
        assert!(line(b"GET / HTTP/1.1", b"Bearer abc", b"").contains(" - - ["));
        assert!(line(b"GET / HTTP/1.1", b"Basic !!!", b"").contains(" - - ["));
    }

    #[test]
    fn a_peer_cannot_begin_a_line_or_close_a_quote() {
        let text = line(b"GET /\n\"x\\ HTTP/1.1", b"", b"\xff\x00");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains(r#""GET /\x0A\x22x\x5C HTTP/1.1""#) && text.contains(r#""\xFF\x00""#), "{text}");
    }
}
