//! What was acknowledged is in the history of its partition as it was acknowledged; what was refused is not.

use std::collections::BTreeSet;

use super::Invariant;
use crate::sim::history::{Action, Answer, Operation, text_of};
use crate::sim::watch::{Facts, Seen, Spot};
use crate::state::ChangeKind;

#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    refused: BTreeSet<(u64, String)>,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged is kept"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §4, §11"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Answered { operation } = seen else { return Ok(()) };
        let Operation { object, action, answer, .. } = operation;
        let revision = match (action, answer) {
            (Action::Put { .. } | Action::Increment { .. }, Answer::Done { revision, .. }) => *revision,
            (Action::Put { value, .. }, answer) if answer.refuses() => {
                self.refused.insert((at.group, value.clone()));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let change = facts.ledger.get(&at.group).and_then(|ledger| ledger.get(&revision));
        let Some(change) = change else {
            return Err(format!(
                "{action:?} of {object} was acknowledged at revision {revision}, and never applied"
            ));
        };
        let value = match &change.kind {
            ChangeKind::Put(value) => Some(text_of(&value.payload)),
            ChangeKind::Delete => None,
        };
        let wanted = match (action, answer) {
            (Action::Put { value, .. }, _) => Some(value.clone()),
            (_, Answer::Done { value, .. }) => value.clone(),
            _ => None,
        };
        if change.key.object.as_str() != object || value != wanted {
            return Err(format!("revision {revision} is {change:?}, but {action:?} got {answer:?}"));
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for (group, ledger) in &facts.ledger {
            for change in ledger.values() {
                let ChangeKind::Put(value) = &change.kind else { continue };
                let text = text_of(&value.payload);
                if self.refused.contains(&(*group, text.clone())) {
                    return Err(format!("{text} was refused, and put at revision {}", change.revision));
                }
            }
        }
        Ok(())
    }
}
