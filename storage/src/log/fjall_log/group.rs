//! What the log knows of one group; it runs ahead of the database, by what is queued.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::log::window::Window;
use crate::log::{GroupId, LogPosition};

/// One group of the log.
#[derive(Debug)]
pub(super) struct Group {
    pub id: GroupId,
    state: Mutex<GroupState>,
}

/// The state of a group.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    /// A written entry is in its row: there is nothing to remember of the place.
    pub window: Window<()>,
    pub vote: Option<Bytes>,
    pub committed: Option<LogPosition>,
    /// The committed position waits in the queue.
    pub committed_queued: bool,
    pub removed: bool,
    /// Its row may not name all of its entries' rows.
    pub was_damaged: bool,
}

impl Group {
    pub(super) fn new(id: GroupId) -> Self {
        Group::found(id, GroupState::default())
    }

    /// One that was found damaged, to be removed.
    pub(super) fn damaged(id: GroupId) -> Self {
        Group::found(id, GroupState { was_damaged: true, ..GroupState::default() })
    }

    pub(super) fn found(id: GroupId, state: GroupState) -> Self {
        Group { id, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl GroupState {
    pub(super) fn holds_a_record(&self) -> bool {
        self.vote.is_some()
            || self.committed.is_some()
            || self.window.purged.is_some()
            || !self.window.entries.is_empty()
    }
}
