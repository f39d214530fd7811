//! Replicas that have applied the same position have the same state, and have applied the same entry.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct StateMachineSafety {
    /// By group and index.
    states: BTreeMap<(u64, u64), (u64, u64, Spot)>,
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn source(&self) -> &'static str {
        "Raft §5.4.3; DESIGN §5"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Applied { position, state, .. } = seen else { return Ok(()) };
        let committed = facts.committed.get(&at.group).and_then(|terms| terms.get(&position.index));
        if let Some(term) = committed.filter(|term| **term != position.term) {
            return Err(format!("applied {position:?} where term {term} was applied before"));
        }
        let first = *self.states.entry((at.group, position.index)).or_insert((position.term, *state, at));
        if first.0 != position.term || first.1 != *state {
            return Err(format!("at {position:?} the state is {state:x}, but {:x} at {}", first.1, first.2));
        }
        Ok(())
    }
}
