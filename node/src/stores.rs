//! What this node keeps on disk: one log for all groups, one data engine, one folder per replica.
//!
//! ```text
//! {data_dir}/lock                         one process at a time
//! {data_dir}/node.json                    who this node is
//! {data_dir}/log/                         the log of all groups
//! {data_dir}/shards/{group}-{replica}/    data/, snapshots/ and checkpoints/ of one replica
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use odgm_shard::object::{GroupId, ReplicaId};
use odgm_shard::replication::ChangeSink;
use odgm_shard::replication::raft::{RaftParts, RaftRouter, ReplicaData};
use odgm_shard::runtime::TokioRuntime;
use odgm_storage::data::FjallEngine;
use odgm_storage::disk::{Disk, DiskLock, RealDisk};
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage};
use odgm_storage::snapshot::FileSnapshots;

use crate::config::NodeConfig;

/// The storage of one node.
#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) log: Arc<dyn AppendOnlyLogStorage>,
    engine: Arc<FjallEngine>,
    config: NodeConfig,
    _lock: Box<dyn DiskLock>,
}

impl Stores {
    /// Opens the data directory of a node, made when absent. Waits for the disk.
    ///
    /// # Errors
    /// When another process uses it, or a layer can't be opened.
    pub(crate) fn open(config: &NodeConfig) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let dir = config.node.data_dir.clone();
        let naming = || format!("data directory {}", dir.display());
        disk.create_dir_all(&dir.join("shards")).with_context(naming)?;
        let lock = disk.lock(&dir.join("lock")).with_context(naming)?;
        let log =
            AppendLog::open(disk.clone(), &dir.join("log"), config.log_options()).with_context(naming)?;
        let engine = FjallEngine::new(&config.data_options()).with_context(naming)?;
        Ok(Stores { disk, dir, log, engine, config: config.clone(), _lock: lock })
    }

    fn replica_dir(&self, group: GroupId, replica: ReplicaId) -> PathBuf {
        self.dir.join("shards").join(format!("{group}-{replica}"))
    }

    /// Opens the layers of one replica, made when absent. Waits for the disk.
    pub(crate) fn replica(
        &self,
        group: GroupId,
        replica: ReplicaId,
        sink: ChangeSink,
        router: Arc<RaftRouter<TokioRuntime>>,
    ) -> anyhow::Result<RaftParts<TokioRuntime>> {
        let dir = self.replica_dir(group, replica);
        let naming = || format!("replica {replica} of group {group}");
        self.disk.create_dir_all(&dir).with_context(naming)?;
        let data = self.engine.open(&dir.join("data")).with_context(naming)?;
        let snapshots =
            FileSnapshots::open(self.disk.clone(), &dir.join("snapshots"), self.config.snapshot_options())
                .with_context(naming)?;
        let log = self.log.group(odgm_storage::log::GroupId(group.0)).with_context(naming)?;
        Ok(RaftParts {
            group,
            replica,
            log,
            snapshots,
            data: ReplicaData::Checkpointed(data),
            dir: dir.join("checkpoints"),
            sink,
            router,
        })
    }

    /// Removes everything of a replica that nobody wants any more. Waits for the disk.
    pub(crate) fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> anyhow::Result<()> {
        odgm_storage::log::wait_durable(|durable| {
            self.log.remove_group(odgm_storage::log::GroupId(group.0), durable);
            Ok(())
        })
        .context("removing the group from the log")?;
        remove_dir(&self.replica_dir(group, replica))
    }
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}
