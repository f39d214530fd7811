//! Snapshots as files of a directory, one each.
//!
//! | name | what |
//! |---|---|
//! | `<id>.snapshot` | a complete one |
//! | `<id>.partial` | one being written; removed at open |
//! | `<id>.received` | one being received; kept over a restart, until another transfer begins |

mod format;
mod reader;
mod receiver;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use uuid::Uuid;

use self::format::Parser;
use self::reader::ContentReader;
use self::receiver::FileReceiver;
use self::writer::FileWriter;
use super::{
    RaftSnapshotStorage, SnapshotInfo, SnapshotMeta, SnapshotOptions, SnapshotReceiver, SnapshotWriter,
};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::{Error, Result};

const COMPLETE: &str = "snapshot";
const PARTIAL: &str = "partial";
const RECEIVED: &str = "received";

/// The snapshots of one shard replica, as files.
#[derive(Debug)]
pub struct FileSnapshots {
    shared: Arc<Shared>,
}

/// What the store shares with its writers and receivers.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: SnapshotOptions,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    complete: BTreeMap<Uuid, Entry>,
    /// Being written or received.
    busy: HashSet<Uuid>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// `None` when trailer or manifest are damaged: not listed, and an error when asked for.
    info: Option<SnapshotInfo>,
    file: Arc<dyn DiskFile>,
}

impl FileSnapshots {
    /// Opens the store of a directory, made when absent.
    ///
    /// # Errors
    /// [`Error::Options`], or what the disk answers. A damaged snapshot is no error here: it is not
    /// listed, and [`Error::Corrupt`] when it is read.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: SnapshotOptions) -> Result<Arc<Self>> {
        options.validate()?;
        disk.create_dir_all(dir)?;
        let mut index = Index::default();
        for name in disk.list(dir)? {
            let path = dir.join(&name);
            match path.extension().and_then(|kind| kind.to_str()) {
                Some(PARTIAL) => disk.remove(&path)?,
                Some(COMPLETE) => {
                    let stem = path.file_stem().and_then(|stem| stem.to_str());
                    let Some(id) = stem.and_then(|stem| stem.parse::<Uuid>().ok()) else { continue };
                    let file = disk.open(&path, OpenMode::Read)?;
                    let info = match examine(&*file, &path, id) {
                        Ok(info) => Some(info),
                        Err(error @ (Error::Corrupt { .. } | Error::Format { .. })) => {
                            tracing::error!(%error, "a snapshot cannot be used");
                            None
                        }
                        Err(other) => return Err(other),
                    };
                    index.complete.insert(id, Entry { info, file });
                }
                _ => {}
            }
        }
        let shared = Shared { disk, dir: dir.to_owned(), options, index: Mutex::new(index) };
        Ok(Arc::new(FileSnapshots { shared: Arc::new(shared) }))
    }

    /// Removes all but the newest `count` snapshots; at least one stays.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn retain(&self, count: usize) -> Result<()> {
        let list = self.list()?;
        let surplus = list.len().saturating_sub(count.max(1));
        for info in &list[..surplus] {
            self.delete(info.meta.id)?;
        }
        Ok(())
    }

    fn entry(&self, id: Uuid) -> Result<Entry> {
        let index = self.shared.index();
        index.complete.get(&id).cloned().ok_or_else(|| Error::NotFound { what: format!("snapshot {id}") })
    }
}

/// Reads what a file says of itself.
fn examine(file: &dyn DiskFile, path: &Path, id: Uuid) -> Result<SnapshotInfo> {
    let parser = Parser { file, path };
    parser.header(id)?;
    let (manifest, at) = parser.manifest()?;
    if manifest.meta.id != id {
        return Err(parser.corrupt(at, "manifest: it is another snapshot's"));
    }
    Ok(manifest.info(file.len()?))
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    fn path(&self, id: Uuid, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    /// Takes an id for a writer or receiver.
    fn claim(&self, id: Uuid) -> Result<()> {
        if self.index().busy.insert(id) {
            Ok(())
        } else {
            Err(Error::Locked { path: self.path(id, COMPLETE) })
        }
    }

    fn release(&self, id: Uuid) {
        self.index().busy.remove(&id);
    }

    /// Gives a synced file its name, durably, and lists it.
    fn publish(&self, id: Uuid, from: &Path, file: Arc<dyn DiskFile>, info: SnapshotInfo) -> Result<()> {
        self.disk.rename(from, &self.path(id, COMPLETE))?;
        self.disk.sync_dir(&self.dir)?;
        self.index().complete.insert(id, Entry { info: Some(info), file });
        Ok(())
    }

    /// Removes what other transfers left that go on no more.
    fn remove_abandoned(&self) -> Result<()> {
        for name in self.disk.list(&self.dir)? {
            let path = self.dir.join(&name);
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let busy = stem
                .and_then(|stem| stem.parse::<Uuid>().ok())
                .is_some_and(|id| self.index().busy.contains(&id));
            if path.extension().is_some_and(|kind| kind == RECEIVED) && !busy {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}

impl RaftSnapshotStorage for FileSnapshots {
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>> {
        let shared = &self.shared;
        if shared.index().complete.contains_key(&meta.id) {
            return Err(Error::Options { option: "id", reason: format!("snapshot {} exists", meta.id) });
        }
        shared.claim(meta.id)?;
        let id = meta.id;
        let started = FileWriter::start(shared.clone(), meta, created_unix_ms, shared.path(id, PARTIAL));
        match started {
            Ok(writer) => Ok(Box::new(writer)),
            Err(error) => {
                shared.release(id);
                Err(error)
            }
        }
    }

    fn receive(&self, id: Uuid, stored_bytes: u64) -> Result<Box<dyn SnapshotReceiver>> {
        let shared = &self.shared;
        if let Ok(Entry { info: Some(info), file }) = self.entry(id) {
            if info.stored_bytes != stored_bytes {
                let reason = format!("{stored_bytes}, but snapshot {id} has {}", info.stored_bytes);
                return Err(Error::Options { option: "stored_bytes", reason });
            }
            return Ok(Box::new(FileReceiver::complete(
                shared.clone(),
                id,
                shared.path(id, COMPLETE),
                file,
            )?));
        }
        shared.claim(id)?;
        let resumed = shared
            .remove_abandoned()
            .and_then(|()| FileReceiver::resume(shared.clone(), id, shared.path(id, RECEIVED), stored_bytes));
        match resumed {
            Ok(receiver) => Ok(Box::new(receiver)),
            Err(error) => {
                shared.release(id);
                Err(error)
            }
        }
    }

    fn read(&self, id: Uuid) -> Result<Box<dyn Read + Send>> {
        let entry = self.entry(id)?;
        Ok(Box::new(ContentReader::open(entry.file, self.shared.path(id, COMPLETE), id)?))
    }

    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes> {
        let file = self.entry(id)?.file;
        let left = file.len()?.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
        let count = file.read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes.into())
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let index = self.shared.index();
        let mut list: Vec<_> = index.complete.values().filter_map(|entry| entry.info.clone()).collect();
        list.sort_by_key(|info| {
            (info.meta.position.map(|position| position.index), info.created_unix_ms, info.meta.id)
        });
        Ok(list)
    }

    fn verify(&self, id: Uuid) -> Result<SnapshotInfo> {
        let entry = self.entry(id)?;
        ContentReader::open(entry.file, self.shared.path(id, COMPLETE), id)?.verify()
    }

    fn delete(&self, id: Uuid) -> Result<()> {
        self.shared.disk.remove(&self.shared.path(id, COMPLETE))?;
        self.shared.index().complete.remove(&id);
        self.shared.disk.sync_dir(&self.shared.dir)
    }
}
