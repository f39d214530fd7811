//! Placement: which nodes hold the replicas of a partition.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each node has a score for each partition, the
//! best take it. A node that joins or leaves moves only its own share. Zones come first: no zone
//! holds a second replica while another has none.

use std::collections::BTreeSet;

use crate::cluster::NodeRecord;
use crate::object::{CollectionName, NodeId, Partition};

fn score(collection: &CollectionName, partition: Partition, node: NodeId) -> u64 {
    let mut bytes = Vec::with_capacity(collection.as_str().len() + 12);
    bytes.extend_from_slice(collection.as_str().as_bytes());
    bytes.extend_from_slice(&partition.0.to_le_bytes());
    bytes.extend_from_slice(&node.0.to_le_bytes());
    // Two CRCs with different seeds are not uniform enough; a finalizer spreads them (splitmix64).
    let mut mixed = u64::from(crc32fast::hash(&bytes)) << 32
        | u64::from(crc32fast::hash(&[&bytes[..], b"odgm"].concat()));
    mixed ^= node.0;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The nodes of a partition, best first; as many as asked for, or all there are.
pub fn place(
    collection: &CollectionName,
    partition: Partition,
    nodes: &[NodeRecord],
    replicas: usize,
) -> Vec<NodeId> {
    let mut ranked: Vec<&NodeRecord> = nodes.iter().collect();
    ranked.sort_by_key(|node| std::cmp::Reverse((score(collection, partition, node.id), node.id)));
    let mut zones = BTreeSet::new();
    let (spread, rest): (Vec<&NodeRecord>, Vec<&NodeRecord>) =
        ranked.into_iter().partition(|node| node.zone.is_empty() || zones.insert(node.zone.as_str()));
    spread.into_iter().chain(rest).take(replicas).map(|node| node.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ReplicaId;

    fn nodes(count: u64, zone: impl Fn(u64) -> String) -> Vec<NodeRecord> {
        (0..count)
            .map(|n| NodeRecord {
                id: NodeId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                name: format!("n{n}"),
                zone: zone(n),
                system_replica: ReplicaId(n),
            })
            .collect()
    }

    fn users() -> CollectionName {
        CollectionName::parse("users").unwrap()
    }

    #[test]
    fn replicas_are_on_different_nodes() {
        let nodes = nodes(5, |_| String::new());
        for partition in 0..64 {
            let placed: BTreeSet<_> = place(&users(), Partition(partition), &nodes, 3).into_iter().collect();
            assert_eq!(placed.len(), 3);
        }
    }

    #[test]
    fn load_is_even_within_a_third() {
        let nodes = nodes(4, |_| String::new());
        let mut load = std::collections::BTreeMap::new();
        for partition in 0..1000 {
            for node in place(&users(), Partition(partition), &nodes, 1) {
                *load.entry(node).or_insert(0) += 1;
            }
        }
        assert!(load.values().all(|&count| (167..=333).contains(&count)), "{load:?}");
    }

    #[test]
    fn a_lost_node_moves_only_its_own_share() {
        let all = nodes(5, |_| String::new());
        let without: Vec<_> = all[1..].to_vec();
        for partition in 0..200 {
            let before = place(&users(), Partition(partition), &all, 1);
            if before[0] != all[0].id {
                assert_eq!(place(&users(), Partition(partition), &without, 1), before);
            }
        }
    }

    #[test]
    fn zones_come_before_scores() {
        let nodes = nodes(6, |n| format!("z{}", n % 3));
        for partition in 0..64 {
            let zones: BTreeSet<_> = place(&users(), Partition(partition), &nodes, 3)
                .into_iter()
                .map(|id| nodes.iter().find(|node| node.id == id).unwrap().zone.clone())
                .collect();
            assert_eq!(zones.len(), 3);
        }
    }
}
