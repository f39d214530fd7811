//! The storage of a node: the three layers behind one configuration, with their health and metrics.
//!
//! ```text
//! {dir}/lock                              one process at a time
//! {dir}/storage                           which backends wrote this directory
//! {dir}/log/                              the log of all groups
//! {dir}/shards/{group}-{replica}/         data/, snapshots/ and checkpoints/ of one replica
//! ```
//!
//! Every layer that it hands out is watched: calls are counted, and an error that says something of the
//! layer, and not of its caller, changes its health at once. It starts no thread: whoever owns it calls
//! [`CompositeStorage::check`] from time to time.

pub(crate) mod aside;
mod health;
mod layers;
pub(crate) mod lost;
mod metrics;
mod options;
pub(crate) mod shard;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use health::{Health, Status};
pub use layers::Layers;
pub use metrics::{LayerMetrics, StorageMetrics};
pub use options::{
    CompositeOptions, DataBackend, DataLayer, LogBackend, LogLayer, SnapshotBackend, SnapshotLayer,
};
pub use shard::ShardStorage;

use self::health::{Board, Call, Layer, Matter};
use self::metrics::Meters;
use self::watch::{Watch, WatchedData, WatchedLog, WatchedSnapshots};
use crate::data::{FjallEngine, Keyspace, MemoryData, SnapshotCapableStorage};
use crate::disk::{Disk, DiskLock};
use crate::log::{AppendLog, AppendOnlyLogStorage, FjallLog, GroupId, MemoryLog, boot, wait_durable};
use crate::snapshot::{FileSnapshots, MemorySnapshots, RaftSnapshotStorage};
use crate::{Error, Result};

pub(crate) const LOCK: &str = "lock";
pub(crate) const LOG: &str = "log";
pub(crate) const SHARDS: &str = "shards";

/// What the memtables of one replica need of the node's write buffers.
const REPLICA_WRITE_BUFFER_BYTES: u64 = 1 << 20;

/// A monotonic clock: the time since a moment of its own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The storage of a node.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Instant;
/// use odgm_storage::composite::{CompositeOptions, CompositeStorage, Status};
/// use odgm_storage::disk::RealDisk;
/// use odgm_storage::log::GroupId;
///
/// let dir = tempfile::tempdir().unwrap();
/// let start = Instant::now();
/// let clock = Arc::new(move || start.elapsed());
/// let options = CompositeOptions::default();
/// let storage = CompositeStorage::open(Arc::new(RealDisk), dir.path(), options, clock).unwrap();
/// let shard = storage.shard(GroupId(1), 1).unwrap();
/// assert_eq!(shard.log().state().last, None);
/// assert_eq!(storage.check(start.elapsed()).overall(), &Status::Healthy);
/// ```
pub struct CompositeStorage {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: CompositeOptions,
    log: Arc<dyn AppendOnlyLogStorage>,
    /// Of the data backend `fjall`.
    engine: Option<Arc<FjallEngine>>,
    shards: Mutex<BTreeMap<(GroupId, u64), shard::Open>>,
    watch: Watch,
    _lock: Box<dyn DiskLock>,
}

impl fmt::Debug for CompositeStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompositeStorage").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl CompositeStorage {
    /// Opens the data directory of a node, made when absent. Waits for the disk. The data backend
    /// `fjall` keeps its own files on the disk of the operating system, whatever `disk` is.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it; [`Error::Options`] for options that a layer does
    /// not take, and for a directory that other backends wrote, saying what to do; or what a layer answers.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: CompositeOptions,
        clock: Clock,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        disk.create_dir_all(&dir.join(SHARDS))?;
        let lock = disk.lock(&dir.join(LOCK))?;
        Layers::from(&options).agree(&*disk, dir)?;
        let log: Arc<dyn AppendOnlyLogStorage> = match options.log.backend {
            LogBackend::AppendLog => {
                AppendLog::open(disk.clone(), &dir.join(LOG), options.log.options.clone())?
            }
            LogBackend::Fjall => FjallLog::open(disk.clone(), &dir.join(LOG), options.log.fjall.clone())?,
            LogBackend::MemoryLog => MemoryLog::new(options.log.max_entries),
        };
        let engine = match options.data.backend {
            DataBackend::Fjall => Some(FjallEngine::new(&options.data.options)?),
            DataBackend::Memory => None,
        };
        let (meters, board) = (Arc::<Meters>::default(), Arc::<Board>::default());
        let watch = Watch { layer: Layer::Log, group: None, meters, board, clock };
        let log = Arc::new(WatchedLog::new(log, watch.clone()));
        let shards = Mutex::default();
        let dir = dir.to_owned();
        Ok(Arc::new(CompositeStorage { disk, dir, options, log, engine, shards, watch, _lock: lock }))
    }

    /// What it was opened with.
    pub fn options(&self) -> &CompositeOptions {
        &self.options
    }

    /// The disk under its own files.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The log of all groups.
    pub fn log(&self) -> &Arc<dyn AppendOnlyLogStorage> {
        &self.log
    }

    /// Opens the layers of one replica, made when absent. Waits for the disk. A replica whose layers
    /// are all still held by somebody is handed out again.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its log or data are damaged, [`Error::Refused`] when a repair gave it up, or
    /// what a layer answers.
    pub fn shard(&self, group: GroupId, replica: u64) -> Result<ShardStorage> {
        let mut shards = self.shards();
        if let Some(open) = shards.get(&(group, replica)).and_then(shard::Open::get) {
            return Ok(open);
        }
        let dir = self.shard_dir(group, replica);
        lost::refuse(&*self.disk, &dir)?;
        let held = shards.values().filter(|open| open.is_held()).count();
        self.check_write_buffers(held as u64 + 1)?;
        self.disk.create_dir_all(&dir)?;
        let data = self.noted(Layer::Data, group, self.open_data(&dir))?;
        let snapshots = self.noted(Layer::Snapshot, group, self.open_snapshots(&dir))?;
        let shard = ShardStorage {
            group,
            replica,
            dir: dir.join("checkpoints"),
            log: self.log.group(group)?,
            snapshots: Arc::new(WatchedSnapshots::new(snapshots, self.watch(Layer::Snapshot, group))),
            data: Arc::new(WatchedData::new(data, self.watch(Layer::Data, group))),
            backend: self.options.data.backend,
            retain: self.options.snapshot.retain,
        };
        shards.insert((group, replica), shard::Open::of(&shard));
        self.check_snapshots(&shard);
        Ok(shard)
    }

    /// Removes everything of a replica, which nobody may have open any more, from log and disk. Waits
    /// for the disk. Repeated after a crash, it goes on.
    ///
    /// # Errors
    /// [`Error::Locked`] while it is open, or what a layer answers.
    pub fn remove_shard(&self, group: GroupId, replica: u64) -> Result<()> {
        let dir = self.shard_dir(group, replica);
        let mut shards = self.shards();
        if shards.get(&(group, replica)).is_some_and(shard::Open::is_held) {
            return Err(Error::Locked { path: dir });
        }
        shards.remove(&(group, replica));
        wait_durable(|durable| {
            self.log.remove_group(group, durable);
            Ok(())
        })?;
        let snapshots = dir.join("snapshots");
        match self.disk.list(&snapshots) {
            Err(Error::NotFound { .. }) => {}
            other => {
                for name in other? {
                    self.disk.remove(&snapshots.join(name))?;
                }
            }
        }
        // The files of the engine are no files of `disk`.
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", dir, error));
            }
            _ => {}
        }
        self.watch.board.forget(group);
        Ok(())
    }

    /// The replicas that have something on disk, open or not. Waits for the disk.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn replicas(&self) -> Result<Vec<(GroupId, u64)>> {
        let names = self.disk.list(&self.dir.join(SHARDS))?;
        Ok(names.iter().filter_map(|name| shard::replica_of(name)).collect())
    }

    /// Whether the log still holds all that was handed to the operating system in an earlier boot of it;
    /// asked under [`crate::log::SyncPolicy::None`]. `boot` names the present boot.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn log_kept(&self, boot: &str) -> Result<bool> {
        boot::kept(&*self.disk, &self.dir.join(LOG), boot, self.log.was_closed_cleanly())
    }

    /// Notes the present boot for [`CompositeStorage::log_kept`], durably.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn note_boot(&self, boot: &str) -> Result<()> {
        let dir = self.dir.join(LOG);
        self.disk.create_dir_all(&dir)?;
        boot::note(&*self.disk, &dir, boot)
    }

    /// Gives up all replicas, of which none may be open: their groups leave the log, and their directories
    /// go to `damaged/`, or away when what is in them is nothing without a log that was never on disk. Says
    /// how many there were. Waits for the disk. Repeated after a crash, it goes on.
    ///
    /// # Errors
    /// What the log or the disk answers.
    pub fn give_up_replicas(&self) -> Result<usize> {
        let keep = self.options.log.backend != LogBackend::MemoryLog;
        for group in self.log.groups() {
            wait_durable(|durable| {
                self.log.remove_group(group, durable);
                Ok(())
            })?;
        }
        let mut count = 0;
        for name in self.disk.list(&self.dir.join(SHARDS))? {
            let from = self.dir.join(SHARDS).join(&name);
            if keep {
                aside::move_aside(&self.dir, &from)?;
            } else {
                aside::remove(&from)?;
            }
            count += 1;
        }
        Ok(count)
    }

    /// How the layers are, as far as is known: who polls compares its `version`. Waits for nothing.
    pub fn health(&self) -> Health {
        self.watch.board.health()
    }

    /// Looks at every layer, and says how they are. Waits for the disk; meant for each
    /// `storage.health_interval`. `now` is by the caller's clock, and becomes [`Health::checked`].
    pub fn check(&self, now: Duration) -> Health {
        let board = &self.watch.board;
        if let Some(error) = self.log.poisoned() {
            board.note(Layer::Log, None, Call::Write, &error);
        }
        for (group, error) in self.log.damaged() {
            board.note(Layer::Log, Some(group), Call::Read, &error);
        }
        self.check_space();
        let open: Vec<_> = self.shards().values().filter_map(shard::Open::get).collect();
        for shard in open {
            self.check_snapshots(&shard);
            // Counted and noted on the way; a key that is not there costs next to nothing.
            let _ = shard.data.view().get(Keyspace::Meta, &[0]);
        }
        board.checked(now)
    }

    /// What the layers did since they were opened.
    pub fn metrics(&self) -> StorageMetrics {
        self.watch.meters.sum()
    }

    /// Makes everything durable and stops the log. Later calls fail with [`Error::Closed`].
    ///
    /// # Errors
    /// The first error of a layer; the others are closed all the same.
    pub fn close(&self) -> Result<()> {
        let open: Vec<_> = self.shards().values().filter_map(shard::Open::get).collect();
        let closed: Vec<Result<()>> = open.iter().map(|shard| shard.data.close()).collect();
        let log = self.log.close();
        closed.into_iter().chain([log]).collect()
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<(GroupId, u64), shard::Open>> {
        self.shards.lock().expect("no holder of this lock panics")
    }

    fn shard_dir(&self, group: GroupId, replica: u64) -> PathBuf {
        self.dir.join(SHARDS).join(format!("{}-{replica}", group.0))
    }

    fn watch(&self, layer: Layer, group: GroupId) -> Watch {
        Watch { layer, group: Some(group), ..self.watch.clone() }
    }

    fn noted<T>(&self, layer: Layer, group: GroupId, opened: Result<T>) -> Result<T> {
        if let Err(error) = &opened {
            self.watch.board.note(layer, Some(group), Call::Read, error);
        }
        opened
    }

    fn open_data(&self, dir: &Path) -> Result<Arc<dyn SnapshotCapableStorage>> {
        Ok(match &self.engine {
            Some(engine) => engine.open(&dir.join("data"))?,
            None => Arc::new(MemoryData::with_disk(self.options.data.options.max_bytes, self.disk.clone())),
        })
    }

    fn open_snapshots(&self, dir: &Path) -> Result<Arc<dyn RaftSnapshotStorage>> {
        let options = self.options.snapshot.options.clone();
        Ok(match self.options.snapshot.backend {
            SnapshotBackend::CompressedFile => {
                FileSnapshots::open(self.disk.clone(), &dir.join("snapshots"), options)?
            }
            SnapshotBackend::MemorySnapshot => MemorySnapshots::new(options)?,
        })
    }

    /// Below so much a replica, memtables would be written before they hold anything worth a table.
    fn check_write_buffers(&self, replicas: u64) -> Result<()> {
        let found = self.options.data.options.write_buffer_bytes;
        let least = replicas * REPLICA_WRITE_BUFFER_BYTES;
        if self.engine.is_some() && found < least {
            let reason =
                format!("{found} bytes are too few for {replicas} replicas, at least {least} are needed");
            return Err(Error::Options { option: "write_buffer_bytes", reason });
        }
        Ok(())
    }

    /// A disk with less room than the log's next segment takes is as good as full.
    fn check_space(&self) {
        let board = &self.watch.board;
        let least = self.options.log.options.segment_bytes;
        match self.disk.free_bytes(&self.dir) {
            Ok(free) if free >= least => board.clear_everywhere(Matter::Space),
            Ok(_) => {
                let place = self.dir.display();
                let reason = format!("{place} has no room for {least} bytes, the log's next segment");
                for layer in Layer::ALL {
                    board.set(layer, Matter::Space, None, Status::Degraded { reason: reason.clone() });
                }
            }
            Err(error) => board.note(Layer::Log, None, Call::Read, &error),
        }
    }

    fn check_snapshots(&self, shard: &ShardStorage) {
        if let Some((_, error)) = shard.snapshots.damaged().first() {
            self.watch.board.note(Layer::Snapshot, Some(shard.group), Call::Read, error);
        }
    }
}
