//! What nodes say to each other outside of their shards: founding, joining, and who serves what.
//!
//! JSON behind one byte that tells them from the shards' messages: they are few, and a person reading
//! a trace should understand them.

use bytes::Bytes;
use odgm_shard::cluster::{CollectionSpec, NodeRecord};
use odgm_shard::object::{GroupId, NodeId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The first byte of a node's message.
pub(crate) const FAMILY: u8 = 2;

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeRequest {
    /// Who are you, and which cluster do you belong to?
    Hello,
    /// You are a founding member of this cluster. Repeats change nothing.
    Found {
        /// The cluster's id.
        cluster: Uuid,
        /// All founding members.
        members: Vec<NodeRecord>,
    },
    /// You are a new member of this cluster. Repeats change nothing.
    Adopt {
        /// The cluster's id.
        cluster: Uuid,
        /// Your record.
        record: NodeRecord,
    },
    /// Create what is missing of these collections; for the node that serves the system shard.
    Ensure {
        /// The collections of the asking node's configuration.
        collections: Vec<CollectionSpec>,
    },
    /// I serve these groups in these terms. One-way.
    Serving {
        /// Groups with their terms.
        groups: Vec<(GroupId, u64)>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeReply {
    /// The answer to a hello.
    Hello(Hello),
    /// Done, and durable.
    Done,
    /// Not done.
    Refused(String),
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its id.
    pub(crate) node: NodeId,
    /// Its configured name.
    pub(crate) name: String,
    /// Its configured zone.
    pub(crate) zone: String,
    /// Its cluster.
    pub(crate) cluster: Option<Uuid>,
    /// The asking node was a member of the cluster, and is no longer.
    pub(crate) you_were_replaced: bool,
}

/// Encodes a message behind its family byte.
pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    let mut bytes = vec![FAMILY];
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data: encoding them cannot fail");
    bytes.into()
}

/// Decodes a message of the family.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&FAMILY, json)) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_garbage_does_not_pass() {
        let found = NodeRequest::Found { cluster: Uuid::from_u128(1), members: Vec::new() };
        assert_eq!(decode::<NodeRequest>(&encode(&found)), Some(found));
        for garbage in [&b""[..], b"\x02", b"\x02{}", b"\x01{\"hello\":1}", b"\x02\"hell\""] {
            assert_eq!(decode::<NodeRequest>(garbage), None);
        }
    }
}
