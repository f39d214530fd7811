//! The log, watched.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Watch;
use crate::log::{
    AppendOnlyLogStorage, Durable, GroupId, LogEntry, LogPosition, LogSpace, LogState, LogStatistics,
    RaftLogStorage,
};
use crate::{Error, Result};

/// The log of a node, watched.
#[derive(Debug)]
pub(in crate::composite) struct WatchedLog {
    inner: Arc<dyn AppendOnlyLogStorage>,
    watch: Watch,
}

impl WatchedLog {
    pub(in crate::composite) fn new(inner: Arc<dyn AppendOnlyLogStorage>, watch: Watch) -> Self {
        WatchedLog { inner, watch }
    }
}

impl AppendOnlyLogStorage for WatchedLog {
    fn group(&self, id: GroupId) -> Result<Arc<dyn RaftLogStorage>> {
        let watch = self.watch.of(id);
        let inner = watch.refused(self.inner.group(id))?;
        Ok(Arc::new(WatchedGroup { inner, watch }))
    }

    fn groups(&self) -> Vec<GroupId> {
        self.inner.groups()
    }

    fn remove_group(&self, id: GroupId, durable: Durable) {
        let watch = self.watch.of(id);
        let cleared = watch.clone();
        let then: Durable = Box::new(move |outcome| {
            if outcome.is_ok() {
                cleared.clear(super::Matter::Damage);
            }
            durable(outcome);
        });
        self.inner.remove_group(id, watch.durable(0, then));
    }

    fn damaged(&self) -> Vec<(GroupId, Error)> {
        self.inner.damaged()
    }

    fn space(&self) -> LogSpace {
        self.inner.space()
    }

    fn poisoned(&self) -> Option<Error> {
        self.inner.poisoned()
    }

    fn was_closed_cleanly(&self) -> Option<bool> {
        self.inner.was_closed_cleanly()
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }

    fn close(&self) -> Result<()> {
        self.watch.run(|| self.inner.close())
    }
}

#[derive(Debug)]
struct WatchedGroup {
    inner: Arc<dyn RaftLogStorage>,
    watch: Watch,
}

fn payload_bytes(entries: &[LogEntry]) -> u64 {
    entries.iter().map(|entry| entry.payload.len() as u64).sum()
}

impl RaftLogStorage for WatchedGroup {
    fn state(&self) -> LogState {
        self.inner.state()
    }

    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()> {
        let durable = self.watch.durable(payload_bytes(&entries), durable);
        self.watch.refused(self.inner.append(entries, durable))
    }

    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
        let entries = self.watch.run_read(|| self.inner.read(from, to, max_bytes))?;
        self.watch.meter().read(payload_bytes(&entries));
        Ok(entries)
    }

    fn get(&self, index: u64) -> Result<Option<LogEntry>> {
        let entry = self.watch.run_read(|| self.inner.get(index))?;
        self.watch.meter().read(payload_bytes(entry.as_slice()));
        Ok(entry)
    }

    fn exists(&self, index: u64) -> bool {
        self.inner.exists(index)
    }

    fn statistics(&self) -> LogStatistics {
        self.inner.statistics()
    }

    fn cached_from(&self) -> u64 {
        self.inner.cached_from()
    }

    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()> {
        self.watch.refused(self.inner.truncate_after(last, self.watch.durable(0, durable)))
    }

    fn purge(&self, upto: LogPosition) -> Result<()> {
        let before = self.inner.state().purged;
        self.watch.run(|| self.inner.purge(upto))?;
        if self.inner.state().purged > before {
            self.watch.meters.log_compactions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()> {
        let durable = self.watch.durable(vote.len() as u64, durable);
        self.watch.refused(self.inner.save_vote(vote, durable))
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.vote()
    }

    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()> {
        self.watch.run(|| self.inner.save_committed(committed))
    }

    fn committed(&self) -> Option<LogPosition> {
        self.inner.committed()
    }

    fn sync(&self, durable: Durable) -> Result<()> {
        self.watch.refused(self.inner.sync(self.watch.durable(0, durable)))
    }
}
