//! Snapshots in memory: the same frames and checks as the files, on a disk that is a map.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use uuid::Uuid;

use super::file::FileSnapshots;
use super::{
    RaftSnapshotStorage, RetainPolicy, SnapshotHold, SnapshotInfo, SnapshotMeta, SnapshotOptions,
    SnapshotReceiver, SnapshotWriter,
};
use crate::disk::{Disk, DiskFile, DiskLock, OpenMode};
use crate::{Error, Result};

/// The snapshots of one shard replica, in memory; gone with the process.
#[derive(Debug)]
pub struct MemorySnapshots {
    files: Arc<FileSnapshots>,
}

impl MemorySnapshots {
    /// An empty store.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: SnapshotOptions) -> Result<Arc<Self>> {
        let files = FileSnapshots::open(Arc::new(MapDisk::default()), Path::new("memory"), options)?;
        Ok(Arc::new(MemorySnapshots { files }))
    }
}

impl RaftSnapshotStorage for MemorySnapshots {
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>> {
        self.files.create(meta, created_unix_ms)
    }

    fn receive(&self, id: Uuid, stored_bytes: u64) -> Result<Box<dyn SnapshotReceiver>> {
        self.files.receive(id, stored_bytes)
    }

    fn read_from(&self, id: Uuid, offset: u64) -> Result<Box<dyn Read + Send>> {
        self.files.read_from(id, offset)
    }

    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes> {
        self.files.read_stored(id, offset, len)
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        self.files.list()
    }

    fn verify(&self, id: Uuid) -> Result<SnapshotInfo> {
        self.files.verify(id)
    }

    fn damaged(&self) -> Vec<(Uuid, Error)> {
        self.files.damaged()
    }

    fn delete(&self, id: Uuid) -> Result<()> {
        self.files.delete(id)
    }

    fn hold(&self, id: Uuid) -> Result<SnapshotHold> {
        self.files.hold(id)
    }

    fn retain(&self, policy: RetainPolicy, now_unix_ms: u64) -> Result<Vec<Uuid>> {
        self.files.retain(policy, now_unix_ms)
    }
}

/// One flat directory of byte vectors.
#[derive(Debug, Default)]
struct MapDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MapFile>>>,
}

#[derive(Debug, Default)]
struct MapFile {
    bytes: RwLock<Vec<u8>>,
}

impl MapDisk {
    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<MapFile>>> {
        self.files.lock().expect("no holder of this lock panics")
    }
}

impl Disk for MapDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        let mut files = self.files();
        match (files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => {
                Err(Error::Options { option: "path", reason: format!("{} exists", path.display()) })
            }
            (None, OpenMode::Read | OpenMode::Write | OpenMode::WriteDirect) => {
                Err(Error::NotFound { what: path.display().to_string() })
            }
            (Some(file), _) => Ok(file.clone()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let file = Arc::new(MapFile::default());
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut files = self.files();
        let moved = files.remove(from).ok_or_else(|| Error::NotFound { what: from.display().to_string() })?;
        files.insert(to.to_owned(), moved);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.files().remove(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        let files = self.files();
        let here = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn create_dir_all(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn DiskLock>> {
        Ok(Box::new(MapLock))
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        Ok(u64::MAX)
    }
}

/// Nobody else can reach the map.
#[derive(Debug)]
struct MapLock;

impl DiskLock for MapLock {}

impl DiskFile for MapFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut all = self.bytes.write().expect("no holder of this lock panics");
        let start = offset as usize;
        let end = start + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let all = self.bytes.read().expect("no holder of this lock panics");
        let from = all.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.write().expect("no holder of this lock panics").resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.read().expect("no holder of this lock panics").len() as u64)
    }
}
