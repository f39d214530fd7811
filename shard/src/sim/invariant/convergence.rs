//! Healed and left alone, all replicas of a group come to the same state.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

/// The last index applied, and the hash of what it gave.
type State = (Option<u64>, u64);

#[derive(Debug, Default)]
pub(super) struct Convergence {
    states: BTreeMap<Spot, State>,
}

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn source(&self) -> &'static str {
        "Raft §5.3; INTERFACE §11"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        if let Seen::Settled { applied, state } = seen {
            self.states.insert(at, (*applied, *state));
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let mut groups: BTreeMap<u64, Vec<(Spot, State)>> = BTreeMap::new();
        for (spot, state) in &self.states {
            groups.entry(spot.group).or_default().push((*spot, *state));
        }
        for states in groups.into_values() {
            if states.len() < facts.copies {
                return Err(format!("only {} of {} replicas are back", states.len(), facts.copies));
            }
            if let Some(other) = states.iter().find(|state| state.1 != states[0].1) {
                return Err(format!("{:?} and {other:?} differ", states[0]));
            }
        }
        Ok(())
    }
}
