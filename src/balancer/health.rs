//! HOT: a few operations on one number.
//! Is an address fit to take requests? The state machine of spec/balancer.md section 14, for probes and traffic alike.
//! Owns: what a report does to a state and its counters. Pure: a word and a report in, a word out.
//! Never: reads time, knows who reports.

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    Healthy,
    /// Available, with failures counted.
    MostlyHealthy,
    /// Unavailable, with successes counted.
    MostlyUnhealthy,
    Unhealthy,
}

impl Health {
    /// Whether requests may go there.
    pub fn is_available(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }
}

/// What a try or a probe came to. The counters are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Success,
    TcpFailure,
    HttpFailure,
    Timeout,
}

impl Outcome {
    const fn shift(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::TcpFailure => 8,
            Self::HttpFailure => 16,
            Self::Timeout => 24,
        }
    }
}

const STATE_SHIFT: u32 = 32;
const STATE: u64 = 3 << STATE_SHIFT;
const SUCCESSES: u64 = 0xff;
const FAILURES: u64 = 0xffff_ff00;
/// An operator took the address out.
const HELD: u64 = 1 << 34;
/// One change of availability; all bits from here on count them.
const FLIP: u64 = 1 << 35;

/// State and counters of one address in one number, so that they change together. Zero is healthy with nothing counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word(u64);

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: Health,
    pub to: Health,
}

impl Transition {
    /// Whether availability changed with it.
    pub fn flips(self) -> bool {
        self.from.is_available() != self.to.is_available()
    }
}

impl Word {
    /// From what [`Word::bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For keeping in an atomic.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The state.
    pub fn health(self) -> Health {
        match (self.0 >> STATE_SHIFT) & 3 {
            0 => Health::Healthy,
            1 => Health::MostlyHealthy,
            2 => Health::MostlyUnhealthy,
            _ => Health::Unhealthy,
        }
    }

    /// How many of this outcome are counted, 0 to 255.
    pub fn count(self, outcome: Outcome) -> u8 {
        (self.0 >> outcome.shift()) as u8
    }

    /// How often availability has changed. Tells the order of changes that were made at once.
    pub fn flips(self) -> u32 {
        (self.0 / FLIP) as u32
    }

    /// Whether it is out because an operator said so.
    pub fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// A forced state: nothing is counted in it.
    pub fn forced(self, healthy: bool) -> Self {
        let bare = Self(self.0 & !(SUCCESSES | FAILURES | HELD));
        match healthy {
            true => bare.with(Health::Healthy),
            false => Self(bare.with(Health::Unhealthy).0 | HELD),
        }
    }

    fn with(self, health: Health) -> Self {
        let state = match health {
            Health::Healthy => 0,
            Health::MostlyHealthy => 1,
            Health::MostlyUnhealthy => 2,
            Health::Unhealthy => 3,
        };
        let kept = if health.is_available() { self.0 & !(STATE | HELD) } else { self.0 & !STATE };
        // What is more than can be counted falls off at the upper end.
        let flip = if health.is_available() == self.health().is_available() { 0 } else { FLIP };
        Self((kept | state << STATE_SHIFT).wrapping_add(flip))
    }

    fn counted(self, outcome: Outcome) -> Self {
        let count = u64::from(self.count(outcome).saturating_add(1));
        let kept = if outcome == Outcome::Success { !FAILURES } else { !SUCCESSES };
        Self(self.0 & kept & !(0xff << outcome.shift()) | count << outcome.shift())
    }
}

/// Takes one report. `limit` is how many of this outcome decide; 0: the report is void.
pub fn report(word: Word, outcome: Outcome, limit: u8) -> (Word, Option<Transition>) {
    let from = word.health();
    let void = match outcome {
        Outcome::Success => from == Health::Healthy,
        _ => from == Health::Unhealthy,
    };
    if limit == 0 || void {
        return (word, None);
    }
    let counted = word.counted(outcome);
    let reached = counted.count(outcome) >= limit;
    let to = match (outcome, from) {
        (Outcome::Success, _) if reached => Health::Healthy,
        (Outcome::Success, Health::Unhealthy) => Health::MostlyUnhealthy,
        (_, _) if reached => Health::Unhealthy,
        (_, Health::Healthy) => Health::MostlyHealthy,
        (_, from) => from,
    };
    (counted.with(to), (to != from).then_some(Transition { from, to }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::*;
    use Outcome::*;

    /// Reports in order, each with its limit, and the state after each.
    #[track_caller]
    fn check(start: Word, steps: &[(Outcome, u8, Health)]) -> Word {
        let mut word = start;
        for (at, &(outcome, limit, want)) in steps.iter().enumerate() {
            let (next, transition) = report(word, outcome, limit);
            assert_eq!(next.health(), want, "step {at}");
            assert_eq!(transition, (word.health() != want).then_some(Transition { from: word.health(), to: want }));
            word = next;
        }
        word
    }

    #[test]
    fn failures_up_to_the_limit_eject_and_successes_bring_back() {
        let down = check(
            Word::default(),
            &[(HttpFailure, 3, MostlyHealthy), (HttpFailure, 3, MostlyHealthy), (HttpFailure, 3, Unhealthy)],
        );
        let up = check(down, &[(Success, 2, MostlyUnhealthy), (Success, 2, Healthy)]);
        assert_eq!(up.count(HttpFailure), 0, "a success forgets failures");
    }

    #[test]
    fn a_limit_of_zero_voids_the_report_and_resets_nothing() {
        let word = check(
            Word::default(),
            &[(TcpFailure, 2, MostlyHealthy), (Success, 0, MostlyHealthy), (Timeout, 0, MostlyHealthy)],
        );
        assert_eq!((word.count(TcpFailure), word.count(Timeout)), (1, 0));
        check(word, &[(TcpFailure, 2, Unhealthy)]);
    }

    #[test]
    fn kinds_are_not_summed() {
        check(
            Word::default(),
            &[
                (TcpFailure, 2, MostlyHealthy),
                (Timeout, 2, MostlyHealthy),
                (HttpFailure, 2, MostlyHealthy),
                (Timeout, 2, Unhealthy),
            ],
        );
    }

    #[test]
    fn one_success_forgets_failures_of_an_available_address() {
        let word = check(
            Word::default(),
            &[(TcpFailure, 2, MostlyHealthy), (Success, 5, MostlyHealthy), (TcpFailure, 2, MostlyHealthy)],
        );
        assert_eq!((word.count(TcpFailure), word.count(Success)), (1, 0));
    }

    #[test]
    fn successes_while_healthy_and_failures_while_unhealthy_count_nothing() {
        assert_eq!(check(Word::default(), &[(Success, 1, Healthy)]), Word::default());
        let down = Word::default().forced(false);
        assert_eq!(check(down, &[(Timeout, 1, Unhealthy)]), down);
    }

    #[test]
    fn a_failure_on_the_way_back_starts_the_count_anew() {
        let word = check(
            Word::default().forced(false),
            &[(Success, 2, MostlyUnhealthy), (HttpFailure, 9, MostlyUnhealthy), (Success, 2, MostlyUnhealthy)],
        );
        assert_eq!((word.count(Success), word.count(HttpFailure)), (1, 0));
        check(word, &[(TcpFailure, 1, Unhealthy)]);
    }

    #[test]
    fn counters_stop_at_255_and_never_touch_their_neighbours() {
        let mut word = Word::default();
        for _ in 0..1000 {
            word = word.counted(TcpFailure);
        }
        assert_eq!((word.count(TcpFailure), word.count(HttpFailure), word.health()), (255, 0, Healthy));
        assert_eq!(report(word, TcpFailure, 255).0.health(), Unhealthy);
    }

    #[test]
    fn changes_of_availability_are_counted_and_nothing_else_is() {
        let mut word = Word::default();
        for (outcome, limit, flips) in
            [(Timeout, 2, 0), (Timeout, 2, 1), (Success, 2, 1), (Success, 2, 2), (TcpFailure, 1, 3)]
        {
            word = report(word, outcome, limit).0;
            assert_eq!(word.flips(), flips);
        }
        assert_eq!(word.forced(false).flips(), 3, "it was out already");
        assert_eq!(word.forced(true).forced(false).flips(), 5);
        let full = Word::from_bits(u64::MAX / FLIP * FLIP);
        let wrapped = report(full, TcpFailure, 1).0;
        assert_eq!((wrapped.flips(), wrapped.health(), wrapped.count(TcpFailure)), (0, Unhealthy, 1));
    }

    #[test]
    fn an_operators_hold_lasts_until_the_address_is_available() {
        let held = Word::default().forced(false);
        assert!(held.is_held());
        let on_its_way = report(held, Success, 2).0;
        assert!(on_its_way.is_held());
        let back = report(on_its_way, Success, 2).0;
        assert!(!back.is_held() && !report(back, Timeout, 1).0.is_held());
        assert!(!held.forced(true).is_held());
    }

    #[test]
    fn only_a_change_of_availability_flips() {
        assert!(!Transition { from: Healthy, to: MostlyHealthy }.flips());
        assert!(Transition { from: MostlyHealthy, to: Unhealthy }.flips());
        assert!(!Transition { from: Unhealthy, to: MostlyUnhealthy }.flips());
        assert!(Transition { from: MostlyUnhealthy, to: Healthy }.flips());
    }
}
