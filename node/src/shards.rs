//! The data shards of this node: runs what the cluster's records want here, and no more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use odgm_shard::cluster::{ClusterMap, ReplicaRecord};
use odgm_shard::object::{CollectionName, GroupId, NodeId, Partition, ReplicaId};
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{Role, ShardState};
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::shard::{EventManager, ObjectShard, ShardParts};
use odgm_shard::state::Settings;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::node::Core;
use crate::shard_admin;
use crate::steering;

/// How long after a failure to open a shard it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A running replica.
pub(crate) struct Running {
    pub(crate) collection: CollectionName,
    pub(crate) partition: Partition,
    pub(crate) incarnation: String,
    pub(crate) record: ReplicaRecord,
    pub(crate) raft: Arc<RaftShard<TokioRuntime>>,
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
        self.raft.close().await;
    }
}

/// The running replicas.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    running: Mutex<BTreeMap<GroupId, Arc<Running>>>,
    /// Wanted here, and not running: with the reason.
    failing: Mutex<BTreeMap<GroupId, String>>,
}

impl Shards {
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
    loop {
        let present = map.borrow_and_update().clone();
        let complete = reconcile(&core, &present).await;
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
            let founders = if shard.founders.contains(replica) { shard.founders.clone() } else { Vec::new() };
            let wanting = Wanted {
                collection: name.clone(),
                partition,
                partitions: collection.spec.partitions,
                incarnation: collection.incarnation.clone(),
                incarnation_bytes: collection.incarnation_bytes(),
                settings: collection.spec.settings(),
                record: *replica,
                founders,
            };
            wanted.insert(shard.group, wanting);
        }
    }
    let mut complete = true;
    for (group, running) in core.shards.all() {
        let kept = wanted.get(&group).is_some_and(|wanting| wanting.record == running.record);
        if !kept {
            complete &= leave(core, map, group, &running).await;
        }
    }
    for (group, wanting) in wanted {
        if let Some(running) = core.shards.get(group) {
            running.settings.send_if_modified(|settings| {
                let differ = *settings != wanting.settings;
                settings.clone_from(&wanting.settings);
                differ
            });
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

/// Stops and removes a replica that the records do not want here. One that its group still counts on
/// stays until its group has let go of it; `false` then.
async fn leave(core: &Arc<Core>, map: &ClusterMap, group: GroupId, running: &Arc<Running>) -> bool {
    let exists = map.shards().any(|(_, _, _, shard)| shard.group == group);
    if exists {
        let status = running.raft.status().borrow().clone();
        let member = |(replica, _): &(ReplicaId, NodeId)| *replica == running.record.replica;
        if status.voters.iter().any(member) || status.learners.iter().any(member) {
            return false;
        }
    }
    core.shards.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    running.close().await;
    let (stores, replica) = (core.stores.clone(), running.record.replica);
    let removed = tokio::task::spawn_blocking(move || stores.remove_replica(group, replica)).await;
    match removed {
        Ok(Ok(())) => tracing::info!(%group, %replica, "removed a replica that nobody wants"),
        Ok(Err(error)) => tracing::error!(%group, error = format!("{error:#}"), "a replica can't be removed"),
        Err(error) => tracing::error!(%group, %error, "removing a replica failed"),
    }
    true
}

struct Wanted {
    collection: CollectionName,
    partition: Partition,
    partitions: u32,
    incarnation: String,
    incarnation_bytes: [u8; 16],
    settings: Settings,
    record: ReplicaRecord,
    founders: Vec<ReplicaRecord>,
}

async fn start(core: &Arc<Core>, group: GroupId, wanted: Wanted) -> anyhow::Result<Arc<Running>> {
    let events = EventManager::new(wanted.settings.history.is_some());
    let settings = watch::Sender::new(wanted.settings);
    let (stores, router, sink) = (core.stores.clone(), core.router.clone(), events.sink());
    let replica = wanted.record.replica;
    let parts = tokio::task::spawn_blocking(move || stores.replica(group, replica, sink, router))
        .await
        .context("opening the layers")??;
    let raft = RaftShard::start(parts, core.config.raft_options()).await.context("starting the replica")?;
    if !wanted.founders.is_empty() {
        let members = wanted.founders.iter().map(|founder| (founder.replica, founder.node)).collect();
        raft.initialize(members).await.context("founding the shard")?;
    }
    let object = ObjectShard::start(ShardParts {
        root: core.config.cluster.root.clone(),
        collection: wanted.collection.clone(),
        partition: wanted.partition,
        partitions: wanted.partitions,
        incarnation: wanted.incarnation_bytes,
        settings: settings.subscribe(),
        limits: core.limits.clone(),
        budget: core.budget.clone(),
        election_timeout: core.config.raft_options().election_max,
        state: raft.clone(),
        session: core.client.clone(),
        events,
    })
    .context("serving the shard")?;
    let stop = core.stop.child_token();
    let running = Arc::new(Running {
        collection: wanted.collection,
        partition: wanted.partition,
        incarnation: wanted.incarnation,
        record: wanted.record,
        raft,
        object,
        settings,
        stop: stop.clone(),
        tasks: Mutex::default(),
    });
    let steering = tokio::spawn(steering::steer(core.clone(), group, running.raft.clone(), stop.clone()));
    let admin = tokio::spawn(shard_admin::serve(core.clone(), running.clone(), stop));
    running.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend([steering, admin]);
    Ok(running)
}

/// Hands leadership of all shards that this node serves to others, as far as that goes.
pub(crate) async fn hand_over_leadership(core: &Core) {
    let mut rafts: Vec<Arc<RaftShard<TokioRuntime>>> =
        core.shards.all().into_iter().map(|(_, running)| running.raft.clone()).collect();
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
