//! The object model: names that were parsed once, and values.

pub mod id;
pub mod value;

pub use id::{
    CollectionName, EntryName, GroupId, NodeId, ObjectId, ObjectKey, Partition, ReplicaId, partition_of,
};
pub use value::Value;
