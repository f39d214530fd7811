//! The store of one shard replica on Fjall.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::engine::FjallEngine;
use super::generation::{Gate, Generation, close_gate, remove_dir};
use super::import::FjallImport;
use super::pointer;
use super::view::FjallView;
use super::{checkpoint, journal, pointer::generation_dir, restore};
use crate::data::statistics::Operations;
use crate::data::{
    ApplicationDataStorage, CheckpointManifest, CheckpointRequest, DataImport, DataStatistics, DataView,
    Durability, Keyspace, SnapshotCapableStorage, WriteBatch, Writer, WriterLock,
};
use crate::disk::RealDisk;
use crate::{Error, Result};

/// The data of one shard replica, on Fjall. Opened by [`FjallEngine::open`].
#[derive(Debug)]
pub struct FjallData {
    inner: Arc<Inner>,
}

/// What the store shares with its imports.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) engine: Arc<FjallEngine>,
    pub(super) dir: PathBuf,
    /// `None` once closed.
    serving: RwLock<Option<Arc<Generation>>>,
    /// Held while anything is written or the generation changes, so that a checkpoint can exclude it.
    pub(super) gate: Arc<Gate>,
    /// Held by a transaction from its begin on, so always taken before the gate.
    writer: WriterLock,
    /// Held while a checkpoint is taken.
    checkpointing: Mutex<()>,
    operations: Arc<Operations>,
    poison: OnceLock<String>,
    next_generation: AtomicU64,
}

impl FjallData {
    pub(super) fn open(engine: Arc<FjallEngine>, dir: &Path) -> Result<Arc<Self>> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        let number = match pointer::read(dir)? {
            Some(number) => number,
            None => found(&engine, dir)?,
        };
        let path = generation_dir(dir, number);
        let staging = pointer::staging_dir(dir);
        if number == 1 && !path.exists() && staging.exists() {
            std::fs::rename(&staging, &path).map_err(|error| Error::io("rename", &path, error))?;
            pointer::sync_dir(dir)?;
        }
        if !path.exists() {
            let what = "store: the generation that serves is missing".to_owned();
            return Err(Error::Corrupt { path, offset: 0, what });
        }
        check_journals(dir, number)?;
        let database = engine.database(&path)?;
        // The lock of the database is ours: what else lies here was left behind by a crash.
        for other in pointer::generations(dir)?.into_iter().filter(|&other| other != number) {
            remove_dir(&generation_dir(dir, other))?;
        }
        remove_dir(&staging)?;
        remove_dir(&dir.join(checkpoint::LINKED_DIR))?;
        let gate = Arc::new(Gate::default());
        let generation = Generation::new(number, database, engine.buffers.clone(), gate.clone());
        engine.buffers.register(&generation);
        let inner = Inner {
            engine,
            dir: dir.to_owned(),
            serving: RwLock::new(Some(generation)),
            gate,
            writer: WriterLock::default(),
            checkpointing: Mutex::default(),
            operations: Arc::default(),
            poison: OnceLock::new(),
            next_generation: AtomicU64::new(number + 1),
        };
        Ok(Arc::new(FjallData { inner: Arc::new(inner) }))
    }
}

/// Compares the journals of the generation that is to serve with what a clean close left.
pub(super) fn check_journals(dir: &Path, number: u64) -> Result<()> {
    let path = generation_dir(dir, number);
    let journals = journal::inspect(&path)?;
    if journals.is_empty() {
        let what = "database: it has no journal, and would begin its sequence numbers anew".to_owned();
        return Err(Error::Corrupt { path, offset: 0, what });
    }
    let Some((_, closed)) = pointer::read_closed(dir)?.filter(|(generation, _)| *generation == number) else {
        return Ok(());
    };
    // One that is gone was flushed.
    match journals.iter().find(|journal| journal.number == closed.number) {
        Some(journal) if journal.bytes < closed.bytes => Err(Error::Corrupt {
            path: path.join(format!("{}.jnl", journal.number)),
            offset: journal.bytes,
            what: format!("journal of fjall: it was sound up to {} when it was closed", closed.bytes),
        }),
        _ => Ok(()),
    }
}

/// Makes the first generation of a store: staged, pointed to, then named; each step can be repeated.
fn found(engine: &FjallEngine, dir: &Path) -> Result<u64> {
    if !pointer::generations(dir)?.is_empty() {
        let what = "store: generations without a pointer".to_owned();
        return Err(Error::Corrupt { path: dir.to_owned(), offset: 0, what });
    }
    let staging = pointer::staging_dir(dir);
    remove_dir(&staging)?;
    drop(engine.database(&staging)?);
    pointer::sync_dir(dir)?;
    pointer::switch(dir, 1)?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), pointer::sync_dir)?;
    Ok(1)
}

impl Inner {
    fn serving(&self) -> Option<Arc<Generation>> {
        self.serving.read().expect("no holder of this lock panics").clone()
    }

    /// The generation to write to.
    fn writable(&self) -> Result<Arc<Generation>> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => self.serving().ok_or(Error::Closed),
        }
    }

    /// Nothing is acknowledged after a failed write.
    fn poison_on_error<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.poison.get_or_init(|| error.to_string());
        }
        outcome
    }

    /// A number that no generation of this store ever had.
    pub(super) fn reserve_generation(&self) -> u64 {
        self.next_generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets `next` serve; durable when it returns.
    pub(super) fn replace(&self, next: Arc<Generation>) -> Result<()> {
        let mut writer = self.writer.lock();
        let _gate = close_gate(&self.gate);
        self.writable()?;
        self.poison_on_error(pointer::switch(&self.dir, next.number))?;
        self.engine.buffers.register(&next);
        let mut serving = self.serving.write().expect("no holder of this lock panics");
        let old = serving.replace(next);
        drop(serving);
        if let Some(old) = old {
            self.engine.buffers.deregister(&old);
            old.retire();
        }
        writer.forget();
        self.operations.installs.add(1);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let _gate = close_gate(&self.gate);
        let taken = self.serving.write().expect("no holder of this lock panics").take();
        let Some(generation) = taken else { return Ok(()) };
        self.engine.buffers.deregister(&generation);
        generation.db().sync()?;
        match journal::newest_end(generation.db().path())? {
            Some(end) => pointer::mark_closed(&self.dir, generation.number, &end),
            None => Ok(()),
        }
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        batch.validate()?;
        let batch = last_of_each_key(batch);
        let bytes =
            batch.operations.iter().map(|(_, key, value)| key.len() + value.as_ref().map_or(0, |v| v.len()));
        let bytes = bytes.sum::<usize>() as u64;
        let gate = close_gate(&self.gate);
        let generation = self.writable()?;
        let written = if batch.operations.is_empty() && durability == Durability::Now {
            generation.db().sync()
        } else {
            generation.write(batch, durability)
        };
        self.poison_on_error(written)?;
        drop(gate);
        self.engine.buffers.written(bytes);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a store was closed without its last sync");
        }
    }
}

impl ApplicationDataStorage for FjallData {
    fn view(&self) -> Box<dyn DataView> {
        self.inner.operations.views.add(1);
        Box::new(FjallView::of(self.inner.serving(), self.inner.operations.clone()))
    }

    fn lock_writer(&self) -> Writer<'_> {
        self.inner.writer.lock()
    }

    fn write_as(&self, writer: &mut Writer<'_>, batch: WriteBatch, durability: Durability) -> Result<()> {
        writer.assert_of(&self.inner.writer);
        writer.wrote(&batch);
        let (puts, deletes) = batch.count();
        let taken = self.inner.write(batch, durability);
        self.inner.operations.wrote(puts, deletes, taken.is_ok());
        taken
    }

    fn sync(&self) -> Result<()> {
        self.inner.operations.syncs.add(1);
        let generation = self.inner.writable()?;
        self.inner.poison_on_error(generation.db().sync())
    }

    fn import(&self) -> Result<Box<dyn DataImport>> {
        self.inner.writable()?;
        Ok(Box::new(FjallImport::new(self.inner.clone())?))
    }

    fn size_bytes(&self) -> u64 {
        self.inner.serving().map_or(0, |generation| generation.db().size_bytes())
    }

    fn statistics(&self) -> DataStatistics {
        let operations = self.inner.operations.counts();
        let Some(generation) = self.inner.serving() else {
            return DataStatistics { operations, ..DataStatistics::default() };
        };
        let db = generation.db();
        let unflushed = Keyspace::ALL.iter().map(|&keyspace| db.memtable_sizes(keyspace).all).sum();
        DataStatistics {
            rows: db.approximate_rows(),
            bytes: db.size_bytes(),
            unflushed_bytes: unflushed,
            tables: db.tables(),
            operations,
        }
    }

    fn flush(&self) -> Result<()> {
        let generation = self.inner.writable()?;
        self.inner.poison_on_error(generation.db().flush())
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        self.inner.writable()?.db().compact()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl SnapshotCapableStorage for FjallData {
    fn checkpoint_as(&self, target: &Path, request: &CheckpointRequest) -> Result<CheckpointManifest> {
        let inner = &self.inner;
        let _one = inner.checkpointing.lock().expect("no holder of this lock panics");
        let generation = inner.writable()?;
        let manifest = checkpoint::take(&inner.dir, generation.db(), &inner.gate, target, request)?;
        inner.operations.checkpoints.add(1);
        Ok(manifest)
    }

    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>> {
        CheckpointManifest::read(&RealDisk, target, checkpoint::ENGINE)?;
        Ok(Box::new(FjallView::of_checkpoint(self.inner.engine.checkpoint(target)?)))
    }

    fn verify_checkpoint(&self, target: &Path) -> Result<CheckpointManifest> {
        let manifest = CheckpointManifest::read(&RealDisk, target, checkpoint::ENGINE)?;
        manifest.verify(&RealDisk, target)?;
        Ok(manifest)
    }

    fn restore(&self, checkpoint: &Path) -> Result<CheckpointManifest> {
        self.inner.writable()?;
        restore::install(&self.inner, checkpoint)
    }
}

/// Keeps the last operation on each key: in one fjall batch all have the same sequence number.
fn last_of_each_key(mut batch: WriteBatch) -> WriteBatch {
    if batch.operations.len() > 1 {
        let mut seen = HashSet::with_capacity(batch.operations.len());
        batch.operations.reverse();
        batch.operations.retain(|(keyspace, key, _)| seen.insert((*keyspace, key.clone())));
    }
    batch
}
