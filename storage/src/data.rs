//! The data layer: ordered keyspaces of one shard replica, written in atomic batches and read
//! through consistent views.
//!
//! One writer per shard: [`ApplicationDataStorage::write`] and [`Transaction`] take the writer lock of
//! the store, one after another. Readers never wait for it, nor it for them. A read transaction is a
//! [`DataView`]; a write transaction is a [`Transaction`], the same over every store. Rows that follow
//! from others lie in [`Keyspace::Index`]: those of [`expiry`] and [`index`] begin with a byte below
//! [`RESERVED_PREFIX_END`], all other first bytes belong to the layers above.

mod batch;
pub mod checkpoint;
pub mod expiry;
pub mod fjall;
pub mod index;
pub mod memory;
mod merge;
pub mod options;
pub mod page;
pub mod statistics;
pub mod stream;
#[cfg(feature = "testing")]
pub mod suite;
pub mod transaction;
mod writer;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;

use crate::Result;

pub use batch::{Durability, MAX_KEY_BYTES, MAX_VALUE_BYTES, WriteBatch};
pub use checkpoint::{CheckpointManifest, CheckpointRequest};
pub use fjall::{FjallData, FjallEngine};
pub use memory::MemoryData;
pub use options::DataOptions;
pub use page::{Cursor, Page, Select};
pub use statistics::{DataStatistics, OperationCounts};
pub use transaction::{Swap, Transaction};
pub use writer::{Writer, WriterLock};

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

/// Keys of [`Keyspace::Index`] whose first byte is below this belong to the data layer itself.
pub const RESERVED_PREFIX_END: u8 = 0x20;

/// The data of one shard replica.
pub trait ApplicationDataStorage: Send + Sync + Debug {
    /// A consistent view of all keyspaces as of now; microseconds. A view that is held keeps old
    /// versions on disk: drop it soon.
    fn view(&self) -> Box<dyn DataView>;

    /// Waits until no other writer is active and excludes the others until the result is dropped. The
    /// thread that holds it deadlocks when it calls [`ApplicationDataStorage::write`], or installs an
    /// import or a checkpoint. Checkpoints, flushes and readers are not excluded.
    fn lock_writer(&self) -> Writer<'_>;

    /// Applies a batch atomically; visible to the views taken from now on. `writer` is this store's.
    /// The rows are taken as they are: what follows from them in [`expiry`] and [`index`] is in the
    /// batch already, as [`Transaction`] sees to.
    ///
    /// # Errors
    /// [`crate::Error::TooLarge`] for a key or value that no store takes, or for more than the memory
    /// store may hold: nothing changed. After any other failed write the layer is poisoned and takes no
    /// more.
    fn write_as(&self, writer: &mut Writer<'_>, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// [`ApplicationDataStorage::write_as`] by a writer of its own.
    ///
    /// # Errors
    /// As there.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.write_as(&mut self.lock_writer(), batch, durability)
    }

    /// Waits until all batches written so far survive a loss of power.
    fn sync(&self) -> Result<()>;

    /// Starts to replace everything by an exported stream; see [`DataImport`].
    fn import(&self) -> Result<Box<dyn DataImport>>;

    /// Bytes on disk, or in memory.
    fn size_bytes(&self) -> u64;

    /// What is held, and what was done since the store was opened.
    fn statistics(&self) -> DataStatistics;

    /// Writes everything that is only in memory and in a journal to its place; durable when it returns.
    fn flush(&self) -> Result<()>;

    /// Rewrites the data without what was deleted or overwritten and what no view needs. It takes as long
    /// as reading and writing all data once; reads and writes go on.
    fn compact(&self) -> Result<()>;

    /// Stops background work and syncs. Later calls fail.
    fn close(&self) -> Result<()>;
}

/// A consistent view: a read transaction.
pub trait DataView: Send + Sync {
    /// The value of a key.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>>;

    /// Whether a key is there.
    fn exists(&self, keyspace: Keyspace, key: &[u8]) -> Result<bool> {
        Ok(self.get(keyspace, key)?.is_some())
    }

    /// The values of several keys, in the order asked; read in the order of the keys.
    fn multi_get(&self, keyspace: Keyspace, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&at| &keys[at]);
        let mut values = vec![None; keys.len()];
        for at in order {
            values[at] = self.get(keyspace, &keys[at])?;
        }
        Ok(values)
    }

    /// The rows between the bounds, lazily, in bounded memory.
    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

    /// A page of rows, and where the next one begins.
    fn page(&self, keyspace: Keyspace, select: &Select) -> Result<Page> {
        let (from, to) = select.bounds();
        Page::gather(self.scan(keyspace, from, to, select.direction), select)
    }

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

/// A store that can freeze itself without copying, and go back to such a state.
pub trait SnapshotCapableStorage: ApplicationDataStorage {
    /// [`SnapshotCapableStorage::checkpoint_as`] without a name, a position or a time.
    ///
    /// # Errors
    /// As there.
    fn checkpoint(&self, target: &Path) -> Result<CheckpointManifest> {
        self.checkpoint_as(target, &CheckpointRequest::default())
    }

    /// Freezes the present state under `target`, a directory that does not exist yet; durable when it
    /// returns. On the file system of the store by hard links: writes wait for milliseconds; to another
    /// one the frozen files are copied, and writes wait no longer than that.
    ///
    /// # Errors
    /// [`crate::Error::Options`] when `target` exists. A failed one leaves nothing under `target`.
    fn checkpoint_as(&self, target: &Path, request: &CheckpointRequest) -> Result<CheckpointManifest>;

    /// A read-only view of a checkpoint made by this kind of store. Compares the size of every file with
    /// the manifest; the contents are checked as they are read.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] without a manifest, [`crate::Error::Corrupt`] naming the damaged file.
    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>>;

    /// Reads every file of a checkpoint and compares its checksum.
    ///
    /// # Errors
    /// As [`SnapshotCapableStorage::open_checkpoint`].
    fn verify_checkpoint(&self, target: &Path) -> Result<CheckpointManifest>;

    /// Makes a verified checkpoint the data of this store: durable and visible when it returns, atomic in
    /// a crash. The checkpoint stays as it is; on one file system nothing is copied. Views keep what
    /// they saw. Waits for the writer lock.
    ///
    /// # Errors
    /// As [`SnapshotCapableStorage::verify_checkpoint`]; nothing changed then.
    fn restore(&self, checkpoint: &Path) -> Result<CheckpointManifest>;
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
