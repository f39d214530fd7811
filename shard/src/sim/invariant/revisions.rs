//! Every change takes the partition's next revision, without holes, and is the same on every replica.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct Revisions {
    last: BTreeMap<Spot, u64>,
    /// Groups of which a change may be durable, and its process have ended before it was told.
    untold: BTreeSet<u64>,
}

impl Invariant for Revisions {
    fn name(&self) -> &'static str {
        "revisions"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §1"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Started { .. } | Seen::Wiped => {
                self.last.remove(&at);
            }
            Seen::Opened => {
                self.last.remove(&at);
                self.untold.insert(at.group);
            }
            // An installed snapshot jumps: what was applied says where.
            Seen::Applied { revision, .. } => {
                let ledger = facts.ledger.get(&at.group);
                let known = ledger.and_then(|ledger| ledger.keys().next_back().copied()).unwrap_or(0);
                if *revision <= known {
                    self.last.insert(at, *revision);
                }
            }
            Seen::Changed { changes } => {
                let ledger = facts.ledger.get(&at.group);
                for change in changes {
                    let before = self.last.insert(at, change.revision);
                    // What came with a snapshot, or is told behind its batch, is in the ledger already.
                    let known = ledger.and_then(|ledger| ledger.get(&change.revision));
                    if let Some(known) = known {
                        if known != change {
                            return Err(format!("revision {}: {change:?}, but {known:?}", change.revision));
                        }
                        continue;
                    }
                    if let Some(before) = before
                        && change.revision != before + 1
                    {
                        return Err(format!("revision {} follows {before}", change.revision));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for (group, ledger) in facts.ledger.iter().filter(|(group, _)| !self.untold.contains(group)) {
            for (expected, revision) in (1..).zip(ledger.keys()) {
                if *revision != expected {
                    return Err(format!("group {group} has no change of revision {expected}"));
                }
            }
        }
        Ok(())
    }
}
