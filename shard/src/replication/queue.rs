//! The commands that wait for the one writer of a replica, of every kind: in the order in which they were given, and
//! bounded in bytes, so that neither a slow disk nor a lost quorum can fill the memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use odgm_storage::data::Durability;
use tokio::sync::{mpsc, oneshot};

use crate::object::Value;
use crate::state::{Command, Operation, Outcome, Step, Upkeep};
use crate::{Error, Result};

/// What a command costs beside its bytes.
const COMMAND_BYTES: usize = 128;
/// What a part of a command costs beside its bytes: a step or a check of a transaction, a key that is over.
const PART_BYTES: usize = 512;

/// How a replica without a log writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// When a write survives a loss of power: `storage.data.sync`.
    pub durability: Durability,
    /// After how long a write gives up; its outcome is unknown then.
    pub deadline: Duration,
    /// Bytes of commands that may wait; more is refused as busy.
    pub inflight_bytes: u64,
    /// The most commands of one batch.
    pub batch_commands: usize,
    /// How long answers are remembered by request id.
    pub rid_window: Duration,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            durability: Durability::Now,
            deadline: Duration::from_secs(10),
            inflight_bytes: 64 << 20,
            batch_commands: 1024,
            rid_window: Duration::from_secs(60),
        }
    }
}

/// A command with who waits for it.
pub(super) struct Pending {
    pub(super) command: Command,
    pub(super) waiter: Waiter,
}

/// Who waits for a command's outcome.
pub(super) struct Waiter {
    reply: oneshot::Sender<Result<Outcome>>,
    admitted: Admitted,
}

impl Waiter {
    /// What its command takes of the budget.
    pub(super) fn bytes(&self) -> u64 {
        self.admitted.bytes
    }

    /// Gives the bytes back before the answer: whoever has it may submit as much again.
    pub(super) fn answer(self, outcome: Result<Outcome>) {
        drop(self.admitted);
        // Whoever gave up waiting is gone.
        let _ = self.reply.send(outcome);
    }
}

/// Bytes of the budget, given back when dropped.
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
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Pending>,
    /// Bytes that are free; what bounds the channel, since every command weighs something.
    budget: Arc<AtomicU64>,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// A queue and its end.
pub(super) fn channel(inflight_bytes: u64) -> (Queue, mpsc::UnboundedReceiver<Pending>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue { sender, budget: Arc::new(AtomicU64::new(inflight_bytes)) }, receiver)
}

impl Queue {
    /// Queues a command, in the order of the calls.
    ///
    /// # Errors
    /// [`Error::Busy`] over the budget, [`Error::NotLeader`] when the writer has ended: nothing happened.
    pub(super) fn submit(&self, command: Command) -> Result<oneshot::Receiver<Result<Outcome>>> {
        let bytes = size(&command) as u64;
        let taken =
            self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        if taken.is_err() {
            return Err(Error::Busy("too many bytes of commands are under way in this shard"));
        }
        let admitted = Admitted { bytes, budget: self.budget.clone() };
        let (reply, outcome) = oneshot::channel();
        let pending = Pending { command, waiter: Waiter { reply, admitted } };
        self.sender.send(pending).map_err(|_| Error::NotLeader { serving: None })?;
        Ok(outcome)
    }
}

pub(super) fn stopped() -> Error {
    Error::Unavailable("the shard stops".to_owned())
}

/// About how many bytes a command takes.
fn size(command: &Command) -> usize {
    let bytes = |value: &Value| value.payload.len() + value.attachment.as_ref().map_or(0, Bytes::len);
    let step = |step: &Step| match step {
        Step::Put { value, .. } => bytes(value) + PART_BYTES,
        Step::Delete { .. } | Step::Increment { .. } => PART_BYTES,
    };
    let body = match &command.operation {
        Operation::Put { value, .. } => bytes(value),
        Operation::Txn { then, otherwise, checks } => {
            then.iter().chain(otherwise).map(step).sum::<usize>() + checks.len() * PART_BYTES
        }
        Operation::Upkeep(Upkeep::Expire(due)) => due.len() * PART_BYTES,
        _ => 0,
    };
    body + COMMAND_BYTES
}
