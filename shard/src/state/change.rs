//! A committed change of one key, as events tell it.

use serde::{Deserialize, Serialize};

use crate::object::{ObjectKey, Value};

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It has this value now.
    Put(Value),
    /// It is gone.
    Delete,
}

/// One change, with the partition's next revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key that changed.
    pub key: ObjectKey,
    /// The change's own revision.
    pub revision: u64,
    /// The object's first revision.
    pub created_revision: u64,
    /// The number of changes of the object, this one included.
    pub version: u64,
    /// When the key expires, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The commit time, NTP64; unique and increasing within the partition.
    pub time: u64,
    /// Put or delete.
    pub kind: ChangeKind,
}
