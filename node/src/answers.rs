//! Answers what other nodes ask outside of their shards.

use std::sync::Arc;

use odgm_shard::cluster::ClusterMap;
use odgm_shard::object::NodeId;
use odgm_shard::replication::ShardState;
use odgm_transport::link::{Incoming, PeerId};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::collections;
use crate::messages::{self, Hello, NodeReply, NodeRequest};
use crate::node::Core;

/// Messages that wait to be answered; more are dropped, and their senders ask again.
pub(crate) const QUEUE: usize = 1024;

/// Answers until the node stops.
pub(crate) async fn answer(core: Arc<Core>, mut incoming: mpsc::Receiver<Incoming>) {
    let tracker = TaskTracker::new();
    loop {
        let message = tokio::select! {
            () = core.stop.cancelled() => break,
            message = incoming.recv() => message,
        };
        let Some(message) = message else { break };
        let Some(request) = messages::decode::<NodeRequest>(&message.payload) else {
            if let Some(reply) = message.reply {
                reply.refuse("a message that this build does not understand".into());
            }
            continue;
        };
        if let NodeRequest::Serving { groups } = &request {
            core.serving.heard(NodeId(message.from.0), groups, core.now());
            continue;
        }
        let core = core.clone();
        tracker.spawn(async move {
            let answer = one(&core, message.from, message.cluster, request).await;
            if let Some(reply) = message.reply {
                reply.send(messages::encode(&answer));
            }
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn one(core: &Arc<Core>, from: PeerId, cluster: Uuid, request: NodeRequest) -> NodeReply {
    match request {
        NodeRequest::Hello => NodeReply::Hello(introduction(core, from, cluster).await),
        NodeRequest::Found { cluster, members } => {
            let enrolment = core.enrolment.clone();
            enrolled(tokio::task::spawn_blocking(move || enrolment.found(cluster, &members)).await)
        }
        NodeRequest::Adopt { cluster, record } => {
            let enrolment = core.enrolment.clone();
            enrolled(tokio::task::spawn_blocking(move || enrolment.adopt(cluster, &record)).await)
        }
        NodeRequest::Ensure { collections } => match core.system() {
            Some(system) if system.serves() => {
                match collections::create_missing(core, &system, &collections).await {
                    Ok(()) => NodeReply::Done,
                    Err(error) => NodeReply::Refused(error.to_string()),
                }
            }
            _ => NodeReply::Refused("this node does not serve the system shard".into()),
        },
        NodeRequest::Serving { .. } => NodeReply::Done,
    }
}

fn enrolled(outcome: Result<Result<(), String>, tokio::task::JoinError>) -> NodeReply {
    match outcome {
        Ok(Ok(())) => NodeReply::Done,
        Ok(Err(reason)) => NodeReply::Refused(reason),
        Err(error) => NodeReply::Refused(error.to_string()),
    }
}

async fn introduction(core: &Core, from: PeerId, their_cluster: Uuid) -> Hello {
    let cluster = core.enrolment.cluster();
    let ours = cluster.is_some_and(|cluster| cluster == their_cluster);
    Hello {
        node: core.node,
        name: core.config.node.name.clone(),
        zone: core.config.node.zone.clone(),
        cluster,
        you_were_replaced: ours && is_no_member(core, NodeId(from.0)).await,
    }
}

/// Whether a node of our cluster was removed from it. Said by the leader of the system shard alone, once a
/// quorum has confirmed it: an older map may not know a new member yet.
async fn is_no_member(core: &Core, node: NodeId) -> bool {
    let Some(system) = core.system().filter(|system| system.serves()) else { return false };
    if system.map().borrow().nodes.contains_key(&node) || system.raft.read_barrier().await.is_err() {
        return false;
    }
    match ClusterMap::read(&system.raft.view()) {
        Ok(map) => map.counters.is_some() && !map.nodes.contains_key(&node),
        Err(error) => {
            tracing::error!(%error, "the cluster's records can't be read");
            false
        }
    }
}
