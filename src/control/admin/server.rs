//! The listeners of the Admin API: TCP and Unix sockets, HTTP/1.1 with keep-alive, an orderly end.
//! Owns: sockets and the reading of bodies. Never: knows what a request means (that is `Admin`).
//! Always: a socket file is reachable by its owner alone from the moment it has its name.

use crate::config::log_format::Source;
use crate::control::access_log::AdminLog;
use crate::control::admin::Admin;
use crate::control::admin::Request;
use crate::control::admin::Surface;
use crate::control::admin::problem::Problem;
use crate::control::store::Publish;
use crate::limits::ADMIN_BODY_MS_MAX;
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::limits::ADMIN_HEAD_MS_MAX;
use crate::metrics::record::Figures;
use crate::stdx::clock::unix_ms;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use std::convert::Infallible;
use std::io;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Listeners that are bound and do not serve yet.
pub struct Bound {
    sockets: Vec<(Socket, Surface)>,
}

/// The running listeners; they end with `stop`, or at once when this is dropped.
pub struct AdminServer {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// Binds every address. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound, by name.
    pub fn bind(listen: &[(Listen, Surface)]) -> io::Result<Bound> {
        let sockets = listen.iter().map(|(address, surface)| Ok((bind(address)?, *surface)));
        Ok(Bound { sockets: sockets.collect::<io::Result<_>>()? })
    }

    /// The addresses in the order in which they were given, with the ports that the system chose.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addrs(&self) -> io::Result<Vec<(Listen, Surface)>> {
        self.sockets.iter().map(|(socket, surface)| Ok((socket.local()?, *surface))).collect()
    }

    /// Serves on every address. Must be called inside a tokio runtime.
    /// Each request becomes a line of `log`, if there is one.
    pub fn serve<P: Publish>(self, admin: Arc<Admin<P>>, log: Option<Arc<AdminLog>>) -> AdminServer {
        let (stop, stopped) = watch::channel(false);
        let mut server = AdminServer { stop, tasks: JoinSet::new() };
        for (socket, surface) in self.sockets {
            let serving = Serving { surface, admin: admin.clone(), log: log.clone() };
            server.tasks.spawn(accept(socket, serving, stopped.clone()));
        }
        server
    }
}

impl AdminServer {
    /// Accepts nothing more, lets requests in progress finish for as long as `patience`.
    pub async fn stop(mut self, patience: Duration) {
        // Nobody listens any more when every task has ended by itself.
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("admin requests still running after {} ms were cut off", patience.as_millis());
        }
    }
}

fn bind(address: &Listen) -> io::Result<Socket> {
    let named = |name: String| {
        move |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {name}: {error}"))
    };
    match address {
        Listen::Tcp(address) => {
            let name = named(address.to_string());
            let socket = std::net::TcpListener::bind(address).map_err(&name)?;
            socket.set_nonblocking(true).map_err(&name)?;
            TcpListener::from_std(socket).map(Socket::Tcp).map_err(name)
        }
        Listen::Unix(path) => bind_unix(path).map_err(named(format!("unix:{}", path.display()))),
    }
}

/// Binds in a private directory and moves the finished socket into place, over a dead one if there is one.
fn bind_unix(path: &Path) -> io::Result<Socket> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process is listening there"));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    let private = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let inner = private.join("s");
    let bound = (|| {
        let socket = std::os::unix::net::UnixListener::bind(&inner)?;
        socket.set_nonblocking(true)?;
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inner, path)?;
        UnixListener::from_std(socket)
    })();
    // What is left of the private directory holds nothing; failing to remove it must not fail the start.
    let _ = std::fs::remove_dir_all(&private);
    Ok(Socket::Unix(bound?, path.to_path_buf()))
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_socket()
}

impl Socket {
    fn local(&self) -> io::Result<Listen> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map(Listen::Tcp),
            Socket::Unix(_, path) => Ok(Listen::Unix(path.clone())),
        }
    }
}

/// What a listener's connections are served with.
struct Serving<P: Publish> {
    surface: Surface,
    admin: Arc<Admin<P>>,
    log: Option<Arc<AdminLog>>,
}

async fn accept<P: Publish>(socket: Socket, serving: Serving<P>, mut stop: watch::Receiver<bool>) {
    let serving = Arc::new(serving);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= ADMIN_CONNECTIONS_MAX {
            tokio::select! {
                _ = connections.join_next() => {}
                _ = stop.changed() => break,
            }
        }
        let stopped = stop.clone();
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok(Stream::Tcp(stream, way)) => connections.spawn(serve(stream, way, serving.clone(), stopped)),
            Ok(Stream::Unix(stream)) => connections.spawn(serve(stream, Way::default(), serving.clone(), stopped)),
            Err(error) => {
                tracing::warn!("an admin connection could not be accepted: {error}");
                // Out of descriptors: some must be given back before the next try makes sense.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
    }
    if let Socket::Unix(socket, path) = socket {
        drop(socket);
        let _ = std::fs::remove_file(path);
    }
    while connections.join_next().await.is_some() {}
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The two ends of a connection; `None`: of a unix socket.
#[derive(Clone, Copy, Default)]
struct Way {
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

enum Stream {
    Tcp(tokio::net::TcpStream, Way),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                Ok(Stream::Tcp(stream, Way { peer: Some(peer), local: Some(local) }))
            }
            Socket::Unix(socket, _) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

async fn serve<P: Publish>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    way: Way,
    serving: Arc<Serving<P>>,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let serving = serving.clone();
        async move { Ok::<_, Infallible>(respond(&serving, way, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(ADMIN_HEAD_MS_MAX))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("an admin connection ended early: {error}");
    }
}

async fn respond<P: Publish>(
    serving: &Serving<P>,
    way: Way,
    request: hyper::Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let begun = serving.log.as_ref().map(|log| (log, Instant::now(), texts(log.sources(), &head)));
    let request = Request {
        method: head.method,
        path: head.uri.path().to_string(),
        query: head.uri.query().unwrap_or_default().to_string(),
        headers: head.headers,
        at_loopback: way.local.is_some_and(|addr| addr.ip().to_canonical().is_loopback()),
    };
    let body = read(body, serving.admin.body_bytes_max());
    let reply = serving.admin.answer(request, body, serving.surface).await;
    let (status, body_bytes_sent) = (reply.status.as_u16(), reply.body.len() as u64);
    let response = reply.into_response();
    if let Some((log, start, mut texts)) = begun {
        for (source, text) in log.sources().iter().zip(&mut texts) {
            if let Source::SentHeader(name) = source {
                *text = value(response.headers(), name);
            }
        }
        let nowhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let peer = way.peer.unwrap_or(nowhere);
        let figures = Figures {
            unix_ms: unix_ms(),
            total_us: start.elapsed().as_micros() as u64,
            request_bytes: 0,
            bytes_sent: 0,
            body_bytes_sent,
            connection: 0,
            connection_requests: 0,
            peer,
            local: way.local.unwrap_or(nowhere),
            client_ip: peer.ip(),
            request_id: [b'-'; 32],
            status,
            complete: true,
        };
        log.write(figures, &texts);
    }
    response
}

/// What the log shows of a request; credentials are no more of it than a user's name.
fn texts(sources: &[Source], head: &Parts) -> Vec<Vec<u8>> {
    let text = |source: &Source| match source {
        Source::Line => format!("{} {} {:?}", head.method, head.uri, head.version).into_bytes(),
        Source::Path => head.uri.path().into(),
        Source::Host => {
            let host = String::from_utf8_lossy(&value(&head.headers, "host")).into_owned();
            host.parse::<Authority>().map_or(host, |authority| authority.host().to_owned()).into_bytes()
        }
        Source::RequestHeader(name) => value(&head.headers, name),
        Source::SentHeader(_) => Vec::new(),
    };
    sources.iter().map(text).collect()
}

/// All values of a header, with `, ` between.
fn value(headers: &HeaderMap, name: &str) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.join(&b", "[..])
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    const TOO_LARGE: Problem = Problem::Page(StatusCode::PAYLOAD_TOO_LARGE);
    // Announced as too large: not read at all.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(TOO_LARGE);
    }
    let whole = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(Duration::from_millis(ADMIN_BODY_MS_MAX), whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(TOO_LARGE),
        Ok(Err(_)) => Err(Problem::bad_request("the request body could not be read")),
        Err(_) => {
            let text = format!("the request body did not arrive within {ADMIN_BODY_MS_MAX} ms");
            Err(Problem::Plain(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}
