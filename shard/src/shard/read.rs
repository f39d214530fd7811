//! Reads: what a read asks for, and the answers to concrete keys.

use odgm_transport::session::{Query, Sample};

use super::answer::Answerer;
use super::budget::Reservation;
use super::list::List;
use super::refusal;
use crate::object::ObjectKey;
use crate::protocol::refusal::not_found;
use crate::protocol::{CacheRequest, Plane, ReplayRequest};
use crate::runtime::Runtime;
use crate::state::{ObjectView, Record};

/// A read that was admitted.
#[derive(Debug)]
pub(super) struct Read<R: Runtime> {
    pub(super) plane: Plane,
    pub(super) query: Query,
    pub(super) what: What,
    /// Whether it waits for a barrier.
    pub(super) linearizable: bool,
    pub(super) arrived: R::Instant,
    /// When its barrier must have passed.
    pub(super) deadline: R::Instant,
    /// When a list must have ended.
    pub(super) streamed_until: R::Instant,
    pub(super) held: Reservation,
}

/// What is read.
#[derive(Debug)]
pub(super) enum What {
    /// One key.
    Point(Point),
    /// A selection of keys.
    List(List),
    /// Retained changes.
    Replay(ReplayRequest),
    /// Retained changes, the newest first.
    Cache(CacheRequest),
}

/// The read of one key.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) key: ObjectKey,
    /// Silence instead of `NOT_FOUND`.
    pub(super) missing_empty: bool,
    /// No payload.
    pub(super) keys_only: bool,
}

impl<R: Runtime> Answerer<R> {
    /// The reply for a key that was found.
    pub(super) fn found(&self, plane: Plane, key: &ObjectKey, record: Record, keys_only: bool) -> Sample {
        if keys_only {
            self.voice.record_key(plane, key, record)
        } else {
            self.voice.record(plane, key, record)
        }
    }

    /// Answers the read of one key from a view. May wait for the disk.
    pub(super) fn answer_point(&self, view: &ObjectView, plane: Plane, point: &Point, query: Query) {
        let found = match view.get(&point.key) {
            Ok(Some(record)) => Ok(record),
            Ok(None) if point.missing_empty => return drop(query),
            Ok(None) => match view.head(&point.key.object) {
                Ok(head) => Err(not_found(head.map_or(0, |head| head.entries))),
                Err(error) => Err(refusal::of(error)),
            },
            Err(error) => Err(refusal::of(error)),
        };
        match found {
            Ok(record) => {
                self.metrics.reads_ok(plane).increment(1);
                query.respond(Ok(self.found(plane, &point.key, record, point.keys_only)));
            }
            Err(refused) => self.refuse(plane, query, refused),
        }
    }
}
