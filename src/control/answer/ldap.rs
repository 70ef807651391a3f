//! Binds to LDAP servers (RFC 4511; spec/plugins.md B.7).
//! Owns: idle connections, by server. Never: sends a password over a connection that should be secret and is not.
//! Always: a server that fails is left alone for [`crate::limits::LDAP_REST_MS`], so that requests do not each wait for it;
//! that it fails, and that it answers again, is logged once.
//!
//! Two requests of the protocol are all that is needed, so there is no client library here: those at hand open their
//! connections themselves, around the names and the trust of this node, and read answers without a bound.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::control::reach::Reach;
use crate::control::reach::Stream;
use crate::control::reach::Tls;
use crate::entity::der;
use crate::limits;
use crate::plugins::ldap::LdapBind;
use crate::plugins::ldap::LdapServer;
use crate::plugins::ldap::LdapTls;

/// The servers that are asked.
pub struct Ldap {
    reach: Arc<Reach>,
    lines: Mutex<HashMap<Arc<LdapServer>, Arc<Line>>>,
}

/// The way to one server.
struct Line {
    idle: Mutex<Vec<Connection>>,
    /// For each connection that may be open.
    turns: Semaphore,
    fails: AtomicBool,
    /// Until when it is not asked, and why.
    rests: Mutex<Option<(Instant, Arc<str>)>>,
}

struct Connection {
    stream: Box<dyn Stream>,
    /// Number of the last message sent.
    last_message: u8,
    last_used: Instant,
}

/// What a server said to a request.
struct Said {
    code: u8,
    text: String,
}

const SUCCESS: u8 = 0;
/// Codes that say nothing of the password: a stronger connection is wanted, or the server cannot look just now.
const NO_VERDICT: &[u8] = &[8, 13, 51, 52];

impl Ldap {
    /// Opens connections when it is first asked.
    pub fn new(reach: Arc<Reach>) -> Self {
        Self { reach, lines: Mutex::default() }
    }

    /// Whether name and password belong together.
    ///
    /// # Errors
    /// The server cannot be reached, does not answer in time, or does not decide.
    pub async fn bind(self: &Arc<Self>, bind: &LdapBind) -> Result<bool, Arc<str>> {
        let line = self.line(&bind.server);
        if let Some((until, why)) = &*lock(&line.rests)
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let result = self.try_bind(&line, bind).await.map_err(Arc::<str>::from);
        let (host, port) = (&bind.server.host, bind.server.port);
        match &result {
            Ok(_) if line.fails.swap(false, Ordering::Relaxed) => tracing::info!("ldap {host}:{port} answers again"),
            Ok(_) => {}
            Err(why) => {
                let until = Instant::now() + Duration::from_millis(limits::LDAP_REST_MS);
                *lock(&line.rests) = Some((until, why.clone()));
                if !line.fails.swap(true, Ordering::Relaxed) {
                    tracing::error!("ldap {host}:{port}: {why}");
                }
            }
        }
        result
    }

    async fn try_bind(&self, line: &Line, bind: &LdapBind) -> Result<bool, String> {
        let _turn = line.turns.acquire().await.map_err(|_| "closed")?;
        let patience = Duration::from_millis(bind.server.timeout_ms);
        let idle = lock(&line.idle).pop();
        if let Some(mut connection) = idle {
            // It may have been closed meanwhile; then a new one is as good.
            if let Ok(said) = in_time(patience, connection.bind(bind)).await {
                return line.decide(connection, said);
            }
        }
        let mut connection = in_time(patience, self.open(&bind.server, patience)).await?;
        let said = in_time(patience, connection.bind(bind)).await?;
        line.decide(connection, said)
    }

    async fn open(&self, server: &LdapServer, patience: Duration) -> Result<Connection, String> {
        let tls = Tls { verify: server.verify, server_name: &server.host };
        let at_once = (server.tls == LdapTls::Ldaps).then_some(tls);
        let stream = self.reach.connect(&server.host, server.port, at_once, patience).await.map_err(text)?;
        let mut connection = Connection { stream, last_message: 0, last_used: Instant::now() };
        if server.tls == LdapTls::StartTls {
            let said = connection.ask(START_TLS, STARTED_TLS).await?;
            if said.code != SUCCESS {
                return Err(format!("it does not begin TLS: code {} {}", said.code, said.text));
            }
            connection.stream = self.reach.secure(connection.stream, tls).await.map_err(text)?;
        }
        Ok(connection)
    }

    /// The way to a server. One that nobody uses is given up.
    fn line(self: &Arc<Self>, server: &Arc<LdapServer>) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(server) {
            return line.clone();
        }
        let line = Arc::new(Line {
            idle: Mutex::default(),
            turns: Semaphore::new(limits::LDAP_CONNECTIONS_MAX),
            fails: AtomicBool::new(false),
            rests: Mutex::default(),
        });
        lines.insert(server.clone(), line.clone());
        tokio::spawn(give_up_unused(Arc::downgrade(self), server.clone()));
        line
    }
}

/// Closes connections that nobody uses, until the configurations that name the server have gone.
async fn give_up_unused(ldap: Weak<Ldap>, server: Arc<LdapServer>) {
    let keepalive = Duration::from_millis(server.keepalive_ms);
    loop {
        tokio::time::sleep(Duration::from_millis(limits::LDAP_LOOK_MS)).await;
        let Some(ldap) = ldap.upgrade() else { return };
        let mut lines = lock(&ldap.lines);
        let Some(line) = lines.get(&server) else { return };
        lock(&line.idle).retain(|connection| connection.last_used.elapsed() < keepalive);
        // One is held by the map, one here: nobody else will ask under this very server again.
        if Arc::strong_count(&server) == 2 && Arc::strong_count(line) == 1 {
            lines.remove(&server);
            return;
        }
    }
}

impl Line {
    fn decide(&self, mut connection: Connection, said: Said) -> Result<bool, String> {
        if NO_VERDICT.contains(&said.code) {
            return Err(format!("it does not decide: code {} {}", said.code, said.text));
        }
        connection.last_used = Instant::now();
        lock(&self.idle).push(connection);
        Ok(said.code == SUCCESS)
    }
}

/// Tags of requests and of their answers.
const BIND: u8 = 0x60;
const BOUND: u8 = 0x61;
const EXTENDED_ANSWER: u8 = 0x78;
const ENUMERATED: u8 = 0x0a;
const CONTEXT_STRING_0: u8 = 0x80;

const START_TLS: &[u8] = b"\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const STARTED_TLS: u8 = EXTENDED_ANSWER;

impl Connection {
    async fn bind(&mut self, bind: &LdapBind) -> Result<Said, String> {
        let version = [der::INTEGER, 1, 3];
        let name = value(der::OCTET_STRING, bind.name.as_bytes());
        let password = value(CONTEXT_STRING_0, bind.password.expose());
        self.ask(&value(BIND, &[&version[..], &name, &password].concat()), BOUND).await
    }

    /// Sends a request and waits for the answer with that tag.
    async fn ask(&mut self, request: &[u8], answer: u8) -> Result<Said, String> {
        self.last_message = self.last_message % 100 + 1;
        let number = [der::INTEGER, 1, self.last_message];
        let message = value(der::SEQUENCE, &[&number[..], request].concat());
        self.stream.write_all(&message).await.map_err(text)?;
        self.stream.flush().await.map_err(text)?;
        let arrived = self.message().await?;
        said(&arrived, self.last_message, answer).ok_or_else(|| "what it answers is not what it was asked".to_owned())
    }

    /// The next message, with its tag and length.
    async fn message(&mut self) -> Result<Vec<u8>, String> {
        let mut message = vec![0; 2];
        self.stream.read_exact(&mut message).await.map_err(text)?;
        let length = match message[1] {
            short @ 0..=0x7f => usize::from(short),
            long @ 0x81..=0x84 => {
                let mut digits = vec![0; usize::from(long & 0x7f)];
                self.stream.read_exact(&mut digits).await.map_err(text)?;
                message.extend_from_slice(&digits);
                digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
            }
            _ => return Err("it does not speak LDAP".to_owned()),
        };
        if length > limits::LDAP_ANSWER_BYTES_MAX {
            return Err(format!("it announces an answer of {length} bytes"));
        }
        let start = message.len();
        message.resize(start + length, 0);
        self.stream.read_exact(&mut message[start..]).await.map_err(text)?;
        Ok(message)
    }
}

/// A value with its tag and length (X.690).
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => bytes.push(short),
        _ => {
            bytes.push(0x84);
            bytes.extend_from_slice(&(content.len() as u32).to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// What a message says; `None`: it is not the answer with that number and tag.
fn said(message: &[u8], number: u8, answer: u8) -> Option<Said> {
    let mut parts = der::sequence(message)?;
    if parts.next()?.unsigned()? != [number] {
        return None;
    }
    let mut parts = der::parts(parts.next()?.content(answer)?);
    let [code] = parts.next()?.content(ENUMERATED)? else { return None };
    let _matched_name = parts.next()?;
    let text = parts.next()?.content(der::OCTET_STRING)?;
    let text = String::from_utf8_lossy(text).chars().filter(|letter| !letter.is_control()).take(200).collect();
    Some(Said { code: *code, text })
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left a whole value behind.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::secret::Hidden;
    use tokio::io::DuplexStream;

    fn connection(stream: DuplexStream) -> Connection {
        Connection { stream: Box::new(stream), last_message: 0, last_used: Instant::now() }
    }

    fn bind(password: &[u8]) -> LdapBind {
        let server = LdapServer {
            host: "h".into(),
            port: 1,
            tls: LdapTls::Never,
            verify: false,
            timeout_ms: 1,
            keepalive_ms: 1,
        };
        LdapBind { server: Arc::new(server), name: "cn=a".into(), password: Hidden::new(password) }
    }

    /// What a bind becomes when the server sends that.
    async fn answered(bytes: &[u8]) -> Result<u8, String> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(bytes).await.unwrap();
        drop(far.shutdown().await);
        connection(near).bind(&bind(b"p")).await.map(|said| said.code)
    }

    #[tokio::test]
    async fn a_bind_is_one_message() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00").await.unwrap();
        assert_eq!(connection(near).bind(&bind(b"pw")).await.map(|said| said.code), Ok(49));
        let mut sent = [0; 20];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw");
    }

    #[tokio::test]
    async fn lengths_may_be_written_in_the_long_form() {
        let long = b"\x30\x84\0\0\0\x10\x02\x01\x01\x61\x84\0\0\0\x07\x0a\x01\x00\x04\x00\x04\x00";
        assert_eq!(answered(long).await, Ok(0));
        assert_eq!(value(4, &[7; 200])[..6], [4, 0x84, 0, 0, 0, 200]);
    }

    #[tokio::test]
    async fn a_server_that_lies_is_an_error_and_no_more() {
        let lies: [&[u8]; 9] = [
            b"",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x80\0\0",
            b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x02\x00\x04\x00\x04\x00",
            b"\x30\x05\x02\x01\x01\x61\x07",
            b"\x30\x00",
        ];
        for lie in lies {
            assert!(answered(lie).await.is_err(), "{lie:?}");
        }
    }
}
