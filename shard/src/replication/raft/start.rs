//! How a replica is put together from its layers.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odgm_transport::timer::BoxFuture;
use openraft::{Config, SnapshotPolicy};
use openraft_rt::Instant;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clocks::Clocks;
use super::inbox::{self, Desk, Raft};
use super::log::Log;
use super::network::Network;
use super::pull::Puller;
use super::router::Mailbox;
use super::shard::RaftShard;
use super::snapshot::SnapshotSet;
use super::state_machine::{Growth, ReplicaState, StateMachine};
use super::{RaftOptions, RaftRouter, housekeeping, reads, status, writes};
use crate::object::ReplicaId;
use crate::planted::{Bug, planted};
use crate::replication::queue::{self, Pending};
use crate::replication::{ReplicaParts, ShardStatus};
use crate::runtime::Runtime;
use crate::{Error, Result};

impl<R: Runtime> RaftShard<R> {
    /// Opens the replica from its layers and takes part in its group. A replica without any log or
    /// data waits for [`RaftShard::initialize`] or for a leader that adds it. Its id was never used before by another
    /// replica of the group, nor by this one before it lost its disk. `router`: that of this node.
    ///
    /// # Errors
    /// When the options cannot be, a layer fails, or log and data do not belong together.
    ///
    /// Boxed, as [`RaftShard::snapshot`]: the compiler can't see through the runtime's own futures that what
    /// awaits them may move between threads.
    pub fn start(
        parts: ReplicaParts,
        router: Arc<RaftRouter<R>>,
        options: RaftOptions,
    ) -> BoxFuture<'static, Result<Arc<Self>>> {
        Box::pin(open(parts, router, options))
    }
}

async fn open<R: Runtime>(
    parts: ReplicaParts,
    router: Arc<RaftRouter<R>>,
    options: RaftOptions,
) -> Result<Arc<RaftShard<R>>> {
    options.validate()?;
    let ReplicaParts { group, replica, log, snapshots, retain, data, dir, sink, .. } = parts;
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
    let config = config(&options, embargo.is_none())?;
    let raft = match Raft::<R>::new(replica.0, config, network, log, machine).await {
        Ok(raft) => raft,
        Err(fatal) => {
            router.unregister(group);
            return Err(Error::Internal(fatal.to_string()));
        }
    };
    let embargo = if elect_if_alone(&raft, replica).await? { None } else { embargo };

    let (status_sender, status) = watch::channel(ShardStatus::unknown());
    let (writes, proposals) = queue::channel(options.inflight_bytes);
    let (reads, barriers) = reads::channel();
    let stop = CancellationToken::new();
    let desk = Desk {
        raft: raft.clone(),
        heard: Arc::default(),
        snapshots: state.snapshots.clone(),
        puller: Puller::new(router.clone(), state.snapshots.clone(), group, replica.0),
        started,
        embargo,
    };
    let work = Work { mailbox, desk, status: status_sender, clocks, proposals, barriers };
    let tasks = Arc::new(Mutex::new(work.begin(&state, &options, &stop)));
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

/// Whether this replica is the only voter: it granted a lease to nobody but itself, and needs no election timeout.
async fn elect_if_alone<R: Runtime>(raft: &Raft<R>, replica: ReplicaId) -> Result<bool> {
    let fatal = |fatal: openraft::errors::Fatal<_>| Error::Internal(fatal.to_string());
    let alone =
        move |state: &openraft::RaftState<_>| state.membership_state.effective().voter_ids().eq([replica.0]);
    let alone = raft.with_raft_state(alone).await.map_err(fatal)?;
    if alone {
        raft.runtime_config().elect(true);
        raft.trigger().elect(false).await.map_err(fatal)?;
    }
    Ok(alone)
}

/// What the tasks of a replica work on.
struct Work<R: Runtime> {
    mailbox: Mailbox,
    desk: Desk<R>,
    status: watch::Sender<ShardStatus>,
    clocks: Arc<Clocks<R>>,
    proposals: mpsc::UnboundedReceiver<Pending>,
    barriers: reads::Barriers,
}

impl<R: Runtime> Work<R> {
    fn begin(
        self,
        state: &Arc<ReplicaState>,
        options: &RaftOptions,
        stop: &CancellationToken,
    ) -> Vec<R::JoinHandle<()>> {
        let Work { mailbox, desk, status, clocks, proposals, barriers } = self;
        let Desk { started, embargo, .. } = desk;
        let (raft, heard) = (desk.raft.clone(), desk.heard.clone());
        let mut tasks = vec![
            R::spawn(inbox::serve_appends(raft.clone(), heard.clone(), mailbox.appends)),
            R::spawn(inbox::serve_others(desk, mailbox.others)),
            R::spawn(status::publish(raft.clone(), heard, options.patience(), status)),
        ];
        if let Some(end) = embargo {
            let (token, raft) = (stop.clone(), raft.clone());
            tasks.push(R::spawn(async move {
                let over = token.run_until_cancelled(R::sleep_until(end)).await;
                raft.runtime_config().elect(over.is_some());
            }));
        }
        let (propose, confirm) = (raft.clone(), raft.clone());
        let (token, own) = (stop.clone(), options.clone());
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(writes::propose(propose, clocks, own, proposals)).await;
        }));
        let (token, own) = (stop.clone(), options.clone());
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(reads::confirm(confirm, own, barriers)).await;
        }));
        let (token, keeper) = (stop.clone(), housekeeping::keep(raft, state.clone(), started));
        tasks.push(R::spawn(async move {
            let _ = token.run_until_cancelled(keeper).await;
        }));
        tasks
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
