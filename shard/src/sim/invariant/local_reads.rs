//! A read without a barrier may be old; what it shows was committed, and it shows nothing only of what was
//! absent at some time.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::{Answer, text_of};
use crate::sim::watch::{Facts, Seen, Spot};
use crate::state::ChangeKind;

#[derive(Debug, Default)]
pub(super) struct LocalReads {
    /// Values that were seen before their change was: (group, object, revision) → value.
    early: BTreeMap<(u64, String, u64), String>,
}

impl Invariant for LocalReads {
    fn name(&self) -> &'static str {
        "local reads"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §3, cons=local"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::ReadLocally { operation } = seen else { return Ok(()) };
        let Answer::Value { value, revision } = &operation.answer else { return Ok(()) };
        let known = facts.ledger.get(&at.group).and_then(|ledger| ledger.get(revision));
        match known.map(|change| &change.kind) {
            Some(ChangeKind::Put(put)) if text_of(&put.payload) == *value => Ok(()),
            None => {
                self.early.insert((at.group, operation.object.clone(), *revision), value.clone());
                Ok(())
            }
            Some(other) => {
                Err(format!("{} showed {value} at revision {revision}, which is {other:?}", operation.object))
            }
        }
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for ((group, object, revision), value) in &self.early {
            let known = facts.ledger.get(group).and_then(|ledger| ledger.get(revision));
            match known.map(|change| &change.kind) {
                Some(ChangeKind::Put(put)) if text_of(&put.payload) == *value => {}
                other => {
                    return Err(format!(
                        "{object} showed {value} at revision {revision}, which is {other:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
