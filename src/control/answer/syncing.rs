//! Counters of this node and those in Redis, brought together every now and then (spec/plugins.md C.1, `sync_rate`).
//! Always: ends when its configuration has gone, after what was counted has been told once more.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::control::answer::redis::Redis;
use crate::limits;
use crate::plugins::redis::RedisCounter;
use crate::plugins::syncing::Syncing;

/// Synchronises the counters of a configuration from now on, unless somebody does.
pub fn begin(counters: Arc<Syncing>, redis: Arc<Redis>) {
    if counters.enlist() {
        tokio::spawn(run(counters, redis));
    }
}

async fn run(counters: Arc<Syncing>, redis: Arc<Redis>) {
    let mut turns = tokio::time::interval(Duration::from_millis(counters.every_ms));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let is_last = Arc::strong_count(&counters) == 1;
        synchronise(&counters, &redis).await;
        if is_last {
            return;
        }
    }
}

async fn synchronise(counters: &Syncing, redis: &Arc<Redis>) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let untold = counters.untold(now_s);
    for batch in untold.chunks(limits::REDIS_COUNTERS_PER_CALL_MAX) {
        let raised: Vec<RedisCounter> = batch.iter().map(|untold| untold.raised.clone()).collect();
        match redis.count(&counters.server, &raised).await {
            Ok(totals) => counters.told(batch, &totals),
            // The rest would fail too; all of it is told at a later turn.
            Err(_) => return,
        }
    }
}
