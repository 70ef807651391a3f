//! One question to a running node: `GET /status` on its Admin API, over the unix socket where it has one.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway::config::{ListenAddr, Settings};

const PATIENCE: Duration = Duration::from_secs(5);

/// Enough of the answer for its first line.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Where the node answered, or why it is not healthy.
pub fn ask(settings: &Settings) -> Result<String, String> {
    let listens = || settings.admin_listen.iter().map(|listen| &listen.addr);
    let unix = listens().find(|addr| matches!(addr, ListenAddr::Unix(_)));
    // A port chosen by the kernel is known to the node alone.
    let tcp = listens().find(|addr| matches!(addr, ListenAddr::Tcp(tcp) if tcp.port() != 0));
    let addr = unix.or(tcp).ok_or("the node has no Admin API to ask (admin_listen)")?;
    let token = settings.admin_token.as_ref().map(|token| String::from_utf8_lossy(token.expose()).into_owned());
    let line = status_line(addr, token.as_deref())
        .map_err(|error| format!("the node runs, but does not answer on {addr}: {error}; its error log may say why"))?;
    match line.split(' ').nth(1) {
        Some("200") => Ok(addr.to_string()),
        Some("401") => Err(format!("{addr} asks for the node's admin_token; name its configuration with -c")),
        _ => Err(format!("the node answers on {addr} with \"{line}\"; its error log may say why")),
    }
}

fn status_line(addr: &ListenAddr, token: Option<&str>) -> std::io::Result<String> {
    match addr {
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, token)
        }
        ListenAddr::Tcp(addr) => {
            let stream = TcpStream::connect_timeout(&reachable(*addr), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, token)
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

fn exchange(mut stream: impl Read + Write, token: Option<&str>) -> std::io::Result<String> {
    let token = token.map_or_else(String::new, |token| format!("Kong-Admin-Token: {token}\r\n"));
    let request = format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    if line.starts_with(b"HTTP/1.") {
        Ok(String::from_utf8_lossy(line).into_owned())
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}

#[cfg(test)]
mod tests {
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
