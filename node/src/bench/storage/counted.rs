//! The real disk, with a count of the bytes that are written to it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odgm_storage::Result;
use odgm_storage::disk::{Disk, DiskFile, DiskLock, OpenMode, RealDisk};

/// Counts what all files together are written.
#[derive(Debug, Default)]
pub(super) struct CountedDisk {
    written: Arc<AtomicU64>,
}

impl CountedDisk {
    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Disk for CountedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(CountedFile { file, written: Arc::clone(&self.written) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    written: Arc<AtomicU64>,
}

impl DiskFile for CountedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(into, offset)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }
}
