//! What a node says about itself: readiness, and the status that `/status` shows.

use odgm_shard::cluster::ClusterMap;
use odgm_shard::object::{CollectionName, GroupId, Partition, ReplicaId};
use odgm_shard::replication::mst::MstShard;
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{Opened, Role, ShardState};
use odgm_shard::runtime::TokioRuntime;
use odgm_storage::composite::Status;
use serde_json::{Value, json};

use crate::node::Core;
use crate::shards::Running;
use crate::system::SYSTEM_GROUP;

/// One of the things that must be well for a node to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// One line for each reason why it is not well.
    pub failures: Vec<String>,
}

/// What the node looks at, in this order: member of a cluster, records known, every wanted replica running, and with
/// the vote that it is to have: before that another node's loss may cost the shard its majority.
pub(crate) fn checks(core: &Core) -> Vec<Check> {
    let one = |failure: Option<String>| failure.into_iter().collect();
    let mut checks = vec![
        Check {
            name: "process",
            failures: one(core.stop.is_cancelled().then(|| "the node stops".to_owned())),
        },
        Check {
            name: "log",
            failures: one(core.stores.log.poisoned().map(|error| format!("the log failed: {error}"))),
        },
    ];
    let Some(system) = core.system() else {
        let failures = vec!["the node belongs to no cluster yet".to_owned()];
        checks.push(Check { name: "cluster", failures });
        return checks;
    };
    let map = system.map().borrow().clone();
    let unknown = map.counters.is_none().then(|| "the cluster's records are not known yet".to_owned());
    checks.push(Check { name: "cluster", failures: one(unknown) });
    let missing = core.config.collection_specs();
    let exists = |name: &str| map.collections.keys().any(|collection| collection.as_str() == name);
    let missing = missing.iter().filter(|spec| !exists(&spec.name));
    let failures = missing.map(|spec| format!("collection {} is not created yet", spec.name)).collect();
    checks.push(Check { name: "collections", failures });
    checks.push(Check { name: "shards", failures: shard_failures(core, &map) });
    checks
}

/// Why a replica that is to vote does not do so yet.
fn without_vote(name: &str, partition: Partition, raft: &RaftShard<TokioRuntime>) -> Option<String> {
    let votes = raft.status().borrow().voters.iter().any(|(voter, _)| *voter == raft.replica());
    (!votes).then(|| format!("shard {name}/{partition} is being copied to this node: it has no vote yet"))
}

fn shard_failures(core: &Core, map: &ClusterMap) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(system) = core.system() {
        let wanted = map.system_replicas().iter().any(|wanted| wanted.replica == system.raft.replica());
        let lacking = || without_vote(CollectionName::system().as_str(), Partition(0), &system.raft);
        failures.extend(wanted.then(lacking).flatten());
    }
    for (name, _, partition, shard) in map.shards() {
        let wanted = shard.replicas.iter().any(|replica| replica.node == core.node);
        if wanted && core.shards.get(shard.group).is_none() {
            let why = core.shards.failing().remove(&shard.group).unwrap_or_else(|| "starting".to_owned());
            failures.push(format!("shard {name}/{partition} does not run: {why}"));
        }
        let running = core.shards.get(shard.group).filter(|_| wanted);
        let raft = running.as_ref().and_then(|running| running.replica.raft.as_ref());
        failures.extend(raft.and_then(|raft| without_vote(name.as_str(), partition, raft)));
    }
    // A shard of this node alone waits for nobody: it is not ready before clients are answered.
    for (name, _, partition, shard) in map.shards().filter(|(.., shard)| shard.replicas.len() == 1) {
        let running = core.shards.get(shard.group);
        if running.is_some_and(|running| running.replica.state.status().borrow().role != Role::Serving) {
            failures.push(format!("shard {name}/{partition} does not serve yet"));
        }
    }
    for (_, running) in core.shards.all() {
        if let Some(failure) = &running.replica.state.status().borrow().failure {
            failures.push(format!("shard {}/{} failed: {failure}", running.collection, running.partition));
        }
    }
    failures
}

/// Whether the node can serve.
///
/// # Errors
/// One line for each reason why not.
pub(crate) fn readiness(core: &Core) -> Result<(), Vec<String>> {
    let reasons: Vec<String> = checks(core).into_iter().flat_map(|check| check.failures).collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Whether somebody serves the system shard and every shard with a replica here.
pub(crate) fn served(core: &Core) -> bool {
    let served = |replica: &dyn ShardState| replica.status().borrow().serving.is_some();
    core.system().is_some_and(|system| served(&*system.raft))
        && core.shards.all().iter().all(|(_, running)| served(&*running.replica.state))
}

/// The groups that this node serves, with their terms.
pub(crate) fn serving_groups(core: &Core) -> Vec<(GroupId, u64)> {
    let mut groups = Vec::new();
    let mut consider = |group, replica: &dyn ShardState| {
        let status = replica.status();
        let status = status.borrow();
        if status.role == Role::Serving {
            groups.push((group, status.term));
        }
    };
    if let Some(system) = core.system() {
        consider(SYSTEM_GROUP, &*system.raft);
    }
    for (group, running) in core.shards.all() {
        consider(group, &*running.replica.state);
    }
    groups
}

/// The status of a replica of a data shard.
pub(crate) fn shard(core: &Core, group: GroupId, running: &Running) -> Value {
    let Opened { state, raft, mst } = &running.replica;
    let mut shown = replica(core, (group, running.record.replica), &**state, raft.as_deref());
    shown["collection"] = json!(running.collection.as_str());
    shown["partition"] = json!(running.partition.0);
    shown["incarnation"] = json!(running.incarnation);
    if let Some(mst) = mst {
        shown["digest"] = digest(mst);
    }
    shown
}

/// What a divergent replica holds and moved: equal roots are equal replicas.
fn digest(mst: &MstShard<TokioRuntime>) -> Value {
    let digest = mst.digest();
    let traffic = digest.traffic;
    json!({
        "root": digest.root,
        "items": digest.items,
        "tombstones": digest.tombstones,
        "held": digest.held,
        "exchanged": {
            "requests": traffic.requests, "pages": traffic.pages,
            "given": traffic.given, "received": traffic.received,
            "bytes_sent": traffic.bytes_sent, "bytes_received": traffic.bytes_received,
        },
    })
}

fn replica(
    core: &Core,
    (group, replica): (GroupId, ReplicaId),
    state: &dyn ShardState,
    raft: Option<&RaftShard<TokioRuntime>>,
) -> Value {
    let status = state.status().borrow().clone();
    let map = core.system().map(|system| system.map().borrow().clone()).unwrap_or_default();
    let members = |members: &[(ReplicaId, odgm_shard::object::NodeId)]| -> Value {
        members
            .iter()
            .map(|(replica, node)| json!({"replica": replica, "node": map.name_of(*node)}))
            .collect()
    };
    let progress = raft.map(RaftShard::progress).unwrap_or_default();
    let lag: Value = progress
        .iter()
        .map(|other| json!({"replica": other.replica, "matched": other.matched, "lag": other.lag}))
        .collect();
    json!({
        "group": group,
        "replica": replica,
        "role": format!("{:?}", status.role).to_lowercase(),
        "serving": status.serving.map(|node| map.name_of(node)),
        "term": status.term,
        "revision": state.view().revision(),
        "applied": status.applied.map(|position| position.index),
        "log": {"last": status.last_log_index, "purged": status.purged_log_index, "snapshot": status.snapshot_index},
        "voters": members(&status.voters),
        "learners": members(&status.learners),
        "progress": lag,
        "failure": status.failure,
    })
}

fn state(status: &Status) -> &'static str {
    match status {
        Status::Healthy => "healthy",
        Status::Degraded { .. } => "degraded",
        Status::Unhealthy { .. } => "unhealthy",
    }
}

fn layer(status: &Status) -> Value {
    match status {
        Status::Healthy => json!({"state": state(status), "error": null}),
        Status::Degraded { reason } => json!({"state": state(status), "error": null, "reason": reason}),
        Status::Unhealthy { error } => json!({"state": state(status), "error": error}),
    }
}

/// The node, its shards and its layers.
pub(crate) fn status(core: &Core) -> Value {
    let mut shards = Vec::new();
    if let Some(system) = core.system() {
        let raft = &*system.raft;
        let mut shard = replica(core, (SYSTEM_GROUP, raft.replica()), raft, Some(raft));
        shard["collection"] = json!("@system");
        shard["partition"] = json!(0);
        shards.push(shard);
    }
    shards.extend(core.shards.all().iter().map(|(group, running)| shard(core, *group, running)));
    let reasons = readiness(core).err().unwrap_or_default();
    let health = core.stores.storage.health();
    let mut log = layer(&health.log);
    log["bytes"] = json!(core.stores.log.disk_bytes());
    let health = json!({
        "state": state(health.overall()),
        "log": log,
        "snapshot": layer(&health.snapshot),
        "data": layer(&health.data),
        "shards": core.shards.failing().iter().map(|(group, why)| json!({"group": group, "error": why})).collect::<Vec<_>>(),
    });
    json!({
        "node": {
            "name": core.config.node.name, "id": core.node, "zone": core.config.node.zone,
            "version": env!("CARGO_PKG_VERSION"), "uptime_ms": core.now().as_millis() as u64,
        },
        "cluster": {
            "name": core.config.cluster.name,
            "id": core.enrolment.cluster(),
            "peers": core.links.peers().values().collect::<Vec<_>>(),
        },
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "shards": shards,
        "health": health,
    })
}
