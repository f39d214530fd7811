//! An open fjall database with the keyspaces of a shard, and every call of fjall that its public
//! documentation does not promise: rotation, sizes of memtables, a shared cache, no workers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{AbstractTree, CompressionType, Database as Fjall, KeyspaceCreateOptions, PersistMode, Snapshot};

use super::{engine_error, journal, name};
use crate::data::{Durability, Keyspace, WriteBatch};
use crate::{Error, Result};

/// Fjall's own rotation never starts below this.
const NEVER_ROTATE_BYTES: u64 = 1 << 50;
/// Above this fjall would ask its workers to rotate; ours has rotated long before.
const JOURNALS_BYTES: u64 = 8 << 30;
/// Tables that a database keeps open: a node has hundreds of databases.
const OPEN_FILES: usize = 128;
/// The block cache that the databases of a node share.
pub(super) struct SharedCache(fjall::Config);

impl fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCache").field("capacity", &self.0.cache.capacity()).finish()
    }
}

impl SharedCache {
    pub(super) fn new(bytes: u64) -> Self {
        // The type of the cache has no public name: a configuration carries it. Nothing is opened.
        SharedCache(Fjall::builder(".").cache_size(bytes).into_config())
    }
}

/// Who opens a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A shard: with so many workers that flush and compact.
    Serve(usize),
    /// A reader of a checkpoint: nothing in it changes.
    Read,
}

/// A database and its four keyspaces.
pub(super) struct Database {
    path: PathBuf,
    keyspaces: [fjall::Keyspace; 4],
    db: Fjall,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the memtables of one keyspace weigh.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemtableSizes {
    pub(super) active: u64,
    /// Active, sealed, and those that an open view still needs.
    pub(super) all: u64,
    pub(super) sealed: usize,
}

/// A tree at one of its versions.
pub(super) struct FrozenTree<V> {
    pub(super) keyspace: Keyspace,
    pub(super) version: u64,
    /// Numbers of the tables, with the xxh3-128 of their files.
    pub(super) tables: Vec<(u64, u128)>,
    /// Keeps the files.
    _held: V,
}

impl Database {
    /// Opens a database, making it when absent.
    pub(super) fn open(path: &Path, cache: &SharedCache, purpose: Purpose) -> Result<Arc<Self>> {
        let fail = |error| engine_error("open", path, error);
        journal::check_versions(path)?;
        journal::inspect(path)?;
        let workers = match purpose {
            Purpose::Serve(workers) => workers,
            Purpose::Read => 0,
        };
        let mut config = Fjall::builder(path)
            .worker_threads_unchecked(workers)
            .journal_compression(CompressionType::Lz4)
            .max_journaling_size(JOURNALS_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .into_config();
        config.cache = cache.0.cache.clone();
        let db = Fjall::open(config).map_err(fail)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(NEVER_ROTATE_BYTES);
        let [data, index, history, meta] = Keyspace::ALL.map(|keyspace| db.keyspace(name(keyspace), options));
        let keyspaces =
            [data.map_err(fail)?, index.map_err(fail)?, history.map_err(fail)?, meta.map_err(fail)?];
        Ok(Arc::new(Database { path: path.to_owned(), keyspaces, db }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        &self.keyspaces[keyspace.slot()]
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// Writes a batch in which no key comes twice.
    pub(super) fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let mode = match durability {
            Durability::Later => PersistMode::Buffer,
            Durability::Now => PersistMode::SyncData,
        };
        let mut commit = self.db.batch().durability(Some(mode));
        for (keyspace, key, value) in &batch.operations {
            match value {
                Some(value) => commit.insert(self.keyspace(*keyspace), &key[..], &value[..]),
                None => commit.remove(self.keyspace(*keyspace), &key[..]),
            }
        }
        commit.commit().map_err(|error| engine_error("write", &self.path, error))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.db.persist(PersistMode::SyncAll).map_err(|error| engine_error("fsync", &self.path, error))
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or_else(|_| self.keyspaces.iter().map(fjall::Keyspace::disk_space).sum())
    }

    pub(super) fn journals(&self) -> usize {
        self.db.journal_count()
    }

    pub(super) fn memtable_sizes(&self, keyspace: Keyspace) -> MemtableSizes {
        let tree = &self.keyspace(keyspace).tree;
        let active = tree.active_memtable().size();
        MemtableSizes {
            active,
            all: tree.version_memtable_size_sum().max(active),
            sealed: tree.sealed_memtable_count(),
        }
    }

    /// Hands the active memtable to a worker, which syncs the journal and writes a table.
    pub(super) fn rotate(&self, keyspace: Keyspace) -> Result<()> {
        let rotated = self.keyspace(keyspace).rotate_memtable();
        rotated.map(drop).map_err(|error| engine_error("rotate", &self.path, error))
    }

    /// Writes all memtables to tables, on this thread: it waits for no worker that compacts. Complete when
    /// nobody writes meanwhile.
    ///
    /// The journal is synced first, as fjall's workers do: else a crash in between could leave one
    /// keyspace's part of a batch in a table and lose the others' with the journal. A worker that comes
    /// to a memtable later than this finds it gone.
    ///
    /// Writers wait while fjall syncs its journal, so most of it is synced beside fjall before.
    pub(super) fn flush(&self) -> Result<()> {
        for (_, path) in journal::journals(&self.path)? {
            match std::fs::File::open(&path).and_then(|file| file.sync_data()) {
                // It was flushed and removed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(|error| Error::io("fsync", path, error))?,
            }
        }
        self.sync()?;
        for keyspace in Keyspace::ALL {
            self.rotate(keyspace)?;
            let tree = &self.keyspace(keyspace).tree;
            let threshold = self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            let flushed = tree.flush(&tree.get_flush_lock(), threshold);
            flushed.map_err(|error| engine_error("flush", &self.path, error.into()))?;
        }
        Ok(())
    }

    /// Rewrites all tables of all keyspaces.
    pub(super) fn compact(&self) -> Result<()> {
        let compacted = self.keyspaces.iter().try_for_each(fjall::Keyspace::major_compact);
        compacted.map_err(|error| engine_error("compact", &self.path, error))
    }

    /// The number that the next write takes.
    pub(super) fn sequence(&self) -> u64 {
        self.db.supervisor.seqno.get()
    }

    /// Rows, with versions and tombstones that are not compacted yet.
    pub(super) fn approximate_rows(&self) -> [u64; 4] {
        Keyspace::ALL.map(|keyspace| self.keyspace(keyspace).approximate_len() as u64)
    }

    pub(super) fn tables(&self) -> u64 {
        self.keyspaces.iter().map(|keyspace| keyspace.table_count() as u64).sum()
    }

    /// Where a keyspace's tree lies, below the database.
    pub(super) fn tree_dir(&self, keyspace: Keyspace) -> String {
        format!("keyspaces/{}", self.keyspace(keyspace).id())
    }

    /// The tables of a tree at its present version. They stay on disk while the result lives.
    pub(super) fn frozen_tree(&self, keyspace: Keyspace) -> FrozenTree<impl Sized + use<>> {
        let version = self.keyspace(keyspace).tree.current_version();
        let tables = version.iter_tables().map(|table| (table.id(), table.checksum().into_u128())).collect();
        FrozenTree { keyspace, version: version.id(), tables, _held: version }
    }

    /// Passes a sequence number that no row has, so that what was there before can be forgotten. The
    /// caller excludes writes: else a batch with a lower number would become visible half applied.
    pub(super) fn advance(&self) {
        let supervisor = &self.db.supervisor;
        supervisor.snapshot_tracker.publish(supervisor.seqno.next());
    }

    /// Drops the memtables that old versions hold and no snapshot needs. fjall does it at the next
    /// rotation, which an idle database never sees. It recounts its snapshots at every 10,000th close.
    pub(super) fn forget_versions(&self) {
        for _ in 0..10_000 {
            drop(self.db.snapshot());
        }
        let watermark = self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        for keyspace in &self.keyspaces {
            let forgotten = keyspace.tree.get_version_history_lock().maintenance(keyspace.path(), watermark);
            if let Err(error) = forgotten {
                tracing::warn!(?error, path = %self.path.display(), "old versions were not removed");
            }
        }
    }
}
