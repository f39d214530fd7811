//! When keys end: rows in order of their deadlines, beside the deadline in the value's own record.
//!
//! The rows are the data layer's ([`odgm_storage::data::expiry`]), over rows of `Data`. There is no clock
//! here: a key stays readable until a command that every replica applies deletes it.

use odgm_storage::data::{DataView, Keyspace, WriteBatch, expiry};
use serde::{Deserialize, Serialize};

use super::layout::{self, Row};
use crate::object::ObjectKey;
use crate::{Error, Result};

/// A key whose time is over, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The key.
    pub key: ObjectKey,
    /// Its deadline, Unix milliseconds.
    pub expires_unix_ms: u64,
}

/// Adds to `batch` what moves the deadline of a key; 0 is never.
pub(crate) fn change(batch: &mut WriteBatch, key: &ObjectKey, before: u64, after: u64) -> Result<()> {
    let deadline = |unix_ms: u64| (unix_ms > 0).then_some(unix_ms);
    expiry::change(batch, Keyspace::Data, &layout::value_key(key), deadline(before), deadline(after))?;
    Ok(())
}

/// At most `limit` keys with a deadline from `from_unix_ms` to `now_unix_ms`, the earliest first.
pub(crate) fn due(
    view: &dyn DataView,
    from_unix_ms: u64,
    now_unix_ms: u64,
    limit: usize,
) -> Result<Vec<Due>> {
    let expired = expiry::expired_since(view, from_unix_ms, now_unix_ms, limit)?;
    let due = expired.into_iter().map(|row| match layout::parse_row(&row.key)? {
        Row::Key(key) => Ok(Due { key, expires_unix_ms: row.deadline_unix_ms }),
        Row::Head(object) => Err(Error::Internal(format!("the head of {object} has a deadline"))),
    });
    due.collect()
}
