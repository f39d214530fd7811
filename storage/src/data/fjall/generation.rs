//! One generation of a store: a database that serves until an import replaces it, and whose
//! directory goes when it was replaced and its last view is dropped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::database::Database;
use super::memtables::WriteBuffers;
use crate::Result;

/// A database with what decides about its directory.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// `None` only while dropping.
    db: Option<Arc<Database>>,
    retired: AtomicBool,
    buffers: Arc<WriteBuffers>,
}

impl Generation {
    pub(super) fn new(number: u64, db: Arc<Database>, buffers: Arc<WriteBuffers>) -> Arc<Self> {
        Arc::new(Generation { number, db: Some(db), retired: AtomicBool::new(false), buffers })
    }

    pub(super) fn db(&self) -> &Database {
        self.db.as_ref().expect("only drop takes the database")
    }

    /// Lets the directory go with the last reference.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let path = db.path().to_owned();
        drop(db);
        if self.retired.load(Ordering::Acquire) {
            self.buffers.remove_later(path);
        }
    }
}

/// Removes a directory with all inside; absent is fine.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
