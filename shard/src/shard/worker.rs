//! The worker: one task a shard that takes requests from the intake and drives all of them at once.
//!
//! Reads that are drained together share one barrier and one trip to the threads that may wait for
//! the disk; while barriers are under way the next reads gather. Commands are handed to the
//! replication at once, each in its own future of this task. Whatever is taken has a deadline.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft_rt::Select2;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admit::Todo;
use super::answer::{Answerer, Task};
use super::intake::Job;
use super::read::Read;
use crate::runtime::Runtime;

/// How many requests are taken from the queue at once.
const DRAIN: usize = 256;
/// How many barriers are under way at a time. A read never joins one that began before it came.
const BARRIERS: usize = 4;

/// What a future of the worker leaves to do.
#[derive(Default)]
pub(super) struct Finished {
    /// It was a barrier.
    pub(super) barrier: bool,
    /// What comes after it.
    pub(super) next: Vec<Task>,
}

/// Drives the requests of one shard.
pub(super) struct Worker<R: Runtime> {
    answerer: Arc<Answerer<R>>,
    jobs: mpsc::Receiver<Job>,
    under_way: FuturesUnordered<Task>,
    /// Linearizable reads that wait for a barrier to begin.
    waiting: Vec<Read<R>>,
    barriers: usize,
}

impl<R: Runtime> Worker<R> {
    pub(super) fn new(answerer: Arc<Answerer<R>>, jobs: mpsc::Receiver<Job>) -> Self {
        let under_way = FuturesUnordered::new();
        Worker { answerer, jobs, under_way, waiting: Vec::new(), barriers: 0 }
    }

    /// Runs until the intake is gone and everything taken is answered, or until `abort`.
    pub(super) async fn run(self, abort: CancellationToken) {
        abort.run_until_cancelled_owned(self.drive()).await;
    }

    async fn drive(mut self) {
        let mut drained = Vec::with_capacity(DRAIN);
        let mut open = true;
        while open || !self.under_way.is_empty() {
            if self.under_way.is_empty() {
                open = self.jobs.recv_many(&mut drained, DRAIN).await > 0;
            } else if open {
                match R::select2(self.under_way.next(), self.jobs.recv_many(&mut drained, DRAIN)).await {
                    Select2::First(finished) => self.finish(finished.unwrap_or_default()),
                    Select2::Second(taken) => open = taken > 0,
                }
            } else {
                let finished = self.under_way.next().await;
                self.finish(finished.unwrap_or_default());
            }
            // What arrived meanwhile goes along, so that it shares the barrier.
            while drained.len() < DRAIN {
                let Ok(job) = self.jobs.try_recv() else { break };
                drained.push(job);
            }
            self.take(&mut drained);
        }
    }

    fn take(&mut self, drained: &mut Vec<Job>) {
        let mut local = Vec::new();
        for job in drained.drain(..) {
            match self.answerer.admit(job) {
                Todo::Nothing => {}
                Todo::Read(read) if read.linearizable => self.waiting.push(read),
                Todo::Read(read) => local.push(read),
                Todo::Task(task) => self.under_way.push(task),
            }
        }
        if !local.is_empty() {
            self.under_way.extend(self.answerer.clone().serve(local));
        }
        if !self.waiting.is_empty() && self.barriers < BARRIERS {
            self.barriers += 1;
            let reads = std::mem::take(&mut self.waiting);
            self.under_way.push(Box::pin(self.answerer.clone().after_barrier(reads)));
        }
    }

    fn finish(&mut self, finished: Finished) {
        self.barriers -= usize::from(finished.barrier);
        self.under_way.extend(finished.next);
    }
}
