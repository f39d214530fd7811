//! A leader was elected by votes that a majority had on disk: "persistent state, updated on stable storage
//! before responding".

use std::collections::BTreeSet;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct DurablyElected {
    /// Who voted for whom, durably: group, term, candidate, voter's node.
    votes: BTreeSet<(u64, u64, u64, u64)>,
}

impl Invariant for DurablyElected {
    fn name(&self) -> &'static str {
        "durable votes"
    }

    fn source(&self) -> &'static str {
        "Raft §5.2, figure 2"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::VoteDurable { vote } => {
                let (term, candidate) = (vote.leader_id.term, vote.leader_id.voted_for);
                self.votes.insert((at.group, term, candidate, at.node));
                Ok(())
            }
            Seen::Voted { vote } if vote.committed => {
                let (term, leader) = (vote.leader_id.term, vote.leader_id.voted_for);
                let elected = facts.replicas.get(&at).is_some_and(|replica| replica.replica == leader);
                if !elected {
                    return Ok(());
                }
                let from = (at.group, term, leader, 0);
                let votes = self.votes.range(from..=(at.group, term, leader, u64::MAX)).count();
                // The first leader of a group makes itself one, by founding it.
                if votes * 2 > facts.copies || !facts.committed.contains_key(&at.group) {
                    return Ok(());
                }
                Err(format!("leads by {vote} with {votes} durable votes of {}", facts.copies))
            }
            _ => Ok(()),
        }
    }
}
