//! The log of a group as openraft writes and reads it, over [`odgm_storage::log::RaftLogStorage`].
//!
//! An append returns when it is queued and visible, and reports durability through openraft's callback;
//! votes and truncations are durable on return. Whatever may wait for the disk does so off the runtime's threads.
//! The log is never purged past what the last durable snapshot restores.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::Stream;
use odgm_storage::log::{Durable, LogEntry, LogPosition};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use tokio::sync::oneshot;

use super::encode::{decode_vote, encode_vote, from_log_entry, to_log_entry};
use super::snapshot::DurablePosition;
use super::types::{Entry, LogId, Types, Vote, io_error, log_id, position};
use crate::planted::{Bug, planted};
use crate::runtime::Runtime;

/// Bytes of entries that are read at once, to send them or to apply them.
const READ_BYTES: u64 = 512 << 10;

/// The log of one group.
pub(crate) struct Log<R> {
    storage: Arc<dyn odgm_storage::log::RaftLogStorage>,
    restorable: DurablePosition,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for Log<R> {
    fn clone(&self) -> Self {
        Log { storage: self.storage.clone(), restorable: self.restorable.clone(), runtime: PhantomData }
    }
}

impl<R: Runtime> Log<R> {
    /// Over the log of a group; purged at most up to `restorable`.
    pub(crate) fn new(
        storage: Arc<dyn odgm_storage::log::RaftLogStorage>,
        restorable: DurablePosition,
    ) -> Self {
        Log { storage, restorable, runtime: PhantomData }
    }

    async fn read(&self, from: u64, to: u64, max_bytes: u64) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let entries = if from >= self.storage.cached_from() {
            self.storage.read(from, to, max_bytes)
        } else {
            let storage = self.storage.clone();
            R::blocking(move || storage.read(from, to, max_bytes)).await
        };
        let decode = |entry: LogEntry| from_log_entry(entry).map_err(io_error);
        entries.map_err(io_error)?.into_iter().map(decode).collect()
    }

    /// The part of a range that exists.
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.storage.state();
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        let end = state.last.map_or(0, |last| last.index + 1);
        (from.max(first), to.min(end))
    }
}

/// Runs a call that is durable when its callback fires, and waits for that.
async fn durable(call: impl FnOnce(Durable) -> odgm_storage::Result<()>) -> io::Result<()> {
    let (tx, rx) = oneshot::channel();
    call(Box::new(move |outcome| {
        // Nobody waits any more when the group was stopped.
        let _ = tx.send(outcome);
    }))
    .map_err(io_error)?;
    match rx.await {
        Ok(outcome) => outcome.map_err(io_error),
        Err(_) => Err(io_error(odgm_storage::Error::Closed)),
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for Log<R> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut from, to) = self.bounds(&range);
        let mut all = Vec::new();
        while from < to {
            let part = self.read(from, to, READ_BYTES).await?;
            let Some(last) = part.last() else { break };
            from = last.log_id.index + 1;
            all.extend(part);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.bounds(&range);
        let state = (self.clone(), from, to, Vec::new().into_iter());
        futures_util::stream::try_unfold(state, |(log, mut from, to, mut ready)| async move {
            loop {
                if let Some(entry) = ready.next() {
                    return Ok(Some((entry, (log, from, to, ready))));
                }
                if from >= to {
                    return Ok(None);
                }
                let part = log.read(from, to, READ_BYTES).await?;
                let Some(last) = part.last() else { return Ok(None) };
                from = last.log_id.index + 1;
                ready = part.into_iter();
            }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.storage.vote().map(decode_vote).transpose().map_err(io_error)
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for Log<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let state = self.storage.state();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if planted(Bug::VoteBeforeFsync) {
            return self.storage.save_vote(encode_vote(vote), Box::new(|_| ())).map_err(io_error);
        }
        durable(|done| self.storage.save_vote(encode_vote(vote), done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.storage.save_committed(committed.as_ref().map(position)).map_err(io_error)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.storage.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types<R> as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(to_log_entry).collect();
        let durable: Durable = Box::new(move |outcome| callback.io_completed(outcome.map_err(io_error)));
        if planted(Bug::AcknowledgeBeforeFsync) {
            durable(Ok(()));
            return self.storage.append(entries, Box::new(|_| ())).map_err(io_error);
        }
        if entries.is_empty() {
            durable(Ok(()));
            return Ok(());
        }
        self.storage.append(entries, durable).map_err(io_error)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        if planted(Bug::DropTruncation) {
            return Ok(());
        }
        durable(|done| self.storage.truncate_after(last.map(|id| id.index), done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let upto = position(&upto);
        if planted(Bug::PurgeUnsaved) {
            return self.storage.purge(upto).map_err(io_error);
        }
        let Some(restorable) = self.restorable.get() else { return Ok(()) };
        let clamped: LogPosition = if restorable.index < upto.index { restorable } else { upto };
        if self.storage.state().purged.is_some_and(|purged| purged.index >= clamped.index) {
            return Ok(());
        }
        self.storage.purge(clamped).map_err(io_error)
    }
}
