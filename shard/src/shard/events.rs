//! The event manager: publishes the committed changes of a shard, in order, while its replica serves.
//!
//! Changes come from where commands are applied ([`EventManager::sink`]), which never waits: they go
//! through a queue bounded in bytes, and a change that does not fit is dropped and counted; the
//! subscriber sees the jump of the revision. Publishing runs on its own and loses what a slow
//! subscriber's link does not take.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use odgm_transport::Session;
use odgm_transport::session::{Congestion, Priority};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::metrics::ShardMetrics;
use crate::protocol::Voice;
use crate::replication::ChangeSink;
use crate::runtime::Runtime;
use crate::state::{Change, ChangeKind};

/// What a change takes in the queue beside its payload and names.
const CHANGE_OVERHEAD_BYTES: usize = 128;
/// What a shard's changes take at most until they are published.
const QUEUE_BYTES: usize = 16 << 20;
/// How many applied batches are published in one go.
const BATCHES: usize = 64;

/// Publishes the changes of one shard.
pub struct EventManager {
    enabled: bool,
    /// Whether this replica serves. The changes that are applied before it does are not published.
    serving: AtomicBool,
    queue_bytes: usize,
    queued_bytes: AtomicUsize,
    sender: mpsc::UnboundedSender<Vec<Change>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Vec<Change>>>>,
    metrics: OnceLock<Arc<ShardMetrics>>,
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

    fn with_queue(enabled: bool, queue_bytes: usize) -> Arc<Self> {
        // The channel is bounded by `queued_bytes`: every change weighs something.
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(EventManager {
            enabled,
            serving: AtomicBool::new(false),
            queue_bytes,
            queued_bytes: AtomicUsize::new(0),
            sender,
            receiver: Mutex::new(Some(receiver)),
            metrics: OnceLock::new(),
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
        self.serving.store(serving && self.enabled, Ordering::SeqCst);
    }

    fn offer(&self, mut changes: Vec<Change>) {
        if !self.serving.load(Ordering::SeqCst) || changes.is_empty() {
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
        let lost = changes.len() - fitting;
        changes.truncate(fitting);
        if lost > 0 {
            self.count_lost(lost);
        }
        if fitting > 0 {
            self.queued_bytes.fetch_add(taken, Ordering::Relaxed);
            // Fails only when the publisher has ended: then nobody serves here any more.
            let _ = self.sender.send(changes);
        }
    }

    fn count_lost(&self, changes: usize) {
        if let Some(metrics) = self.metrics.get() {
            metrics.events_dropped.increment(changes as u64);
        }
    }

    /// Publishes until `stop`. Runs once per manager; what is queued when it stops is lost.
    pub(crate) async fn run<R: Runtime>(
        self: Arc<Self>,
        voice: Arc<Voice>,
        session: Arc<dyn Session>,
        metrics: Arc<ShardMetrics>,
        stop: CancellationToken,
    ) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receiver) = receiver else { return };
        let _ = self.metrics.set(metrics.clone());
        let mut batches = Vec::with_capacity(BATCHES);
        while stop.run_until_cancelled(receiver.recv_many(&mut batches, BATCHES)).await.unwrap_or(0) > 0 {
            let mut changes = Vec::new();
            for batch in batches.drain(..) {
                changes.extend(batch);
            }
            let bytes: usize = changes.iter().map(weight).sum();
            let publish = {
                let (voice, session, metrics) = (voice.clone(), session.clone(), metrics.clone());
                move || publish(&voice, &*session, &metrics, changes)
            };
            if session.blocks() {
                R::blocking(publish).await;
            } else {
                publish();
            }
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

fn publish(voice: &Voice, session: &dyn Session, metrics: &ShardMetrics, changes: Vec<Change>) {
    for change in changes {
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
