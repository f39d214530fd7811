//! What is applied was durable on a majority of the replicas first.

use std::collections::BTreeSet;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct DurableOnQuorum {
    /// Group, index, term and node: what was durable counts, though its disk be lost before the leader applies.
    held: BTreeSet<(u64, u64, u64, u64)>,
}

impl Invariant for DurableOnQuorum {
    fn name(&self) -> &'static str {
        "durable on a quorum"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §11; Raft §5.3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let position = match seen {
            Seen::Durable { entries } => {
                let held = entries.iter().map(|(index, entry)| (at.group, *index, entry.term, at.node));
                self.held.extend(held);
                return Ok(());
            }
            Seen::Applied { position, .. } => position,
            _ => return Ok(()),
        };
        if facts.committed_upto(at.group).is_some_and(|upto| position.index <= upto) {
            return Ok(());
        }
        let holds = |spot: &Spot| {
            self.held.contains(&(at.group, position.index, position.term, spot.node))
                || facts.replicas[spot].holds_durably(position.index, position.term)
        };
        let holders = facts.replicas.keys().filter(|spot| spot.group == at.group && holds(spot)).count();
        if holders * 2 > facts.copies {
            return Ok(());
        }
        Err(format!("applied {position:?}, which is durable on {holders} of {}", facts.copies))
    }
}
