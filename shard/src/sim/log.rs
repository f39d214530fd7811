//! The log of a simulated replica: the real one, stepped, with every call told to the [`Watch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use odgm_storage::Result;
use odgm_storage::log::{Durable, EntryKind, LogEntry, LogPosition, LogState, LogStatistics, RaftLogStorage};
use odgm_storage::snapshot::RaftSnapshotStorage;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::watch::{Seen, Spot, Stored, Watch};
use crate::replication::raft::decode_vote;

/// The log of one group on one node.
#[derive(Debug)]
pub(crate) struct WatchedLog {
    pub(crate) at: Spot,
    pub(crate) inner: Arc<dyn RaftLogStorage>,
    /// Wakes the committer.
    pub(crate) wake: Arc<Notify>,
    pub(crate) watch: Arc<Watch>,
    /// What a purge must leave alone is told by them.
    pub(crate) snapshots: Arc<dyn RaftSnapshotStorage>,
}

fn stored(entry: &LogEntry) -> (u64, Stored) {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::Membership => 1,
        EntryKind::Blank => 2,
    };
    (entry.position.index, Stored { term: entry.position.term, hash: xxh3_64(&entry.payload) ^ kind })
}

impl WatchedLog {
    /// Tells what the log holds at a start.
    pub(crate) fn tell_start(&self, replica: u64) -> Result<()> {
        let state = self.inner.state();
        let mut entries = BTreeMap::new();
        let (mut from, end) =
            (state.purged.map_or(0, |at| at.index + 1), state.last.map_or(0, |at| at.index + 1));
        while from < end {
            let part = self.inner.read(from, end, 1 << 20)?;
            let Some(last) = part.last() else { break };
            from = last.position.index + 1;
            entries.extend(part.iter().map(stored));
        }
        let vote = self.inner.vote().and_then(|bytes| decode_vote(bytes).ok());
        self.watch.see(self.at, Seen::Started { replica, vote, purged: state.purged, entries });
        Ok(())
    }
}

impl RaftLogStorage for WatchedLog {
    fn state(&self) -> LogState {
        self.inner.state()
    }

    fn append(&self, entries: Vec<LogEntry>, durable: Durable) -> Result<()> {
        let told: Vec<(u64, Stored)> = entries.iter().map(stored).collect();
        let (watch, at, later) = (self.watch.clone(), self.at, told.clone());
        let durable: Durable = Box::new(move |outcome| {
            if outcome.is_ok() {
                watch.see(at, Seen::Durable { entries: later });
            }
            durable(outcome);
        });
        self.inner.append(entries, durable)?;
        self.watch.see(self.at, Seen::Appended { entries: told });
        self.wake.notify_one();
        Ok(())
    }

    fn read(&self, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
        self.inner.read(from, to, max_bytes)
    }

    fn statistics(&self) -> LogStatistics {
        self.inner.statistics()
    }

    fn cached_from(&self) -> u64 {
        self.inner.cached_from()
    }

    fn truncate_after(&self, last: Option<u64>, durable: Durable) -> Result<()> {
        self.watch.see(self.at, Seen::Truncated { keep: last });
        self.inner.truncate_after(last, durable)?;
        self.wake.notify_one();
        Ok(())
    }

    fn purge(&self, upto: LogPosition) -> Result<()> {
        let held = self.snapshots.list()?;
        let restorable = held.iter().filter_map(|info| info.meta.position).map(|at| at.index).max();
        self.watch.see(self.at, Seen::Purged { upto, restorable });
        self.inner.purge(upto)?;
        self.wake.notify_one();
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, durable: Durable) -> Result<()> {
        let decoded = decode_vote(vote.clone()).ok();
        let (watch, at) = (self.watch.clone(), self.at);
        let durable: Durable = Box::new(move |outcome| {
            if let (Ok(()), Some(vote)) = (&outcome, decoded) {
                watch.see(at, Seen::VoteDurable { vote });
            }
            durable(outcome);
        });
        self.inner.save_vote(vote, durable)?;
        if let Some(vote) = decoded {
            self.watch.see(self.at, Seen::Voted { vote });
        }
        self.wake.notify_one();
        Ok(())
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.vote()
    }

    fn save_committed(&self, committed: Option<LogPosition>) -> Result<()> {
        self.inner.save_committed(committed)
    }

    fn committed(&self) -> Option<LogPosition> {
        self.inner.committed()
    }

    fn sync(&self, durable: Durable) -> Result<()> {
        self.inner.sync(durable)?;
        self.wake.notify_one();
        Ok(())
    }
}
