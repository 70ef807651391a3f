//! moesif: batches of events to a collector, and what the collector wants to be governed (spec/plugins.md J.3).
//! Always: TLS is verified; events that the collector did not take with 201 are sent again.

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::Weak;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::ship::World;
use crate::control::ship::http::Answer;
use crate::control::ship::http::Ask;
use crate::control::ship::http::Patience;
use crate::control::ship::http::Server;
use crate::control::ship::http_log::json_array;
use crate::control::ship::moesif_event;
use crate::control::ship::outlet::Way;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::limits;
use crate::plugins::moesif::Moesif;
use crate::plugins::moesif_rules::Governance;
use crate::plugins::moesif_rules::Governed;

const USER_AGENT: &str = concat!("kong-plugin-moesif/", env!("CARGO_PKG_VERSION"));
/// Which configuration, respectively which rules the collector has now.
const CONFIG_TAG: &str = "x-moesif-config-etag";
const RULES_TAG: &str = "x-moesif-rules-tag";

pub fn way(config: &Moesif, world: &World) -> Way {
    let Moesif { connect_timeout: connect, send_timeout: send, keepalive, .. } = *config;
    let patience = Patience { connect, send, read: send, keepalive };
    let collector = Arc::new(Collector {
        server: Server::new(&config.endpoint, true, patience, world),
        base: config.endpoint.path.trim_end_matches('/').to_owned(),
        application_id: config.application_id.to_string(),
        compresses: config.compresses,
        debug: config.debug,
        rounds: Mutex::new(Rounds { begun: Instant::now(), budget: config.round, every: config.queue.coalescing }),
        config_tag: Mutex::default(),
        changed: Notify::new(),
    });
    if config.governed.enlist() {
        world.runtime.spawn(govern(Arc::downgrade(&config.governed), collector.clone()));
    }
    Way { rules: config.queue, deliver: collector, format: moesif_event::format(config) }
}

struct Collector {
    server: Server,
    /// In front of every path.
    base: String,
    application_id: String,
    compresses: bool,
    debug: bool,
    rounds: Mutex<Rounds>,
    /// Of the configuration that was fetched last.
    config_tag: Mutex<Option<String>>,
    /// Rung when the collector has another one.
    changed: Notify,
}

impl Deliver for Collector {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let until = lock(&self.rounds).turn(Instant::now());
            if let Some(until) = until {
                tokio::time::sleep_until(until).await;
            }
            let events = json_array(batch);
            let mut headers = self.headers();
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
            let body = match self.compresses {
                true => {
                    headers.push(("Content-Encoding".to_owned(), "deflate".to_owned()));
                    deflated(&events)
                }
                false => events,
            };
            let target = format!("{}/v1/events/batch", self.base);
            let answer = self.server.fetch(&Ask { method: "POST", target: &target, headers: &headers, body }).await?;
            if self.debug {
                tracing::info!("moesif: {} events sent, answered {}", batch.len(), answer.status);
            }
            if answer.status != StatusCode::CREATED {
                return Err(format!("the collector answered {}", answer.status.as_u16()));
            }
            if let Some(tag) = answer.header(CONFIG_TAG)
                && lock(&self.config_tag).as_deref() != Some(tag)
            {
                self.changed.notify_one();
            }
            Ok(())
        })
    }
}

impl Collector {
    fn headers(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![pair("X-Moesif-Application-Id", &self.application_id), pair("User-Agent", USER_AGENT)]
    }

    async fn get(&self, path: &str) -> Result<Answer, String> {
        let (headers, target) = (self.headers(), format!("{}{path}", self.base));
        let answer =
            self.server.fetch(&Ask { method: "GET", target: &target, headers: &headers, body: Bytes::new() }).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            status => Err(format!("{path} was answered {}", status.as_u16())),
        }
    }

    /// Fetches the configuration, and the rules if there are others than `rules`.
    async fn governance(&self, rules: &mut (Option<String>, Value)) -> Result<Governance, String> {
        let answer = self.get("/v1/config").await?;
        let config: Value =
            serde_json::from_slice(&answer.body).map_err(|error| format!("/v1/config is no JSON: {error}"))?;
        let tag = answer.header(RULES_TAG).map(str::to_owned);
        if tag.is_some() && tag != rules.0 {
            let listed = self.get("/v1/rules").await?;
            let listed = serde_json::from_slice(&listed.body);
            *rules = (tag, listed.map_err(|error| format!("/v1/rules is no JSON: {error}"))?);
        }
        *lock(&self.config_tag) = answer.header(CONFIG_TAG).map(str::to_owned);
        Ok(Governance::of(&config, &rules.1))
    }
}

/// Keeps the governance of a configuration up to date for as long as there is one.
async fn govern(governed: Weak<Governed>, collector: Arc<Collector>) {
    let mut rules = (None, Value::Null);
    let mut fails = false;
    loop {
        match collector.governance(&mut rules).await {
            Ok(governance) => {
                let Some(governed) = governed.upgrade() else { return };
                governed.set(governance);
                fails = false;
            }
            Err(why) if !std::mem::replace(&mut fails, true) => {
                tracing::warn!("moesif: what the collector wants is not known: {why}");
            }
            Err(_) => {}
        }
        let pause = Duration::from_millis(limits::GOVERNANCE_FETCHED_MS);
        let _ = tokio::time::timeout(pause, collector.changed.notified()).await;
        if governed.strong_count() == 0 {
            return;
        }
    }
}

/// Batches go in rounds, and for no longer than the budget of each.
struct Rounds {
    begun: Instant,
    budget: Duration,
    every: Duration,
}

impl Rounds {
    /// When the next batch may go; `None`: now.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        let next = self.begun + self.every;
        if now >= next {
            self.begun = now;
        } else if now >= self.begun + self.budget {
            self.begun = next;
            return Some(next);
        }
        None
    }
}

/// In the zlib format, which HTTP calls `deflate` (RFC 9110 section 8.4.1.2).
fn deflated(text: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default().into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_with_its_budget_and_the_next_one_begins_in_time() {
        let start = Instant::now();
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let mut rounds =
            Rounds { begun: start, budget: Duration::from_millis(750), every: Duration::from_millis(1500) };
        assert_eq!(rounds.turn(ms(0)), None);
        assert_eq!(rounds.turn(ms(749)), None);
        assert_eq!(rounds.turn(ms(750)), Some(ms(1500)));
        assert_eq!(rounds.turn(ms(1500)), None);
        assert_eq!(rounds.turn(ms(9000)), None);
        assert_eq!(rounds.turn(ms(9749)), None);
        assert_eq!(rounds.turn(ms(9750)), Some(ms(10_500)));
    }
}
