//! What this node keeps on disk: its [`CompositeStorage`], and who it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use odgm_shard::object::{GroupId, ReplicaId};
use odgm_shard::replication::raft::ReplicaData;
use odgm_shard::replication::{ChangeSink, ReplicaParts};
use odgm_storage::composite::{CompositeStorage, DataBackend, Health};
use odgm_storage::disk::{Disk, RealDisk};
use odgm_storage::log::AppendOnlyLogStorage;

use crate::config::NodeConfig;

/// The storage of one node.
#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) log: Arc<dyn AppendOnlyLogStorage>,
    pub(crate) storage: Arc<CompositeStorage>,
    opened: Instant,
}

impl Stores {
    /// Opens the data directory of a node, made when absent. Waits for the disk.
    ///
    /// # Errors
    /// When another process uses it, other backends wrote it, or a layer can't be opened.
    pub(crate) fn open(config: &NodeConfig) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let dir = config.node.data_dir.clone();
        let opened = Instant::now();
        let clock = Arc::new(move || opened.elapsed());
        let storage = CompositeStorage::open(disk.clone(), &dir, config.storage_options(), clock)
            .with_context(|| format!("data directory {}", dir.display()))?;
        Ok(Stores { disk, dir, log: storage.log().clone(), storage, opened })
    }

    /// Opens the layers of one replica, made when absent. Waits for the disk.
    pub(crate) fn replica(
        &self,
        group: GroupId,
        replica: ReplicaId,
        sink: ChangeSink,
    ) -> anyhow::Result<ReplicaParts> {
        let shard = self
            .storage
            .shard(odgm_storage::log::GroupId(group.0), replica.0)
            .with_context(|| format!("replica {replica} of group {group}"))?;
        let data = shard.data().clone();
        Ok(ReplicaParts {
            group,
            replica,
            log: shard.log().clone(),
            snapshots: shard.snapshots().clone(),
            data: match shard.backend() {
                DataBackend::Fjall => ReplicaData::Checkpointed(data),
                DataBackend::Memory => ReplicaData::Exported(data),
            },
            dir: shard.checkpoints().to_owned(),
            sink,
        })
    }

    /// Removes everything of a replica that nobody wants any more. Waits for the disk.
    pub(crate) fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> anyhow::Result<()> {
        let removed = self.storage.remove_shard(odgm_storage::log::GroupId(group.0), replica.0);
        removed.with_context(|| format!("removing replica {replica} of group {group}"))
    }

    /// Looks at every layer. Waits for the disk.
    pub(crate) fn check(&self) -> Health {
        self.storage.check(self.opened.elapsed())
    }
}
