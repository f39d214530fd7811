//! The answerer: what the requests of a shard are answered from, and the reads' way through the
//! barrier to a view.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use odgm_transport::session::Query;
use openraft_rt::Instant as _;
use openraft_rt::Select2;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Limits;
use super::budget::Budget;
use super::list::List;
use super::metrics::ShardMetrics;
use super::read::{Read, What};
use super::refusal;
use super::worker::Finished;
use crate::protocol::parameters::shown;
use crate::protocol::{Plane, Refusal, Voice};
use crate::replication::{ShardState, ShardStatus};
use crate::runtime::Runtime;
use crate::state::Settings;
use crate::{Error, Result};

/// How often a read looks whether an index that it waits for is there.
const INDEX_PAUSE: Duration = Duration::from_millis(20);

/// A future of the worker.
pub(super) type Task = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// Answers the requests of one shard.
#[derive(Debug)]
pub(super) struct Answerer<R: Runtime> {
    pub(super) voice: Arc<Voice>,
    pub(super) state: Arc<dyn ShardState>,
    pub(super) status: watch::Receiver<ShardStatus>,
    pub(super) budget: Arc<Budget>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) limits: Limits,
    pub(super) settings: watch::Receiver<Settings>,
    /// The shard closes: streams end.
    pub(super) stop: CancellationToken,
    pub(super) runtime: std::marker::PhantomData<fn() -> R>,
}

impl<R: Runtime> Answerer<R> {
    /// Refuses a query, and counts it.
    pub(super) fn refuse(&self, plane: Plane, query: Query, refused: Refusal) {
        self.metrics.refused(plane.name(), refused.code.name());
        let reply = refused.reply_to(&query.parameters, Uuid::new_v4);
        query.respond(reply);
    }

    /// Waits for a barrier, then serves the reads. What is not served at its deadline is told so.
    pub(super) async fn after_barrier(self: Arc<Self>, mut reads: Vec<Read<R>>) -> Finished {
        let mut barrier = self.state.read_barrier();
        let passed: Result<()> = loop {
            let Some(first) = reads.iter().map(|read| read.deadline).min() else { break Ok(()) };
            match R::select2(&mut barrier, R::sleep_until(first)).await {
                Select2::First(passed) => break passed,
                Select2::Second(()) => {
                    let now = R::Instant::now();
                    for read in reads.extract_if(.., |read| read.deadline <= now) {
                        let waited = Error::Timeout(read.deadline - read.arrived);
                        self.refuse(read.plane, read.query, refusal::of(waited));
                    }
                }
            }
        };
        let next = match passed {
            Ok(()) => self.serve(reads),
            Err(error) => {
                for read in reads {
                    self.refuse(read.plane, read.query, refusal::of(error.clone()));
                }
                Vec::new()
            }
        };
        Finished { barrier: true, next }
    }

    /// Serves reads from views taken now, where waiting for the disk is allowed.
    pub(super) fn serve(self: Arc<Self>, reads: Vec<Read<R>>) -> Vec<Task> {
        let mut tasks: Vec<Task> = Vec::new();
        let mut points = Vec::with_capacity(reads.len());
        for read in reads {
            let Read { plane, query, what, arrived, deadline, streamed_until, held, .. } = read;
            let what = match what {
                What::Point(point) => {
                    points.push((plane, point, query, arrived, held));
                    continue;
                }
                streamed => streamed,
            };
            let Some(stream) = self.budget.reserve_stream() else {
                self.refuse(plane, query, refusal::busy("too many lists are being streamed"));
                continue;
            };
            let this = self.clone();
            tasks.push(Box::pin(async move {
                if let What::List(List { find: Some(find), .. }) = &what
                    && let Err(refused) = this.await_index(&find.query.name, deadline).await
                {
                    this.refuse(plane, query, refused);
                    return Finished::default();
                }
                R::blocking(move || {
                    let view = this.state.view();
                    match what {
                        What::Point(point) => this.answer_point(&view, plane, &point, query),
                        What::List(list) => this.stream_list(&view, plane, &list, query, streamed_until),
                        What::Cache(cache) => this.stream_cache(&view, &cache, query, streamed_until),
                        What::Replay(replay) => this.stream_replay(&view, &replay, query, streamed_until),
                    }
                    drop((held, stream));
                })
                .await;
                Finished::default()
            }));
        }
        if !points.is_empty() {
            let this = self;
            tasks.push(Box::pin(async move {
                R::blocking(move || {
                    let view = this.state.view();
                    for (plane, point, query, arrived, held) in points {
                        this.answer_point(&view, plane, &point, query);
                        this.metrics.read_seconds.record(arrived.elapsed());
                        drop(held);
                    }
                })
                .await;
                Finished::default()
            }));
        }
        tasks
    }

    /// Waits until an index can be asked: one that the collection was given lately is being built.
    async fn await_index(&self, name: &str, deadline: R::Instant) -> Result<(), Refusal> {
        loop {
            let (state, asked) = (self.state.clone(), name.to_owned());
            let ready = R::blocking(move || state.view().index_ready(&asked)).await.map_err(refusal::of)?;
            let settings = self.settings.borrow().clone();
            let is_wanted = settings.indexes.iter().any(|index| index.name == name);
            match ready {
                Some(true) => return Ok(()),
                None if !is_wanted => {
                    let known: Vec<&str> = settings.indexes.iter().map(|index| index.name.as_str()).collect();
                    let message = format!("there is no index {}, but [{}]", shown(name), known.join(", "));
                    return Err(Refusal::parameter(message));
                }
                _ if R::Instant::now() >= deadline => return Err(refusal::busy("the index is being built")),
                _ => R::sleep(INDEX_PAUSE).await,
            }
        }
    }
}
