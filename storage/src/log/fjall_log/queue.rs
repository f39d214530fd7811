//! What waits for the committer, in the order of the calls.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::group::Group;
use crate::Error;
use crate::log::options::SyncPolicy;
use crate::log::{Durable, LogEntry, LogPosition};

/// A batch takes no further item beyond this.
const BATCH_TARGET: usize = 8 << 20;

/// A change on its way to the database.
#[derive(Debug)]
pub(super) enum Change {
    Append {
        entries: Vec<LogEntry>,
        stamp: u32,
    },
    Vote(Bytes),
    Truncate(Option<u64>),
    Purge(LogPosition),
    /// The committed position that the group has when this is written.
    Committed,
    Remove,
    Sync,
    Close,
}

/// A change, whom it concerns and who waits for it.
pub(super) struct Queued {
    /// `None` for what concerns the whole log.
    pub group: Option<Arc<Group>>,
    pub change: Change,
    pub durable: Option<Durable>,
}

impl Change {
    /// Whether it waits for the disk whatever the policy says.
    pub(super) fn always_synced(&self) -> bool {
        !matches!(self, Change::Append { .. } | Change::Purge(_) | Change::Committed)
    }

    /// Whether it can wait until something else is written.
    pub(super) fn lazy(&self) -> bool {
        matches!(self, Change::Purge(_) | Change::Committed)
    }

    fn bytes(&self) -> usize {
        match self {
            Change::Append { entries, .. } => entries.iter().map(|entry| entry.payload.len() + 32).sum(),
            _ => 64,
        }
    }
}

/// What the callers and the committer share.
#[derive(Default)]
pub(super) struct Queue {
    pub items: Vec<Queued>,
    /// One of `items` does not want to wait.
    pub urgent: bool,
    /// Nothing is taken any more.
    pub closed: bool,
    /// The committer ends without writing what is queued.
    pub abandoned: bool,
}

/// How many waiting items go into the next batch.
pub(super) fn batch_of(backlog: &VecDeque<Queued>, policy: SyncPolicy) -> usize {
    let (mut bytes, mut waited_for) = (0, false);
    for (n, item) in backlog.iter().enumerate() {
        bytes += item.change.bytes();
        let alone = policy == SyncPolicy::Always && waited_for && item.durable.is_some();
        if alone || (n > 0 && bytes > BATCH_TARGET) {
            return n;
        }
        waited_for |= item.durable.is_some();
    }
    backlog.len()
}

/// Tells everyone who waits that it is over.
pub(super) fn refuse(items: impl IntoIterator<Item = Queued>, error: &Error) {
    for durable in items.into_iter().filter_map(|item| item.durable) {
        durable(Err(error.clone()));
    }
}
