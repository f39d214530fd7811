//! The oracle's record: what clients did to objects and what they were told, as lines of JSON.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Sets a value that no other operation sets.
    Put {
        /// The value.
        value: String,
        /// What must hold.
        condition: Wanted,
    },
    /// Deletes the object.
    Delete {
        /// The revision that must hold.
        if_revision: Option<u64>,
    },
    /// Adds to a number.
    Increment {
        /// What to add.
        by: i64,
    },
    /// Reads, linearizably.
    Read,
}

/// What must hold for a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// The object has this revision.
    Revision(u64),
    /// It does not exist.
    Absent,
    /// It exists.
    Present,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nobody could say: it may take effect at any time after its call, or never.
    Unknown,
    /// Refused before it was tried: it never takes effect.
    Refused,
    /// It took effect.
    Done {
        /// The object's revision after it.
        revision: u64,
        /// The new value of an increment.
        value: Option<String>,
    },
    /// The value that was read.
    Value {
        /// The value.
        value: String,
        /// The object's revision.
        revision: u64,
    },
    /// `NOT_FOUND`: of a read, or of a condition.
    Absent,
    /// `CONFLICT`: the object has this revision, 0 when it does not exist.
    Conflict {
        /// The present revision.
        revision: u64,
    },
    /// `EXISTS`.
    Exists {
        /// The present revision.
        revision: u64,
    },
}

impl Answer {
    /// Whether it says that nothing was changed.
    pub fn refuses(&self) -> bool {
        match self {
            Answer::Refused | Answer::Absent | Answer::Conflict { .. } | Answer::Exists { .. } => true,
            Answer::Unknown | Answer::Done { .. } | Answer::Value { .. } => false,
        }
    }
}

/// An operation of a client on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: u64,
    /// On what.
    pub object: String,
    /// What it did.
    pub action: Action,
    /// When it was called, nanoseconds from the start of the history.
    pub called: u64,
    /// When the answer was there; of no meaning for [`Answer::Unknown`].
    pub answered: u64,
    /// What it was told.
    pub answer: Answer,
}

/// Writes a history, an operation a line.
///
/// # Errors
/// What the writer answers.
pub fn write(history: &[Operation], into: &mut dyn Write) -> std::io::Result<()> {
    for operation in history {
        serde_json::to_writer(&mut *into, operation)?;
        into.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a history that [`write`] wrote; empty lines are skipped.
///
/// # Errors
/// What the reader answers, and a line that is no operation, with its number.
pub fn read(from: &mut dyn BufRead) -> std::io::Result<Vec<Operation>> {
    let mut history = Vec::new();
    for (number, line) in (1..).zip(from.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let operation = serde_json::from_str(&line).map_err(|error| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("line {number}: {error}"))
        })?;
        history.push(operation);
    }
    Ok(history)
}

/// A payload as the history writes it.
pub(crate) fn text_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
