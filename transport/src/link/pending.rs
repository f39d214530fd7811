//! The requests that wait for an answer: bounded, each with its peer's start and its deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::{Inner, PeerId};
use crate::timer::Timer;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Pending {
    table: Mutex<Table>,
    limit: usize,
}

/// Ordered, so that what fails together fails in the same order in each run of a simulation.
#[derive(Debug)]
struct Table {
    next: u64,
    requests: BTreeMap<u64, Request>,
}

#[derive(Debug)]
struct Request {
    to: PeerId,
    epoch: u64,
    answer: oneshot::Sender<Result<Bytes>>,
}

/// A request that waits; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    inner: Arc<Inner>,
    correlation: u64,
    answer: oneshot::Receiver<Result<Bytes>>,
    to: PeerId,
}

impl Pending {
    /// Correlation ids count up from the node's epoch, so that an answer to a request of an earlier
    /// start finds nothing.
    pub(super) fn new(epoch: u64, limit: usize) -> Self {
        Pending { table: Mutex::new(Table { next: epoch, requests: BTreeMap::new() }), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(inner: &Arc<Inner>, to: PeerId, epoch: u64) -> Result<Waiting> {
        let (sender, answer) = oneshot::channel();
        let mut table = inner.pending.lock();
        if table.requests.len() >= inner.pending.limit {
            return Err(Error::Full);
        }
        let correlation = table.next;
        table.next = table.next.wrapping_add(1);
        table.requests.insert(correlation, Request { to, epoch, answer: sender });
        drop(table);
        Ok(Waiting { inner: inner.clone(), correlation, answer, to })
    }

    /// Answers a request of ours, when the answer comes from the peer that was asked.
    pub(super) fn complete(&self, from: PeerId, correlation: u64, answer: Result<Bytes>) {
        let mut table = self.lock();
        if table.requests.get(&correlation).is_some_and(|request| request.to == from) {
            let request = table.requests.remove(&correlation).expect("it was there under this lock");
            drop(table);
            // The requester may have gone.
            let _ = request.answer.send(answer);
        }
    }

    /// Fails what waits for a start of a peer whose presence has ended.
    pub(super) fn fail(&self, to: PeerId, epoch: u64) {
        self.fail_where(|request| request.to == to && request.epoch == epoch);
    }

    pub(super) fn fail_all(&self) {
        self.fail_where(|_| true);
    }

    fn fail_where(&self, gone: impl Fn(&Request) -> bool) {
        let failed: Vec<Request> = {
            let mut table = self.lock();
            let ids: Vec<u64> =
                table.requests.iter().filter(|(_, request)| gone(request)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| table.requests.remove(id)).collect()
        };
        for request in failed {
            let _ = request.answer.send(Err(Error::Unreachable(request.to.0)));
        }
    }
}

impl Waiting {
    pub(super) fn correlation(&self) -> u64 {
        self.correlation
    }

    pub(super) async fn wait(mut self, timer: &dyn Timer, timeout: Duration) -> Result<Bytes> {
        match select(&mut self.answer, timer.sleep(timeout)).await {
            Either::Left((answer, _)) => answer.unwrap_or(Err(Error::Unreachable(self.to.0))),
            Either::Right(((), _)) => Err(Error::Timeout(timeout)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.inner.pending.lock().requests.remove(&self.correlation);
    }
}
