//! What fuzz targets share: where to cut a text, and a driver that runs a target as a bounded test.
//! Owns: seeded mutation of a target's examples, which lie in `fuzz/seeds/<target>/`. Never: part of the product; built
//! for tests and by cargo-fuzz only. Always: the same seed mutates the same way, and a failure tells the text.

use std::fs;
use std::ops::Bound;
use std::ops::RangeBounds;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;

/// Decisions of what makes up random worlds: of a seed, or of bytes, so that a fuzzer can steer them. When the bytes are
/// used up every decision is the lowest.
pub struct Chance<'a> {
    rng: fastrand::Rng,
    bytes: Option<&'a [u8]>,
}

impl<'a> Chance<'a> {
    pub fn seeded(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), bytes: None }
    }

    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rng: fastrand::Rng::with_seed(0), bytes: Some(bytes) }
    }

    /// Whether bytes decide, and none is left.
    pub fn is_used_up(&self) -> bool {
        self.bytes.is_some_and(<[u8]>::is_empty)
    }

    /// One of a range that is not empty.
    #[track_caller]
    pub fn usize(&mut self, range: impl RangeBounds<usize>) -> usize {
        let low = match range.start_bound() {
            Bound::Included(low) => *low,
            Bound::Excluded(low) => low + 1,
            Bound::Unbounded => 0,
        };
        let high = match range.end_bound() {
            Bound::Included(high) => *high,
            Bound::Excluded(high) => high - 1,
            Bound::Unbounded => usize::MAX,
        };
        match self.bytes {
            None => self.rng.usize(low..=high),
            Some([]) => low,
            Some([first, rest @ ..]) => {
                self.bytes = Some(rest);
                low + usize::from(*first) % (high - low).saturating_add(1)
            }
        }
    }

    pub fn bool(&mut self) -> bool {
        self.usize(..2) == 1
    }

    /// Never the same twice, but by chance; bytes do not decide it.
    pub fn unique(&mut self) -> u128 {
        self.rng.u128(..)
    }
}

/// Texts up to this length are also read in single bytes.
const SINGLES_BYTES_MAX: usize = 2 << 10;

/// Ways to cut a text of these bytes into pieces: the ends of the pieces in order, the last one the end of the text. In
/// single bytes, and at two sets of places that follow from the bytes, so that the text alone replays a failure.
pub fn splits(text: &[u8]) -> Vec<Vec<usize>> {
    let digest = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut rng = fastrand::Rng::with_seed(digest);
    let mut all = Vec::new();
    if text.len() <= SINGLES_BYTES_MAX {
        all.push((1..=text.len().max(1)).map(|end| end.min(text.len())).collect());
    }
    for count in [1, 8] {
        let mut ends: Vec<usize> = (0..count).map(|_| rng.usize(..=text.len())).collect();
        ends.push(text.len());
        ends.sort_unstable();
        all.push(ends);
    }
    all
}

/// The examples of a target.
#[track_caller]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("an entry just listed").path()).collect();
    paths.sort();
    let texts: Vec<_> = paths.iter().map(|path| fs::read(path).expect("a file just listed")).collect();
    assert!(!texts.is_empty(), "{} holds no examples", folder.display());
    texts
}

/// Runs `body` on each example of the target and on `rounds` mutations of them. `words` are texts that mean something to
/// the target.
///
/// # Panics
/// The body did, with the text in the message.
#[track_caller]
pub fn check(target: &str, words: &[&str], rounds: u64, body: fn(&[u8])) {
    let seeds = seeds(target);
    let run = |text: &[u8], what: String| {
        if catch_unwind(AssertUnwindSafe(|| body(text))).is_err() {
            panic!("{target}, {what}: {}", text.escape_ascii());
        }
    };
    for (number, seed) in seeds.iter().enumerate() {
        run(seed, format!("example {number}"));
    }
    for round in 0..rounds {
        let mut rng = fastrand::Rng::with_seed(round);
        let mut text = rng.choice(&seeds).expect("there are examples").clone();
        for _ in 0..rng.usize(1..6) {
            mutate(&mut text, &seeds, words, &mut rng);
        }
        run(&text, format!("seed {round}"));
    }
}

fn mutate(text: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=text.len());
    let end = rng.usize(at..=text.len().min(at + 40));
    let other = rng.choice(seeds).expect("there are examples");
    match rng.u8(..8) {
        0 if at < text.len() => text[at] = rng.u8(..),
        1 if at < text.len() => text[at] ^= 1 << rng.u8(..8),
        2 => drop(text.drain(at..end)),
        3 => {
            let piece = text[at..end].to_vec();
            text.splice(at..at, piece);
        }
        4 => text.truncate(at),
        5 => {
            text.truncate(at);
            text.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
        _ => {
            let word = rng.choice(words).copied().unwrap_or("\0");
            text.splice(at..at, word.bytes());
        }
    }
}
