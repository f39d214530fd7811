//! A stored value: bytes with their zenoh encoding and attachment.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Value {
    /// The payload.
    pub payload: Bytes,
    /// zenoh's encoding as its string; empty when the writer gave none.
    pub encoding: String,
    /// The writer's attachment.
    pub attachment: Option<Bytes>,
}
