//! Which shard belongs where: the records that the system shard holds, and the pure rules over them.
//!
//! Everything here is a function of values: no I/O, no clock, no randomness. The node reads the
//! records through [`map::ClusterMap`], changes them by the transactions of [`transaction`], and drives its
//! shards towards them by [`membership`].

pub mod answers;
pub mod collection;
pub mod map;
pub mod membership;
pub mod placement;
pub mod records;
pub mod tombstones;
pub mod transaction;

pub use collection::{CollectionSpec, Replication};
pub use map::ClusterMap;
pub use records::{CollectionRecord, NodeRecord, ReplicaRecord, ShardRecord};
