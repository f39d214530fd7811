//! What a replica says about itself, kept up to date from openraft's metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::{RaftMetrics, ServerState};
use openraft_rt::{Instant, WatchReceiver};
use tokio::sync::watch;

use super::inbox::Raft;
use super::types::{Types, position};
use crate::object::{NodeId, ReplicaId};
use crate::planted::{Bug, planted};
use crate::replication::{Role, ShardStatus};
use crate::runtime::Runtime;

/// Under load the bounds change with every batch: they are told at most this often.
const PACE: Duration = Duration::from_millis(5);

/// When a replica last heard the one that leads it.
pub(crate) struct Heard<R: Runtime>(Mutex<R::Instant>);

impl<R: Runtime> Default for Heard<R> {
    fn default() -> Self {
        Heard(Mutex::new(R::Instant::now()))
    }
}

impl<R: Runtime> Heard<R> {
    /// An append or heartbeat came.
    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = R::Instant::now();
    }

    fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Tells the status as it changes, until openraft stops. A replica that does not hear its leader for that long, or a
/// leader its quorum, follows nobody: openraft goes on to name the last leader that it knew, be it itself.
pub(crate) async fn publish<R: Runtime>(
    raft: Raft<R>,
    heard: Arc<Heard<R>>,
    patience: Duration,
    status: watch::Sender<ShardStatus>,
) {
    let mut metrics = raft.metrics();
    loop {
        let (mut next, acknowledged) = {
            let metrics = metrics.borrow_and_update();
            (of(&*metrics), metrics.last_quorum_acked.map(|at| at.elapsed()))
        };
        let stopped = next.role == Role::Stopped;
        let silence = match next.role {
            Role::Following => Some(heard.silence()),
            // Alone it is a quorum, and asks nobody.
            Role::Serving if next.voters.len() > 1 => acknowledged,
            Role::Serving | Role::Leaderless | Role::Stopped => None,
        };
        let again = silence.map(|silence| {
            let left = patience.saturating_sub(silence);
            if left.is_zero() {
                (next.role, next.serving) = (Role::Leaderless, None);
            }
            // Whoever is heard again is followed again, soon.
            left.max(patience / 4)
        });
        status.send_if_modified(|present| {
            let changed = *present != next;
            if changed {
                *present = next;
            }
            changed
        });
        let changed = match again {
            Some(pause) => R::timeout(pause, metrics.changed()).await.unwrap_or(Ok(())),
            None => metrics.changed().await,
        };
        if stopped || changed.is_err() {
            break;
        }
        R::sleep(PACE).await;
    }
    status.send_if_modified(|present| {
        let changed = present.role != Role::Stopped;
        present.role = Role::Stopped;
        present.serving = None;
        changed
    });
}

fn of<R: Runtime>(metrics: &RaftMetrics<Types<R>>) -> ShardStatus {
    let membership = metrics.membership_config.membership();
    let node = |replica: &u64| membership.get_node(replica).map(|member| NodeId(member.node));
    let named = |replica: u64| (ReplicaId(replica), node(&replica).unwrap_or_default());
    let applied = metrics.last_applied.as_ref().map(position);
    // A leader serves once an entry of its own term is applied: then all that was acknowledged before is.
    let settled = applied.is_some_and(|at| at.term == metrics.current_term) || planted(Bug::ReadBeforeCommit);
    let serves = metrics.state == ServerState::Leader && settled;
    let role = match (&metrics.running_state, metrics.state, metrics.current_leader) {
        (Err(_), ..) | (_, ServerState::Shutdown, _) => Role::Stopped,
        (_, ServerState::Leader, _) if serves => Role::Serving,
        (_, _, Some(leader)) if leader != metrics.id => Role::Following,
        _ => Role::Leaderless,
    };
    let serving = match role {
        Role::Serving => node(&metrics.id),
        Role::Following => metrics.current_leader.and_then(|leader| node(&leader)),
        Role::Leaderless | Role::Stopped => None,
    };
    let failure = match &metrics.running_state {
        Err(openraft::errors::Fatal::Stopped) | Ok(()) => None,
        Err(fatal) => Some(fatal.to_string()),
    };
    ShardStatus {
        role,
        serving,
        term: metrics.current_term,
        voters: membership.voter_ids().map(named).collect(),
        learners: membership.learner_ids().map(named).collect(),
        applied,
        last_log_index: metrics.last_log_index,
        purged_log_index: metrics.purged.map(|id| id.index),
        snapshot_index: metrics.snapshot.map(|id| id.index),
        failure,
    }
}
