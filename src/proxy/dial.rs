//! Address -> connected socket, in time.
//! Never: resolves a name (`connect` by name blocks).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::net::TcpStream;
use monoio::time::error::Elapsed;

use crate::limits;
use crate::proxy::connection::make_room;
use crate::proxy::core::Core;
use crate::proxy::fault::Broken;
use crate::proxy::io::Conn;
use crate::proxy::pool::UpstreamConn;

/// Connects within `timeout_ms`.
///
/// # Errors
/// [`Broken`] with `sent` false: whatever failed, the request has not left.
pub async fn dial(core: &Core, addr: SocketAddr, timeout_ms: u64) -> Result<UpstreamConn, Broken> {
    let until_ms = core.clock.now_ms() + timeout_ms;
    let mut connected = connect(addr, timeout_ms).await;
    // Out of descriptors: idle connections end rather than that a request fails, and others will be done soon.
    while matches!(&connected, Ok(Err(error)) if needs_room(error)) && core.clock.now_ms() < until_ms {
        core.pool.clear();
        if !make_room(core) {
            monoio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
        }
        connected = connect(addr, timeout_ms).await;
    }
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Broken { ours: is_ours(&error), ..Broken::connecting(is_timeout(&error)) }),
        Err(_elapsed) => return Err(Broken::connecting(true)),
    };
    core.counters.dialled.add();
    let _ = stream.set_nodelay(true);
    let conn = Conn::new(stream);
    if let Some(name) = &core.rules().settings.tcp_congestion {
        conn.set_congestion(name);
    }
    let deadline = core.deadlines.watch(conn.fd());
    let mut upstream = UpstreamConn::new(conn, deadline);
    listen(core, &mut upstream);
    Ok(upstream)
}

/// A connect owns no buffer of ours, so giving it up is safe; the runtime cancels it in the kernel.
async fn connect(addr: SocketAddr, timeout_ms: u64) -> Result<io::Result<TcpStream>, Elapsed> {
    monoio::time::timeout(Duration::from_millis(timeout_ms), TcpStream::connect_addr(addr)).await
}

/// Starts the read that will bring the next response head, with room in front of it for ours.
pub fn listen(core: &Core, upstream: &mut UpstreamConn) {
    let mut buf = core.buffers.upstream.take();
    buf.clear_with_headroom(limits::RESPONSE_HEADROOM_BYTES);
    upstream.conn.reader.start(buf);
}

fn needs_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Out of descriptors, memory or ports.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}
