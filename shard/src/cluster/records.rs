//! The records of the system shard: JSON values of its objects.
//!
//! | object | record |
//! |---|---|
//! | `counters` | [`Counters`]: the next ids |
//! | `node.{id}` | [`NodeRecord`] |
//! | `collection.{name}` | [`CollectionRecord`], with the placement of its shards |
//! | `answers` | [`Answers`](super::answers::Answers): what administration answered lately |
//!
//! Every change is one transaction that checks the revision of what it was computed from.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::cluster::CollectionSpec;
use crate::object::{CollectionName, GroupId, NodeId, ObjectId, ObjectKey, ReplicaId, Value};
use crate::state::{Check, CheckKind, Step};

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Its configured name; unique among the nodes of the cluster.
    pub name: String,
    /// Its zone, empty when none is configured.
    pub zone: String,
    /// Its replica of the system shard.
    pub system_replica: ReplicaId,
}

/// A replica and the node that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// A shard and where its replicas belong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Its consensus group.
    pub group: GroupId,
    /// The replicas it was founded with: its first membership, the same for all who found it.
    pub founders: Vec<ReplicaRecord>,
    /// The replicas it is to have.
    pub replicas: Vec<ReplicaRecord>,
}

/// A collection with its placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionRecord {
    /// As its creator described it.
    pub spec: CollectionSpec,
    /// Names this life of the collection: 32 hex digits, new after delete and re-creation.
    pub incarnation: String,
    /// One for each partition, in order.
    pub shards: Vec<ShardRecord>,
}

impl CollectionRecord {
    /// The incarnation's 16 bytes.
    pub fn incarnation_bytes(&self) -> [u8; 16] {
        u128::from_str_radix(&self.incarnation, 16).unwrap_or_default().to_be_bytes()
    }
}

/// The next ids; none is ever given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The next consensus group.
    pub next_group: u64,
    /// The next replica.
    pub next_replica: u64,
}

impl Counters {
    /// The counters of a cluster founded with so many replicas of the system shard.
    pub fn after_founding(members: usize) -> Self {
        Counters { next_group: 1, next_replica: members as u64 + 1 }
    }

    /// Takes a group.
    pub fn group(&mut self) -> GroupId {
        self.next_group += 1;
        GroupId(self.next_group - 1)
    }

    /// Takes a replica.
    pub fn replica(&mut self) -> ReplicaId {
        self.next_replica += 1;
        ReplicaId(self.next_replica - 1)
    }
}

fn key(object: &str) -> ObjectKey {
    let object = ObjectId::parse(object).expect("record names are built of ids, and of names parsed before");
    ObjectKey { object, entry: None }
}

/// The key of the counters.
pub fn counters_key() -> ObjectKey {
    key("counters")
}

/// The key of the remembered answers.
pub fn answers_key() -> ObjectKey {
    key("answers")
}

/// The key of a node's record.
pub fn node_key(node: NodeId) -> ObjectKey {
    key(&format!("node.{node}"))
}

/// The key of a collection's record.
pub fn collection_key(collection: &CollectionName) -> ObjectKey {
    key(&format!("collection.{collection}"))
}

/// A step that stores a record.
pub fn put<T: Serialize>(key: ObjectKey, record: &T) -> Step {
    let payload = serde_json::to_vec(record).expect("records are plain data: encoding them cannot fail");
    let value = Value { payload: payload.into(), encoding: "application/json".into(), attachment: None };
    Step::Put { key, value, ttl_ms: None }
}

/// A check that a record is still the one that was read: `None` when there was none.
pub fn unchanged(key: ObjectKey, revision: Option<u64>) -> Check {
    let kind = revision.map_or(CheckKind::Absent, CheckKind::Revision);
    Check { key, kind }
}

/// Reads a record.
pub fn parse<T: DeserializeOwned>(payload: &Bytes) -> Option<T> {
    serde_json::from_slice(payload).ok()
}
