//! Events are of committed changes, and tell them as they were committed, however often they come; and of every
//! change one comes to whoever watches all the time, though its server died before it was published.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::text_of;
use crate::sim::watch::{Facts, Seen, Spot};
use crate::state::ChangeKind;

#[derive(Debug, Default)]
pub(super) struct Events {
    /// By group and revision: what came first.
    seen: BTreeMap<(u64, u64), (String, Option<String>)>,
}

impl Invariant for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn source(&self) -> &'static str {
        "INTERFACE §6"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Event { revision, object, value, .. } = seen else { return Ok(()) };
        let event = (object.clone(), value.clone());
        if let Some(change) = facts.ledger.get(&at.group).and_then(|ledger| ledger.get(revision)) {
            let committed = match &change.kind {
                ChangeKind::Put(value) => Some(text_of(&value.payload)),
                ChangeKind::Delete => None,
            };
            if change.key.object.as_str() != object || committed != *value {
                return Err(format!("event {revision} is {event:?}, but {change:?} was committed"));
            }
        }
        let first = self.seen.entry((at.group, *revision)).or_insert_with(|| event.clone());
        if *first != event {
            return Err(format!("event {revision} is {event:?}, and was {first:?}"));
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts) -> Result<(), String> {
        for ((group, revision), event) in &self.seen {
            if !facts.ledger.get(group).is_some_and(|ledger| ledger.contains_key(revision)) {
                return Err(format!("event {event:?} of revision {revision} was never committed"));
            }
        }
        for (group, ledger) in &facts.ledger {
            if let Some(missed) =
                ledger.keys().find(|revision| !self.seen.contains_key(&(*group, **revision)))
            {
                return Err(format!("group {group}: no event of revision {missed} came"));
            }
        }
        Ok(())
    }
}
