//! The append-only log: one per node, shared by all consensus groups of the node.
//!
//! Order: whatever is queued through one [`RaftLogStorage`] reaches the disk in call order. A vote,
//! append, truncation and purge of a group are records of the same stream, so an entry can never be
//! durable without the vote that came before it.

pub mod append_log;
pub mod memory_log;
pub mod options;
#[cfg(feature = "testing")]
pub mod suite;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

pub use append_log::AppendLog;
pub use memory_log::MemoryLog;
pub use options::{LogOptions, SyncPolicy};

use crate::Result;

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

/// Called exactly once, from any thread, when the call it was given to is durable (`Ok`) or can
/// never be (`Err`: the log is poisoned). Callbacks of one group fire in call order.
pub type Durable = Box<dyn FnOnce(Result<()>) + Send>;

/// The log of a node.
pub trait AppendOnlyLogStorage: Send + Sync + Debug {
    /// The log of one group; empty when the group was never written.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the group was found damaged at open: it must be rebuilt.
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>>;

    /// All groups that hold a record, in order.
    fn groups(&self) -> Vec<GroupId>;

    /// Forgets a group and everything in it, its vote too. `durable` fires when that is on disk.
    fn remove_group(&self, id: GroupId, durable: Durable);

    /// The first failure that poisoned the log, if one did.
    fn poisoned(&self) -> Option<crate::Error>;

    /// Bytes on disk, including recycled and reserve segments.
    fn disk_bytes(&self) -> u64;

    /// Waits until everything queued is durable, marks the log as cleanly closed and stops its
    /// thread. Later calls fail with [`crate::Error::Closed`].
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
    /// [`crate::Error::Gap`] when the first does not follow the last index or they are not
    /// consecutive; nothing is queued and `durable` is dropped uncalled.
    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()>;

    /// Entries with `from <= index < to` that exist, in order, up to `max_bytes` of payload but at
    /// least one. May read the disk, unless `from >= self.cached_from()`.
    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>>;

    /// The first index that is held in memory: a read from there on never waits for the disk.
    fn cached_from(&self) -> u64;

    /// Drops all entries above `last` (all of them when `None`). Visible at once; never overwrites
    /// durable bytes but appends a record.
    ///
    /// # Errors
    /// When `last` is below the purged index.
    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()>;

    /// Drops all entries up to and including `upto`, which may lie above the last entry (after a
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
}

/// Waits for a call that reports through a [`Durable`]. Blocks the calling thread.
pub fn wait_durable(call: impl FnOnce(Durable) -> Result<()>) -> Result<()> {
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    call(Box::new(move |outcome| {
        // The receiver is only gone when `call` itself failed.
        let _ = tx.send(outcome);
    }))?;
    rx.recv().unwrap_or(Err(crate::Error::Closed))
}
