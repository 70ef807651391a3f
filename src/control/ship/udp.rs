//! Datagrams to a host: udp-log, and what other sinks send the same way (spec/plugins.md F.3).
//! Never: learns whether a datagram arrived; that nobody listens is told once, and so is that somebody does again.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::control::reach::Reach;
use crate::control::ship::World;
use crate::control::ship::outlet::Way;
use crate::control::ship::outlet::as_json;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::limits;
use crate::plugins::queue::QueueRules;
use crate::plugins::shipping::Udp;

pub fn way(config: &Udp, world: &World) -> Way {
    Way { rules: QueueRules::plain(1), deliver: Arc::new(Datagrams::new(config, world)), format: as_json() }
}

/// Sends each entry of a batch as one datagram.
pub struct Datagrams {
    config: Udp,
    reach: Arc<Reach>,
    socket: Mutex<Option<(Instant, Arc<UdpSocket>)>>,
    /// Whether the operator was told that nobody listens.
    unheard: AtomicBool,
}

impl Datagrams {
    pub fn new(config: &Udp, world: &World) -> Self {
        Self {
            config: config.clone(),
            reach: world.reach.clone(),
            socket: Mutex::default(),
            unheard: AtomicBool::new(false),
        }
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// The host has no address, or the system refuses to send, as it does when the datagram is too large.
    pub async fn send(&self, datagram: &[u8]) -> Result<(), String> {
        let sending = async {
            let socket = self.socket().await?;
            match socket.send(datagram).await {
                Ok(_) => {
                    self.tell_heard();
                    Ok(())
                }
                // That is about an earlier datagram; this one has not been sent.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    self.tell_unheard();
                    socket.send(datagram).await.map(drop).or(Ok(()))
                }
                Err(error) => {
                    *self.socket.lock().await = None;
                    Err(error.to_string())
                }
            }
        };
        let late = |_| "the name servers do not answer".to_owned();
        tokio::time::timeout(self.config.timeout, sending).await.map_err(late)?
    }

    /// A socket that is connected to where the name led not long ago.
    async fn socket(&self) -> Result<Arc<UdpSocket>, String> {
        let mut kept = self.socket.lock().await;
        if let Some((since, socket)) = &*kept
            && since.elapsed() < Duration::from_millis(limits::SHIP_UDP_ADDRESS_KEPT_MS)
        {
            return Ok(socket.clone());
        }
        let host = &self.config.host;
        let ips = self.reach.addresses(host).await?;
        let ip = *ips.first().ok_or_else(|| format!("the name {host} has no address"))?;
        let any = if ip.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(|error| error.to_string())?;
        let peer = SocketAddr::new(ip, self.config.port);
        socket.connect(peer).await.map_err(|error| format!("{peer}: {error}"))?;
        let socket = Arc::new(socket);
        *kept = Some((Instant::now(), socket.clone()));
        Ok(socket)
    }

    fn tell_unheard(&self) {
        if !self.unheard.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}:{}: nobody listens for datagrams", self.config.host, self.config.port);
        }
    }

    fn tell_heard(&self) {
        if self.unheard.load(Ordering::Relaxed) && self.unheard.swap(false, Ordering::Relaxed) {
            tracing::info!("{}:{}: datagrams are not refused any more", self.config.host, self.config.port);
        }
    }
}

impl Deliver for Datagrams {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            for entry in batch {
                self.send(entry).await?;
            }
            Ok(())
        })
    }
}
