//! A batch: what is written together, and what no store takes.

use bytes::Bytes;

use super::Keyspace;
use crate::{Error, Result};

/// The longest key that every store takes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// The longest value that every store takes.
pub const MAX_VALUE_BYTES: usize = 256 << 20;

/// When a batch survives a loss of power. It always survives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Some time later, in order: the log behind the caller can repeat it.
    Later,
    /// When `write` returns.
    Now,
}

/// Puts and deletes that take effect together; the last one on a key wins.
#[derive(Debug, Default, Clone)]
pub struct WriteBatch {
    /// In order of the calls.
    pub operations: Vec<(Keyspace, Bytes, Option<Bytes>)>,
}

impl WriteBatch {
    /// Sets a key. Keys are 1..=65,535 bytes.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.operations.push((keyspace, key.into(), Some(value.into())));
    }

    /// Removes a key; absent is fine.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) {
        self.operations.push((keyspace, key.into(), None));
    }

    /// How many puts and deletes are in it.
    pub(crate) fn count(&self) -> (u64, u64) {
        let puts = self.operations.iter().filter(|(_, _, value)| value.is_some()).count();
        (puts as u64, (self.operations.len() - puts) as u64)
    }

    /// Refuses keys and values that no store takes; every store calls it before it writes anything.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for the first one that is empty, or over the limit.
    pub(crate) fn validate(&self) -> Result<()> {
        for (_, key, value) in &self.operations {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                let what = if key.is_empty() { "an empty key" } else { "a key" };
                return Err(Error::TooLarge { what, found: key.len() as u64, limit: MAX_KEY_BYTES as u64 });
            }
            let length = value.as_ref().map_or(0, Bytes::len);
            if length > MAX_VALUE_BYTES {
                return Err(Error::TooLarge {
                    what: "a value",
                    found: length as u64,
                    limit: MAX_VALUE_BYTES as u64,
                });
            }
        }
        Ok(())
    }
}
