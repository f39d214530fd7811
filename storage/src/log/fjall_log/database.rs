//! The Fjall database below the log, with every call that Fjall's public documentation does not promise.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{
    AbstractTree, CompressionType, Database as Fjall, Guard, Keyspace, KeyspaceCreateOptions, PersistMode,
    Readable,
};

use super::rows::{VERSION, entry_key};
use crate::data::fjall::engine_error;
use crate::log::GroupId;
use crate::{Error, Result};

/// Fjall's own rotation never starts below this.
const NEVER_ROTATE_BYTES: u64 = 1 << 50;
/// Above this Fjall would ask its workers to rotate; the committer has rotated long before.
const JOURNALS_BYTES: u64 = 64 << 30;
/// Sealed memtables that wait for the disk; Fjall makes writers sleep for 100 ms at four.
const SEALED_LIMIT: usize = 2;
/// How long a flush may take before it counts as stuck.
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);
const FORMAT: &[u8] = b"format";
const BATCH: &[u8] = b"batch";

/// A row to be written (`Some`) or removed.
pub(super) type Change = Option<Vec<u8>>;

/// The database of a log.
pub(super) struct Database {
    path: PathBuf,
    entries: Keyspace,
    groups: Keyspace,
    meta: Keyspace,
    /// Dropped last: it waits for the workers.
    db: Fjall,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens a database, making it when absent.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fail = |error| engine_error("open", path, error);
        let db = Fjall::builder(path)
            .worker_threads_unchecked(2)
            .journal_compression(CompressionType::Lz4)
            .max_journaling_size(JOURNALS_BYTES)
            .open()
            .map_err(fail)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(NEVER_ROTATE_BYTES);
        let [entries, groups, meta] = ["entries", "groups", "meta"].map(|name| db.keyspace(name, options));
        let database = Database {
            path: path.to_owned(),
            entries: entries.map_err(fail)?,
            groups: groups.map_err(fail)?,
            meta: meta.map_err(fail)?,
            db,
        };
        match database.meta(FORMAT)? {
            Some(found) if found == [VERSION] => {}
            Some(found) => {
                return Err(Error::Format {
                    path: path.to_owned(),
                    found: format!("{found:?}"),
                    supported: VERSION.to_string(),
                });
            }
            None => {
                let mut batch = database.db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&database.meta, FORMAT, [VERSION]);
                batch.commit().map_err(fail)?;
            }
        }
        Ok(database)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.db.snapshot().get(&self.meta, key);
        Ok(value.map_err(|error| engine_error("read", &self.path, error))?.map(|value| value.to_vec()))
    }

    /// The number of the last batch; 0 when none was written.
    pub(super) fn batch(&self) -> Result<u64> {
        let Some(value) = self.meta(BATCH)? else { return Ok(0) };
        let value: Option<[u8; 8]> = value.try_into().ok();
        let what = "number of the last batch, groups: all".to_owned();
        let corrupt = Error::Corrupt { path: self.path.clone(), offset: 0, what };
        value.map(u64::from_le_bytes).ok_or(corrupt)
    }

    /// Writes a batch: all of it or nothing. Durable on return with `sync`, else some time later.
    pub(super) fn write(
        &self,
        number: u64,
        entries: impl IntoIterator<Item = ([u8; 16], Change)>,
        groups: impl IntoIterator<Item = ([u8; 8], Change)>,
        sync: bool,
    ) -> Result<()> {
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for (key, change) in entries {
            match change {
                Some(value) => batch.insert(&self.entries, key, value),
                None => batch.remove(&self.entries, key),
            }
        }
        for (key, change) in groups {
            match change {
                Some(value) => batch.insert(&self.groups, key, value),
                None => batch.remove(&self.groups, key),
            }
        }
        batch.insert(&self.meta, BATCH, number.to_le_bytes());
        batch.commit().map_err(|error| engine_error("write", &self.path, error))
    }

    /// Makes all batches so far durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.db.persist(PersistMode::SyncData).map_err(|error| engine_error("fsync", &self.path, error))
    }

    /// The rows of a group's entries with `from <= index < to`, of one moment.
    pub(super) fn entries(&self, group: GroupId, from: u64, to: u64) -> impl Iterator<Item = Result<Row>> {
        let range = (from < to).then(|| entry_key(group, from)..entry_key(group, to));
        let rows = range.map(|range| self.db.snapshot().range(&self.entries, range));
        rows.into_iter().flatten().map(|guard| self.row(guard))
    }

    /// The rows of all groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = Result<Row>> {
        self.db.snapshot().iter(&self.groups).map(|guard| self.row(guard))
    }

    fn row(&self, guard: Guard) -> Result<Row> {
        guard.into_inner().map_err(|error| engine_error("read", &self.path, error))
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }

    /// Hands the active memtables to the workers, which write tables, when they hold `bytes`. Waits
    /// while the workers are behind.
    #[allow(clippy::disallowed_methods, reason = "fjall has no signal for the end of a flush")]
    pub(super) fn rotate_at(&self, bytes: u64) -> Result<()> {
        let all = [&self.entries, &self.groups, &self.meta];
        let held: u64 = all.iter().map(|keyspace| keyspace.tree.active_memtable().size()).sum();
        if held < bytes {
            return Ok(());
        }
        let deadline = Instant::now() + FLUSH_DEADLINE;
        while all.iter().any(|keyspace| keyspace.sealed_memtable_count() >= SEALED_LIMIT) {
            if Instant::now() > deadline {
                return Err(Error::Engine(format!("flush of {} does not end", self.path.display())));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        for keyspace in all {
            let rotated = keyspace.rotate_memtable();
            rotated.map_err(|error| engine_error("rotate", &self.path, error))?;
        }
        Ok(())
    }
}

/// Key and value.
pub(super) type Row = (fjall::Slice, fjall::Slice);
