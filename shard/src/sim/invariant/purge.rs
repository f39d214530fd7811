//! The log is never purged past what a stored snapshot restores.

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug)]
pub(super) struct PurgeBound;

impl Invariant for PurgeBound {
    fn name(&self) -> &'static str {
        "purge bound"
    }

    fn source(&self) -> &'static str {
        "DESIGN §3; Raft §7"
    }

    fn see(&mut self, _: &Facts, _: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Purged { upto, restorable } = seen else { return Ok(()) };
        if restorable.is_some_and(|restorable| upto.index <= restorable) {
            return Ok(());
        }
        Err(format!("purges to {upto:?} while snapshots restore {restorable:?}"))
    }
}
