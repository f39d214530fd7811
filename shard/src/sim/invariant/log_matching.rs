//! Two logs that hold an entry of the same index and term are the same up to it. By induction: the same
//! entry, behind an entry of the same term.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot, Stored};

#[derive(Debug, Default)]
pub(super) struct LogMatching {
    /// By group, index and term: the entry's hash, and the term before it when it was seen.
    entries: BTreeMap<(u64, u64, u64), (u64, Option<u64>)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn source(&self) -> &'static str {
        "Raft §5.3"
    }

    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String> {
        let Seen::Appended { entries } = seen else { return Ok(()) };
        let mut before = entries.first().and_then(|(index, _)| {
            let index = index.checked_sub(1)?;
            facts.replicas.get(&at)?.entries.get(&index).map(|entry| entry.term)
        });
        for (index, Stored { term, hash }) in entries {
            let known = self.entries.entry((at.group, *index, *term)).or_insert((*hash, before));
            known.1 = known.1.or(before);
            if known.0 != *hash || (before.is_some() && known.1 != before) {
                return Err(format!("another entry of index {index} and term {term} is known"));
            }
            before = Some(*term);
        }
        Ok(())
    }
}
