//! Founding: the one bootstrap node makes a cluster of all expected nodes, once.
//!
//! It waits until all expected nodes answer under different names and none has data; writes the
//! founding members down; tells each, which writes them down too; and every member founds the system
//! shard with the same first membership. Whoever stops in between goes on where it stood: a founding
//! member that meets another without the record hands it over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odgm_shard::cluster::{ClusterMap, NodeRecord};
use odgm_shard::object::{NodeId, ReplicaId};
use odgm_transport::link::{Class, Links, PeerId};
use uuid::Uuid;

use crate::config::NodeConfig;
use crate::enrolment::Enrolment;
use crate::identity::Membership;
use crate::messages::{self, Hello, NodeReply, NodeRequest};
use crate::node::Core;

const ASK: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(200);

/// Asks a peer.
///
/// # Errors
/// In words: no answer, or its refusal.
pub(crate) async fn ask(links: &Links, peer: PeerId, request: &NodeRequest) -> Result<NodeReply, String> {
    let answer = links.request(peer, Class::Control, messages::encode(request), ASK);
    let bytes = answer.await.map_err(|error| error.to_string())?;
    messages::decode(&bytes).ok_or_else(|| "an answer that this build does not understand".to_owned())
}

async fn hello(links: &Links, peer: PeerId) -> Option<Hello> {
    match ask(links, peer, &NodeRequest::Hello).await {
        Ok(NodeReply::Hello(hello)) => Some(hello),
        Ok(other) => {
            tracing::warn!(%peer, ?other, "a peer did not introduce itself");
            None
        }
        Err(error) => {
            tracing::debug!(%peer, error, "a peer does not answer yet");
            None
        }
    }
}

/// Who answers of the peers that are present.
pub(crate) async fn introductions(links: &Links) -> Vec<Hello> {
    let peers: Vec<PeerId> = links.peers().keys().copied().collect();
    let mut answers = Vec::with_capacity(peers.len());
    for peer in peers {
        answers.extend(hello(links, peer).await);
    }
    answers
}

fn founds(config: &NodeConfig) -> bool {
    config.cluster.bootstrap == config.node.name || config.is_alone()
}

/// Waits until this node is a member: founded here, or told by another.
pub(crate) async fn join(
    config: &NodeConfig,
    links: &Arc<Links>,
    enrolment: &Arc<Enrolment>,
) -> anyhow::Result<()> {
    let mut membership = enrolment.membership();
    if membership.borrow().is_some() {
        return Ok(());
    }
    if !founds(config) {
        tracing::info!(bootstrap = config.cluster.bootstrap, "waiting to be founded or added to a cluster");
        membership.wait_for(Option::is_some).await?;
        return Ok(());
    }
    let mut told = String::new();
    while membership.borrow().is_none() {
        let waiting = match found_once(config, links, enrolment).await {
            Ok(()) => break,
            Err(reason) => reason,
        };
        if waiting != told {
            tracing::info!(reason = waiting, "not founding the cluster yet");
            told = waiting;
        }
        let _ = tokio::time::timeout(AGAIN, membership.changed()).await;
    }
    Ok(())
}

async fn found_once(config: &NodeConfig, links: &Links, enrolment: &Arc<Enrolment>) -> Result<(), String> {
    let others = introductions(links).await;
    let members = founding_members(config, enrolment.node(), &others)?;
    let cluster = Uuid::new_v4();
    let enrolment = enrolment.clone();
    tokio::task::spawn_blocking(move || enrolment.found(cluster, &members))
        .await
        .map_err(|error| error.to_string())?
}

fn founding_members(config: &NodeConfig, me: NodeId, others: &[Hello]) -> Result<Vec<NodeRecord>, String> {
    if let Some(member) = others.iter().find(|other| other.cluster.is_some()) {
        return Err(format!(
            "{} belongs to a cluster already: this node has no data and waits to be added by `odgm node replace`",
            member.name
        ));
    }
    let mut by_name: BTreeMap<&str, (NodeId, &str)> = BTreeMap::new();
    by_name.insert(&config.node.name, (me, &config.node.zone));
    for other in others {
        if by_name.insert(&other.name, (other.node, &other.zone)).is_some() {
            return Err(format!("two nodes are named {}", other.name));
        }
    }
    let expected = config.cluster.expected_nodes as usize;
    if by_name.len() != expected {
        return Err(format!("{} of {expected} expected nodes answer", by_name.len()));
    }
    Ok((1..)
        .zip(by_name)
        .map(|(replica, (name, (id, zone)))| NodeRecord {
            id,
            name: name.to_owned(),
            zone: zone.to_owned(),
            system_replica: ReplicaId(replica),
        })
        .collect())
}

/// Completes with the name of a node that says that this one is a member no more. Whoever follows a leader
/// may have been removed all the same: the answer to a vote tells of a leader that never speaks to it.
pub(crate) async fn told_replaced(core: &Core) -> String {
    loop {
        let member = core.system().filter(|system| !system.serves()).is_some();
        if member
            && let Some(hello) =
                introductions(&core.links).await.into_iter().find(|hello| hello.you_were_replaced)
        {
            return hello.name;
        }
        tokio::time::sleep(if member { ASK } else { AGAIN }).await;
    }
}

/// Hands the founding record to founding members that have none yet, until all have one.
pub(crate) async fn hand_over(links: &Links, me: NodeId, membership: &Membership) {
    let mut missing: Vec<&NodeRecord> =
        membership.founders.iter().filter(|founder| founder.id != me).collect();
    let request = NodeRequest::Found { cluster: membership.cluster, members: membership.founders.clone() };
    while !missing.is_empty() {
        let mut still = Vec::new();
        for founder in missing {
            match ask(links, PeerId(founder.id.0), &request).await {
                Ok(NodeReply::Done) => {}
                Ok(NodeReply::Refused(reason)) => {
                    tracing::error!(node = founder.name, reason, "a founding member refuses to be one");
                }
                Ok(NodeReply::Hello(_)) | Err(_) => still.push(founder),
            }
        }
        missing = still;
        tokio::time::sleep(AGAIN * 5).await;
    }
}

/// Tells nodes that the records name, and that do not know it yet, that they are members. For the
/// node that serves the system shard; repeats change nothing.
pub(crate) async fn adopt(links: &Links, cluster: Uuid, map: &ClusterMap) {
    for hello in introductions(links).await.into_iter().filter(|hello| hello.cluster.is_none()) {
        let Some(node) = map.nodes.get(&hello.node) else { continue };
        let request = NodeRequest::Adopt { cluster, record: node.record.clone() };
        match ask(links, PeerId(hello.node.0), &request).await {
            Ok(NodeReply::Done) => tracing::info!(node = hello.name, "a new node joined"),
            other => tracing::warn!(node = hello.name, ?other, "a new node did not join yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(expected: u32) -> NodeConfig {
        let mut config = NodeConfig::default();
        config.cluster.expected_nodes = expected;
        config
    }

    fn other(id: u64, name: &str, cluster: Option<Uuid>) -> Hello {
        Hello { node: NodeId(id), name: name.into(), zone: String::new(), cluster, you_were_replaced: false }
    }

    #[test]
    fn a_cluster_is_founded_of_exactly_the_expected_nodes() {
        let members = |others: &[Hello]| founding_members(&config(3), NodeId(1), others);
        assert!(members(&[]).unwrap_err().contains("1 of 3"));
        assert!(members(&[other(2, "a", None)]).unwrap_err().contains("2 of 3"));
        let founded = members(&[other(2, "a", None), other(3, "b", None)]).unwrap();
        assert_eq!(founded.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b", "odgm-0"]);
        let four = [other(2, "a", None), other(3, "b", None), other(4, "c", None)];
        assert!(members(&four).unwrap_err().contains("4 of 3"));
    }

    #[test]
    fn a_node_without_data_founds_no_second_cluster() {
        let others = [other(2, "a", Some(Uuid::from_u128(9))), other(3, "b", None)];
        assert!(founding_members(&config(3), NodeId(1), &others).unwrap_err().contains("odgm node replace"));
    }

    #[test]
    fn two_nodes_of_one_name_found_nothing() {
        let others = [other(2, "a", None), other(3, "a", None)];
        assert!(founding_members(&config(3), NodeId(1), &others).unwrap_err().contains("named a"));
    }
}
