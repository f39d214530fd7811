//! The data shards of this node: runs what the cluster's records want here, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use odgm_shard::cluster::{ClusterMap, ReplicaRecord, Replication, ShardRecord};
use odgm_shard::object::{CollectionName, GroupId, NodeId, Partition, ReplicaId};
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{Opened, ReplicaParts, Role, ShardState};
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::shard::{EventManager, ObjectShard, ShardParts};
use odgm_shard::state::Settings;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::node::Core;
use crate::shard_admin;
use crate::steering;

/// How long after a failure to open a shard it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A running replica.
pub(crate) struct Running {
    pub(crate) group: GroupId,
    pub(crate) collection: CollectionName,
    pub(crate) partition: Partition,
    pub(crate) incarnation: String,
    pub(crate) record: ReplicaRecord,
    pub(crate) replica: Opened<TokioRuntime>,
    object: Arc<ObjectShard<TokioRuntime>>,
    settings: watch::Sender<Settings>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({}/{})", self.collection, self.partition)
    }
}

impl Running {
    async fn close(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
        self.object.close().await;
        self.replica.state.close().await;
    }
}

/// The running replicas.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    running: Mutex<BTreeMap<GroupId, Arc<Running>>>,
    /// Wanted here, and not running: with the reason.
    failing: Mutex<BTreeMap<GroupId, String>>,
    /// On disk, and wanted by nobody: removed once nobody holds their layers.
    left: Mutex<BTreeSet<(GroupId, ReplicaId)>>,
}

impl Shards {
    fn left(&self) -> MutexGuard<'_, BTreeSet<(GroupId, ReplicaId)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All running replicas.
    pub(crate) fn all(&self) -> Vec<(GroupId, Arc<Running>)> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|(group, shard)| (*group, shard.clone())).collect()
    }

    /// One running replica.
    pub(crate) fn get(&self, group: GroupId) -> Option<Arc<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// What is wanted here and can't run, with the reason.
    pub(crate) fn failing(&self) -> BTreeMap<GroupId, String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes all of them.
    pub(crate) async fn close(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for shard in running.values() {
            shard.close().await;
        }
    }
}

/// Follows the records until the node stops.
pub(crate) async fn follow(core: Arc<Core>) {
    let Some(system) = core.system() else { return };
    let mut map = system.map();
    let mut disk_is_known = false;
    loop {
        let present = map.borrow_and_update().clone();
        if !disk_is_known {
            disk_is_known = find_left(&core, &present).await;
        }
        let complete = reconcile(&core, &present).await && disk_is_known;
        let pause = if complete { Duration::from_secs(3600) } else { AGAIN };
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = map.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Starts and stops replicas; says whether all that is wanted runs and nothing else.
async fn reconcile(core: &Arc<Core>, map: &ClusterMap) -> bool {
    let mut wanted: BTreeMap<GroupId, Wanted> = BTreeMap::new();
    for (name, collection, partition, shard) in map.shards() {
        if let Some(replica) = shard.replicas.iter().find(|replica| replica.node == core.node) {
            let wanting = Wanted {
                collection: name.clone(),
                partition,
                partitions: collection.spec.partitions,
                replication: collection.spec.replication,
                incarnation: collection.incarnation.clone(),
                incarnation_bytes: collection.incarnation_bytes(),
                settings: collection.spec.settings(),
                tombstones: collection.spec.tombstones().unwrap_or_default().retain.duration(),
                record: *replica,
                shard: shard.clone(),
            };
            wanted.insert(shard.group, wanting);
        }
    }
    let mut complete = true;
    for (group, running) in core.shards.all() {
        match wanted.get(&group).filter(|wanting| wanting.record == running.record) {
            Some(wanting) => {
                if let Some(mst) = &running.replica.mst {
                    mst.place(wanting.shard.replicas.clone());
                    mst.remember(wanting.tombstones);
                }
            }
            None => complete &= leave(core, map, group, running).await,
        }
    }
    complete &= remove_left(core).await;
    core.shards
        .failing
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|group, _| wanted.contains_key(group));
    for (group, wanting) in wanted {
        if let Some(running) = core.shards.get(group) {
            running.settings.send_if_modified(|settings| {
                let differ = *settings != wanting.settings;
                settings.clone_from(&wanting.settings);
                differ
            });
            continue;
        }
        // A group has one log on a node: the replica before this one takes it along.
        if core.shards.left().iter().any(|(left, _)| *left == group) {
            continue;
        }
        match start(core, group, wanting).await {
            Ok(running) => {
                core.shards.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
                core.shards.running.lock().unwrap_or_else(PoisonError::into_inner).insert(group, running);
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(%group, reason, "a shard can't start");
                core.shards.failing.lock().unwrap_or_else(PoisonError::into_inner).insert(group, reason);
                complete = false;
            }
        }
    }
    complete
}

/// Stops a replica that the records do not want here, and leaves it to be removed. One that its group still
/// counts on stays until its group has let go of it; `false` then.
async fn leave(core: &Core, map: &ClusterMap, group: GroupId, running: Arc<Running>) -> bool {
    if let Some((.., shard)) = map.shards().find(|(.., shard)| shard.group == group)
        && !is_let_go(shard, &running).await
    {
        return false;
    }
    core.shards.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    running.close().await;
    core.shards.left().insert((group, running.record.replica));
    true
}

/// Removes what was left from log and disk; `false` when something of it must be tried again.
async fn remove_left(core: &Core) -> bool {
    let mut complete = true;
    let left = core.shards.left().clone();
    for (group, replica) in left {
        let stores = core.stores.clone();
        let removed = tokio::task::spawn_blocking(move || stores.remove_replica(group, replica)).await;
        match removed {
            Ok(Ok(true)) => {
                tracing::info!(%group, %replica, "removed a replica that nobody wants");
                core.shards.left().remove(&(group, replica));
            }
            // Whoever answers from it still has it for a moment.
            Ok(Ok(false)) => complete = false,
            Ok(Err(error)) => {
                tracing::error!(%group, error = format!("{error:#}"), "a replica can't be removed");
                complete = false;
            }
            Err(error) => {
                tracing::error!(%group, %error, "removing a replica failed");
                complete = false;
            }
        }
    }
    complete
}

/// Finds what an earlier run left: replicas of groups that were given once and are in no record any more. A
/// group is never given twice, so none of them can be wanted again, however old these records are. `false`
/// when the records are not known yet, or the disk did not answer.
async fn find_left(core: &Core, map: &ClusterMap) -> bool {
    let Some(counters) = &map.counters else { return false };
    let wanted: BTreeSet<GroupId> = map.shards().map(|(.., shard)| shard.group).collect();
    let given = GroupId(1)..GroupId(counters.record.next_group);
    let stores = core.stores.clone();
    match tokio::task::spawn_blocking(move || stores.replicas()).await {
        Ok(Ok(replicas)) => {
            let left =
                replicas.into_iter().filter(|(group, _)| given.contains(group) && !wanted.contains(group));
            core.shards.left().extend(left);
            true
        }
        Ok(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "the replicas on disk can't be listed");
            false
        }
        Err(error) => {
            tracing::error!(%error, "listing the replicas on disk failed");
            false
        }
    }
}

/// Whether a replica's shard can do without it: a Raft group no longer counts on it, or the others have what a
/// divergent replica wrote.
async fn is_let_go(shard: &ShardRecord, running: &Running) -> bool {
    let replica = &running.replica;
    if replica.raft.is_some() {
        let status = replica.state.status().borrow().clone();
        let member = |(replica, _): &(ReplicaId, NodeId)| *replica == running.record.replica;
        return !status.voters.iter().chain(&status.learners).any(member);
    }
    let Some(mst) = &replica.mst else { return true };
    mst.place(shard.replicas.clone());
    match mst.hand_over().await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(group = %shard.group, %error, "a leaving replica could not hand over its writes yet");
            false
        }
    }
}

struct Wanted {
    collection: CollectionName,
    partition: Partition,
    partitions: u32,
    incarnation: String,
    incarnation_bytes: [u8; 16],
    replication: Replication,
    settings: Settings,
    tombstones: Duration,
    record: ReplicaRecord,
    shard: ShardRecord,
}

impl Wanted {
    /// What the attachments name: where replicas count their changes alone, each has an incarnation of its own.
    fn incarnation(&self) -> [u8; 16] {
        match self.replication {
            Replication::Raft => self.incarnation_bytes,
            Replication::Mst | Replication::Eventual | Replication::None => {
                let collection = Uuid::from_bytes(self.incarnation_bytes);
                *Uuid::new_v5(&collection, &self.record.replica.0.to_be_bytes()).as_bytes()
            }
        }
    }
}

async fn start(core: &Arc<Core>, group: GroupId, wanted: Wanted) -> anyhow::Result<Arc<Running>> {
    let events = EventManager::new(wanted.settings.history.is_some());
    let (stores, sink) = (core.stores.clone(), events.sink());
    let replica = wanted.record.replica;
    let parts = tokio::task::spawn_blocking(move || stores.replica(group, replica, sink))
        .await
        .context("opening the layers")??;
    let parts = ReplicaParts { tombstones: wanted.tombstones, ..parts };
    let opening = core.factory.open(wanted.replication, parts, wanted.shard.clone());
    let replica = opening.await.context("starting the replica")?;
    let settings = watch::Sender::new(wanted.settings.clone());
    let object = ObjectShard::start(ShardParts {
        root: core.config.cluster.root.clone(),
        collection: wanted.collection.clone(),
        partition: wanted.partition,
        partitions: wanted.partitions,
        incarnation: wanted.incarnation(),
        settings: settings.subscribe(),
        limits: core.limits.clone(),
        budget: core.budget.clone(),
        election_timeout: core.config.raft_options().election_max,
        state: replica.state.clone(),
        session: core.client.clone(),
        events,
    })
    .context("serving the shard")?;
    let stop = core.stop.child_token();
    let running = Arc::new(Running {
        group,
        collection: wanted.collection,
        partition: wanted.partition,
        incarnation: wanted.incarnation,
        record: wanted.record,
        replica,
        object,
        settings,
        stop: stop.clone(),
        tasks: Mutex::default(),
    });
    let mut tasks = vec![tokio::spawn(shard_admin::serve(core.clone(), running.clone(), stop.clone()))];
    if let Some(raft) = running.replica.raft.clone() {
        tasks.push(tokio::spawn(steering::steer(core.clone(), group, raft, stop)));
    }
    running.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    Ok(running)
}

/// Hands leadership of all shards that this node serves to others, as far as that goes.
pub(crate) async fn hand_over_leadership(core: &Core) {
    let mut rafts: Vec<Arc<RaftShard<TokioRuntime>>> =
        core.shards.all().into_iter().filter_map(|(_, running)| running.replica.raft.clone()).collect();
    rafts.extend(core.system().map(|system| system.raft.clone()));
    let mut tasks = tokio::task::JoinSet::new();
    for raft in rafts {
        tasks.spawn(async move { hand_over(&raft).await });
    }
    while tasks.join_next().await.is_some() {}
}

async fn hand_over(raft: &RaftShard<TokioRuntime>) {
    let status = raft.status().borrow().clone();
    if status.role != Role::Serving {
        return;
    }
    let progress = raft.progress();
    let lag = |replica: ReplicaId| {
        progress.iter().find(|other| other.replica == replica).map_or(u64::MAX, |p| p.lag)
    };
    let best = status
        .voters
        .iter()
        .map(|(replica, _)| *replica)
        .filter(|replica| *replica != raft.replica())
        .min_by_key(|replica| lag(*replica));
    if let Some(to) = best
        && let Err(error) = raft.transfer_leader(to).await
    {
        tracing::warn!(group = %raft.group(), %error, "leadership could not be handed over");
    }
}
