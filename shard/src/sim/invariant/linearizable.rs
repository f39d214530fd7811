//! Reads and conditional writes of an object appear to happen one after the other, each between its call and
//! its answer.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::Operation;
use crate::sim::linearize::{Verdict, check};
use crate::sim::watch::{Facts, Seen, Spot};

#[derive(Debug, Default)]
pub(super) struct Linearizable {
    histories: BTreeMap<(u64, String), Vec<Operation>>,
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "linearizability"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §3, §11; Herlihy and Wing 1990"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        if let Seen::Answered { operation } = seen {
            let history = self.histories.entry((at.group, operation.object.clone())).or_default();
            history.push(operation.clone());
        }
        Ok(())
    }

    fn end(&mut self, _: &Facts) -> Result<(), String> {
        for ((group, object), history) in &self.histories {
            match check(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => {
                    return Err(format!(
                        "{object} of group {group}: {} operations were not decided",
                        history.len()
                    ));
                }
                Verdict::Violated(why) => {
                    return Err(format!("{object} of group {group}: {why}"));
                }
            }
        }
        Ok(())
    }
}
