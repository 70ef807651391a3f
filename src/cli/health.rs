//! Does a running node serve? `GET /status` says so.

use ringway::config::Settings;

use crate::cli::admin;
use crate::cli::admin::{PATIENCE, Question};

/// Where the node answered, or why it is not healthy.
pub fn ask(settings: &Settings) -> Result<String, String> {
    let question = Question { method: "GET", path: "/status", body: None, patience: PATIENCE };
    let answer = admin::ask(settings, &question)?;
    match answer.status() {
        Some(200) => Ok(answer.place),
        _ => {
            let admin::Answer { place, line, .. } = answer;
            Err(format!("the node answers on {place} with \"{line}\"; its error log may say why"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use ringway::config::Sources;

    use super::*;

    /// What `ask` makes of a node that answers `answer` on its unix socket.
    fn asked(answer: &'static str) -> Result<(), String> {
        let prefix = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(prefix.path().join("admin.sock")).unwrap();
        let node = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let n = stream.read(&mut head).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        let flags = [("prefix", prefix.path().to_str().unwrap()), ("admin_token", "s3cret")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings;
        let outcome = ask(&settings).map(|_| ());
        let head = node.join().unwrap();
        assert!(
            head.starts_with("GET /status HTTP/1.1\r\n") && head.contains("\r\nKong-Admin-Token: s3cret\r\n"),
            "{head}"
        );
        outcome
    }

    #[test]
    fn only_a_200_is_healthy() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok(()));
        assert!(asked("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err().contains("503"));
        assert!(asked("HTTP/1.1 401 Unauthorized\r\n\r\n").unwrap_err().contains("admin_token"));
        assert!(asked("garbage").unwrap_err().contains("not HTTP"));
        assert!(asked("").unwrap_err().contains("not HTTP"));
    }
}
