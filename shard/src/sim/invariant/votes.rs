//! A term never goes back, and a replica votes once a term.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct Votes;

impl Invariant for Votes {
    fn name(&self) -> &'static str {
        "votes"
    }

    fn source(&self) -> &'static str {
        "Raft §5.1, §5.2"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let before = facts.replicas.get(&at);
        let (vote, before) = match seen {
            Seen::Voted { vote } => (Some(*vote), before.and_then(|replica| replica.vote)),
            Seen::Started { vote, .. } => (*vote, before.and_then(|replica| replica.durable_vote)),
            _ => return Ok(()),
        };
        let Some(before) = before else { return Ok(()) };
        let Some(vote) = vote else { return Err(format!("the vote {before} is gone")) };
        if vote.leader_id.term < before.leader_id.term {
            return Err(format!("the term went back from {before} to {vote}"));
        }
        let same_term = vote.leader_id.term == before.leader_id.term;
        let other = vote.leader_id.voted_for != before.leader_id.voted_for;
        if same_term && before.committed && !vote.committed {
            return Err(format!("the leader {before} was forgotten for {vote}"));
        }
        if same_term && other && (!vote.committed || before.committed) {
            return Err(format!("two votes in a term: {before}, then {vote}"));
        }
        Ok(())
    }
}
