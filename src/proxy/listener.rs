//! Listening sockets: one per address and core, sharing the port (SO_REUSEPORT), with the options that accepted
//! connections inherit.
//! Always: all sockets of an address are bound before any core starts, so a busy port is an error at start.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::config::Listen;
use crate::config::ListenAddr;

/// The sockets of all proxy listeners.
pub struct Bound {
    /// By core.
    pub sockets: Vec<Vec<TcpListener>>,
    /// Where they listen; port 0 is replaced by the port that the kernel chose.
    pub addrs: Vec<SocketAddr>,
}

/// Binds every listener for every core.
///
/// # Errors
/// The first address that cannot be bound, and why.
pub fn bind(listens: &[Listen], cores: usize, congestion: Option<&str>) -> Result<Bound, String> {
    let mut bound = Bound { sockets: (0..cores).map(|_| Vec::new()).collect(), addrs: Vec::new() };
    for listen in listens {
        let ListenAddr::Tcp(mut addr) = listen.addr else {
            return Err(format!("proxy_listen = {}: the proxy listens on TCP addresses only", listen.addr));
        };
        for sockets in &mut bound.sockets {
            let socket = bind_one(listen, addr, congestion).map_err(|error| explain(addr, &error))?;
            addr = socket.local_addr().map_err(|error| explain(addr, &error))?;
            sockets.push(socket);
        }
        bound.addrs.push(addr);
    }
    Ok(bound)
}

fn explain(addr: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port with proxy_listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    };
    format!("cannot listen on {addr}: {error}{hint}")
}

fn bind_one(listen: &Listen, addr: SocketAddr, congestion: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(listen.ipv6only)?;
    }
    // Inherited by accepted connections, which saves system calls on each.
    socket.set_tcp_nodelay(true)?;
    if listen.so_keepalive {
        socket.set_keepalive(true)?;
    }
    if let Some(name) = congestion {
        socket.set_tcp_congestion(name.as_bytes())?;
    }
    socket.bind(&addr.into())?;
    if listen.deferred {
        set_deferred(&socket)?;
    }
    socket.listen(listen.backlog as i32)?;
    Ok(socket.into())
}

/// A connection is handed out with its first bytes (TCP_DEFER_ACCEPT), at the latest after a second.
fn set_deferred(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let seconds: libc::c_int = 1;
    // Safety: plain setsockopt with a properly sized value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        Listen {
            addr: ListenAddr::Tcp(text.parse().unwrap()),
            backlog: 128,
            reuseport: true,
            deferred: true,
            so_keepalive: true,
            proxy_protocol: false,
            ipv6only: true,
        }
    }

    #[test]
    fn all_cores_share_the_port_that_the_kernel_chose() {
        let bound = bind(&[listen("127.0.0.1:0"), listen("[::1]:0")], 3, None).unwrap();
        assert_eq!((bound.sockets.len(), bound.addrs.len()), (3, 2));
        for core in &bound.sockets {
            assert_eq!(core.iter().map(|s| s.local_addr().unwrap()).collect::<Vec<_>>(), bound.addrs);
        }
    }

    #[test]
    fn a_busy_port_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let error = bind(&[listen(&addr)], 1, None).err().unwrap();
        assert!(error.contains(&addr) && error.contains("proxy_listen"), "{error}");
    }
}
