//! The shared numbers of an address under real threads: what reports, trials, operators and picks do to each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::balancer::ALGORITHMS;
use crate::balancer::Local;
use crate::balancer::checks::Checks;
use crate::balancer::checks::Seen;
use crate::balancer::checks::WayBack;
use crate::balancer::checks::checks_for_test;
use crate::balancer::health::Outcome;
use crate::balancer::testing::Rig;
use crate::balancer::vitals::Evidence;
use crate::balancer::vitals::Now;
use crate::balancer::vitals::OnHealthEvent;
use crate::balancer::vitals::Pulse;
use crate::balancer::vitals::Vitals;

const NEVER: u64 = u64::MAX;

const THREADS: u64 = 4;

fn vitals(on_event: OnHealthEvent) -> Vitals {
    let addr = SocketAddr::from(([127, 0, 0, 1], 80));
    Vitals::new(addr, "t".into(), Arc::new(Pulse::new(1, on_event)))
}

fn at(ms: u64) -> Now {
    Now { ms, unix_ms: ms }
}

fn in_threads(work: impl Fn(u64) + Sync) {
    let work = &work;
    std::thread::scope(|scope| (0..THREADS).for_each(|n| drop(scope.spawn(move || work(n)))));
}

#[test]
fn no_report_of_any_thread_is_lost() {
    let mut checks = checks_for_test();
    checks.passive.limits.tcp_failures = 255;
    let vitals = vitals(Arc::new(|_| {}));
    in_threads(|_| (0..60).for_each(|_| vitals.report_traffic(&checks, Seen::Failed, at(1))));
    assert_eq!(u64::from(vitals.word().count(Outcome::TcpFailure)), THREADS * 60);
}

#[test]
fn whatever_threads_report_at_once_the_account_is_whole_and_nobody_waits_for_ever() {
    for seed in 0..200 {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let vitals = vitals(Arc::new(move |event| sink.lock().unwrap().push(event)));
        let mut checks = checks_for_test();
        checks.passive.limits.tcp_failures = 1;
        in_threads(|thread| {
            let mut rng = fastrand::Rng::with_seed(seed * THREADS + thread);
            for ms in 0..50 {
                match rng.u8(..16) {
                    0 => vitals.force(&checks, rng.bool(), at(ms)),
                    1..=5 => vitals.report_trial(&checks, Seen::Status(200), at(ms)),
                    6..=8 => {
                        vitals.report_probe(&checks, Outcome::Success, Evidence::Error("connected".into()), at(ms));
                    }
                    _ => vitals.report_traffic(&checks, Seen::Failed, at(ms)),
                }
            }
        });
        let mut events = std::mem::take(&mut *events.lock().unwrap());
        events.sort_by_key(|event| event.nth);
        for (before, event) in events.iter().enumerate() {
            assert_eq!((event.nth as usize, event.available), (before + 1, before % 2 == 1), "seed {seed}");
        }
        let word = vitals.word();
        assert_eq!(word.flips() as usize, events.len(), "seed {seed}");
        let waits_for_a_trial = !word.health().is_available() && !word.is_held();
        assert_eq!(vitals.next_trial_ms() != NEVER, waits_for_a_trial, "seed {seed}: {word:?}");
    }
}

#[test]
fn of_all_threads_one_makes_a_trial() {
    let vitals = vitals(Arc::new(|_| {}));
    let mut checks = checks_for_test();
    checks.passive.limits.tcp_failures = 1;
    vitals.report_traffic(&checks, Seen::Failed, at(0));
    for round in 1..100 {
        let (due_ms, made) = (round * 30_000, AtomicU32::new(0));
        in_threads(|_| {
            made.fetch_add(vitals.claim_trial(due_ms, 30_000).into(), Ordering::Relaxed);
        });
        assert_eq!(made.into_inner(), 1);
    }
}

#[test]
fn once_an_address_is_out_no_thread_picks_it() {
    for kind in ALGORITHMS {
        let rig = Rig::new(kind.name, &[1, 1, 1]);
        // Odd while the address is known to be out.
        let (balancer, phase, end) = (rig.balancer(), AtomicU64::new(0), AtomicBool::new(false));
        let picks = || {
            let (local, mut hash) = (Local::default(), 0u32);
            while !end.load(Ordering::SeqCst) {
                hash = hash.wrapping_add(2_654_435_761);
                let before = phase.load(Ordering::SeqCst);
                let picked = Rig::pick_on(balancer, &local, hash);
                let was_out = before % 2 == 1 && phase.load(Ordering::SeqCst) == before;
                assert!(picked.is_some() && !(was_out && picked == Some(0)), "{}", kind.name);
            }
        };
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(picks)));
            for _ in 0..200 {
                rig.eject(0);
                phase.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
                phase.fetch_add(1, Ordering::SeqCst);
                rig.bring_back(0, 0);
            }
            end.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn an_edit_that_takes_the_probes_away_gives_a_trial_in_their_place() {
    let vitals = vitals(Arc::new(|_| {}));
    let mut probed = checks_for_test();
    probed.active.unhealthy_interval_ms = 1000;
    probed.passive.limits.tcp_failures = 1;
    let plain = Checks { active: checks_for_test().active, ..probed.clone() };
    vitals.report_traffic(&probed, Seen::Failed, at(0));
    assert_eq!(vitals.next_trial_ms(), NEVER, "probes bring it back");
    vitals.follow(&plain, 500);
    assert_eq!(vitals.next_trial_ms(), 30_500);
    vitals.follow(&plain, 900);
    assert_eq!(vitals.next_trial_ms(), 30_500, "an edit of something else postpones nothing");
    vitals.follow(&probed, 1000);
    assert_eq!(vitals.next_trial_ms(), NEVER);
    assert_eq!(vitals.way_back(&plain), WayBack::Trial { after_ms: 30_000, successes: 1 });
    vitals.force(&plain, false, at(2000));
    vitals.follow(&plain, 2000);
    assert_eq!((vitals.next_trial_ms(), vitals.way_back(&plain)), (NEVER, WayBack::Operator));
}
