//! Healed and left alone, all replicas of a group come to the same state.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct Convergence {
    states: BTreeMap<Spot, (Option<u64>, u64)>,
}

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn source(&self) -> &'static str {
        "Raft §5.3; DESIGN §7"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        if let Seen::Settled { applied, state } = seen {
            self.states.insert(at, (applied.map(|position| position.index), *state));
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        let mut groups: BTreeMap<u64, Vec<(Spot, (Option<u64>, u64))>> = BTreeMap::new();
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
