//! Write transactions: reads see the transaction's own writes, all take effect together or not at all.
//!
//! A transaction holds the writer lock of its store from begin to end, so there are no conflicts to find:
//! what it read stays true until it commits. Keep it short, and on one thread.

use bytes::Bytes;

use super::expiry::{self, Expired};
use super::merge::Pending;
use super::{
    ApplicationDataStorage, DataView, Durability, Keyspace, MAX_KEY_BYTES, MAX_VALUE_BYTES,
    RESERVED_PREFIX_END, WriteBatch, Writer, index,
};
use crate::{Error, Result};

/// What became of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The value was the expected one and is replaced.
    Done,
    /// The value is another one, this, and stays.
    Refused(Option<Bytes>),
}

/// An open write transaction; dropped without [`Transaction::commit`], it leaves nothing behind. What it
/// writes is held in memory until then.
///
/// Every put and delete keeps the row's secondary indexes and its expiry; a put without a deadline ends
/// the row's old one.
///
/// ```
/// use odgm_storage::data::{ApplicationDataStorage, Durability, Keyspace, MemoryData, Swap, Transaction};
///
/// let store = MemoryData::new(1 << 20);
/// let mut writes = Transaction::begin(&store);
/// writes.put(Keyspace::Data, "owner", "alice").unwrap();
/// assert_eq!(writes.increment(Keyspace::Data, "visits", 2).unwrap(), 2);
/// let swap = writes.compare_and_swap(Keyspace::Data, "owner", Some(b"bob"), Some("eve".into())).unwrap();
/// assert_eq!(swap, Swap::Refused(Some("alice".into())));
/// writes.commit(Durability::Now).unwrap();
/// assert!(store.view().exists(Keyspace::Data, b"visits").unwrap());
/// ```
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<'s> {
    store: &'s dyn ApplicationDataStorage,
    writer: Writer<'s>,
    pending: Pending,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<'s> Transaction<'s> {
    /// Waits for the writer lock of the store and begins.
    pub fn begin(store: &'s dyn ApplicationDataStorage) -> Self {
        let writer = store.lock_writer();
        Transaction { store, writer, pending: Pending::over(store.view()) }
    }

    /// The state with what this transaction wrote: get, multi-get, scan, pages, indexes, expiries.
    #[must_use]
    pub fn view(&self) -> &dyn DataView {
        &self.pending
    }

    /// The value of a key, as this transaction sees it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.pending.get(keyspace, key)
    }

    /// Sets a key, to stay.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::Refused`] for a key of the data layer's own; nothing was written.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.set(keyspace, &key.into(), Some(value.into()), Deadline::Never)
    }

    /// Sets a key until a moment: from then on it is listed by [`Transaction::expired`].
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_until(
        &mut self,
        keyspace: Keyspace,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        deadline_unix_ms: u64,
    ) -> Result<()> {
        self.set(keyspace, &key.into(), Some(value.into()), Deadline::At(deadline_unix_ms))
    }

    /// Sets a key for a time from `now_unix_ms` on. A time that ends behind the last moment is for ever.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_with_ttl(
        &mut self,
        keyspace: Keyspace,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        now_unix_ms: u64,
        ttl: std::time::Duration,
    ) -> Result<()> {
        let ttl_ms = u64::try_from(ttl.as_millis()).ok();
        match ttl_ms.and_then(|ttl_ms| now_unix_ms.checked_add(ttl_ms)) {
            Some(deadline) => self.put_until(keyspace, key, value, deadline),
            None => self.put(keyspace, key, value),
        }
    }

    /// Removes a key; absent is fine. Says whether it was there.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) -> Result<bool> {
        let key = key.into();
        let existed = self.pending.exists(keyspace, &key)?;
        self.set(keyspace, &key, None, Deadline::Never)?;
        Ok(existed)
    }

    /// Replaces a value that is the expected one; `None` is absent. A value that is set stays, as by put.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn compare_and_swap(
        &mut self,
        keyspace: Keyspace,
        key: impl Into<Bytes>,
        expected: Option<&[u8]>,
        value: Option<Bytes>,
    ) -> Result<Swap> {
        let key = key.into();
        let found = self.pending.get(keyspace, &key)?;
        if found.as_deref() != expected {
            return Ok(Swap::Refused(found));
        }
        self.set(keyspace, &key, value, Deadline::Never)?;
        Ok(Swap::Done)
    }

    /// Adds to a counter and returns what it then is. A counter is an i64 in 8 bytes, little-endian;
    /// absent is 0. Its deadline stays.
    ///
    /// # Errors
    /// [`Error::Refused`] for a value that is no counter, and for a sum that does not fit.
    pub fn increment(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, by: i64) -> Result<i64> {
        let key = key.into();
        let refused = |reason: String| Error::Refused { what: "an increment", reason };
        let present = match self.pending.get(keyspace, &key)? {
            None => 0,
            Some(value) => i64::from_le_bytes(
                value[..]
                    .try_into()
                    .map_err(|_| refused(format!("the value has {} bytes, a counter 8", value.len())))?,
            ),
        };
        let sum = present.checked_add(by).ok_or_else(|| refused(format!("{present} + {by} overflows")))?;
        let value = Bytes::copy_from_slice(&sum.to_le_bytes());
        self.set(keyspace, &key, Some(value), Deadline::AsBefore)?;
        Ok(sum)
    }

    /// Sets a new deadline of a row, or none; `false` when there is no such row.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn touch(
        &mut self,
        keyspace: Keyspace,
        key: impl Into<Bytes>,
        deadline_unix_ms: Option<u64>,
    ) -> Result<bool> {
        let key = key.into();
        let Some(value) = self.pending.get(keyspace, &key)? else { return Ok(false) };
        let deadline = deadline_unix_ms.map_or(Deadline::Never, Deadline::At);
        self.set(keyspace, &key, Some(value), deadline)?;
        Ok(true)
    }

    /// At most `limit` rows whose deadline is at or before `now_unix_ms`, the earliest first.
    ///
    /// # Errors
    /// What the store answers.
    pub fn expired(&self, now_unix_ms: u64, limit: usize) -> Result<Vec<Expired>> {
        expiry::expired(&self.pending, now_unix_ms, limit)
    }

    /// Removes the rows that [`Transaction::expired`] lists, and says which.
    ///
    /// # Errors
    /// What the store answers.
    pub fn sweep(&mut self, now_unix_ms: u64, limit: usize) -> Result<Vec<Expired>> {
        let expired = self.expired(now_unix_ms, limit)?;
        for row in &expired {
            self.set(row.keyspace, &row.key, None, Deadline::Never)?;
        }
        Ok(expired)
    }

    /// Lets everything take effect, atomically; visible when it returns, durable as asked. Without a
    /// write it costs nothing.
    ///
    /// # Errors
    /// As [`ApplicationDataStorage::write_as`]; the transaction is rolled back then.
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.store.write_as(&mut self.writer, self.pending.into_batch(), durability)
    }

    /// Forgets everything, as dropping does.
    pub fn rollback(self) {}

    /// Adds rows as they are.
    pub(super) fn add_rows(&mut self, rows: WriteBatch) {
        self.pending.apply(rows);
    }

    fn set(
        &mut self,
        keyspace: Keyspace,
        key: &Bytes,
        value: Option<Bytes>,
        deadline: Deadline,
    ) -> Result<()> {
        check(keyspace, key, value.as_ref())?;
        let mut rows = WriteBatch::default();
        let indexes = self.writer.indexes(&self.pending)?;
        if indexes.iter().any(|index| index.keyspace.0 == keyspace) {
            let before = self.pending.get(keyspace, key)?;
            index::follow(&mut rows, &indexes, keyspace, key, before.as_ref(), value.as_ref())?;
        }
        let after = match deadline {
            Deadline::Never => Some(None),
            Deadline::At(deadline) => Some(Some(deadline)),
            Deadline::AsBefore => None,
        };
        if let Some(after) = after {
            let before = expiry::deadline(&self.pending, keyspace, key)?;
            expiry::change(&mut rows, keyspace, key, before, after)?;
        }
        rows.operations.push((keyspace, key.clone(), value));
        self.pending.apply(rows);
        Ok(())
    }
}

/// What a write says about the row's deadline.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Never,
    At(u64),
    AsBefore,
}

fn check(keyspace: Keyspace, key: &Bytes, value: Option<&Bytes>) -> Result<()> {
    let too_large = |what, found: usize, limit: usize| {
        Err(Error::TooLarge { what, found: found as u64, limit: limit as u64 })
    };
    if key.is_empty() {
        return too_large("an empty key", 0, MAX_KEY_BYTES);
    }
    if key.len() > MAX_KEY_BYTES {
        return too_large("a key", key.len(), MAX_KEY_BYTES);
    }
    if let Some(value) = value.filter(|value| value.len() > MAX_VALUE_BYTES) {
        return too_large("a value", value.len(), MAX_VALUE_BYTES);
    }
    if keyspace == Keyspace::Index && key[0] < RESERVED_PREFIX_END {
        let reason = format!("keys below {RESERVED_PREFIX_END:#04x} are the data layer's own");
        return Err(Error::Refused { what: "a key of the index keyspace", reason });
    }
    Ok(())
}
