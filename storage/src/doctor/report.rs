//! What a check saw.

use serde::Serialize;

use super::{Finding, Severity};
use crate::composite::Layers;

/// How much was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Checked {
    /// Segments of the log that hold frames; 0 for the log on Fjall.
    pub segments: u64,
    /// Groups in the log that are whole.
    pub groups: u64,
    /// Replicas.
    pub replicas: u64,
    /// Rows of their data.
    pub rows: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Snapshot files.
    pub snapshots: u64,
}

/// What a check saw. Its JSON form is the output of `odgm doctor --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The backends; `None` when they cannot be told.
    pub layers: Option<Layers>,
    /// How much was read.
    pub checked: Checked,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing is damaged and no replica is lost.
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity > Severity::Lost)
    }
}
