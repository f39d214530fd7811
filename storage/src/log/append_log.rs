//! The log of a node in segment files: one stream for all groups, one committer.
//!
//! The committer forms a frame of everything queued, writes it, syncs once and calls back in order;
//! while it syncs the next frame gathers. docs/formats/log.md draws the bytes. After a failed write or
//! sync nothing is acknowledged any more: [`AppendOnlyLogStorage::poisoned`] tells, the process ends.

mod core;
mod encoder;
mod examine;
mod frame;
mod group;
mod handle;
mod janitor;
mod queue;
mod reader;
mod record;
mod recovery;
mod segments;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) use self::examine::{Examined, examine, files};

use self::core::Core;
use self::frame::Place;
use self::group::{Group, GroupState};
use self::handle::GroupLog;
use self::queue::{Change, Queued};
use self::recovery::Recovered;
use self::segments::Segments;
use self::writer::Writer;
use super::options::LogOptions;
use super::{AppendOnlyLogStorage, Durable, GroupId, LogSpace, RaftLogStorage, wait_durable};
use crate::disk::{Disk, DiskLock};
use crate::{Error, Result};

const LOCK: &str = "lock";

/// The log of a node in segment files.
///
/// ```
/// use std::sync::Arc;
/// use odgm_storage::disk::RealDisk;
/// use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, GroupId, LogOptions, wait_durable};
///
/// let dir = tempfile::tempdir().unwrap();
/// let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
/// let log = AppendLog::open(Arc::new(RealDisk), dir.path(), options).unwrap();
/// let group = log.group(GroupId(7)).unwrap();
/// wait_durable(|durable| group.save_vote(b"term 1".as_slice().into(), durable)).unwrap();
/// log.close().unwrap();
/// ```
#[derive(Debug)]
pub struct AppendLog {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
    stepped: bool,
    closed_before: Option<bool>,
    blemishes: Vec<Error>,
}

impl AppendLog {
    /// Opens the log in a directory, made when absent, and starts its two threads.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Corrupt`] when acknowledged bytes are
    /// damaged and it cannot be told whose they are.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Arc<Self>> {
        let log = Self::recover(disk, dir, options, false)?;
        let committer = Arc::clone(&log.core);
        let janitor = Arc::clone(&log.core);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|e| Error::io("start thread for", dir, e))
        };
        let mut threads = log.threads.lock().unwrap_or_else(|p| p.into_inner());
        threads.push(spawn("log-committer", Box::new(move || committer.commit_until_over()))?);
        threads.push(spawn("log-janitor", Box::new(move || janitor.clean_until_over()))?);
        drop(threads);
        Ok(Arc::new(log))
    }

    /// Opens the log without threads: nothing is written but by [`AppendLog::step`].
    ///
    /// # Errors
    /// As [`AppendLog::open`].
    pub fn open_stepped(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::recover(disk, dir, options, true)?))
    }

    /// Writes one frame of what is queued and calls back, or a durability mark when nothing is; then
    /// does one piece of housekeeping. Says whether anything was done.
    pub fn step(&self) -> bool {
        let mut outcome = self.core.step_once(false);
        if !outcome.wrote && !outcome.stalled && !outcome.over {
            outcome = self.core.step_once(true);
        }
        if outcome.over {
            return false;
        }
        match janitor::round(&self.core) {
            Ok(more) => outcome.wrote || more,
            Err(Error::Full { .. }) => outcome.wrote,
            Err(error) => {
                self.core.fail(error);
                self.core.step_once(false);
                false
            }
        }
    }

    /// Segments that are ready beyond the one in use: what can still be written on a full disk.
    pub fn reserve_segments(&self) -> usize {
        self.core.segments.ready_count()
    }

    /// Damage that was found at open and hit nothing that the log holds: a sign that the disk spoils bytes.
    pub fn blemishes(&self) -> &[Error] {
        &self.blemishes
    }

    fn recover(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions, stepped: bool) -> Result<Self> {
        options.validate()?;
        disk.create_dir_all(dir)?;
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
            disk.sync_dir(above)?;
        }
        let lock = disk.lock(&dir.join(LOCK))?;
        let found = segments::find(&*disk, dir)?;
        let Recovered { groups, damaged, blemishes, used, unused, end, durable, previous, oldest, closed } =
            recovery::recover(&*disk, &found)?;
        // Whatever was read is acknowledged from now on. A sync that failed in an earlier process may have left
        // bytes in the page cache that count as written and are on no disk: syncing them again does nothing.
        for segment in used.values() {
            segment.write_again(durable, end)?;
            segment.file.sync_data()?;
        }
        let mut spares = found.spares;
        for path in unused {
            let spare = segments::spare_path(dir);
            disk.rename(&path, &spare)?;
            spares.push(spare);
        }
        disk.sync_dir(dir)?;
        let new = used.is_empty();
        let last = used.values().next_back().cloned();
        let segments = Segments::new(disk, dir.to_owned(), &options, used, spares)?;
        let (segment, offset) = match last {
            // Nothing was written after the close.
            Some(last) if closed => (segments.go_on_in(&last)?, end.offset),
            _ => {
                segments.prepare()?;
                let fresh = segments.take().expect("a segment is ready when preparing one did not fail");
                (fresh, frame::BLOCK as u64)
            }
        };
        let synced = if new { Place::default() } else { end };
        let mut writer = Writer::new(segment, offset, previous, synced, oldest.max(1));
        if !damaged.is_empty() {
            // What tells damage from a torn tail may have stood behind the end, where nothing is kept: the next open
            // finds it here.
            writer.mark()?;
        }
        let groups = groups.into_iter().map(|(id, state)| (id, Arc::new(Group::new(id, state)))).collect();
        let core = Core::new(options, segments, groups, damaged, writer);
        Ok(AppendLog {
            core: Arc::new(core),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            stepped,
            closed_before: (!new).then_some(closed),
            blemishes,
        })
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|p| p.into_inner()));
        for thread in threads {
            // The last owner may be a callback, which runs on the committer.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        *self.lock.lock().unwrap_or_else(|p| p.into_inner()) = None;
    }
}

impl AppendOnlyLogStorage for AppendLog {
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>> {
        if let Some(error) = self.core.damaged.lock().unwrap_or_else(|p| p.into_inner()).get(&id) {
            return Err(error.clone());
        }
        self.core.refuse_when_over()?;
        let mut groups = self.core.groups.write().unwrap_or_else(|p| p.into_inner());
        let group = groups.entry(id).or_insert_with(|| Arc::new(Group::new(id, GroupState::default())));
        Ok(Arc::new(GroupLog::new(Arc::clone(&self.core), Arc::clone(group))))
    }

    fn groups(&self) -> Vec<GroupId> {
        let groups = self.core.groups.read().unwrap_or_else(|p| p.into_inner());
        let holding = groups.values().filter(|group| group.lock().holds_a_record()).map(|group| group.id);
        let damaged = self.core.damaged.lock().unwrap_or_else(|p| p.into_inner());
        let all: std::collections::BTreeSet<GroupId> = holding.chain(damaged.keys().copied()).collect();
        all.into_iter().collect()
    }

    fn remove_group(&self, id: GroupId, durable: Durable) {
        let mut groups = self.core.groups.write().unwrap_or_else(|p| p.into_inner());
        let group = groups.remove(&id).unwrap_or_else(|| Arc::new(Group::new(id, GroupState::default())));
        let mut state = group.lock();
        // Handed over through a cell, because the callback must not be lost when the log refuses.
        let cell = Arc::new(Mutex::new(Some(durable)));
        let later = Arc::clone(&cell);
        let fire: Durable = Box::new(move |outcome| {
            let durable = later.lock().unwrap_or_else(|p| p.into_inner()).take();
            if let Some(durable) = durable {
                durable(outcome);
            }
        });
        let item = Queued::new(Some(Arc::clone(&group)), Change::Remove, Some(fire));
        let mut freed = 0;
        let queued = self.core.enqueue(&mut state, |state| {
            freed = state.window.cached_bytes();
            *state = GroupState { removed: true, ..GroupState::default() };
            [item]
        });
        drop(state);
        match queued {
            Ok(()) => {
                self.core.cached_bytes.fetch_sub(freed, Ordering::Relaxed);
                self.core.damaged.lock().unwrap_or_else(|p| p.into_inner()).remove(&id);
                drop(groups);
                self.core.janitor_wanted();
            }
            Err(error) => {
                groups.insert(id, group);
                drop(groups);
                let durable = cell.lock().unwrap_or_else(|p| p.into_inner()).take();
                if let Some(durable) = durable {
                    durable(Err(error));
                }
            }
        }
    }

    fn damaged(&self) -> Vec<(GroupId, Error)> {
        let damaged = self.core.damaged.lock().unwrap_or_else(|p| p.into_inner());
        damaged.iter().map(|(id, error)| (*id, error.clone())).collect()
    }

    fn poisoned(&self) -> Option<Error> {
        self.core.first_failure()
    }

    fn space(&self) -> LogSpace {
        self.core.space()
    }

    fn was_closed_cleanly(&self) -> Option<bool> {
        self.closed_before
    }

    fn disk_bytes(&self) -> u64 {
        self.core.segments.disk_bytes()
    }

    fn close(&self) -> Result<()> {
        let closed = if self.stepped {
            let (tx, rx) = std::sync::mpsc::sync_channel(1);
            let durable: Durable = Box::new(move |outcome| {
                let _ = tx.send(outcome);
            });
            self.core.enqueue_global(Queued::new(None, Change::Close, Some(durable)))?;
            while self.step() {}
            rx.try_recv().unwrap_or(Err(Error::Closed))
        } else {
            wait_durable(|durable| self.core.enqueue_global(Queued::new(None, Change::Close, Some(durable))))
        };
        self.core.dismiss_janitor();
        self.join();
        closed
    }
}

impl Drop for AppendLog {
    fn drop(&mut self) {
        self.core.abandon();
        if self.stepped {
            self.core.step_once(false);
        }
        self.join();
    }
}
