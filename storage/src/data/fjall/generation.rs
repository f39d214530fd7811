//! One generation of a store: a database that serves until an import replaces it, and whose
//! directory goes when it was replaced and its last view is dropped.
//!
//! Views are clones of a snapshot that the writer takes when its batch is complete. One taken at any
//! other moment may see half a batch: a flush or compaction that ends while a batch is being applied
//! moves fjall's visible sequence number past that of the batch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use fjall::Snapshot;

use super::database::Database;
use super::memtables::WriteBuffers;
use crate::Result;
use crate::data::{Durability, WriteBatch};

/// Excludes writes to a store, whichever generation serves.
pub(super) type Gate = Mutex<()>;

/// Closes the gate.
pub(super) fn close_gate(gate: &Gate) -> MutexGuard<'_, ()> {
    gate.lock().expect("no holder of this lock panics")
}

/// A database with what decides about its directory.
pub(super) struct Generation {
    pub(super) number: u64,
    /// `None` only while dropping, as `db`.
    published: RwLock<Option<Snapshot>>,
    db: Option<Arc<Database>>,
    gate: Arc<Gate>,
    retired: AtomicBool,
    buffers: Arc<WriteBuffers>,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

impl Generation {
    pub(super) fn new(
        number: u64,
        db: Arc<Database>,
        buffers: Arc<WriteBuffers>,
        gate: Arc<Gate>,
    ) -> Arc<Self> {
        let published = RwLock::new(Some(db.snapshot()));
        Arc::new(Generation {
            number,
            published,
            db: Some(db),
            gate,
            retired: AtomicBool::new(false),
            buffers,
        })
    }

    pub(super) fn db(&self) -> &Database {
        self.db.as_ref().expect("only drop takes the database")
    }

    /// The state after the last complete batch.
    pub(super) fn snapshot(&self) -> Snapshot {
        let published = self.published.read().expect("no holder of this lock panics");
        published.clone().expect("only drop takes the snapshot")
    }

    /// Writes a batch in which no key comes twice; the caller holds the gate.
    pub(super) fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.db().write(batch, durability)?;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let next = self.db().snapshot();
        let old = self.published.write().expect("no holder of this lock panics").replace(next);
        drop(old);
    }

    /// Frees the memtables that were flushed and that no view needs; not while someone writes, which it
    /// tells. It never waits for the gate: who holds that may wait for the thread that calls this.
    pub(super) fn release_memtables(&self) -> bool {
        let Ok(_gate) = self.gate.try_lock() else { return false };
        self.db().advance();
        self.publish();
        self.db().forget_versions();
        true
    }

    /// Lets the directory go with the last reference.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let path = db.path().to_owned();
        self.published.get_mut().expect("no holder of this lock panics").take();
        drop(db);
        if self.retired.load(Ordering::Acquire) {
            self.buffers.remove_later(path);
        }
    }
}

/// Removes a directory with all inside; absent is fine.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
