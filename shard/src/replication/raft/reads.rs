//! Read barriers: by the leader's lease while it has one, else by ReadIndex (Raft §6.4), one round for all that
//! came before it began.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft_rt::WatchReceiver;
use tokio::sync::{mpsc, oneshot};

use super::inbox::Raft;
use super::options::{RaftOptions, ReadMode};
use super::writes::forward_error;
use crate::planted::{Bug, planted};
use crate::runtime::Runtime;
use crate::{Error, Result};

/// Reads that may wait for a round.
const QUEUE: usize = 65_536;
/// Rounds under way at once: a read that comes during one need not wait for its end.
const ROUNDS: usize = 2;

type Waiter = oneshot::Sender<Result<()>>;

/// Takes barriers.
#[derive(Debug)]
pub(crate) struct Reads {
    queue: mpsc::Sender<Waiter>,
}

/// Where the barriers come out again, for [`confirm`].
pub(crate) struct Barriers {
    queue: mpsc::Receiver<Waiter>,
}

pub(crate) fn channel() -> (Reads, Barriers) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Reads { queue: sender }, Barriers { queue: receiver })
}

impl Reads {
    pub(crate) fn submit(&self) -> Result<oneshot::Receiver<Result<()>>> {
        let (waiter, done) = oneshot::channel();
        match self.queue.try_send(waiter) {
            Ok(()) => Ok(done),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Error::Busy("too many reads wait in this shard")),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::NotLeader { serving: None }),
        }
    }
}

/// Confirms leadership for what comes, until the queue is closed.
pub(crate) async fn confirm<R: Runtime>(raft: Raft<R>, options: RaftOptions, barriers: Barriers) {
    let freshness = match options.reads {
        ReadMode::Lease => options.lease(),
        ReadMode::Index => Duration::ZERO,
    };
    let mut queue = barriers.queue;
    let mut rounds = FuturesUnordered::new();
    loop {
        let first = if rounds.is_empty() {
            queue.recv().await
        } else if rounds.len() >= ROUNDS {
            rounds.next().await;
            continue;
        } else {
            match select(std::pin::pin!(queue.recv()), rounds.next()).await {
                Either::Left((first, _)) => first,
                Either::Right(_) => continue,
            }
        };
        let Some(first) = first else { break };
        let mut waiters = vec![first];
        while let Ok(next) = queue.try_recv() {
            waiters.push(next);
        }
        let raft = raft.clone();
        rounds.push(async move {
            let outcome = round(&raft, freshness).await;
            for waiter in waiters {
                // Whoever gave up waiting is gone.
                let _ = waiter.send(outcome.clone());
            }
        });
    }
    while rounds.next().await.is_some() {}
}

/// Waits until a quorum has answered within `freshness`; asks it when none has.
async fn round<R: Runtime>(raft: &Raft<R>, freshness: Duration) -> Result<()> {
    if planted(Bug::ReadBeforeCommit) {
        let metrics = raft.metrics();
        if metrics.borrow_watched().state == openraft::ServerState::Leader {
            return Ok(());
        }
    }
    match raft.ensure_linearizable(LinearizerOption::new(Some(freshness), true)).await {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(forward_error(&forward))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
            Err(Error::Unavailable(missing.to_string()))
        }
        Err(RaftError::Fatal(fatal)) => Err(Error::Unavailable(fatal.to_string())),
    }
}
