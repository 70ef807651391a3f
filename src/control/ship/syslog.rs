//! syslog: the log record to the log of this machine, over its Unix datagram socket (spec/plugins.md F.3).

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::body::Bytes;
use tokio::net::UnixDatagram;
use tokio::sync::Mutex;

use crate::control::ship::World;
use crate::control::ship::outlet::Way;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::control::ship::seen::Seen;
use crate::control::ship::when::When;
use crate::metrics::full_record::Shipment;
use crate::plugins::queue::QueueRules;
use crate::plugins::syslog::Syslog;

pub fn way(config: &Syslog, world: &World) -> Way {
    let deliver = Arc::new(LocalLog { path: world.syslog_socket.clone(), socket: Mutex::default() });
    let config = *config;
    let format = Box::new(move |seen: &Seen<'_>, _: &Shipment<'_>| {
        let f = &seen.record.figures;
        let severity = config.severities.of_status(f.status)?;
        let when = When::of_unix_us(f.started_unix_us + f.total_us);
        let mut line = format!("<{}>{} kong: ", config.facility << 3 | severity, when.to_syslog()).into_bytes();
        line.extend_from_slice(&seen.json());
        Some(line.into())
    });
    Way { rules: QueueRules::plain(1), deliver, format }
}

struct LocalLog {
    path: PathBuf,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Deliver for LocalLog {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let mut kept = self.socket.lock().await;
            for line in batch {
                // The daemon may have been restarted since, and then listens on a new socket.
                if let Some(socket) = &*kept
                    && socket.send(line).await.is_ok()
                {
                    continue;
                }
                *kept = None;
                let named = |error: std::io::Error| format!("{}: {error}", self.path.display());
                let fresh = connected(&self.path).map_err(named)?;
                fresh.send(line).await.map_err(named)?;
                *kept = Some(fresh);
            }
            Ok(())
        })
    }
}

fn connected(path: &Path) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}
