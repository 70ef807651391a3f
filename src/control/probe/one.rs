//! One probe of one address, and what its outcome counts as (spec/balancer.md section 12).
//! Never: waits longer for a step than the timeout. Always: a connection of its own, closed after the status line.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::balancer::checks::Active;
use crate::balancer::checks::Checks;
use crate::balancer::checks::ProbeKind;
use crate::balancer::health::Outcome;
use crate::balancer::vitals::Evidence;

/// A status line is not longer.
const STATUS_LINE_BYTES_MAX: usize = 1024;

/// What a probe came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    Connected,
    Status(u16),
    NotHttp,
    TimedOut(&'static str),
    Failed(String),
}

/// What is asked, and of whom.
pub struct Probe {
    pub addr: SocketAddr,
    /// What `Host` says.
    pub host: String,
    pub tls: Option<(Arc<ClientConfig>, String)>,
}

/// What a probe counts as; `None`: nothing.
pub fn judge(checks: &Checks, result: Came) -> Option<(Outcome, Evidence)> {
    let error = |text: String| Evidence::Error(Cow::Owned(text));
    match result {
        Came::Connected => Some((Outcome::Success, error("connected".to_owned()))),
        Came::Status(status) => checks.active_status(status).map(|(outcome, _)| (outcome, Evidence::Status(status))),
        Came::NotHttp => Some((Outcome::HttpFailure, error("the answer is not HTTP".to_owned()))),
        Came::TimedOut(step) => Some((Outcome::Timeout, error(format!("{step} timed out")))),
        Came::Failed(why) => Some((Outcome::TcpFailure, error(why))),
    }
}

/// Makes a probe.
pub async fn shoot(active: &Active, probe: &Probe) -> Came {
    match attempt(active, probe).await {
        Ok(result) | Err(result) => result,
    }
}

async fn attempt(active: &Active, probe: &Probe) -> Result<Came, Came> {
    let patience = Duration::from_millis(active.timeout_ms.max(1));
    let stream = step(patience, "connect", TcpStream::connect(probe.addr)).await?;
    if active.kind == ProbeKind::Tcp {
        return Ok(Came::Connected);
    }
    let request = request(active, &probe.host);
    let Some((config, name)) = &probe.tls else { return exchange(stream, &request, patience).await };
    let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
        .map_err(|_| Came::Failed(format!("TLS: {name} is no server name")))?;
    let connecting = TlsConnector::from(config.clone()).connect(name, stream);
    let stream = step(patience, "TLS handshake", connecting).await?;
    exchange(stream, &request, patience).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    patience: Duration,
) -> Result<Came, Came> {
    step(patience, "send", async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    })
    .await?;
    let line = step(patience, "receive", first_line(&mut stream)).await?;
    Ok(status_of(&line).map_or(Came::NotHttp, Came::Status))
}

async fn step<T>(patience: Duration, what: &'static str, work: impl Future<Output = io::Result<T>>) -> Result<T, Came> {
    match tokio::time::timeout(patience, work).await {
        Err(_) => Err(Came::TimedOut(what)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Came::TimedOut(what)),
        Ok(Err(error)) => Err(Came::Failed(format!("{what}: {error}"))),
        Ok(Ok(done)) => Ok(done),
    }
}

/// Up to the end of the first line, or as much as a status line may have.
async fn first_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let mut piece = [0; 256];
    while !line.contains(&b'\n') && line.len() < STATUS_LINE_BYTES_MAX {
        match stream.read(&mut piece).await? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer")),
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    Ok(line)
}

fn request(active: &Active, host: &str) -> String {
    let mut request = format!("GET {} HTTP/1.0\r\n", active.http_path);
    for (name, values) in active.headers.iter() {
        // What would break the request apart is left out.
        for value in values.iter().filter(|value| !value.contains(['\r', '\n', '\0'])) {
            request += &format!("{name}: {value}\r\n");
        }
    }
    request + &format!("Host: {host}\r\n\r\n")
}

fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/")?;
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let (version, rest) = rest.split_at(space);
    let is_version = !version.is_empty() && version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let digits = rest.get(1..4).filter(|digits| is_version && digits.iter().all(u8::is_ascii_digit))?;
    let ends = rest.get(4).is_none_or(|byte| byte.is_ascii_whitespace());
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::checks::checks_for_test;

    #[test]
    fn a_status_line_is_told_from_anything_else() {
        for (line, want) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/2 204 \n", Some(204)),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/1.1 2000\r\n", None),
            ("HTTP/ 200\r\n", None),
            ("ICY 200 OK\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("\n", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), want, "{line:?}");
        }
    }

    #[test]
    fn outcomes_count_as_the_specification_says() {
        let checks = checks_for_test();
        let outcome = |result| judge(&checks, result).map(|(outcome, _)| outcome);
        for (result, want) in [
            (Came::Connected, Some(Outcome::Success)),
            (Came::Status(200), Some(Outcome::Success)),
            (Came::Status(429), Some(Outcome::HttpFailure)),
            (Came::Status(418), None),
            (Came::NotHttp, Some(Outcome::HttpFailure)),
            (Came::TimedOut("connect"), Some(Outcome::Timeout)),
            (Came::Failed("refused".to_owned()), Some(Outcome::TcpFailure)),
        ] {
            assert_eq!(outcome(result), want);
        }
    }

    #[test]
    fn a_request_has_one_line_for_each_value_and_ends_with_the_host() {
        let mut active = checks_for_test().active;
        active.headers = [("x-a".to_owned(), vec!["1".to_owned(), "2\r\nx: y".to_owned(), "3".to_owned()])].into();
        assert_eq!(request(&active, "a.test"), "GET / HTTP/1.0\r\nx-a: 1\r\nx-a: 3\r\nHost: a.test\r\n\r\n");
    }
}
