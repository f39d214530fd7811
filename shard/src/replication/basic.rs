//! One copy, no replication: [`BasicShard`] runs commands as the state machine of Raft does, linearizable on its
//! one replica, and acknowledges what is fsynced.
//!
//! A batch is durable before it is visible, so a read never shows what a loss of power could take back, and
//! needs no barrier.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use odgm_storage::data::ApplicationDataStorage;
use odgm_transport::timer::BoxFuture;
use openraft_rt::Instant;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::queue::{self, Pending, Queue, WriteOptions, stopped};
use super::rid_window::RidWindow;
use super::{ChangeSink, KeptBy, Offers, Role, ShardState, ShardStatus};
use crate::object::{NodeId, ReplicaId};
use crate::runtime::Runtime;
use crate::state::view::ViewSource;
use crate::state::{Applied, Batch, Command, Input, ObjectTable, ObjectView, Outcome, Position};
use crate::{Error, Result};

/// What the one replica is made of.
#[derive(Clone)]
pub struct BasicParts {
    /// This replica.
    pub replica: ReplicaId,
    /// This node.
    pub node: NodeId,
    /// Its data.
    pub data: Arc<dyn ApplicationDataStorage>,
    /// Gets the changes, in order.
    pub sink: ChangeSink,
}

impl fmt::Debug for BasicParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicParts").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// The one replica of a shard that is not replicated. Close it before its data.
pub struct BasicShard<R: Runtime> {
    options: WriteOptions,
    queue: Mutex<Option<Queue>>,
    views: ViewSource,
    status: watch::Receiver<ShardStatus>,
    stop: CancellationToken,
    writer: Arc<Mutex<Option<R::JoinHandle<()>>>>,
}

impl<R: Runtime> BasicShard<R> {
    /// Opens what the data layer holds, and serves.
    ///
    /// # Errors
    /// When the data layer fails, or holds records that this build does not read.
    pub async fn start(parts: BasicParts, options: WriteOptions) -> Result<Arc<Self>> {
        let BasicParts { replica, node, data, sink } = parts;
        let table = R::blocking(move || ObjectTable::open(data)).await?;
        let status = ShardStatus {
            role: Role::Serving,
            serving: Some(node),
            voters: vec![(replica, node)],
            // Nothing written is a state, too.
            applied: table.applied().or(Some(Position { term: 0, index: 0 })),
            ..ShardStatus::unknown()
        };
        let views = table.views();
        let (status_sender, status) = watch::channel(status);
        let (queue, commands) = queue::channel(options.inflight_bytes);
        let stop = CancellationToken::new();
        let writer =
            Writer { table: Some(table), commands, options: options.clone(), status: status_sender, sink };
        let writer = R::spawn(writer.run::<R>(stop.clone()));
        Ok(Arc::new(BasicShard {
            options,
            queue: Mutex::new(Some(queue)),
            views,
            status,
            stop,
            writer: Arc::new(Mutex::new(Some(writer))),
        }))
    }
}

/// The one writer.
struct Writer {
    /// `None` while a batch is being written.
    table: Option<ObjectTable>,
    commands: mpsc::UnboundedReceiver<Pending>,
    options: WriteOptions,
    status: watch::Sender<ShardStatus>,
    sink: ChangeSink,
}

impl Writer {
    /// Writes what comes, until the queue is gone, until `stop`, or until the data layer fails.
    async fn run<R: Runtime>(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        let mut window = RidWindow::<R::Instant>::new(self.options.rid_window);
        loop {
            let taken = self.commands.recv_many(&mut batch, self.options.batch_commands);
            if stop.run_until_cancelled(taken).await.unwrap_or(0) == 0 {
                break;
            }
            let (commands, waiters): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|pending| (pending.command, pending.waiter)).unzip();
            match self.apply::<R>(commands, &mut window).await {
                Ok(Applied { outcomes, changes }) => {
                    (self.sink)(changes);
                    for (waiter, outcome) in waiters.into_iter().zip(outcomes.into_iter().flatten()) {
                        waiter.answer(Ok(outcome));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the data of a shard could not be written: it stops");
                    let failure = error.to_string();
                    for waiter in waiters {
                        waiter.answer(Err(Error::Unavailable(failure.clone())));
                    }
                    self.status.send_modify(|status| status.failure = Some(failure));
                    break;
                }
            }
        }
        self.status.send_modify(|status| (status.role, status.serving) = (Role::Stopped, None));
        self.commands.close();
        while let Ok(pending) = self.commands.try_recv() {
            pending.waiter.answer(Err(stopped()));
        }
    }

    async fn apply<R: Runtime>(
        &mut self,
        commands: Vec<Command>,
        window: &mut RidWindow<R::Instant>,
    ) -> Result<Applied> {
        let mut table = self.table.take().ok_or_else(stopped)?;
        let index = table.applied().map_or(1, |position| position.index + 1);
        let position = Position { term: 0, index };
        let time = R::wall_clock();
        let batch = Batch { time, rid_window_ms: window.ms(R::Instant::now(), time), commands };
        let durability = self.options.durability;
        let (table, applied) = R::blocking(move || {
            let applied = table.apply_as(vec![(position, Input::Batch(batch))], durability);
            (table, applied)
        })
        .await;
        self.table = Some(table);
        if applied.is_ok() {
            self.status.send_modify(|status| status.applied = Some(position));
        }
        applied
    }
}

impl<R: Runtime> fmt::Debug for BasicShard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicShard").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl<R: Runtime> ShardState for BasicShard<R> {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let submitted = queue.as_ref().ok_or_else(stopped).and_then(|queue| queue.submit(command));
        drop(queue);
        let deadline = self.options.deadline;
        Box::pin(async move {
            match R::timeout(deadline, submitted?).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(stopped()),
                Err(_) => Err(Error::Timeout(deadline)),
            }
        })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        let serves = self.status.borrow().role == Role::Serving;
        Box::pin(async move { if serves { Ok(()) } else { Err(stopped()) } })
    }

    fn view(&self) -> ObjectView {
        self.views.view()
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        self.status.clone()
    }

    fn offers(&self) -> Offers {
        Offers { linearizable: true, object_numbers: false, kept_by: KeptBy::ServingReplica }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.stop.cancel();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            if let Some(writer) = writer
                && let Err(error) = writer.await
            {
                tracing::error!(%error, "the writer of a shard failed");
            }
        })
    }
}
