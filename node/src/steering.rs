//! Steers the membership of each shard that this node serves towards what the records want, one step
//! at a time; and campaigns at once when the serving node is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use odgm_shard::cluster::membership::{MembershipStep, next_step};
use odgm_shard::cluster::{ClusterMap, ReplicaRecord};
use odgm_shard::object::GroupId;
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{Role, ShardState, ShardStatus};
use odgm_shard::runtime::TokioRuntime;
use tokio_util::sync::CancellationToken;

use crate::node::Core;
use crate::system::SYSTEM_GROUP;

const PACE: Duration = Duration::from_millis(500);
/// A learner gets its vote when it lacks no more entries than this.
const CAUGHT_UP: u64 = 256;

fn wanted(map: &ClusterMap, group: GroupId) -> Vec<ReplicaRecord> {
    if group == SYSTEM_GROUP {
        return map.system_replicas();
    }
    map.shards()
        .find(|(_, _, _, shard)| shard.group == group)
        .map_or_else(Vec::new, |(_, _, _, shard)| shard.replicas.clone())
}

fn records(members: &[(odgm_shard::object::ReplicaId, odgm_shard::object::NodeId)]) -> Vec<ReplicaRecord> {
    members.iter().map(|(replica, node)| ReplicaRecord { replica: *replica, node: *node }).collect()
}

/// Steers one shard until it is told to stop.
pub(crate) async fn steer(
    core: Arc<Core>,
    group: GroupId,
    raft: Arc<RaftShard<TokioRuntime>>,
    stop: CancellationToken,
) {
    let Some(system) = core.system() else { return };
    let mut map = system.map();
    let mut peers = core.links.watch();
    loop {
        let status = raft.status().borrow().clone();
        if status.role == Role::Serving {
            let present = map.borrow_and_update().clone();
            if let Err(error) = step(&raft, &present, group, &status).await {
                tracing::warn!(%group, %error, "a change of membership did not happen, trying again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
            changed = peers.changed() => {
                if changed.is_err() { return }
                campaign_when_orphaned(&core, &raft).await;
            }
        }
    }
}

async fn step(
    raft: &RaftShard<TokioRuntime>,
    map: &ClusterMap,
    group: GroupId,
    status: &ShardStatus,
) -> odgm_shard::Result<()> {
    let (voters, learners) = (records(&status.voters), records(&status.learners));
    match next_step(&wanted(map, group), &voters, &learners) {
        None => Ok(()),
        Some(MembershipStep::AddLearner(replica)) => {
            tracing::info!(%group, replica = %replica.replica, node = %replica.node, "adding a replica");
            raft.add_learner(replica.replica, replica.node).await
        }
        Some(MembershipStep::Voters(replicas)) => {
            let present: BTreeSet<_> = voters.iter().map(|voter| voter.replica).collect();
            let wanted: BTreeSet<_> = replicas.iter().map(|replica| replica.replica).collect();
            let add: BTreeSet<_> = wanted.difference(&present).copied().collect();
            let behind = |replica| {
                let progress = raft.progress();
                progress
                    .iter()
                    .find(|p| p.replica == replica)
                    .is_none_or(|p| p.matched.is_none() || p.lag > CAUGHT_UP)
            };
            if add.iter().copied().any(behind) {
                return Ok(());
            }
            let remove: BTreeSet<_> = present.difference(&wanted).copied().collect();
            tracing::info!(%group, ?add, ?remove, "changing the voters");
            raft.change_membership(add, remove).await
        }
        Some(MembershipStep::RemoveLearner(replica)) => {
            tracing::info!(%group, replica = %replica.replica, "removing a replica");
            raft.remove_learner(replica.replica).await
        }
    }
}

/// The node that served is gone from the cluster's session: no need to wait out the random part of
/// the election timeout. The lease and the pre-vote still hold.
async fn campaign_when_orphaned(core: &Core, raft: &RaftShard<TokioRuntime>) {
    let status = raft.status().borrow().clone();
    let Some(serving) = status.serving else { return };
    let gone = serving != core.node && !core.links.peers().keys().any(|peer| peer.0 == serving.0);
    if gone && let Err(error) = raft.campaign().await {
        tracing::debug!(group = %raft.group(), %error, "no early election");
    }
}
