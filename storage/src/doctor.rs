//! Looks at the data directory of a node that does not run: what is damaged, by file and offset, and what can
//! be done about it.
//!
//! A check changes no byte of the directory. What only an engine can read is opened as a copy in a scratch
//! directory: its tables are linked symbolically, and only what the engine writes to is copied. It reads
//! every frame of the log, every table and every snapshot, so it takes as long as reading all of it.
//!
//! ```
//! use std::sync::Arc;
//! use odgm_storage::composite::{CompositeOptions, CompositeStorage};
//! use odgm_storage::disk::RealDisk;
//! use odgm_storage::doctor::Doctor;
//! use odgm_storage::log::GroupId;
//!
//! let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
//! let clock = Arc::new(|| std::time::Duration::ZERO);
//! let storage =
//!     CompositeStorage::open(Arc::new(RealDisk), dir.path(), CompositeOptions::default(), clock).unwrap();
//! storage.shard(GroupId(1), 1).unwrap();
//! storage.close().unwrap();
//! drop(storage);
//! let report = Doctor::open(dir.path(), scratch.path()).unwrap().check().unwrap();
//! assert!(report.is_healthy(), "{report:?}");
//! ```

mod backends;
mod finding;
mod log;
mod migrate;
mod repair;
mod replica;
mod report;

use std::path::{Path, PathBuf};

pub use finding::{Finding, Part, Remedy, Severity};
pub use migrate::Migration;
pub use repair::Repair;
pub use report::{Checked, Report};

use self::backends::Backends;
use crate::disk::{Disk, DiskLock, RealDisk};
use crate::{Error, Result};

/// The data directory of a node that does not run, locked while this lives.
#[derive(Debug)]
pub struct Doctor {
    dir: PathBuf,
    scratch: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl Doctor {
    /// Takes the lock of a data directory. `scratch` is an existing, empty directory outside of it, which
    /// needs room for the journals of the log and of one replica; the caller removes it.
    ///
    /// # Errors
    /// [`Error::Locked`] while a node runs on it; [`Error::NotFound`] when no node ever did.
    pub fn open(dir: &Path, scratch: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|error| Error::io("find", dir, error))?;
        let lock = dir.join(crate::composite::LOCK);
        // Taking a lock makes its file: a directory that is none of ours stays as it is.
        if !lock.exists() {
            return Err(Error::NotFound { what: format!("{}: the data of a node", dir.display()) });
        }
        let lock = RealDisk.lock(&lock)?;
        Ok(Doctor { dir, scratch: scratch.to_owned(), _lock: lock })
    }

    /// Reads everything and says what it found.
    ///
    /// # Errors
    /// What concerns the scratch directory, or a directory that cannot be listed; what is wrong with the
    /// data is no error but a [`Finding`].
    pub fn check(&self) -> Result<Report> {
        let mut report = Report::default();
        let backends = Backends::find(&self.dir, &mut report)?;
        report.layers = backends.layers;
        log::check(self, &backends, &mut report)?;
        replica::check_all(self, &backends, &mut report)?;
        report.findings.sort_by(|a, b| (a.severity, &a.path, a.offset).cmp(&(b.severity, &b.path, b.offset)));
        Ok(report)
    }

    /// The part of [`Doctor::check`] that reads the log.
    fn check_log(&self) -> Result<Report> {
        let mut report = Report::default();
        let backends = Backends::find(&self.dir, &mut report)?;
        log::check(self, &backends, &mut report)?;
        Ok(report)
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.join(crate::composite::LOG)
    }

    fn shards_dir(&self) -> PathBuf {
        self.dir.join(crate::composite::SHARDS)
    }
}
