//! Commands: the only things that change state. And what becomes of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::object::{ObjectId, ObjectKey, Value};
use crate::state::{Due, Settings};

/// What must hold for a put.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The object's revision is this one.
    Revision(u64),
    /// The key has no value.
    Absent,
    /// The key has a value.
    Present,
}

/// One check of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The key looked at.
    pub key: ObjectKey,
    /// What must hold.
    pub kind: CheckKind,
}

/// What a transaction's check compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// The object's revision.
    Revision(u64),
    /// The key has no value (for an object: it does not exist).
    Absent,
    /// The key has a value (for an object: it exists).
    Present,
    /// The key's payload.
    Value(Bytes),
}

/// One step of a transaction's branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Sets a value.
    Put {
        /// The key.
        key: ObjectKey,
        /// Its value.
        value: Value,
        /// Its time to live, milliseconds.
        ttl_ms: Option<u64>,
    },
    /// Deletes an object with its entries, or one entry.
    Delete {
        /// The key.
        key: ObjectKey,
    },
    /// Adds to a decimal integer.
    Increment {
        /// The key.
        key: ObjectKey,
        /// What to add.
        by: i64,
    },
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Sets a value; without `ttl_ms` it never expires.
    Put {
        /// The key.
        key: ObjectKey,
        /// Its value.
        value: Value,
        /// Its time to live, milliseconds.
        ttl_ms: Option<u64>,
        /// What must hold.
        condition: Condition,
    },
    /// Deletes an object with its entries, or one entry; absent is fine.
    Delete {
        /// The key.
        key: ObjectKey,
        /// The object's revision that must hold.
        if_revision: Option<u64>,
    },
    /// Adds to a decimal integer kept as text; absent is 0.
    Increment {
        /// The key.
        key: ObjectKey,
        /// What to add.
        by: i64,
    },
    /// All or nothing over objects of the partition. No key is touched twice in a branch: checked
    /// when parsed.
    Txn {
        /// All must hold for `then`, else `otherwise` runs.
        checks: Vec<Check>,
        /// The branch when all hold.
        then: Vec<Step>,
        /// The branch when one does not.
        otherwise: Vec<Step>,
    },
    /// Gives a value a new time to live, or none: a put of the unchanged value.
    Touch {
        /// The key.
        key: ObjectKey,
        /// Its time to live from now on, milliseconds; `None` is for ever.
        ttl_ms: Option<u64>,
    },
    /// What the serving replica asks for by itself; no client can.
    Upkeep(Upkeep),
}

/// The work that time brings. It is proposed like any command, so that all replicas do it at the same
/// place of the log, and is decided there: what is not due by log time, or changed since, stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upkeep {
    /// Delete keys whose time is over.
    Expire(Vec<Due>),
    /// Remove history that is not retained any more, a bounded part of it.
    Sweep,
    /// Changes up to this revision were published.
    Published(u64),
    /// The collection is described otherwise now.
    Configure(Settings),
    /// Take the next objects into an index that is being built, or out of one that is being dropped.
    IndexStep,
}

/// A command as a client gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The request id: a repeat gets the first answer.
    pub rid: Option<Bytes>,
    /// What to do.
    pub operation: Operation,
}

/// Commands that travel and are applied together, in order: the payload of one log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The time when it was proposed, NTP64; 0 is not known. Log time is the greatest seen so far.
    pub time: u64,
    /// How long answers are remembered by request id, milliseconds.
    pub rid_window_ms: u64,
    /// The commands.
    pub commands: Vec<Command>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was applied (a delete of what is absent too).
    Done(Done),
    /// A transaction was applied.
    Txn(TxnDone),
    /// Its condition does not hold; nothing changed.
    Refused(Refusal),
}

/// The numbers of an applied command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// The object's revision after it; the partition's present one when nothing changed.
    pub revision: u64,
    /// The object's first revision, 0 when it does not exist now and did not before.
    pub created_revision: u64,
    /// The object's count of changes.
    pub version: u64,
    /// When the key expires, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The commit time, NTP64.
    pub time: u64,
    /// The new value of an increment.
    pub value: Option<Bytes>,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnDone {
    /// All checks held.
    pub then: bool,
    /// The last revision taken, or the partition's present one.
    pub revision: u64,
    /// The commit time, NTP64.
    pub time: u64,
    /// One for each step of the branch.
    pub results: Vec<StepDone>,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDone {
    /// The object the step was for.
    pub object: ObjectId,
    /// The object's numbers after it, and an increment's value.
    pub done: Done,
}

/// Why the state machine refused; remembered by request id like a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The key has no value.
    NotFound {
        /// How many entries the object has.
        entries: u64,
    },
    /// The key has a value already.
    Exists {
        /// The object's revision.
        revision: u64,
    },
    /// The object has another revision.
    Conflict {
        /// The present one; 0 when it does not exist.
        revision: u64,
    },
    /// An increment of what is no decimal i64, or one that would overflow.
    BadIncrement {
        /// What is wrong, in words.
        reason: String,
    },
    /// The request id was used for another command.
    RidReused,
}

impl Operation {
    /// Whether it may set a value.
    pub fn may_add(&self) -> bool {
        match self {
            Operation::Put { .. } | Operation::Increment { .. } | Operation::Touch { .. } => true,
            Operation::Delete { .. } | Operation::Upkeep(_) => false,
            Operation::Txn { then, otherwise, .. } => {
                then.iter().chain(otherwise).any(|step| !matches!(step, Step::Delete { .. }))
            }
        }
    }
}
