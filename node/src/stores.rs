//! What this node keeps on disk: its [`CompositeStorage`], and who it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use odgm_shard::cluster::tombstones::TombstonesSpec;
use odgm_shard::object::{GroupId, ReplicaId};
use odgm_shard::replication::raft::ReplicaData;
use odgm_shard::replication::{ChangeSink, ReplicaParts};
use odgm_storage::composite::{CompositeStorage, DataBackend, Health};
use odgm_storage::disk::{Disk, RealDisk};
use odgm_storage::log::AppendOnlyLogStorage;

use crate::config::{LogBackend, NodeConfig, SyncPolicy};
use crate::identity::Identity;

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
        let stores = Stores { disk, dir, log: storage.log().clone(), storage, opened };
        stores.forget_what_is_lost(config)?;
        Ok(stores)
    }

    /// A replica whose log is gone must not vote or answer again: its node begins as a new one. That is so
    /// at each start on `memory_log`, and under `sync: none` when the machine stopped before the system had
    /// written what it was given. A node that is alone goes on with what it has: nobody knows more.
    fn forget_what_is_lost(&self, config: &NodeConfig) -> anyhow::Result<()> {
        let log = &config.storage.log;
        if log.backend == LogBackend::MemoryLog {
            Identity::forget(&self.disk, &self.dir)?;
            self.storage.give_up_replicas()?;
            return Ok(());
        }
        let boot = boot_id();
        if log.sync == SyncPolicy::None && !self.storage.log_kept(&boot)? {
            if config.is_alone() {
                tracing::warn!(
                    "the machine stopped, and storage.log.sync is none: the last writes may be lost"
                );
            } else {
                Identity::forget(&self.disk, &self.dir)?;
                let count = self.storage.give_up_replicas()?;
                let aside = self.dir.join("damaged");
                tracing::error!(
                    replicas = count,
                    aside = %aside.display(),
                    "the machine stopped, and storage.log.sync is none: this node begins empty, replace it by `odgm node replace`"
                );
            }
        }
        self.storage.note_boot(&boot).context("noting the boot of the system")
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
            retain: self.storage.options().snapshot.retain,
            data: match shard.backend() {
                DataBackend::Fjall => ReplicaData::Checkpointed(data),
                DataBackend::Memory => ReplicaData::Exported(data),
            },
            dir: shard.checkpoints().to_owned(),
            sink,
            tombstones: TombstonesSpec::default().retain.duration(),
        })
    }

    /// Removes everything of a replica that nobody wants any more; `false` while somebody has it open. Waits for
    /// the disk.
    pub(crate) fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> anyhow::Result<bool> {
        match self.storage.remove_shard(odgm_storage::log::GroupId(group.0), replica.0) {
            Ok(()) => Ok(true),
            Err(odgm_storage::Error::Locked { .. }) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("removing replica {replica} of group {group}")),
        }
    }

    /// The replicas on disk, open or not. Waits for the disk.
    pub(crate) fn replicas(&self) -> anyhow::Result<Vec<(GroupId, ReplicaId)>> {
        let found = self.storage.replicas().context("listing the replicas on disk")?;
        Ok(found.into_iter().map(|(group, replica)| (GroupId(group.0), ReplicaId(replica))).collect())
    }

    /// Looks at every layer. Waits for the disk.
    pub(crate) fn check(&self) -> Health {
        self.storage.check(self.opened.elapsed())
    }
}

/// Names the present boot of the operating system; where nothing does, each start counts as another one.
fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(|_| uuid::Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use odgm_storage::log::{EntryKind, LogEntry, LogPosition, wait_durable};

    const GROUP: odgm_storage::log::GroupId = odgm_storage::log::GroupId(7);

    fn config(dir: &std::path::Path, nodes: u32) -> NodeConfig {
        let mut config = NodeConfig::default();
        config.node.data_dir = dir.to_owned();
        config.cluster.expected_nodes = nodes;
        config.storage.log.sync = SyncPolicy::None;
        config
    }

    /// Writes an entry and ends as the machine does: without a close, and noted by an earlier boot.
    fn stop_with_the_machine(stores: &Stores) {
        Identity::open(&stores.disk, &stores.dir).unwrap();
        let shard = stores.storage.shard(GROUP, 1).unwrap();
        let position = LogPosition { term: 1, index: 1 };
        let entry = LogEntry { position, kind: EntryKind::Normal, payload: "x".into() };
        wait_durable(|durable| shard.log().append(vec![entry], durable)).unwrap();
        stores.storage.note_boot("an earlier one").unwrap();
    }

    fn last(stores: &Stores) -> Option<u64> {
        stores.log.group(GROUP).unwrap().state().last.map(|last| last.index)
    }

    #[test]
    fn a_member_that_lost_unsynced_writes_begins_as_a_new_node_and_keeps_the_old_files_aside() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 3);
        stop_with_the_machine(&Stores::open(&config).unwrap());
        let stores = Stores::open(&config).unwrap();
        assert_eq!(last(&stores), None);
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        assert!(dir.path().join("damaged/shards/7-1").is_dir());
        assert!(!dir.path().join("shards/7-1").exists());
        drop(stores);
        // Asked once: the new beginning stays.
        let stores = Stores::open(&config).unwrap();
        let identity = Identity::open(&stores.disk, &stores.dir).unwrap();
        drop(stores);
        drop(Stores::open(&config).unwrap());
        assert_eq!(Identity::read(dir.path()).unwrap(), Some(identity));
    }

    #[test]
    fn a_node_that_is_alone_goes_on_with_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 1);
        stop_with_the_machine(&Stores::open(&config).unwrap());
        let stores = Stores::open(&config).unwrap();
        assert_eq!(last(&stores), Some(1));
        assert!(Identity::read(dir.path()).unwrap().is_some());
    }

    #[test]
    fn the_end_of_a_process_loses_nothing_that_the_system_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 3);
        let stores = Stores::open(&config).unwrap();
        stop_with_the_machine(&stores);
        stores.storage.note_boot(&boot_id()).unwrap();
        drop(stores);
        assert_eq!(last(&Stores::open(&config).unwrap()), Some(1));
    }
}
