//! What clients were told, and what follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A change that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) at: Instant,
    pub(super) partition: u32,
    pub(super) revision: u64,
}

/// An increment that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incremented {
    pub(super) counter: u64,
    pub(super) by: i64,
    pub(super) value: i64,
}

/// A put that was acknowledged on the condition of the revision that the object had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swapped {
    pub(super) register: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What one client was told, or all.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) changes: Vec<Changed>,
    pub(super) increments: Vec<Incremented>,
    pub(super) swaps: Vec<Swapped>,
    pub(super) refused: u64,
}

impl Record {
    pub(super) fn add(&mut self, other: &Record) {
        self.changes.extend_from_slice(&other.changes);
        self.increments.extend_from_slice(&other.increments);
        self.swaps.extend_from_slice(&other.swaps);
        self.refused += other.refused;
    }

    /// Between two acknowledgements of which the second is after `from`, of one partition or of any.
    pub(super) fn longest_gap(&self, from: Instant, partition: Option<u32>) -> Duration {
        let of = |change: &&Changed| partition.is_none_or(|partition| partition == change.partition);
        let mut times: Vec<_> = self.changes.iter().filter(of).map(|change| change.at).collect();
        times.sort_unstable();
        let pairs = times.windows(2).filter(|pair| pair[1] > from);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Every change took its own number, and all numbers were taken: each partition's last one.
    pub(super) fn verify_revisions(&self, partitions: u32) -> Vec<u64> {
        let last = |partition| {
            let of = self.changes.iter().filter(|change| change.partition == partition);
            let mut revisions: Vec<_> = of.map(|change| change.revision).collect();
            revisions.sort_unstable();
            for (expected, revision) in (1..).zip(&revisions) {
                assert_eq!(
                    *revision, expected,
                    "a hole or a repeat in the revisions of partition {partition}"
                );
            }
            revisions.len() as u64
        };
        (0..partitions).map(last).collect()
    }

    /// Each increment built on another one: the totals.
    pub(super) fn verify_increments(&self) -> BTreeMap<u64, i64> {
        let mut increments = self.increments.clone();
        increments.sort_unstable_by_key(|increment| (increment.counter, increment.value));
        let mut totals = BTreeMap::new();
        for increment in increments {
            let total = totals.entry(increment.counter).or_insert(0);
            assert_eq!(increment.value, *total + increment.by, "an increment lost or counted twice");
            *total = increment.value;
        }
        totals
    }

    /// Each conditional put built on the one before: the last revisions.
    pub(super) fn verify_swaps(&self) -> BTreeMap<u64, u64> {
        let mut swaps = self.swaps.clone();
        swaps.sort_unstable_by_key(|swap| (swap.register, swap.to));
        let mut last = BTreeMap::new();
        for swap in swaps {
            let last = last.entry(swap.register).or_insert(0);
            assert_eq!(swap.from, *last, "a conditional put on another revision");
            *last = swap.to;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(revisions: &[u64]) -> Record {
        let at = Instant::now();
        let changes = revisions.iter().map(|revision| Changed { at, partition: 0, revision: *revision });
        Record { changes: changes.collect(), ..Record::default() }
    }

    fn increments(values: &[i64]) -> Record {
        let increments = values.iter().map(|value| Incremented { counter: 0, by: 1, value: *value });
        Record { increments: increments.collect(), ..Record::default() }
    }

    #[test]
    fn what_is_as_it_should_be_passes() {
        assert_eq!(changes(&[2, 3, 1]).verify_revisions(2), [3, 0]);
        assert_eq!(increments(&[2, 1]).verify_increments()[&0], 2);
    }

    #[test]
    #[should_panic(expected = "a hole or a repeat")]
    fn a_change_that_was_lost_is_seen() {
        changes(&[1, 3]).verify_revisions(1);
    }

    #[test]
    #[should_panic(expected = "a hole or a repeat")]
    fn a_revision_that_was_given_twice_is_seen() {
        changes(&[1, 2, 2]).verify_revisions(1);
    }

    #[test]
    #[should_panic(expected = "lost or counted twice")]
    fn an_increment_that_counted_twice_is_seen() {
        increments(&[1, 3]).verify_increments();
    }

    #[test]
    #[should_panic(expected = "on another revision")]
    fn a_conditional_put_over_another_is_seen() {
        let swap = |from, to| Swapped { register: 0, from, to };
        Record { swaps: vec![swap(0, 4), swap(0, 6)], ..Record::default() }.verify_swaps();
    }
}
