//! Reads and conditional writes of an object appear to happen one after the other, each between its call and
//! its answer.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::{Action, Answer, Operation, text_of};
use crate::sim::linearize::{Verdict, check};
use crate::sim::watch::{Facts, Seen, Spot};
use crate::state::{Change, ChangeKind};

#[derive(Debug, Default)]
pub(super) struct Linearizable {
    histories: BTreeMap<(u64, String), Vec<Operation>>,
}

/// Puts of unknown outcome took effect, at a known revision, or never: the ledger knows it at the end.
fn decide(history: &mut [Operation], object: &str, ledger: &BTreeMap<u64, Change>) {
    let mut revisions = BTreeMap::new();
    for change in ledger.values().filter(|change| change.key.object.as_str() == object) {
        if let ChangeKind::Put(value) = &change.kind {
            revisions.insert(text_of(&value.payload), change.revision);
        }
    }
    for operation in history.iter_mut().filter(|operation| operation.answer == Answer::Unknown) {
        let Action::Put { value, .. } = &operation.action else { continue };
        match revisions.get(value) {
            None => operation.answer = Answer::Refused,
            Some(revision) => {
                operation.answer = Answer::Done { revision: *revision, value: None };
                operation.answered = u64::MAX;
            }
        }
    }
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

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for ((group, object), history) in &mut self.histories {
            if let Some(ledger) = facts.ledger.get(group) {
                decide(history, object, ledger);
            }
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
