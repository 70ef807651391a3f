//! The entries that wait in one queue (spec/plugins.md F.1): which are dropped, which go together, when to give up.
//! Owns: the bounds. Never: waits or sends. Always: what was dropped is counted.

use std::collections::VecDeque;

use hyper::body::Bytes;

use crate::limits;
use crate::plugins::queue::QueueRules;

/// Entries in the order in which they came.
#[derive(Default)]
pub struct Line {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Entries that are being sent; they count towards the bound.
    under_way: usize,
    /// Entries dropped since start.
    dropped: u64,
}

/// What became of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Kept,
    /// This many older ones made room.
    Displaced(usize),
    Refused(Refusal),
}

/// Why an entry was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It alone is larger than the queue may be.
    TooLarge,
    /// There is no room, and those that wait stay.
    Full,
}

impl Line {
    /// Adds an entry; the oldest that wait make room.
    pub fn push(&mut self, entry: Bytes, rules: &QueueRules) -> Pushed {
        let bytes_max = rules.bytes_max.unwrap_or(limits::SHIP_QUEUE_BYTES_MAX);
        if entry.len() > bytes_max {
            self.dropped += 1;
            return Pushed::Refused(Refusal::TooLarge);
        }
        let is_full = self.bytes + entry.len() > bytes_max || self.len() >= rules.entries_max;
        if is_full && rules.newest_gives_way {
            self.dropped += 1;
            return Pushed::Refused(Refusal::Full);
        }
        let mut displaced = 0;
        while self.bytes + entry.len() > bytes_max || self.len() >= rules.entries_max {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.len();
            displaced += 1;
        }
        self.dropped += displaced as u64;
        self.bytes += entry.len();
        self.waiting.push_back(entry);
        if displaced == 0 { Pushed::Kept } else { Pushed::Displaced(displaced) }
    }

    /// Takes the next batch: it is under way until [`Self::done`] or [`Self::lost`].
    pub fn take(&mut self, rules: &QueueRules) -> Vec<Bytes> {
        let count = self.waiting.len().min(if rules.each_alone { 1 } else { rules.batch_max });
        let batch: Vec<Bytes> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(Bytes::len).sum::<usize>();
        self.under_way += batch.len();
        batch
    }

    /// A batch of that many entries was taken over by the other side.
    pub fn done(&mut self, count: usize) {
        self.under_way -= count;
    }

    /// A batch of that many entries was given up.
    pub fn lost(&mut self, count: usize) {
        self.under_way -= count;
        self.dropped += count as u64;
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Entries that wait or are under way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    /// Entries dropped since start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn rules(batch_max: usize, entries_max: usize, bytes_max: Option<usize>) -> QueueRules {
        QueueRules { entries_max, bytes_max, ..QueueRules::plain(batch_max) }
    }

    #[test]
    fn a_full_queue_drops_its_oldest_entry() {
        let (mut line, rules) = (Line::default(), rules(10, 2, None));
        assert_eq!(line.push(entry("a"), &rules), Pushed::Kept);
        assert_eq!(line.push(entry("b"), &rules), Pushed::Kept);
        assert_eq!(line.push(entry("c"), &rules), Pushed::Displaced(1));
        assert_eq!((line.take(&rules), line.dropped()), (vec![entry("b"), entry("c")], 1));
    }

    #[test]
    fn a_full_queue_refuses_the_newest_entry_if_so_ruled() {
        let (mut line, rules) = (Line::default(), QueueRules { newest_gives_way: true, ..rules(10, 2, None) });
        let pushed = ["a", "b", "c"].map(|text| line.push(entry(text), &rules));
        assert_eq!(pushed, [Pushed::Kept, Pushed::Kept, Pushed::Refused(Refusal::Full)]);
        assert_eq!((line.take(&rules), line.dropped()), (vec![entry("a"), entry("b")], 1));
    }

    #[test]
    fn bytes_are_bounded_too_and_one_entry_alone_may_be_too_large() {
        let (mut line, rules) = (Line::default(), rules(10, 100, Some(5)));
        line.push(entry("aa"), &rules);
        line.push(entry("bb"), &rules);
        assert_eq!(line.push(entry("cccc"), &rules), Pushed::Displaced(2));
        assert_eq!(line.push(entry("dddddd"), &rules), Pushed::Refused(Refusal::TooLarge));
        assert_eq!((line.take(&rules), line.dropped()), (vec![entry("cccc")], 3));
    }

    #[test]
    fn what_is_under_way_counts_until_it_is_done_or_lost() {
        let (mut line, rules) = (Line::default(), rules(2, 3, None));
        for text in ["a", "b", "c"] {
            line.push(entry(text), &rules);
        }
        assert_eq!(line.take(&rules).len(), 2);
        assert_eq!(line.push(entry("d"), &rules), Pushed::Displaced(1), "two under way and one waiting are three");
        line.done(2);
        assert_eq!((line.push(entry("e"), &rules), line.len()), (Pushed::Kept, 2));
        assert_eq!(line.take(&rules).len(), 2);
        line.lost(2);
        assert_eq!((line.len(), line.dropped()), (0, 3));
    }

    #[test]
    fn the_bound_holds_whatever_happens() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut line, rules) = (Line::default(), rules(3, 8, Some(64)));
        let (mut pushed, mut gone, mut under_way) = (0u64, 0u64, Vec::new());
        for _ in 0..20_000 {
            match rng.u8(0..4) {
                0 | 1 => {
                    line.push(Bytes::from(vec![b'x'; rng.usize(0..80)]), &rules);
                    pushed += 1;
                }
                2 => under_way.push(line.take(&rules).len()),
                _ => match under_way.pop() {
                    Some(count) if rng.bool() => line.lost(count),
                    Some(count) => {
                        line.done(count);
                        gone += count as u64;
                    }
                    None => {}
                },
            }
            assert!(line.bytes <= 64, "{} bytes wait", line.bytes);
            let taken: usize = under_way.iter().sum();
            assert!(line.waiting() <= 8 && line.len() <= taken + 8);
            assert_eq!(pushed, gone + line.dropped() + line.len() as u64, "every entry is somewhere");
        }
    }
}
