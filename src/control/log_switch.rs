//! The level of the log while the node runs: the configured one, or another for some time.
//! Owns: which of the two applies. Never: writes a line; the log itself is told by a function that it gave.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use crate::config::LogLevel;

/// Tells the log which level to use.
pub type Apply = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The level of the log of this node.
pub struct LogSwitch {
    apply: Apply,
    state: Mutex<State>,
}

struct State {
    configured: LogLevel,
    current: LogLevel,
    /// Counts changes, so that an old timer does not end a new level.
    changes: u64,
}

impl LogSwitch {
    /// A log that has the configured level now.
    pub fn new(configured: LogLevel, apply: Apply) -> Arc<Self> {
        Arc::new(Self { apply, state: Mutex::new(State { configured, current: configured, changes: 0 }) })
    }

    /// The level that applies now.
    pub fn current(&self) -> LogLevel {
        self.state().current
    }

    /// Applies another configured level, at once.
    pub fn configure(&self, level: LogLevel) {
        let mut state = self.state();
        state.configured = level;
        self.change(&mut state, level);
    }

    /// Applies a level for some time, then the configured one again. Must be called inside the control runtime.
    pub fn set_for(self: &Arc<Self>, level: LogLevel, seconds: u64) {
        let mut state = self.state();
        self.change(&mut state, level);
        let (switch, own) = (self.clone(), state.changes);
        drop(state);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let mut state = switch.state();
            if state.changes == own {
                let configured = state.configured;
                switch.change(&mut state, configured);
            }
        });
    }

    fn change(&self, state: &mut State, level: LogLevel) {
        state.current = level;
        state.changes += 1;
        (self.apply)(level);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_level_lasts_as_long_as_asked_and_the_last_word_counts() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let switch = LogSwitch::new(LogLevel::Notice, Box::new(move |level| seen.lock().unwrap().push(level)));
        switch.set_for(LogLevel::Debug, 60);
        tokio::time::sleep(Duration::from_secs(30)).await;
        switch.set_for(LogLevel::Info, 60);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(switch.current(), LogLevel::Info, "the first timer is void");
        switch.configure(LogLevel::Warn);
        switch.set_for(LogLevel::Debug, 10);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(switch.current(), LogLevel::Warn);
        let want = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Debug, LogLevel::Warn];
        assert_eq!(*applied.lock().unwrap(), want);
    }
}
