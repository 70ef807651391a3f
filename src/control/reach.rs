//! Connections that the control plane opens to servers that configurations name.
//! Owns: the way from a name to a stream. Never: keeps a connection.
//! Always: names resolve as those of upstreams do, and TLS trusts whom the settings trust.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::control::names::Names;
use crate::control::tls::Trust;

/// A connection, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How a server is to be met by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Whether its certificate has to be good.
    pub verify: bool,
    /// The name it is asked for by, and that its certificate must have.
    pub server_name: &'a str,
}

/// Opens connections.
pub struct Reach {
    names: Arc<Names>,
    trust: Arc<Trust>,
}

impl Reach {
    /// By these names, with this trust.
    pub fn new(names: Arc<Names>, trust: Arc<Trust>) -> Self {
        Self { names, trust }
    }

    /// A connection to the first address of a host that takes one.
    ///
    /// # Errors
    /// The host has no address, none takes connections, TLS fails, or the time is up.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<Tls<'_>>,
        patience: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let connecting = async {
            let stream = Box::new(self.connect_tcp(host, port).await?);
            match tls {
                Some(tls) => self.secure(stream, tls).await,
                None => Ok(stream as Box<dyn Stream>),
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        tokio::time::timeout(patience, connecting).await.map_err(late)?
    }

    /// Begins TLS on a connection.
    ///
    /// # Errors
    /// The other end does not prove who it is, or does not speak TLS.
    pub async fn secure(&self, stream: Box<dyn Stream>, tls: Tls<'_>) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(tls.server_name.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| io::Error::other(format!("{} is no server name", tls.server_name)))?;
        let stream = TlsConnector::from(self.trust.config(tls.verify, None)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| io::Error::other(format!("TLS: {error}")))?))
    }

    /// Where a host is now.
    ///
    /// # Errors
    /// Why that is unknown.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.names.look_up(host).await
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let ips = self.addresses(host).await.map_err(io::Error::other)?;
        let mut last = io::Error::other(format!("the name {host} has no address"));
        for ip in ips {
            match TcpStream::connect(SocketAddr::new(ip, port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
