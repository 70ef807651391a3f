//! Random histories of one upstream against what must always hold: edits, failures, names that change, steps of the clock,
//! probes, operators, requests, and cores that hear of changes later than others. A seed is one history, always the same.
//! `RINGWAY_SEED=n` replays one, `RINGWAY_SEEDS=n` runs so many.

mod invariants;
mod world;

use std::net::SocketAddr;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::balancer::ALGORITHMS;
use crate::balancer::Ask;
use crate::balancer::Tried;
use crate::state::book::PeerBook;
use crate::state::delta::BackendChange;
use crate::state::delta::PeersUpdate;
use crate::state::peers::CorePeers;
use crate::state::simulation::world::UPSTREAM;
use crate::state::simulation::world::World;
use crate::state::simulation::world::random_spec;
use crate::state::spec::TargetSpec;
use crate::state::spec::UpstreamSpec;

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// How often each thing happened.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct Counts { $(pub $name: u64),* }

        impl Counts {
            fn add(&mut self, more: Self) {
                $(self.$name += more.$name;)*
            }

            fn all(self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counts! {
    edits, name_changes, clock_jumps, probes, words, late_ends, requests, requests_behind, failures, trials, ejections,
    recoveries, quiets,
}

/// The first history that failed.
#[derive(Debug)]
struct Failed {
    seed: u64,
    why: String,
}

/// Lives through the histories of some seeds, on all CPUs.
fn run(seeds: Range<u64>, one: impl Fn(u64) -> World + Sync) -> Result<Counts, Failed> {
    let (next, counts, failed) = (AtomicU64::new(seeds.start), Mutex::new(Counts::default()), Mutex::new(None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let lived = catch_unwind(AssertUnwindSafe(|| {
                let mut world = one(seed);
                world.run();
                world.counts
            }));
            match lived {
                Ok(more) => counts.lock().expect("no panic inside").add(more),
                Err(panic) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    let why = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "?".to_owned());
                    let mut failed = failed.lock().expect("no panic inside");
                    if failed.as_ref().is_none_or(|before: &Failed| seed < before.seed) {
                        *failed = Some(Failed { seed, why });
                    }
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match failed.into_inner().expect("no panic inside") {
        Some(failed) => Err(failed),
        None => Ok(counts.into_inner().expect("no panic inside")),
    }
}

#[test]
fn what_must_hold_holds_in_any_history() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match (number("RINGWAY_SEED"), number("RINGWAY_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(300),
    };
    let lived = run(seeds.clone(), World::new);
    let counts = lived.unwrap_or_else(|Failed { seed, why }| {
        panic!("{why}\nagain: RINGWAY_SEED={seed} cargo nextest run --lib simulation::what_must_hold")
    });
    println!("{seeds:?}: {counts:?}");
    if seeds.end - seeds.start >= 100 {
        let missing: Vec<_> = counts.all().into_iter().filter(|(_, count)| *count < 100).collect();
        assert!(missing.is_empty(), "these hardly happen: {missing:?}");
    }
}

/// Of several that came back together one waited too long: a turn that nobody could take was counted twice.
#[test]
fn those_that_come_back_together_are_all_used_at_once() {
    World::new(688).run();
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        assert_eq!(World::new(seed).run(), World::new(seed).run());
    }
    assert_ne!(World::new(1).run(), World::new(2).run());
}

#[test]
fn a_history_that_fails_is_named_and_fails_again_at_the_same_step() {
    let broken = |seed| {
        let mut world = World::new(seed);
        world.hides_events = true;
        world
    };
    let failed = run(0..1000, broken).expect_err("the account is wrong");
    assert!(failed.why.contains(&format!("seed {} step", failed.seed)), "{}", failed.why);
    let again = run(failed.seed..failed.seed + 1, broken).expect_err("the same history");
    assert_eq!(again.why, failed.why);
}

/// Taking an address out moves the keys it had and no other; putting it back brings them home.
#[test]
fn changing_an_upstream_moves_only_the_keys_it_must() {
    let kind = ALGORITHMS.iter().find(|kind| kind.name == "consistent-hashing").expect("it stands in the table");
    let mut book = PeerBook::new(Arc::new(|_| {}));
    let mut rng = fastrand::Rng::with_seed(1);
    let spec =
        UpstreamSpec { algorithm: kind, slots: 10_000, threshold_percent: 0.0, checks: None, ..random_spec(&mut rng) };
    let target = |n: u8| {
        BackendChange::Target(Arc::new(TargetSpec {
            id: Uuid::from_u128(u128::from(n)),
            upstream: UPSTREAM,
            host: format!("10.0.0.{n}").into(),
            port: 80,
            weight: 100,
            created_at_ms: u64::from(n),
        }))
    };
    let owners = |updates: Vec<PeersUpdate>| -> Vec<SocketAddr> {
        let core = CorePeers::new(updates[0].peers.clone().expect("a set"), Rc::default());
        let tried = Tried::default();
        let owner = |key: u32| {
            let ask = Ask {
                turn: core.turn(),
                tried: &tried,
                hash: key.wrapping_mul(2_654_435_761),
                now_ms: 0,
                may_repeat: true,
            };
            core.pick(&ask).expect("somebody").peer.addr
        };
        (0..20_000).map(owner).collect()
    };
    let mut changes = vec![BackendChange::Upstream(Arc::new(spec))];
    changes.extend((1..=5).map(target));
    let five = owners(book.apply(&changes, &[], &[], 0));
    let four = owners(book.apply(&[BackendChange::TargetGone(Uuid::from_u128(3))], &[], &[], 0));
    let again = owners(book.apply(&[target(3)], &[], &[], 0));
    assert_eq!(five, again);
    let third = SocketAddr::from(([10, 0, 0, 3], 80));
    let had = five.iter().filter(|addr| **addr == third).count();
    let moved = five.iter().zip(&four).filter(|(before, after)| before != after).count();
    assert!((3000..5000).contains(&had), "{had} of 20000 is about a fifth");
    // Points whose slot was taken make up for it elsewhere, so a few other keys move too: Kong's continuum has it so.
    assert!(moved >= had && moved < had + 20_000 / 20, "{moved} keys moved, {had} had to");
}
