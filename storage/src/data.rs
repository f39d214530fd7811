//! The data layer: ordered keyspaces of one shard replica, written in atomic batches and read
//! through consistent views.
//!
//! One writer per shard: the caller serialises its `write` calls. Readers never block it.

pub mod fjall;
pub mod memory;
pub mod options;
pub mod stream;
#[cfg(feature = "testing")]
pub mod suite;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;

use crate::Result;

pub use fjall::{FjallData, FjallEngine};
pub use memory::MemoryData;
pub use options::DataOptions;

/// The longest key that every store takes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// The longest value that every store takes.
pub const MAX_VALUE_BYTES: usize = 256 << 20;

/// The ordered keyspaces of a shard replica. Names on disk are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Keyspace {
    /// Objects and their entries.
    Data = 1,
    /// Derived rows: secondary indexes, expiries, remembered requests.
    Index = 2,
    /// The retained history of changes.
    History = 3,
    /// Applied position, membership and counters.
    Meta = 4,
}

impl Keyspace {
    /// All keyspaces, in the order of an export.
    pub const ALL: [Keyspace; 4] = [Keyspace::Data, Keyspace::Index, Keyspace::History, Keyspace::Meta];

    /// Its place in [`Keyspace::ALL`].
    pub(crate) const fn slot(self) -> usize {
        self as usize - 1
    }
}

/// When a batch survives a loss of power. It always survives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Some time later, in order: the log behind the caller can repeat it.
    Later,
    /// When `write` returns.
    Now,
}

/// Puts and deletes that take effect together; the last one on a key wins.
#[derive(Debug, Default, Clone)]
pub struct WriteBatch {
    /// In order of the calls.
    pub operations: Vec<(Keyspace, Bytes, Option<Bytes>)>,
}

impl WriteBatch {
    /// Sets a key. Keys are 1..=65,535 bytes.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.operations.push((keyspace, key.into(), Some(value.into())));
    }

    /// Removes a key; absent is fine.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) {
        self.operations.push((keyspace, key.into(), None));
    }

    /// Refuses keys and values that no store takes; every store calls it before it writes anything.
    ///
    /// # Errors
    /// [`crate::Error::TooLarge`] for the first one that is empty, or over the limit.
    pub(crate) fn validate(&self) -> Result<()> {
        for (_, key, value) in &self.operations {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                let what = if key.is_empty() { "an empty key" } else { "a key" };
                return Err(crate::Error::TooLarge {
                    what,
                    found: key.len() as u64,
                    limit: MAX_KEY_BYTES as u64,
                });
            }
            let length = value.as_ref().map_or(0, Bytes::len);
            if length > MAX_VALUE_BYTES {
                return Err(crate::Error::TooLarge {
                    what: "a value",
                    found: length as u64,
                    limit: MAX_VALUE_BYTES as u64,
                });
            }
        }
        Ok(())
    }
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By rising key.
    Forward,
    /// By falling key.
    Backward,
}

/// A key with its value, as scans hand them out.
pub type Row = (Bytes, Bytes);

/// The data of one shard replica.
pub trait ApplicationDataStorage: Send + Sync + Debug {
    /// A consistent view of all keyspaces as of now; microseconds. A view that is held keeps old
    /// versions on disk: drop it soon.
    fn view(&self) -> Box<dyn DataView>;

    /// Applies a batch atomically; visible to the views taken from now on.
    ///
    /// # Errors
    /// After a failed write the layer is poisoned and takes no more.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Waits until all batches written so far survive a loss of power.
    fn sync(&self) -> Result<()>;

    /// Starts to replace everything by an exported stream; see [`DataImport`].
    fn import(&self) -> Result<Box<dyn DataImport>>;

    /// Bytes on disk, or in memory.
    fn size_bytes(&self) -> u64;

    /// Stops background work and syncs. Later calls fail.
    fn close(&self) -> Result<()>;
}

/// A consistent view.
pub trait DataView: Send + Sync {
    /// The value of a key.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>>;

    /// The rows between the bounds, lazily, in bounded memory.
    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

    /// Writes all keyspaces as one ordered, engine-independent stream, in bounded memory.
    fn export(&self, into: &mut dyn Write) -> Result<()>;
}

/// A replacement of all data. Until `finish` the old data serves; dropped, it leaves nothing behind.
pub trait DataImport: Send {
    /// Reads a whole stream that [`DataView::export`] wrote, in bounded memory.
    fn read(&mut self, from: &mut dyn Read) -> Result<()>;

    /// Switches over: durable and visible when it returns, atomic in a crash.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A store that can freeze itself without copying.
pub trait SnapshotCapableStorage: ApplicationDataStorage {
    /// Freezes the present state under `target`, a directory that does not exist yet, by hard links;
    /// durable when it returns. Writes wait for milliseconds.
    fn checkpoint(&self, target: &Path) -> Result<()>;

    /// A read-only view of a checkpoint made by this kind of store.
    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>>;
}

/// Whether no key can lie between the bounds; std's maps panic on such ranges.
pub(crate) fn is_empty_range(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        _ => false,
    }
}
