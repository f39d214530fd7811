//! Nodes on the simulated network, in real time, with replicas of shards of any kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odgm_shard::cluster::{ReplicaRecord, Replication, ShardRecord};
use odgm_shard::object::{CollectionName, GroupId, NodeId, Partition, ReplicaId};
use odgm_shard::replication::mst::{MST_MESSAGE, MstRouter, MstShard};
use odgm_shard::replication::raft::{RaftOptions, RaftRouter, ReplicaData};
use odgm_shard::replication::{Opened, ReplicaParts, Role, ShardFactory, ShardState, WriteOptions};
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::shard::{Budget, EventManager, Limits, ObjectShard, ShardParts};
use odgm_shard::state::{Change, Settings};
use odgm_storage::data::memory::MemoryData;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::{AppendOnlyLogStorage, MemoryLog};
use odgm_storage::snapshot::file::FileSnapshots;
use odgm_storage::snapshot::{RetainPolicy, SnapshotOptions};
use odgm_transport::Session;
use odgm_transport::link::{Incoming, LinkOptions, Links, PeerId};
use odgm_transport::sim::SimNetwork;
use odgm_transport::timer::{Timer, TokioTimer};
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const KINDS: [Replication; 4] =
    [Replication::Raft, Replication::Mst, Replication::Eventual, Replication::None];

/// What outlives a restart.
struct Stores {
    dir: TempDir,
    log: Arc<dyn AppendOnlyLogStorage>,
    data: ReplicaData,
}

pub(crate) struct Node {
    pub(crate) links: Arc<Links>,
    pub(crate) replica: Opened<TokioRuntime>,
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    events: Arc<EventManager>,
    stores: Stores,
}

impl Node {
    pub(crate) fn mst(&self) -> &Arc<MstShard<TokioRuntime>> {
        self.replica.mst.as_ref().unwrap()
    }
}

/// Opens the session of a node; the name is the node's.
type Sessions = Box<dyn Fn(&str) -> Arc<dyn Session>>;

pub(crate) struct Grid {
    pub(crate) network: Arc<SimNetwork>,
    sessions: Sessions,
    timer: Arc<TokioTimer>,
    kind: Replication,
    pub(crate) shard: ShardRecord,
    pub(crate) nodes: BTreeMap<u64, Node>,
    epochs: AtomicU64,
}

pub(crate) fn name(node: u64) -> String {
    format!("n{node}")
}

pub(crate) fn record(node: u64) -> ReplicaRecord {
    ReplicaRecord { replica: ReplicaId(node), node: NodeId(node) }
}

impl Grid {
    /// Replicas 1..=count on nodes of the same numbers; one serves.
    pub(crate) async fn start(kind: Replication, count: u64) -> Self {
        let timer = Arc::new(TokioTimer::current().unwrap());
        let network = SimNetwork::new(7, timer.clone() as Arc<dyn Timer>);
        let sim = network.clone();
        let sessions: Sessions = Box::new(move |name| sim.session(name) as Arc<dyn Session>);
        Self::start_over(kind, count, timer, network, sessions).await
    }

    /// As [`Grid::start`], over sessions of the caller's.
    pub(crate) async fn start_over(
        kind: Replication,
        count: u64,
        timer: Arc<TokioTimer>,
        network: Arc<SimNetwork>,
        sessions: Sessions,
    ) -> Self {
        let replicas: Vec<_> = (1..=count).map(record).collect();
        let shard = ShardRecord { group: GROUP, founders: replicas.clone(), replicas };
        let (nodes, epochs) = (BTreeMap::new(), AtomicU64::new(1));
        let mut grid = Grid { network, sessions, timer, kind, shard, nodes, epochs };
        for node in 1..=count {
            let stores = Stores {
                dir: tempfile::tempdir().unwrap(),
                log: MemoryLog::new(1 << 20),
                data: ReplicaData::Exported(Arc::new(MemoryData::new(1 << 30))),
            };
            grid.open(node, stores).await;
        }
        grid.serving().await;
        grid
    }

    async fn open(&mut self, node: u64, stores: Stores) {
        let session = (self.sessions)(&name(node));
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
        let options = LinkOptions::new("test", PeerId(node), name(node), epoch);
        let links = Links::open(session, self.timer.clone(), options).unwrap();
        let raft_router = RaftRouter::<TokioRuntime>::new(links.clone());
        let mst_router = MstRouter::new(links.clone());
        let (raft, mst) = (raft_router.clone(), mst_router.clone());
        links.serve(Arc::new(move |incoming: Incoming| match incoming.payload.first() {
            Some(&MST_MESSAGE) => mst.receive(incoming),
            _ => raft.receive(incoming),
        }));
        let factory = ShardFactory {
            node: NodeId(node),
            raft_router,
            mst_router,
            raft: RaftOptions::default(),
            writes: WriteOptions::default(),
        };
        let changes = Arc::new(Mutex::new(Vec::new()));
        let events = EventManager::new(true);
        let (told, published) = (changes.clone(), events.sink());
        let path = |what: &str| -> PathBuf { stores.dir.path().join(what) };
        let disk = Arc::new(RealDisk);
        let parts = ReplicaParts {
            group: GROUP,
            replica: ReplicaId(node),
            log: stores.log.group(odgm_storage::log::GroupId(GROUP.0)).unwrap(),
            snapshots: FileSnapshots::open(disk, &path("snapshots"), SnapshotOptions::default()).unwrap(),
            retain: RetainPolicy::Latest { count: 1 },
            tombstones: Duration::from_secs(24 * 3600),
            data: stores.data.clone(),
            dir: path("checkpoints"),
            sink: Arc::new(move |changes: Vec<Change>| {
                told.lock().unwrap().extend(changes.clone());
                published(changes);
            }),
        };
        let replica = factory.open(self.kind, parts, self.shard.clone()).await.unwrap();
        self.nodes.insert(node, Node { links, replica, changes, events, stores });
    }

    /// Ends a node for the others, and starts it again with what it kept.
    pub(crate) async fn restart(&mut self, node: u64) {
        self.network.crash(&name(node));
        let stopped = self.nodes.remove(&node).unwrap();
        tokio::time::timeout(PATIENCE, stopped.replica.state.close()).await.expect("a replica stops");
        stopped.links.close();
        let Node { stores, .. } = stopped;
        self.open(node, stores).await;
    }

    /// Answers clients for the replica of a node, on a session of the name `clients-` and the node's, and does its upkeep.
    pub(crate) fn answer(
        &self,
        node: u64,
        settings: watch::Receiver<Settings>,
    ) -> Arc<ObjectShard<TokioRuntime>> {
        let parts = ShardParts {
            root: "odgm".into(),
            collection: CollectionName::parse("users").unwrap(),
            partition: Partition(0),
            partitions: 1,
            incarnation: [node as u8; 16],
            settings,
            limits: Limits::default(),
            budget: Budget::new(64 << 20),
            election_timeout: Duration::from_millis(200),
            state: self.state(node),
            events: self.nodes[&node].events.clone(),
            session: (self.sessions)(&format!("clients-{}", name(node))),
        };
        ObjectShard::start(parts).unwrap()
    }

    pub(crate) fn state(&self, node: u64) -> Arc<dyn ShardState> {
        self.nodes[&node].replica.state.clone()
    }

    /// The node that serves, once one does.
    pub(crate) async fn serving(&self) -> u64 {
        self.serving_among(&self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    pub(crate) async fn serving_among(&self, nodes: &[u64]) -> u64 {
        let waiting = nodes.iter().map(|node| {
            let mut status = self.state(*node).status();
            Box::pin(async move {
                status.wait_for(|status| status.role == Role::Serving).await.unwrap();
                *node
            })
        });
        let first = futures_util::future::select_all(waiting);
        tokio::time::timeout(PATIENCE, first).await.expect("one replica serves").0
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Whether all replicas of a divergent shard hold the same.
    pub(crate) fn is_equal(&self) -> bool {
        let mut roots = self.nodes.values().map(|node| node.mst().digest().root);
        let first = roots.next();
        roots.all(|root| Some(root) == first)
    }
}
