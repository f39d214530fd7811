//! A disk whose failed fsyncs are not told: as of a program that does not look at the result.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use odgm_storage::disk::{Disk, DiskFile, DiskLock, OpenMode, SimDisk};
use odgm_storage::{Error, Result};

/// The planted bug "ignore a failed fsync", below all layers.
#[derive(Debug)]
pub(crate) struct ForgivingDisk(pub(crate) SimDisk);

impl Disk for ForgivingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(ForgivingFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        self.0.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.0.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        forgiven(self.0.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.0.free_bytes(dir)
    }
}

fn forgiven(synced: Result<()>) -> Result<()> {
    match synced {
        Err(Error::Io { .. }) => Ok(()),
        other => other,
    }
}

#[derive(Debug)]
struct ForgivingFile(Arc<dyn DiskFile>);

impl DiskFile for ForgivingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(into, offset)
    }

    fn sync_data(&self) -> Result<()> {
        forgiven(self.0.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        forgiven(self.0.sync_all())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }
}
