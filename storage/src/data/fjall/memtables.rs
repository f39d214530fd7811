//! The write buffers of a node: one thread that decides which memtable of which shard is written to
//! disk next, within one budget, and lets writers wait when the disk cannot follow.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::database::MemtableSizes;
use super::generation::{Generation, remove_dir};
use super::watch::{Seen, Watch};
use crate::data::Keyspace;

/// A memtable of this size is written whatever the budget: a journal to replay stays short.
const LARGE_BYTES: u64 = 16 << 20;
/// The budget is not enforced by memtables smaller than this, as their tables would be too many; unless
/// there are so many memtables that it could not be kept otherwise.
const SMALL_BYTES: u64 = 256 << 10;
/// A memtable that saw no write for this long is written, so that its journal can go.
const IDLE: Duration = Duration::from_secs(30);
/// Journals of a database from which on all its memtables are written, to let the oldest go.
const MANY_JOURNALS: usize = 3;
/// Flushed memtables below this are left to the next rotation of their shard.
const KEPT_BYTES: u64 = 1 << 20;
/// Sealed memtables of a keyspace that wait for the disk; fjall makes writers sleep at four.
const SEALED_LIMIT: usize = 2;
/// Written bytes after which the thread looks again.
const STEP_BYTES: u64 = 1 << 20;
/// How long one write may be held back.
const STALL_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Inbox {
    stop: bool,
    look: bool,
    removals: Vec<PathBuf>,
}

/// What the thread and the stores share.
#[derive(Debug)]
pub(super) struct WriteBuffers {
    budget: u64,
    generations: Mutex<Vec<Weak<Generation>>>,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// Memory of all memtables: as last measured, and what was written since.
    held: AtomicU64,
    /// The part of it that a flush frees: what an open view holds on to stops no writer.
    pending: AtomicU64,
    unseen: AtomicU64,
    looked: Condvar,
}

impl WriteBuffers {
    pub(super) fn new(budget: u64) -> Arc<Self> {
        Arc::new(WriteBuffers {
            budget,
            generations: Mutex::default(),
            inbox: Mutex::default(),
            wake: Condvar::new(),
            held: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            unseen: AtomicU64::new(0),
            looked: Condvar::new(),
        })
    }

    pub(super) fn register(&self, generation: &Arc<Generation>) {
        self.generations().push(Arc::downgrade(generation));
    }

    /// Forgets a generation; when it returns, the thread holds no reference to it.
    pub(super) fn deregister(&self, generation: &Arc<Generation>) {
        self.generations().retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(generation)));
    }

    /// Has a directory removed by the thread.
    pub(super) fn remove_later(&self, path: PathBuf) {
        self.inbox().removals.push(path);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.inbox().stop = true;
        self.wake.notify_one();
    }

    /// Counts a write, and holds the writer back while memtables take half more than the budget.
    pub(super) fn written(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let pending = self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.unseen.fetch_add(bytes, Ordering::Relaxed) + bytes >= STEP_BYTES {
            self.unseen.store(0, Ordering::Relaxed);
            self.inbox().look = true;
            self.wake.notify_one();
        }
        if pending > self.stall_bytes() {
            self.stall();
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn stall_bytes(&self) -> u64 {
        self.budget + self.budget / 2
    }

    fn stall(&self) {
        let deadline = Instant::now() + STALL_DEADLINE;
        let mut inbox = self.inbox();
        while self.pending.load(Ordering::Relaxed) > self.stall_bytes() && !inbox.stop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inbox.look = true;
            self.wake.notify_one();
            inbox = self.looked.wait_timeout(inbox, left).expect("no holder of this lock panics").0;
        }
    }

    fn generations(&self) -> MutexGuard<'_, Vec<Weak<Generation>>> {
        self.generations.lock().expect("no holder of this lock panics")
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no holder of this lock panics")
    }

    /// The thread: until [`WriteBuffers::stop`].
    pub(super) fn run(&self) {
        let mut watch = Watch::default();
        loop {
            let pressed = self.pending.load(Ordering::Relaxed) > self.budget;
            let pause = if pressed { Duration::from_millis(2) } else { Duration::from_secs(1) };
            let inbox = self.inbox();
            let (mut inbox, _) = self
                .wake
                .wait_timeout_while(inbox, pause, |inbox| {
                    !inbox.stop && !inbox.look && inbox.removals.is_empty()
                })
                .expect("no holder of this lock panics");
            inbox.look = false;
            let stop = inbox.stop;
            let removals = std::mem::take(&mut inbox.removals);
            drop(inbox);
            for path in removals {
                if let Err(error) = remove_dir(&path) {
                    tracing::warn!(%error, "a replaced generation stays until the next start");
                }
            }
            if stop {
                self.looked.notify_all();
                return;
            }
            self.look(&mut watch);
            self.looked.notify_all();
        }
    }

    /// Flushed memtables of a shard below this stay until its next rotation. Many shards with little each
    /// are asked for it too when the node is over its budget.
    fn least_kept(&self, shards: usize) -> u64 {
        if self.held_bytes() <= self.budget {
            return KEPT_BYTES;
        }
        KEPT_BYTES.min(self.budget / 4 / (shards as u64 + 1))
    }

    /// Measures all memtables and rotates those that must go.
    fn look(&self, watch: &mut Watch) {
        let mut known = self.generations();
        known.retain(|generation| generation.strong_count() > 0);
        let generations: Vec<_> = known.iter().filter_map(Weak::upgrade).collect();
        let least_kept = self.least_kept(generations.len());
        let (mut held, mut pending) = (0, 0);
        let mut candidates = Vec::new();
        let now = Instant::now();
        for generation in &generations {
            let db = generation.db();
            let journals = db.journals() >= MANY_JOURNALS;
            let mut kept = 0;
            for keyspace in Keyspace::ALL {
                let sizes = db.memtable_sizes(keyspace);
                let seen = watch.see(id(generation), keyspace, sizes, now);
                let wanted = sizes.active + seen.sealed_bytes();
                (held, pending) = (held + sizes.all, pending + wanted);
                kept += sizes.all.saturating_sub(wanted);
                if sizes.active == 0 || sizes.sealed >= SEALED_LIMIT {
                    continue;
                }
                let quiet = now.duration_since(seen.since) >= IDLE;
                if sizes.active >= LARGE_BYTES.min(self.budget / 4) || quiet || journals {
                    rotate(generation, keyspace, seen, sizes);
                } else {
                    candidates.push((sizes, generation, keyspace));
                }
            }
            if watch.may_release(id(generation), kept, least_kept, now) && !generation.release_memtables() {
                watch.release_soon(id(generation), kept, now);
            }
        }
        watch.forget_unseen(now);
        self.held.store(held, Ordering::Relaxed);
        self.pending.store(pending, Ordering::Relaxed);
        let small = SMALL_BYTES.min(self.budget / 2 / (candidates.len() as u64 + 1));
        candidates.sort_unstable_by_key(|&(sizes, ..)| std::cmp::Reverse(sizes.active));
        for (sizes, generation, keyspace) in candidates {
            if pending <= self.budget || sizes.active < small {
                break;
            }
            rotate(generation, keyspace, watch.see(id(generation), keyspace, sizes, now), sizes);
            pending -= sizes.active;
        }
        // While `known` is locked no reference outlives this call: see `deregister`.
        drop(generations);
        drop(known);
    }
}

fn id(generation: &Arc<Generation>) -> usize {
    Arc::as_ptr(generation) as usize
}

fn rotate(generation: &Generation, keyspace: Keyspace, seen: &mut Seen, sizes: MemtableSizes) {
    match generation.db().rotate(keyspace) {
        Ok(()) => seen.sealed.push_back(sizes.active),
        // It poisoned the database, so the next write of the shard reports it.
        Err(error) => tracing::warn!(%error, "a memtable was not rotated"),
    }
}
