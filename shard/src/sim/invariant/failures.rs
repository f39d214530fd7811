//! A process that nothing was done to does not end, and no replica of it stops.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct NoFailure;

impl Invariant for NoFailure {
    fn name(&self) -> &'static str {
        "no failure without a fault"
    }

    fn source(&self) -> &'static str {
        "DESIGN §3, §5"
    }

    fn see(&mut self, _: &Facts, _: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Failed { reason } => Err(reason.clone()),
            _ => Ok(()),
        }
    }
}
