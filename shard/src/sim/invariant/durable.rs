//! What a log said is durable is there after a restart.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct DurableStays;

impl Invariant for DurableStays {
    fn name(&self) -> &'static str {
        "durable stays"
    }

    fn source(&self) -> &'static str {
        "DESIGN §3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Started { purged, entries, .. } = seen else { return Ok(()) };
        let Some(before) = facts.replicas.get(&at) else { return Ok(()) };
        let from = purged.map_or(0, |purged| purged.index + 1);
        for (index, term) in before.durable.range(from..) {
            let found = entries.get(index).map(|entry| entry.term);
            if found != Some(*term) {
                return Err(format!(
                    "entry {index} of term {term} was durable, and {found:?} is found at a start"
                ));
            }
        }
        Ok(())
    }
}
