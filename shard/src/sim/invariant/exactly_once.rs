//! A command with a request id takes effect once, however often it was sent: every put of a run has a value
//! of its own.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::text_of;
use crate::sim::watch::{Facts, Seen, Spot};
use crate::state::ChangeKind;

#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    /// By group and value.
    revisions: BTreeMap<(u64, String), u64>,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly once"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §4, rid"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Changed { changes } = seen else { return Ok(()) };
        for change in changes {
            let ChangeKind::Put(value) = &change.kind else { continue };
            let text = text_of(&value.payload);
            // The values of counters come again after a delete.
            if !text.starts_with('c') {
                continue;
            }
            let first = *self.revisions.entry((at.group, text.clone())).or_insert(change.revision);
            if first != change.revision {
                return Err(format!("{text} was put at revision {first} and again at {}", change.revision));
            }
        }
        Ok(())
    }
}
