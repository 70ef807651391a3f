//! What is made of the answers for one name over time: which addresses are in use, and when to ask again.
//! Pure: answers and the time in, decisions out.
//! Always: a new answer with addresses replaces the old one at once; whatever else is said - that there is no such name, no
//! record, a failure, or nothing - leaves the last addresses in use until their time (`dns_stale_ttl` behind their end) is
//! over (spec/balancer.md section 3, rule 4).

use std::time::Duration;
use std::time::Instant;

use crate::control::names::find::Answer;
use crate::control::names::find::Before;
use crate::control::names::find::Found;
use crate::control::names::rules::Rules;
use crate::state::spec::Resolution;

/// How much earlier than its end an answer is asked for again: this share of its time, and never more than the longest lead.
const LEAD_SHARE: u32 = 10;
const LEAD_MAX: Duration = Duration::from_secs(5);

/// What is remembered of a name.
#[derive(Debug, Default)]
pub struct Memory {
    pub before: Before,
    last_good: Option<(Resolution, Instant)>,
    /// The last answer was a failure or a denial.
    failing: bool,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub resolution: Resolution,
    /// Why there are no addresses, or not those that there should be.
    pub problem: Option<String>,
    /// Until the next question.
    pub wait: Duration,
    pub event: Event,
}

/// What an operator should hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Nothing,
    /// Failures begin.
    Fails,
    /// Failures are over.
    Works,
}

impl Memory {
    /// Weighs an answer. `luck` in 0..1 spreads questions that would otherwise stay together for ever.
    pub fn weigh(&mut self, answer: Answer, rules: &Rules, now: Instant, luck: f32) -> Step {
        match answer {
            Answer::Found(found) => self.take(found, rules, now, luck),
            Answer::Nothing(denial) => {
                let good = self.good(now);
                let wait = if good.is_some() { rules.error_ttl } else { rules.not_found_ttl };
                let resolution = good.unwrap_or(Resolution::NotFound(denial.words()));
                Step { resolution, problem: Some(denial.words().to_owned()), wait, event: self.event(true) }
            }
            Answer::Failed(why) => {
                let resolution = self.good(now).unwrap_or_else(|| Resolution::Failed(why.as_str().into()));
                Step { resolution, problem: Some(why), wait: rules.error_ttl, event: self.event(true) }
            }
        }
    }

    fn take(&mut self, found: Found, rules: &Rules, now: Instant, luck: f32) -> Step {
        let valid_for = rules.valid_for(found.ttl);
        let resolution = Resolution::Addresses(found.kind.of_records(), found.addresses.into());
        self.last_good = Some((resolution.clone(), now + valid_for + rules.stale_ttl));
        self.before = Before { kind: Some(found.kind), targets: found.targets };
        let event = self.event(found.incomplete.is_some());
        let wait = if found.incomplete.is_some() { rules.error_ttl.min(valid_for) } else { ahead_of(valid_for, luck) };
        Step { resolution, problem: found.incomplete, wait, event }
    }

    fn good(&mut self, now: Instant) -> Option<Resolution> {
        if self.last_good.take_if(|(_, until)| now >= *until).is_some() {
            // That is news, though failures began before.
            (self.failing, self.before) = (false, Before::default());
        }
        self.last_good.as_ref().map(|(good, _)| good.clone())
    }

    fn event(&mut self, fails: bool) -> Event {
        match (std::mem::replace(&mut self.failing, fails), fails) {
            (false, true) => Event::Fails,
            (true, false) => Event::Works,
            _ => Event::Nothing,
        }
    }
}

/// When to ask again so that an answer is there before the old one ends.
fn ahead_of(valid_for: Duration, luck: f32) -> Duration {
    let lead = (valid_for / LEAD_SHARE).min(LEAD_MAX);
    valid_for - lead / 2 - (lead / 2).mul_f32(luck)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::Settings;
    use crate::config::Sources;
    use crate::control::names::find::Denial;
    use crate::control::names::find::Targets;
    use crate::control::names::rules::Kind;
    use crate::state::spec::Address;

    fn rules() -> Rules {
        let flags = [("dns_stale_ttl", "10"), ("dns_not_found_ttl", "30"), ("dns_error_ttl", "2")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Rules::new(&Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings)
    }

    fn found(last: u8, ttl_s: u64) -> Answer {
        let addresses = vec![Address::from(IpAddr::from([127, 0, 0, last]))];
        let ttl = Duration::from_secs(ttl_s);
        Answer::Found(Found { kind: Kind::A, addresses, ttl, targets: Targets::new(), incomplete: None })
    }

    fn good(last: u8) -> Resolution {
        Resolution::of_ips(&[IpAddr::from([127, 0, 0, last])])
    }

    fn failed() -> Answer {
        Answer::Failed("timeout".to_owned())
    }

    /// Weighs answers at seconds after the start; gives what is in use and the seconds until the next question.
    fn weigh<const N: usize>(answers: [(Answer, u64); N]) -> [(Resolution, u64); N] {
        let (mut memory, start) = (Memory::default(), Instant::now());
        answers.map(|(answer, at)| {
            let step = memory.weigh(answer, &rules(), start + Duration::from_secs(at), 0.0);
            (step.resolution, step.wait.as_secs_f32().round() as u64)
        })
    }

    #[test]
    fn the_last_addresses_cover_failures_until_their_time_is_over() {
        let nothing = Resolution::Failed("timeout".into());
        assert_eq!(
            weigh([
                (failed(), 0),
                (found(1, 10), 1),
                (failed(), 5),
                (failed(), 20),
                (failed(), 21),
                (found(2, 10), 22)
            ]),
            [(nothing.clone(), 2), (good(1), 10), (good(1), 2), (good(1), 2), (nothing, 2), (good(2), 10)]
        );
    }

    #[test]
    fn a_denial_leaves_the_last_addresses_in_use_until_their_time_is_over() {
        for denial in [Denial::NoSuchName, Denial::Empty] {
            let no = || Answer::Nothing(denial);
            let not_found = Resolution::NotFound(denial.words());
            assert_eq!(
                weigh([
                    (found(1, 10), 0),
                    (no(), 9),
                    (found(2, 10), 11),
                    (no(), 20),
                    (failed(), 30),
                    (no(), 31),
                    (no(), 61)
                ]),
                [
                    (good(1), 10),
                    (good(1), 2),
                    (good(2), 10),
                    (good(2), 2),
                    (good(2), 2),
                    (not_found.clone(), 30),
                    (not_found.clone(), 30)
                ]
            );
            assert_eq!(weigh([(no(), 0)]), [(not_found, 30)], "there is nothing to lose");
        }
    }

    #[test]
    fn an_answer_with_gaps_is_asked_for_again_soon() {
        let Answer::Found(whole) = found(1, 60) else { unreachable!() };
        let with_gaps = Answer::Found(Found { incomplete: Some("b.test: timeout".to_owned()), ..whole });
        assert_eq!(weigh([(with_gaps, 0), (found(1, 60), 2)]), [(good(1), 2), (good(1), 58)]);
    }

    #[test]
    fn the_next_question_is_asked_before_the_answer_ends() {
        for (valid_s, luck, want_ms) in [(10, 0.0, 9500), (10, 0.999, 9000), (1000, 0.0, 997_500), (1, 0.0, 950)] {
            let wait = ahead_of(Duration::from_secs(valid_s), luck).as_millis();
            assert!(wait.abs_diff(want_ms) <= 1, "{valid_s} {luck}: {wait}");
        }
    }

    #[test]
    fn an_operator_hears_of_the_beginning_and_the_end_of_failures() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let events = [failed(), failed(), found(1, 1), found(1, 1), failed(), Answer::Nothing(Denial::Empty)]
            .map(|answer| memory.weigh(answer, &rules(), now, 0.0).event);
        assert_eq!(events, [Event::Fails, Event::Nothing, Event::Works, Event::Nothing, Event::Fails, Event::Nothing]);
        let later = now + Duration::from_secs(3600);
        let events = [failed(), failed()].map(|answer| memory.weigh(answer, &rules(), later, 0.0).event);
        assert_eq!(events, [Event::Fails, Event::Nothing], "and when the addresses are given up");
    }
}
