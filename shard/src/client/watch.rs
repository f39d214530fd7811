//! Committed changes as they come: each once, in order of its partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use odgm_transport::session::{Declaration, Sample};
use tokio::sync::mpsc;

use super::{ClientError, Found, GridClient, Result, invalid, wire};
use crate::object::{CollectionName, ObjectKey, Partition};
use crate::protocol::{Keys, PartitionChunk, Plane};

/// Events that wait to be taken; more are lost, and the watch says so.
const QUEUE: usize = 65_536;

/// A committed change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The partition.
    pub partition: Partition,
    /// The key.
    pub key: ObjectKey,
    /// A delete; else a put.
    pub deleted: bool,
    /// The value of a put, and the change's numbers.
    pub found: Found,
}

/// A subscription.
#[derive(Debug)]
pub struct Watch {
    keys: Keys,
    events: mpsc::Receiver<Sample>,
    lost: Arc<AtomicBool>,
    seen: HashMap<(Partition, [u8; 16]), u64>,
    _subscription: Box<dyn Declaration>,
}

impl GridClient {
    /// Watches what matches `pattern`, the object and entry chunks as zenoh takes them, such as `**`.
    ///
    /// # Errors
    /// When the pattern is none, or the session fails.
    pub fn watch(&self, collection: &CollectionName, pattern: &str) -> Result<Watch> {
        let key = self
            .options
            .keys
            .matching(Plane::Event, collection, PartitionChunk::Any, pattern)
            .map_err(invalid)?;
        let (sender, events) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let overflow = lost.clone();
        let subscription = self.session.subscribe(
            &key,
            Arc::new(move |sample| {
                if sender.try_send(sample).is_err() {
                    overflow.store(true, Ordering::Release);
                }
            }),
        )?;
        Ok(Watch {
            keys: self.options.keys.clone(),
            events,
            lost,
            seen: HashMap::new(),
            _subscription: subscription,
        })
    }
}

impl Watch {
    /// The next change; `None` when the session is closed. Cancel-safe. What a new server of a
    /// partition publishes again is dropped.
    ///
    /// # Errors
    /// [`ClientError::Lagged`] once for events that were lost here.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if self.events.is_empty() && self.lost.swap(false, Ordering::AcqRel) {
                return Err(ClientError::Lagged);
            }
            let Some(sample) = self.events.recv().await else { return Ok(None) };
            let (partition, key) = wire::key(&self.keys, Plane::Event, &sample)?;
            let deleted = sample.payload.is_none();
            let found = Found::read(sample)?;
            let seen = self.seen.entry((partition, found.incarnation)).or_default();
            if found.revision > *seen {
                *seen = found.revision;
                return Ok(Some(Event { partition, key, deleted, found }));
            }
        }
    }
}
