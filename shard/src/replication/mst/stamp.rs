//! Stamps: when and by which replica a key was written, in one order for all.
//!
//! The clock is a hybrid one (Kulkarni et al., 2014) by uhlc's rule: wall time, or the last stamp and one. It
//! is not uhlc's type, which reads the time by itself: here time comes in as a value.

use serde::{Deserialize, Serialize};

use crate::object::ReplicaId;

/// How far a stamp may be ahead of a replica's own wall clock, NTP64: one second.
pub const MAX_AHEAD: u64 = 1 << 32;

/// The time of a write, NTP64, and the replica that took it. No two writes have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Hybrid logical time.
    pub time: u64,
    /// Who gave it.
    pub replica: ReplicaId,
}

/// Whether a stamp of this time is to be held back until the wall clock has reached it.
pub(super) fn is_future(time: u64, now: u64) -> bool {
    time > now.saturating_add(MAX_AHEAD)
}
