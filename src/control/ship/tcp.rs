//! tcp-log: lines of JSON over a connection that is kept (spec/plugins.md F.3).
//! Always: a connection that the server has ended is noticed before something is written to it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use hyper::body::Bytes;
use tokio::io::AsyncRead;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::control::reach::Reach;
use crate::control::reach::Stream;
use crate::control::reach::Tls;
use crate::control::ship::World;
use crate::control::ship::http::in_time;
use crate::control::ship::outlet::Way;
use crate::control::ship::outlet::as_json;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::plugins::queue::QueueRules;
use crate::plugins::tcp_log::TcpLog;

/// Lines that may share one write.
const LINES_MAX: usize = 100;

pub fn way(config: &TcpLog, world: &World) -> Way {
    Way { rules: QueueRules::plain(LINES_MAX), deliver: Arc::new(Lines::new(config, world)), format: as_json() }
}

/// Sends entries as lines.
pub struct Lines {
    config: TcpLog,
    reach: Arc<Reach>,
    kept: Mutex<Option<(Instant, Box<dyn Stream>)>>,
}

impl Deliver for Lines {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let mut text = Vec::with_capacity(batch.iter().map(|line| line.len() + 1).sum());
            for line in batch {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            let mut kept = self.kept.lock().await;
            if let Some(mut stream) = self.still_open(kept.take()).await
                && self.write(&mut stream, &text).await.is_ok()
            {
                *kept = Some((Instant::now(), stream));
                return Ok(());
            }
            let mut fresh = self.connect().await?;
            self.write(&mut fresh, &text).await?;
            *kept = Some((Instant::now(), fresh));
            Ok(())
        })
    }
}

impl Lines {
    pub fn new(config: &TcpLog, world: &World) -> Self {
        Self { config: config.clone(), reach: world.reach.clone(), kept: Mutex::default() }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let TcpLog { host, port, timeout, tls_name, .. } = &self.config;
        let tls = tls_name.as_deref().map(|server_name| Tls { verify: false, server_name });
        let named = |error| format!("{host}:{port}: {error}");
        self.reach.connect(host, *port, tls, *timeout).await.map_err(named)
    }

    async fn write(&self, stream: &mut Box<dyn Stream>, text: &[u8]) -> Result<(), String> {
        let writing = async {
            stream.write_all(text).await?;
            stream.flush().await
        };
        in_time(self.config.timeout, "sending", writing).await
    }

    /// The kept connection, if it is young enough and the server has not ended it.
    async fn still_open(&self, kept: Option<(Instant, Box<dyn Stream>)>) -> Option<Box<dyn Stream>> {
        let (_, mut stream) = kept.filter(|(since, _)| since.elapsed() < self.config.keepalive)?;
        let is_open = poll_fn(|context| Poll::Ready(is_open(&mut stream, context))).await;
        is_open.then_some(stream)
    }
}

/// Reads what the server says, which is of no interest, to learn whether it has ended.
fn is_open(stream: &mut Box<dyn Stream>, context: &mut Context<'_>) -> bool {
    let mut room = [0; 512];
    loop {
        let mut said = ReadBuf::new(&mut room);
        match Pin::new(&mut *stream).poll_read(context, &mut said) {
            Poll::Pending => return true,
            Poll::Ready(Ok(())) if !said.filled().is_empty() => {}
            Poll::Ready(_) => return false,
        }
    }
}
