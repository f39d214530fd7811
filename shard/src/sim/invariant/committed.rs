//! What is committed is never taken back by a replica that has it, nor overwritten.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct CommittedStays;

impl Invariant for CommittedStays {
    fn name(&self) -> &'static str {
        "committed stays"
    }

    fn source(&self) -> &'static str {
        "Raft §5.4.3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Some(committed) = facts.committed.get(&at.group) else { return Ok(()) };
        match seen {
            Seen::Truncated { keep } => {
                let from = keep.map_or(0, |keep| keep + 1);
                let Some(replica) = facts.replicas.get(&at) else { return Ok(()) };
                for (index, entry) in replica.entries.range(from..) {
                    if committed.get(index) == Some(&entry.term) {
                        return Err(format!("truncates the committed entry {index} of term {}", entry.term));
                    }
                }
            }
            Seen::Appended { entries } => {
                for (index, entry) in entries {
                    // One of a later term at its place would be another commit.
                    if committed.get(index).is_some_and(|term| entry.term > *term) {
                        return Err(format!(
                            "appends term {} at {index}, which is committed otherwise",
                            entry.term
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
