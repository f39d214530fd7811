//! A follower takes over a snapshot: it pulls the stored form in ranges, verifies it, reads it into an
//! import beside the data that serve, and then lets openraft switch over.
//!
//! One transfer at a time. What is here already is kept over errors and restarts of the transfer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use odgm_storage::snapshot::{SnapshotMeta as StoredMeta, SnapshotReceiver};
use odgm_transport::link::{Class, PeerId};
use openraft::vote::RaftVote;
use openraft_rt::WatchReceiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::encode::encode_membership;
use super::inbox::Raft;
use super::message::{self, Header, Install, InstallState, Kind, Pull};
use super::router::RaftRouter;
use super::snapshot::{SnapshotHandle, SnapshotSet};
use super::types::{Snapshot, position};
use crate::object::GroupId;
use crate::runtime::Runtime;

/// Bytes of one range.
const RANGE_BYTES: u32 = 1 << 20;
/// Ranges under way at once.
const RANGES: usize = 3;
/// How long one range may take.
const RANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a range is asked for again before the transfer fails.
const ATTEMPTS: u32 = 5;
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(200);

type Join<R> = <R as openraft_rt::AsyncRuntime>::JoinHandle<()>;

struct Transfer<R: Runtime> {
    id: Uuid,
    state: Arc<Mutex<InstallState>>,
    task: Join<R>,
}

/// Pulls the snapshots of one replica.
pub(crate) struct Puller<R: Runtime> {
    router: Arc<RaftRouter<R>>,
    snapshots: Arc<SnapshotSet>,
    group: GroupId,
    replica: u64,
    transfer: Mutex<Option<Transfer<R>>>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Runtime> Puller<R> {
    pub(crate) fn new(
        router: Arc<RaftRouter<R>>,
        snapshots: Arc<SnapshotSet>,
        group: GroupId,
        replica: u64,
    ) -> Self {
        Puller {
            router,
            snapshots,
            group,
            replica,
            transfer: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Answers an offer with how far it is, and begins when it is a new one. While another one is under way,
    /// that goes on and the new one has to wait.
    pub(crate) fn offer(&self, raft: &Raft<R>, install: Install, from: PeerId, sender: u64) -> InstallState {
        let own = raft.metrics().borrow_watched().vote;
        // Not to pull gigabytes for a leader that is none any more.
        if matches!(RaftVote::partial_cmp(&install.vote, &own), Some(std::cmp::Ordering::Less)) {
            return InstallState::Done(own);
        }
        let mut transfer = lock(&self.transfer);
        if let Some(running) = transfer.as_ref() {
            let state = lock(&running.state).clone();
            match state {
                InstallState::Working(_) if running.id != install.id => return InstallState::Working(0),
                InstallState::Working(_) => return state,
                InstallState::Done(_) | InstallState::Failed(_) if running.id == install.id => {
                    // Told once: the next offer begins again.
                    *transfer = None;
                    return state;
                }
                InstallState::Done(_) | InstallState::Failed(_) => {}
            }
        }
        let state = Arc::new(Mutex::new(InstallState::Working(0)));
        let job = Job {
            router: self.router.clone(),
            snapshots: self.snapshots.clone(),
            raft: raft.clone(),
            header: Header { kind: Kind::Pull, group: self.group, target: sender, sender: self.replica },
            from,
            state: state.clone(),
        };
        let id = install.id;
        let stop = self.stop.clone();
        let task = R::spawn(async move {
            let _ = stop.run_until_cancelled(job.run(install)).await;
        });
        *transfer = Some(Transfer { id, state, task });
        InstallState::Working(0)
    }

    /// Breaks off what runs and waits until it has ended; what is here already is kept.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let running = lock(&self.transfer).take();
        if let Some(running) = running
            && let Err(error) = running.task.await
        {
            tracing::error!(%error, "the transfer of a snapshot failed");
        }
    }
}

struct Job<R: Runtime> {
    router: Arc<RaftRouter<R>>,
    snapshots: Arc<SnapshotSet>,
    raft: Raft<R>,
    header: Header,
    from: PeerId,
    state: Arc<Mutex<InstallState>>,
}

impl<R: Runtime> Job<R> {
    async fn run(self, install: Install) {
        let id = install.id;
        let outcome = self.take_over(install).await;
        if let InstallState::Failed(reason) = &outcome {
            tracing::warn!(%id, reason, "a snapshot was not taken over");
        }
        *lock(&self.state) = outcome;
    }

    async fn take_over(&self, install: Install) -> InstallState {
        let pulled = match self.pull(&install).await {
            Ok(()) => self.stage(&install).await,
            Err(reason) => Err(reason),
        };
        let handle = match pulled {
            Ok(handle) => handle,
            Err(reason) => return InstallState::Failed(reason),
        };
        let snapshot = Snapshot { meta: install.meta, snapshot: handle };
        let (vote, installed) = (install.vote, self.raft.install_full_snapshot(install.vote, snapshot).await);
        match installed {
            Ok(response) if response.vote == vote => InstallState::Done(vote),
            // The same leader may have come back in a new term, and ask about the same file: it would take an answer
            // with its own vote for a success.
            Ok(_) => InstallState::Failed("the term ended meanwhile".to_owned()),
            Err(fatal) => InstallState::Failed(fatal.to_string()),
        }
    }

    /// Gets the file, from where it stands.
    async fn pull(&self, install: &Install) -> Result<(), String> {
        let (store, id, total) = (self.snapshots.store().clone(), install.id, install.stored_bytes);
        let opened = R::blocking(move || {
            let present = store.list()?.iter().any(|info| info.meta.id == id);
            if present { Ok(None) } else { store.receive(id, total).map(Some) }
        });
        let Some(mut receiver) = opened.await.map_err(text)? else { return Ok(()) };
        let mut failures = 0;
        while receiver.offset() < total {
            let before = receiver.offset();
            let (back, result) = self.pull_from(receiver, id, total).await;
            receiver = back;
            let Err(reason) = result else { continue };
            failures = if receiver.offset() > before { 1 } else { failures + 1 };
            if failures >= ATTEMPTS {
                return Err(reason);
            }
            R::sleep(PAUSE).await;
        }
        R::blocking(move || receiver.finish()).await.map(drop).map_err(text)
    }

    /// Pulls with a few ranges under way until the end or the first failure.
    async fn pull_from(
        &self,
        mut receiver: Box<dyn SnapshotReceiver>,
        id: Uuid,
        total: u64,
    ) -> (Box<dyn SnapshotReceiver>, Result<(), String>) {
        let mut next = receiver.offset();
        let mut ranges = FuturesOrdered::new();
        loop {
            while ranges.len() < RANGES && next < total {
                let len = u32::try_from((total - next).min(u64::from(RANGE_BYTES))).unwrap_or(RANGE_BYTES);
                ranges.push_back(self.range(Pull { id, offset: next, len }));
                next += u64::from(len);
            }
            let bytes: Bytes = match ranges.next().await {
                None => return (receiver, Ok(())),
                Some(Ok(bytes)) => bytes,
                Some(Err(reason)) => return (receiver, Err(reason)),
            };
            let (back, written) = R::blocking(move || {
                let written = receiver.write(&bytes);
                (receiver, written)
            })
            .await;
            receiver = back;
            if let Err(error) = written {
                return (receiver, Err(error.to_string()));
            }
            *lock(&self.state) = InstallState::Working(receiver.offset());
        }
    }

    async fn range(&self, pull: Pull) -> Result<Bytes, String> {
        let message = message::encode_pull(self.header, pull);
        let answer = self.router.links().request(self.from, Class::Bulk, message, RANGE_TIMEOUT).await;
        let bytes = answer.map_err(text)?;
        if bytes.len() != pull.len as usize {
            return Err(format!("asked for {} bytes of a snapshot, got {}", pull.len, bytes.len()));
        }
        Ok(bytes)
    }

    async fn stage(&self, install: &Install) -> Result<SnapshotHandle, String> {
        let meta = StoredMeta {
            id: install.id,
            position: install.meta.last_log_id.as_ref().map(position),
            membership: encode_membership(&install.meta.last_membership),
        };
        let handle = SnapshotHandle::new(self.snapshots.clone(), meta);
        let staged = handle.clone();
        R::blocking(move || staged.stage()).await.map_err(text)?;
        Ok(handle)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
