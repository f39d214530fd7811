//! The log of one group, as its consensus sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::core::Core;
use super::group::Group;
use super::queue::{Change, Queued};
use super::rows::{ENTRY_HEADER, decode_entry, index_of};
use crate::log::window::{check_truncates, cost};
use crate::log::{Durable, LogEntry, LogPosition, LogState, LogStatistics, RaftLogStorage};
use crate::{Error, Result};

/// A payload, an append of several and a vote are at most this: Fjall holds a batch in memory.
const LIMIT: u64 = 1 << 30;

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

    fn item(&self, change: Change, durable: Option<Durable>) -> Queued {
        Queued { group: Some(Arc::clone(&self.group)), change, durable }
    }

    fn freed(&self, bytes: u64) {
        self.core.cached_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reads rows that exist by the index; `None` when the index changed meanwhile.
    fn read_rows(&self, from: u64, to: u64, stamp: u32) -> Result<Option<Vec<LogEntry>>> {
        let mut entries: Vec<LogEntry> = Vec::new();
        for row in self.core.database.entries(self.group.id, from, to) {
            let (key, value) = row?;
            let index = from + entries.len() as u64;
            let Some((term, kind)) = decode_entry(&value).filter(|_| index_of(&key) == Some(index)) else {
                break;
            };
            let payload = Bytes::copy_from_slice(&value[ENTRY_HEADER..]);
            entries.push(LogEntry { position: LogPosition { term, index }, kind, payload });
        }
        let state = self.group.lock();
        if state.window.stamp != stamp {
            return Ok(None);
        }
        let as_indexed = |entry: &&LogEntry| {
            let now = state.window.get(entry.position.index);
            now.is_none_or(|now| now.term == entry.position.term)
        };
        let bad = from + entries.iter().take_while(as_indexed).count() as u64;
        match state.window.get(bad) {
            _ if bad == to => Ok(Some(entries)),
            None => Ok(None),
            Some(_) => Err(Error::Corrupt {
                path: self.core.database.path().to_owned(),
                offset: 0,
                what: format!("entry {bad} of group {}", self.group.id.0),
            }),
        }
    }
}

impl RaftLogStorage for GroupLog {
    fn state(&self) -> LogState {
        self.group.lock().window.bounds()
    }

    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()> {
        let mut state = self.group.lock();
        state.window.check_follows(&entries)?;
        let bytes: u64 = entries.iter().map(cost).sum();
        if bytes > LIMIT {
            return Err(Error::TooLarge { what: "an append", found: bytes, limit: LIMIT });
        }
        let item = self.item(Change::Append { entries, stamp: state.window.stamp }, Some(durable));
        self.core.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queued = self.core.enqueue(&mut state, |state| {
            if let Change::Append { entries, .. } = &item.change {
                state.window.append(entries);
            }
            Some(item)
        });
        if queued.is_err() {
            self.freed(bytes);
        }
        queued
    }

    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut begun = None;
        loop {
            let taken: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
            let mut room = max_bytes.saturating_sub(taken);
            let next = entries.last().map_or(from, |last| last.position.index + 1);
            let (start, end, full, stamp) = {
                let window = &self.group.lock().window;
                if begun.is_some_and(|begun| begun != window.stamp) {
                    // Truncated since: what was read may be gone.
                    (entries, begun) = (Vec::new(), None);
                    continue;
                }
                begun = Some(window.stamp);
                let start = next.max(window.first);
                let end = to.min(window.next_index());
                if start >= end || (start != next && !entries.is_empty()) {
                    return Ok(entries);
                }
                let cached_from = window.cached_from();
                if start >= cached_from {
                    window.take_cached(start, end, room, &mut entries);
                    return Ok(entries);
                }
                let mut stop = start;
                let mut full = false;
                while let Some(entry) = window.get(stop).filter(|_| stop < end.min(cached_from)) {
                    let bytes = u64::from(entry.payload_bytes);
                    full = bytes > room && (stop > start || !entries.is_empty());
                    if full {
                        break;
                    }
                    room = room.saturating_sub(bytes);
                    stop += 1;
                }
                (start, stop, full, window.stamp)
            };
            // Else purged or truncated since: what there is now is asked for again.
            if let Some(read) = self.read_rows(start, end, stamp)? {
                entries.extend(read);
                if full {
                    return Ok(entries);
                }
            }
        }
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
        let item = self.item(Change::Truncate(last), Some(durable));
        let mut freed = 0;
        self.core.enqueue(&mut state, |state| {
            freed = state.window.truncate_after(last);
            Some(item)
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
        let item = self.item(Change::Purge(upto), None);
        let mut freed = 0;
        self.core.enqueue(&mut state, |state| {
            freed = state.window.purge(upto);
            Some(item)
        })?;
        drop(state);
        self.freed(freed);
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()> {
        if vote.len() as u64 > LIMIT {
            return Err(Error::TooLarge { what: "a vote", found: vote.len() as u64, limit: LIMIT });
        }
        let mut state = self.group.lock();
        let item = self.item(Change::Vote(vote.clone()), Some(durable));
        self.core.enqueue(&mut state, |state| {
            state.vote = Some(vote);
            Some(item)
        })
    }

    fn vote(&self) -> Option<Bytes> {
        self.group.lock().vote.clone()
    }

    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()> {
        let mut state = self.group.lock();
        let item = (!state.committed_queued).then(|| self.item(Change::Committed, None));
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
        self.core.enqueue_global(Queued { group: None, change: Change::Sync, durable: Some(durable) })
    }
}
