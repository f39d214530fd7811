//! The writer lock of a store: one writer at a time, and what writers remember between them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::Definition;
use super::{DataView, Keyspace, WriteBatch, index};
use crate::Result;

/// Definitions as they were last read; `None` when they must be read again.
type Known = Option<Arc<[Definition]>>;

/// Excludes the writers of a store from each other. Each store owns one.
#[derive(Debug, Default)]
pub struct WriterLock(Mutex<Known>);

impl WriterLock {
    /// Waits for the other writer.
    pub fn lock(&self) -> Writer<'_> {
        // A writer that panicked has written its batch or not: there is no state in between.
        Writer { lock: self, known: self.0.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// The one writer of a store, until dropped. It stays on its thread.
#[derive(Debug)]
pub struct Writer<'a> {
    lock: &'a WriterLock,
    known: MutexGuard<'a, Known>,
}

impl Writer<'_> {
    /// Stops a mix-up of stores, which would write beside another store's writer.
    pub(super) fn assert_of(&self, lock: &WriterLock) {
        assert!(std::ptr::eq(self.lock, lock), "a writer writes to the store that it was taken from");
    }

    /// Notes what was written.
    pub(super) fn wrote(&mut self, batch: &WriteBatch) {
        let mut keys = batch.operations.iter().filter(|(keyspace, ..)| *keyspace == Keyspace::Index);
        if keys.any(|(_, key, _)| index::is_definition(key)) {
            self.forget();
        }
    }

    /// Notes that all data was replaced.
    pub(super) fn forget(&mut self) {
        *self.known = None;
    }

    /// The secondary indexes of the store, of which `view` is the present state.
    pub(super) fn indexes(&mut self, view: &dyn DataView) -> Result<Arc<[Definition]>> {
        if let Some(known) = &*self.known {
            return Ok(known.clone());
        }
        let read: Arc<[Definition]> = index::definitions(view)?.into();
        *self.known = Some(read.clone());
        Ok(read)
    }
}
