//! What a collection's description means for its state: how much history is kept, and which indexes there are.
//!
//! The state machine holds its own copy, changed by a command, so that every replica changes it at the same
//! place of the log.

use serde::{Deserialize, Serialize};

use crate::object::EntryName;

/// How much of its history a partition keeps: the newest changes that are within all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retain {
    /// Changes.
    pub count: u64,
    /// Bytes of their rows. Kept within a sixteenth of it, or 64 KiB.
    pub bytes: u64,
    /// Age by log time, milliseconds. Kept within a sixteenth of it, or a second.
    pub age_ms: u64,
}

impl Default for Retain {
    fn default() -> Self {
        Retain { count: 1_000_000, bytes: 128 << 20, age_ms: 86_400_000 }
    }
}

/// What the state machine is told of its collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How much history is kept; `None` is none.
    pub history: Option<Retain>,
    /// Secondary indexes; no two of the same name.
    pub indexes: Vec<IndexSpec>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { history: Some(Retain::default()), indexes: Vec::new() }
    }
}

/// A secondary index as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// What queries call it.
    pub name: String,
    /// What objects are found by.
    pub source: IndexSource,
}

/// What of an object is indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexSource {
    /// The scalar at a JSON pointer (RFC 6901) of its own value.
    Path(String),
    /// The value of an entry: a JSON scalar, else the text as it is.
    Entry(EntryName),
}
