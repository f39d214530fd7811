//! What the log knows of one group: bounds, vote, the place of every entry, and its newest entries.
//!
//! The state runs ahead of the disk: it counts what is queued. Places come when the committer has
//! written.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::frame::{Place, record_bytes};
use crate::log::{EntryKind, GroupId, LogEntry, LogPosition, LogState, LogStatistics};
use crate::{Error, Result};

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

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Queued by the append with this stamp; its bytes are in the cache.
    Queued(u32),
    /// Its record begins here.
    At(EntryPlace),
}

/// A record in a segment; half as large as a [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryPlace {
    pub sequence: u64,
    pub offset: u32,
}

/// An entry in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryRef {
    pub term: u64,
    pub kind: EntryKind,
    pub payload_bytes: u32,
    pub at: Whereabouts,
}

/// The state of a group.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub purged: Option<LogPosition>,
    pub purged_in: u64,
    pub vote: Option<Bytes>,
    pub vote_in: u64,
    pub committed: Option<LogPosition>,
    pub committed_in: u64,
    /// A record with the committed position waits in the queue.
    pub committed_queued: bool,
    /// Index of `entries[0]`.
    pub first: u64,
    pub entries: VecDeque<EntryRef>,
    /// The newest entries, a suffix of `entries`.
    pub cache: VecDeque<LogEntry>,
    /// Bytes of the records of all entries.
    pub live_bytes: u64,
    /// Rises at each truncation: stamps what is queued.
    pub stamp: u32,
    pub removed: bool,
    /// Entries that purges dropped.
    pub compacted: u64,
    pub appended: u64,
    /// Bytes of their payloads.
    pub appended_bytes: u64,
}

impl GroupState {
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn cached_from(&self) -> u64 {
        self.next_index() - self.cache.len() as u64
    }

    pub(super) fn holds_a_record(&self) -> bool {
        self.vote.is_some() || self.committed.is_some() || self.purged.is_some() || !self.entries.is_empty()
    }

    pub(super) fn bounds(&self) -> LogState {
        let last = self
            .entries
            .back()
            .map(|entry| LogPosition { term: entry.term, index: self.next_index() - 1 })
            .or(self.purged);
        LogState { purged: self.purged, last }
    }

    pub(super) fn statistics(&self) -> LogStatistics {
        let entries = self.entries.len() as u64;
        LogStatistics {
            first_index: (entries > 0).then_some(self.first),
            last_index: (entries > 0).then(|| self.next_index() - 1),
            entries,
            payload_bytes: self.live_bytes - entries * record_bytes(0) as u64,
            compacted: self.compacted,
            appended: self.appended,
            appended_bytes: self.appended_bytes,
        }
    }

    pub(super) fn get(&self, index: u64) -> Option<&EntryRef> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, index: u64) -> Option<&mut EntryRef> {
        self.entries.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Checks that entries follow the last one; any index may begin a log that nothing was purged from.
    pub(super) fn check_follows(&self, entries: &[LogEntry]) -> Result<()> {
        check_follows(self.bounds().last, entries)
    }

    /// Takes entries that follow the last one.
    pub(super) fn append(&mut self, entries: Vec<LogEntry>) {
        let Some(head) = entries.first() else { return };
        if self.entries.is_empty() {
            self.first = head.position.index;
        }
        for entry in entries {
            self.entries.push_back(EntryRef {
                term: entry.position.term,
                kind: entry.kind,
                payload_bytes: entry.payload.len() as u32,
                at: Whereabouts::Queued(self.stamp),
            });
            self.live_bytes += record_bytes(entry.payload.len()) as u64;
            self.appended += 1;
            self.appended_bytes += entry.payload.len() as u64;
            self.cache.push_back(entry);
        }
    }

    /// Drops the entries above `last`; says how many bytes left the cache.
    pub(super) fn truncate_after(&mut self, last: Option<u64>) -> u64 {
        let keep_to = last.map_or(0, |last| last.saturating_add(1));
        self.stamp = self.stamp.wrapping_add(1);
        let mut freed = 0;
        while !self.entries.is_empty() && self.next_index() > keep_to {
            if let Some(entry) = self.entries.pop_back() {
                self.live_bytes -= record_bytes(entry.payload_bytes as usize) as u64;
            }
            if let Some(entry) = self.cache.pop_back() {
                freed += cost(&entry);
            }
        }
        freed
    }

    /// Drops the entries up to `upto`; says how many bytes left the cache.
    pub(super) fn purge(&mut self, upto: LogPosition) -> u64 {
        let mut freed = 0;
        while !self.entries.is_empty() && self.first <= upto.index {
            if self.cache.len() == self.entries.len()
                && let Some(entry) = self.cache.pop_front()
            {
                freed += cost(&entry);
            }
            if let Some(entry) = self.entries.pop_front() {
                self.live_bytes -= record_bytes(entry.payload_bytes as usize) as u64;
            }
            self.first += 1;
            self.compacted += 1;
        }
        self.purged = Some(upto);
        if self.entries.is_empty() {
            self.first = upto.index.saturating_add(1);
        }
        freed
    }

    /// Drops cached entries up to `upto` that are written; says how many bytes that freed.
    pub(super) fn evict(&mut self, upto: u64) -> u64 {
        let mut freed = 0;
        while !self.cache.is_empty() {
            let index = self.cached_from();
            let written = matches!(self.get(index), Some(EntryRef { at: Whereabouts::At(_), .. }));
            if index > upto || !written {
                break;
            }
            freed += self.cache.pop_front().map_or(0, |entry| cost(&entry));
        }
        freed
    }

    /// The record of an entry was written, unless the entry was truncated since it was queued.
    pub(super) fn written(&mut self, index: u64, stamp: u32, at: EntryPlace) {
        if let Some(entry) = self.get_mut(index)
            && entry.at == Whereabouts::Queued(stamp)
        {
            entry.at = Whereabouts::At(at);
        }
    }

    /// The record of an entry was written anew, unless the entry was dropped since.
    pub(super) fn moved(&mut self, index: u64, from: EntryPlace, to: EntryPlace) {
        if let Some(entry) = self.get_mut(index)
            && entry.at == Whereabouts::At(from)
        {
            entry.at = Whereabouts::At(to);
        }
    }

    /// Whether anything that a reader or an open needs stands in the segment.
    pub(super) fn needs(&self, sequence: u64) -> bool {
        self.state_in(sequence) || self.entries.iter().any(|entry| entry.stands_in(sequence))
    }

    /// Whether vote, purged or committed position stand in the segment.
    pub(super) fn state_in(&self, sequence: u64) -> bool {
        (self.vote.is_some() && self.vote_in == sequence)
            || (self.purged.is_some() && self.purged_in == sequence)
            || (self.committed.is_some() && self.committed_in == sequence)
    }
}

impl EntryRef {
    pub(super) fn stands_in(&self, sequence: u64) -> bool {
        matches!(self.at, Whereabouts::At(at) if at.sequence == sequence)
    }
}

impl EntryPlace {
    pub(super) fn new(place: Place) -> Self {
        let offset = u32::try_from(place.offset).expect("a segment is at most 1 GiB");
        EntryPlace { sequence: place.sequence, offset }
    }
}

/// Bytes that a cached entry counts for: its payload and what holds it.
pub(super) fn cost(entry: &LogEntry) -> u64 {
    entry.payload.len() as u64 + 64
}

/// Checks that entries are consecutive and follow `last`, when there is a last one.
pub(in crate::log) fn check_follows(last: Option<LogPosition>, entries: &[LogEntry]) -> Result<()> {
    let mut expected = last.map(|last| last.index.saturating_add(1));
    for entry in entries {
        let found = entry.position.index;
        match expected {
            Some(expected) if expected != found => return Err(Error::Gap { expected, found }),
            _ => expected = Some(found.saturating_add(1)),
        }
    }
    Ok(())
}

/// Checks that a truncation leaves what was purged alone.
pub(in crate::log) fn check_truncates(purged: Option<LogPosition>, last: Option<u64>) -> Result<()> {
    match purged {
        Some(purged) if last.is_none_or(|last| last < purged.index) => {
            Err(Error::Gap { expected: purged.index, found: last.unwrap_or(0) })
        }
        _ => Ok(()),
    }
}
