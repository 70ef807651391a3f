//! A client that writes and reads raw bytes, over TCP or a unix socket.
//! Never: hides how a response ended. Always: every wait is bounded.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::harness::PATIENCE;

/// A connection to the gateway.
pub struct Client {
    pub stream: TcpStream,
    /// Received behind what was read so far.
    pub rest: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Head with its empty line.
    pub head: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ended before the body did.
    pub truncated: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Finished,
    Reset,
    /// It is still open after the patience of tests.
    Open,
}

impl Client {
    /// Connects to a port of this machine.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::connect_to(("127.0.0.1", port))
    }

    /// Connects to an address.
    #[track_caller]
    pub fn connect_to(addr: (&str, u16)) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr:?}: {error}"));
        stream.set_nodelay(true).expect("a TCP socket");
        Self::of(stream)
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        // Reading, writing and shutting down are the same calls for both kinds of sockets.
        Ok(Self::of(TcpStream::from(OwnedFd::from(UnixStream::connect(path)?))))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        Self { stream, rest: Vec::new() }
    }

    /// Writes all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the gateway takes what is sent");
    }

    /// Writes what the other side still takes; it may close meanwhile.
    pub fn send_what_is_taken(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends the sending side; the other may have closed already.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// A request and its response.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// Reads more bytes; 0 at the end of the stream.
    fn more(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 << 10];
        let count = self.stream.read(&mut piece)?;
        self.rest.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    #[track_caller]
    fn need_more(&mut self, what: &str) {
        match self.more() {
            Ok(0) => panic!("the connection ended before {what}; received: {}", self.rest.escape_ascii()),
            Ok(_) => {}
            Err(error) => panic!("no {what}: {error}; received: {}", self.rest.escape_ascii()),
        }
    }

    /// Reads a head up to its empty line.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        let end = loop {
            match find(&self.rest, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.need_more("a response head"),
            }
        };
        let head: Vec<u8> = self.rest.drain(..end).collect();
        Response::of_head(&String::from_utf8_lossy(&head))
    }

    /// Reads the final response to a request that is not HEAD; interim ones are passed over.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        loop {
            let mut response = self.head();
            if response.status >= 200 {
                self.body_of(&mut response);
                return response;
            }
        }
    }

    /// Reads the body that the head announces.
    #[track_caller]
    pub fn body_of(&mut self, response: &mut Response) {
        if matches!(response.status, 204 | 304) {
            return;
        }
        if response.header("transfer-encoding").is_some() {
            self.chunked_body(response);
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().expect("a Content-Length of digits");
            while self.rest.len() < length {
                match self.more() {
                    Ok(count) if count > 0 => {}
                    Ok(_) => break,
                    Err(error) if is_timeout(&error) => panic!("the body stalls at {} of {length}", self.rest.len()),
                    Err(_) => break,
                }
            }
            response.truncated = self.rest.len() < length;
            response.body = self.rest.drain(..length.min(self.rest.len())).collect();
        } else {
            response.truncated = self.read_to_end() == End::Reset;
            response.body = std::mem::take(&mut self.rest);
        }
    }

    #[track_caller]
    fn chunked_body(&mut self, response: &mut Response) {
        loop {
            let line_end = loop {
                match find(&self.rest, b"\r\n") {
                    Some(at) => break at,
                    None if self.goes_on() => {}
                    None => return response.truncated = true,
                }
            };
            let line = String::from_utf8_lossy(&self.rest[..line_end]).into_owned();
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("{line:?} is no chunk size"));
            let (begin, end) = (line_end + 2, line_end + 2 + size);
            while self.rest.len() < end + 2 {
                if !self.goes_on() {
                    response.body.extend_from_slice(&self.rest[begin.min(self.rest.len())..]);
                    return response.truncated = true;
                }
            }
            assert_eq!(&self.rest[end..end + 2], b"\r\n", "a chunk ends with CRLF");
            response.body.extend_from_slice(&self.rest[begin..end]);
            self.rest.drain(..end + 2);
            if size == 0 {
                return;
            }
        }
    }

    #[track_caller]
    fn goes_on(&mut self) -> bool {
        match self.more() {
            Ok(count) => count > 0,
            Err(error) => {
                assert!(!is_timeout(&error), "the body stalls; received: {}", self.rest.len());
                false
            }
        }
    }

    /// Reads until the connection ends; what came stands in `rest`.
    pub fn read_to_end(&mut self) -> End {
        loop {
            match self.more() {
                Ok(0) => return End::Finished,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return End::Open,
                Err(_) => return End::Reset,
            }
        }
    }

    /// Asserts that the connection ends without another byte.
    #[track_caller]
    pub fn must_end(&mut self) {
        let end = self.read_to_end();
        assert!(self.rest.is_empty(), "bytes came instead of an end: {}", self.rest.escape_ascii());
        assert_ne!(end, End::Open, "the connection was to be closed");
    }
}

impl Response {
    fn of_head(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let pairs = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no header"));
            (name.to_owned(), value.trim().to_owned())
        });
        Self {
            status: status.unwrap_or_else(|| panic!("{line:?} is no status line")),
            head: head.to_owned(),
            headers: pairs.collect(),
            body: Vec::new(),
            truncated: false,
        }
    }

    /// The only value of a header; `None` without one.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers(name);
        assert!(values.len() < 2, "{name} comes {} times: {}", values.len(), self.head);
        values.first().copied()
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}{}", self.head, self.text()))
    }

    /// Asserts the status; shows the response if it is another.
    #[track_caller]
    pub fn must_be(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.text());
        self
    }
}

/// Where `what` begins in `bytes`.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Parses a complete response, as curl prints it with `-i`.
#[track_caller]
pub fn parse_printed(bytes: &[u8]) -> Response {
    let mut rest = bytes;
    loop {
        let end = find(rest, b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {}", bytes.escape_ascii()));
        let mut response = Response::of_head(&String::from_utf8_lossy(&rest[..end + 4]));
        rest = &rest[end + 4..];
        if response.status >= 200 {
            response.body = rest.to_vec();
            return response;
        }
    }
}
