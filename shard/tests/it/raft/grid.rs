//! Nodes on the simulated network, in real time, and the replicas of one group on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use odgm_shard::object::{GroupId, NodeId, ObjectId, ObjectKey, ReplicaId, Value};
use odgm_shard::replication::ReplicaParts;
use odgm_shard::replication::raft::{RaftOptions, RaftRouter, RaftShard, ReplicaData};
use odgm_shard::replication::{Role, ShardState, ShardStatus};
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::state::{Command, Condition, Operation, Outcome};
use odgm_shard::{Error, Result};
use odgm_storage::data::DataOptions;
use odgm_storage::data::fjall::FjallEngine;
use odgm_storage::data::memory::MemoryData;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, LogOptions, MemoryLog, wait_durable};
use odgm_storage::snapshot::file::FileSnapshots;
use odgm_storage::snapshot::{RetainPolicy, SnapshotOptions};
use odgm_transport::link::{Incoming, LinkOptions, Links, PeerId};
use odgm_transport::sim::SimNetwork;
use odgm_transport::timer::TokioTimer;
use tempfile::TempDir;

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Shard = RaftShard<TokioRuntime>;

/// Where a replica keeps its things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Log and data in memory, kept over a restart of the replica.
    Memory,
    /// The append-only log and Fjall.
    Disk,
}

/// What outlives a crash of a replica.
struct Stores {
    dir: TempDir,
    log: Option<Arc<dyn AppendOnlyLogStorage>>,
    data: Option<ReplicaData>,
}

pub(crate) struct Node {
    pub(crate) links: Arc<Links>,
    pub(crate) shard: Arc<Shard>,
    stores: Stores,
    pub(crate) changes: Arc<Mutex<Vec<u64>>>,
}

pub(crate) struct Grid {
    pub(crate) network: Arc<SimNetwork>,
    timer: Arc<TokioTimer>,
    layers: Layers,
    options: RaftOptions,
    pub(crate) nodes: BTreeMap<u64, Node>,
    epochs: AtomicU64,
}

pub(crate) fn name(node: u64) -> String {
    format!("n{node}")
}

impl Grid {
    pub(crate) fn new(layers: Layers, options: RaftOptions) -> Self {
        let timer = Arc::new(TokioTimer::current().unwrap());
        let network = SimNetwork::new(7, timer.clone());
        Grid { network, timer, layers, options, nodes: BTreeMap::new(), epochs: AtomicU64::new(1) }
    }

    /// Replicas 1..=count, on nodes of the same numbers, founded and served by one of them.
    pub(crate) async fn founded(layers: Layers, count: u64, options: RaftOptions) -> Self {
        let mut grid = Grid::new(layers, options);
        for id in 1..=count {
            grid.start(id, id).await;
        }
        let members = (1..=count).map(|id| (ReplicaId(id), NodeId(id))).collect();
        grid.nodes[&1].shard.initialize(members).await.unwrap();
        grid.leader().await;
        grid
    }

    /// Starts an empty replica on a node.
    pub(crate) async fn start(&mut self, node: u64, replica: u64) {
        let dir = tempfile::tempdir().unwrap();
        self.start_with(node, replica, Stores { dir, log: None, data: None }).await;
    }

    async fn start_with(&mut self, node: u64, replica: u64, mut stores: Stores) {
        let session = self.network.session(&name(node));
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
        let options = LinkOptions::new("test", PeerId(node), name(node), epoch);
        let links = Links::open(session, self.timer.clone(), options).unwrap();
        let router = RaftRouter::<TokioRuntime>::new(links.clone());
        let receiving = router.clone();
        links.serve(Arc::new(move |incoming: Incoming| receiving.receive(incoming)));

        let path = |what: &str| -> PathBuf { stores.dir.path().join(what) };
        let disk = Arc::new(RealDisk);
        let (log_dir, data_dir, checkpoints) = (path("log"), path("data"), path("checkpoints"));
        let snapshots =
            FileSnapshots::open(disk.clone(), &path("snapshots"), SnapshotOptions::default()).unwrap();
        let layers = self.layers;
        let log = stores.log.get_or_insert_with(|| match layers {
            Layers::Memory => MemoryLog::new(1 << 20),
            Layers::Disk => {
                let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
                AppendLog::open(disk, &log_dir, options).unwrap()
            }
        });
        let data = stores.data.get_or_insert_with(|| match layers {
            Layers::Memory => ReplicaData::Exported(Arc::new(MemoryData::new(1 << 30))),
            Layers::Disk => {
                let engine = FjallEngine::new(&DataOptions::default()).unwrap();
                ReplicaData::Checkpointed(engine.open(&data_dir).unwrap())
            }
        });
        let changes = Arc::new(Mutex::new(Vec::new()));
        let told = changes.clone();
        let parts = ReplicaParts {
            group: GROUP,
            replica: ReplicaId(replica),
            log: log.group(odgm_storage::log::GroupId(GROUP.0)).unwrap(),
            snapshots,
            retain: RetainPolicy::Latest { count: 1 },
            data: data.clone(),
            dir: checkpoints,
            sink: Arc::new(move |changes| {
                told.lock().unwrap().extend(changes.iter().map(|change| change.revision));
            }),
            tombstones: Duration::ZERO,
        };
        let shard = RaftShard::start(parts, router, self.options.clone()).await.unwrap();
        self.nodes.insert(node, Node { links, shard, stores, changes });
    }

    /// Ends a node for the others, and stops what ran on it.
    async fn stop(&mut self, node: u64) -> Stores {
        self.network.crash(&name(node));
        let mut stopped = self.nodes.remove(&node).unwrap();
        tokio::time::timeout(PATIENCE, stopped.shard.close()).await.expect("a replica stops");
        stopped.links.close();
        drop(stopped.shard);
        if self.layers == Layers::Disk {
            if let Some(ReplicaData::Checkpointed(data)) = stopped.stores.data.take() {
                data.close().unwrap();
            }
            if let Some(log) = stopped.stores.log.take() {
                log.close().unwrap();
            }
        }
        stopped.stores
    }

    pub(crate) async fn crash(&mut self, node: u64) -> Down {
        let replica = self.nodes[&node].shard.replica().0;
        Down { node, replica, stores: self.stop(node).await }
    }

    pub(crate) async fn restart(&mut self, down: Down) {
        self.start_with(down.node, down.replica, down.stores).await;
    }

    /// The node that serves, once one does.
    pub(crate) async fn leader(&self) -> u64 {
        let among = self.nodes.keys().copied().collect();
        self.leader_among(&among).await
    }

    pub(crate) async fn leader_among(&self, nodes: &BTreeSet<u64>) -> u64 {
        let waiting = nodes.iter().map(|node| {
            let mut status = self.nodes[node].shard.status();
            Box::pin(async move {
                status.wait_for(|status| status.role == Role::Serving).await.unwrap();
                *node
            })
        });
        let first = futures_util::future::select_all(waiting);
        tokio::time::timeout(PATIENCE, first).await.expect("one replica serves").0
    }

    pub(crate) fn shard(&self, node: u64) -> &Arc<Shard> {
        &self.nodes[&node].shard
    }

    /// Waits until all replicas have applied what the given one has.
    pub(crate) async fn settled(&self, node: u64) {
        let index = self.shard(node).applied().unwrap().index;
        for other in self.nodes.values() {
            other.shard.wait_applied(index, PATIENCE).await.unwrap();
        }
    }
}

/// A replica that is down.
pub(crate) struct Down {
    node: u64,
    replica: u64,
    stores: Stores,
}

impl Down {
    /// Loses the entries of its log behind this one.
    pub(crate) fn lose_log_after(&self, index: u64) {
        let cut = |log: &dyn AppendOnlyLogStorage| {
            let group = log.group(odgm_storage::log::GroupId(GROUP.0)).unwrap();
            assert!(group.state().last.unwrap().index > index);
            wait_durable(|durable| group.truncate_after(Some(index), durable)).unwrap();
        };
        match &self.stores.log {
            Some(log) => cut(log.as_ref()),
            None => {
                let dir = self.stores.dir.path().join("log");
                let log = AppendLog::open(Arc::new(RealDisk), &dir, LogOptions::default()).unwrap();
                cut(log.as_ref());
                log.close().unwrap();
            }
        }
    }
}

pub(crate) fn status(shard: &Shard) -> ShardStatus {
    shard.status().borrow().clone()
}

pub(crate) fn key(object: &str) -> ObjectKey {
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry: None }
}

pub(crate) fn put(object: &str, payload: impl Into<Bytes>) -> Command {
    let value = Value { payload: payload.into(), ..Value::default() };
    let operation = Operation::Put { key: key(object), value, ttl_ms: None, condition: Condition::None };
    Command { rid: None, operation }
}

/// Writes, and follows whoever serves, until it is acknowledged.
pub(crate) async fn write(shard: &Shard, object: &str, payload: impl Into<Bytes>) -> Outcome {
    let payload = payload.into();
    let outcome: Result<Outcome, Error> = shard.write(put(object, payload)).await;
    outcome.unwrap()
}

pub(crate) fn read(shard: &Shard, object: &str) -> Option<Bytes> {
    shard.view().get(&key(object)).unwrap().map(|record| record.value.payload)
}
