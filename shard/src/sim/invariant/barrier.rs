//! Behind a read barrier a replica shows everything that was applied anywhere before the barrier began.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct Barrier;

impl Invariant for Barrier {
    fn name(&self) -> &'static str {
        "read barrier"
    }

    fn source(&self) -> &'static str {
        "Raft §6.4; INTERFACE §11"
    }

    fn see(&mut self, _: &Facts, _: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::BarrierPassed { committed, applied } if applied < committed => Err(format!(
                "a barrier passed with {applied:?} applied, and {committed:?} was committed before it began"
            )),
            _ => Ok(()),
        }
    }
}
