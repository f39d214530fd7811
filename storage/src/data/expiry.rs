//! Expiry: rows of [`Keyspace::Index`] that say until when other rows are to stay.
//!
//! | key | value | what |
//! |---|---|---|
//! | `01` deadline (8, big-endian) keyspace (1) key | empty | in the order in which rows expire |
//! | `02` keyspace (1) key | deadline (8, big-endian) | the deadline of a row |
//!
//! Deadlines are Unix milliseconds. There is no clock here: a row stays readable until someone who knows
//! the time sweeps it, so that replicas that sweep by the same log agree.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

use super::{DataView, Direction, Keyspace, MAX_KEY_BYTES, WriteBatch};
use crate::{Error, Result};

/// The first byte of the rows in order of their deadlines.
pub const QUEUE_PREFIX: u8 = 0x01;
/// The first byte of the rows that hold a key's deadline.
pub const DEADLINE_PREFIX: u8 = 0x02;
/// Bytes that a queue row adds to the key.
const QUEUE_BYTES: usize = 10;

/// A row whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its deadline, Unix milliseconds.
    pub deadline_unix_ms: u64,
    /// Where it is.
    pub keyspace: Keyspace,
    /// Its key.
    pub key: Bytes,
}

/// Adds to `batch` what moves the deadline of a row from `before` to `after`; `None` is never.
///
/// # Errors
/// [`Error::TooLarge`] for a key that leaves no room for its deadline; nothing was added then.
pub fn change(
    batch: &mut WriteBatch,
    keyspace: Keyspace,
    key: &[u8],
    before: Option<u64>,
    after: Option<u64>,
) -> Result<()> {
    if before == after {
        return Ok(());
    }
    if after.is_some() && key.len() + QUEUE_BYTES > MAX_KEY_BYTES {
        let (found, limit) = (key.len() as u64, (MAX_KEY_BYTES - QUEUE_BYTES) as u64);
        return Err(Error::TooLarge { what: "a key with a deadline", found, limit });
    }
    if let Some(before) = before {
        batch.delete(Keyspace::Index, queue_key(before, keyspace, key));
    }
    match after {
        Some(after) => {
            batch.put(Keyspace::Index, queue_key(after, keyspace, key), Bytes::new());
            let value = Bytes::copy_from_slice(&after.to_be_bytes());
            batch.put(Keyspace::Index, deadline_key(keyspace, key), value);
        }
        None => batch.delete(Keyspace::Index, deadline_key(keyspace, key)),
    }
    Ok(())
}

/// The deadline of a row, Unix milliseconds; `None` when it has none.
///
/// # Errors
/// [`Error::Refused`] when a row of this layer is not one that it writes.
pub fn deadline(view: &dyn DataView, keyspace: Keyspace, key: &[u8]) -> Result<Option<u64>> {
    let Some(value) = view.get(Keyspace::Index, &deadline_key(keyspace, key))? else { return Ok(None) };
    let bytes = value[..].try_into().map_err(|_| unreadable(key))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// At most `limit` rows whose deadline is at or before `now_unix_ms`, the earliest first.
///
/// # Errors
/// As [`deadline`].
pub fn expired(view: &dyn DataView, now_unix_ms: u64, limit: usize) -> Result<Vec<Expired>> {
    expired_since(view, 0, now_unix_ms, limit)
}

/// [`expired`] for a caller that knows that no deadline is below `from_unix_ms` any more: the removed
/// rows that an engine still holds there are not read over again.
///
/// # Errors
/// As [`deadline`].
pub fn expired_since(
    view: &dyn DataView,
    from_unix_ms: u64,
    now_unix_ms: u64,
    limit: usize,
) -> Result<Vec<Expired>> {
    let to = match now_unix_ms.checked_add(1) {
        Some(next) => queue_prefix(next).freeze(),
        None => Bytes::from_static(&[QUEUE_PREFIX + 1]),
    };
    let from = Bound::Included(queue_prefix(from_unix_ms).freeze());
    let rows = view.scan(Keyspace::Index, from, Bound::Excluded(to), Direction::Forward);
    rows.take(limit).map(|row| parse(&row?.0)).collect()
}

/// The deadline that comes first, Unix milliseconds: when to sweep next.
///
/// # Errors
/// As [`deadline`].
pub fn first_deadline(view: &dyn DataView) -> Result<Option<u64>> {
    Ok(expired(view, u64::MAX, 1)?.first().map(|first| first.deadline_unix_ms))
}

fn parse(key: &Bytes) -> Result<Expired> {
    let parsed = || {
        let deadline = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
        let keyspace = Keyspace::ALL.into_iter().find(|keyspace| Some(&(*keyspace as u8)) == key.get(9))?;
        (key.len() > QUEUE_BYTES).then(|| Expired {
            deadline_unix_ms: deadline,
            keyspace,
            key: key.slice(QUEUE_BYTES..),
        })
    };
    parsed().ok_or_else(|| unreadable(key))
}

fn unreadable(key: &[u8]) -> Error {
    Error::Refused { what: "a row of the expiries", reason: format!("{} is damaged", key.escape_ascii()) }
}

fn queue_prefix(deadline: u64) -> BytesMut {
    let mut key = BytesMut::with_capacity(QUEUE_BYTES);
    key.put_u8(QUEUE_PREFIX);
    key.put_u64(deadline);
    key
}

fn queue_key(deadline: u64, keyspace: Keyspace, key: &[u8]) -> Bytes {
    let mut row = queue_prefix(deadline);
    row.put_u8(keyspace as u8);
    row.put_slice(key);
    row.freeze()
}

fn deadline_key(keyspace: Keyspace, key: &[u8]) -> Bytes {
    [&[DEADLINE_PREFIX, keyspace as u8], key].concat().into()
}
