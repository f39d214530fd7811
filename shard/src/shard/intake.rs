//! The intake: what zenoh's receiving threads call. It takes a request into the bounded queue of the
//! shard's worker, within the node's budget of bytes, or refuses it with `BUSY`. Never waits.

use std::sync::Arc;

use odgm_transport::session::{Query, Sample};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use super::budget::{Budget, Reservation};
use super::metrics::ShardMetrics;
use super::refusal;
use crate::protocol::{Plane, Voice};

/// How many requests of one shard may wait for its worker.
pub(super) const QUEUE: usize = 4096;
/// What a request takes beside its payload.
const REQUEST_OVERHEAD_BYTES: usize = 512;

/// What came in.
#[derive(Debug)]
pub(super) enum Arrived {
    /// A query on one of the planes.
    Query(Plane, Query),
    /// An advanced subscriber's query for history.
    Cache(Query),
    /// A plain put or delete.
    Sample(Sample),
}

/// A request with its part of the budget.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) arrived: Arrived,
    pub(super) held: Reservation,
}

/// The front of the queue.
#[derive(Debug)]
pub(super) struct Intake {
    voice: Arc<Voice>,
    budget: Arc<Budget>,
    metrics: Arc<ShardMetrics>,
    queue: mpsc::Sender<Job>,
}

impl Intake {
    pub(super) fn new(
        voice: Arc<Voice>,
        budget: Arc<Budget>,
        metrics: Arc<ShardMetrics>,
    ) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        (Arc::new(Intake { voice, budget, metrics, queue }), jobs)
    }

    pub(super) fn offer_query(&self, plane: Plane, query: Query) {
        let bytes = query.key.len()
            + query.parameters.len()
            + query.payload.as_ref().map_or(0, |payload| payload.len())
            + query.attachment.as_ref().map_or(0, |attachment| attachment.len());
        if let Some(Arrived::Query(plane, query)) = self.offer(Arrived::Query(plane, query), bytes) {
            // Another partition's queries by `*` are not ours to refuse.
            let (keys, shard, key) = (self.voice.keys(), self.voice.shard(), query.key.as_str());
            let others = match plane {
                Plane::Command => matches!(keys.command_target(plane, key, shard), Ok(None)),
                _ => matches!(keys.data_query(plane, key, shard), Ok(None)),
            };
            if !others {
                let refused = refusal::busy("too many requests under way");
                self.metrics.refused(plane.name(), refused.code.name());
                let reply = refused.reply_to(&query.parameters, Uuid::new_v4);
                query.respond(reply);
            }
        }
    }

    /// One that does not fit ends without an answer: its subscriber goes on with what comes.
    pub(super) fn offer_cache(&self, query: Query) {
        let bytes = query.key.len() + query.parameters.len();
        self.offer(Arrived::Cache(query), bytes);
    }

    pub(super) fn offer_sample(&self, sample: Sample) {
        let bytes = sample.key.len()
            + sample.payload.as_ref().map_or(0, |payload| payload.len())
            + sample.attachment.as_ref().map_or(0, |attachment| attachment.len());
        if self.offer(Arrived::Sample(sample), bytes).is_some() {
            self.metrics.sample_refused("BUSY");
        }
    }

    /// Gives back what did not fit.
    fn offer(&self, arrived: Arrived, bytes: usize) -> Option<Arrived> {
        let Some(held) = self.budget.reserve(bytes + REQUEST_OVERHEAD_BYTES) else { return Some(arrived) };
        match self.queue.try_send(Job { arrived, held }) {
            Ok(()) => None,
            Err(TrySendError::Full(job) | TrySendError::Closed(job)) => Some(job.arrived),
        }
    }
}
