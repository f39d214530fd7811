//! What a run was like, and many of them together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::faults::Kind;
use super::watch::Violation;

/// One run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// How much virtual time passed.
    pub virtual_time: Duration,
    /// The hash of all that ran, in order: the same for the same seed and binary.
    pub trace_hash: u64,
    /// How many steps tasks made.
    pub steps: u64,
    /// How often each kind of fault struck.
    pub fired: BTreeMap<Kind, u64>,
    /// Changes that were committed.
    pub commits: u64,
    /// The last lines of the trace, when it was asked for.
    pub trace: Vec<String>,
}

/// Many runs.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// How many.
    pub seeds: u64,
    /// Their virtual time.
    pub virtual_time: Duration,
    /// How often each kind of fault struck.
    pub fired: BTreeMap<Kind, u64>,
    /// Changes that were committed.
    pub commits: u64,
    /// The runs in which something did not hold.
    pub failures: Vec<(u64, Violation)>,
}

impl Totals {
    /// Takes a run in.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.virtual_time += report.virtual_time;
        self.commits += report.commits;
        for (kind, count) in &report.fired {
            *self.fired.entry(*kind).or_default() += count;
        }
        self.failures.extend(report.violation.clone().map(|violation| (report.seed, violation)));
    }

    /// Takes other runs in.
    pub fn merge(&mut self, other: Totals) {
        self.seeds += other.seeds;
        self.virtual_time += other.virtual_time;
        self.commits += other.commits;
        for (kind, count) in other.fired {
            *self.fired.entry(kind).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    /// The kinds of faults that never struck: they prove nothing.
    pub fn silent_kinds(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.fired.get(kind).is_none_or(|count| *count == 0)).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_time.as_secs_f64() / 3600.0;
        writeln!(f, "{} seeds, {hours:.2} virtual hours, {} changes committed", self.seeds, self.commits)?;
        for kind in Kind::ALL {
            let name = format!("{kind:?}");
            writeln!(f, "  {name:<20} {:>9}", self.fired.get(&kind).copied().unwrap_or(0))?;
        }
        for (seed, violation) in &self.failures {
            writeln!(f, "seed {seed}: {violation}")?;
        }
        Ok(())
    }
}
