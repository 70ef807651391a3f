//! An HTTP/1.1 client for one server: connections that are kept, a bound on every wait.
//! Never: follows a redirect, reads more of an answer than it has to.
//! Always: an idle connection that the server has closed costs no request.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::HeaderMap;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::control::reach::Reach;
use crate::control::reach::Stream;
use crate::control::reach::Tls;
use crate::control::ship::World;
use crate::limits;
use crate::plugins::endpoint::Endpoint;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    pub send: Duration,
    pub read: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
}

/// A server.
pub struct Server {
    reach: Arc<Reach>,
    endpoint: Endpoint,
    /// Whether the certificate of the server has to be good.
    verify: bool,
    patience: Patience,
    idle: Mutex<Vec<(Instant, SendRequest<Full<Bytes>>)>>,
}

/// A request, apart from what the server's own URL says.
pub struct Ask<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [(String, String)],
    pub body: Bytes,
}

/// What a server said.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Server {
    /// The server of a URL; over TLS its certificate is looked at only if `verify`.
    pub fn new(endpoint: &Endpoint, verify: bool, patience: Patience, world: &World) -> Self {
        Self { reach: world.reach.clone(), endpoint: endpoint.clone(), verify, patience, idle: Mutex::default() }
    }

    /// Sends a request, reads the answer to its end and tells its status.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<StatusCode, String> {
        self.fetch(ask).await.map(|answer| answer.status)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub async fn fetch(&self, ask: &Ask<'_>) -> Result<Answer, String> {
        while let Some(mut kept) = self.take_idle() {
            let request = self.request(ask)?;
            match self.exchange(&mut kept, request).await {
                Ok(answer) => return Ok(self.keep(kept, answer)),
                // Closed while it was idle: the request has not been seen.
                Err(Trouble::NotSent) => {}
                Err(Trouble::Failed(why)) => return Err(why),
            }
        }
        let mut fresh = self.connect().await?;
        match self.exchange(&mut fresh, self.request(ask)?).await {
            Ok(answer) => Ok(self.keep(fresh, answer)),
            Err(Trouble::NotSent) => Err("the connection was closed before an answer".to_owned()),
            Err(Trouble::Failed(why)) => Err(why),
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let kept = self.patience.keepalive;
        idle.retain(|(since, sender)| since.elapsed() < kept && sender.is_ready());
        idle.pop().map(|(_, sender)| sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>, answer: Answer) -> Answer {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if idle.len() < limits::SHIP_SENDS_MAX && !sender.is_closed() {
            idle.push((Instant::now(), sender));
        }
        answer
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, String> {
        let mut request =
            Request::builder().method(ask.method).uri(ask.target).header("Host", self.endpoint.host_field());
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(ask.body.clone())).map_err(|error| format!("the request cannot be made: {error}"))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Endpoint { host, port, tls, .. } = &self.endpoint;
        let tls = tls.then_some(Tls { verify: self.verify, server_name: host });
        let stream = self.reach.connect(host, *port, tls, self.patience.connect).await;
        begin_http(stream.map_err(|error| format!("{host}:{port}: {error}"))?).await
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Trouble> {
        let whole = self.patience.send + self.patience.read;
        let answer = match tokio::time::timeout(whole, sender.send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {
                return Err(Trouble::NotSent);
            }
            Ok(Err(error)) => return Err(Trouble::Failed(cause(&error))),
            Err(_) => return Err(Trouble::Failed("no answer in time".to_owned())),
        };
        let (head, body) = answer.into_parts();
        let body = read(body, self.patience.read).await.map_err(Trouble::Failed)?;
        // The sender is ready for the next request once the connection has seen the end of this one.
        let _ = tokio::time::timeout(self.patience.read, sender.ready()).await;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// Why there is no answer.
enum Trouble {
    /// The connection ended without any answer.
    NotSent,
    Failed(String),
}

async fn read(body: Incoming, patience: Duration) -> Result<Bytes, String> {
    let whole = Limited::new(body, limits::SHIP_ANSWER_BYTES_MAX).collect();
    match tokio::time::timeout(patience, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(format!("the answer cannot be read: {error}")),
        Err(_) => Err("the answer did not end in time".to_owned()),
    }
}

async fn begin_http(stream: Box<dyn Stream>) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause(&error))?;
    tokio::spawn(async move {
        // How a connection ended is seen by whoever sends on it.
        let _ = connection.await;
    });
    Ok(sender)
}

/// `work`, unless it takes longer than `patience`; the error is for the log.
pub async fn in_time<T, E: std::fmt::Display>(
    patience: Duration,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{what} took too long")),
    }
}

/// hyper's errors name their cause one level down.
fn cause(error: &hyper::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
