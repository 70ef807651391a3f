//! The servers that the recorded configurations name by their ports.
//! Owns: one server for each placeholder. Always: an echo answers as the recorded one did, down to its field order.

use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::json;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::harness::peer::Accepted;
use crate::harness::peer::Arrived;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

/// All of them.
pub struct Servers {
    pub echo: Peer,
    pub echo2: Peer,
    /// Echoes with status 500.
    pub err500: Peer,
    close: Peer,
    hang: Peer,
    garbage: Peer,
    refused: Port,
    full: Full,
}

impl Servers {
    /// Starts them.
    pub fn start() -> Self {
        Self {
            echo: Peer::scripted(|accepted| echo(accepted, None)),
            echo2: Peer::scripted(|accepted| echo(accepted, None)),
            err500: Peer::scripted(|accepted| echo(accepted, Some(500))),
            close: Peer::scripted(|_| {}),
            hang: Peer::scripted(|accepted| drop(accepted.until_closed())),
            garbage: Peer::scripted(|accepted| {
                if accepted.request().is_some() {
                    accepted.send("garbage not http\r\n");
                }
            }),
            refused: Port::reserve(),
            full: Full::new(),
        }
    }

    /// Their ports by placeholder.
    pub fn ports(&self) -> Vec<(String, String)> {
        let pairs = [
            ("<echo_port>", self.echo.port),
            ("<echo2_port>", self.echo2.port),
            ("<err500_port>", self.err500.port),
            ("<close_port>", self.close.port),
            ("<hang_port>", self.hang.port),
            ("<garbage_port>", self.garbage.port),
            ("<refused_port>", self.refused.number),
            ("<full_port>", self.full.port),
        ];
        pairs.iter().map(|(name, port)| (name.to_string(), port.to_string())).collect()
    }

    /// What arrived at the echoes since the last call, each with the port it arrived at.
    pub fn arrived(&self) -> Vec<(u16, Arrived)> {
        let echoes = [&self.echo, &self.echo2, &self.err500];
        echoes.iter().flat_map(|peer| peer.arrived_by_now().into_iter().map(|arrived| (peer.port, arrived))).collect()
    }
}

/// What an echo says of a request.
pub fn echo_of(port: u16, arrived: &Arrived) -> String {
    let mut words = arrived.line().split(' ');
    let mut word = || words.next().unwrap_or_default();
    let echo = json!({
        "port": port,
        "method": word(),
        "target": word(),
        "version": word(),
        "headers": arrived.headers,
        "body": String::from_utf8_lossy(&arrived.body),
    });
    echo.to_string()
}

/// Answers requests with what they were; their query changes the answer: `status`, `hdr` and `hdr2` (name:value), `size`,
/// `delay` (seconds).
fn echo(accepted: &mut Accepted, status: Option<u16>) {
    let port = accepted.stream.local_addr().map_or(0, |addr| addr.port());
    while let Some(arrived) = accepted.request() {
        let target = arrived.line().split(' ').nth(1).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let arguments: Vec<(&str, String)> = query
            .split('&')
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name, percent_decode_str(value).decode_utf8_lossy().into_owned()))
            .collect();
        let argument = |name: &str| arguments.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        if let Some(seconds) = argument("delay").and_then(|text| text.parse().ok()) {
            std::thread::sleep(Duration::from_secs_f64(seconds));
        }
        let status = status.or_else(|| argument("status")?.parse().ok()).unwrap_or(200);
        let body = match argument("size").and_then(|text| text.parse().ok()) {
            Some(size) => "x".repeat(size),
            None => echo_of(port, &arrived),
        };
        let has_body = !matches!(status, 204 | 304);
        let mut answer = format!(
            "HTTP/1.1 {status} Recorded\r\nServer: echo-upstream\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
             Content-Type: application/json\r\n"
        );
        if has_body {
            answer.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        answer.push_str(&format!("X-Upstream: echo\r\nX-Upstream-Port: {port}\r\n"));
        for field in ["hdr", "hdr2"].into_iter().filter_map(argument) {
            let (name, value) = field.split_once(':').unwrap_or((field, ""));
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
        answer.push_str("\r\n");
        if has_body && !arrived.line().starts_with("HEAD ") {
            answer.push_str(&body);
        }
        if accepted.stream.write_all(answer.as_bytes()).is_err() || argument("hdr") == Some("Connection:close") {
            return;
        }
    }
}

/// A listener whose backlog is taken: a connection to it is neither accepted nor refused.
struct Full {
    port: u16,
    _listener: Socket,
    _taken: Vec<TcpStream>,
}

impl Full {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback has free ports");
        listener.listen(0).expect("a bound socket");
        let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("a bound socket");
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok();
        let taken: Vec<TcpStream> = std::iter::from_fn(connect).take(16).collect();
        assert!(taken.len() < 16, "a backlog of 0 takes any number of connections");
        Self { port: addr.port(), _listener: listener, _taken: taken }
    }
}

/// A name server to which no name is known; its port. It ends with the test's process.
pub fn name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = socket.local_addr().expect("a bound socket").port();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            // RFC 1035 section 4.1: header, then one question: labels, type, class.
            let Some(labels_end) = packet[..len].iter().skip(12).position(|byte| *byte == 0) else { continue };
            let end = (12 + labels_end + 1 + 4).min(len);
            const NO_SUCH_NAME: [u8; 10] = [0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0];
            packet[2..12].copy_from_slice(&NO_SUCH_NAME);
            let _ = socket.send_to(&packet[..end], from);
        }
    });
    port
}
