//! The disk of the operating system.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock, OpenMode};
use crate::{Error, Result};

/// The file system of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

/// Turns an error of the system into ours, keeping "not there" apart.
pub(super) fn refused(operation: &'static str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound { what: path.display().to_string() },
        // A quota is a full disk to us: both end when something is removed.
        ErrorKind::QuotaExceeded => Error::Full { path: path.to_owned() },
        _ => Error::io(operation, path, error),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write | OpenMode::WriteDirect => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(path).map_err(|e| refused("open", path, e))?;
        let file = RealFile { file, path: path.to_owned() };
        #[cfg(target_os = "linux")]
        if mode == OpenMode::WriteDirect {
            return Ok(match super::direct::DirectFile::over(file) {
                Ok(direct) => Arc::new(direct),
                Err(file) => Arc::new(file),
            });
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| refused("rename", from, e))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(refused("remove", path, e)),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        let entries = fs::read_dir(dir).map_err(|e| refused("list", dir, e))?;
        let mut names = entries
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| refused("list", dir, e))?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(|e| refused("create directory", dir, e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| refused("fsync directory", dir, e))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| refused("open", path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(e)) => Err(refused("lock", path, e)),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let stat = rustix::fs::statvfs(dir).map_err(|e| refused("statvfs", dir, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A file with the path it was opened by, for its errors.
#[derive(Debug)]
pub(super) struct RealFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| refused("write", &self.path, e))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(refused("read", &self.path, e)),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| refused("fdatasync", &self.path, e))
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| refused("fsync", &self.path, e))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| refused("ftruncate", &self.path, e))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|e| refused("stat", &self.path, e))?.len())
    }
}

/// The lock lives as long as the descriptor.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}
