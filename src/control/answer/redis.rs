//! Counting in Redis servers (spec/plugins.md A.8, C.1).
//! Owns: one connection per server, shared by all who count there. Never: waits longer than the server's timeout for
//! anything. Always: a server that fails is left alone for [`crate::limits::REDIS_REST_MS`], so that requests do not each
//! wait for it; that it fails, and that it answers again, is logged once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use redis::AsyncConnectionConfig;
use redis::RedisConnectionInfo;
use redis::aio::MultiplexedConnection;

use crate::control::reach::Reach;
use crate::control::reach::Tls;
use crate::limits;
use crate::plugins::redis::Expires;
use crate::plugins::redis::RedisCounter;
use crate::plugins::redis::RedisServer;

/// Raises every counter and sees to its end, in one step that nothing interrupts. Arguments per key: by how much, and
/// `EXPIRE` with seconds (from the first use) or `EXPIREAT` with a time.
const COUNT: &str = r"
local counts = {}
for i, key in ipairs(KEYS) do
    local by, order, time = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    counts[i] = redis.call('INCRBY', key, by)
    if order == 'EXPIREAT' or counts[i] == tonumber(by) then
        redis.call(order, key, time)
    end
end
return counts";

/// The servers that are asked.
pub struct Redis {
    reach: Arc<Reach>,
    lines: Mutex<HashMap<Arc<RedisServer>, Arc<Line>>>,
}

/// The way to one server.
struct Line {
    state: tokio::sync::Mutex<State>,
    fails: AtomicBool,
    last_used: Mutex<Instant>,
}

enum State {
    Closed,
    Open {
        connection: MultiplexedConnection,
        number: u64,
    },
    /// Failed lately; not asked before that time.
    Resting {
        until: Instant,
        why: Arc<str>,
    },
}

impl Redis {
    /// Opens a connection when it is first asked for.
    pub fn new(reach: Arc<Reach>) -> Self {
        Self { reach, lines: Mutex::default() }
    }

    /// Raises counters. The counts after it, in the same order.
    ///
    /// # Errors
    /// The server cannot be reached, does not answer in time, refuses, or answers something else.
    pub async fn count(
        self: &Arc<Self>,
        server: &Arc<RedisServer>,
        counters: &[RedisCounter],
    ) -> Result<Vec<i64>, Arc<str>> {
        let line = self.line(server);
        let result = self.try_count(&line, server, counters).await;
        let (host, port) = (&server.host, server.port);
        match &result {
            Ok(_) if line.fails.swap(false, Ordering::Relaxed) => tracing::info!("redis {host}:{port} answers again"),
            Err(why) if !line.fails.swap(true, Ordering::Relaxed) => tracing::error!("redis {host}:{port}: {why}"),
            _ => {}
        }
        result
    }

    async fn try_count(
        &self,
        line: &Line,
        server: &RedisServer,
        counters: &[RedisCounter],
    ) -> Result<Vec<i64>, Arc<str>> {
        let (mut connection, number) = self.connection(line, server).await?;
        let mut command = redis::cmd("EVAL");
        command.arg(COUNT).arg(counters.len());
        for counter in counters {
            command.arg(&counter.key);
        }
        for counter in counters {
            let (order, time) = match counter.expires {
                Expires::AfterFirstUse { seconds } => ("EXPIRE", seconds),
                Expires::At { unix_s } => ("EXPIREAT", unix_s),
            };
            command.arg(counter.by).arg(order).arg(time);
        }
        let why = match command.query_async::<Vec<i64>>(&mut connection).await {
            Ok(counts) if counts.len() == counters.len() && counts.iter().all(|count| *count >= 0) => {
                return Ok(counts);
            }
            Ok(counts) => format!("{} counts instead of {}", counts.len(), counters.len()),
            // It answered, and will go on doing so.
            Err(error) if error.code().is_some() && !error.is_io_error() => return Err(error.to_string().into()),
            Err(error) => error.to_string(),
        };
        Err(line.rest(number, why).await)
    }

    /// The open connection of a line, or a new one.
    async fn connection(&self, line: &Line, server: &RedisServer) -> Result<(MultiplexedConnection, u64), Arc<str>> {
        let mut state = if line.fails.load(Ordering::Relaxed) {
            // One tries again; the others do not wait for what comes of it.
            line.state.try_lock().map_err(|_| Arc::from("it failed and is tried again"))?
        } else {
            line.state.lock().await
        };
        match &*state {
            State::Open { connection, number } => return Ok((connection.clone(), *number)),
            State::Resting { until, why } if Instant::now() < *until => return Err(why.clone()),
            _ => {}
        }
        let patience = Duration::from_millis(server.timeout_ms);
        let opened = tokio::time::timeout(patience, self.open(server, patience)).await;
        let opened = opened.unwrap_or_else(|_| Err("no answer in time".into()));
        let number = fastrand::u64(..);
        *state = match &opened {
            Ok(connection) => State::Open { connection: connection.clone(), number },
            Err(why) => State::resting(why.clone()),
        };
        opened.map(|connection| (connection, number))
    }

    async fn open(&self, server: &RedisServer, patience: Duration) -> Result<MultiplexedConnection, Arc<str>> {
        let text = |error: &dyn std::fmt::Display| Arc::from(error.to_string());
        let server_name = server.server_name.as_deref().unwrap_or(&server.host);
        let tls = server.tls.then_some(Tls { verify: server.tls_verify, server_name });
        let stream = self.reach.connect(&server.host, server.port, tls, patience).await.map_err(|e| text(&e))?;
        let mut info = RedisConnectionInfo::default().set_db(server.database).set_skip_set_lib_name();
        if let Some(username) = &server.username {
            info = info.set_username(username);
        }
        if let Some(password) = &server.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
        let opening = MultiplexedConnection::new_with_config(&info, stream, config);
        let (mut connection, driver) = opening.await.map_err(|e| text(&e))?;
        tokio::spawn(driver);
        // Whoever takes connections need not be able to answer.
        redis::cmd("PING").exec_async(&mut connection).await.map_err(|e| text(&e))?;
        Ok(connection)
    }

    /// The line to a server. One that nobody has used for a while is given up.
    fn line(self: &Arc<Self>, server: &Arc<RedisServer>) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(server) {
            *lock(&line.last_used) = Instant::now();
            return line.clone();
        }
        let line = Arc::new(Line {
            state: tokio::sync::Mutex::new(State::Closed),
            fails: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
        });
        lines.insert(server.clone(), line.clone());
        tokio::spawn(give_up_unused(Arc::downgrade(self), server.clone()));
        line
    }
}

async fn give_up_unused(redis: std::sync::Weak<Redis>, server: Arc<RedisServer>) {
    let patience = Duration::from_millis(limits::REDIS_IDLE_MS);
    loop {
        tokio::time::sleep(patience).await;
        let Some(redis) = redis.upgrade() else { return };
        let mut lines = lock(&redis.lines);
        if lines.get(&server).is_none_or(|line| lock(&line.last_used).elapsed() >= patience) {
            lines.remove(&server);
            return;
        }
    }
}

impl State {
    fn resting(why: Arc<str>) -> Self {
        Self::Resting { until: Instant::now() + Duration::from_millis(limits::REDIS_REST_MS), why }
    }
}

impl Line {
    /// Gives up a connection that failed, unless that has happened already.
    async fn rest(&self, failed: u64, why: String) -> Arc<str> {
        let why: Arc<str> = why.into();
        let mut state = self.state.lock().await;
        if matches!(&*state, State::Open { number, .. } if *number == failed) {
            *state = State::resting(why.clone());
        }
        why
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left a whole value behind.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
