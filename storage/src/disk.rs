//! The disk as own files see it: every byte that this crate writes itself goes through [`Disk`].
//!
//! Two disks: [`RealDisk`], and under feature `testing` `SimDisk`, which loses, tears and reorders
//! what was not synced. A file's bytes are durable after [`DiskFile::sync_data`]; its *name* is durable
//! after [`Disk::sync_dir`] of the directory that holds it. Nothing else promises anything.

#[cfg(target_os = "linux")]
mod direct;
mod real;
#[cfg(feature = "testing")]
mod sim;

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;
#[cfg(feature = "testing")]
pub use sim::{Fault, SimDisk};

use crate::Result;

/// Bytes that begin at a multiple of this in memory can be given to every disk as they are.
pub(crate) const ALIGNED: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// As [`OpenMode::Write`], for a file that is synced after each write: whole blocks of 512 bytes that begin at a
    /// multiple of 4096 in memory go past the cache of the operating system, where it knows how. Readers see no
    /// difference.
    WriteDirect,
    /// For reading and writing; made when absent, its bytes kept when not.
    Create,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. A missing one is [`crate::Error::NotFound`], except for the creating modes.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>>;

    /// Names what was called `from` `to`, replacing a file there. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file; absent is fine. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> Result<()>;

    /// The names in a directory, sorted. A missing one is [`crate::Error::NotFound`].
    fn list(&self, dir: &Path) -> Result<Vec<OsString>>;

    /// Makes a directory and those above it; present is fine.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Takes the exclusive lock of a file, made when absent; released when the guard is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Locked`] when someone holds it; never waits.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>>;

    /// Bytes that this process may still write under `dir`.
    fn free_bytes(&self, dir: &Path) -> Result<u64>;
}

/// An open file. Calls on one file may come from several threads.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all bytes at an offset, growing the file where it is shorter.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Reads at an offset until `into` is full or the file ends; says how many bytes came.
    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize>;

    /// Makes all bytes written so far, and the length, durable.
    fn sync_data(&self) -> Result<()>;

    /// As [`DiskFile::sync_data`], with times and other metadata.
    fn sync_all(&self) -> Result<()>;

    /// Cuts the file or extends it by zeroes.
    fn set_len(&self, len: u64) -> Result<()>;

    /// The length now.
    fn len(&self) -> Result<u64>;

    /// Whether there is no byte in it.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// An exclusive lock, held until dropped.
pub trait DiskLock: Send + Sync + Debug {}
