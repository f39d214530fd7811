//! A watcher of one partition that goes away and comes back: what it sees must be every change, once, in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use odgm_shard::client::{ClientError, Event, GridClient, Seen};
use odgm_shard::object::Partition;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use crate::door::Door;
use crate::record::{any_change, change};
use crate::worker::Surroundings;

/// How long it stays, in seconds.
const STAYS: std::ops::Range<u64> = 5..40;
/// How long it is away.
const AWAY: std::ops::Range<u64> = 0..4;

/// A change as an event told it: the change, and any of its object.
pub(crate) type Told = (u64, u64);

/// What a watcher saw, by revision from 1.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    told: Mutex<Vec<Told>>,
    counted: Mutex<Counted>,
}

/// How it came to see it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) live: u64,
    pub(crate) replayed: u64,
    pub(crate) resumed: u64,
}

impl Sight {
    /// How many changes.
    pub(crate) fn count(&self) -> u64 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    pub(crate) fn counted(&self) -> Counted {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the next event; what is wrong with it.
    fn take(&self, seen: Seen, event: &Event) -> Option<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = told.len() as u64 + 1;
        let (object, revision) = (event.key.object.as_str(), event.found.revision);
        if seen == Seen::Listed {
            return Some(format!("the history does not reach back to revision {expected}"));
        }
        if revision != expected {
            return Some(format!("event {revision} of {object} came where {expected} was next"));
        }
        let value = String::from_utf8_lossy(&event.found.value);
        told.push((change(object, (!event.deleted).then_some(&*value)), any_change(object)));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if seen == Seen::Live {
            counted.live += 1
        } else {
            counted.replayed += 1
        }
        None
    }
}

/// Watches a partition until the sender is gone; `from` survives every session.
pub(crate) async fn run(
    (partition, seed): (u32, u64),
    mut door: Door,
    around: Arc<Surroundings>,
    sight: Arc<Sight>,
    mut end: watch::Receiver<bool>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    while !*end.borrow_and_update() {
        let stays = Duration::from_secs(random.random_range(STAYS));
        if let Some(client) = door.client().await {
            tokio::select! {
                told = stay(client, partition, &around, &sight, Instant::now() + stays) => {
                    if let Err(error) = told
                        && !matches!(error, ClientError::Unknown { .. } | ClientError::Transport(_))
                    {
                        around.record.violated(format!("a watcher of partition {partition}: {error}"));
                        return;
                    }
                }
                _ = end.changed() => break,
            }
        }
        door.reopen().await;
        let away = tokio::time::sleep(Duration::from_secs(random.random_range(AWAY)));
        tokio::select! {
            () = away => {}
            _ = end.changed() => break,
        }
    }
    door.close().await;
}

async fn stay(
    client: &GridClient,
    partition: u32,
    around: &Surroundings,
    sight: &Sight,
    until: Instant,
) -> Result<(), ClientError> {
    let from = sight.count() + 1;
    let mut watch = client.resume(&around.stage.collection, "**", Some(Partition(partition)), from).await?;
    sight.counted.lock().unwrap_or_else(PoisonError::into_inner).resumed += 1;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(next) = tokio::time::timeout(left, watch.next()).await else { return Ok(()) };
        let Some((seen, event)) = next? else { return Ok(()) };
        if let Some(wrong) = sight.take(seen, &event) {
            return Err(ClientError::Malformed(wrong));
        }
    }
}
