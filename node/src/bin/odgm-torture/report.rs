//! What came of a run, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::fault::Kind;

/// How long nothing was acknowledged around a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// In the partition that waited longest, of those that the fault hit.
    pub(crate) worst: Duration,
    /// In the whole cluster.
    pub(crate) any: Duration,
}

/// Gaps of one kind of fault, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Gaps {
    count: usize,
    worst_p50_ms: u64,
    worst_p99_ms: u64,
    worst_max_ms: u64,
    any_p50_ms: u64,
    any_p99_ms: u64,
    any_max_ms: u64,
}

impl Gaps {
    pub(crate) fn of(gaps: &[Gap]) -> Self {
        let sorted = |of: fn(&Gap) -> Duration| {
            let mut gaps: Vec<_> = gaps.iter().map(of).collect();
            gaps.sort_unstable();
            gaps
        };
        let (worst, any) = (sorted(|gap| gap.worst), sorted(|gap| gap.any));
        Gaps {
            count: gaps.len(),
            worst_p50_ms: quantile_ms(&worst, 50),
            worst_p99_ms: quantile_ms(&worst, 99),
            worst_max_ms: quantile_ms(&worst, 100),
            any_p50_ms: quantile_ms(&any, 50),
            any_p99_ms: quantile_ms(&any, 99),
            any_max_ms: quantile_ms(&any, 100),
        }
    }
}

/// The smallest that is not below so many per cent of all.
fn quantile_ms(sorted: &[Duration], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(0, |gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX))
}

/// A run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) violations: u64,
    /// The first of them.
    pub(crate) violated: Vec<String>,
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) operations: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Objects whose history was checked, and their operations.
    pub(crate) checked: (u64, u64),
    /// Objects that are there at the end.
    pub(crate) objects: usize,
    /// Changes of each partition.
    pub(crate) revisions: Vec<u64>,
    pub(crate) events: Events,
    pub(crate) gaps: BTreeMap<Kind, Gaps>,
    /// How often, and for how long at most in milliseconds, this program itself stood still: gaps then say nothing.
    pub(crate) stood_still: (u64, u64),
    pub(crate) notes: BTreeMap<String, u64>,
}

/// What watchers saw.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Events {
    pub(crate) watchers: usize,
    pub(crate) live: u64,
    pub(crate) replayed: u64,
    pub(crate) resumed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, seconds, violations, objects, revisions, events, .. } = self;
        writeln!(f, "seed {seed}: {seconds:.0} s")?;
        let total: u64 = self.faults.values().sum();
        let each: Vec<_> =
            self.faults.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        writeln!(f, "{total} faults: {}", each.join(", "))?;
        for (kind, outcomes) in &self.operations {
            let each: Vec<_> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            writeln!(f, "{kind}: {}", each.join(", "))?;
        }
        let changes: u64 = revisions.iter().sum();
        writeln!(f, "{} objects with {} operations checked", self.checked.0, self.checked.1)?;
        writeln!(f, "{objects} objects are there after {changes} changes")?;
        let Events { watchers, live, replayed, resumed } = events;
        writeln!(f, "{watchers} watchers, resumed {resumed} times: {live} events live, {replayed} replayed")?;
        for (kind, gaps) in &self.gaps {
            let Gaps { count, worst_p50_ms, worst_p99_ms, worst_max_ms, any_p50_ms, any_p99_ms, any_max_ms } =
                gaps;
            let mut line = format!("nothing acknowledged around {} (of {count}, ms): ", kind.name());
            write!(line, "worst partition p50 {worst_p50_ms} p99 {worst_p99_ms} max {worst_max_ms}")?;
            write!(line, "; all partitions p50 {any_p50_ms} p99 {any_p99_ms} max {any_max_ms}")?;
            writeln!(f, "{line}")?;
        }
        if self.stood_still.0 > 0 {
            let (times, longest) = self.stood_still;
            writeln!(f, "this program itself stood still {times} times, for up to {longest} ms")?;
        }
        for (note, count) in &self.notes {
            writeln!(f, "{count} times: {note}")?;
        }
        for violated in &self.violated {
            writeln!(f, "VIOLATED {violated}")?;
        }
        writeln!(f, "{violations} violations")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_gaps_the_99th_is_p99() {
        let gap = |ms| Gap { worst: Duration::from_millis(ms), any: Duration::from_millis(ms / 2) };
        let gaps: Vec<_> = (1..=100).rev().map(gap).collect();
        let gaps = Gaps::of(&gaps);
        assert_eq!((gaps.worst_p50_ms, gaps.worst_p99_ms, gaps.worst_max_ms), (50, 99, 100));
        assert_eq!((gaps.count, gaps.any_max_ms, Gaps::of(&[]).worst_p99_ms), (100, 50, 0));
    }
}
