//! Snapshots as files of a directory, one each.
//!
//! | name | what |
//! |---|---|
//! | `<id>.snapshot` | a complete one |
//! | `<id>.partial` | one being written; removed at open |
//! | `<id>.received` | one being received; kept over a restart, until another transfer begins |

mod alone;
mod codec;
mod encoder;
mod format;
mod manifest;
mod reader;
mod receiver;
mod shared;
mod writer;

pub use alone::SnapshotFile;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use self::reader::ContentReader;
use self::receiver::FileReceiver;
use self::shared::{Entry, Shared};
use self::writer::FileWriter;
use super::{
    RaftSnapshotStorage, RetainPolicy, SnapshotHold, SnapshotInfo, SnapshotMeta, SnapshotOptions,
    SnapshotReceiver, SnapshotWriter,
};
use crate::disk::{Disk, OpenMode};
use crate::{Error, Result};

pub(super) use self::format::HEADER_BYTES;

const COMPLETE: &str = "snapshot";
const PARTIAL: &str = "partial";
const RECEIVED: &str = "received";

/// The id in the first bytes of a stored form, when they are sound.
pub(super) fn id_of(header: &[u8; HEADER_BYTES]) -> Option<Uuid> {
    format::read_header(header).map(|(_, id)| id)
}

/// The snapshots of one shard replica, as files.
///
/// ```
/// use std::io::{Read, Write};
/// use std::sync::Arc;
/// use odgm_storage::disk::RealDisk;
/// use odgm_storage::snapshot::{
///     FileSnapshots, RaftSnapshotStorage, RetainPolicy, SnapshotMeta, SnapshotOptions,
/// };
///
/// let dir = tempfile::tempdir().unwrap();
/// let store = FileSnapshots::open(Arc::new(RealDisk), dir.path(), SnapshotOptions::default()).unwrap();
/// let meta = SnapshotMeta { id: uuid::Uuid::new_v4(), position: None, membership: "".into() };
/// let mut writer = store.create(meta.clone(), 1_700_000_000_000).unwrap();
/// writer.write_all(b"hello, snapshot").unwrap();
/// let info = writer.finish().unwrap();
/// assert_eq!(store.latest().unwrap(), Some(info));
/// let mut rest = String::new();
/// store.read_from(meta.id, 7).unwrap().read_to_string(&mut rest).unwrap();
/// assert_eq!(rest, "snapshot");
/// assert!(store.retain(RetainPolicy::Latest { count: 1 }, 1_700_000_000_000).unwrap().is_empty());
/// ```
#[derive(Debug)]
pub struct FileSnapshots {
    shared: Arc<Shared>,
}

/// Reads all of a snapshot file and compares every checksum; changes nothing.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::Format`] for what cannot be used, or what the disk answers.
pub(crate) fn verify_file(disk: &dyn Disk, path: &Path) -> Result<SnapshotInfo> {
    let unnamed =
        || Error::Corrupt { path: path.to_owned(), offset: 0, what: "name of a snapshot".to_owned() };
    let id = shared::id_in(path).ok_or_else(unnamed)?;
    ContentReader::open(disk.open(path, OpenMode::Read)?, Arc::default(), path.to_owned(), id)?.verify()
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
        let mut complete = BTreeMap::new();
        for name in disk.list(dir)? {
            let path = dir.join(&name);
            match path.extension().and_then(|kind| kind.to_str()) {
                Some(PARTIAL) => disk.remove(&path)?,
                Some(COMPLETE) => {
                    let Some(id) = shared::id_in(&path) else { continue };
                    let file = disk.open(&path, OpenMode::Read)?;
                    complete.insert(id, Entry::examine(file, &path, id)?);
                }
                _ => {}
            }
        }
        // The log is purged behind what is listed: a name that a process did not live to sync is synced now.
        disk.sync_dir(dir)?;
        let shared = Arc::new(Shared::new(disk, dir.to_owned(), options, complete));
        Ok(Arc::new(FileSnapshots { shared }))
    }

    fn reader(&self, id: Uuid) -> Result<ContentReader> {
        let Entry { file, held, .. } = self.shared.entry(id)?;
        ContentReader::open(file, held, self.shared.path(id, COMPLETE), id)
    }
}

impl RaftSnapshotStorage for FileSnapshots {
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>> {
        let shared = &self.shared;
        let id = meta.id;
        shared.claim(id)?;
        // Looked up under the claim: who held it before has published.
        let started = match shared.entry(id) {
            Ok(_) => Err(Error::Options { option: "id", reason: format!("snapshot {id} exists") }),
            Err(_) => FileWriter::start(shared.clone(), meta, created_unix_ms, shared.path(id, PARTIAL)),
        };
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
        if let Ok(entry @ Entry { info: Ok(_), .. }) = shared.entry(id) {
            let found = entry.file.len()?;
            if found != stored_bytes {
                let reason = format!("{stored_bytes}, but snapshot {id} has {found}");
                return Err(Error::Options { option: "stored_bytes", reason });
            }
            let path = shared.path(id, COMPLETE);
            return Ok(Box::new(FileReceiver::complete(shared.clone(), id, path, entry.file)?));
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

    fn read_from(&self, id: Uuid, offset: u64) -> Result<Box<dyn Read + Send>> {
        let reader = self.reader(id)?;
        Ok(Box::new(if offset == 0 { reader } else { reader.seek(offset)? }))
    }

    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes> {
        let entry = self.shared.entry(id)?;
        let left = entry.file.len()?.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
        let count = entry.file.read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes.into())
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        Ok(self.shared.index().list())
    }

    fn damaged(&self) -> Vec<(Uuid, Error)> {
        let index = self.shared.index();
        index.complete.iter().filter_map(|(id, entry)| Some((*id, entry.info.clone().err()?))).collect()
    }

    fn verify(&self, id: Uuid) -> Result<SnapshotInfo> {
        self.reader(id)?.verify()
    }

    fn delete(&self, id: Uuid) -> Result<()> {
        self.shared.remove(id)?;
        self.shared.index().complete.remove(&id);
        self.shared.sync_names()
    }

    fn hold(&self, id: Uuid) -> Result<SnapshotHold> {
        Ok(SnapshotHold { _held: self.shared.entry(id)?.held })
    }

    fn retain(&self, policy: RetainPolicy, now_unix_ms: u64) -> Result<Vec<Uuid>> {
        self.shared.retain(policy, now_unix_ms)
    }
}
