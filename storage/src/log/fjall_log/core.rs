//! What callers and the committer share, and the committer's thread.
//!
//! Order of locks: groups, a group, the queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use super::database::Database;
use super::group::{Group, GroupState};
use super::queue::{Change, Queue, Queued, batch_of, refuse};
use super::writer::Writer;
use crate::log::options::FjallLogOptions;
use crate::log::{Durable, GroupId};
use crate::{Error, Result};

/// After this long without an append, what is lazy is written; the mark is synced at least so often.
pub(super) const IDLE: Duration = Duration::from_millis(100);

/// What the callers and the committer share.
pub(super) struct Core {
    pub options: FjallLogOptions,
    pub database: Database,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    damaged: Mutex<BTreeMap<GroupId, Error>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    poisoned: OnceLock<Error>,
    pub cached_bytes: AtomicU64,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn new(
        options: FjallLogOptions,
        database: Database,
        groups: BTreeMap<GroupId, Arc<Group>>,
        damaged: BTreeMap<GroupId, Error>,
    ) -> Self {
        Core {
            options,
            database,
            groups: Mutex::new(groups),
            damaged: Mutex::new(damaged),
            queue: Mutex::default(),
            wake: Condvar::new(),
            poisoned: OnceLock::new(),
            cached_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn damaged(&self) -> MutexGuard<'_, BTreeMap<GroupId, Error>> {
        self.damaged.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues a change of a group whose lock the caller holds; `apply` makes it visible and says what is
    /// queued. Nothing happens when the log takes no more.
    pub(super) fn enqueue(
        &self,
        state: &mut GroupState,
        apply: impl FnOnce(&mut GroupState) -> Option<Queued>,
    ) -> Result<()> {
        if state.removed {
            return Err(Error::NotFound { what: "the group, which was removed from the log,".to_owned() });
        }
        let mut queue = self.queue();
        self.open_for_more(&queue)?;
        if let Some(item) = apply(state) {
            self.push(&mut queue, item);
        }
        Ok(())
    }

    /// Queues a change of the whole log.
    pub(super) fn enqueue_global(&self, item: Queued) -> Result<()> {
        let mut queue = self.queue();
        self.open_for_more(&queue)?;
        queue.closed = matches!(item.change, Change::Close);
        self.push(&mut queue, item);
        Ok(())
    }

    /// Queues the removal of a group, or gives the callback back.
    pub(super) fn remove(&self, group: &Arc<Group>, durable: Durable) -> Result<(), (Error, Durable)> {
        let mut state = group.lock();
        let mut queue = self.queue();
        if let Err(error) = self.open_for_more(&queue) {
            return Err((error, durable));
        }
        self.cached_bytes.fetch_sub(state.window.cached_bytes(), Ordering::Relaxed);
        let was_damaged = state.was_damaged;
        *state = GroupState { removed: true, was_damaged, ..GroupState::default() };
        let item = Queued { group: Some(Arc::clone(group)), change: Change::Remove, durable: Some(durable) };
        self.push(&mut queue, item);
        Ok(())
    }

    fn push(&self, queue: &mut Queue, item: Queued) {
        let first = queue.items.is_empty();
        let lazy = item.change.lazy();
        if first || (!lazy && !queue.urgent) {
            self.wake.notify_one();
        }
        queue.urgent |= !lazy;
        queue.items.push(item);
    }

    /// Fails when the log was closed or is poisoned.
    pub(super) fn refuse_when_over(&self) -> Result<()> {
        self.open_for_more(&self.queue())
    }

    fn open_for_more(&self, queue: &Queue) -> Result<()> {
        match self.poison() {
            Some(error) => Err(error),
            None if queue.closed || queue.abandoned => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// The first failure as it happened.
    pub(super) fn first_failure(&self) -> Option<Error> {
        self.poisoned.get().cloned()
    }

    /// The first failure as later calls see it.
    fn poison(&self) -> Option<Error> {
        self.poisoned.get().map(|error| Error::Poisoned { cause: error.to_string() })
    }

    /// Ends the committer without writing what is queued.
    pub(super) fn abandon(&self) {
        self.queue().abandoned = true;
        self.wake.notify_all();
    }

    /// The committer's thread.
    pub(super) fn commit_until_over(&self, mut writer: Writer) {
        let mut backlog = VecDeque::new();
        loop {
            let (items, abandoned) = self.rest(!backlog.is_empty(), writer.is_unmarked());
            backlog.extend(items);
            if abandoned {
                return refuse(backlog, &Error::Closed);
            }
            let count = batch_of(&backlog, self.options.sync);
            let batch: Vec<Queued> = backlog.drain(..count).collect();
            let closes = batch.iter().any(|item| matches!(item.change, Change::Close));
            let (changes, callbacks): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|item| ((item.group, item.change), item.durable)).unzip();
            match writer.write(self, changes, closes) {
                Ok(()) => callbacks.into_iter().flatten().for_each(|durable| durable(Ok(()))),
                Err(error) => {
                    tracing::error!(%error, "the log failed; nothing is acknowledged any more");
                    // Under the lock, so that nothing is queued after this drain.
                    let mut queue = self.queue();
                    let _ = self.poisoned.set(error);
                    backlog.extend(std::mem::take(&mut queue.items));
                    drop(queue);
                    let error = self.poison().unwrap_or(Error::Closed);
                    callbacks.into_iter().flatten().for_each(|durable| durable(Err(error.clone())));
                    return refuse(backlog, &error);
                }
            }
            if closes {
                return;
            }
        }
    }

    /// Waits until there is something to write, or to mark after a while without.
    fn rest(&self, busy: bool, unmarked: bool) -> (Vec<Queued>, bool) {
        let mut queue = self.queue();
        while !busy && !queue.urgent && !queue.abandoned {
            if queue.items.is_empty() && !unmarked {
                queue = self.wake.wait(queue).unwrap_or_else(|p| p.into_inner());
                continue;
            }
            let (rested, timeout) = self.wake.wait_timeout(queue, IDLE).unwrap_or_else(|p| p.into_inner());
            queue = rested;
            if timeout.timed_out() {
                break;
            }
        }
        queue.urgent = false;
        (std::mem::take(&mut queue.items), queue.abandoned)
    }
}
