//! The snapshot of a replica: taken without copying, written as a portable file when a follower asks.
//!
//! The current snapshot is a checkpoint on disk with a manifest beside it, or a complete file of the snapshot
//! store; after a restart the newest one is found again. A superseded checkpoint is removed once nobody has read
//! from it for a minute: it pins what compactions dropped since. A superseded file stays as long as the
//! [`RetainPolicy`] says, at least as long. All calls may wait for the disk: they belong off the runtime's threads.

mod checkpoints;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odgm_storage::data::{ApplicationDataStorage, DataImport, DataView, SnapshotCapableStorage};
use odgm_storage::log::LogPosition;
use odgm_storage::snapshot::{RaftSnapshotStorage, RetainPolicy, SnapshotInfo, SnapshotMeta};
use odgm_storage::{Error, Result};
use uuid::Uuid;

/// A superseded snapshot that nobody has read for this long is let go.
const LINGER: Duration = Duration::from_secs(60);

/// The data layer of a replica, and how a snapshot of it is taken.
#[derive(Debug, Clone)]
pub enum ReplicaData {
    /// By a checkpoint on disk, without copying; the portable file is written from it when a follower asks.
    Checkpointed(Arc<dyn SnapshotCapableStorage>),
    /// By exporting a view into the snapshot store at once: for data in memory.
    Exported(Arc<dyn ApplicationDataStorage>),
}

impl ReplicaData {
    /// The data, whatever its kind.
    pub(crate) fn storage(&self) -> Arc<dyn ApplicationDataStorage> {
        match self {
            ReplicaData::Checkpointed(data) => data.clone(),
            ReplicaData::Exported(data) => data.clone(),
        }
    }
}

/// The last position that a restart can restore without the log: the log is never purged past it.
#[derive(Debug, Clone, Default)]
pub(crate) struct DurablePosition(Arc<Mutex<Option<LogPosition>>>);

impl DurablePosition {
    pub(crate) fn get(&self) -> Option<LogPosition> {
        *lock(&self.0)
    }

    pub(crate) fn set(&self, position: Option<LogPosition>) {
        *lock(&self.0) = position;
    }
}

/// A snapshot as openraft passes it around.
#[derive(Clone)]
pub(crate) struct SnapshotHandle {
    pub(crate) set: Arc<SnapshotSet>,
    pub(crate) meta: SnapshotMeta,
    staged: Arc<Mutex<Option<Box<dyn DataImport>>>>,
}

impl SnapshotHandle {
    pub(crate) fn new(set: Arc<SnapshotSet>, meta: SnapshotMeta) -> Self {
        SnapshotHandle { set, meta, staged: Arc::default() }
    }

    /// Reads a received snapshot into an import, so that installing it only has to switch over.
    pub(crate) fn stage(&self) -> Result<()> {
        let import = self.read_into(&self.set.data.storage())?;
        *lock(&self.staged) = Some(import);
        Ok(())
    }

    /// Replaces all of `data` by this snapshot.
    pub(crate) fn install(&self, data: &Arc<dyn ApplicationDataStorage>) -> Result<()> {
        let staged = lock(&self.staged).take();
        let import = match staged {
            Some(import) => import,
            None => self.read_into(data)?,
        };
        import.finish()
    }

    fn read_into(&self, data: &Arc<dyn ApplicationDataStorage>) -> Result<Box<dyn DataImport>> {
        let mut import = data.import()?;
        import.read(&mut *self.set.content(self.meta.id)?)?;
        Ok(import)
    }
}

impl fmt::Debug for SnapshotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotHandle").field(&self.meta.id).finish()
    }
}

/// One snapshot that this replica holds.
#[derive(Debug, Clone)]
struct Held {
    meta: SnapshotMeta,
    /// The checkpoint; `None` when there is only the file in the store.
    checkpoint: Option<PathBuf>,
}

impl Held {
    fn frozen((meta, path): (SnapshotMeta, PathBuf)) -> Self {
        Held { meta, checkpoint: Some(path) }
    }
}

#[derive(Debug, Default)]
struct State {
    current: Option<Held>,
    /// With the moment of the last read, or of being superseded.
    superseded: Vec<(Held, Duration)>,
}

/// The snapshots of one replica.
#[derive(Debug)]
pub(crate) struct SnapshotSet {
    dir: PathBuf,
    data: ReplicaData,
    store: Arc<dyn RaftSnapshotStorage>,
    retain: RetainPolicy,
    restorable: DurablePosition,
    state: Mutex<State>,
    /// Held while a portable file is written: one at a time.
    writing: Mutex<()>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SnapshotSet {
    /// Finds the newest complete snapshot, and removes what is not complete.
    pub(crate) fn open(
        dir: PathBuf,
        data: ReplicaData,
        store: Arc<dyn RaftSnapshotStorage>,
        retain: RetainPolicy,
    ) -> Result<Self> {
        let mut found: Vec<Held> =
            store.list()?.into_iter().map(|info| Held { meta: info.meta, checkpoint: None }).collect();
        // Only a checkpoint is a directory of its own.
        let frozen = match &data {
            ReplicaData::Checkpointed(_) => checkpoints::list(&dir)?.into_iter().map(Held::frozen).collect(),
            ReplicaData::Exported(_) => Vec::new(),
        };
        for held in frozen {
            match found.iter_mut().find(|other| other.meta.id == held.meta.id) {
                Some(stored) => *stored = held,
                None => found.push(held),
            }
        }
        found.sort_by_key(|held| held.meta.position);
        let set = SnapshotSet {
            dir,
            data,
            store,
            retain,
            restorable: DurablePosition::default(),
            state: Mutex::default(),
            writing: Mutex::default(),
        };
        let current = found.pop();
        set.restorable.set(current.as_ref().and_then(|held| held.meta.position));
        let superseded = found.into_iter().map(|held| (held, Duration::ZERO)).collect();
        *lock(&set.state) = State { current, superseded };
        Ok(set)
    }

    /// The position behind which the log may be purged.
    pub(crate) fn restorable(&self) -> DurablePosition {
        self.restorable.clone()
    }

    pub(crate) fn data(&self) -> Arc<dyn ApplicationDataStorage> {
        self.data.storage()
    }

    pub(crate) fn store(&self) -> &Arc<dyn RaftSnapshotStorage> {
        &self.store
    }

    /// What the current snapshot says about itself.
    pub(crate) fn current(&self) -> Option<SnapshotMeta> {
        lock(&self.state).current.as_ref().map(|held| held.meta.clone())
    }

    /// Freezes the data as they are; nobody may write meanwhile. For data in memory only the view is taken,
    /// and [`Frozen::finish`] does the work.
    pub(crate) fn freeze(self: &Arc<Self>, meta: SnapshotMeta) -> Result<Frozen> {
        match &self.data {
            ReplicaData::Checkpointed(data) => {
                let target = checkpoints::path(&self.dir, meta.id);
                data.checkpoint(&target)?;
                checkpoints::write_manifest(&self.dir, &meta)?;
                Ok(Frozen { set: self.clone(), meta, from: From::Checkpoint(target) })
            }
            ReplicaData::Exported(data) => {
                Ok(Frozen { set: self.clone(), meta, from: From::View(data.view()) })
            }
        }
    }

    /// The portable form of a snapshot, written from its checkpoint when it does not exist yet.
    pub(crate) fn portable(&self, id: Uuid, created_unix_ms: u64) -> Result<SnapshotInfo> {
        let _one = lock(&self.writing);
        if let Some(info) = self.store.list()?.into_iter().find(|info| info.meta.id == id) {
            return Ok(info);
        }
        let absent = || Error::NotFound { what: format!("snapshot {id}") };
        let held = self.held(id).ok_or_else(absent)?;
        let (ReplicaData::Checkpointed(data), Some(checkpoint)) = (&self.data, &held.checkpoint) else {
            return Err(absent());
        };
        self.write_portable(&*data.open_checkpoint(checkpoint)?, held.meta, created_unix_ms)
    }

    /// Bytes of the portable form, for a follower that pulls.
    pub(crate) fn read_stored(&self, id: Uuid, offset: u64, len: usize, now: Duration) -> Result<Bytes> {
        for (held, read) in &mut lock(&self.state).superseded {
            if held.meta.id == id {
                *read = now;
            }
        }
        self.store.read_stored(id, offset, len)
    }

    /// The content of a snapshot from its start.
    pub(crate) fn content(&self, id: Uuid) -> Result<Box<dyn Read + Send>> {
        self.portable(id, 0)?;
        self.store.read(id)
    }

    /// Makes an installed snapshot the current one, copying it into the own store when it came from another.
    pub(crate) fn adopt(&self, handle: &SnapshotHandle, now: Duration) -> Result<()> {
        let id = handle.meta.id;
        if self.held(id).is_none_or(|held| held.checkpoint.is_none())
            && !self.store.list()?.iter().any(|info| info.meta.id == id)
        {
            let mut writer = self.store.create(handle.meta.clone(), 0)?;
            std::io::copy(&mut *handle.set.content(id)?, &mut writer)
                .map_err(|error| Error::io("copy", self.dir.clone(), error))?;
            writer.finish()?;
        }
        self.supersede(Held { meta: handle.meta.clone(), checkpoint: None }, now);
        Ok(())
    }

    /// Lets go of superseded snapshots that nobody reads any more: their checkpoints, and the files that are
    /// not to be retained.
    pub(crate) fn sweep(&self, now: Duration, now_unix_ms: u64) -> Result<()> {
        let mut expired = Vec::new();
        lock(&self.state).superseded.retain(|(held, read)| {
            let keep = now.saturating_sub(*read) < LINGER;
            if !keep {
                expired.push(held.clone());
            }
            keep
        });
        for held in expired {
            if let Some(checkpoint) = &held.checkpoint {
                checkpoints::remove(&self.dir, checkpoint, held.meta.id)?;
            }
        }
        for id in self.retain.surplus(&self.store.list()?, now_unix_ms) {
            if self.held(id).is_none() {
                self.store.delete(id)?;
            }
        }
        Ok(())
    }

    fn held(&self, id: Uuid) -> Option<Held> {
        let state = lock(&self.state);
        let superseded = state.superseded.iter().map(|(held, _)| held);
        state.current.iter().chain(superseded).find(|held| held.meta.id == id).cloned()
    }

    fn write_portable(
        &self,
        view: &dyn DataView,
        meta: SnapshotMeta,
        created_unix_ms: u64,
    ) -> Result<SnapshotInfo> {
        let mut writer = self.store.create(meta, created_unix_ms)?;
        view.export(&mut writer)?;
        writer.finish()
    }

    fn supersede(&self, by: Held, now: Duration) {
        let mut state = lock(&self.state);
        match &state.current {
            Some(held) if held.meta.id == by.meta.id => return,
            // One that was installed while this one was written is newer.
            Some(held) if held.meta.position > by.meta.position => {
                state.superseded.push((by, now));
                return;
            }
            _ => {}
        }
        self.restorable.set(by.meta.position);
        if let Some(old) = state.current.replace(by) {
            state.superseded.push((old, now));
        }
    }
}

enum From {
    Checkpoint(PathBuf),
    View(Box<dyn DataView>),
}

/// A frozen state that becomes the current snapshot when finished.
pub(crate) struct Frozen {
    set: Arc<SnapshotSet>,
    meta: SnapshotMeta,
    from: From,
}

impl Frozen {
    /// Completes it.
    pub(crate) fn finish(self, now: Duration, created_unix_ms: u64) -> Result<SnapshotHandle> {
        let checkpoint = match self.from {
            From::Checkpoint(path) => Some(path),
            From::View(view) => {
                self.set.write_portable(&*view, self.meta.clone(), created_unix_ms)?;
                None
            }
        };
        self.set.supersede(Held { meta: self.meta.clone(), checkpoint }, now);
        Ok(SnapshotHandle::new(self.set, self.meta))
    }
}

#[cfg(test)]
mod tests {
    use odgm_storage::data::memory::MemoryData;
    use odgm_storage::snapshot::{MemorySnapshots, SnapshotOptions};

    use super::*;

    fn take(set: &Arc<SnapshotSet>, index: u64) -> Uuid {
        let position = Some(LogPosition { term: 1, index });
        let meta = SnapshotMeta { id: Uuid::from_u128(index.into()), position, membership: Bytes::new() };
        set.freeze(meta).unwrap().finish(Duration::from_secs(index), index).unwrap().meta.id
    }

    #[test]
    fn superseded_files_stay_for_their_readers_and_then_as_long_as_they_are_to_be_retained() {
        let dir = tempfile::tempdir().unwrap();
        let data = ReplicaData::Exported(Arc::new(MemoryData::new(1 << 20)));
        let store: Arc<dyn RaftSnapshotStorage> = MemorySnapshots::new(SnapshotOptions::default()).unwrap();
        let retain = RetainPolicy::Latest { count: 2 };
        let set = SnapshotSet::open(dir.path().to_owned(), data, store.clone(), retain).unwrap();
        let set = Arc::new(set);
        let taken: Vec<Uuid> = (1..5).map(|index| take(&set, index)).collect();
        let kept = || store.list().unwrap().into_iter().map(|info| info.meta.id).collect::<Vec<_>>();
        set.sweep(Duration::from_secs(10), 10).unwrap();
        assert_eq!(kept(), taken);
        set.read_stored(taken[0], 0, 1, Duration::from_secs(50)).unwrap();
        set.sweep(Duration::from_secs(70), 70).unwrap();
        assert_eq!(kept(), [taken[0], taken[2], taken[3]]);
        set.sweep(Duration::from_secs(200), 200).unwrap();
        assert_eq!(kept(), taken[2..]);
        assert_eq!(set.current().unwrap().id, taken[3]);
    }
}
