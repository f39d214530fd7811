//! What callers, committer and janitor share.
//!
//! Order of locks: groups, a group, the queue. The writer's lock is taken before all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use std::time::Duration;

use super::group::{Group, GroupState};
use super::queue::{Change, Queue, Queued, Rest};
use super::segments::Segments;
use super::writer::{Step, Writer, refuse};
use crate::log::options::LogOptions;
use crate::log::{GroupId, LogSpace};
use crate::{Error, Result};

/// After this long without an append, what is lazy is written and the end is marked durable.
const IDLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Core {
    pub options: LogOptions,
    pub segments: Segments,
    pub groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    /// Groups that were found damaged at open.
    pub damaged: Mutex<BTreeMap<GroupId, Error>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    writer: Mutex<Writer>,
    poisoned: OnceLock<Error>,
    pub cached_bytes: AtomicU64,
    /// Bytes of records that are queued and not written.
    pub waiting_bytes: AtomicU64,
    /// What waits does not fit into the segment in use, and no other is ready.
    stalled: AtomicBool,
    /// Segments below this hold nothing that an open needs.
    pub durable_oldest: AtomicU64,
    /// The janitor waits for something it queued.
    pub collecting: AtomicBool,
    janitor: Mutex<JanitorCall>,
    janitor_wake: Condvar,
}

#[derive(Debug, Default)]
struct JanitorCall {
    wanted: bool,
    over: bool,
}

impl Core {
    pub(super) fn new(
        options: LogOptions,
        segments: Segments,
        groups: BTreeMap<GroupId, Arc<Group>>,
        damaged: BTreeMap<GroupId, Error>,
        writer: Writer,
    ) -> Self {
        Core {
            options,
            segments,
            groups: RwLock::new(groups),
            damaged: Mutex::new(damaged),
            queue: Mutex::default(),
            wake: Condvar::new(),
            durable_oldest: AtomicU64::new(writer.oldest),
            writer: Mutex::new(writer),
            poisoned: OnceLock::new(),
            cached_bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            collecting: AtomicBool::new(false),
            janitor: Mutex::new(JanitorCall { wanted: true, over: false }),
            janitor_wake: Condvar::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues changes of a group whose lock the caller holds; `apply` makes them visible and says which they
    /// are. Nothing happens when the log takes no more.
    pub(super) fn enqueue<I: IntoIterator<Item = Queued>>(
        &self,
        state: &mut GroupState,
        apply: impl FnOnce(&mut GroupState) -> I,
    ) -> Result<()> {
        if state.removed {
            return Err(Error::NotFound { what: "the group, which was removed from the log,".to_owned() });
        }
        let mut wake = false;
        {
            let mut queue = self.queue();
            self.open_for_more(&queue)?;
            for item in apply(state) {
                self.waiting_bytes.fetch_add(item.bytes as u64, Ordering::Relaxed);
                wake |= queue.push(item);
            }
        }
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues a change of the whole log.
    pub(super) fn enqueue_global(&self, item: Queued) -> Result<()> {
        let closes = matches!(item.change, Change::Close);
        let wake = {
            let mut queue = self.queue();
            self.open_for_more(&queue)?;
            queue.closed = closes;
            self.waiting_bytes.fetch_add(item.bytes as u64, Ordering::Relaxed);
            queue.push(item)
        };
        if wake {
            self.wake.notify_one();
        }
        Ok(())
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

    /// Whether the disk leaves room.
    pub(super) fn space(&self) -> LogSpace {
        match (self.segments.disk_is_full(), self.stalled.load(Ordering::Relaxed)) {
            (false, _) => LogSpace::Ample,
            (true, false) => LogSpace::Reserve,
            (true, true) => LogSpace::Exhausted,
        }
    }

    /// Refuses an append while the disk is full and as much as a segment holds waits already.
    pub(super) fn check_room(&self) -> Result<()> {
        let much = self.waiting_bytes.load(Ordering::Relaxed) > self.options.segment_bytes;
        if much && self.space() == LogSpace::Exhausted {
            return Err(Error::Full { path: self.segments.dir().to_owned() });
        }
        Ok(())
    }

    /// The first failure as it happened.
    pub(super) fn first_failure(&self) -> Option<Error> {
        self.poisoned.get().cloned()
    }

    /// The first failure as later calls see it.
    fn poison(&self) -> Option<Error> {
        self.poisoned.get().map(|error| Error::Poisoned { cause: error.to_string() })
    }

    /// Lets every waiting and later call fail.
    pub(super) fn fail(&self, error: Error) {
        tracing::error!(%error, "the log failed; nothing is acknowledged any more");
        // Under the lock, so that nothing is queued after the last drain.
        let queue = self.queue();
        let _ = self.poisoned.set(error);
        drop(queue);
        self.wake.notify_all();
    }

    /// Ends the committer without writing what is queued.
    pub(super) fn abandon(&self) {
        self.queue().abandoned = true;
        self.wake.notify_all();
        self.janitor().over = true;
        self.janitor_wake.notify_all();
    }

    /// The committer's thread.
    pub(super) fn commit_until_over(&self) {
        let mut idle = false;
        loop {
            let step = self.step_once(idle);
            if step.over {
                return;
            }
            if step.stalled {
                self.janitor_wanted();
                self.segments.wait_ready(IDLE);
                continue;
            }
            idle = if step.more { false } else { self.rest() };
        }
    }

    /// Rests until there is something to write; says whether nothing urgent came for a while.
    fn rest(&self) -> bool {
        let unmarked = self.writer().unmarked;
        let mut queue = self.queue();
        loop {
            if queue.urgent || queue.abandoned || self.poisoned.get().is_some() {
                queue.rest = Rest::Awake;
                return false;
            }
            if queue.items.is_empty() && !unmarked {
                queue.rest = Rest::Sleep;
                queue = self.wake.wait(queue).unwrap_or_else(|p| p.into_inner());
            } else {
                queue.rest = Rest::Nap;
                let (rested, timeout) =
                    self.wake.wait_timeout(queue, IDLE).unwrap_or_else(|p| p.into_inner());
                queue = rested;
                if timeout.timed_out() && !queue.urgent {
                    queue.rest = Rest::Awake;
                    return true;
                }
            }
        }
    }

    /// Takes what is queued, writes one frame, and calls back.
    pub(super) fn step_once(&self, idle: bool) -> Outcome {
        let mut writer = self.writer();
        let (items, abandoned, closing) = {
            let mut queue = self.queue();
            queue.urgent = false;
            (std::mem::take(&mut queue.items), queue.abandoned, queue.closed)
        };
        writer.take(items);
        if let Some(error) = abandoned.then_some(Error::Closed).or_else(|| self.poison()) {
            return self.end(writer, &error);
        }
        match writer.step(self, idle) {
            // Whoever closes on a full disk is told so, and does not wait until there is room.
            Ok(Step { stalled: true, .. }) if closing && self.segments.disk_is_full() => {
                self.fail(Error::Full { path: writer.segment.path.clone() });
                let error = self.poison().unwrap_or(Error::Closed);
                self.end(writer, &error)
            }
            Ok(Step { wrote, stalled, fired }) => {
                self.stalled.store(stalled, Ordering::Relaxed);
                let (more, over) = (writer.has_backlog(), writer.closed);
                drop(writer);
                for durable in fired {
                    durable(Ok(()));
                }
                Outcome { wrote, stalled, more, over }
            }
            Err(error) => {
                self.fail(error);
                let error = self.poison().unwrap_or(Error::Closed);
                self.end(writer, &error)
            }
        }
    }

    fn end(&self, mut writer: MutexGuard<'_, Writer>, error: &Error) -> Outcome {
        let mut items = writer.abandon();
        drop(writer);
        items.append(&mut self.queue().items);
        refuse(items, error);
        Outcome { wrote: false, stalled: false, more: false, over: true }
    }

    /// Asks the janitor to look.
    pub(super) fn janitor_wanted(&self) {
        self.janitor().wanted = true;
        self.janitor_wake.notify_one();
    }

    fn janitor(&self) -> MutexGuard<'_, JanitorCall> {
        self.janitor.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The janitor's thread.
    pub(super) fn clean_until_over(self: &Arc<Self>) {
        loop {
            let found = super::janitor::round(self);
            let mut call = self.janitor();
            match found {
                Ok(true) if !call.over => continue,
                Ok(_) => {
                    while !call.wanted && !call.over {
                        call = self.janitor_wake.wait(call).unwrap_or_else(|p| p.into_inner());
                    }
                }
                Err(Error::Full { path }) => {
                    tracing::warn!(path = %path.display(), "disk is full, the log lives on its reserve");
                    let waited = self.janitor_wake.wait_timeout(call, 5 * IDLE);
                    call = waited.unwrap_or_else(|p| p.into_inner()).0;
                }
                Err(error) => {
                    drop(call);
                    self.fail(error);
                    return;
                }
            }
            if call.over {
                return;
            }
            call.wanted = false;
        }
    }

    /// Ends the janitor's thread.
    pub(super) fn dismiss_janitor(&self) {
        self.janitor().over = true;
        self.janitor_wake.notify_all();
    }
}

/// What came of a step of the committer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub wrote: bool,
    pub stalled: bool,
    /// Something still waits.
    pub more: bool,
    /// The log is closed, abandoned or poisoned.
    pub over: bool,
}
