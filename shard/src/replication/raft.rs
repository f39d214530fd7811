//! Replication by Raft: [`RaftShard`] over openraft, and the [`RaftRouter`] between replicas.
//!
//! This folder is the only place that names openraft. What leaves it are the types of this crate; what is
//! written to disk or sent has its own encoding, described in `docs/formats/raft.md`.

mod clocks;
mod encode;
#[cfg(test)]
mod golden;
mod housekeeping;
mod inbox;
mod log;
mod membership;
mod message;
mod network;
mod options;
mod pipeline;
mod pull;
mod reads;
mod router;
mod shard;
mod snapshot;
mod start;
mod state_machine;
mod status;
#[cfg(test)]
mod suite;
mod types;
mod writes;

#[cfg(feature = "sim")]
pub(crate) use encode::decode_vote;
pub use options::{RaftOptions, ReadMode};
pub use router::{RAFT_MESSAGE, RaftRouter};
pub use shard::{Progress, RaftShard};
pub use snapshot::ReplicaData;
#[cfg(feature = "sim")]
pub(crate) use types::Vote;
