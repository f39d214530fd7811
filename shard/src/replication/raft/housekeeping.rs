//! Snapshots when they are due, and the removal of old ones.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use openraft_rt::{Instant, WatchReceiver};

use super::inbox::Raft;
use super::state_machine::ReplicaState;
use crate::runtime::{Runtime, unix_ms};
use crate::{Error, Result};

/// How often superseded snapshots are looked at.
const SWEEP: Duration = Duration::from_secs(15);
/// How long a snapshot that is due may take before it is tried again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// A follower that lacks no more entries than this gets them from the log.
const CLOSE: u64 = 32;

/// Takes snapshots as they become due and removes old ones, until dropped.
pub(crate) async fn keep<R: Runtime>(raft: Raft<R>, state: Arc<ReplicaState>, started: R::Instant) {
    loop {
        let (due, sweep) = (std::pin::pin!(state.growth.due()), std::pin::pin!(R::sleep(SWEEP)));
        match select(due, sweep).await {
            Either::Left(_) => {
                let previous = raft.metrics().borrow_watched().snapshot.map(|id| id.index);
                if let Err(error) = snapshot(&raft, &state, SNAPSHOT_TIMEOUT).await {
                    tracing::warn!(%error, "a snapshot that was due was not taken");
                } else if let Some(previous) = previous {
                    // What openraft keeps is a number of entries, however large: no more than what makes a
                    // snapshot due is kept behind one.
                    purge(&raft, previous).await;
                }
            }
            Either::Right(_) => {
                let (snapshots, now) = (state.snapshots.clone(), started.elapsed());
                let unix = unix_ms(R::wall_clock());
                if let Err(error) = R::blocking(move || snapshots.sweep(now, unix)).await {
                    tracing::warn!(%error, "an old snapshot could not be removed");
                }
            }
        }
    }
}

/// Takes a snapshot and purges the log behind it, but for what followers that are up to date may still need.
pub(crate) async fn compact<R: Runtime>(
    raft: &Raft<R>,
    state: &Arc<ReplicaState>,
    timeout: Duration,
) -> Result<()> {
    snapshot(raft, state, timeout).await?;
    let upto = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or_default();
        let matched = metrics.replication.iter().flatten().filter_map(|(_, matched)| *matched);
        let close = matched.map(|id| id.index).filter(|matched| matched.saturating_add(CLOSE) >= last);
        close.chain(metrics.snapshot.map(|id| id.index)).min()
    };
    if let Some(upto) = upto {
        purge(raft, upto).await;
    }
    Ok(())
}

async fn purge<R: Runtime>(raft: &Raft<R>, upto: u64) {
    if let Err(fatal) = raft.trigger().purge_log(upto).await {
        tracing::warn!(%fatal, "the log was not purged behind a snapshot");
    }
}

/// Takes a snapshot and waits until it is there; the log behind it is purged by openraft.
pub(crate) async fn snapshot<R: Runtime>(
    raft: &Raft<R>,
    state: &Arc<ReplicaState>,
    timeout: Duration,
) -> Result<()> {
    let mut metrics = raft.metrics();
    let Some(applied) = metrics.borrow_watched().last_applied.map(|id| id.index) else { return Ok(()) };
    if metrics.borrow_watched().snapshot.is_some_and(|id| id.index >= applied) {
        return Ok(());
    }
    // Most of the bytes reach the disk here, while commands go on being applied.
    let data = state.snapshots.data();
    R::blocking(move || data.sync()).await?;
    raft.trigger().snapshot().await.map_err(|fatal| Error::Unavailable(fatal.to_string()))?;
    let waiting = async {
        loop {
            {
                let present = metrics.borrow_and_update();
                if present.snapshot.is_some_and(|id| id.index >= applied) {
                    return Ok(());
                }
                if let Err(fatal) = &present.running_state {
                    return Err(Error::Unavailable(fatal.to_string()));
                }
            }
            if metrics.changed().await.is_err() {
                return Err(Error::Unavailable("the replica stops".to_owned()));
            }
        }
    };
    R::timeout(timeout, waiting).await.unwrap_or(Err(Error::Timeout(timeout)))
}
