//! A collection as its creator describes it.

use serde::{Deserialize, Serialize};

use crate::object::CollectionName;

/// How a collection's partitions are replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replication {
    /// Consensus: acknowledged means fsynced on a majority and applied.
    #[default]
    Raft,
    /// Merkle-search-tree anti-entropy.
    Mst,
    /// Sent to the others once, repaired on meeting.
    Eventual,
    /// One copy.
    None,
}

/// Whether changes are published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsSpec {
    /// Publish every committed change.
    pub enabled: bool,
}

impl Default for EventsSpec {
    fn default() -> Self {
        EventsSpec { enabled: true }
    }
}

/// Partitions of a collection when its creator names no number.
pub const DEFAULT_PARTITIONS: u32 = 4;
/// The most partitions a collection can have.
pub const MAX_PARTITIONS: u32 = 1024;
/// The most replicas a partition can have.
pub const MAX_REPLICAS: u32 = 7;

/// A collection as described at its creation. Partitions never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSpec {
    /// The name.
    pub name: String,
    /// How many partitions, 1..=1024.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// How many replicas a partition has, 1..=7 and no more than there are nodes. Absent: 3, or as
    /// many as there are nodes; 1 for replication `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How they are replicated.
    #[serde(default)]
    pub replication: Replication,
    /// Events of changes.
    #[serde(default)]
    pub events: EventsSpec,
    /// Secondary indexes; not supported yet, so none may be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<serde_json::Value>,
    /// Limits of the collection; not supported yet, so none may be given.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub limits: serde_json::Map<String, serde_json::Value>,
}

fn default_partitions() -> u32 {
    DEFAULT_PARTITIONS
}

/// Why a description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A value is impossible.
    #[error("{0}")]
    Invalid(String),
    /// A later version will take it.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
}

impl CollectionSpec {
    /// Checks everything that does not depend on the cluster; gives the parsed name.
    ///
    /// # Errors
    /// Says which value is wrong and what is allowed.
    pub fn validate(&self) -> Result<CollectionName, SpecError> {
        let name =
            CollectionName::parse(&self.name).map_err(|refused| SpecError::Invalid(refused.to_string()))?;
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(SpecError::Invalid(format!(
                "partitions is {}, must be 1 to {MAX_PARTITIONS}",
                self.partitions
            )));
        }
        if let Some(replicas) = self.replicas
            && !(1..=MAX_REPLICAS).contains(&replicas)
        {
            return Err(SpecError::Invalid(format!("replicas is {replicas}, must be 1 to {MAX_REPLICAS}")));
        }
        if let (Replication::None, Some(replicas @ 2..)) = (self.replication, self.replicas) {
            return Err(SpecError::Invalid(format!(
                "replicas is {replicas}, a collection of replication none has 1"
            )));
        }
        if !self.indexes.is_empty() {
            return Err(SpecError::Unsupported("indexes"));
        }
        if !self.limits.is_empty() {
            return Err(SpecError::Unsupported("limits of a collection"));
        }
        Ok(name)
    }

    /// The replicas a partition gets on so many nodes.
    ///
    /// # Errors
    /// When more are asked for than there are nodes.
    pub fn replicas_on(&self, nodes: usize) -> Result<usize, SpecError> {
        let usual = if self.replication == Replication::None { 1 } else { 3 };
        let replicas = self.replicas.map_or_else(|| nodes.min(usual), |asked| asked as usize);
        if replicas == 0 || replicas > nodes {
            return Err(SpecError::Invalid(format!("replicas is {replicas}, the cluster has {nodes} nodes")));
        }
        Ok(replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<CollectionSpec, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_alone_is_enough() {
        let users = spec(r#"{"name":"users"}"#).unwrap();
        assert_eq!(users.validate().unwrap().as_str(), "users");
        assert_eq!((users.partitions, users.replicas_on(5)), (4, Ok(3)));
        assert_eq!(users.replicas_on(1), Ok(1));
    }

    #[test]
    fn wrong_values_are_named() {
        for (json, expected) in [
            (r#"{"name":"Users"}"#, "must match"),
            (r#"{"name":"u","partitions":0}"#, "partitions is 0"),
            (r#"{"name":"u","partitions":4096}"#, "1 to 1024"),
            (r#"{"name":"u","replicas":9}"#, "replicas is 9"),
            (r#"{"name":"u","replication":"mst"}"#, "mst is not supported yet"),
            (r#"{"name":"u","indexes":[{"name":"a"}]}"#, "indexes is not supported yet"),
        ] {
            let error = spec(json).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        assert!(spec(r#"{"name":"u","size":1}"#).unwrap_err().contains("size"));
        assert!(spec(r#"{"name":"u","replication":"paxos"}"#).unwrap_err().contains("paxos"));
    }

    #[test]
    fn more_replicas_than_nodes_are_refused() {
        let three = spec(r#"{"name":"u","replicas":3}"#).unwrap();
        assert!(three.replicas_on(2).unwrap_err().to_string().contains("2 nodes"));
    }
}
