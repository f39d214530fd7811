//! What the log knows of one group: its entries and where they are, vote and positions.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::frame::Place;
use super::record::RECORD_HEADER;
use crate::log::window::{Whereabouts, Window};
use crate::log::{GroupId, LogPosition};

/// An entry in the index of this log.
pub(super) type EntryRef = crate::log::window::EntryRef<EntryPlace>;

/// One group of the log.
#[derive(Debug)]
pub(super) struct Group {
    pub id: GroupId,
    state: Mutex<GroupState>,
}

impl Group {
    pub(super) fn new(id: GroupId, state: GroupState) -> Self {
        Group { id, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A record in a segment; half as large as a [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryPlace {
    pub sequence: u64,
    pub offset: u32,
}

/// The state of a group.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub window: Window<EntryPlace>,
    pub purged_in: u64,
    pub vote: Option<Bytes>,
    pub vote_in: u64,
    pub committed: Option<LogPosition>,
    pub committed_in: u64,
    /// A record with the committed position waits in the queue.
    pub committed_queued: bool,
    pub removed: bool,
}

impl GroupState {
    pub(super) fn holds_a_record(&self) -> bool {
        self.vote.is_some()
            || self.committed.is_some()
            || self.window.purged.is_some()
            || !self.window.entries.is_empty()
    }

    /// Bytes of the records of all entries.
    pub(super) fn live_bytes(&self) -> u64 {
        self.window.payload_bytes + self.window.entries.len() as u64 * RECORD_HEADER as u64
    }

    /// Whether anything that a reader or an open needs stands in the segment.
    pub(super) fn needs(&self, sequence: u64) -> bool {
        self.state_in(sequence) || self.window.entries.iter().any(|entry| stands_in(entry, sequence))
    }

    /// Whether vote, purged or committed position stand in the segment.
    pub(super) fn state_in(&self, sequence: u64) -> bool {
        (self.vote.is_some() && self.vote_in == sequence)
            || (self.window.purged.is_some() && self.purged_in == sequence)
            || (self.committed.is_some() && self.committed_in == sequence)
    }
}

fn stands_in(entry: &EntryRef, sequence: u64) -> bool {
    matches!(entry.at, Whereabouts::At(at) if at.sequence == sequence)
}

impl EntryPlace {
    pub(super) fn new(place: Place) -> Self {
        let offset = u32::try_from(place.offset).expect("a segment is at most 1 GiB");
        EntryPlace { sequence: place.sequence, offset }
    }
}
