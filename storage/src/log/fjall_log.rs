//! The log of a node in a Fjall database of its own: one row for each entry, one for each group.
//!
//! One committer makes one batch of everything queued, with one fsync of Fjall's journal, and calls back
//! in order. What this module holds to, and why:
//! - Fjall cuts its journal at damage without a word: every batch has a number, and a mark outside the
//!   database says which one is durable. A database that is behind its mark is refused (see `mark`).
//! - Each group's row says which indexes exist; an open finds every one of them, or the group is damaged.
//! - Memtables are rotated by the committer alone: Fjall's own rotation can fill the queue that its workers
//!   drain. There are always two workers.
//! - A read begins at the first index that exists, never at the beginning of what was purged.
//!
//! It is slower than [`super::AppendLog`] and writes more (docs/formats/log.md), and after a full disk it is
//! poisoned: it has no reserve.

mod core;
mod database;
mod group;
mod handle;
mod mark;
mod queue;
mod recovery;
mod rows;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) use self::mark::spoiled_marks;

use self::core::Core;
use self::database::Database;
use self::group::Group;
use self::handle::GroupLog;
use self::mark::Mark;
use self::queue::{Change, Queued};
use self::recovery::Recovered;
use self::writer::Writer;
use super::options::FjallLogOptions;
use super::{AppendOnlyLogStorage, Durable, GroupId, LogSpace, RaftLogStorage, wait_durable};
use crate::disk::Disk;
use crate::{Error, Result};

/// The directory of the database, within that of the log.
pub(crate) const DATABASE: &str = "db";
/// What a log leaves in its directory.
pub(crate) const FILES: [&str; 2] = [DATABASE, mark::NAME];

/// The log of a node in a Fjall database.
///
/// ```
/// use std::sync::Arc;
/// use odgm_storage::disk::RealDisk;
/// use odgm_storage::log::{AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, wait_durable};
///
/// let dir = tempfile::tempdir().unwrap();
/// let log = FjallLog::open(Arc::new(RealDisk), dir.path(), FjallLogOptions::default()).unwrap();
/// let group = log.group(GroupId(7)).unwrap();
/// wait_durable(|durable| group.save_vote(b"term 1".as_slice().into(), durable)).unwrap();
/// log.close().unwrap();
/// ```
#[derive(Debug)]
pub struct FjallLog {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
    closed_before: Option<bool>,
}

impl FjallLog {
    /// Opens the log in a directory of the operating system, made when absent, and starts its thread.
    /// `disk` holds the mark; Fjall writes its own files itself.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it; [`Error::Corrupt`] when acknowledged batches are
    /// missing, or what Fjall found damaged at once. Damage that concerns single groups is told by
    /// [`AppendOnlyLogStorage::damaged`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: FjallLogOptions) -> Result<Arc<Self>> {
        options.validate()?;
        disk.create_dir_all(dir)?;
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
            disk.sync_dir(above)?;
        }
        let path = dir.join(DATABASE);
        let fresh = !path.exists();
        // Before the database, so that one without a mark has lost it.
        let found = Mark::open(&*disk, dir, fresh)?;
        let behind = |batch: u64| {
            let durable = found.batch;
            let what = format!("fjall database: batches {} to {durable} are missing, groups: all", batch + 1);
            Err(Error::Corrupt { path: path.clone(), offset: 0, what })
        };
        if fresh && found.batch > 0 {
            return behind(0);
        }
        let database = Database::open(&path)?;
        let batch = database.batch()?;
        if batch < found.batch {
            return behind(batch);
        }
        let closed_before = (batch > 0).then_some(found.closed && found.batch == batch);
        let Recovered { groups, damaged, rows } = recovery::recover(&database)?;
        // What is served from now on is durable, whatever was synced before.
        database.sync()?;
        let core = Arc::new(Core::new(options, database, groups, damaged));
        let committer = Arc::clone(&core);
        let writer = Writer::new(found, batch, rows);
        let thread = std::thread::Builder::new()
            .name("log-committer".to_owned())
            .spawn(move || committer.commit_until_over(writer))
            .map_err(|e| Error::io("start thread for", dir, e))?;
        Ok(Arc::new(FjallLog { core, thread: Mutex::new(Some(thread)), closed_before }))
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(thread) = thread {
            // The last owner may be a callback, which runs on the committer.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl AppendOnlyLogStorage for FjallLog {
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>> {
        if let Some(error) = self.core.damaged().get(&id) {
            return Err(error.clone());
        }
        self.core.refuse_when_over()?;
        let group = Arc::clone(self.core.groups().entry(id).or_insert_with(|| Arc::new(Group::new(id))));
        Ok(Arc::new(GroupLog::new(Arc::clone(&self.core), group)))
    }

    fn groups(&self) -> Vec<GroupId> {
        let holding: Vec<GroupId> = {
            let groups = self.core.groups();
            groups.values().filter(|group| group.lock().holds_a_record()).map(|group| group.id).collect()
        };
        let damaged = self.core.damaged();
        let all: std::collections::BTreeSet<GroupId> =
            holding.into_iter().chain(damaged.keys().copied()).collect();
        all.into_iter().collect()
    }

    fn remove_group(&self, id: GroupId, durable: Durable) {
        let mut groups = self.core.groups();
        let damaged = self.core.damaged().contains_key(&id);
        let group = match groups.remove(&id) {
            None if damaged => Arc::new(Group::damaged(id)),
            known => known.unwrap_or_else(|| Arc::new(Group::new(id))),
        };
        let queued = self.core.remove(&group, durable);
        match queued {
            Ok(()) => {
                self.core.damaged().remove(&id);
            }
            Err((error, durable)) => {
                groups.insert(id, group);
                drop(groups);
                durable(Err(error));
            }
        }
    }

    fn damaged(&self) -> Vec<(GroupId, Error)> {
        self.core.damaged().iter().map(|(id, error)| (*id, error.clone())).collect()
    }

    fn poisoned(&self) -> Option<Error> {
        self.core.first_failure()
    }

    /// Always ample: a full disk poisons this log.
    fn space(&self) -> LogSpace {
        LogSpace::Ample
    }

    fn was_closed_cleanly(&self) -> Option<bool> {
        self.closed_before
    }

    fn disk_bytes(&self) -> u64 {
        self.core.database.disk_bytes()
    }

    fn close(&self) -> Result<()> {
        let closed = wait_durable(|durable| {
            self.core.enqueue_global(Queued { group: None, change: Change::Close, durable: Some(durable) })
        });
        self.join();
        closed
    }
}

impl Drop for FjallLog {
    fn drop(&mut self) {
        self.core.abandon();
        self.join();
    }
}
