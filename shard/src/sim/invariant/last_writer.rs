//! When divergent replicas are equal again, each object is as its last writer left it: nothing that was
//! acknowledged is lost to an earlier write, nothing is there that nobody wrote, nothing deletes itself.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::history::{Action, Answer};
use crate::sim::watch::{Facts, Seen, Spot};

/// What is known of an object.
#[derive(Debug, Default)]
struct Object {
    /// All values that anybody tried to put.
    values: BTreeSet<String>,
    /// Whether anybody tried to delete it.
    deleted: bool,
    /// The latest stamp of an acknowledged write. It may have taken effect on another replica again, later.
    acknowledged: Option<u64>,
    /// What was read last: the value with its stamp, or nothing.
    read: Option<Option<(String, u64)>>,
}

#[derive(Debug, Default)]
pub(super) struct LastWriter {
    objects: BTreeMap<(u64, String), Object>,
}

impl Invariant for LastWriter {
    fn name(&self) -> &'static str {
        "last writer"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §11; DESIGN §5"
    }

    fn see(&mut self, _: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Stamped { operation, time } = seen else { return Ok(()) };
        let object = self.objects.entry((at.group, operation.object.clone())).or_default();
        match (&operation.action, &operation.answer) {
            (Action::Read, Answer::Value { value, .. }) => object.read = Some(Some((value.clone(), *time))),
            (Action::Read, Answer::Absent) => object.read = Some(None),
            (Action::Read, _) => object.read = None,
            (Action::Put { value, .. }, _) => {
                object.values.insert(value.clone());
            }
            (Action::Delete { .. }, _) => object.deleted = true,
            (Action::Increment { .. }, _) => {}
        }
        if operation.action != Action::Read && matches!(operation.answer, Answer::Done { .. }) {
            object.acknowledged = object.acknowledged.max(Some(*time));
        }
        Ok(())
    }

    fn end(&mut self, _: &Facts) -> Result<(), String> {
        for ((group, name), object) in &self.objects {
            let wrong = match &object.read {
                Some(Some((value, _))) if !object.values.contains(value) => "nobody wrote it",
                Some(Some((_, time))) if object.acknowledged > Some(*time) => {
                    "a later write was acknowledged"
                }
                Some(None) if object.acknowledged.is_some() && !object.deleted => "nobody deleted it",
                _ => continue,
            };
            return Err(format!("{name} of group {group}: {wrong}: {object:?}"));
        }
        Ok(())
    }
}
