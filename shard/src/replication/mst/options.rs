//! How a divergent shard behaves.

use std::time::Duration;

use crate::replication::WriteOptions;

/// When replicas exchange, and how long they remember what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each interval, and a deletion until every replica of the placement has seen it: `mst`.
    Always,
    /// When they meet, or when something could not be sent; a deletion for this long: `eventual`.
    OnMeeting {
        /// How long a deletion is remembered.
        retain: Duration,
    },
}

/// How a divergent shard behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MstOptions {
    /// When replicas exchange, to begin with.
    pub policy: Policy,
    /// How often they may.
    pub interval: Duration,
    /// How commands are written.
    pub writes: WriteOptions,
}

impl MstOptions {
    /// The options of a policy: exchanges each second.
    pub fn new(policy: Policy, writes: WriteOptions) -> Self {
        MstOptions { policy, interval: Duration::from_secs(1), writes }
    }
}
