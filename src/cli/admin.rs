//! One question to the Admin API of a running node, over its unix socket where it has one.
//! Never: waits without a bound; says where it asked when there is no answer.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway::config::{ListenAddr, Settings};

/// For an answer that takes the node no work to speak of.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// More than any answer that is asked for here: whole configurations.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// What a node is asked.
pub struct Question<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Media type and text.
    pub body: Option<(&'a str, &'a str)>,
    /// The longest silence of the node.
    pub patience: Duration,
}

/// What a node said.
pub struct Answer {
    /// Where it was asked.
    pub place: String,
    /// The first line.
    pub line: String,
    pub body: String,
}

impl Answer {
    /// Its status, if the line has one.
    pub fn status(&self) -> Option<u16> {
        self.line.split(' ').nth(1)?.parse().ok()
    }
}

/// Sends a request and reads the answer.
pub fn ask(settings: &Settings, question: &Question<'_>) -> Result<Answer, String> {
    let Question { method, path, body, patience } = question;
    let listens = || settings.admin_listen.iter().map(|listen| &listen.addr);
    let unix = listens().find(|addr| matches!(addr, ListenAddr::Unix(_)));
    // A port chosen by the kernel is known to the node alone.
    let tcp = listens().find(|addr| matches!(addr, ListenAddr::Tcp(tcp) if tcp.port() != 0));
    let addr = unix.or(tcp).ok_or("the node has no Admin API to ask (admin_listen)")?;
    let token = settings.admin_token.as_ref().map(|token| String::from_utf8_lossy(token.expose()).into_owned());
    let token = token.map_or_else(String::new, |token| format!("Kong-Admin-Token: {token}\r\n"));
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n");
    if let Some((media, text)) = body {
        request.push_str(&format!("Content-Type: {media}\r\nContent-Length: {}\r\n", text.len()));
    }
    request.push_str("\r\n");
    request.push_str(body.map_or("", |(_, text)| text));
    let (line, body) = exchange(addr, &request, *patience)
        .map_err(|error| format!("the node runs, but does not answer on {addr}: {error}; its error log may say why"))?;
    let answer = Answer { place: addr.to_string(), line, body };
    match answer.status() {
        Some(401) => Err(format!("{addr} asks for the node's admin_token; name its configuration with -c")),
        _ => Ok(answer),
    }
}

fn exchange(addr: &ListenAddr, request: &str, patience: Duration) -> std::io::Result<(String, String)> {
    match addr {
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            talk(stream, request)
        }
        ListenAddr::Tcp(addr) => {
            let stream = TcpStream::connect_timeout(&reachable(*addr), PATIENCE)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            talk(stream, request)
        }
    }
}

/// A listener on all addresses is asked on loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), addr.port()),
        _ => addr,
    }
}

/// First line and body.
fn talk(mut stream: impl Read + Write, request: &str) -> std::io::Result<(String, String)> {
    // A node that refuses a body answers before it has read all of it.
    let sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let received = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    if answer.is_empty() {
        sent?;
        received?;
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let line = head.split("\r\n").next().unwrap_or_default();
    if line.starts_with("HTTP/1.") {
        Ok((line.to_owned(), body.to_owned()))
    } else {
        Err(Error::new(ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}
