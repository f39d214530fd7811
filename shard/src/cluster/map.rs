//! The cluster as the system shard's records describe it at one revision.

use std::collections::BTreeMap;

use crate::Result;
use crate::cluster::answers::Answers;
use crate::cluster::records::{self, Counters};
use crate::cluster::{CollectionRecord, NodeRecord, ReplicaRecord, ShardRecord};
use crate::object::{CollectionName, NodeId, Partition};
use crate::state::{ObjectView, Selection};

/// A record with the revision it was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revised<T> {
    /// The record's revision.
    pub revision: u64,
    /// The record.
    pub record: T,
}

/// All records of the system shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterMap {
    /// The system shard's revision.
    pub revision: u64,
    /// The next ids; `None` before the cluster is founded.
    pub counters: Option<Revised<Counters>>,
    /// The nodes, by id.
    pub nodes: BTreeMap<NodeId, Revised<NodeRecord>>,
    /// The collections, by name.
    pub collections: BTreeMap<CollectionName, Revised<CollectionRecord>>,
    /// What administration answered lately, if anything with a request id.
    pub answers: Option<Revised<Answers>>,
}

impl ClusterMap {
    /// Reads all records from one view.
    ///
    /// # Errors
    /// When the view fails, or holds a record that this build does not understand.
    pub fn read(view: &ObjectView) -> Result<Self> {
        let mut map = ClusterMap { revision: view.revision(), ..ClusterMap::default() };
        for item in view.list(&Selection::all(), None) {
            let (key, row) = item?;
            let name = key.object.as_str();
            let unknown =
                || crate::Error::Internal(format!("the system shard holds an unknown record {name:?}"));
            let payload = &row.value.payload;
            let revision = row.revision;
            if name == "counters" {
                let record = records::parse(payload).ok_or_else(unknown)?;
                map.counters = Some(Revised { revision, record });
            } else if name == "answers" {
                let record = records::parse(payload).ok_or_else(unknown)?;
                map.answers = Some(Revised { revision, record });
            } else if name.starts_with("node.") {
                let record: NodeRecord = records::parse(payload).ok_or_else(unknown)?;
                map.nodes.insert(record.id, Revised { revision, record });
            } else if let Some(collection) = name.strip_prefix("collection.") {
                let collection = CollectionName::parse(collection).map_err(|_| unknown())?;
                let record: CollectionRecord = records::parse(payload).ok_or_else(unknown)?;
                map.collections.insert(collection, Revised { revision, record });
            } else {
                return Err(unknown());
            }
        }
        Ok(map)
    }

    /// All node records.
    pub fn node_records(&self) -> Vec<NodeRecord> {
        self.nodes.values().map(|node| node.record.clone()).collect()
    }

    /// The node of a name.
    pub fn node_named(&self, name: &str) -> Option<&NodeRecord> {
        self.nodes.values().map(|node| &node.record).find(|node| node.name == name)
    }

    /// The name of a node; its id when it has no record any more.
    pub fn name_of(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.record.name.clone())
    }

    /// Every shard with its collection and partition.
    pub fn shards(
        &self,
    ) -> impl Iterator<Item = (&CollectionName, &CollectionRecord, Partition, &ShardRecord)> {
        self.collections.iter().flat_map(|(name, collection)| {
            let record = &collection.record;
            (0u32..)
                .zip(&record.shards)
                .map(move |(partition, shard)| (name, record, Partition(partition), shard))
        })
    }

    /// How many replicas a node is to hold.
    pub fn replicas_on(&self, node: NodeId) -> usize {
        self.shards()
            .flat_map(|(_, _, _, shard)| &shard.replicas)
            .filter(|replica| replica.node == node)
            .count()
    }

    /// The replicas of the system shard: one on each node.
    pub fn system_replicas(&self) -> Vec<ReplicaRecord> {
        self.nodes
            .values()
            .map(|node| ReplicaRecord { replica: node.record.system_replica, node: node.record.id })
            .collect()
    }
}
