//! The log in memory: what a node writes to when it may forget everything at a restart.
//!
//! Durable at once: callbacks fire inside the call. A node on it takes a new identity at each start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::window::{check_follows, check_truncates};
use super::{
    AppendOnlyLogStorage, Durable, GroupId, LogEntry, LogPosition, LogSpace, LogState, LogStatistics,
    RaftLogStorage,
};
use crate::{Error, Result};

/// The logs of all groups of a node, in memory.
#[derive(Debug)]
pub struct MemoryLog {
    max_entries: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<GroupId, Arc<MemoryGroup>>,
    closed: bool,
}

impl MemoryLog {
    /// An empty log that holds up to `max_entries` of each group. Entries leave it by purge and
    /// truncation only: an append beyond the bound is refused.
    pub fn new(max_entries: u64) -> Arc<Self> {
        Arc::new(MemoryLog { max_entries, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl AppendOnlyLogStorage for MemoryLog {
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(Error::Closed);
        }
        let max_entries = self.max_entries;
        let new = || Arc::new(MemoryGroup { id, max_entries, state: Mutex::default() });
        Ok(Arc::clone(inner.groups.entry(id).or_insert_with(new)) as Arc<dyn RaftLogStorage>)
    }

    fn groups(&self) -> Vec<GroupId> {
        let inner = self.inner();
        inner.groups.values().filter(|group| group.lock().holds_a_record()).map(|group| group.id).collect()
    }

    fn remove_group(&self, id: GroupId, durable: Durable) {
        let outcome = {
            let mut inner = self.inner();
            if inner.closed {
                Err(Error::Closed)
            } else {
                if let Some(group) = inner.groups.remove(&id) {
                    *group.lock() = State { gone: Some(Gone::Removed), ..State::default() };
                }
                Ok(())
            }
        };
        durable(outcome);
    }

    fn damaged(&self) -> Vec<(GroupId, Error)> {
        Vec::new()
    }

    fn poisoned(&self) -> Option<Error> {
        None
    }

    fn space(&self) -> LogSpace {
        LogSpace::Ample
    }

    fn was_closed_cleanly(&self) -> Option<bool> {
        None
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn close(&self) -> Result<()> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(Error::Closed);
        }
        inner.closed = true;
        for group in inner.groups.values() {
            group.lock().gone = Some(Gone::Closed);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryGroup {
    id: GroupId,
    max_entries: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    purged: Option<LogPosition>,
    entries: VecDeque<LogEntry>,
    vote: Option<Bytes>,
    committed: Option<LogPosition>,
    gone: Option<Gone>,
    payload_bytes: u64,
    /// Entries that purges dropped.
    compacted: u64,
    appended: u64,
    appended_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Gone {
    Removed,
    Closed,
}

impl State {
    fn holds_a_record(&self) -> bool {
        self.vote.is_some() || self.committed.is_some() || self.bounds() != LogState::default()
    }

    fn bounds(&self) -> LogState {
        let last = self.entries.back().map(|entry| entry.position).or(self.purged);
        LogState { purged: self.purged, last }
    }

    fn first_index(&self) -> u64 {
        match (self.entries.front(), self.purged) {
            (Some(entry), _) => entry.position.index,
            (None, Some(purged)) => purged.index.saturating_add(1),
            (None, None) => 0,
        }
    }
}

impl MemoryGroup {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.gone {
            None => Ok(state),
            Some(Gone::Closed) => Err(Error::Closed),
            Some(Gone::Removed) => Err(Error::NotFound { what: format!("group {}", self.id.0) }),
        }
    }
}

impl RaftLogStorage for MemoryGroup {
    fn state(&self) -> LogState {
        self.lock().bounds()
    }

    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()> {
        let mut state = self.open()?;
        check_follows(state.bounds().last, &entries)?;
        let found = (state.entries.len() + entries.len()) as u64;
        if found > self.max_entries {
            let what = format!("max_entries of group {} above its purge point", self.id.0);
            return Err(Error::LimitReached { what, limit: self.max_entries });
        }
        state.appended += entries.len() as u64;
        let bytes: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        state.appended_bytes += bytes;
        state.payload_bytes += bytes;
        state.entries.extend(entries);
        drop(state);
        durable(Ok(()));
        Ok(())
    }

    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
        let state = self.lock();
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut room = max_bytes;
        let skip = usize::try_from(from.saturating_sub(state.first_index())).unwrap_or(usize::MAX);
        for entry in state.entries.iter().skip(skip).take_while(|entry| entry.position.index < to) {
            let bytes = entry.payload.len() as u64;
            if bytes > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn statistics(&self) -> LogStatistics {
        let state = self.lock();
        LogStatistics {
            first_index: state.entries.front().map(|entry| entry.position.index),
            last_index: state.entries.back().map(|entry| entry.position.index),
            entries: state.entries.len() as u64,
            payload_bytes: state.payload_bytes,
            compacted: state.compacted,
            appended: state.appended,
            appended_bytes: state.appended_bytes,
        }
    }

    fn cached_from(&self) -> u64 {
        self.lock().first_index()
    }

    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()> {
        let mut state = self.open()?;
        check_truncates(state.purged, last)?;
        while state.entries.back().is_some_and(|entry| last.is_none_or(|last| entry.position.index > last)) {
            let dropped = state.entries.pop_back();
            state.payload_bytes -= dropped.map_or(0, |entry| entry.payload.len() as u64);
        }
        drop(state);
        durable(Ok(()));
        Ok(())
    }

    fn purge(&self, upto: LogPosition) -> Result<()> {
        let mut state = self.open()?;
        if state.purged.is_none_or(|purged| upto.index > purged.index) {
            while state.entries.front().is_some_and(|entry| entry.position.index <= upto.index) {
                let dropped = state.entries.pop_front();
                state.payload_bytes -= dropped.map_or(0, |entry| entry.payload.len() as u64);
                state.compacted += 1;
            }
            state.purged = Some(upto);
        }
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()> {
        self.open()?.vote = Some(vote);
        durable(Ok(()));
        Ok(())
    }

    fn vote(&self) -> Option<Bytes> {
        self.lock().vote.clone()
    }

    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()> {
        self.open()?.committed = committed;
        Ok(())
    }

    fn committed(&self) -> Option<LogPosition> {
        self.lock().committed
    }

    fn sync(&self, durable: Durable) -> Result<()> {
        drop(self.open()?);
        durable(Ok(()));
        Ok(())
    }
}
