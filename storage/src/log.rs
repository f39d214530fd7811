//! The append-only log: one per node, shared by all consensus groups of the node.
//!
//! Order: whatever is queued through one [`RaftLogStorage`] reaches the disk in call order. A vote,
//! append, truncation and purge of a group are records of the same stream, so an entry can never be
//! durable without the vote that came before it.

pub mod append_log;
pub mod boot;
pub mod fjall_log;
pub mod memory_log;
pub mod options;
#[cfg(feature = "testing")]
pub mod suite;
mod window;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use append_log::AppendLog;
pub use fjall_log::FjallLog;
pub use memory_log::MemoryLog;
pub use options::{FjallLogOptions, LogOptions, SyncPolicy};

use crate::{Error, Result};

/// A consensus group of the log. Group 0 is the system shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct GroupId(pub u64);

/// Where an entry stands: the term in which it was proposed and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct LogPosition {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The index, consecutive within a group.
    pub index: u64,
}

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// Commands of the application.
    Normal = 0,
    /// A change of membership.
    Membership = 1,
    /// The blank entry of a new leader.
    Blank = 2,
}

/// One entry of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Term and index.
    pub position: LogPosition,
    /// What the payload is.
    pub kind: EntryKind,
    /// Opaque to the log.
    pub payload: Bytes,
}

/// The bounds of a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// The last entry that was purged, if any was.
    pub purged: Option<LogPosition>,
    /// The last entry, or `purged` when there is none above it.
    pub last: Option<LogPosition>,
}

/// What a group's log holds, and what went through it since the log was opened.
///
/// A rate is the difference of two of them: [`LogStatistics::appends_per_second`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStatistics {
    /// The first index held; `None` when no entry is.
    pub first_index: Option<u64>,
    /// The last index held; `None` when no entry is.
    pub last_index: Option<u64>,
    /// Entries held.
    pub entries: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Entries that purges dropped since the log was opened.
    pub compacted: u64,
    /// Entries appended since the log was opened.
    pub appended: u64,
    /// Bytes of their payloads.
    pub appended_bytes: u64,
}

impl LogStatistics {
    /// Mean payload of the entries held, in bytes; 0 when none is.
    pub fn mean_payload_bytes(&self) -> u64 {
        self.payload_bytes.checked_div(self.entries).unwrap_or(0)
    }

    /// Entries appended a second between `earlier` and now, which is `elapsed` later; 0 when the log
    /// was opened anew in between.
    pub fn appends_per_second(&self, earlier: &LogStatistics, elapsed: Duration) -> f64 {
        let appended = self.appended.saturating_sub(earlier.appended);
        if elapsed.is_zero() { 0.0 } else { appended as f64 / elapsed.as_secs_f64() }
    }
}

/// How much room the disk leaves a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSpace {
    /// The log can grow.
    Ample,
    /// The disk is full and the log lives on its reserve: what can be refused before it is proposed
    /// should be.
    Reserve,
    /// The disk is full and the reserve is used up. What is queued waits and becomes durable when
    /// there is room; appends are refused with [`Error::Full`] when much waits already.
    Exhausted,
}

/// Called exactly once, from any thread, when the call it was given to is durable (`Ok`) or can
/// never be (`Err`: the log is poisoned). Callbacks of one group fire in call order.
pub type Durable = Box<dyn FnOnce(Result<()>) + Send>;

/// The log of a node.
pub trait AppendOnlyLogStorage: Send + Sync + Debug {
    /// The log of one group; empty when the group was never written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the group was found damaged at open: it must be rebuilt.
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>>;

    /// All groups that hold a record, in order.
    fn groups(&self) -> Vec<GroupId>;

    /// Forgets a group and everything in it, its vote too. `durable` fires when that is on disk.
    fn remove_group(&self, id: GroupId, durable: Durable);

    /// The groups that were found damaged at open, with what was found. Removing one heals the log.
    fn damaged(&self) -> Vec<(GroupId, Error)>;

    /// The first failure that poisoned the log, if one did.
    fn poisoned(&self) -> Option<Error>;

    /// Whether the disk leaves room. Follows the disk within a second, both ways.
    fn space(&self) -> LogSpace;

    /// Whether the log was closed cleanly before this open; `None` when there was nothing to close.
    fn was_closed_cleanly(&self) -> Option<bool>;

    /// Bytes on disk, including recycled and reserve segments.
    fn disk_bytes(&self) -> u64;

    /// Waits until everything queued is durable, marks the log as cleanly closed and stops its
    /// thread. Later calls fail with [`Error::Closed`].
    fn close(&self) -> Result<()>;
}

/// The log of one group.
pub trait RaftLogStorage: Send + Sync + Debug {
    /// The bounds, counting what is queued and not yet durable.
    fn state(&self) -> LogState;

    /// Queues entries. When it returns they are visible to every reader; `durable` says when they,
    /// and all that was queued before, survive a crash. All of them or none.
    ///
    /// # Errors
    /// [`Error::Gap`] when the first does not follow the last index or they are not consecutive,
    /// naming the index expected; [`Error::Full`] or [`Error::LimitReached`] when there is no room.
    /// Then nothing is queued and `durable` is dropped uncalled.
    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()>;

    /// Entries with `from <= index < to` that exist, in order, up to `max_bytes` of payload but at
    /// least one. May read the disk, unless `from >= self.cached_from()`.
    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>>;

    /// The entry at an index, if there is one. May read the disk, as [`RaftLogStorage::read`].
    fn get(&self, index: u64) -> Result<Option<LogEntry>> {
        Ok(self.read(index, index.saturating_add(1), 0)?.pop())
    }

    /// Whether there is an entry at an index.
    fn exists(&self, index: u64) -> bool {
        let held = self.statistics();
        held.first_index.is_some_and(|first| first <= index)
            && held.last_index.is_some_and(|last| index <= last)
    }

    /// What the log holds, counting what is queued. Never waits for the disk.
    fn statistics(&self) -> LogStatistics;

    /// The first index that is held in memory: a read from there on never waits for the disk.
    fn cached_from(&self) -> u64;

    /// Drops all entries above `last` (all of them when `None`): to truncate from an index, its
    /// predecessor is the last to keep. Visible at once; never overwrites
    /// durable bytes but appends a record.
    ///
    /// # Errors
    /// When `last` is below the purged index.
    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()>;

    /// Truncates before: drops all entries up to and including `upto`, which may lie above the last entry (after a
    /// snapshot was installed). Visible at once, durable some time later.
    fn purge(&self, upto: LogPosition) -> Result<()>;

    /// Replaces the vote, opaque to the log.
    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()>;

    /// The last vote saved.
    fn vote(&self) -> Option<Bytes>;

    /// Notes the committed position as a hint; not waited for, may be lost in a crash.
    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()>;

    /// The last committed position noted.
    fn committed(&self) -> Option<LogPosition>;

    /// Makes all that was queued so far durable, whatever the [`SyncPolicy`].
    fn sync(&self, durable: Durable) -> Result<()>;
}

/// Waits for a call that reports through a [`Durable`]. Blocks the calling thread.
pub fn wait_durable(call: impl FnOnce(Durable) -> Result<()>) -> Result<()> {
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    call(Box::new(move |outcome| {
        // The receiver is only gone when `call` itself failed.
        let _ = tx.send(outcome);
    }))?;
    rx.recv().unwrap_or(Err(Error::Closed))
}
