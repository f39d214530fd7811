//! One replica of a simulated node: how it is started, and what runs of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use odgm_storage::disk::Disk;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage};
use odgm_storage::snapshot::file::FileSnapshots;
use odgm_storage::snapshot::{Compression, RetainPolicy, SnapshotOptions};
use odgm_transport::Session;
use openraft_rt::AsyncRuntime;
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::data::CrashingData;
use super::log::WatchedLog;
use super::node::Surroundings;
use super::runtime::SimulatedRuntime;
use super::state::WatchedState;
use super::watch::{Seen, Spot};
use crate::cluster::{ReplicaRecord, Replication, ShardRecord};
use crate::object::{GroupId, NodeId, Partition, ReplicaId};
use crate::replication::raft::{RaftShard, ReplicaData};
use crate::replication::{ChangeSink, Opened, ReplicaParts, Role, ShardFactory, ShardStatus, WriteOptions};
use crate::shard::{Budget, EventManager, Limits, ObjectShard, ShardParts};
use crate::state::Settings;
use crate::{Error, Result};

pub(crate) type Shard = RaftShard<SimulatedRuntime>;
pub(crate) type Factory = ShardFactory<SimulatedRuntime>;

/// How long a server works on a request: less than a client waits, so that silence means that nobody serves.
pub(crate) const SERVER_PATIENCE: Duration = Duration::from_millis(900);

/// How a simulated replica without a log writes.
pub(crate) fn write_options() -> WriteOptions {
    WriteOptions { deadline: Duration::from_millis(1_500), batch_commands: 16, ..WriteOptions::default() }
}

/// One replica that runs.
#[derive(Clone)]
pub(crate) struct Running {
    replica: Arc<Opened<SimulatedRuntime>>,
    /// Answers clients for as long as it is held.
    _object: Arc<ObjectShard<SimulatedRuntime>>,
    data: Arc<CrashingData>,
}

/// What replicas are equal in when they are: the last index applied, of a group with a log, and a hash.
pub(crate) type Standing = (Option<u64>, u64);

impl Running {
    /// Reads from within the process, if it believes that it serves: what is refused is fine.
    pub(crate) fn probe(&self) {
        if self.status().role == Role::Serving {
            let barrier = self.replica.state.read_barrier();
            drop(SimulatedRuntime::spawn(async move {
                let _ = barrier.await;
            }));
        }
    }

    pub(crate) fn status(&self) -> ShardStatus {
        self.replica.state.status().borrow().clone()
    }

    /// What only a replica with a log can do.
    pub(crate) fn raft(&self) -> Option<&Arc<Shard>> {
        self.replica.raft.as_ref()
    }

    /// What it holds; `None` when it cannot be read.
    pub(crate) fn standing(&self) -> Option<Standing> {
        match &self.replica.mst {
            Some(mst) => Some((None, xxh3_64(mst.digest().root.as_bytes()))),
            None => {
                let (hash, counters) = self.data.fingerprint().ok()?;
                Some((counters.applied.map(|applied| applied.index), hash))
            }
        }
    }
}

/// A replica that is being started.
pub(super) struct Starting {
    pub(super) at: Spot,
    pub(super) replica: u64,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: Arc<AppendLog>,
    pub(super) wake: Arc<Notify>,
    pub(super) factory: Arc<Factory>,
    pub(super) front: Arc<dyn Session>,
    pub(super) budget: Arc<Budget>,
    pub(super) around: Surroundings,
}

impl Starting {
    pub(super) async fn run(self, data: Arc<CrashingData>) -> Result<Running> {
        let Starting { at, replica, disk, log, wake, factory, front, budget, around } = self;
        let kind = around.plan.kind;
        let dir = PathBuf::from(format!("/group-{}", at.group));
        let options = SnapshotOptions { compression: Compression::None, ..SnapshotOptions::default() };
        let snapshots = FileSnapshots::open(disk, &dir.join("snapshots"), options)?;
        let inner = log.group(odgm_storage::log::GroupId(at.group))?;
        let watched =
            WatchedLog { at, inner, wake, watch: around.watch.clone(), snapshots: snapshots.clone() };
        match kind {
            Replication::Raft => watched.tell_start(replica)?,
            _ => around.watch.see(at, Seen::Opened),
        }
        let events = EventManager::new(true);
        let (watch, publish) = (around.watch.clone(), events.sink());
        let sink: ChangeSink = Arc::new(move |changes: Vec<_>| {
            watch.see(
                at,
                match kind {
                    Replication::Raft | Replication::None => Seen::Changed { changes: changes.clone() },
                    Replication::Mst | Replication::Eventual => Seen::Diverged { changes: changes.clone() },
                },
            );
            publish(changes);
        });
        let parts = ReplicaParts {
            group: GroupId(at.group),
            replica: ReplicaId(replica),
            log: Arc::new(watched),
            snapshots,
            retain: RetainPolicy::Latest { count: 1 },
            data: ReplicaData::Exported(data.clone()),
            dir,
            // Longer than any run.
            tombstones: Duration::from_secs(24 * 3600),
            sink,
        };
        let nodes = 1..=around.plan.nodes;
        // A group with a log is founded once, by the harness.
        let replicas = nodes.map(|id| ReplicaRecord { replica: ReplicaId(id), node: NodeId(id) }).collect();
        let shard = ShardRecord { group: GroupId(at.group), founders: Vec::new(), replicas };
        let mut opened = factory.open(kind, parts, shard).await?;
        if let Some(raft) = &opened.raft {
            let watch = around.watch.clone();
            opened.state = Arc::new(WatchedState { at, shard: raft.clone(), watch });
        }
        let object = ObjectShard::start(ShardParts {
            root: "odgm".to_owned(),
            collection: around.collection.clone(),
            partition: partition(at.group),
            partitions: u32::try_from(around.plan.shards)
                .map_err(|error| Error::Invalid(error.to_string()))?,
            incarnation: *b"the-incarnation!",
            limits: Limits { timeout: SERVER_PATIENCE, ..Limits::default() },
            budget,
            election_timeout: around.plan.raft.election_max,
            state: opened.state.clone(),
            events,
            settings: watch::Sender::new(Settings::default()).subscribe(),
            session: front,
        })?;
        Ok(Running { replica: Arc::new(opened), _object: object, data })
    }
}

/// The partition that a group serves.
pub(crate) fn partition(group: u64) -> Partition {
    Partition(u32::try_from(group.saturating_sub(1)).unwrap_or(u32::MAX))
}
