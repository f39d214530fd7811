//! Commands become log entries: proposed at once when nothing is under way, gathered while something is.
//!
//! Commands are proposed in the order in which they were given. Admission is by bytes, so that neither a slow
//! disk nor a lost quorum can fill the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use odgm_transport::timer::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};

use super::RaftOptions;
use super::encode::encode_batch;
use super::inbox::Raft;
use super::types::{Payload, Types};
use crate::object::NodeId;
use crate::runtime::Runtime;
use crate::state::{Batch, Command, Operation, Outcome, Step};
use crate::{Error, Result};

/// What a command costs beside its bytes.
const COMMAND_OVERHEAD_BYTES: usize = 64;

/// A command that is not proposed yet.
struct Pending {
    command: Command,
    waiter: Waiter,
}

/// Who waits for a command's outcome.
struct Waiter {
    reply: oneshot::Sender<Result<Outcome>>,
    admitted: Admitted,
}

/// Bytes of the shard's budget, given back when dropped.
struct Admitted {
    bytes: u64,
    budget: Arc<AtomicU64>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.budget.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Takes commands.
#[derive(Debug)]
pub(crate) struct Writes {
    queue: mpsc::UnboundedSender<Pending>,
    /// Bytes that are free.
    budget: Arc<AtomicU64>,
}

/// Where the commands come out again, for [`propose`].
pub(crate) struct Proposals {
    queue: mpsc::UnboundedReceiver<Pending>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("bytes", &self.waiter.admitted.bytes).finish_non_exhaustive()
    }
}

/// The two ends of a queue that holds up to `inflight_bytes` of commands.
pub(crate) fn channel(inflight_bytes: u64) -> (Writes, Proposals) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (
        Writes { queue: sender, budget: Arc::new(AtomicU64::new(inflight_bytes)) },
        Proposals { queue: receiver },
    )
}

impl Writes {
    /// Queues a command, in the order of the calls.
    pub(crate) fn submit(&self, command: Command) -> Result<oneshot::Receiver<Result<Outcome>>> {
        let bytes = size(&command) as u64;
        let taken =
            self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        if taken.is_err() {
            return Err(Error::Busy("too many bytes of commands are under way in this shard"));
        }
        let admitted = Admitted { bytes, budget: self.budget.clone() };
        let (reply, outcome) = oneshot::channel();
        let pending = Pending { command, waiter: Waiter { reply, admitted } };
        self.queue.send(pending).map_err(|_| Error::NotLeader { serving: None })?;
        Ok(outcome)
    }
}

/// About how many bytes a command takes.
fn size(command: &Command) -> usize {
    let step = |step: &Step| match step {
        Step::Put { value, .. } => {
            value.payload.len() + value.attachment.as_ref().map_or(0, bytes::Bytes::len) + 512
        }
        Step::Delete { .. } | Step::Increment { .. } => 512,
    };
    let body = match &command.operation {
        Operation::Put { value, .. } => {
            value.payload.len() + value.attachment.as_ref().map_or(0, bytes::Bytes::len) + 64
        }
        Operation::Txn { then, otherwise, checks } => {
            then.iter().chain(otherwise).map(step).sum::<usize>() + checks.len() * 512
        }
        _ => 64,
    };
    body + COMMAND_OVERHEAD_BYTES
}

type Done<R> = (Vec<Waiter>, Option<ClientWriteResult<Types<R>>>);

/// Proposes what comes, until the queue is closed and everything is answered.
pub(crate) async fn propose<R: Runtime>(raft: Raft<R>, options: RaftOptions, proposals: Proposals) {
    let mut queue = proposals.queue;
    let mut under_way: FuturesUnordered<BoxFuture<'static, Done<R>>> = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        let first = if under_way.is_empty() {
            queue.recv().await
        } else if !open || under_way.len() >= options.batches_inflight {
            finish_one(&mut under_way).await;
            continue;
        } else {
            match select(std::pin::pin!(queue.recv()), under_way.next()).await {
                Either::Left((first, _)) => first,
                Either::Right((done, _)) => {
                    answer(done);
                    continue;
                }
            }
        };
        let Some(first) = first else {
            open = false;
            continue;
        };
        let (payload, waiting) = gather::<R>(first, &mut queue, &options);
        let (responder, result) = OneshotResponder::new_pair();
        match raft.client_write_ff(payload, Some(responder)).await {
            Ok(()) => under_way.push(Box::pin(async move { (waiting, result.await.ok()) })),
            Err(fatal) => fail(waiting, &Error::Unavailable(fatal.to_string())),
        }
    }
}

async fn finish_one<R: Runtime>(under_way: &mut (impl Stream<Item = Done<R>> + Unpin)) {
    answer(under_way.next().await);
}

/// One entry of what waits.
fn gather<R: Runtime>(
    first: Pending,
    queue: &mut mpsc::UnboundedReceiver<Pending>,
    options: &RaftOptions,
) -> (Payload, Vec<Waiter>) {
    let mut bytes = 0;
    let (mut commands, mut waiting) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(Pending { command, waiter }) = next {
        bytes += waiter.admitted.bytes as usize;
        commands.push(command);
        waiting.push(waiter);
        let full = waiting.len() >= options.batch_commands || bytes >= options.batch_bytes;
        next = if full { None } else { queue.try_recv().ok() };
    }
    let rid_window_ms = u64::try_from(options.rid_window.as_millis()).unwrap_or(u64::MAX);
    let batch = Batch { time: R::wall_clock(), rid_window_ms, commands };
    (encode_batch(&batch), waiting)
}

fn answer<R: Runtime>(done: Option<Done<R>>) {
    let Some((waiting, result)) = done else { return };
    match result {
        Some(Ok(response)) => {
            let outcomes = response.data.0;
            if outcomes.len() != waiting.len() {
                let error =
                    Error::Internal("a batch has another number of outcomes than commands".to_owned());
                return fail(waiting, &error);
            }
            for (waiter, outcome) in waiting.into_iter().zip(outcomes) {
                // Whoever gave up waiting is gone.
                let _ = waiter.reply.send(Ok(outcome));
            }
        }
        Some(Err(error)) => fail(waiting, &refusal(error)),
        None => fail(waiting, &Error::Unavailable("the shard stops".to_owned())),
    }
}

fn fail(waiting: Vec<Waiter>, error: &Error) {
    for waiter in waiting {
        let _ = waiter.reply.send(Err(error.clone()));
    }
}

/// What openraft refused, for the caller.
pub(crate) fn refusal<R: Runtime>(error: ClientWriteError<Types<R>>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward) => forward_error(&forward),
        ClientWriteError::LogEntryDiscarded(_) => {
            Error::Unavailable("the leader changed while the entry was under way".to_owned())
        }
        ClientWriteError::ChangeMembershipError(error) => Error::Invalid(error.to_string()),
        ClientWriteError::PreconditionFailed(error) => Error::Invalid(error.to_string()),
    }
}

/// Nothing was proposed: another replica leads, or nobody is known to.
pub(crate) fn forward_error<R: Runtime>(forward: &ForwardToLeader<Types<R>>) -> Error {
    match forward.reason {
        ForwardReason::LeaseExpired => Error::Unavailable("the leader hears no quorum".to_owned()),
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            Error::NotLeader { serving: forward.leader_node.map(|member| NodeId(member.node)) }
        }
    }
}
