//! What the stores of a node share: block cache, write buffers and their thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use super::database::{Database, Purpose, SharedCache};
use super::generation::remove_dir;
use super::memtables::WriteBuffers;
use super::store::FjallData;
use crate::data::{CheckpointRequest, DataOptions, SnapshotCapableStorage};
use crate::{Error, Result};

/// The Fjall engine of a node.
///
/// ```
/// use odgm_storage::data::fjall::FjallEngine;
/// use odgm_storage::data::{ApplicationDataStorage, DataOptions, Durability, Keyspace, WriteBatch};
///
/// let dir = tempfile::tempdir().unwrap();
/// let engine = FjallEngine::new(&DataOptions::default()).unwrap();
/// let shard = engine.open(&dir.path().join("shard-1")).unwrap();
/// let mut batch = WriteBatch::default();
/// batch.put(Keyspace::Data, "key", "value");
/// shard.write(batch, Durability::Later).unwrap();
/// assert_eq!(shard.view().get(Keyspace::Data, b"key").unwrap().unwrap(), "value");
/// ```
#[derive(Debug)]
pub struct FjallEngine {
    cache: SharedCache,
    pub(super) buffers: Arc<WriteBuffers>,
    /// Checkpoints that a view holds open: a directory can be open once.
    checkpoints: Mutex<HashMap<PathBuf, Weak<Database>>>,
    workers: usize,
    thread: Option<JoinHandle<()>>,
}

impl FjallEngine {
    /// Starts the engine.
    ///
    /// # Errors
    /// [`Error::Options`], or [`Error::Io`] when no thread can be started.
    pub fn new(options: &DataOptions) -> Result<Arc<Self>> {
        options.validate()?;
        let buffers = WriteBuffers::new(options.write_buffer_bytes);
        let thread = std::thread::Builder::new()
            .name("write-buffers".to_owned())
            .spawn({
                let buffers = buffers.clone();
                move || buffers.run()
            })
            .map_err(|error| Error::io("start", "thread write-buffers", error))?;
        Ok(Arc::new(FjallEngine {
            cache: SharedCache::new(options.cache_bytes),
            buffers,
            checkpoints: Mutex::default(),
            workers: options.worker_threads,
            thread: Some(thread),
        }))
    }

    /// Opens the store of a shard replica, making it when the directory is absent or empty.
    ///
    /// # Errors
    /// [`Error::Locked`] while another store, or a view of one, has the directory open;
    /// [`Error::Corrupt`] and [`Error::Format`] for what cannot be served.
    pub fn open(self: &Arc<Self>, dir: &Path) -> Result<Arc<FjallData>> {
        FjallData::open(self.clone(), dir)
    }

    /// Bytes that all memtables of the node take, as last measured, with what was written since.
    pub fn memtable_bytes(&self) -> u64 {
        self.buffers.held_bytes()
    }

    /// Opens a new store in `dir` with the present data of another one: a second replica on the same disk.
    /// The tables are shared by hard links, so it takes the time of a checkpoint, and no space until
    /// either of the two rewrites them.
    ///
    /// # Errors
    /// [`Error::Options`] when `dir` exists; what a checkpoint and a restore answer.
    pub fn clone_replica(
        self: &Arc<Self>,
        source: &FjallData,
        dir: &Path,
        request: &CheckpointRequest,
    ) -> Result<Arc<FjallData>> {
        if dir.exists() {
            return Err(Error::Options { option: "dir", reason: format!("{} exists", dir.display()) });
        }
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(".checkpoint");
        let checkpoint = dir.with_file_name(name);
        remove_dir(&checkpoint)?;
        source.checkpoint_as(&checkpoint, request)?;
        let cloned = self.open(dir).and_then(|store| store.restore(&checkpoint).map(|_| store));
        remove_dir(&checkpoint)?;
        cloned
    }

    pub(super) fn database(&self, path: &Path) -> Result<Arc<Database>> {
        Database::open(path, &self.cache, Purpose::Serve(self.workers))
    }

    /// The database of a checkpoint, shared by all that read it at the same time.
    pub(super) fn checkpoint(&self, path: &Path) -> Result<Arc<Database>> {
        let mut open = self.checkpoints.lock().expect("no holder of this lock panics");
        open.retain(|_, database| database.strong_count() > 0);
        if let Some(database) = open.get(path).and_then(Weak::upgrade) {
            return Ok(database);
        }
        let database = Database::open(path, &self.cache, Purpose::Read)?;
        open.insert(path.to_owned(), Arc::downgrade(&database));
        Ok(database)
    }
}

impl Drop for FjallEngine {
    fn drop(&mut self) {
        self.buffers.stop();
        if let Some(thread) = self.thread.take() {
            // It only ends by `stop`; a panic in it was reported by the hook.
            let _ = thread.join();
        }
    }
}
