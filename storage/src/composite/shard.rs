//! The three layers of one shard replica, and what takes all three: a snapshot, and the way back.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use uuid::Uuid;

use super::options::DataBackend;
use crate::data::{DataView, SnapshotCapableStorage};
use crate::log::{GroupId, RaftLogStorage};
use crate::snapshot::{RaftSnapshotStorage, RetainPolicy, SnapshotInfo, SnapshotMeta};
use crate::{Error, Result};

/// The layers of one shard replica. Opened by [`super::CompositeStorage::shard`]; open until the last holder of
/// its layers is gone.
#[derive(Clone)]
pub struct ShardStorage {
    pub(super) group: GroupId,
    pub(super) replica: u64,
    pub(super) dir: PathBuf,
    pub(super) log: Arc<dyn RaftLogStorage>,
    pub(super) snapshots: Arc<dyn RaftSnapshotStorage>,
    pub(super) data: Arc<dyn SnapshotCapableStorage>,
    pub(super) backend: DataBackend,
    pub(super) retain: RetainPolicy,
}

/// The replica that a directory under `shards` is of, by its name.
pub(crate) fn replica_of(directory: &OsStr) -> Option<(GroupId, u64)> {
    let (group, replica) = directory.to_str()?.split_once('-')?;
    Some((GroupId(group.parse().ok()?), replica.parse().ok()?))
}

/// A shard replica that is open as long as somebody holds its layers.
pub(super) struct Open {
    group: GroupId,
    replica: u64,
    dir: PathBuf,
    log: Weak<dyn RaftLogStorage>,
    snapshots: Weak<dyn RaftSnapshotStorage>,
    data: Weak<dyn SnapshotCapableStorage>,
    backend: DataBackend,
    retain: RetainPolicy,
}

impl Open {
    pub(super) fn of(shard: &ShardStorage) -> Self {
        Open {
            group: shard.group,
            replica: shard.replica,
            dir: shard.dir.clone(),
            log: Arc::downgrade(&shard.log),
            snapshots: Arc::downgrade(&shard.snapshots),
            data: Arc::downgrade(&shard.data),
            backend: shard.backend,
            retain: shard.retain,
        }
    }

    /// Its layers, while all of them are held.
    pub(super) fn get(&self) -> Option<ShardStorage> {
        Some(ShardStorage {
            group: self.group,
            replica: self.replica,
            dir: self.dir.clone(),
            log: self.log.upgrade()?,
            snapshots: self.snapshots.upgrade()?,
            data: self.data.upgrade()?,
            backend: self.backend,
            retain: self.retain,
        })
    }

    pub(super) fn is_held(&self) -> bool {
        self.log.strong_count() + self.snapshots.strong_count() + self.data.strong_count() > 0
    }
}

impl fmt::Debug for ShardStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardStorage").field("group", &self.group).field("replica", &self.replica).finish()
    }
}

impl ShardStorage {
    /// The log of its group.
    pub fn log(&self) -> &Arc<dyn RaftLogStorage> {
        &self.log
    }

    /// Its snapshots.
    pub fn snapshots(&self) -> &Arc<dyn RaftSnapshotStorage> {
        &self.snapshots
    }

    /// Its data.
    pub fn data(&self) -> &Arc<dyn SnapshotCapableStorage> {
        &self.data
    }

    /// Which kind of store its data are in: only what is on disk gains by a checkpoint.
    pub fn backend(&self) -> DataBackend {
        self.backend
    }

    /// The directory in which its checkpoints are to be made; may be absent.
    pub fn checkpoints(&self) -> &Path {
        &self.dir
    }

    /// Stores a snapshot of `view`, which must show exactly the effects up to `meta.position`, then
    /// makes the data durable, purges the log up to that position and lets old snapshots go. The view
    /// is taken by the caller between two writes; writing goes on meanwhile.
    ///
    /// Each step begins when the one before is durable, so a crash between any two loses nothing: the
    /// log is never purged past what both the data and a stored snapshot hold. Without a position,
    /// nothing is purged.
    ///
    /// # Errors
    /// What a layer answers. When storing failed there is no snapshot; after that, there is.
    pub fn snapshot(
        &self,
        view: &dyn DataView,
        meta: SnapshotMeta,
        created_unix_ms: u64,
    ) -> Result<SnapshotInfo> {
        let position = meta.position;
        let mut writer = self.snapshots.create(meta, created_unix_ms)?;
        view.export(&mut writer)?;
        let info = writer.finish()?;
        if let Some(position) = position {
            self.data.sync()?;
            self.log.purge(position)?;
        }
        self.snapshots.retain(self.retain, created_unix_ms)?;
        Ok(info)
    }

    /// Replaces all data by a stored snapshot, atomically in a crash, then purges the log up to its
    /// position; entries above it stay and are to be applied again. Nobody may write meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a snapshot that is not here, and for one that the log does not reach
    /// back to: the entries between would be missing. Then, and when it is damaged, nothing changes.
    pub fn restore(&self, id: Uuid) -> Result<SnapshotInfo> {
        let info = self.snapshots.list()?.into_iter().find(|info| info.meta.id == id);
        let info = info.ok_or_else(|| Error::NotFound { what: format!("snapshot {id}") })?;
        let position = info.meta.position;
        if let Some(purged) = self.log.state().purged
            && position.is_none_or(|position| position.index < purged.index)
        {
            let first = position.map_or(0, |position| position.index + 1);
            let (group, last) = (self.group.0, purged.index);
            return Err(Error::NotFound { what: format!("entries {first} to {last} of group {group}") });
        }
        let mut import = self.data.import()?;
        import.read(&mut *self.snapshots.read(id)?)?;
        import.finish()?;
        if let Some(position) = position {
            self.log.purge(position)?;
        }
        Ok(info)
    }
}
