//! What a shard is: object model, state machine, replication, protocol, events and cluster.
//!
//! State is synchronous and deterministic ([`state`]); replication decides *when* a command is
//! applied ([`replication`]); what another process can see is in [`protocol`]; [`shard`] joins them
//! into the object shard that answers clients; [`cluster`] says, purely, which shard belongs where.
//!
//! # Life of a write
//! query → [`protocol`] decodes → [`shard`] admits → [`state::Command`] → [`replication::ShardState::write`]
//! (batched, logged, replicated, committed) → [`state::ObjectTable`] applies → outcome → reply, and the events.

pub mod client;
pub mod cluster;
pub mod codec;
pub mod error;
pub mod object;
pub mod planted;
pub mod protocol;
pub mod quantity;
pub mod replication;
pub mod runtime;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state;

pub use error::{Error, Result};
