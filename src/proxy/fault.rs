//! HOT: values only.
//! What can go wrong with a request, its status, and whether another try may be made.
//! Owns: the table of faults (spec/proxying.md sections 7.2 and 8). Never: answers.

use crate::balancer::checks::Seen;

/// Why an exchange ends without the upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client went away or stalled; there is nobody to answer.
    ClientGone,
    /// The answer stands in the exchange's reply, made by the gateway or a plugin.
    Reply,
    /// The HTTP layer refuses: an error page with this status, its text that of the second (Kong sends 494's text as 400).
    Refused { status: u16, text_of: u16 },
    /// The last try failed: an error page that counts as proxied.
    Upstream { status: u16 },
    /// The response was cut short after its head had left; the connection says so by its end.
    Truncated,
}

impl Fault {
    /// An error page with the text of its own status.
    pub fn refused(status: u16) -> Self {
        Self::Refused { status, text_of: status }
    }
}

/// One failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Whether time ran out (504) or something failed (502).
    pub timed_out: bool,
    /// Whether it was a shortage of our own, such as of descriptors, which says nothing about the peer.
    pub ours: bool,
    /// Whether bytes of the request may have reached the upstream.
    pub sent: bool,
    /// Whether the connection came from the pool and ended before any byte of a response: it says nothing about the peer.
    pub stale: bool,
    /// Whether body bytes are gone that cannot be sent again.
    pub body_spent: bool,
}

impl Broken {
    /// No connection came about.
    pub fn connecting(timed_out: bool) -> Self {
        Self { timed_out, ours: false, sent: false, stale: false, body_spent: false }
    }

    /// What the try says of its peer, when another follows.
    pub fn seen(self) -> Seen {
        if self.timed_out { Seen::TimedOut } else { Seen::Failed }
    }

    /// The status if this was the last try.
    pub fn status(self) -> u16 {
        if self.timed_out { 504 } else { 502 }
    }

    /// Whether the request may be tried once more (spec/proxying.md section 8, rules 4 and 5).
    pub fn may_retry(self, may_repeat: bool) -> bool {
        !self.body_spent && (may_repeat || !self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: bool, body_spent: bool, may_repeat: bool, want: bool) {
        let broken = Broken { timed_out: false, ours: false, sent, stale: false, body_spent };
        assert_eq!(broken.may_retry(may_repeat), want);
    }

    #[test]
    fn what_may_be_repeated_is_tried_again_and_a_post_only_before_it_left() {
        check(true, false, true, true);
        check(false, false, false, true);
        check(true, false, false, false);
    }

    #[test]
    fn a_spent_body_is_never_tried_again() {
        check(false, true, true, false);
    }

    #[test]
    fn a_timeout_is_504_and_all_else_502() {
        assert_eq!(Broken::connecting(true).status(), 504);
        assert_eq!(Broken::connecting(false).status(), 502);
    }
}
