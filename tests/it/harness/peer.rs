//! An upstream that does what a test tells it, byte by byte.
//! Owns: a listener and one thread for each connection. Always: what arrives is recorded and can be awaited.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use socket2::SockRef;

use crate::harness::PATIENCE;
use crate::harness::client::find;

/// The upstream.
pub struct Peer {
    pub port: u16,
    addr: SocketAddr,
    arrivals: Mutex<mpsc::Receiver<Arrived>>,
    connections: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Request line and fields with the empty line.
    pub head: String,
    pub headers: Vec<(String, String)>,
    /// The body without chunked coding.
    pub body: Vec<u8>,
    /// What stood in front of each chunk's data; empty for other bodies.
    pub chunk_sizes: Vec<usize>,
}

/// One accepted connection, in the hands of a script.
pub struct Accepted {
    pub stream: TcpStream,
    rest: Vec<u8>,
    arrivals: mpsc::Sender<Arrived>,
}

impl Peer {
    /// Runs `script` on each connection, on a thread of its own.
    pub fn scripted(script: impl Fn(&mut Accepted) + Send + Sync + 'static) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").expect("loopback has free ports"), script)
    }

    /// As [`Peer::scripted`], on a port reserved before.
    #[track_caller]
    pub fn scripted_at(port: u16, script: impl Fn(&mut Accepted) + Send + Sync + 'static) -> Self {
        Self::listening(TcpListener::bind(("127.0.0.1", port)).expect("a reserved port is free"), script)
    }

    /// Answers every request with the same bytes, as long as the connection lives.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::scripted(
            move |accepted| {
                while accepted.request().is_some() && accepted.stream.write_all(&bytes).is_ok() {}
            },
        )
    }

    /// Answers every request with 200 and `hello`.
    pub fn hello() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    }

    /// As [`Peer::scripted`], on a listener made by the test.
    pub fn listening(listener: TcpListener, script: impl Fn(&mut Accepted) + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().expect("a bound socket");
        let (sender, arrivals) = mpsc::channel();
        let (connections, closing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let script = Arc::new(script);
        let (count, stop) = (connections.clone(), closing.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                count.fetch_add(1, Ordering::SeqCst);
                let (script, arrivals) = (script.clone(), sender.clone());
                std::thread::spawn(move || script(&mut Accepted { stream, rest: Vec::new(), arrivals }));
            }
        });
        Self { port: addr.port(), addr, arrivals: Mutex::new(arrivals), connections, closing }
    }

    /// Waits for the next request that arrives.
    #[track_caller]
    pub fn arrived(&self) -> Arrived {
        let next = self.arrivals.lock().expect("no test panics while it holds this").recv_timeout(PATIENCE);
        next.unwrap_or_else(|_| panic!("no request arrived at the upstream"))
    }

    /// The requests that have arrived by now and were not asked for yet.
    pub fn arrived_by_now(&self) -> Vec<Arrived> {
        self.arrivals.lock().expect("no test panics while it holds this").try_iter().collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then ends and closes the port.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Accepted {
    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 64 << 10];
        let count = self.stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        self.rest.extend_from_slice(&piece[..count]);
        Some(())
    }

    /// Reads a whole request and records it. `None`: the connection ended.
    pub fn request(&mut self) -> Option<Arrived> {
        let mut arrived = self.head()?;
        self.body(&mut arrived)?;
        self.record(&arrived);
        Some(arrived)
    }

    /// Reads a head, records nothing.
    pub fn head(&mut self) -> Option<Arrived> {
        let end = loop {
            match find(&self.rest, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more()?,
            }
        };
        let head = String::from_utf8_lossy(&self.rest.drain(..end).collect::<Vec<u8>>()).into_owned();
        let fields = head.trim_end().split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Some(Arrived { head, headers, body: Vec::new(), chunk_sizes: Vec::new() })
    }

    /// Tells the test of a request.
    pub fn record(&self, arrived: &Arrived) {
        let _ = self.arrivals.send(arrived.clone());
    }

    /// Reads the body that the head announces.
    pub fn body(&mut self, arrived: &mut Arrived) -> Option<()> {
        if arrived.header("transfer-encoding").is_some() {
            loop {
                let line_end = loop {
                    match find(&self.rest, b"\r\n") {
                        Some(at) => break at,
                        None => self.more()?,
                    }
                };
                let size = std::str::from_utf8(&self.rest[..line_end]).ok();
                let size = size.and_then(|text| usize::from_str_radix(text, 16).ok())?;
                let begin = line_end + 2;
                while self.rest.len() < begin + size + 2 {
                    self.more()?;
                }
                arrived.chunk_sizes.push(size);
                arrived.body.extend_from_slice(&self.rest[begin..begin + size]);
                self.rest.drain(..begin + size + 2);
                if size == 0 {
                    return Some(());
                }
            }
        }
        let length = arrived.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while self.rest.len() < length {
            self.more()?;
        }
        arrived.body = self.rest.drain(..length).collect();
        Some(())
    }

    /// Fills `into`, or as much of it as comes before the end. Answers how much.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        while self.rest.len() < into.len() && self.more().is_some() {}
        let count = self.rest.len().min(into.len());
        into[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        count
    }

    /// Reads so many bytes and keeps none.
    pub fn drop_bytes(&mut self, mut count: usize) -> Option<()> {
        loop {
            let taken = count.min(self.rest.len());
            self.rest.drain(..taken);
            count -= taken;
            if count == 0 {
                return Some(());
            }
            self.more()?;
        }
    }

    /// Writes bytes; the gateway may have closed meanwhile.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the sending side.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset instead of a regular end.
    pub fn reset(&self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Waits until the gateway closes the connection, throwing away what it sends.
    pub fn until_closed(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 << 10];
        while self.stream.read(&mut piece)? > 0 {}
        Ok(())
    }
}

impl Arrived {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
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
}
