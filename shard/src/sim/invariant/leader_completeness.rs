//! A leader's log holds every entry that was committed in an earlier term.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct LeaderCompleteness;

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn source(&self) -> &'static str {
        "Raft §5.4"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Voted { vote } = seen else { return Ok(()) };
        let Some(replica) = facts.replicas.get(&at) else { return Ok(()) };
        if !vote.committed || vote.leader_id.voted_for != replica.replica {
            return Ok(());
        }
        let from = replica.purged.map_or(0, |purged| purged + 1);
        let committed = facts.committed.get(&at.group).into_iter().flat_map(|terms| terms.range(from..));
        for (index, term) in committed.filter(|(_, term)| **term < vote.leader_id.term) {
            let held = replica.entries.get(index).map(|entry| entry.term);
            if held != Some(*term) {
                return Err(format!(
                    "leads by {vote}, with {held:?} where index {index} is committed in term {term}"
                ));
            }
        }
        Ok(())
    }
}
