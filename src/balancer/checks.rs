//! HOT for [`Checks::passive`]: a lookup in a bit set.
//! What an upstream's `healthchecks` demand, worked out once (spec/balancer.md sections 11 to 13).
//! Owns: what an outcome counts as, and against which limit. Never: probes, counts.

use std::sync::Arc;

use crate::balancer::health::Outcome;

/// Health checks of an upstream that has them on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checks {
    pub active: Active,
    pub passive: Passive,
    /// How long after an ejection one request may try the address; `None`: only probes or an operator bring it back.
    pub trial_after_ms: Option<u64>,
}

/// How many of an outcome decide; 0: it is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub successes: u8,
    pub tcp_failures: u8,
    pub http_failures: u8,
    pub timeouts: u8,
}

impl Limits {
    /// The limit of an outcome.
    pub fn of(self, outcome: Outcome) -> u8 {
        match outcome {
            Outcome::Success => self.successes,
            Outcome::TcpFailure => self.tcp_failures,
            Outcome::HttpFailure => self.http_failures,
            Outcome::Timeout => self.timeouts,
        }
    }
}

/// How probes are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    pub kind: ProbeKind,
    /// Bound of each step: connect, TLS, send, receive.
    pub timeout_ms: u64,
    /// Probes at a time.
    pub concurrency: u32,
    pub http_path: Arc<str>,
    /// Name, and values in order.
    pub headers: Arc<[(String, Vec<String>)]>,
    pub https_sni: Option<Arc<str>>,
    pub https_verify_certificate: bool,
    /// Between probes of an available address; 0: none.
    pub healthy_interval_ms: u64,
    /// Between probes of an unavailable address; 0: none.
    pub unhealthy_interval_ms: u64,
    pub healthy_statuses: StatusSet,
    pub unhealthy_statuses: StatusSet,
    pub limits: Limits,
}

/// `healthchecks.active.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    Tcp,
    Http,
    Https,
    Grpc,
    Grpcs,
}

/// How traffic is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Passive {
    pub healthy_statuses: StatusSet,
    pub unhealthy_statuses: StatusSet,
    pub limits: Limits,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The upstream's answer, or the gateway's own in its place.
    Status(u16),
    /// No connection, or it failed before an answer.
    Failed,
    TimedOut,
}

impl Checks {
    /// What a try of real traffic counts as, with its limit; `None`: nothing.
    pub fn passive(&self, seen: Seen) -> Option<(Outcome, u8)> {
        let outcome = match seen {
            Seen::TimedOut | Seen::Status(504) => Outcome::Timeout,
            Seen::Failed => Outcome::TcpFailure,
            Seen::Status(status) if self.passive.healthy_statuses.contains(status) => Outcome::Success,
            Seen::Status(status) if self.passive.unhealthy_statuses.contains(status) => Outcome::HttpFailure,
            Seen::Status(_) => return None,
        };
        Some((outcome, self.passive.limits.of(outcome)))
    }

    /// Whether a try counts as a failure.
    pub fn fails(&self, seen: Seen) -> bool {
        self.passive(seen).is_some_and(|(outcome, _)| outcome != Outcome::Success)
    }

    /// What the answer to a probe counts as, with its limit; `None`: nothing.
    pub fn active_status(&self, status: u16) -> Option<(Outcome, u8)> {
        let outcome = match status {
            status if self.active.healthy_statuses.contains(status) => Outcome::Success,
            status if self.active.unhealthy_statuses.contains(status) => Outcome::HttpFailure,
            _ => return None,
        };
        Some((outcome, self.active.limits.of(outcome)))
    }

    /// Whether probes can make an unavailable address available.
    pub fn probes_recover(&self) -> bool {
        self.active.unhealthy_interval_ms > 0 && self.active.limits.successes > 0
    }

    /// How an address that is unavailable comes back.
    pub fn way_back(&self) -> WayBack {
        if self.probes_recover() {
            let Active { limits, unhealthy_interval_ms, .. } = self.active;
            return WayBack::Probes { successes: limits.successes, interval_ms: unhealthy_interval_ms };
        }
        match self.trial_after_ms {
            Some(after_ms) => WayBack::Trial { after_ms, successes: self.passive.limits.successes.max(1) },
            None => WayBack::Operator,
        }
    }
}

/// What is needed for an unavailable address to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// So many successful probes in a row, made so often.
    Probes { successes: u8, interval_ms: u64 },
    /// A request is tried on it after this time, and so many must succeed.
    Trial { after_ms: u64, successes: u8 },
    /// Nothing but `PUT .../healthy`.
    Operator,
}

impl std::fmt::Display for WayBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Probes { successes, interval_ms } => {
                write!(f, "{successes} successful probes, one every {} s", *interval_ms as f64 / 1000.0)
            }
            Self::Trial { after_ms, successes } => {
                write!(f, "{successes} successful trial requests, the first after {} s", *after_ms as f64 / 1000.0)
            }
            Self::Operator => f.write_str("an operator setting it healthy"),
        }
    }
}

/// A set of HTTP statuses, 100 to 999.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusSet([u64; 16]);

impl StatusSet {
    /// Whether the status is in it.
    pub fn contains(&self, status: u16) -> bool {
        self.0.get(usize::from(status) / 64).is_some_and(|bits| bits >> (status % 64) & 1 == 1)
    }
}

impl FromIterator<u16> for StatusSet {
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> Self {
        let mut set = Self::default();
        for status in statuses {
            if let Some(bits) = set.0.get_mut(usize::from(status) / 64) {
                *bits |= 1 << (status % 64);
            }
        }
        set
    }
}

#[cfg(test)]
pub(crate) fn checks_for_test() -> Checks {
    let limits = Limits { successes: 1, tcp_failures: 2, http_failures: 3, timeouts: 4 };
    Checks {
        active: Active {
            kind: ProbeKind::Http,
            timeout_ms: 1000,
            concurrency: 10,
            http_path: "/".into(),
            headers: Arc::from([]),
            https_sni: None,
            https_verify_certificate: true,
            healthy_interval_ms: 0,
            unhealthy_interval_ms: 0,
            healthy_statuses: [200, 302].into_iter().collect(),
            unhealthy_statuses: [429, 500].into_iter().collect(),
            limits,
        },
        passive: Passive {
            healthy_statuses: [200, 201].into_iter().collect(),
            unhealthy_statuses: [429, 500, 503].into_iter().collect(),
            limits,
        },
        trial_after_ms: Some(30_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_counts_as_its_status_says_and_a_504_as_a_timeout() {
        let checks = checks_for_test();
        let check = |seen, want| assert_eq!(checks.passive(seen), want, "{seen:?}");
        check(Seen::Status(200), Some((Outcome::Success, 1)));
        check(Seen::Status(500), Some((Outcome::HttpFailure, 3)));
        check(Seen::Status(504), Some((Outcome::Timeout, 4)));
        check(Seen::TimedOut, Some((Outcome::Timeout, 4)));
        check(Seen::Failed, Some((Outcome::TcpFailure, 2)));
        check(Seen::Status(502), None);
        check(Seen::Status(404), None);
    }

    #[test]
    fn statuses_outside_of_the_range_are_in_no_set() {
        let set: StatusSet = [100, 999, 65_535].into_iter().collect();
        assert!(set.contains(100) && set.contains(999));
        assert!(!set.contains(65_535) && !set.contains(0) && !set.contains(101));
    }

    #[test]
    fn the_way_back_names_what_really_brings_an_address_back() {
        let mut checks = checks_for_test();
        assert_eq!(checks.way_back(), WayBack::Trial { after_ms: 30_000, successes: 1 });
        checks.trial_after_ms = None;
        assert_eq!(checks.way_back(), WayBack::Operator);
        checks.active.unhealthy_interval_ms = 500;
        assert_eq!(checks.way_back().to_string(), "1 successful probes, one every 0.5 s");
        checks.active.limits.successes = 0;
        assert_eq!(checks.way_back(), WayBack::Operator, "probes that count no success bring nothing back");
    }
}
