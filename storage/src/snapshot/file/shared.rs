//! What a store of files shares with its writers, receivers and readers: the index and the names.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::format::Parser;
use super::{COMPLETE, RECEIVED};
use crate::disk::{Disk, DiskFile};
use crate::snapshot::{RetainPolicy, SnapshotInfo, SnapshotOptions};
use crate::{Error, Result};

/// A store without its face.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) options: SnapshotOptions,
    index: Mutex<Index>,
    /// A removed name may come back with a loss of power, because a sync of the directory failed.
    unsynced: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) complete: BTreeMap<Uuid, Entry>,
    /// Being written or received.
    busy: HashSet<Uuid>,
}

/// A file with a snapshot's final name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Why it cannot be used, when header, trailer or manifest are damaged.
    pub(super) info: Result<SnapshotInfo>,
    pub(super) file: Arc<dyn DiskFile>,
    /// Cloned by whoever reads: with more than one the snapshot is held.
    pub(super) held: Arc<()>,
}

impl Entry {
    pub(super) fn new(info: Result<SnapshotInfo>, file: Arc<dyn DiskFile>) -> Self {
        Entry { info, file, held: Arc::default() }
    }

    /// Reads what a file says of itself.
    ///
    /// # Errors
    /// What the disk answers; damage becomes part of the entry.
    pub(super) fn examine(file: Arc<dyn DiskFile>, path: &Path, id: Uuid) -> Result<Self> {
        let info = match examine(&*file, path, id) {
            Err(error @ (Error::Corrupt { .. } | Error::Format { .. })) => {
                tracing::error!(%error, "a snapshot cannot be used");
                Err(error)
            }
            other => Ok(other?),
        };
        Ok(Entry::new(info, file))
    }
}

fn examine(file: &dyn DiskFile, path: &Path, id: Uuid) -> Result<SnapshotInfo> {
    let parser = Parser { file, path };
    let (manifest, at) = parser.manifest(parser.header(id)?)?;
    if manifest.meta.id != id {
        return Err(parser.corrupt(at, "manifest: it is another snapshot's"));
    }
    Ok(manifest.info(file.len()?))
}

impl Index {
    /// What can be used, oldest first.
    pub(super) fn list(&self) -> Vec<SnapshotInfo> {
        let mut list: Vec<_> =
            self.complete.values().filter_map(|entry| entry.info.as_ref().ok().cloned()).collect();
        list.sort_by_key(|info| {
            (info.meta.position.map(|position| position.index), info.created_unix_ms, info.meta.id)
        });
        list
    }
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: SnapshotOptions,
        complete: BTreeMap<Uuid, Entry>,
    ) -> Self {
        let index = Mutex::new(Index { complete, busy: HashSet::new() });
        Shared { disk, dir, options, index, unsynced: AtomicBool::new(false) }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    pub(super) fn path(&self, id: Uuid, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    pub(super) fn entry(&self, id: Uuid) -> Result<Entry> {
        let index = self.index();
        index.complete.get(&id).cloned().ok_or_else(|| Error::NotFound { what: format!("snapshot {id}") })
    }

    /// Takes an id for a writer or receiver.
    pub(super) fn claim(&self, id: Uuid) -> Result<()> {
        if self.index().busy.insert(id) {
            Ok(())
        } else {
            Err(Error::Locked { path: self.path(id, COMPLETE) })
        }
    }

    pub(super) fn release(&self, id: Uuid) {
        self.index().busy.remove(&id);
    }

    /// Gives a synced file its name, durably, and lists it.
    pub(super) fn publish(
        &self,
        id: Uuid,
        from: &Path,
        file: Arc<dyn DiskFile>,
        info: SnapshotInfo,
    ) -> Result<()> {
        self.disk.rename(from, &self.path(id, COMPLETE))?;
        self.sync_names()?;
        self.index().complete.insert(id, Entry::new(Ok(info), file));
        Ok(())
    }

    /// Removes what the policy lets go and nobody holds.
    pub(super) fn retain(&self, policy: RetainPolicy, now_unix_ms: u64) -> Result<Vec<Uuid>> {
        let let_go: Vec<(Uuid, Entry)> = {
            let mut index = self.index();
            let mut surplus = policy.surplus(&index.list(), now_unix_ms);
            // Whoever takes hold of it later finds it gone.
            surplus.retain(|id| index.complete.get(id).is_some_and(|e| Arc::strong_count(&e.held) == 1));
            surplus.into_iter().filter_map(|id| index.complete.remove_entry(&id)).collect()
        };
        if let_go.is_empty() && !self.unsynced.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let mut removed = Vec::new();
        let mut failed = Ok(());
        for (id, entry) in let_go {
            if failed.is_ok() {
                failed = self.remove(id);
            }
            if failed.is_ok() {
                removed.push(id);
            } else {
                // Its file may still be there.
                self.index().complete.entry(id).or_insert(entry);
            }
        }
        self.sync_names()?;
        failed.map(|()| removed)
    }

    /// Removes the file of a complete snapshot; durable after [`Shared::sync_names`].
    pub(super) fn remove(&self, id: Uuid) -> Result<()> {
        self.unsynced.store(true, Ordering::Release);
        self.disk.remove(&self.path(id, COMPLETE))
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync_names(&self) -> Result<()> {
        self.unsynced.store(false, Ordering::Release);
        let synced = self.disk.sync_dir(&self.dir);
        if synced.is_err() {
            self.unsynced.store(true, Ordering::Release);
        }
        synced
    }

    /// Removes what other transfers left that go on no more.
    pub(super) fn remove_abandoned(&self) -> Result<()> {
        for name in self.disk.list(&self.dir)? {
            let path = self.dir.join(&name);
            let busy = id_in(&path).is_some_and(|id| self.index().busy.contains(&id));
            if path.extension().is_some_and(|kind| kind == RECEIVED) && !busy {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The id in a file's name.
pub(super) fn id_in(path: &Path) -> Option<Uuid> {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
}
