//! A replica of a Raft group as the rest of the crate sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odgm_storage::snapshot::SnapshotInfo;
use odgm_transport::timer::BoxFuture;
use openraft_rt::{Instant, WatchReceiver};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::inbox::Raft;
use super::state_machine::ReplicaState;
use super::{RaftOptions, RaftRouter, housekeeping, reads};
use crate::object::{GroupId, NodeId, ReplicaId};
use crate::replication::queue::Queue;
use crate::replication::{KeptBy, Offers, Role, ShardState, ShardStatus};
use crate::runtime::{Runtime, unix_ms};
use crate::state::{Command, ObjectView, Outcome, Position};
use crate::{Error, Result};

/// How far a replica is behind, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The replica.
    pub replica: ReplicaId,
    /// Its last log index known to be there; `None` before its first answer.
    pub matched: Option<u64>,
    /// Entries it lacks.
    pub lag: u64,
}

/// One replica of a Raft group. Close it before its layers; dropped unclosed, it goes on in the background.
pub struct RaftShard<R: Runtime> {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) options: RaftOptions,
    /// Until when it takes no part in elections.
    pub(super) embargo: Option<R::Instant>,
    pub(super) raft: Raft<R>,
    pub(super) state: Arc<ReplicaState>,
    pub(super) started: R::Instant,
    pub(super) status: watch::Receiver<ShardStatus>,
    pub(super) writes: Queue,
    pub(super) reads: reads::Reads,
    pub(super) router: Arc<RaftRouter<R>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Arc<Mutex<Vec<R::JoinHandle<()>>>>,
}

impl<R: Runtime> RaftShard<R> {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The last entry applied here, as of now; the status may be some milliseconds older.
    pub fn applied(&self) -> Option<Position> {
        self.state.applied()
    }

    /// Takes a snapshot of all that is applied, and purges the log behind it, but for the last entries that a
    /// follower still lacks. Completes when the snapshot is there.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it was not within the options' deadline: the reason is logged.
    pub fn snapshot(&self) -> BoxFuture<'static, Result<()>> {
        let (raft, state, deadline) = (self.raft.clone(), self.state.clone(), self.options.deadline);
        Box::pin(async move { housekeeping::compact(&raft, &state, deadline).await })
    }

    /// The portable snapshots that this replica holds, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn snapshots(&self) -> BoxFuture<'static, Result<Vec<SnapshotInfo>>> {
        let snapshots = self.state.snapshots.clone();
        Box::pin(async move { Ok(R::blocking(move || snapshots.store().list()).await?) })
    }

    /// Takes a snapshot and writes its portable form, for [`RaftShard::read_snapshot`]. It stays for a minute
    /// after the last read of it, and as long as it is to be retained.
    ///
    /// # Errors
    /// As [`RaftShard::snapshot`], or when the disk refuses.
    pub fn export(&self) -> BoxFuture<'static, Result<SnapshotInfo>> {
        let taken = self.snapshot();
        let snapshots = self.state.snapshots.clone();
        Box::pin(async move {
            taken.await?;
            let created = unix_ms(R::wall_clock());
            R::blocking(move || {
                let current = snapshots.current();
                let id =
                    current.ok_or_else(|| Error::Internal("a snapshot was taken and is gone".to_owned()))?.id;
                Ok(snapshots.portable(id, created)?)
            })
            .await
        })
    }

    /// Bytes of the stored form of a snapshot from `offset` on; `None` when it is not here (any more).
    ///
    /// # Errors
    /// When the store fails.
    pub fn read_snapshot(
        &self,
        id: Uuid,
        offset: u64,
        len: usize,
    ) -> BoxFuture<'static, Result<Option<Bytes>>> {
        let (snapshots, now) = (self.state.snapshots.clone(), self.started.elapsed());
        Box::pin(async move {
            R::blocking(move || match snapshots.read_stored(id, offset, len, now) {
                Err(odgm_storage::Error::NotFound { .. }) => Ok(None),
                read => Ok(Some(read?)),
            })
            .await
        })
    }

    /// Waits until the entry at `index` is applied here.
    ///
    /// # Errors
    /// [`Error::Timeout`], and [`Error::Unavailable`] when the replica stops.
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<()> {
        let reached = |applied: Option<u64>| applied.is_some_and(|at| at >= index);
        self.wait(timeout, move |metrics| reached(metrics.last_applied.map(|id| id.index))).await
    }

    /// Waits until openraft's metrics are as asked.
    pub(super) async fn wait(
        &self,
        timeout: Duration,
        holds: impl Fn(&openraft::RaftMetrics<super::types::Types<R>>) -> bool + Send + Sync,
    ) -> Result<()> {
        let mut metrics = self.raft.metrics();
        let waiting = async move {
            loop {
                {
                    let present = metrics.borrow_and_update();
                    if holds(&*present) {
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

    /// How far the others are, as this leader knows; empty on a follower.
    pub fn progress(&self) -> Vec<Progress> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index;
        let lag = |matched: Option<u64>| match (last, matched) {
            (Some(last), Some(matched)) => last.saturating_sub(matched),
            (Some(last), None) => last + 1,
            (None, _) => 0,
        };
        let others = metrics.replication.iter().flatten();
        others
            .filter(|(replica, _)| **replica != self.replica.0)
            .map(|(replica, matched)| {
                let matched = matched.map(|id| id.index);
                Progress { replica: ReplicaId(*replica), matched, lag: lag(matched) }
            })
            .collect()
    }

    /// The members that the group is founded with.
    pub(super) fn members(members: BTreeMap<ReplicaId, NodeId>) -> BTreeMap<u64, super::types::Member> {
        let member =
            |(replica, node): (ReplicaId, NodeId)| (replica.0, super::types::Member { node: node.0 });
        members.into_iter().map(member).collect()
    }

    /// The voters now, while no change is under way.
    pub(super) fn settled_voters(&self) -> Option<BTreeSet<u64>> {
        let membership = self.raft.metrics().borrow_watched().membership_config.clone();
        match membership.get_joint_config().as_slice() {
            [voters] => Some(voters.clone()),
            _ => None,
        }
    }
}

impl<R: Runtime> ShardState for RaftShard<R> {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        let submitted = self.writes.submit(command);
        let deadline = self.options.deadline;
        Box::pin(async move {
            match R::timeout(deadline, submitted?).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Error::Unavailable("the shard stops".to_owned())),
                Err(_) => Err(Error::Timeout(deadline)),
            }
        })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        let submitted = self.reads.submit();
        let deadline = self.options.deadline;
        Box::pin(async move {
            match R::timeout(deadline, submitted?).await {
                Ok(Ok(confirmed)) => confirmed,
                Ok(Err(_)) => Err(Error::Unavailable("the shard stops".to_owned())),
                Err(_) => Err(Error::Timeout(deadline)),
            }
        })
    }

    fn offers(&self) -> Offers {
        Offers { linearizable: true, object_numbers: true, kept_by: KeptBy::ServingReplica }
    }

    fn view(&self) -> ObjectView {
        self.state.view()
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        self.status.clone()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (router, group) = (self.router.clone(), self.group);
        let (raft, stop) = (self.raft.clone(), self.stop.clone());
        let tasks = self.tasks.clone();
        Box::pin(async move {
            if !stop.is_cancelled() {
                stop.cancel();
                // Ends the two inboxes once they have handled what they hold.
                router.unregister(group);
            }
            if let Err(error) = raft.shutdown().await {
                tracing::error!(%group, %error, "openraft did not stop cleanly");
            }
            let tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(%group, %error, "a task of the replica failed");
                }
            }
        })
    }
}

impl<R: Runtime> fmt::Debug for RaftShard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role: Role = self.status.borrow().role;
        f.debug_struct("RaftShard")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .field("role", &role)
            .finish_non_exhaustive()
    }
}
