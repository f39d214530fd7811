//! Answers what other nodes ask outside of their shards.

use std::sync::Arc;

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
        NodeRequest::Hello => NodeReply::Hello(introduction(core, from, cluster)),
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

fn introduction(core: &Core, from: PeerId, their_cluster: Uuid) -> Hello {
    let cluster = core.enrolment.cluster();
    // Only who hears from the system shard's leader can say that somebody is no member any more.
    let you_were_replaced = core.system().is_some_and(|system| {
        let current = system.raft.status().borrow().serving.is_some();
        let map = system.map().borrow().clone();
        let ours = cluster.is_some_and(|cluster| cluster == their_cluster);
        ours && current && map.counters.is_some() && !map.nodes.contains_key(&NodeId(from.0))
    });
    Hello {
        node: core.node,
        name: core.config.node.name.clone(),
        zone: core.config.node.zone.clone(),
        cluster,
        you_were_replaced,
    }
}
