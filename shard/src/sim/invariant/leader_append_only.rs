//! A leader never overwrites or deletes entries of its log.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct LeaderAppendOnly;

impl Invariant for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn source(&self) -> &'static str {
        "Raft §5.3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Truncated { keep } = seen else { return Ok(()) };
        let Some(replica) = facts.replicas.get(&at) else { return Ok(()) };
        let leads =
            replica.vote.is_some_and(|vote| vote.committed && vote.leader_id.voted_for == replica.replica);
        let from = keep.map_or(0, |keep| keep + 1);
        if leads && replica.entries.range(from..).next().is_some() {
            return Err(format!("the leader of {:?} truncates from {from}", replica.vote));
        }
        Ok(())
    }
}
