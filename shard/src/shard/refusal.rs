//! What clients are told when a request fails, beyond what the protocol says by itself.

use uuid::Uuid;

use crate::Error;
use crate::object::NodeId;
use crate::protocol::{Code, Refusal};

pub(super) fn busy(message: &str) -> Refusal {
    Refusal::new(Code::Busy, message)
}

/// With the node that serves, as a hint.
pub(super) fn not_leader(serving: Option<NodeId>) -> Refusal {
    let refused = Refusal::from(Error::NotLeader { serving });
    match serving {
        Some(NodeId(node)) => refused.with("serving", node),
        None => refused,
    }
}

/// What an error says. A fault of ours is logged, with the id that the client is told.
pub(super) fn of(error: Error) -> Refusal {
    if let Error::NotLeader { serving } = error {
        return not_leader(serving);
    }
    let words = error.to_string();
    let refused = Refusal::from(error);
    if refused.code != Code::Internal {
        return refused;
    }
    let id = Uuid::new_v4().simple().to_string();
    tracing::error!(%id, error = %words, "a request failed");
    refused.with_id(id)
}
