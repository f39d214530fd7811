//! The event manager: publishes the committed changes of a shard, in order, while its replica serves.
//!
//! Changes come from where commands are applied ([`EventManager::sink`]), which never waits: they go
//! through a queue bounded in bytes. What does not fit, and what may not have been published before this
//! replica began to serve, is read from the history and published in its place: nothing is skipped that is
//! retained. Publishing runs on its own and loses what a slow subscriber's link does not take; the
//! subscriber sees the jump of the revision, and replays.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use odgm_storage::data::Direction;
use odgm_transport::Session;
use odgm_transport::session::{Congestion, Priority};
use openraft_rt::Select2;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::ShardMetrics;
use super::upkeep::Deadlines;
use crate::planted::{Bug, planted};
use crate::protocol::Voice;
use crate::replication::{ChangeSink, ShardState};
use crate::runtime::Runtime;
use crate::state::{Change, ChangeKind};

/// What a change takes in the queue beside its payload and names.
const CHANGE_OVERHEAD_BYTES: usize = 128;
/// What a shard's changes take at most until they are published.
const QUEUE_BYTES: usize = 16 << 20;
/// How many applied batches are published in one go.
const BATCHES: usize = 64;
/// How many changes are published from one view of the history.
const FILL: u64 = 1000;

/// Publishes the changes of one shard.
pub struct EventManager {
    enabled: AtomicBool,
    /// Whether this replica serves. The changes that are applied before it does are not queued.
    serving: AtomicBool,
    /// Counts the times of serving.
    epoch: AtomicU64,
    /// Something did not fit the queue.
    behind: AtomicBool,
    wake: Notify,
    /// For the upkeep.
    serves: watch::Sender<bool>,
    /// The last revision that was published, and all below it that are retained.
    published: AtomicU64,
    queue_bytes: usize,
    queued_bytes: AtomicUsize,
    sender: mpsc::UnboundedSender<Vec<Change>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Vec<Change>>>>,
    deadlines: Arc<Deadlines>,
}

impl Debug for EventManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventManager").field("serving", &self.serving).finish_non_exhaustive()
    }
}

impl EventManager {
    /// An event manager for a collection that has its events `enabled`, or not. It publishes nothing
    /// until the object shard that it is given to serves.
    pub fn new(enabled: bool) -> Arc<Self> {
        Self::with_queue(enabled, QUEUE_BYTES)
    }

    /// [`EventManager::new`] with room for so many bytes of changes that wait; what has none is read
    /// from the history.
    pub fn with_queue(enabled: bool, queue_bytes: usize) -> Arc<Self> {
        // The channel is bounded by `queued_bytes`: every change weighs something.
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(EventManager {
            enabled: AtomicBool::new(enabled),
            serving: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            wake: Notify::new(),
            serves: watch::Sender::new(false),
            published: AtomicU64::new(0),
            queue_bytes,
            queued_bytes: AtomicUsize::new(0),
            sender,
            receiver: Mutex::new(Some(receiver)),
            deadlines: Arc::default(),
        })
    }

    /// Where the replication hands the changes of each applied batch. Never waits.
    pub fn sink(self: &Arc<Self>) -> ChangeSink {
        let events = self.clone();
        Arc::new(move |changes| events.offer(changes))
    }

    /// From now on the applied changes are published, or no longer. Comes before the commands of
    /// this server are taken, so that every change that it acknowledges has its event.
    pub(crate) fn serve(&self, serving: bool) {
        self.serves.send_replace(serving);
        let before = self.serving.swap(serving, Ordering::SeqCst);
        if serving && !before {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    /// Tells when this replica begins or ends to serve.
    pub(super) fn serves(&self) -> watch::Receiver<bool> {
        self.serves.subscribe()
    }

    /// Whether the collection has events, from now on.
    pub(super) fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::SeqCst);
    }

    /// The last revision up to which everything retained was published by this replica.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    fn publishes(&self) -> bool {
        self.serving.load(Ordering::SeqCst) && self.enabled.load(Ordering::SeqCst)
    }

    /// The deadlines that the applied changes set.
    pub(super) fn deadlines(&self) -> Arc<Deadlines> {
        self.deadlines.clone()
    }

    fn offer(&self, mut changes: Vec<Change>) {
        self.deadlines.note(&changes);
        if !self.publishes() || changes.is_empty() {
            return;
        }
        let mut queued = self.queued_bytes.load(Ordering::Relaxed);
        let mut taken = 0;
        let fitting = changes.iter().take_while(|change| {
            let bytes = weight(change);
            let fits = queued == 0 || queued + bytes <= self.queue_bytes;
            if fits {
                queued += bytes;
                taken += bytes;
            }
            fits
        });
        let fitting = fitting.count();
        if fitting < changes.len() {
            changes.truncate(fitting);
            self.behind.store(true, Ordering::SeqCst);
            self.wake.notify_one();
        }
        if fitting > 0 {
            self.queued_bytes.fetch_add(taken, Ordering::Relaxed);
            // Fails only when the publisher has ended: then nobody serves here any more.
            let _ = self.sender.send(changes);
        }
    }

    /// Publishes until `stop`. Runs once per manager; what is queued when it stops is published by
    /// whoever serves next.
    pub(crate) async fn run<R: Runtime>(self: Arc<Self>, outlet: Outlet, stop: CancellationToken) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receiver) = receiver else { return };
        let blocks = outlet.session.blocks();
        let mut publisher = Publisher { events: self.clone(), outlet, stop: stop.clone(), epoch: 0, next: 0 };
        let mut batches = Vec::with_capacity(BATCHES);
        loop {
            let arrived = R::select2(receiver.recv_many(&mut batches, BATCHES), self.wake.notified());
            match stop.run_until_cancelled(arrived).await {
                None | Some(Select2::First(0)) => return,
                Some(_) => {}
            }
            let changes: Vec<Change> = batches.drain(..).flatten().collect();
            let bytes: usize = changes.iter().map(weight).sum();
            let work = move || {
                publisher.work(changes);
                publisher
            };
            publisher = if blocks { R::blocking(work).await } else { work() };
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Where events go, and where they are read again.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) voice: Arc<Voice>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) state: Arc<dyn ShardState>,
    pub(crate) metrics: Arc<ShardMetrics>,
}

struct Publisher {
    events: Arc<EventManager>,
    outlet: Outlet,
    stop: CancellationToken,
    /// The time of serving that `next` is of.
    epoch: u64,
    /// The next revision to publish.
    next: u64,
}

impl Publisher {
    /// Publishes changes, and before them what is missing up to them. May wait for disk and network.
    fn work(&mut self, changes: Vec<Change>) {
        let epoch = self.events.epoch.load(Ordering::SeqCst);
        let mut behind = self.events.behind.swap(false, Ordering::SeqCst);
        if epoch != self.epoch {
            // What an earlier server said to have published is not published again; the rest is.
            match self.outlet.state.view().history() {
                Ok(history) => {
                    let published =
                        if planted(Bug::SkipUnpublishedTail) { history.last } else { history.published };
                    (self.epoch, self.next) = (epoch, history.oldest.max(published + 1));
                }
                Err(error) => return tracing::error!(%error, "the history can't be read"),
            }
            behind = true;
        }
        for change in changes {
            if change.revision > self.next {
                self.fill(change.revision);
            }
            if change.revision == self.next {
                self.publish(change);
            }
        }
        if behind {
            match self.outlet.state.view().history() {
                Ok(history) => self.fill(history.last + 1),
                Err(error) => tracing::error!(%error, "the history can't be read"),
            }
        }
        self.events.published.store(self.next.saturating_sub(1), Ordering::SeqCst);
    }

    /// Publishes from the history what comes before revision `end`.
    fn fill(&mut self, end: u64) {
        // Not retained any more: nobody can have it.
        if let Ok(history) = self.outlet.state.view().history() {
            let oldest = history.oldest.clamp(self.next, end.max(self.next));
            self.lost(oldest - self.next);
            self.next = oldest;
        }
        while self.next < end && self.events.publishes() && !self.stop.is_cancelled() {
            let view = self.outlet.state.view();
            let upto = end.min(self.next.saturating_add(FILL)) - 1;
            for change in view.changes(self.next, upto, Direction::Forward) {
                match change {
                    Ok(change) => {
                        self.lost(change.revision - self.next);
                        self.publish(change);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a change of the history can't be read");
                        break;
                    }
                }
            }
            self.lost(upto + 1 - self.next);
            self.next = upto + 1;
        }
    }

    fn lost(&self, changes: u64) {
        self.outlet.metrics.events_dropped.increment(changes);
    }

    fn publish(&mut self, change: Change) {
        self.next = change.revision + 1;
        let Outlet { voice, session, metrics, .. } = &self.outlet;
        match session.publish(voice.event(change), Priority::Data, Congestion::Drop) {
            Ok(()) => metrics.events.increment(1),
            Err(error) => {
                metrics.events_dropped.increment(1);
                tracing::debug!(%error, "an event was not published");
            }
        }
    }
}

fn weight(change: &Change) -> usize {
    let names = change.key.object.as_str().len() + change.key.entry.as_ref().map_or(0, |e| e.as_str().len());
    let value = match &change.kind {
        ChangeKind::Put(value) => {
            value.payload.len() + value.encoding.len() + value.attachment.as_ref().map_or(0, |a| a.len())
        }
        ChangeKind::Delete => 0,
    };
    CHANGE_OVERHEAD_BYTES + names + value
}
