//! The one error of the crate: a variant exists where a caller acts differently.

use std::time::Duration;

use crate::object::NodeId;

/// Result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a shard could not do. What a command's own condition refuses is no error but an
/// [`crate::state::Outcome`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another replica serves; nothing happened here.
    #[error("not the leader")]
    NotLeader {
        /// The node that is known to serve.
        serving: Option<NodeId>,
    },
    /// A queue or budget is full; nothing happened.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// No quorum, or the shard stops: whether the command took effect is not known.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// No answer in time: whether the command took effect is not known.
    #[error("no outcome within {0:?}")]
    Timeout(Duration),
    /// The request is wrong; nothing happened.
    #[error("{0}")]
    Invalid(String),
    /// This kind of collection, or this version, cannot do it; nothing happened.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The storage failed; the shard stops.
    #[error(transparent)]
    Storage(#[from] odgm_storage::Error),
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] odgm_transport::Error),
    /// A broken invariant or a stopped core; the shard stops.
    #[error("internal: {0}")]
    Internal(String),
}
