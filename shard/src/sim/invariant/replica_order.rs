//! A divergent replica numbers what it takes in, own or merged: by one, and with rising times.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

/// The last change that was seen of a replica.
#[derive(Debug, Default)]
struct Last {
    revision: u64,
    time: u64,
    /// What was durable when the process ended need not have been told.
    reopened: bool,
}

#[derive(Debug, Default)]
pub(super) struct ReplicaOrder {
    last: BTreeMap<Spot, Last>,
}

impl Invariant for ReplicaOrder {
    fn name(&self) -> &'static str {
        "order of a replica"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §5, §6; issue 4"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Opened => self.last.entry(at).or_default().reopened = true,
            Seen::Diverged { changes } => {
                for change in changes {
                    let last = self.last.entry(at).or_default();
                    let follows = match last.reopened {
                        true => change.revision > last.revision,
                        false => change.revision == last.revision + 1,
                    };
                    if !follows || change.time <= last.time {
                        return Err(format!("{change:?} follows {last:?}"));
                    }
                    *last = Last { revision: change.revision, time: change.time, reopened: false };
                }
            }
            _ => {}
        }
        Ok(())
    }
}
