//! The one error of the transport.

/// Result of a transport call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the transport could not do. Whatever was sent before an error may have arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key expression that zenoh does not take.
    #[error("invalid key expression {key:?}: {reason}")]
    InvalidKey {
        /// What was given.
        key: String,
        /// zenoh's reason.
        reason: String,
    },
    /// Configuration that zenoh does not take.
    #[error("invalid zenoh configuration: {0}")]
    Configuration(String),
    /// No answer before the deadline: the outcome is unknown.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The peer is not known or its presence ended: the outcome of what was under way is unknown.
    #[error("peer {0} is unreachable")]
    Unreachable(u64),
    /// A bounded queue is full; nothing was sent.
    #[error("the send queue is full")]
    Full,
    /// More bytes than a message may have; nothing was sent.
    #[error("message of {found} bytes, allowed are {limit}")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The other side refused, with its reason.
    #[error("refused by the peer: {0}")]
    Refused(String),
    /// The session is closed, or zenoh failed.
    #[error("zenoh session: {0}")]
    Session(String),
}
