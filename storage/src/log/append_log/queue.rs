//! What waits for the committer, in the order of the calls.

use std::sync::Arc;

use bytes::Bytes;

use super::group::{EntryPlace, Group};
use super::record::record_bytes;
use crate::log::{Durable, GroupId, LogEntry, LogPosition};

/// A change on its way to the disk.
#[derive(Debug)]
pub(super) enum Change {
    Append {
        entries: Vec<LogEntry>,
        stamp: u32,
    },
    /// Live entries of a segment that is to be freed, with their present places.
    Move {
        entries: Vec<(LogEntry, EntryPlace)>,
    },
    Vote(Bytes),
    Truncate(Option<u64>),
    Purge(LogPosition),
    /// The committed position that the group has when this is written: then it becomes the next.
    Committed,
    /// The committed position as it is written.
    CommittedAt(Option<LogPosition>),
    Remove,
    /// Everything before it is to be durable.
    Sync,
    /// Older segments than this hold nothing that is needed once this is durable.
    Oldest(u64),
    Close,
}

/// A change, whom it concerns and who waits for it.
pub(super) struct Queued {
    /// `None` for what concerns the whole log.
    pub group: Option<Arc<Group>>,
    pub change: Change,
    pub durable: Option<Durable>,
    /// Bytes of its records.
    pub bytes: usize,
    /// How many slots of a frame its records may take.
    pub slots: usize,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queued")
            .field("group", &self.id())
            .field("change", &self.change)
            .finish_non_exhaustive()
    }
}

impl Queued {
    pub(super) fn new(group: Option<Arc<Group>>, change: Change, durable: Option<Durable>) -> Self {
        let (bytes, slots) = (change.bytes(), change.terms().len());
        Queued { group, change, durable, bytes, slots }
    }

    pub(super) fn id(&self) -> Option<GroupId> {
        self.group.as_ref().map(|group| group.id)
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Append { entries, .. } => entries.iter().map(|e| record_bytes(e.payload.len())).sum(),
            Change::Move { entries } => entries.iter().map(|(e, _)| record_bytes(e.payload.len())).sum(),
            Change::Vote(vote) => record_bytes(vote.len()),
            Change::Truncate(_)
            | Change::Purge(_)
            | Change::Committed
            | Change::CommittedAt(_)
            | Change::Remove => record_bytes(0),
            Change::Sync | Change::Oldest(_) | Change::Close => 0,
        }
    }

    /// The terms of its records, those that follow each other once; none for what has no record.
    pub(super) fn terms(&self) -> Vec<u64> {
        fn runs(of: impl Iterator<Item = u64>) -> Vec<u64> {
            let mut terms = Vec::new();
            for term in of {
                if terms.last() != Some(&term) {
                    terms.push(term);
                }
            }
            terms
        }
        match self {
            Change::Append { entries, .. } => runs(entries.iter().map(|entry| entry.position.term)),
            Change::Move { entries } => runs(entries.iter().map(|(entry, _)| entry.position.term)),
            Change::Purge(position) | Change::CommittedAt(Some(position)) => vec![position.term],
            Change::Sync | Change::Oldest(_) | Change::Close => Vec::new(),
            Change::Vote(_)
            | Change::Truncate(_)
            | Change::Committed
            | Change::CommittedAt(None)
            | Change::Remove => vec![0],
        }
    }

    /// Whether it waits for the disk whatever the policy says.
    pub(super) fn always_synced(&self) -> bool {
        match self {
            Change::Append { .. } | Change::Purge(_) | Change::Committed | Change::CommittedAt(_) => false,
            Change::Move { .. }
            | Change::Vote(_)
            | Change::Truncate(_)
            | Change::Remove
            | Change::Sync
            | Change::Oldest(_)
            | Change::Close => true,
        }
    }

    /// Whether it can wait until something else is written.
    pub(super) fn lazy(&self) -> bool {
        matches!(self, Change::Purge(_) | Change::Committed | Change::CommittedAt(_))
    }
}

/// What the callers and the committer share.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub items: Vec<Queued>,
    /// One of `items` does not want to wait.
    pub urgent: bool,
    pub rest: Rest,
    /// Nothing is taken any more.
    pub closed: bool,
    /// The committer ends without writing what is queued.
    pub abandoned: bool,
}

/// How the committer rests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It works, and looks again before it rests.
    #[default]
    Awake,
    /// It wakes by itself before long.
    Nap,
    /// It must be woken.
    Sleep,
}

impl Queue {
    /// Takes an item; says whether the committer must be woken.
    pub(super) fn push(&mut self, item: Queued) -> bool {
        let lazy = item.change.lazy();
        self.urgent |= !lazy;
        self.items.push(item);
        match self.rest {
            Rest::Awake => false,
            Rest::Nap => !lazy,
            Rest::Sleep => true,
        }
    }
}
