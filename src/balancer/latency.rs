//! HOT: one exponential per candidate.
//! Latency (spec/balancer.md section 7.4): the peer whose recent answers were the fastest for its weight.
//! Owns: the decaying average of one address, shared by all cores.
//!
//! A peer that never answered, or that has just come back, begins with the mean of the others. Ties go to the first from a
//! place that moves on by one with every pick.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::balancer::Algorithm;
use crate::balancer::AlgorithmKind;
use crate::balancer::Ask;
use crate::balancer::Blueprint;
use crate::balancer::Measures;
use crate::balancer::Peer;

pub(super) const KIND: AlgorithmKind =
    AlgorithmKind { name: "latency", measures: Measures::Latency, starts_over: false, build };

/// Time constant of the decay.
const DECAY_MS: f32 = 10_000.0;
const UNKNOWN: u64 = u64::MAX;

/// A decaying average in seconds, and when it was last moved, in one number.
pub struct Latency(AtomicU64);

impl Default for Latency {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

fn pack(seconds: f32, now_ms: u64) -> u64 {
    u64::from(seconds.to_bits()) << 32 | u64::from(now_ms as u32)
}

fn average(bits: u64) -> f32 {
    f32::from_bits((bits >> 32) as u32)
}

/// Since the average was last moved. Times wrap after 49 days, to the same effect; 0 where another core was a moment ahead.
fn elapsed_ms(bits: u64, now_ms: u64) -> u32 {
    let elapsed = (now_ms as u32).wrapping_sub(bits as u32);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

/// What is left of an average after some time.
fn kept(elapsed_ms: u32) -> f32 {
    (-(elapsed_ms as f32) / DECAY_MS).exp()
}

impl Latency {
    /// Moves the average.
    pub fn observe(&self, seconds: f32, now_ms: u64) {
        let moved = |bits| match bits {
            UNKNOWN => pack(seconds, now_ms),
            // Nothing has passed: of answers at the same moment the first counts.
            bits if elapsed_ms(bits, now_ms) == 0 => bits,
            bits => {
                let kept = kept(elapsed_ms(bits, now_ms));
                pack(average(bits) * kept + seconds * (1.0 - kept), now_ms)
            }
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some(moved(bits)));
    }

    /// The average now; `None` when nothing was observed.
    pub fn now(&self, now_ms: u64) -> Option<f32> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            bits => Some(average(bits) * kept(elapsed_ms(bits, now_ms))),
        }
    }

    fn begin(&self, seconds: f32, now_ms: u64) {
        let _ = self.0.compare_exchange(UNKNOWN, pack(seconds, now_ms), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins anew.
    pub fn forget(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }
}

struct Fastest;

fn build(_: &Blueprint<'_>) -> Box<dyn Algorithm> {
    Box::new(Fastest)
}

impl Algorithm for Fastest {
    fn pick(&self, ask: &Ask<'_>, peers: &[Peer], usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let latency = |index: usize| &peers[index].vitals.latency;
        let mut best: Option<(f32, usize)> = None;
        let (mut sum, mut known, mut unknown) = (0.0, 0, None);
        for index in ask.rotation(peers.len()).filter(|&index| peers[index].weight > 0 && usable(index)) {
            let Some(seconds) = latency(index).now(ask.now_ms) else {
                unknown = unknown.or(Some(index));
                continue;
            };
            (sum, known) = (sum + seconds, known + 1);
            let score = seconds / peers[index].weight as f32;
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, index));
            }
        }
        if let Some(index) = unknown {
            let mean = if known > 0 { sum / known as f32 } else { 0.0 };
            latency(index).begin(mean, ask.now_ms);
            let score = mean / peers[index].weight as f32;
            if best.is_none_or(|(least, _)| score <= least) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::testing;

    #[test]
    fn the_average_follows_answers_and_decays_between_them() {
        let latency = Latency::default();
        assert_eq!(latency.now(0), None);
        latency.observe(0.1, 0);
        assert_eq!(latency.now(0), Some(0.1));
        let after_10_s = latency.now(10_000).unwrap();
        assert!((after_10_s - 0.1 / std::f32::consts::E).abs() < 1e-6);
        latency.observe(0.1, 10_000);
        assert!((latency.now(10_000).unwrap() - 0.1).abs() < 1e-6, "the same answer leaves the average where it was");
        latency.forget();
        assert_eq!(latency.now(0), None);
    }

    #[test]
    fn a_core_whose_clock_is_a_moment_behind_changes_little() {
        let latency = Latency::default();
        latency.observe(0.1, 1000);
        latency.observe(5.0, 999);
        assert!((latency.now(1000).unwrap() - 0.1).abs() < 1e-6);
    }

    #[test]
    fn the_fastest_for_its_weight_is_picked() {
        let rig = testing::Rig::new("latency", &[100, 100, 50]);
        for (index, seconds) in [0.030, 0.020, 0.011].into_iter().enumerate() {
            rig.peers()[index].vitals.observe_latency(seconds, 0);
        }
        assert_eq!(rig.pick_at(0), Some(1), "0.011 / 50 is more than 0.020 / 100");
    }

    #[test]
    fn one_that_never_answered_begins_with_the_mean_of_the_others() {
        let rig = testing::Rig::new("latency", &[1, 1, 1]);
        rig.peers()[0].vitals.observe_latency(0.1, 0);
        rig.peers()[1].vitals.observe_latency(0.3, 0);
        assert_eq!(rig.pick_at(0), Some(0));
        assert!((rig.peers()[2].vitals.latency.now(0).unwrap() - 0.2).abs() < 1e-6);
    }

    #[test]
    fn without_any_answer_the_picks_go_round() {
        let rig = testing::Rig::new("latency", &[1, 1]);
        let picked: Vec<_> = (0..4).map(|_| rig.pick_at(0).unwrap()).collect();
        assert_ne!(picked[0], picked[1]);
        assert_eq!(picked[..2], picked[2..]);
    }

    #[test]
    fn when_all_have_failed_there_is_none() {
        let rig = testing::Rig::new("latency", &[1, 1]);
        assert_eq!(rig.pick_after_failures(&[0]), Some(1));
        assert_eq!(rig.pick_after_failures(&[0, 1]), None);
    }
}
