//! The committer's hand: makes one batch of what is queued, marks it durable, and says who may go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::core::{Core, IDLE};
use super::database;
use super::group::Group;
use super::mark::Mark;
use super::queue::Change;
use super::rows::{GroupRow, encode_entry, entry_key, group_key};
use crate::Result;
use crate::log::GroupId;
use crate::log::options::SyncPolicy;

/// The only one that writes.
pub(super) struct Writer {
    mark: Mark,
    mark_synced: Instant,
    /// The number of the last batch.
    batch: u64,
    /// Batches after this one were not synced.
    synced: u64,
    rows: BTreeMap<GroupId, GroupRow>,
    /// Written entries that may leave the cache: a group and its last index of an append.
    evictable: VecDeque<(Arc<Group>, u64)>,
}

/// A change and whom it concerns.
type GroupChange = (Option<Arc<Group>>, Change);
/// Rows of entries, each once: within a batch Fjall knows no order.
type EntryChanges = BTreeMap<[u8; 16], database::Change>;

impl Writer {
    /// `batch` is the number of the last one, all of which are synced; `rows` are the groups' as they are.
    pub(super) fn new(mark: Mark, batch: u64, rows: BTreeMap<GroupId, GroupRow>) -> Self {
        Writer { mark, mark_synced: Instant::now(), batch, synced: batch, rows, evictable: VecDeque::new() }
    }

    /// A batch was written that is not synced, or whose mark is not.
    pub(super) fn is_unmarked(&self) -> bool {
        self.mark.is_unsynced() || self.mark.batch < self.batch
    }

    /// Writes one batch; without changes, what an idle log still has to sync.
    pub(super) fn write(&mut self, core: &Core, changes: Vec<GroupChange>, closes: bool) -> Result<()> {
        if self.mark.closed && !changes.is_empty() && !closes {
            // From now on the log is not closed cleanly, whatever is lost with the power.
            self.mark.write(self.mark.batch, false)?;
            self.mark.sync()?;
        }
        let idle = changes.is_empty();
        let sync = idle
            || core.options.sync != SyncPolicy::None
            || changes.iter().any(|(_, change)| change.always_synced());
        let mut entries = EntryChanges::new();
        let mut touched = BTreeSet::new();
        for (group, change) in &changes {
            if let Some(group) = group {
                touched.insert(group.id);
                if matches!(change, Change::Remove) && group.lock().was_damaged {
                    self.find_rows(core, group.id, &mut entries);
                }
                self.apply(group, change, &mut entries);
            }
        }
        if !touched.is_empty() {
            let rows = touched.iter().map(|id| (group_key(*id), self.rows.get(id).map(GroupRow::encode)));
            self.batch += 1;
            core.database.write(self.batch, entries, rows, sync)?;
        } else if sync && self.synced < self.batch {
            core.database.sync()?;
        }
        if sync {
            self.synced = self.batch;
            if self.mark.batch < self.synced || closes {
                self.mark.write(self.synced, closes)?;
            }
        }
        if idle || closes || self.mark_synced.elapsed() >= IDLE {
            self.mark.sync()?;
            self.mark_synced = Instant::now();
        }
        self.complete(changes);
        self.evict(core);
        core.database.rotate_at(core.options.memtable_bytes)
    }

    /// Notes for removal what is found of a damaged group, whose row may not name all of it.
    fn find_rows(&self, core: &Core, id: GroupId, entries: &mut EntryChanges) {
        for row in core.database.entries(id, 0, u64::MAX) {
            match row.map(|(key, _)| <[u8; 16]>::try_from(&*key).ok()) {
                Ok(key) => entries.extend(key.map(|key| (key, None))),
                Err(error) => {
                    tracing::warn!(%error, group = id.0, "rows of a removed group cannot be read");
                    return;
                }
            }
        }
    }

    /// Changes the row of a group, and notes which entries are written and removed.
    fn apply(&mut self, group: &Arc<Group>, change: &Change, entries: &mut EntryChanges) {
        let id = group.id;
        let row = self.rows.entry(id).or_default();
        let mut remove = |indexes: std::ops::Range<u64>| {
            entries.extend(indexes.map(|index| (entry_key(id, index), None)));
        };
        match change {
            Change::Append { entries: new, .. } => {
                for entry in new {
                    let index = entry.position.index;
                    if row.first == row.end {
                        row.first = index;
                    }
                    entries.insert(entry_key(id, index), Some(encode_entry(entry)));
                    row.end = index + 1;
                }
            }
            Change::Vote(vote) => row.vote = Some(vote.to_vec()),
            Change::Truncate(last) => {
                let end = last.map_or(0, |last| last.saturating_add(1)).clamp(row.first, row.end);
                remove(end..row.end);
                row.end = end;
            }
            Change::Purge(upto) => {
                let next = upto.index.saturating_add(1);
                remove(row.first..next.clamp(row.first, row.end));
                row.first = row.first.max(next);
                row.end = row.end.max(row.first);
                row.purged = Some(*upto);
            }
            Change::Committed => {
                let mut state = group.lock();
                state.committed_queued = false;
                row.committed = state.committed;
            }
            Change::Remove => {
                remove(row.first..row.end);
                self.rows.remove(&id);
            }
            Change::Sync | Change::Close => {}
        }
    }

    /// Notes that the entries of appends are in their rows.
    fn complete(&mut self, changes: Vec<GroupChange>) {
        for (group, change) in changes {
            let (Some(group), Change::Append { entries, stamp }) = (group, change) else { continue };
            let mut state = group.lock();
            for entry in &entries {
                state.window.written(entry.position.index, stamp, ());
            }
            drop(state);
            if let Some(last) = entries.last() {
                self.evictable.push_back((group, last.position.index));
            }
        }
    }

    /// Keeps the cache within its bound, oldest appends first.
    fn evict(&mut self, core: &Core) {
        while core.cached_bytes.load(Ordering::Relaxed) > core.options.cache_bytes {
            let Some((group, upto)) = self.evictable.pop_front() else { break };
            let freed = group.lock().window.evict(upto);
            core.cached_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        // Appends whose entries were purged or truncated leave nothing to evict.
        while let Some((group, upto)) = self.evictable.front() {
            if group.lock().window.cached_from() <= *upto {
                break;
            }
            self.evictable.pop_front();
        }
    }
}
