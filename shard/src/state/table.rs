//! The object table: applies commands to the data layer.

use bytes::Bytes;

use crate::state::Batch;

/// Where a batch stands: the log's position for `raft`, a counter for kinds without a log.
pub type Position = odgm_storage::log::LogPosition;

/// What the log hands to the state machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// Commands to apply.
    Batch(Batch),
    /// A membership, opaque here, to be kept with the position.
    Membership(Bytes),
    /// Nothing but the position.
    Blank,
}

/// placeholder
#[derive(Debug)]
pub struct ObjectTable;
