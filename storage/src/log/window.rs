//! The entries of one group as every log with files keeps them: bounds, where each entry is, and the
//! newest ones in memory.
//!
//! A window runs ahead of the disk: it counts what is queued. Places come when the log has written. What
//! is not written yet is always in the cache, so that a reader finds every entry.

use std::collections::VecDeque;

use super::{EntryKind, LogEntry, LogPosition, LogState, LogStatistics};
use crate::{Error, Result};

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Whereabouts<P> {
    /// Queued by the append with this stamp; its bytes are in the cache.
    Queued(u32),
    /// Written, here.
    At(P),
}

/// An entry in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct EntryRef<P> {
    pub term: u64,
    pub kind: EntryKind,
    pub payload_bytes: u32,
    pub at: Whereabouts<P>,
}

/// The entries of a group; `P` says where a written one is.
#[derive(Debug)]
pub(in crate::log) struct Window<P> {
    pub purged: Option<LogPosition>,
    /// Index of `entries[0]`.
    pub first: u64,
    pub entries: VecDeque<EntryRef<P>>,
    /// The newest entries, a suffix of `entries`.
    pub cache: VecDeque<LogEntry>,
    /// Bytes of the payloads of all entries.
    pub payload_bytes: u64,
    /// Rises at each truncation: stamps what is queued.
    pub stamp: u32,
    /// Entries that purges dropped.
    compacted: u64,
    appended: u64,
    /// Bytes of their payloads.
    appended_bytes: u64,
}

impl<P> Default for Window<P> {
    fn default() -> Self {
        Window {
            purged: None,
            first: 0,
            entries: VecDeque::new(),
            cache: VecDeque::new(),
            payload_bytes: 0,
            stamp: 0,
            compacted: 0,
            appended: 0,
            appended_bytes: 0,
        }
    }
}

impl<P: Copy + PartialEq> Window<P> {
    /// What an open found: entries that follow `purged` without a hole, or `first` when nothing was purged.
    pub(in crate::log) fn found(
        purged: Option<LogPosition>,
        first: u64,
        entries: VecDeque<EntryRef<P>>,
    ) -> Self {
        let payload_bytes = entries.iter().map(|entry| u64::from(entry.payload_bytes)).sum();
        Window { purged, first, entries, payload_bytes, ..Window::default() }
    }

    pub(in crate::log) fn next_index(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(in crate::log) fn cached_from(&self) -> u64 {
        self.next_index() - self.cache.len() as u64
    }

    pub(in crate::log) fn bounds(&self) -> LogState {
        let last = self
            .entries
            .back()
            .map(|entry| LogPosition { term: entry.term, index: self.next_index() - 1 })
            .or(self.purged);
        LogState { purged: self.purged, last }
    }

    pub(in crate::log) fn statistics(&self) -> LogStatistics {
        let entries = self.entries.len() as u64;
        LogStatistics {
            first_index: (entries > 0).then_some(self.first),
            last_index: (entries > 0).then(|| self.next_index() - 1),
            entries,
            payload_bytes: self.payload_bytes,
            compacted: self.compacted,
            appended: self.appended,
            appended_bytes: self.appended_bytes,
        }
    }

    pub(in crate::log) fn get(&self, index: u64) -> Option<&EntryRef<P>> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, index: u64) -> Option<&mut EntryRef<P>> {
        self.entries.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Checks that entries follow the last one; any index may begin a log that nothing was purged from.
    pub(in crate::log) fn check_follows(&self, entries: &[LogEntry]) -> Result<()> {
        check_follows(self.bounds().last, entries)
    }

    /// Takes entries that follow the last one; their bytes are shared with it, not copied.
    pub(in crate::log) fn append(&mut self, entries: &[LogEntry]) {
        let Some(head) = entries.first() else { return };
        if self.entries.is_empty() {
            self.first = head.position.index;
        }
        self.entries.reserve(entries.len());
        self.cache.reserve(entries.len());
        for entry in entries {
            self.entries.push_back(EntryRef {
                term: entry.position.term,
                kind: entry.kind,
                payload_bytes: entry.payload.len() as u32,
                at: Whereabouts::Queued(self.stamp),
            });
            self.payload_bytes += entry.payload.len() as u64;
            self.appended += 1;
            self.appended_bytes += entry.payload.len() as u64;
            self.cache.push_back(entry.clone());
        }
    }

    /// Drops the entries above `last`; says how many bytes left the cache.
    pub(in crate::log) fn truncate_after(&mut self, last: Option<u64>) -> u64 {
        let keep_to = last.map_or(0, |last| last.saturating_add(1));
        self.stamp = self.stamp.wrapping_add(1);
        let mut freed = 0;
        while !self.entries.is_empty() && self.next_index() > keep_to {
            if let Some(entry) = self.entries.pop_back() {
                self.payload_bytes -= u64::from(entry.payload_bytes);
            }
            if let Some(entry) = self.cache.pop_back() {
                freed += cost(&entry);
            }
        }
        freed
    }

    /// Drops the entries up to `upto`; says how many bytes left the cache.
    pub(in crate::log) fn purge(&mut self, upto: LogPosition) -> u64 {
        let mut freed = 0;
        while !self.entries.is_empty() && self.first <= upto.index {
            if self.cache.len() == self.entries.len()
                && let Some(entry) = self.cache.pop_front()
            {
                freed += cost(&entry);
            }
            if let Some(entry) = self.entries.pop_front() {
                self.payload_bytes -= u64::from(entry.payload_bytes);
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

    /// Takes cached entries of `from..to`, which are all cached, while they fit into `room` payload bytes;
    /// the first always does when `into` is empty.
    pub(in crate::log) fn take_cached(&self, from: u64, to: u64, mut room: u64, into: &mut Vec<LogEntry>) {
        let cached_from = self.cached_from();
        for entry in self.cache.range((from - cached_from) as usize..(to - cached_from) as usize) {
            let bytes = entry.payload.len() as u64;
            if bytes > room && !into.is_empty() {
                return;
            }
            room = room.saturating_sub(bytes);
            into.push(entry.clone());
        }
    }

    /// Bytes that the cache counts for.
    pub(in crate::log) fn cached_bytes(&self) -> u64 {
        self.cache.iter().map(cost).sum()
    }

    /// Drops cached entries up to `upto` that are written; says how many bytes that freed.
    pub(in crate::log) fn evict(&mut self, upto: u64) -> u64 {
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
    pub(in crate::log) fn written(&mut self, index: u64, stamp: u32, at: P) {
        if let Some(entry) = self.get_mut(index)
            && entry.at == Whereabouts::Queued(stamp)
        {
            entry.at = Whereabouts::At(at);
        }
    }

    /// The record of an entry was written anew, unless the entry was dropped since.
    pub(in crate::log) fn moved(&mut self, index: u64, from: P, to: P) {
        if let Some(entry) = self.get_mut(index)
            && entry.at == Whereabouts::At(from)
        {
            entry.at = Whereabouts::At(to);
        }
    }
}

/// Bytes that a cached entry counts for: its payload and what holds it.
pub(in crate::log) fn cost(entry: &LogEntry) -> u64 {
    entry.payload.len() as u64 + 64
}

/// Checks that entries are consecutive and follow `last`, when there is a last one.
pub(in crate::log) fn check_follows(last: Option<LogPosition>, entries: &[LogEntry]) -> Result<()> {
    let mut expected = last.map(|last| last.index.saturating_add(1));
    for entry in entries {
        let found = entry.position.index;
        if found == u64::MAX {
            return Err(Error::LimitReached { what: "index of an entry".to_owned(), limit: found - 1 });
        }
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
