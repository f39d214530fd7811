//! What is applied was durable on a majority of the replicas first.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct DurableOnQuorum;

impl Invariant for DurableOnQuorum {
    fn name(&self) -> &'static str {
        "durable on a quorum"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §11; Raft §5.3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Applied { position, .. } = seen else { return Ok(()) };
        if facts.committed_upto(at.group).is_some_and(|upto| position.index <= upto) {
            return Ok(());
        }
        let of_group = facts.replicas.iter().filter(|(spot, _)| spot.group == at.group);
        let holders =
            of_group.filter(|(_, replica)| replica.holds_durably(position.index, position.term)).count();
        if holders * 2 > facts.copies {
            return Ok(());
        }
        Err(format!("applied {position:?}, which is durable on {holders} of {}", facts.copies))
    }
}
