//! At most one leader is elected in a term.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    /// By group and term.
    leaders: BTreeMap<(u64, u64), u64>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn source(&self) -> &'static str {
        "Raft §5.2"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Voted { vote } = seen else { return Ok(()) };
        if !vote.committed {
            return Ok(());
        }
        let (term, leader) = (vote.leader_id.term, vote.leader_id.voted_for);
        let first = *self.leaders.entry((at.group, term)).or_insert(leader);
        if first == leader {
            Ok(())
        } else {
            Err(format!("term {term} has the leaders {first} and {leader}"))
        }
    }
}
