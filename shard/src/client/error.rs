//! What a client could not do.

use crate::protocol::{Code, Refusal};

/// What a client could not do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The grid refused; a change did not happen.
    #[error(transparent)]
    Refused(Refusal),
    /// No decisive answer before the deadline. A change may have happened; a repeat with the same
    /// request id finds out.
    #[error("{}", unknown(waited, last.as_ref(), rid.as_deref()))]
    Unknown {
        /// How long was waited.
        waited: std::time::Duration,
        /// The last refusal, when one came.
        last: Option<Refusal>,
        /// The request id of the change.
        rid: Option<String>,
    },
    /// What was asked can't be: nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// A reply that can't be read.
    #[error("a reply that is not understood: {0}")]
    Malformed(String),
    /// Events came faster than they were taken, some are lost.
    #[error("events were lost: they came faster than they were taken")]
    Lagged,
    /// The session failed.
    #[error(transparent)]
    Transport(#[from] odgm_transport::Error),
}

impl ClientError {
    /// The grid's code, when it refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused(refused) => Some(refused.code),
            _ => None,
        }
    }
}

fn unknown(waited: &std::time::Duration, last: Option<&Refusal>, rid: Option<&str>) -> String {
    let mut text = format!("no decisive answer within {waited:?}");
    if let Some(last) = last {
        text.push_str(&format!(", the last was {last}"));
    }
    if let Some(rid) = rid {
        text.push_str(&format!("; whether it happened is unknown, repeat it with rid {rid}"));
    }
    text
}
