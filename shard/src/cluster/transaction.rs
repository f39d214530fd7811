//! The transactions that change the cluster's records, computed from one reading of them.
//!
//! Each checks the revision of every record that it was computed from: when somebody was faster, its
//! `then` does not run, and the caller reads and computes again.

use crate::cluster::collection::CollectionUpdate;
use crate::cluster::map::ClusterMap;
use crate::cluster::records::{self, Counters};
use crate::cluster::{CollectionRecord, CollectionSpec, NodeRecord, ReplicaRecord, ShardRecord, placement};
use crate::object::{CollectionName, NodeId, Partition};
use crate::state::{Check, Operation, Step};

/// Why a change of the cluster was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A later version will do it.
    #[error("{0}")]
    Unsupported(String),
    /// No collection of the name.
    #[error("no collection {0:?}")]
    NoCollection(String),
    /// What was named does not exist.
    #[error("{0} not found")]
    NotFound(String),
    /// What is to be made exists.
    #[error("{0} exists already")]
    Exists(String),
    /// A limit of the cluster is reached.
    #[error("{0}")]
    Quota(String),
    /// The cluster is not founded, or not known here yet.
    #[error("the cluster is not founded yet")]
    NotFounded,
}

impl From<crate::cluster::collection::SpecError> for Refused {
    fn from(error: crate::cluster::collection::SpecError) -> Self {
        use crate::cluster::collection::SpecError;
        match error {
            SpecError::Invalid(reason) => Refused::Invalid(reason),
            SpecError::Unsupported(_) => Refused::Unsupported(error.to_string()),
        }
    }
}

fn txn(checks: Vec<Check>, then: Vec<Step>) -> Operation {
    Operation::Txn { checks, then, otherwise: Vec::new() }
}

/// The first records of a cluster; runs once.
pub fn found(nodes: &[NodeRecord]) -> Operation {
    let checks = vec![records::unchanged(records::counters_key(), None)];
    let mut then = vec![records::put(records::counters_key(), &Counters::after_founding(nodes.len()))];
    then.extend(nodes.iter().map(|node| records::put(records::node_key(node.id), node)));
    txn(checks, then)
}

/// Creates a collection with its placement.
///
/// # Errors
/// When the description is wrong, the name is taken, or the nodes hold too many replicas.
pub fn create_collection(
    map: &ClusterMap,
    spec: &CollectionSpec,
    incarnation: [u8; 16],
    replicas_per_node: usize,
) -> Result<Operation, Refused> {
    let name = spec.validate()?;
    if map.collections.contains_key(&name) {
        return Err(Refused::Exists(format!("collection {name}")));
    }
    let counters = map.counters.as_ref().ok_or(Refused::NotFounded)?;
    let nodes = map.node_records();
    let replicas = spec.replicas_on(nodes.len())?;
    let mut next = counters.record;
    let shards: Vec<ShardRecord> = (0..spec.partitions)
        .map(|partition| {
            let placed: Vec<ReplicaRecord> = placement::place(&name, Partition(partition), &nodes, replicas)
                .into_iter()
                .map(|node| ReplicaRecord { replica: next.replica(), node })
                .collect();
            ShardRecord { group: next.group(), founders: placed.clone(), replicas: placed }
        })
        .collect();
    for node in &nodes {
        let more =
            shards.iter().flat_map(|shard| &shard.replicas).filter(|replica| replica.node == node.id).count();
        let held = map.replicas_on(node.id);
        if held + more > replicas_per_node {
            return Err(Refused::Quota(format!(
                "node {} would hold {} replicas, limits.replicas_per_node is {replicas_per_node}",
                node.name,
                held + more
            )));
        }
    }
    let incarnation = format!("{:032x}", u128::from_be_bytes(incarnation));
    let spec = CollectionSpec { replicas: Some(u32::try_from(replicas).unwrap_or(u32::MAX)), ..spec.clone() };
    let record = CollectionRecord { spec, incarnation, shards };
    Ok(txn(
        vec![
            records::unchanged(records::counters_key(), Some(counters.revision)),
            records::unchanged(records::collection_key(&name), None),
        ],
        vec![
            records::put(records::counters_key(), &next),
            records::put(records::collection_key(&name), &record),
        ],
    ))
}

/// Changes what can change of a collection.
///
/// # Errors
/// When there is none of the name, or the change is refused.
pub fn update_collection(
    map: &ClusterMap,
    name: &CollectionName,
    update: CollectionUpdate,
) -> Result<Operation, Refused> {
    let collection =
        map.collections.get(name).ok_or_else(|| Refused::NoCollection(name.as_str().to_owned()))?;
    let spec = update.apply(&collection.record.spec)?;
    let record = CollectionRecord { spec, ..collection.record.clone() };
    let key = records::collection_key(name);
    Ok(txn(
        vec![records::unchanged(key.clone(), Some(collection.revision))],
        vec![records::put(key, &record)],
    ))
}

/// Deletes a collection and everything in it.
///
/// # Errors
/// When there is none of the name.
pub fn delete_collection(map: &ClusterMap, name: &CollectionName) -> Result<Operation, Refused> {
    let collection =
        map.collections.get(name).ok_or_else(|| Refused::NoCollection(name.as_str().to_owned()))?;
    let key = records::collection_key(name);
    Ok(txn(vec![records::unchanged(key.clone(), Some(collection.revision))], vec![Step::Delete { key }]))
}

/// Replaces a node by a new one, into new replica ids; also gives the new node's record.
///
/// # Errors
/// When the old node is unknown, or the new one is a member already.
pub fn replace_node(
    map: &ClusterMap,
    old: &str,
    new: NodeId,
    new_name: &str,
    zone: &str,
) -> Result<(Operation, NodeRecord), Refused> {
    let counters = map.counters.as_ref().ok_or(Refused::NotFounded)?;
    let old = map.node_named(old).ok_or_else(|| Refused::NotFound(format!("node {old}")))?;
    if map.nodes.contains_key(&new) {
        return Err(Refused::Invalid(format!("node {new_name} is a member already")));
    }
    if map.nodes.values().any(|node| node.record.name == new_name && node.record.id != old.id) {
        return Err(Refused::Exists(format!("a node named {new_name}")));
    }
    let mut next = counters.record;
    let record = NodeRecord {
        id: new,
        name: new_name.to_owned(),
        zone: zone.to_owned(),
        system_replica: next.replica(),
    };
    let mut checks = vec![records::unchanged(records::counters_key(), Some(counters.revision))];
    let mut then = Vec::new();
    for (name, collection) in &map.collections {
        let mut moved = collection.record.clone();
        for replica in moved.shards.iter_mut().flat_map(|shard| &mut shard.replicas) {
            if replica.node == old.id {
                *replica = ReplicaRecord { replica: next.replica(), node: new };
            }
        }
        if moved != collection.record {
            checks.push(records::unchanged(records::collection_key(name), Some(collection.revision)));
            then.push(records::put(records::collection_key(name), &moved));
        }
    }
    then.push(records::put(records::counters_key(), &next));
    then.push(Step::Delete { key: records::node_key(old.id) });
    then.push(records::put(records::node_key(new), &record));
    Ok((txn(checks, then), record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::map::Revised;
    use crate::object::ReplicaId;
    use std::collections::BTreeSet;

    fn map(nodes: u64) -> ClusterMap {
        let counters = Revised { revision: 1, record: Counters::after_founding(nodes as usize) };
        let mut map = ClusterMap { counters: Some(counters), ..ClusterMap::default() };
        for n in 1..=nodes {
            let record = NodeRecord {
                id: NodeId(n * 1000),
                name: format!("n{n}"),
                zone: String::new(),
                system_replica: ReplicaId(n),
            };
            map.nodes.insert(record.id, Revised { revision: 1, record });
        }
        map
    }

    fn spec(name: &str, partitions: u32, replicas: u32) -> CollectionSpec {
        serde_json::from_value(
            serde_json::json!({"name": name, "partitions": partitions, "replicas": replicas}),
        )
        .unwrap()
    }

    fn apply(map: &mut ClusterMap, operation: Operation) {
        let Operation::Txn { then, .. } = operation else { panic!("a transaction") };
        map.revision += 1;
        for step in then {
            match step {
                Step::Put { key, value, .. } => {
                    let name = key.object.as_str().to_owned();
                    let revision = map.revision;
                    if name == "counters" {
                        let record = records::parse(&value.payload).unwrap();
                        map.counters = Some(Revised { revision, record });
                    } else if name.starts_with("node.") {
                        let record: NodeRecord = records::parse(&value.payload).unwrap();
                        map.nodes.insert(record.id, Revised { revision, record });
                    } else {
                        let record: CollectionRecord = records::parse(&value.payload).unwrap();
                        let name = CollectionName::parse(&record.spec.name).unwrap();
                        map.collections.insert(name, Revised { revision, record });
                    }
                }
                Step::Delete { key } => {
                    let id: u64 = key.object.as_str().trim_start_matches("node.").parse().unwrap();
                    map.nodes.remove(&NodeId(id));
                }
                Step::Increment { .. } => panic!("records are not counted"),
            }
        }
    }

    #[test]
    fn no_group_and_no_replica_is_given_twice() {
        let mut map = map(3);
        for name in ["a", "b"] {
            let create = create_collection(&map, &spec(name, 8, 3), [7; 16], 256).unwrap();
            apply(&mut map, create);
        }
        let (replace, _) = replace_node(&map, "n2", NodeId(9), "n2", "").unwrap();
        apply(&mut map, replace);
        let groups: Vec<_> = map.shards().map(|(_, _, _, shard)| shard.group).collect();
        assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), 16);
        let founders = map.shards().flat_map(|(_, _, _, shard)| shard.founders.clone());
        let replicas = map.shards().flat_map(|(_, _, _, shard)| shard.replicas.clone());
        let system = map.system_replicas();
        let all: BTreeSet<_> = founders.chain(replicas).chain(system).map(|record| record.replica).collect();
        assert_eq!(
            all.len(),
            16 * 3 + 16 + 3,
            "founders, their replacements, and the system replicas but the old one"
        );
    }

    #[test]
    fn a_replaced_node_keeps_no_replica() {
        let mut map = map(3);
        let create = create_collection(&map, &spec("a", 4, 3), [7; 16], 256).unwrap();
        apply(&mut map, create);
        let (replace, record) = replace_node(&map, "n2", NodeId(9), "other", "z").unwrap();
        apply(&mut map, replace);
        assert_eq!((map.replicas_on(NodeId(2000)), map.replicas_on(NodeId(9))), (0, 4));
        assert_eq!(map.node_named("other"), Some(&record));
        assert!(map.node_named("n2").is_none());
    }

    #[test]
    fn a_name_is_taken_once_and_a_node_is_filled_to_its_limit() {
        let mut map = map(1);
        let create = create_collection(&map, &spec("a", 4, 1), [7; 16], 6).unwrap();
        apply(&mut map, create);
        assert!(matches!(create_collection(&map, &spec("a", 1, 1), [7; 16], 6), Err(Refused::Exists(_))));
        assert!(matches!(create_collection(&map, &spec("b", 3, 1), [7; 16], 6), Err(Refused::Quota(_))));
        assert!(create_collection(&map, &spec("b", 2, 1), [7; 16], 6).is_ok());
    }
}
