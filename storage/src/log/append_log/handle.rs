//! The log of one group, as its consensus sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::core::Core;
use super::group::Group;
use super::queue::{Change, Queued};
use super::{frame, reader, record, writer};
use crate::log::window::{check_truncates, cost};
use crate::log::{Durable, LogEntry, LogPosition, LogState, LogStatistics, RaftLogStorage};
use crate::{Error, Result};

/// The log of one group in the log of the node.
#[derive(Debug)]
pub(super) struct GroupLog {
    core: Arc<Core>,
    group: Arc<Group>,
}

impl GroupLog {
    pub(super) fn new(core: Arc<Core>, group: Arc<Group>) -> Self {
        GroupLog { core, group }
    }

    fn item(&self, change: Change, durable: Option<Durable>) -> Result<Queued> {
        let item = Queued::new(Some(Arc::clone(&self.group)), change, durable);
        let room = self.core.options.segment_bytes - writer::MARK_ROOM - frame::BLOCK as u64;
        let limit = room - frame::FrameHeader::frame_bytes(item.slots, 0).min(room as usize) as u64;
        if item.bytes as u64 > limit {
            return Err(Error::TooLarge { what: "an append or vote", found: item.bytes as u64, limit });
        }
        if item.slots > record::SLOTS {
            let (found, limit) = (item.slots as u64, record::SLOTS as u64);
            return Err(Error::TooLarge { what: "the terms of an append", found, limit });
        }
        Ok(item)
    }

    fn freed(&self, bytes: u64) {
        self.core.cached_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl RaftLogStorage for GroupLog {
    fn state(&self) -> LogState {
        self.group.lock().window.bounds()
    }

    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()> {
        let mut state = self.group.lock();
        state.window.check_follows(&entries)?;
        self.core.check_room()?;
        let bytes: u64 = entries.iter().map(cost).sum();
        let item = self.item(Change::Append { entries, stamp: state.window.stamp }, Some(durable))?;
        self.core.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queued = self.core.enqueue(&mut state, |state| {
            if let Change::Append { entries, .. } = &item.change {
                state.window.append(entries);
            }
            [item]
        });
        if queued.is_err() {
            self.freed(bytes);
        }
        queued
    }

    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
        reader::read(&self.core, &self.group, from, to, max_bytes)
    }

    fn statistics(&self) -> LogStatistics {
        self.group.lock().window.statistics()
    }

    fn cached_from(&self) -> u64 {
        self.group.lock().window.cached_from()
    }

    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()> {
        let mut state = self.group.lock();
        check_truncates(state.window.purged, last)?;
        let item = self.item(Change::Truncate(last), Some(durable))?;
        let mut freed = 0;
        self.core.enqueue(&mut state, |state| {
            freed = state.window.truncate_after(last);
            [item]
        })?;
        drop(state);
        self.freed(freed);
        Ok(())
    }

    fn purge(&self, upto: LogPosition) -> Result<()> {
        let mut state = self.group.lock();
        if state.window.purged.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(());
        }
        let item = self.item(Change::Purge(upto), None)?;
        let mut freed = 0;
        self.core.enqueue(&mut state, |state| {
            freed = state.window.purge(upto);
            [item]
        })?;
        drop(state);
        self.freed(freed);
        if self.core.segments.used_count() > 1 {
            self.core.janitor_wanted();
        }
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()> {
        let mut state = self.group.lock();
        let item = self.item(Change::Vote(vote.clone()), Some(durable))?;
        self.core.enqueue(&mut state, |state| {
            state.vote = Some(vote);
            [item]
        })
    }

    fn vote(&self) -> Option<Bytes> {
        self.group.lock().vote.clone()
    }

    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()> {
        let mut state = self.group.lock();
        let item = match state.committed_queued {
            true => None,
            false => Some(self.item(Change::Committed, None)?),
        };
        self.core.enqueue(&mut state, |state| {
            state.committed = committed;
            state.committed_queued = true;
            item
        })
    }

    fn committed(&self) -> Option<LogPosition> {
        self.group.lock().committed
    }

    fn sync(&self, durable: Durable) -> Result<()> {
        self.core.enqueue_global(Queued::new(None, Change::Sync, Some(durable)))
    }
}
