//! A replica of a Raft group as the rest of the crate sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odgm_storage::log::RaftLogStorage;
use odgm_storage::snapshot::{RaftSnapshotStorage, RetainPolicy, SnapshotInfo};
use odgm_transport::timer::BoxFuture;
use openraft::{Config, SnapshotPolicy};
use openraft_rt::{Instant, WatchReceiver};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::clocks::Clocks;
use super::inbox::{self, Desk, Raft};
use super::log::Log;
use super::network::Network;
use super::pull::Puller;
use super::snapshot::SnapshotSet;
use super::state_machine::{Growth, ReplicaState, StateMachine};
use super::status::Heard;
use super::{RaftOptions, RaftRouter, ReplicaData, housekeeping, reads, status, writes};
use crate::object::{GroupId, NodeId, ReplicaId};
use crate::planted::{Bug, planted};
use crate::replication::queue::{self, Queue};
use crate::replication::{ChangeSink, KeptBy, Offers, Role, ShardState, ShardStatus};
use crate::runtime::{Runtime, unix_ms};
use crate::state::{Command, ObjectView, Outcome, Position};
use crate::{Error, Result};

/// What a replica is made of.
pub struct RaftParts<R: Runtime> {
    /// The group, the same on all its replicas.
    pub group: GroupId,
    /// This replica; never used before by another one of the group, nor by this one before it lost its disk.
    pub replica: ReplicaId,
    /// The group's log on this node.
    pub log: Arc<dyn RaftLogStorage>,
    /// The portable snapshots of this replica.
    pub snapshots: Arc<dyn RaftSnapshotStorage>,
    /// Which of them are kept.
    pub retain: RetainPolicy,
    /// The data of this replica.
    pub data: ReplicaData,
    /// A directory of this replica's own, for checkpoints; made when absent.
    pub dir: PathBuf,
    /// Gets the changes, on every replica, in order.
    pub sink: ChangeSink,
    /// The router of this node.
    pub router: Arc<RaftRouter<R>>,
}

impl<R: Runtime> fmt::Debug for RaftParts<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftParts")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

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
    group: GroupId,
    replica: ReplicaId,
    pub(super) options: RaftOptions,
    /// Until when it takes no part in elections.
    pub(super) embargo: Option<R::Instant>,
    pub(super) raft: Raft<R>,
    state: Arc<ReplicaState>,
    started: R::Instant,
    status: watch::Receiver<ShardStatus>,
    writes: Queue,
    reads: reads::Reads,
    router: Arc<RaftRouter<R>>,
    stop: CancellationToken,
    tasks: Arc<Mutex<Vec<R::JoinHandle<()>>>>,
}

impl<R: Runtime> RaftShard<R> {
    /// Opens the replica from its layers and takes part in its group. A replica without any log or
    /// data waits for [`RaftShard::initialize`] or for a leader that adds it.
    ///
    /// # Errors
    /// When the options cannot be, a layer fails, or log and data do not belong together.
    ///
    /// Boxed, as [`RaftShard::snapshot`]: the compiler can't see through the runtime's own futures that what
    /// awaits them may move between threads.
    pub fn start(parts: RaftParts<R>, options: RaftOptions) -> BoxFuture<'static, Result<Arc<Self>>> {
        Box::pin(Self::open(parts, options))
    }

    async fn open(parts: RaftParts<R>, options: RaftOptions) -> Result<Arc<Self>> {
        options.validate()?;
        let RaftParts { group, replica, log, snapshots, retain, data, dir, sink, router } = parts;
        let started = R::Instant::now();
        let growth = Growth::new(options.snapshot_entries, options.snapshot_bytes);
        let state = R::blocking(move || {
            let snapshots = Arc::new(SnapshotSet::open(dir, data, snapshots, retain)?);
            ReplicaState::open(snapshots, growth).map(Arc::new)
        })
        .await?;
        let mut machine = StateMachine::<R>::new(state.clone(), sink, started);
        if state.applied().map(|at| at.index) > log.state().last.map(|at| at.index) {
            // A process that is killed loses what it had not yet written of its log, while its data may hold more: an
            // entry is applied when a majority has it. The log goes on behind them, so they must be durable.
            machine.store_applied().await?;
        }
        let mailbox = router
            .register(group, replica.0)
            .ok_or_else(|| Error::Invalid(format!("group {group} has a replica on this node already")))?;
        let clocks = Arc::new(Clocks::default());
        let network = Network {
            router: router.clone(),
            group,
            replica: replica.0,
            window_bytes: options.window_bytes,
            late: options.late(),
            streams: Arc::new(AtomicU64::new(R::random())),
            clocks: clocks.clone(),
        };
        // Without a vote on disk it never followed anybody, so it granted no lease.
        let embargo = log.vote().filter(|_| !planted(Bug::NoBootEmbargo));
        let embargo = embargo.map(|_| started + options.embargo());
        let log = Log::<R>::new(log, state.snapshots.restorable());
        let raft = match Raft::<R>::new(
            replica.0,
            config(&options, embargo.is_none())?,
            network,
            log,
            machine,
        )
        .await
        {
            Ok(raft) => raft,
            Err(fatal) => {
                router.unregister(group);
                return Err(Error::Internal(fatal.to_string()));
            }
        };

        // The only voter granted a lease to nobody but itself.
        let alone =
            raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([replica.0]));
        let alone = alone.await.map_err(|fatal| Error::Internal(fatal.to_string()))?;
        let embargo = embargo.filter(|_| !alone);
        if alone {
            // It needs no election timeout.
            raft.runtime_config().elect(true);
            raft.trigger().elect(false).await.map_err(|fatal| Error::Internal(fatal.to_string()))?;
        }

        let (status_sender, status) = watch::channel(status::initial());
        let (writes, proposals) = queue::channel(options.inflight_bytes);
        let (reads, barriers) = reads::channel();
        let stop = CancellationToken::new();
        let heard = Arc::<Heard<R>>::default();
        let desk = Desk {
            raft: raft.clone(),
            heard: heard.clone(),
            snapshots: state.snapshots.clone(),
            puller: Puller::new(router.clone(), state.snapshots.clone(), group, replica.0),
            started,
            embargo,
        };
        let mut tasks = vec![
            R::spawn(inbox::serve_appends(raft.clone(), heard.clone(), mailbox.appends)),
            R::spawn(inbox::serve_others(desk, mailbox.others)),
            R::spawn(status::publish(raft.clone(), heard, options.patience(), status_sender)),
        ];
        if let Some(end) = embargo {
            let (token, raft) = (stop.clone(), raft.clone());
            tasks.push(R::spawn(async move {
                let over = token.run_until_cancelled(R::sleep_until(end)).await;
                raft.runtime_config().elect(over.is_some());
            }));
        }
        let until = |token: &CancellationToken| token.clone();
        let (propose, confirm) = (raft.clone(), raft.clone());
        let (token, own) = (until(&stop), options.clone());
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(writes::propose(propose, clocks, own, proposals)).await;
        }));
        let (token, own) = (until(&stop), options.clone());
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(reads::confirm(confirm, own, barriers)).await;
        }));
        let (token, keeper) = (until(&stop), housekeeping::keep(raft.clone(), state.clone(), started));
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(keeper).await;
        }));

        let tasks = Arc::new(Mutex::new(tasks));
        let shard = RaftShard {
            group,
            replica,
            options,
            embargo,
            raft,
            state,
            started,
            status,
            writes,
            reads,
            router,
            stop,
            tasks,
        };
        Ok(Arc::new(shard))
    }

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

fn config(options: &RaftOptions, elects: bool) -> Result<Arc<Config>> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (heartbeat, max) = (ms(options.heartbeat), ms(options.election_max));
    let config = Config {
        cluster_name: "odgm".to_owned(),
        heartbeat_interval: heartbeat,
        election_timeout_min: ms(options.election_min),
        election_timeout_max: max,
        install_snapshot_timeout: 15_000,
        max_payload_entries: 1024,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.keep_entries,
        // Purged behind a snapshot only: all at once.
        purge_batch_size: 1,
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        enable_elect: elects,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(2 * max + heartbeat),
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| Error::Invalid(error.to_string()))
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
